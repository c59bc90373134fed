"""Port 4433: a request becomes a value, the use case answers, the answer becomes bytes. Blocks 212 and 216.

The only place where faults are rendered. Whatever goes wrong, a device is told the kind's fault and its one public
sentence; the reasons go to the trail.
The invariant: every call and every refused connection ends as exactly one recorded trail.
Must not live here: what to answer (handshake), element names (wire.messages), sockets (net).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from msgspec.structs import replace

from delegator.errors import DelegatorError, Kind
from delegator.handshake import Handshake, Peer
from delegator.model import AddressChange, Answer, Confirmation, CredentialRequest
from delegator.net.connection import Connection
from delegator.trail import LEFT_OUT, Step, Trail
from delegator.wire import canonical, messages, soap, wsdl
from delegator.wire.http import HttpError, Request, Response, check_media
from delegator.wire.refused import Refused

log = logging.getLogger(__name__)
Recorder = Callable[[Trail, int], None]


class Server:
    """The handler of the device port. `url` is the address in the WSDL, "" for the one that the caller used; `here`
    gives HOST:PORT where the caller's Host header is missing or of no use. `begun` is called before each call is
    answered, `record` after it."""

    def __init__(self, handshake: Handshake, record: Recorder, url: str,
                 here: Callable[[], str], begun: Callable[[Trail, float], None] = lambda *_: None) -> None:
        self._handshake = handshake
        self._begun = begun
        self._record = record
        self._url = url
        self._here = here

    async def answer(self, request: Request, connection: Connection) -> Response:
        """Answer one HTTP request. Never raises for anything a peer can send."""
        if request.method == "POST" and _path(request) == "/":
            return await self._call(request, connection)
        if request.method == "GET":
            return self._document(request)
        return _text(404 if request.method == "POST" else 405, "POST a SOAP request to /, or GET /?wsdl\n")

    def _document(self, request: Request) -> Response:
        address = self._url or f"https://{request.authority or self._here()}/"
        if request.target.lower() in ("/?wsdl", "/?singlewsdl"):
            return Response(200, {b"Content-Type": b"text/xml; charset=utf-8"}, wsdl.wsdl(address))
        return _text(404, "GET /?wsdl describes this service\n")

    def refused(self, connection: Connection, refused: Refused) -> None:
        """A TLS handshake that came to nothing (block 210): recorded with the certificate it concerns."""
        trail = Trail(connection.id, connection.peer_address)
        trail.mark(Step.CONNECTED, connection.connected_at)
        trail.mark(Step.REFUSED, time.monotonic_ns(), str(refused))
        trail.facts |= {"outcome": "TlsRefused", "refusal": refused.refusal.value if refused.refusal else "protocol"}
        if refused.serial:
            trail.facts |= {"certificate": refused.subject, "serial": refused.serial}
        trail.reasons, trail.genuine = (str(refused),), refused.genuine
        trail.shown = refused.leaf
        self._record(trail, logging.WARNING)

    def unreadable(self, error: HttpError, connection: Connection) -> Response:
        """Bytes that are no request: HTTP's status for it, a fault that any SOAP client reads, and a trail."""
        trail = Trail(connection.id, connection.peer_address)
        trail.mark(Step.CONNECTED, connection.connected_at)
        trail.mark(Step.AUTHENTICATED, connection.authenticated_at)
        return replace(self._refuse(soap.Version.V11, error, trail), status=error.status)

    async def _call(self, request: Request, connection: Connection) -> Response:
        trail = Trail(connection.id, connection.peer_address)
        trail.mark(Step.CONNECTED, connection.connected_at)
        trail.mark(Step.AUTHENTICATED, connection.authenticated_at)
        asked_at = time.monotonic_ns()
        self._begun(trail, asked_at / 1e9)
        version = soap.Version.V11
        try:
            check_media(request)
            # Most calls are written exactly as the schema writes them, and one expression reads those. None means that
            # this one is not: the full parser reads or refuses it.
            said = canonical.read(request.body, messages.Service.DELEGATOR)
            if said is None:
                envelope = soap.parse(request.body)
                version = envelope.version
                said = version, envelope.operation, _read(envelope.operation, trail)
            version, asked, value = said
            trail.facts["operation"] = asked.name
            trail.mark(Step.ASKED, asked_at, asked.name)
            reply = await self._answered(value, _peer(connection), trail)
            answer = soap.frame(version, messages.render_answer(asked, reply))
            response = Response(200, {b"Content-Type": version.content_type}, answer)
        except soap.SoapError as error:
            response = self._refuse(error.version, error, trail)
        except HttpError as error:
            response = replace(self._refuse(version, error, trail), status=error.status)
        except DelegatorError as error:
            response = self._refuse(version, error, trail)
        except Exception:
            log.exception("a fault of ours")
            response = self._refuse(version, DelegatorError(Kind.UNAVAILABLE, "unhandled, see the log"), trail)
        else:
            trail.facts["outcome"] = "Answered"
            trail.mark(Step.ANSWERED, time.monotonic_ns())
            self._record(trail, logging.INFO)
        return response

    def _refuse(self, version: soap.Version, error: DelegatorError, trail: Trail) -> Response:
        """The kind's fault, and nothing of the detail."""
        fault = soap.fault_of(error)
        trail.facts["outcome"] = fault.code
        trail.reasons = error.reasons
        trail.mark(Step.REFUSED, time.monotonic_ns(), fault.code)
        self._record(trail, error.appearance.log_level)
        headers = {b"Content-Type": version.content_type}
        if fault.retry_after is not None:
            headers[b"Retry-After"] = b"%d" % fault.retry_after
        return Response(soap.http_status(version, fault), headers, soap.render_fault(version, fault))

    async def _answered(self, value: messages.Request, peer: Peer, trail: Trail) -> Answer | None:
        """The reply to a request. None is an empty answer, which says that the call was heard."""
        if isinstance(value, CredentialRequest):
            return await self._handshake.provision(value, peer, trail)
        if isinstance(value, Confirmation):
            await self._handshake.confirm(value, peer, trail)
        elif isinstance(value, AddressChange):
            await self._handshake.note_address(value, peer, trail)
        return None


def _read(asked: soap.Element, trail: Trail) -> messages.Request:
    """The value of a call. Hints that were left out of it are told to operators, and never to the device."""
    left_out: list[str] = []
    try:
        return messages.read(asked, messages.Service.DELEGATOR, left_out)
    finally:
        if left_out:
            trail.facts[LEFT_OUT] = "; ".join(left_out)


def _path(request: Request) -> str:
    return request.target.partition("?")[0]


def _peer(connection: Connection) -> Peer:
    try:
        return Peer(connection.peer_address, connection.certificate)
    except ValueError as error:
        raise DelegatorError(Kind.IDENTITY, str(error)) from None


def _text(status: int, text: str) -> Response:
    return Response(status, {b"Content-Type": b"text/plain; charset=utf-8"}, text.encode())
