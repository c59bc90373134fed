"""Several workers share one line and fill up one after the other (net.company; A6, A10)."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from delegator.net.admission import MOST
from delegator.net.company import AT_WORK, FULL, LOOK, Company, page
from delegator.net.serve import Listener


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def three(clock):
    descriptor = page(3)
    yield [Company(descriptor, number, clock) for number in (1, 2, 3)]
    os.close(descriptor)


def ours(workers):
    return [one.is_ours for one in workers]


def test_A6_while_nobody_is_at_work_whoever_is_woken_begins(three, clock):
    assert ours(three) == [True, True, True]
    three[1].took()
    assert ours(three) == [False, True, False]
    clock.now += 1.01 * AT_WORK
    assert ours(three) == [True, True, True]


def test_A6_of_several_at_work_the_first_goes_on(three):
    for one in reversed(three):
        one.took()
    assert ours(three) == [True, False, False]


def test_A6_who_is_full_leaves_the_next_to_another(three):
    for one in three:
        one.took()
    three[0].has(FULL)
    assert ours(three) == [False, True, False]
    three[1].has(FULL + 7)
    assert ours(three) == [False, False, True]
    three[2].has(FULL)
    assert ours(three) == [True, True, True], "all are full: each takes what it can"
    three[0].has(FULL - 1)
    assert ours(three) == [True, False, False]


def test_A6_no_more_are_taken_at_once_than_fit(three):
    assert three[0].room(MOST) == min(MOST, FULL)
    three[0].has(FULL - 3)
    assert (three[0].room(MOST), three[0].room(2)) == (3, 2)
    three[0].has(FULL)
    assert three[0].room(MOST) == MOST, "all are full"


@pytest.mark.parametrize("said", [float("nan"), float("inf"), -1.0, 1e300])
def test_A10_a_number_that_cannot_be_holds_nobody_up(three, said):
    three[0]._numbers[0] = said
    assert ours(three) == [True, True, True]


def test_A10_who_hangs_or_ended_is_waited_for_for_a_moment(three, clock):
    """It took one and never another. Who looks again finds the line for anybody."""
    three[0].took()
    waited = 0.0
    while not three[1].is_ours:
        clock.now += LOOK
        waited += LOOK
    assert waited < AT_WORK + LOOK + 1e-6


def test_A10_who_follows_a_worker_begins_with_nothing(clock):
    descriptor = page(2)
    first, second = Company(descriptor, 1, clock), Company(descriptor, 2, clock)
    first.took()
    first.has(FULL)
    Company(descriptor, 1, clock)
    second.took()
    assert ours([first, second]) == [False, True]
    os.close(descriptor)


async def workers_on(sock, many: int) -> list[Listener]:
    """Workers in one process, each with the same socket at a descriptor of its own."""
    descriptor = page(many)
    found = [Listener(None, company=Company(descriptor, number)) for number in range(1, many + 1)]
    for one in found:
        one.serve(sock.dup())
    os.close(descriptor)
    return found


async def knocked(port: int, times: int) -> list[socket.socket]:
    """So many who say nothing, one after the other."""
    knocking = []
    for _ in range(times):
        knocking.append(socket.create_connection(("127.0.0.1", port)))
        await asyncio.sleep(0.001)
    return knocking


async def test_A6_who_is_at_work_takes_all_until_it_is_full_then_the_next():
    sock = socket.create_server(("127.0.0.1", 0))
    workers = await workers_on(sock, 2)
    knocking = await knocked(sock.getsockname()[1], FULL)
    held = [len(one._connections) for one in workers]
    assert sorted(held) == [0, FULL]
    knocking += await knocked(sock.getsockname()[1], 3)
    await asyncio.sleep(2 * LOOK)
    assert sorted(len(one._connections) for one in workers) == [3, FULL]
    for one in knocking:
        one.close()
    for one in workers:
        await one.close(0.0)
    sock.close()


async def test_A10_a_device_is_served_although_the_worker_that_was_at_work_hangs():
    """It is not asked any more, as one that hangs; the other one takes what it leaves, within a moment."""
    sock = socket.create_server(("127.0.0.1", 0))
    workers = await workers_on(sock, 2)
    knocking = await knocked(sock.getsockname()[1], 2)
    hangs, other = sorted(workers, key=lambda one: -len(one._connections))
    assert (len(hangs._connections), len(other._connections)) == (2, 0)
    hangs.loop.remove_reader(hangs._sockets[0].fileno())
    knocking += await knocked(sock.getsockname()[1], 1)
    async with asyncio.timeout(1):
        while not other._connections:
            await asyncio.sleep(0.001)
    for one in knocking:
        one.close()
    for one in workers:
        await one.close(0.0)
    sock.close()
