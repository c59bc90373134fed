"""Port 4433: a request becomes a value, the use case answers, the answer becomes bytes. Blocks 212 and 216.

Whatever goes wrong, a device is told the kind's fault and its one public sentence; the reasons go to the trail.
The invariant: every call and every refused connection ends as exactly one recorded trail.
Must not live here: which use case answers what (the composition), faults as bytes (doors.calls), element names
(wire.messages), sockets (net).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from delegator.doors.calls import Call, Operations, Refusal
from delegator.errors import DelegatorError, Kind
from delegator.net.connection import Connection
from delegator.provisioning.handshake import Peer
from delegator.trail import LEFT_OUT, Step, Trail
from delegator.wire import messages, wsdl
from delegator.wire.http import HttpError, Request, Response
from delegator.wire.refused import Refused

Recorder = Callable[[Trail, int], None]


class Server:
    """The handler of the device port. `operations` says which use case answers what; `url` is the address in the WSDL,
    "" for the one that the caller used; `here` gives HOST:PORT where the caller's Host header is missing or of no use.
    `begun` is called before each call is answered, `record` after it."""

    def __init__(self, operations: Operations[[Peer, Trail]], record: Recorder, url: str,
                 here: Callable[[], str], begun: Callable[[Trail, float], None] = lambda *_: None) -> None:
        self._operations = operations
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
        return self._refused(Call().refuse(error), trail)

    async def _call(self, request: Request, connection: Connection) -> Response:
        trail = Trail(connection.id, connection.peer_address)
        trail.mark(Step.CONNECTED, connection.connected_at)
        trail.mark(Step.AUTHENTICATED, connection.authenticated_at)
        asked_at = time.monotonic_ns()
        self._begun(trail, asked_at / 1e9)
        call = Call()
        try:
            value = _read(call, request, trail)
            trail.facts["operation"] = call.asked.name
            trail.mark(Step.ASKED, asked_at, call.asked.name)
            response = call.answer(await self._operations[type(value)](value, _peer(connection), trail))
        except Exception as error:
            return self._refused(call.refuse(error), trail)
        trail.facts["outcome"] = "Answered"
        trail.mark(Step.ANSWERED, time.monotonic_ns())
        self._record(trail, logging.INFO)
        return response

    def _refused(self, refusal: Refusal, trail: Trail) -> Response:
        """The device gets the fault, the trail gets the reasons."""
        trail.facts["outcome"] = refusal.code
        trail.reasons = refusal.error.reasons
        trail.mark(Step.REFUSED, time.monotonic_ns(), refusal.code)
        self._record(trail, refusal.error.appearance.log_level)
        return refusal.response


def _read(call: Call, request: Request, trail: Trail) -> messages.Request:
    """The value of a call. Hints that were left out of it are told to operators, and never to the device."""
    try:
        return call.read(request, messages.Service.DELEGATOR)
    finally:
        if call.left_out:
            trail.facts[LEFT_OUT] = "; ".join(call.left_out)


def _path(request: Request) -> str:
    return request.target.partition("?")[0]


def _peer(connection: Connection) -> Peer:
    try:
        return Peer(connection.peer_address, connection.certificate)
    except ValueError as error:
        raise DelegatorError(Kind.IDENTITY, str(error)) from None


def _text(status: int, text: str) -> Response:
    return Response(status, {b"Content-Type": b"text/plain; charset=utf-8"}, text.encode())
