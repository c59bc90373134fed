"""One turn of the loop digests so many bytes of the peers that we call, however many call at once. T-B10."""

from __future__ import annotations

import asyncio
import collections

from delegator.net.turnstile import LOOK, OWN_TURN, TURN, Turnstile, pass_through


class Turns:
    """Counts the turns of a loop."""

    def __init__(self) -> None:
        self.now = 0
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._next)
        self.over = False

    def _next(self) -> None:
        self.now += 1
        if not self.over:
            self._loop.call_soon(self._next)


async def test_sixteen_floods_pass_no_more_in_a_turn_than_one() -> None:
    turnstile, turns = Turnstile(asyncio.get_running_loop()), Turns()
    passed: dict[int, int] = collections.Counter()

    async def flood(size: int) -> None:
        for _ in range(20):
            await turnstile.pass_through(size)
            passed[turns.now] += size

    await asyncio.gather(*(flood(300 + 100 * number) for number in range(16)))
    turns.over = True
    assert max(passed.values()) <= TURN
    assert sum(passed.values()) == 20 * sum(300 + 100 * number for number in range(16))


async def test_who_came_first_passes_first_and_a_flood_keeps_nobody_waiting_for_its_end() -> None:
    turnstile = Turnstile(asyncio.get_running_loop())
    order: list[str] = []

    async def passing(name: str, size: int, times: int) -> None:
        for _ in range(times):
            await turnstile.pass_through(size)
            order.append(name)

    flood = asyncio.create_task(passing("flood", TURN, 10))
    await asyncio.sleep(0)
    await asyncio.gather(flood, passing("other", 100, 3))
    assert order.index("other") < 3
    assert [at for at, name in enumerate(order) if name == "other"][-1] < 8


async def test_who_gave_up_waiting_takes_nothing_from_others() -> None:
    turnstile = Turnstile(asyncio.get_running_loop())
    await turnstile.pass_through(TURN)
    gone, next_one = (asyncio.create_task(turnstile.pass_through(TURN)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    async with asyncio.timeout(5):
        await next_one
        await turnstile.pass_through(50 * TURN)
        await turnstile.pass_through(0)


async def test_bytes_that_come_alone_count_as_a_look_each() -> None:
    turns = Turns()
    passed: dict[int, int] = collections.Counter()
    for _ in range(100):
        await pass_through(1)
        passed[turns.now] += 1
    turns.over = True
    assert max(passed.values()) <= TURN // LOOK


async def test_peers_that_our_own_core_reads_do_not_wait_for_those_that_a_library_reads() -> None:
    turns = Turns()
    await asyncio.sleep(0)
    await pass_through(TURN)
    now = turns.now
    await pass_through(OWN_TURN, OWN_TURN)
    assert turns.now == now
    await pass_through(TURN)
    assert turns.now > now
    turns.over = True
