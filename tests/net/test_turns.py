"""T-B10: in one turn of the loop at most one piece of bytes of a peer is digested, then timers and others have theirs.

No clock: turns and bytes are counted. A peer that sends faster than we digest always has bytes there, and whoever reads
on while there are some never lets a deadline fire.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from delegator.errors import DelegatorError
from delegator.net import client, connection
from delegator.net.client import Endpoint, call
from delegator.net.connection import Connection
from delegator.net.serve import Listener
from delegator.outbound import Outbound, networks
from delegator.wire.http import Request, Response
from delegator.wire.tls import client_context, server_context
from pki import Folder, Issued
from pki.trust import TrustStore

LOOPBACK = Outbound(networks(("127.0.0.0/8",)))
ENDLESS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000
CLEAR = b"\x16\x03\x03\x00\x04\x00\x00\x00\x00" * 100_000
"""HelloRequest, 900 KB of them."""


@dataclass
class Turns:
    """Counts turns of the running loop, and keeps in which of them so many bytes were digested."""

    now: int = 0
    digested: list[tuple[int, int]] = field(default_factory=list)

    def tick(self) -> None:
        self.now += 1
        self._handle = asyncio.get_running_loop().call_soon(self.tick)

    def stop(self) -> None:
        self._handle.cancel()

    def note(self, size: int) -> None:
        self.digested.append((self.now, size))

    def check(self, most: int) -> None:
        assert len(self.digested) > 1, "nothing was to be seen"
        turns = [turn for turn, _ in self.digested]
        assert len(set(turns)) == len(turns), "twice in one turn"
        assert all(size <= most for _, size in self.digested)


@pytest.fixture
async def turns() -> Turns:
    return Turns()


@pytest.fixture
def pouring(factory: Folder) -> Iterator[Callable[[bytes, bool], int]]:
    """A server on a thread that pours, inside TLS or before it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    chain = factory.certificate_path("delegator-server", "delegator")
    context.load_cert_chain(chain, chain.with_suffix(".key"))
    listening = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def serve(data: bytes, inside: bool) -> None:
        sock, _ = listening.accept()
        with sock, contextlib.suppress(OSError):
            sock.settimeout(10)
            peer = context.wrap_socket(sock, server_side=True) if inside else sock
            with peer:
                peer.recv(65536)
                peer.sendall(data)

    def start(data: bytes, inside: bool) -> int:
        threads.append(threading.Thread(target=serve, args=(data, inside)))
        threads[0].start()
        return int(listening.getsockname()[1])
    yield start
    for thread in threads:
        thread.join()
    listening.close()


@pytest.mark.parametrize(("data", "inside"), [(ENDLESS, True), (CLEAR, False)], ids=["an answer", "a handshake"])
async def test_TB10_of_a_peer_that_is_called_one_piece_in_each_turn(
        factory: Folder, turns: Turns, pouring: Callable[[bytes, bool], int], monkeypatch: pytest.MonkeyPatch,
        data: bytes, inside: bool) -> None:
    """The loop's own `sock_recv` comes back at once while bytes are there, so a turn between two is ours to give."""
    loop = asyncio.get_running_loop()
    read = loop.sock_recv

    async def noted(sock: socket.socket, size: int) -> bytes:
        found = await read(sock, size)
        turns.note(len(found))
        return found
    monkeypatch.setattr(loop, "sock_recv", noted)
    monkeypatch.setattr(client, "RECEIVE", 1024)  # so that there are many
    context = client_context(None, None, TrustStore.load(factory.ca_path), lambda: datetime.now(UTC))
    there = Endpoint("localhost", pouring(data, inside), context, "127.0.0.1", LOOPBACK)
    turns.tick()
    with pytest.raises(DelegatorError):
        await call(there, "/", {}, b"", 30)
    turns.stop()
    turns.check(1024)


def listening(factory: Folder) -> tuple[Listener, int]:
    """One that answers everything with nothing, and its port."""
    async def answer(request: Request, one: Connection) -> Response:
        return Response(200, {}, b"")
    chain = factory.certificate_path("delegator-server", "delegator")
    listener = Listener(server_context(chain, chain.with_suffix(".key"), TrustStore.load(factory.ca_path),
                                       lambda: datetime.now(UTC)), answer)
    return listener, listener.listen("127.0.0.1", 0)[1]


async def test_TB10_of_a_peer_that_calls_one_piece_in_each_turn(
        factory: Folder, device: Callable[[str], Issued], turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pieces have come, others' connections are looked at between two of them."""
    take = Connection._received

    def noted(one: Connection, data: bytes) -> None:
        turns.note(len(data))
        take(one, data)
    monkeypatch.setattr(Connection, "_received", noted)
    monkeypatch.setattr(connection, "RECEIVE", 1024)

    listener, port = listening(factory)
    issued = device("TURNS01")
    context = ssl.create_default_context(cafile=str(factory.ca_path))
    context.load_cert_chain(issued.certificate_path, issued.key_path)

    def pour() -> None:
        with (contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as raw,
              context.wrap_socket(raw, server_hostname="localhost") as sock):
            sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\n" + ENDLESS.partition(b"\r\n")[2])
            while sock.recv(65536):
                pass
    turns.tick()
    await asyncio.to_thread(pour)
    turns.stop()
    await listener.close(1)
    turns.check(1024)


@pytest.mark.parametrize(("first", "bound"), [
    (b"\x16\x03\x03\x00\x00" * 300, connection.UNTRUSTED), (b"no TLS at all\r\n", connection.UNTRUSTED)],
    ids=["records of no data", "no TLS"])
async def test_of_a_stranger_that_was_refused_so_many_reads_are_dropped_however_small(
        factory: Folder, monkeypatch: pytest.MonkeyPatch, first: bytes, bound: int) -> None:
    """A read is work, too: 16 strangers that poured pieces of 500 bytes cost devices two and a half times the CPU."""
    reads = 0
    whole = Connection._drop

    def drop(one: Connection, data: bytes) -> None:
        nonlocal reads
        reads += 1
        whole(one, data)
    monkeypatch.setattr(Connection, "_drop", drop)
    monkeypatch.setattr(connection, "RECEIVE", 16)

    listener, port = listening(factory)

    def pour() -> None:
        with socket.create_connection(("127.0.0.1", port), 10) as sock, contextlib.suppress(OSError):
            sock.sendall(first)
            while True:
                sock.sendall(b"x" * 1000)
    await asyncio.to_thread(pour)
    await listener.close(1)
    assert 1 < reads <= bound // connection.LOOK + 1


def test_a_piece_is_no_larger_than_that() -> None:
    """What is digested of a piece is bounded by its size, see tests/wire/test_bounds.py."""
    assert max(client.RECEIVE, connection.RECEIVE) <= 64 * 1024
