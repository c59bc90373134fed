"""Hostile SSH delegates: before the keys are exchanged as bytes, after that by asyncssh's own server.

Each connection has a thread and a loop of its own, so that one that floods does not wait for another.
The invariant: none looks at who logs in; a peer that cannot be told from a real one is let in by it.
Must not live here: other layers.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import TypeAlias, cast

import asyncssh

from benchmarks.isolation.modes import Act, Mode, Site, drip, hold, pour

VERSION = b"SSH-2.0-OpenSSH_9.2\r\n"
ANSWER = '{"user_name": "temp", "password": "p"}\n'
IGNORE, DEBUG, KEXINIT, BANNER, GLOBAL, OPEN, ADJUST = 2, 4, 20, 53, 80, 90, 93
FULL = 1 << 20
"""Bytes that wait to be sent before a flood waits itself."""
for _name in ("asyncssh", "asyncio"):  # both tell of peers that hang up, which is what we are here for
    logging.getLogger(_name).setLevel(logging.CRITICAL)


def text(data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + data


def packet(payload: bytes) -> bytes:
    """In the clear (RFC 4253 section 6)."""
    padding = 8 - (len(payload) + 5) % 8
    padding += 8 if padding < 4 else 0
    return struct.pack("!IB", len(payload) + padding + 1, padding) + payload + bytes(padding)


def plain(first: bytes, more: bytes, many: int = 1000) -> Act:
    """Before any key: bytes, and then others without end."""
    def act(sock: socket.socket, site: Site) -> None:
        sock.sendall(first)
        pour(sock, itertools.repeat(more * many))
    return act


Connection: TypeAlias = "asyncssh.SSHServerConnection"
Flood = Callable[[Connection], None]


class Gate(asyncssh.SSHServer):
    """Lets everybody in; `early` is done as soon as a user name is said."""

    def __init__(self, early: Flood | None) -> None:
        self._early = early

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        if self._early is not None:
            self._task = asyncio.get_running_loop().create_task(flooding(self._connection, self._early))
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        if self._early is not None:
            await asyncio.sleep(60)
        return True


async def flooding(connection: Connection, one: Flood) -> None:
    """The same packet without end, as fast as it is taken."""
    while True:
        for _ in range(200):
            one(connection)
        await asyncio.sleep(0)
        while (wire := connection._transport) is not None and wire.get_write_buffer_size() > FULL:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


Process = Callable[["asyncssh.SSHServerProcess[str]"], Awaitable[None]]


async def answered(process: asyncssh.SSHServerProcess[str]) -> None:
    process.stdout.write(ANSWER)
    process.exit(0)


def inside(flood: Flood | None = None, process: Process = answered, early: Flood | None = None) -> Act:
    """After the handshake: a flood once the command is there, or a command that behaves as told."""
    async def started(one: asyncssh.SSHServerProcess[str]) -> None:
        if flood is not None:
            await flooding(cast(Connection, one.channel.get_connection()), flood)
        await process(one)

    async def served(sock: socket.socket, site: Site) -> None:
        connection = await asyncssh.run_server(
            sock, server_host_keys=[str(site.host_key)], server_factory=lambda: Gate(early), process_factory=started,
            allow_scp=False, encryption_algs=["aes128-gcm@openssh.com"], login_timeout=0, rekey_bytes="64G")
        await connection.wait_closed()

    def act(sock: socket.socket, site: Site) -> None:
        sock.setblocking(False)
        try:
            asyncio.run(served(sock, site))
        except asyncssh.Error as error:
            raise ConnectionResetError(str(error)) from None
    return act


def sends(number: int, *parts: bytes) -> Flood:
    return lambda connection: connection.send_packet(number, *parts)


async def never(process: asyncssh.SSHServerProcess[str]) -> None:
    await asyncio.sleep(60)


async def writing(process: asyncssh.SSHServerProcess[str]) -> None:
    while True:
        process.stdout.write("x" * 10_000)
        await process.stdout.drain()


async def complaining(process: asyncssh.SSHServerProcess[str]) -> None:
    while True:
        process.stderr.write("x" * 10_000)
        await process.stderr.drain()


async def dripping(process: asyncssh.SSHServerProcess[str]) -> None:
    while True:
        process.stdout.write(" ")
        await asyncio.sleep(0.05)


async def nonsense(process: asyncssh.SSHServerProcess[str]) -> None:
    process.stdout.write("[" * 20_000)
    process.exit(0)


def rekeyed(connection: Connection) -> None:
    if connection._kex_complete:
        connection._send_kexinit()
        connection._kexinit_sent = True


_OPENED = text(b"session") + struct.pack("!III", 0, 1 << 20, 1 << 15)
well = inside()
MODES = tuple(Mode("ssh", *row) for row in (
    ("silence", "takes the connection and says nothing", lambda sock, site: hold(sock)),
    ("banner lines", "lines before its version, without end", plain(b"", b"welcome\r\n")),
    ("long banner line", "one line before its version, without end", plain(b"", b"x" * 64)),
    ("version drip", "a byte of its version twenty times a second", lambda sock, site: drip(sock, VERSION * 5)),
    ("ignore before keys", "SSH_MSG_IGNORE without end before any key",
     plain(VERSION, packet(bytes([IGNORE]) + text(b"")))),
    ("debug before keys", "SSH_MSG_DEBUG without end before any key",
     plain(VERSION, packet(bytes([DEBUG]) + b"\0" + text(b"x") + text(b"")))),
    ("huge packet", "a packet of 256 KiB, poured", plain(VERSION + struct.pack("!IB", 1 << 18, 4), bytes(64))),
    ("ignore", "SSH_MSG_IGNORE without end in place of output", inside(sends(IGNORE, text(b"")))),
    ("ignore of 30 KiB", "the same with 30 KiB in each", inside(sends(IGNORE, text(bytes(30_000))))),
    ("debug", "SSH_MSG_DEBUG without end", inside(sends(DEBUG, b"\0", text(b"x"), text(b"")))),
    ("global requests", "requests that want a reply, without end",
     inside(sends(GLOBAL, text(b"keepalive@openssh.com"), b"\x01"))),
    ("channel opens", "channels that it opens, without end", inside(sends(OPEN, _OPENED))),
    ("window adjusts", "SSH_MSG_CHANNEL_WINDOW_ADJUST by nothing, without end",
     inside(sends(ADJUST, struct.pack("!II", 0, 0)))),
    ("login banners", "banners without end while we log in", inside(early=sends(BANNER, text(b"hello"), text(b"")))),
    ("key exchanges", "new keys again and again", inside(rekeyed)),
    ("endless output", "output without end", inside(process=writing)),
    ("endless complaints", "standard error without end", inside(process=complaining)),
    ("output drip", "a blank twenty times a second", inside(process=dripping)),
    ("never ends", "a command that never ends", inside(process=never)),
    ("nested output", "JSON 20 000 deep", inside(process=nonsense)),
))
