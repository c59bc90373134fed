"""Isolation: one delegate's trouble stays its own. Breaker laws, bounds, budget."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegator.callbacks import guard as guard_module
from delegator.callbacks.breaker import OPEN_AFTER, REST, Breaker, State
from delegator.callbacks.guard import Guard, Limits
from delegator.errors import DelegatorError, Kind


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker()
    for number in range(OPEN_AFTER):
        assert breaker.admit(at, f"D{number}")
        breaker.failed(at, f"D{number}")
    return breaker


def test_it_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker()
    for _ in range(3):
        for number in range(OPEN_AFTER - 1):
            breaker.failed(0, f"D{number}")
        breaker.succeeded()
    assert breaker.state is State.CLOSED
    assert opened().state is State.OPEN


@pytest.mark.parametrize(("error", "left"), [
    (None, 0), (Kind.NOT_ENTITLED, 0), (Kind.TRY_LATER, 0), (Kind.UNREACHABLE, 8)],
    ids=["answers", "says no", "not asked", "fails"])
async def test_TB9_delegates_without_number_leave_so_many_behind_and_no_more(monkeypatch, error, left) -> None:
    """Whoever owns a reverse zone names them, and each is called once. One that is left alone is remembered longest."""
    monkeypatch.setattr(guard_module, "MOST", 8)
    guard = Guard(Limits())

    async def call() -> None:
        if error is not None:
            raise DelegatorError(error, "no")

    async def fail() -> None:
        raise DelegatorError(Kind.UNREACHABLE, "dead")
    for number in range(OPEN_AFTER):
        with pytest.raises(DelegatorError):
            await guard.run("acme-1", f"D{number}", fail)
    for number in range(100):
        with contextlib.suppress(DelegatorError):
            await guard.run(f"domain {number}", "D1", call)
    assert len(guard._gates) == (left or 1)
    assert guard.is_open("acme-1")


def test_TB9_one_device_alone_opens_nothing() -> None:
    breaker = Breaker()
    for _ in range(10 * OPEN_AFTER):
        breaker.failed(0, "D0")
    assert breaker.state is State.CLOSED
    breaker.failed(0, "D1")
    assert breaker.state is State.OPEN


def test_TB9_the_device_of_the_last_failure_does_not_take_the_trial_from_others() -> None:
    """It asks most often: a device that is never answered asks again at once, others wait for a minute and more."""
    breaker = opened()
    assert not breaker.admit(2 * REST - 0.1, "D4"), "it was the last that failed"
    assert breaker.admit(REST, "D0")
    breaker.failed(REST, "D0")
    assert breaker.admit(2 * REST, "D4")
    breaker.failed(2 * REST, "D4")
    assert breaker.admit(4 * REST, "D4"), "where nobody else asks it is let in after a second rest"


def test_after_its_rest_one_call_tries_and_decides() -> None:
    breaker = opened()
    assert not breaker.admit(REST - 0.1, "D9")
    assert breaker.admit(REST, "D9")
    assert breaker.state is State.HALF_OPEN
    assert not breaker.admit(REST, "D9"), "one trial at a time"
    breaker.failed(REST, "D9")
    assert not breaker.admit(2 * REST - 0.1, "D8")
    assert breaker.admit(2 * REST, "D8")
    breaker.succeeded()
    assert breaker.admit(2 * REST, "D9")
    assert breaker.state is State.CLOSED


def test_a_trial_that_was_cancelled_does_not_lock_the_door() -> None:
    breaker = opened()
    assert breaker.admit(REST, "D9")
    breaker.gave_up(REST)
    assert breaker.admit(REST, "D9")


@given(st.lists(st.tuples(st.sampled_from(["ask", "good", "bad", "cancel"]), st.floats(0, 20),
                          st.sampled_from(["D0", "D1"])), max_size=60))
def test_half_open_lets_one_call_in_whatever_happens(events: list[tuple[str, float, str]]) -> None:
    breaker, now, under_way = Breaker(), 0.0, 0
    for what, later, whom in events:
        now += later
        if what == "ask":
            half = breaker.state is not State.CLOSED
            if breaker.admit(now, whom):
                under_way = 1 if half else under_way + 1
                assert not half or breaker.state is State.HALF_OPEN
        elif under_way:
            under_way -= 1
            if what == "good":
                breaker.succeeded()
            elif what == "bad":
                breaker.failed(now, whom)
            else:
                breaker.gave_up(now)
        assert breaker.retry_after(now) >= 1


async def _fails() -> None:
    raise DelegatorError(Kind.UNREACHABLE, "down")


async def _works() -> str:
    return "fine"


async def test_an_open_breaker_answers_at_once_and_says_when() -> None:
    changes: list[tuple[str, State, str]] = []
    guard = Guard(Limits(), lambda *change: changes.append(change))
    for number in range(OPEN_AFTER):
        with pytest.raises(DelegatorError, match="down"):
            await guard.run("a", f"D{number}", _fails)
    with pytest.raises(DelegatorError, match="left alone") as caught:
        await guard.run("a", "D9", _works)
    assert (caught.value.kind, caught.value.retry_after) == (Kind.TRY_LATER, round(REST))
    assert guard.is_open("a")
    assert await guard.run("b", "D9", _works) == "fine", "nobody else is concerned"
    assert changes == [("a", State.OPEN, "down")]


async def test_it_closes_again_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    guard, now = Guard(Limits()), [0.0]
    monkeypatch.setattr(guard_module.time, "monotonic", lambda: now[0])
    for number in range(OPEN_AFTER):
        with pytest.raises(DelegatorError):
            await guard.run("a", f"D{number}", _fails)
    now[0] = REST
    assert await guard.run("a", "D9", _works) == "fine"
    assert await guard.run("a", "D9", _works) == "fine"


@pytest.mark.parametrize("kind", [Kind.CONFIGURATION, Kind.TRY_LATER])
async def test_TC7_trouble_of_ours_is_not_held_against_a_delegate(kind: Kind) -> None:
    """Other customers' calls may have taken all open files that calls have: this delegate was not even asked."""
    async def not_called() -> None:
        raise DelegatorError(kind, "not called")

    guard = Guard(Limits())
    for number in range(2 * OPEN_AFTER):
        with pytest.raises(DelegatorError, match="not called"):
            await guard.run("a", f"D{number}", not_called)
    assert await guard.run("a", "D0", _works) == "fine"


async def _refuses() -> None:
    raise DelegatorError(Kind.NOT_ENTITLED, "no")


async def test_TB9_a_no_is_an_answer() -> None:
    guard = Guard(Limits())
    for number in range(3 * OPEN_AFTER):
        with pytest.raises(DelegatorError, match="no"):
            await guard.run("a", f"D{number}", _refuses)
        with pytest.raises(DelegatorError, match="down"):
            await guard.run("a", f"D{number}", _fails)
    assert not guard.is_open("a")


async def test_calls_are_bounded_and_the_queue_is_too() -> None:
    guard, gate, peak, running = Guard(Limits(running=2, waiting=3)), asyncio.Event(), 0, 0

    async def slow() -> None:
        nonlocal peak, running
        running += 1
        peak = max(peak, running)
        await gate.wait()
        running -= 1

    calls = [asyncio.create_task(guard.run("a", "D9", slow)) for _ in range(7)]
    await asyncio.sleep(0.01)
    gate.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    refused = [one for one in outcomes if isinstance(one, DelegatorError)]
    assert (peak, len(refused)) == (2, 2)
    assert {one.kind for one in refused} == {Kind.TRY_LATER}


async def test_the_budget_covers_waiting_too() -> None:
    guard = Guard(Limits(running=1, budget=0.05))
    calls = [asyncio.create_task(guard.run("a", "D9", lambda: asyncio.sleep(9))) for _ in range(2)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(one, DelegatorError) and "0.05 s" in one.detail for one in outcomes)
