"""What ends is told long before it does, again and again, and what has ended is told apart (T-A5, R-notice)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from delegator.watching.readiness import Readiness

DAY = timedelta(days=1)
START = datetime(2030, 1, 1, tzinfo=UTC)


class Clock:
    now = START

    def __call__(self) -> datetime:
        return self.now


class Store:
    async def check(self) -> None:
        pass


def readiness(**ends: timedelta) -> tuple[Readiness, Clock]:
    clock, store = Clock(), Store()
    made: Any = store
    return Readiness(made, clock, {name.replace("_", " "): START + left for name, left in ends.items()}), clock


def test_TA5_a_list_that_is_not_refreshed_is_alarmed_every_day_for_a_week_before_it_bites() -> None:
    """A list lives 30 days and is made daily: from the 24th day on something is wrong with the timer."""
    ready, clock = readiness(revocation_list=30 * DAY, server=300 * DAY)
    said: list[int] = []
    for hour in range(31 * 24):
        clock.now = START + timedelta(hours=hour)
        said += [hour] * len(ready.reminders())
    days = [hour // 24 for hour in said]
    assert days == list(range(23, 30)), "once a day; once it has ended it is no warning any more"
    clock.now = START + 25 * DAY
    assert "python -m pki crl" in ready.soon()["revocation list"]


async def test_TA5_a_list_that_has_ended_makes_the_delegator_unready() -> None:
    ready, clock = readiness(revocation_list=DAY)
    assert await ready.wrong() == {}
    clock.now = START + DAY
    assert "ended at 2030-01-02 00:00Z" in (await ready.wrong())["revocation list"]


def test_a_clock_that_was_set_back_silences_nothing() -> None:
    ready, clock = readiness(server=3 * DAY)
    assert len(ready.reminders()) == 1
    clock.now = START - 400 * DAY
    ready.reminders()
    clock.now = START
    assert len(ready.reminders()) == 1
