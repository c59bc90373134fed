"""The way to a mail relay: a socket, TLS at once or after STARTTLS (RFC 3207, 8314), and the valve before the library.
T-B12.

TLS is spoken by our own core, which counts records: asyncio's digests a KeyUpdate after the other for as long as they
come. So aiosmtplib sees a relay without TLS on this machine, and STARTTLS is over before it says its first word.
The invariants: where TLS is wanted, nothing but EHLO and STARTTLS leaves without it, and nothing that came without it
is heard after it (RFC 3207 section 6); one session's replies are bounded in bytes and lines.
Must not live here: the mail (net.mail), what a reply is (wire.smtp).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from delegator.net.client import reached, shaken
from delegator.net.turnstile import TURN, pass_through
from delegator.net.valve import Valve
from delegator.wire.ration import Bounds, Ration
from delegator.wire.smtp import Reply, reply_in
from delegator.wire.tls import Session, TlsContext

BOUNDS = Bounds(most=16 * 1024, most_of="bytes of replies", pieces=256, pieces_of="lines of replies", ends=b"\n")
"""Of one session; Exim's has 20 lines in 900 bytes. aiosmtplib reads a reply again from its first line whenever a piece
of it comes: 256 lines, each in a piece of its own, are 20 ms of work, the 6 500 that fit into its own bound 15 s."""
_GREETING = b"220 TLS is spoken for you\r\n"
"""After STARTTLS a relay waits for EHLO; the library, which was not there, waits for a greeting."""


class RelayFailed(Exception):
    """The relay said no, or was cut off; `code` is None where it gave none."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.message, self.code = message, code


@contextlib.asynccontextmanager
async def relay_line(host: str, port: int, context: TlsContext | None, *, starttls: bool,
                     called: str) -> AsyncIterator[Valve]:
    """A connection to the relay `host`, under TLS where there is a context. `called` is our own name. Raises
    RelayFailed, OSError, DelegatorError (UNREACHABLE)."""
    try:
        sock, ration = await reached(host, port), Ration(BOUNDS)
    except OSError as error:
        raise RelayFailed(str(error)) from None
    try:
        if starttls:
            await _Talk(sock, ration).upgrade(called)
        session = None if context is None else Session(context, host)
        first = b"" if session is None else await shaken(sock, session, host)
    except BaseException:
        sock.close()
        raise
    async with Valve(sock, ration, session, _GREETING if starttls else first) as valve:
        try:
            yield valve
        except Exception:
            if valve.why:
                raise RelayFailed(valve.why) from None
            raise


class _Talk:
    """What is said before TLS."""

    def __init__(self, sock: socket.socket, ration: Ration) -> None:
        self._socket, self._ration = sock, ration
        self._loop = asyncio.get_running_loop()

    async def upgrade(self, called: str) -> None:
        """Raises RelayFailed, OSError."""
        await self._reply(220)
        if not (await self._said(f"EHLO {called}", 250)).offers("STARTTLS"):
            raise RelayFailed("it does not offer STARTTLS")
        await self._said("STARTTLS", 220)

    async def _said(self, command: str, wanted: int) -> Reply:
        await self._loop.sock_sendall(self._socket, command.encode("ascii") + b"\r\n")
        return await self._reply(wanted)

    async def _reply(self, wanted: int) -> Reply:
        said = b""
        while (reply := _read(said)) is None:
            data = await self._loop.sock_recv(self._socket, TURN)
            await pass_through(len(data))
            if not data:
                raise RelayFailed("it closed the connection")
            too_much = self._ration.took(data)
            if too_much:
                raise RelayFailed(f"{too_much} and was cut off")
            said += data
        if reply.code != wanted:
            raise RelayFailed("\n".join(reply.lines), reply.code)
        if reply.rest:  # a stranger's, to be heard as if TLS had brought it
            raise RelayFailed("it said more than it was asked for before TLS")
        return reply


def _read(said: bytes) -> Reply | None:
    try:
        return reply_in(said)
    except ValueError as error:
        raise RelayFailed(str(error)) from None
