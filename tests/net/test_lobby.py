"""T-C7: a small port holds so many connections at most, and neither silence nor a crowd locks anybody out."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from types import SimpleNamespace
from typing import cast

import pytest

from delegator.config import OpsSettings
from delegator.net import lobby
from delegator.watching import ops
from delegator.watching.metrics import Metrics

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class Slow:
    """Readiness that takes as long as the test lets it."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.free.set()
        self.asked = 0

    async def __call__(self) -> dict[str, str]:
        self.asked += 1
        await self.free.wait()
        return {}


async def nothing() -> None:
    return None


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
async def port(slow: Slow) -> AsyncIterator[ops.Port]:
    made = ops.Port(ops.Ops(Metrics(), slow, dict, nothing))
    await made.open(OpsSettings(True, "127.0.0.1", 0), [])
    yield made
    made.close()
    slow.free.set()
    await until(lambda: inside(made) == 0, 8)


def inside(port: ops.Port) -> int:
    assert port._lobby is not None
    return len(port._lobby)


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def knock(port: ops.Port, source: str = "127.0.0.1") -> socket.socket:
    assert port.number is not None
    sock = socket.create_connection(("127.0.0.1", port.number), timeout=5, source_address=(source, 0))
    sock.setblocking(False)
    return sock


async def answer(sock: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    found = b""
    with closing(sock):
        async with asyncio.timeout(5):
            try:
                while data := await asyncio.get_running_loop().sock_recv(sock, 65536):
                    found += data
            except ConnectionError:
                pass
    return found


async def ask(port: ops.Port, request: bytes = GET, source: str = "127.0.0.1") -> bytes:
    sock = knock(port, source)
    sock.send(request)
    return await answer(sock)


async def crowd(port: ops.Port, many: int, say: bytes = b"", source: str = "127.0.0.1") -> list[socket.socket]:
    """One after the other, as the kernel's line is short."""
    socks = []
    for number in range(many):
        socks.append(knock(port, source))
        if say:
            socks[-1].send(say)
        if number % lobby.TURN == 0:
            await asyncio.sleep(0.01)
    await until(lambda: inside(port) >= min(many, lobby.MOST))
    return socks


@pytest.mark.parametrize("say", [b"", b"GET /he", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx"],
                         ids=["silent", "half a head", "half a body"])
async def test_TC7_many_silent_ones_take_so_many_places_and_keep_nobody_out(
        port: ops.Port, say: bytes, caplog: pytest.LogCaptureFixture) -> None:
    socks = await crowd(port, 5 * lobby.MOST, say)
    assert inside(port) <= lobby.MOST
    assert b"200 OK" in await ask(port)
    assert inside(port) <= lobby.MOST
    assert len([one for one in caplog.records if one.levelno >= logging.WARNING]) == 1, "one line, not one for each"
    for one in socks:
        one.close()


async def test_TC7_who_says_nothing_is_gone_after_a_while(port: ops.Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "SILENT", 0.1)
    socks = await crowd(port, 10)
    await until(lambda: inside(port) == 0)
    for one in socks:
        one.close()


async def test_TC7_who_reads_no_answer_is_put_out_too(port: ops.Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lobby, "WITHIN", 0.3)
    monkeypatch.setattr(type(port._handler.metrics), "text", lambda _: b"x" * 50_000_000)
    sock = knock(port)
    sock.send(GET.replace(b"healthz", b"metrics"))
    await until(lambda: inside(port) == 1)
    await until(lambda: inside(port) == 0)
    sock.close()


async def test_TC7_a_crowd_that_is_being_answered_gives_way_to_another_source(port: ops.Port, slow: Slow) -> None:
    slow.free.clear()
    socks = await crowd(port, lobby.MOST, GET.replace(b"healthz", b"readyz"))
    await until(lambda: slow.asked == lobby.MOST)
    assert await ask(port) == b"", "one more of the same source is let go"
    assert b"200 OK" in await ask(port, source="127.0.0.2"), "the monitoring elsewhere is answered"
    slow.free.set()
    assert sum([b"200 OK" in await answer(one) for one in socks]) == lobby.MOST - 1


async def test_TC7_no_descriptor_left_is_told_once_and_does_not_spin(
        port: ops.Port, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    inner, tries = port._lobby, 0
    assert inner is not None

    def accept() -> None:
        nonlocal tries
        tries += 1
        raise OSError(errno.EMFILE, "Too many open files")
    (real,) = inner._listening
    broken = cast(socket.socket, SimpleNamespace(accept=accept, fileno=real.fileno))
    monkeypatch.setattr(lobby, "BREATH", 0.02)
    inner._loop.remove_reader(real.fileno())
    inner._listening[:] = [broken]
    inner._look_again(broken)
    with closing(knock(port)):
        await until(lambda: tries >= 5)
    assert tries < 50, "it takes a breath between two tries"
    assert ["EMFILE" in one.getMessage() for one in caplog.records] == [True]
    assert not any(one.exc_info for one in caplog.records)
    inner._listening[:] = [real]


def test_TC7_what_may_happen_a_thousand_times_is_said_once_a_minute_with_how_often() -> None:
    now = 100.0
    seldom = lobby.Seldom(lambda: now)
    assert [seldom.times() for _ in range(1000)] == [1] + [0] * 999
    now += lobby.SELDOM
    assert seldom.times() == 1000


@pytest.mark.parametrize(("piece", "most"), [(1, lobby.DROPPED // lobby.LOOK), (8 * lobby.READ, 5)])
async def test_TC18_of_who_goes_on_sending_so_many_reads_are_dropped_then_the_connection_ends(
        monkeypatch: pytest.MonkeyPatch, piece: int, most: int) -> None:
    """However small the pieces are: a read is work, too."""
    reads = 0
    whole = lobby.Guest.read

    async def read(guest: lobby.Guest) -> bytes:
        nonlocal reads
        reads += 1
        with contextlib.suppress(BlockingIOError):
            theirs.send(b"x" * piece)
        return await whole(guest)
    monkeypatch.setattr(lobby.Guest, "read", read)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        await lobby.Guest(ours, "").farewell()
    assert 1 < reads <= most


async def test_TC7_who_is_put_out_before_his_first_turn_is_closed_all_the_same() -> None:
    """Several sockets that listen may bring more in one turn than there are places."""
    async def serve(guest: lobby.Guest) -> None:
        await asyncio.sleep(60)
    full, pairs = lobby.Lobby("port", serve), [socket.socketpair() for _ in range(lobby.MOST + 5)]
    for ours, _ in pairs:
        full._enter(ours, "")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [ours.fileno() for ours, _ in pairs[:5]] == [-1] * 5
    assert len(full) == lobby.MOST
    for _, theirs in pairs:
        theirs.close()
    for guest in list(full._guests):
        full._put_out(guest)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert {ours.fileno() for ours, _ in pairs} == {-1}
