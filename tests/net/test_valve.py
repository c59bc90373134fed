"""The valve between a peer and a library: what passes, what ends it, what is left afterwards. T-B10, T-B11, T-B12."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.net import client
from delegator.net import valve as valve_room
from delegator.net.calls import Calls
from delegator.net.turnstile import TURN
from delegator.net.valve import Valve
from delegator.wire.ration import LOOKS, Bounds, Ration

BOUNDS = Bounds(5000, "bytes", 100, "lines", b"\n")


@asynccontextmanager
async def valve(first: bytes = b"") -> AsyncIterator[tuple[Valve, socket.socket]]:
    """With the peer's own end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with theirs:
        async with Valve(ours, Ration(BOUNDS), first=first) as made:
            with contextlib.closing(made.inner):
                yield made, theirs


async def heard(sock: socket.socket, size: int = 1 << 16) -> bytes:
    async with asyncio.timeout(5):
        return await asyncio.get_running_loop().sock_recv(sock, size)


async def said(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_both_hear_each_other_and_the_library_hears_first_what_was_said_before() -> None:
    async with valve(first=b"220 ") as (made, peer):
        assert await heard(made.inner) == b"220 "
        await said(peer, b"hello")
        assert await heard(made.inner) == b"hello"
        await said(made.inner, b"good day" * 50_000)
        taken = b""
        while len(taken) < 400_000:
            taken += await heard(peer)
        assert taken == b"good day" * 50_000
        assert made.why == ""


async def test_no_more_than_a_turn_is_given_at_once() -> None:
    async with valve() as (made, peer):
        await said(peer, b"x" * 5000)
        sizes = []
        while sum(sizes) < 5000:
            sizes.append(len(await heard(made.inner)))
        assert max(sizes) <= 2 * TURN


@pytest.mark.parametrize(("data", "why"), [
    (b"x" * 5001, "it sent more than 5000 bytes and was cut off"),
    (b"\n" * 101, "it sent more than 100 lines and was cut off")])
async def test_what_is_too_much_ends_both_ends_and_is_said(data: bytes, why: str) -> None:
    async with valve() as (made, peer):
        await said(peer, data)
        while await heard(made.inner):
            pass
        assert made.why == why


async def test_what_the_library_still_says_after_a_cut_is_dropped_and_no_error_to_it() -> None:
    """To asyncio it would be one, and a line in the log for each word: a flood of them from outside."""
    async with valve() as (made, peer):
        await said(peer, b"x" * 5001)
        while await heard(made.inner):
            pass
        for _ in range(20):
            await said(made.inner, b"unimplemented")
        with pytest.raises(BlockingIOError):
            peer.recv(1)


async def test_a_peer_that_hangs_up_or_resets_is_an_end_to_the_library() -> None:
    async with valve() as (made, peer):
        await said(peer, b"bye")
        peer.close()
        assert await heard(made.inner) == b"bye"
        assert await heard(made.inner) == b""
        assert made.why == ""


async def test_last_words_of_the_library_still_reach_the_peer_and_nothing_is_left_open() -> None:
    before = descriptors()
    async with valve() as (made, peer):
        with socket.socket(fileno=socket.dup(peer.fileno())) as kept:
            made.inner.send(b"disconnect")
            made.inner.close()
            await asyncio.sleep(0)
            loop = asyncio.get_running_loop()
            kept.setblocking(False)
            assert await asyncio.wait_for(loop.sock_recv(kept, 100), 5) == b"disconnect"
    assert descriptors() == before


async def test_whoever_gives_up_leaves_nothing_behind() -> None:
    before, tasks = descriptors(), len(asyncio.all_tasks())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), valve() as (made, _):
            await heard(made.inner)
    assert (descriptors(), len(asyncio.all_tasks())) == (before, tasks)


async def test_TB10_an_answer_that_trickles_is_looked_at_so_often_and_no_more() -> None:
    """Our own core, too: 16 KiB of an answer, each byte alone, would be 16 000 turns of the loop."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        looks = client._Looks(ours)
        for _ in range(LOOKS):
            theirs.send(b"x")
            assert await looks.next() == b"x"
        theirs.send(b"x")
        with pytest.raises(DelegatorError, match="small pieces and was cut off"):
            await looks.next()


async def test_TC7_a_valve_counts_with_all_its_sockets_and_without_room_nothing_is_left_open(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(valve_room, "CALLS", counted := Calls(lambda: 3))
    before = descriptors()
    async with valve() as (made, _):
        assert counted.is_full(2)
        with pytest.raises(DelegatorError, match="3 sockets") as refusal:
            async with valve():
                pass
        assert refusal.value.kind is Kind.TRY_LATER
        assert made.why == ""
    assert not counted.is_full(3)
    assert descriptors() == before
