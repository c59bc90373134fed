"""SSH servers that send what no server should, made of asyncssh's own server end, in the loop of the test. T-B11."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncssh
from asyncssh.packet import Boolean, String, UInt32

from delegator.model import Secret, SshCallback

MANY = 1500
"""Packets of one flood: several times what anybody is to digest."""
PACKETS: dict[str, tuple[int, tuple[bytes, ...]]] = {
    "ignore": (2, (String(b""),)),
    "unimplemented": (3, (UInt32(0),)),
    "debug": (4, (Boolean(False), String(b""), String(b""))),
    "unknown": (191, ()),
    "global request": (80, (String(b"x@y"), Boolean(True))),
    "global request without answer": (80, (String(b"x@y"), Boolean(False))),
    "window": (93, (UInt32(0), UInt32(1))),
    "no output": (94, (UInt32(0), String(b""))),
    "output of a byte": (94, (UInt32(0), String(b"x"))),
    "errors of a byte": (95, (UInt32(0), UInt32(1), String(b"x"))),
    "channel request": (98, (UInt32(0), String(b"x"), Boolean(True))),
    "extensions": (7, (UInt32(0),)),
    "a channel of its own": (90, (String(b"x"), UInt32(0), UInt32(0), UInt32(0)))}
"""Once the command runs."""


class _Server(asyncssh.SSHServer):
    """Lets everybody in; with a flood of its own before that, where there is one."""

    def __init__(self, before: Callable[[Any], None] | None) -> None:
        self._before = before

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        if self._before is not None:
            self._before(self._connection)
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return True


Command = Callable[["asyncssh.SSHServerProcess[str]"], None]


@asynccontextmanager
async def sshd(command: Command, before: Callable[[Any], None] | None = None,
               **options: Any) -> AsyncIterator[SshCallback]:
    """How a delegate whose server does such things is registered."""
    key = asyncssh.generate_private_key("ssh-ed25519")

    async def run(process: asyncssh.SSHServerProcess[str]) -> None:
        command(process)

    server = await asyncssh.listen("127.0.0.1", 0, server_factory=lambda: _Server(before), server_host_keys=[key],
                                   process_factory=run, **options)
    async with server:
        port = server.sockets[0].getsockname()[1]
        private = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
        yield SshCallback("delegate.acme.example", "u", Secret(private), key.export_public_key().decode(), port,
                          "getCred {tag}", "127.0.0.1")


@asynccontextmanager
async def raw(says: Callable[[asyncio.StreamWriter], None]) -> AsyncIterator[SshCallback]:
    """One that speaks by hand, before there are keys."""
    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        says(writer)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(met, "127.0.0.1", 0)
    async with server, sshd(lambda process: None) as callback:
        yield SshCallback(callback.host, callback.user, callback.private_key, callback.host_key,
                          server.sockets[0].getsockname()[1], callback.command, callback.address)


def connection_of(process: asyncssh.SSHServerProcess[str]) -> Any:
    return process.channel.get_connection()


def flooding(kind: str) -> Command:
    """A command that floods with packets of a kind, and then answers well."""
    def command(process: asyncssh.SSHServerProcess[str]) -> None:
        number, fields = PACKETS[kind]
        for _ in range(MANY):
            connection_of(process).send_packet(number, *fields)
        answers(process)
    return command


def answers(process: asyncssh.SSHServerProcess[str]) -> None:
    process.stdout.write("<Credential><UserName>u</UserName><Password>p</Password></Credential>")
    process.exit(0)
