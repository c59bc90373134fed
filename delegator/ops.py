"""The operators' own port: /healthz, /readyz, /metrics. Plain HTTP, for the inside of a machine or a cluster.

The invariant: it changes nothing and shows no secret and no service tag; whatever it is sent, devices are served on.
Must not live here: what is ready or counted (app, metrics).
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from delegator.errors import DelegatorError, Kind
from delegator.wire.http import HttpError, Request, RequestReader, Response, render_response

WITHIN = 5.0
"""Seconds for a whole request and its answer; a scraper that is slower is broken."""
Readiness = Callable[[], Awaitable[dict[str, str]]]
"""What is not in order, by part; empty when all is."""


class Shown(Protocol):
    """What is counted, of one process or of several."""

    content_type: ClassVar[str]

    def text(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Ops:
    """The handler of the port. `metrics` and `readiness` are asked at each call; `soon` says what is to be done before
    long, `read` brings the metrics up to date."""

    metrics: Shown
    readiness: Readiness
    soon: Callable[[], dict[str, str]]
    read: Callable[[], Awaitable[object]]

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
            return _json(503 if wrong else 200, {"ready": not wrong, "wrong": wrong, "soon": self.soon()})
        return _json(404, {"error": "GET /healthz, /readyz or /metrics"})

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: one request, one answer."""
        try:
            async with asyncio.timeout(WITHIN):
                writer.write(render_response(await self._exchange(reader), close=True))
                await writer.drain()
        except (TimeoutError, OSError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader) -> Response:
        requests = RequestReader()
        try:
            while True:
                data = await reader.read(16 * 1024)
                done = requests.feed(data)
                if done:
                    return await self.answer(done[0])
                if not data:
                    return _json(400, {"error": "cut in the middle"})
        except HttpError as error:
            return _json(error.status, {"error": error.detail})


def _json(status: int, data: dict[str, object]) -> Response:
    return Response(status, {b"Content-Type": b"application/json"}, json.dumps(data).encode() + b"\n")


async def listen(ops: Ops, host: str, port: int, sockets: list[socket.socket]) -> tuple[asyncio.Server, int]:
    """Open the port, or serve a socket that listens already; the port it really has. Raises DelegatorError
    (CONFIGURATION)."""
    try:
        if sockets:
            server = await asyncio.start_server(ops.connected, sock=sockets[0])
        else:
            server = await asyncio.start_server(ops.connected, host, port)
    except OSError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"cannot listen on {host} port {port}: {error.strerror}",
                             hint="choose another [ops] port, or set [ops] enabled = false") from None
    return server, int(server.sockets[0].getsockname()[1])
