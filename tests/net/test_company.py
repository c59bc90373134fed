"""Several workers share one line and fill up one after the other (net.company; A6, A10)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time

import pytest

from delegator.callbacks.guard import Guard, Limits
from delegator.errors import DelegatorError
from delegator.net import serve
from delegator.net.admission import MOST
from delegator.net.company import AT_WORK, FULL, LOOK, SPENT, Company, page
from delegator.net.connection import Phase
from delegator.net.crowds import Caps
from delegator.net.serve import LONG, SLOW, Listener


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


async def workers_on(sock, many: int, now=time.monotonic, **caps: int) -> list[Listener]:
    """Workers in one process, each with the same socket at a descriptor of its own."""
    descriptor = page(many)
    found = [Listener(None, company=Company(descriptor, number, now), caps=Caps(**caps))
             for number in range(1, many + 1)]
    for one in found:
        one.serve(sock.dup())
    os.close(descriptor)
    return found


@pytest.fixture
async def line():
    """Workers on a socket, and who knocks there; all gone at the end."""
    async with contextlib.AsyncExitStack() as stack:
        sock = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        class Line:
            async def workers(self, many: int = 2, now=time.monotonic, **caps: int):
                workers = await workers_on(sock, many, now, **caps)
                for one in workers:
                    stack.push_async_callback(one.close, 0.0)
                return workers

            async def knock(self, times: int, *, at_once: bool = False) -> None:
                for _ in range(times):
                    stack.enter_context(socket.create_connection(sock.getsockname()))
                    if not at_once:
                        await asyncio.sleep(0.001)
        yield Line()


def held(workers):
    return sorted(len(one._connections) for one in workers)


async def test_A6_who_is_at_work_takes_all_until_it_is_full_then_the_next(line):
    workers = await line.workers()
    await line.knock(FULL)
    assert held(workers) == [0, FULL]
    await line.knock(3)
    await asyncio.sleep(2 * LOOK)
    assert held(workers) == [3, FULL]


async def test_A6_of_a_crowd_nobody_takes_more_than_fit(line):
    workers = await line.workers()
    await line.knock(FULL + 4, at_once=True)
    await asyncio.sleep(2 * LOOK)
    assert held(workers) == [4, FULL]


@pytest.mark.parametrize("caps", [{"connections": 8}, {"per_source": 8}, {"half_open": 8}])
async def test_R_grouped_half_of_the_places_of_one_are_left_for_later_while_the_others_have_more(line, caps):
    """Each worker has its share of the limits; who came first does not use up one share while the other is unused."""
    workers = await line.workers(**caps)
    await line.knock(8)
    await asyncio.sleep(2 * LOOK)
    assert held(workers)[0] >= 3
    assert sum(held(workers)) == 8
    assert [one.turned_away for one in workers] == [0, 0]


async def test_A10_a_device_is_served_although_the_worker_that_was_at_work_hangs(line):
    """It is not asked any more, as one that hangs; the other one takes what it leaves, within a moment."""
    workers = await line.workers()
    await line.knock(2)
    hangs, other = sorted(workers, key=lambda one: -len(one._connections))
    assert held(workers) == [0, 2]
    hangs.loop.remove_reader(hangs._sockets[0].fileno())
    await line.knock(1)
    async with asyncio.timeout(1):
        while not other._connections:
            await asyncio.sleep(0.001)


async def test_TC19_whose_answers_are_slow_leaves_what_comes_to_the_next(line, monkeypatch):
    """Each worker has its share of the calls to a delegate: waiting at one for a turn that is free at the other would
    make a slow delegate slower."""
    monkeypatch.setattr(serve, "SWEEP", 0.01)
    workers = await line.workers()
    await line.knock(SLOW + 1)
    slow, other = sorted(workers, key=lambda one: -len(one._connections))
    for one in slow._connections:
        slow.known(one)
        one._enter(Phase.ANSWERING)
    await asyncio.sleep(0.05)
    slow._company.took()
    slow._count(next(iter(slow._connections)))
    await line.knock(1)
    assert (len(slow._connections), len(other._connections)) == (SLOW + 1, 1)


async def test_TC19_whose_turns_are_long_leaves_what_comes_to_the_next(line):
    """Its core is busy, with its own devices or with another program: who comes now need not wait for that too."""
    workers = await line.workers()
    await line.knock(1)
    busy, other = sorted(workers, key=lambda one: -len(one._connections))
    busy._take = lambda *_, take=busy._take: (take(*_), busy.loop.call_soon(time.sleep, 1.1 * LONG))
    await line.knock(1)
    assert held(workers) == [0, 2]
    await asyncio.sleep(0)
    await line.knock(1)
    assert (len(busy._connections), len(other._connections)) == (2, 1)


def test_TC19_of_those_that_are_full_who_would_refuse_leaves_it_to_who_would_not(three):
    for one in three:
        one.took()
        one.has(FULL)
    three[0].has(SPENT)
    assert ours(three) == [False, True, True]
    three[1].has(SPENT)
    three[2].has(SPENT)
    assert ours(three) == [True, True, True]


async def test_TC19_whose_calls_to_a_delegate_are_all_in_use_leaves_what_comes_to_the_next(line):
    """Each of four has 4 of 16 calls and 16 of 64 places in line there. Of 70 devices nobody is refused. The clock
    stands: on a busy machine one that is spent would be taken for one that hangs, and asked again."""
    workers, over, refused = await line.workers(4, now=lambda: 1.0), asyncio.Event(), []
    for one in workers:
        guard = Guard(Limits(4, 16, 60))
        guard.used = one.used

        async def handler(request, connection, guard=guard):
            try:
                await guard.run("acme-1", "TAG", over.wait)
            except DelegatorError as error:
                refused.append(error)

        def take(*accepted, one=one, take=one._take):
            before = set(one._connections)
            take(*accepted)
            for each in one._connections - before:
                one.known(each)
                one.left(one.loop.create_task(one.answer(None, each)))
        one._handler, one._take = handler, take
    async with asyncio.timeout(20):
        for number in range(70):
            await line.knock(1)
            while sum(held(workers)) <= number:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0)  # now it is in the guard
    assert (len(refused), held(workers)[0] >= 4) == (0, True)
    over.set()
    await asyncio.gather(*(task for one in workers for task in one._left))
    assert not any(one._is_used_up for one in workers)
