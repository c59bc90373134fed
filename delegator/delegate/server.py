"""The delegate's port: one request becomes one answer. RequestCredential and NotifyDeployed from delegators,
provisioning data for devices, the WSDL for anybody.

The invariants: who asks is settled before what they say is looked at; the caller is told a kind's one sentence, the
details go to the log; no secret is ever logged.
Must not live here: who may (access), what is remembered (ledger), files (provisioning), sockets (net).
"""

from __future__ import annotations

import logging
import socket
import time
import zlib
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from delegator.attempts import Attempts
from delegator.delegate import provisioning
from delegator.delegate.access import REMEMBERED, WINDOW, Shown, allowed, check_delegator, read_basic
from delegator.delegate.credentials import compose
from delegator.delegate.ledger import Ledger
from delegator.doors.calls import Call, Operations, operation
from delegator.errors import DelegatorError, Kind
from delegator.model import Credential, DelegateRequest, Deployment, Device
from delegator.model.places import normal_name
from delegator.net.aside import aside
from delegator.net.connection import Connection
from delegator.wire import messages, soap, wsdl
from delegator.wire.http import HttpError, Request, Response
from delegator.wire.refused import Refused

log = logging.getLogger(__name__)
DATA = "/provisioning"
READING = 10.0
"""Seconds for a document of a device: a third of its patience with an answer."""
LANES = 16
"""Documents read at the same time, and threads that a folder can hold which does not answer."""
AGAIN = 30
"""Seconds until a device asks again for what could not be read just now."""
_TEXT = b"text/plain; charset=utf-8"
_CHALLENGE = b'Basic realm="provisioning", charset="UTF-8"'


def _text(status: int, text: str, headers: dict[bytes, bytes] | None = None) -> Response:
    return Response(status, {b"Content-Type": _TEXT, **(headers or {})}, f"{text}\n".encode())


def _unauthorized() -> Response:
    """The one answer for no credential, an unknown, a wrong, an expired and a void one."""
    return _text(401, "a credential in force is needed", {b"WWW-Authenticate": _CHALLENGE})


class Server:
    """The handler of the port. `now` gives aware UTC; `url` is the address in the WSDL, "" for the caller's,
    or HOST:PORT as `here` has it where the caller said none."""

    def __init__(self, ledger: Ledger, delegators: frozenset[str], data: Path, now: Callable[[], datetime], *,
                 lifetime: timedelta, url: str = "", here: Callable[[], str] = socket.gethostname) -> None:
        self._ledger = ledger
        self._delegators = frozenset(map(normal_name, delegators))
        self._data = data
        self._now = now
        self._lifetime = lifetime
        self._url = url
        self._here = here
        self._attempts = Attempts(time.monotonic, WINDOW, REMEMBERED)
        self._operations: Operations[[str]] = {**operation(DelegateRequest, self._credential),
                                               **operation(Deployment, self._deployed)}

    async def answer(self, request: Request, connection: Connection) -> Response:
        """Answer one HTTP request. Never raises for anything a peer can send."""
        path, _, query = request.target.partition("?") if request.target.startswith("/") else ("/", "", "")
        if request.method == "POST" and path == "/":
            return await self._call(request, connection)
        if request.method != "GET":
            return _text(405, "POST SOAP to /, GET /?wsdl, GET /provisioning", {b"Allow": b"GET, POST"})
        if path == DATA or path.startswith(DATA + "/"):
            return await self._provide(request, path[len(DATA) + 1:], connection)
        if path == "/" and query.lower() in ("wsdl", "singlewsdl"):
            address = self._url or f"https://{request.authority or self._here()}/"
            return Response(200, {b"Content-Type": b"text/xml; charset=utf-8"}, wsdl.delegate_wsdl(address))
        return _text(404, "there is /?wsdl and /provisioning")

    def refused(self, connection: Connection, refused: Refused) -> None:
        """A TLS handshake that came to nothing."""
        log.warning("%s %s: TLS refused: %s", connection.id, connection.peer_address, refused)

    def unreadable(self, error: HttpError, connection: Connection) -> Response:
        """Bytes that are no request: HTTP's status for it, and a fault that any SOAP client reads."""
        return _refused(Call(), error, connection)

    # --- from delegators ---

    async def _call(self, request: Request, connection: Connection) -> Response:
        call = Call(_version_of(request))
        try:
            caller = check_delegator(connection.certificate_der, self._delegators)
            value = call.read(request, messages.Service.DELEGATE)
            reply = await self._operations[type(value)](value, caller)
            if call.left_out:
                log.info("%s %s: left out: %s", connection.id, caller, "; ".join(call.left_out))
            return call.answer(reply)
        except Exception as error:
            return _refused(call, error, connection)

    async def _credential(self, request: DelegateRequest, caller: str) -> Credential:
        now = self._now()
        credential = await self._ledger.learn(request, compose(now + self._lifetime), now)
        log.info("%s asks for %s, claim %s: user %s until %s", caller, request.device.service_tag, request.claim_id,
                 credential.user_name, credential.not_after)
        return credential

    async def _deployed(self, deployment: Deployment, caller: str) -> None:
        """An unknown claim is acknowledged too: it is news, not a question, and a delegator repeats it until then."""
        entry = await self._ledger.conclude(deployment, self._now())
        tag = entry.device.service_tag if entry else "a claim not known here"
        log.log(logging.INFO if entry else logging.WARNING, "%s tells: %s, claim %s: %s %a", caller, tag,
                deployment.claim_id, deployment.result.value, deployment.detail or "")

    # --- for devices ---

    async def _provide(self, request: Request, tag: str, connection: Connection) -> Response:
        shown = read_basic(request.header("authorization"))
        if shown is None:
            return _unauthorized()
        try:
            return await self._served(shown, tag, connection)
        except DelegatorError as error:
            log.error("%s %s: %s", connection.id, connection.peer_address, error.detail)
            if error.kind is Kind.UNAVAILABLE:
                return _text(503, "the provisioning data is not available now", {b"Retry-After": b"%d" % AGAIN})
            return _text(500, "the provisioning data is not available")

    async def _served(self, shown: Shown, tag: str, connection: Connection) -> Response:
        wait = self._attempts.wait(allowed(shown.user_name, connection.peer_address))
        if wait:
            log.warning("%s %s: too many wrong credentials", connection.id, connection.peer_address)
            return _text(429, "too many wrong credentials", {b"Retry-After": b"%d" % wait})
        entry = await self._ledger.find(shown.user_name)
        if not self._ledger.is_password(entry, shown.password, self._now()):
            self._attempts.missed(allowed(shown.user_name, connection.peer_address))
            log.warning("%s %s: no credential in force", connection.id, connection.peer_address)
            return _unauthorized()
        connection.vouch()
        if tag not in ("", entry.device.service_tag):
            return _text(403, "not for this credential")
        body = await self._document(entry.device)
        await self._ledger.fetched(entry, self._now())
        log.info("%s %s: %s fetches its data, %d bytes", connection.id, connection.peer_address,
                 entry.device.service_tag, len(body))
        return Response(200, {b"Content-Type": b"text/xml", b"Cache-Control": b"no-store"}, body)

    async def _document(self, device: Device) -> bytes:
        """Read aside, in one of so many lanes: a folder that does not answer costs so many threads and nobody else's
        time. Raises DelegatorError (UNAVAILABLE)."""
        lane = zlib.crc32(device.service_tag.encode()) % LANES
        return await aside(partial(provisioning.document, self._data, device),
                           f"reading provisioning data, lane {lane}", READING)


def _version_of(request: Request) -> soap.Version:
    """What a caller probably speaks whose body is not read."""
    return soap.Version.V12 if "soap+xml" in request.header("content-type") else soap.Version.V11


def _refused(call: Call, error: Exception, connection: Connection) -> Response:
    """The caller gets the fault, the log gets the detail."""
    refusal = call.refuse(error)
    log.log(refusal.error.appearance.log_level, "%s %s: %s: %s", connection.id, connection.peer_address, refusal.code,
            refusal.error.detail)
    return refusal.response
