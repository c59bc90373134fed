"""The operators' own port: /healthz, /readyz, /metrics. Plain HTTP, for the inside of a machine or a cluster.

The invariant: it changes nothing and shows no secret and no service tag; whatever it is sent, devices are served on:
it has its own small share of connections (net.lobby).
Must not live here: what is ready or counted (serving.app, metrics).
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from delegator.config import OpsSettings
from delegator.errors import DelegatorError, Kind
from delegator.net.listening import Unlistenable, opened
from delegator.net.lobby import SILENT, Guest, Lobby
from delegator.wire.http import HttpError, Request, RequestReader, Response, render_response

Readiness = Callable[[], Awaitable[dict[str, str]]]
"""What is not in order, by part; empty when all is."""


class Shown(Protocol):
    """What is counted, of one process or of several."""

    content_type: ClassVar[str]

    def text(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Ops:
    """The handler of the port. `metrics` and `readiness` are asked at each call; `soon` says what is to be done before
    long, `read` brings the metrics up to date; `unserved` says who is not being served, whoever would do better."""

    metrics: Shown
    readiness: Readiness
    soon: Callable[[], dict[str, str]]
    read: Callable[[], Awaitable[object]]
    unserved: Callable[[], dict[str, str]] = dict

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        path = request.target.partition("?")[0]
        if request.method != "GET":
            return _json(405, {"error": "GET /healthz, /readyz or /metrics"})
        if path == "/metrics":
            await self.read()
            return Response(200, {b"Content-Type": self.metrics.content_type.encode()}, self.metrics.text())
        if path == "/healthz":
            return _json(200, {"alive": True})
        if path == "/readyz":
            wrong = await self.readiness()
            unserved = self.unserved()
            return _json(503 if wrong else 200, {"ready": not wrong, "wrong": wrong, "soon": self.soon(),
                                                 **({"unserved": unserved} if unserved else {})})
        return _json(404, {"error": "GET /healthz, /readyz or /metrics"})

    async def connected(self, guest: Guest) -> None:
        """One connection: one request, one answer."""
        try:
            async with asyncio.timeout(SILENT):
                request = await _request(guest)
            guest.heard = True
            response = await self.answer(request)
        except HttpError as error:
            response = _json(error.status, {"error": error.detail})
        guest.heard = False
        await guest.send(render_response(response, close=True))


async def _request(guest: Guest) -> Request:
    """The first request that comes. Raises HttpError."""
    requests = RequestReader()
    while True:
        data = await guest.read()
        done = requests.feed(data)
        if done:
            return done[0]
        if not data:
            raise HttpError(400, "cut in the middle")


def _json(status: int, data: dict[str, object]) -> Response:
    return Response(status, {b"Content-Type": b"application/json"}, json.dumps(data).encode() + b"\n")


class Port:
    """Where the handler listens. `number` is the port it really has, None where it is off."""

    def __init__(self, handler: Ops) -> None:
        self._handler = handler
        self._settings = OpsSettings()
        self._lobby: Lobby | None = None
        self._given = False
        self.number: int | None = None

    async def open(self, settings: OpsSettings, sockets: list[socket.socket]) -> None:
        """Listen, or serve a socket that listens already. Raises DelegatorError (CONFIGURATION)."""
        self._given = bool(sockets)
        listening = sockets or self._opened(settings)
        self._lobby = Lobby("operators' port", self._handler.connected)
        for one in listening:
            self._lobby.listen(one)
        self._settings = settings
        self.number = int(listening[0].getsockname()[1]) if listening else None

    async def move(self, settings: OpsSettings) -> None:
        """Listen where the settings say now; a socket that was handed over stays. Raises DelegatorError
        (CONFIGURATION), and it is as it was."""
        before = self._settings
        if settings == before or self._given:
            return
        if settings.port and settings.port in (before.port, self.number):  # the new one may overlap with it
            self.close()
            try:
                await self.open(settings, [])
            except DelegatorError:
                await self.open(before, [])
                raise
        else:
            old = self._lobby
            await self.open(settings, [])
            if old is not None:
                old.close()

    def _opened(self, settings: OpsSettings) -> list[socket.socket]:
        try:
            return opened(settings.host, settings.port) if settings.enabled else []
        except DelegatorError as error:
            raise refused(error) from None

    def close(self) -> None:
        if self._lobby is not None:
            self._lobby.close()


def refused(error: DelegatorError) -> DelegatorError:
    """Why the port cannot be opened, told as the port's own: devices have one too."""
    hint = f"[ops] host and port; {error.hint}; or set [ops] enabled = false"
    return Unlistenable(Kind.CONFIGURATION, f"operators' port: {error.detail}", hint=hint,
                        taken=isinstance(error, Unlistenable) and error.taken)
