"""Isolation: one delegate's trouble stays its own. Breaker laws, bounds, budget."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegator.callbacks import guard as guard_module
from delegator.callbacks.breaker import OPEN_AFTER, REST, Breaker, State
from delegator.callbacks.guard import Guard, Limits
from delegator.errors import DelegatorError, Kind


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(OPEN_AFTER):
        assert breaker.admit(at)
        breaker.failed(at)
    return breaker


def test_it_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker()
    for _ in range(3):
        for _ in range(OPEN_AFTER - 1):
            breaker.failed(0)
        breaker.succeeded()
    assert breaker.state is State.CLOSED
    assert opened().state is State.OPEN


def test_after_its_rest_one_call_tries_and_decides() -> None:
    breaker = opened()
    assert not breaker.admit(REST - 0.1)
    assert breaker.admit(REST)
    assert breaker.state is State.HALF_OPEN
    assert not breaker.admit(REST), "one trial at a time"
    breaker.failed(REST)
    assert not breaker.admit(2 * REST - 0.1)
    assert breaker.admit(2 * REST)
    breaker.succeeded()
    assert breaker.admit(2 * REST)
    assert breaker.state is State.CLOSED


def test_a_trial_that_was_cancelled_does_not_lock_the_door() -> None:
    breaker = opened()
    assert breaker.admit(REST)
    breaker.gave_up(REST)
    assert breaker.admit(REST)


@given(st.lists(st.tuples(st.sampled_from(["ask", "good", "bad", "cancel"]), st.floats(0, 20)), max_size=60))
def test_half_open_lets_one_call_in_whatever_happens(events: list[tuple[str, float]]) -> None:
    breaker, now, under_way = Breaker(), 0.0, 0
    for what, later in events:
        now += later
        if what == "ask":
            half = breaker.state is not State.CLOSED
            if breaker.admit(now):
                under_way = 1 if half else under_way + 1
                assert not half or breaker.state is State.HALF_OPEN
        elif under_way:
            under_way -= 1
            if what == "good":
                breaker.succeeded()
            else:
                {"bad": breaker.failed, "cancel": breaker.gave_up}[what](now)
        assert breaker.retry_after(now) >= 1


async def _fails() -> None:
    raise DelegatorError(Kind.UNREACHABLE, "down")


async def _works() -> str:
    return "fine"


async def test_an_open_breaker_answers_at_once_and_says_when() -> None:
    changes: list[tuple[str, State, str]] = []
    guard = Guard(Limits(), lambda *change: changes.append(change))
    for _ in range(OPEN_AFTER):
        with pytest.raises(DelegatorError, match="down"):
            await guard.run("a", _fails)
    with pytest.raises(DelegatorError, match="left alone") as caught:
        await guard.run("a", _works)
    assert (caught.value.kind, caught.value.retry_after) == (Kind.TRY_LATER, round(REST))
    assert guard.is_open("a")
    assert await guard.run("b", _works) == "fine", "nobody else is concerned"
    assert changes == [("a", State.OPEN, "down")]


async def test_it_closes_again_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    guard, now = Guard(Limits()), [0.0]
    monkeypatch.setattr(guard_module.time, "monotonic", lambda: now[0])
    for _ in range(OPEN_AFTER):
        with pytest.raises(DelegatorError):
            await guard.run("a", _fails)
    now[0] = REST
    assert await guard.run("a", _works) == "fine"
    assert await guard.run("a", _works) == "fine"


async def test_calls_are_bounded_and_the_queue_is_too() -> None:
    guard, gate, peak, running = Guard(Limits(running=2, waiting=3)), asyncio.Event(), 0, 0

    async def slow() -> None:
        nonlocal peak, running
        running += 1
        peak = max(peak, running)
        await gate.wait()
        running -= 1

    calls = [asyncio.create_task(guard.run("a", slow)) for _ in range(7)]
    await asyncio.sleep(0.01)
    gate.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    refused = [one for one in outcomes if isinstance(one, DelegatorError)]
    assert (peak, len(refused)) == (2, 2)
    assert {one.kind for one in refused} == {Kind.TRY_LATER}


async def test_the_budget_covers_waiting_too() -> None:
    guard = Guard(Limits(running=1, budget=0.05))
    calls = [asyncio.create_task(guard.run("a", lambda: asyncio.sleep(9))) for _ in range(2)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(one, DelegatorError) and "0.05 s" in one.detail for one in outcomes)
