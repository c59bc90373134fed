"""What time it is: one look at a wall clock decides nothing for good (T-A10)."""

from __future__ import annotations

import ast
import logging
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from delegator.clockwork.clocks import SMALL, STOOD, Clock
from delegator.serving.app import App

ROOT = Path(__file__).parents[2]
HOURS = 3600.0
DAYS = 24 * HOURS
START = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Machine:
    """A machine whose clock can be set; `off` is by how much it is wrong."""

    def __init__(self, off: float = 0.0) -> None:
        self.up, self.off = 0.0, off
        self.clock = Clock(lambda: START.timestamp() + self.up + self.off, lambda: self.up + 5000)

    def wait(self, seconds: float, every: float = 5.0) -> None:
        """Time goes on; the process looks at the clock now and then."""
        until = self.up + seconds
        while self.up < until:
            self.up = min(until, self.up + every)
            self.clock.now()

    def error(self) -> float:
        """By how much what is taken for the time is wrong."""
        return (self.clock.now() - START).total_seconds() - self.up


def settled_machine() -> Machine:
    machine = Machine()
    machine.wait(STOOD)
    assert machine.clock.settled
    return machine


@pytest.mark.parametrize("off", [40 * DAYS, 3650 * DAYS, 2 * HOURS, -2 * HOURS, -20_000 * DAYS, SMALL + 0.1])
@pytest.mark.parametrize("seconds", [0.01, 8.0, STOOD - 6])
def test_TA10_a_clock_that_is_wrong_for_a_while_was_never_looked_at(off: float, seconds: float) -> None:
    machine = settled_machine()
    machine.off = off
    assert machine.error() == pytest.approx(0, abs=0.001)
    machine.wait(seconds)
    assert machine.error() == pytest.approx(0, abs=0.001)
    assert machine.clock.settled
    machine.off = 0
    assert machine.error() == pytest.approx(0, abs=0.001)
    assert machine.clock.doubt() == {}


@pytest.mark.parametrize("off", [40 * DAYS, -2 * HOURS])
def test_TA10_a_clock_that_was_set_for_good_is_followed_in_a_minute(off: float) -> None:
    machine = settled_machine()
    machine.off = off
    machine.wait(STOOD - 1)
    assert machine.error() == pytest.approx(0, abs=0.001)
    machine.wait(6)
    assert machine.error() == pytest.approx(off, abs=0.001)
    assert machine.clock.settled


def test_TA10_a_clock_that_goes_back_to_what_it_showed_for_longer_counts_at_once() -> None:
    machine = settled_machine()
    machine.wait(STOOD * 5)
    machine.off = 40 * DAYS
    machine.wait(STOOD * 3)
    assert machine.error() == pytest.approx(40 * DAYS)
    machine.off = 0
    assert machine.error() == pytest.approx(0, abs=0.001)
    assert machine.clock.settled


def test_TA10_a_wrong_clock_that_was_believed_for_a_short_time_once_is_not_at_once_again() -> None:
    """Else whoever can set it for a minute could come back a week later for a second."""
    machine = settled_machine()
    machine.off = 40 * DAYS
    machine.wait(STOOD * 2)
    machine.off = 0
    machine.wait(STOOD * 10)
    machine.off = 40 * DAYS
    assert machine.error() == pytest.approx(0, abs=0.001)


def test_TA10_a_clock_that_jumps_about_is_not_believed_until_it_stands() -> None:
    machine = settled_machine()
    for jump in range(20):
        machine.off = (jump % 3 + 1) * DAYS
        machine.wait(STOOD / 2)
        assert machine.error() == pytest.approx(0, abs=0.001)


async def test_TA10_what_was_revoked_is_refused_also_where_a_start_is_years_ahead_and_set_right_a_moment_later(
        ) -> None:
    """It has ended by the clock of the start, and that is all it has: set back, the clock counts at once."""
    machine, ends = Machine(off=3650 * DAYS), START + timedelta(days=300)

    async def revoked(now: datetime) -> frozenset[int]:
        return frozenset({7} if ends > now else ())
    store = SimpleNamespace(enrolments=SimpleNamespace(revoked=revoked))
    app = SimpleNamespace(_store=store, _clock=machine.clock, _now=machine.clock.now, _parts=None,
                          _without_withdrawn=lambda parts: parts)
    await App._withdraw(cast(App, app))
    assert app._withdrawn == {7}
    machine.off = 0.0
    machine.clock.now()
    assert app._withdrawn == {7}, "nobody has to come by first"
    machine.off = 3650 * DAYS
    machine.wait(2 * STOOD)
    await App._withdraw(cast(App, app))
    assert app._withdrawn == frozenset(), "settled: then they need not be carried along"


def test_TA10_after_a_start_nothing_is_settled_before_two_looks_agree() -> None:
    machine = Machine(off=40 * DAYS)
    machine.wait(STOOD - 1)
    assert not machine.clock.settled
    assert machine.clock.since() == pytest.approx((START.timestamp() + 40 * DAYS) * 1000, abs=1)
    machine.wait(1)
    assert machine.clock.settled
    assert machine.clock.since() == 0


def test_TA10_a_long_sleep_between_two_looks_that_do_not_agree_settles_nothing() -> None:
    machine = Machine(off=40 * DAYS)
    machine.up, machine.off = STOOD * 10, 0
    assert not machine.clock.settled
    machine.wait(STOOD * 2)
    assert machine.clock.settled
    assert machine.error() == pytest.approx(0, abs=0.001)


@pytest.mark.parametrize(("off", "later"), [(-20_000 * DAYS, 10), (-2 * HOURS, 10), (2 * HOURS, 0)])
def test_TA10_a_machine_that_starts_with_a_wrong_clock_comes_right_soon_and_is_settled_in_a_minute(
        off: float, later: float) -> None:
    """1970 without a battery, local time as UTC: the time service sets it ten seconds later. Nothing is over by a clock
    that is set back, so that is believed at once."""
    machine = Machine(off=off)
    machine.wait(10)
    machine.off = 0
    machine.clock.now()
    machine.wait(later)
    assert machine.error() == pytest.approx(0, abs=0.001)
    assert machine.clock.since() == pytest.approx((START.timestamp() + 10) * 1000, abs=1), "what was before is not over"
    machine.wait(STOOD - later)
    assert machine.clock.settled


def test_TA10_soon_after_a_start_a_clock_that_was_set_back_for_a_while_is_right_again_at_once() -> None:
    machine = Machine()
    machine.wait(5)
    machine.off = -2 * HOURS
    machine.wait(20)
    machine.off = 0
    assert machine.error() == pytest.approx(0, abs=0.001)
    assert not machine.clock.settled


def test_TA10_soon_after_a_start_too_a_clock_that_is_wrong_for_a_shorter_while_was_never_looked_at() -> None:
    machine = Machine()
    machine.wait(20)
    machine.off = 40 * DAYS
    machine.wait(8)
    assert machine.error() == pytest.approx(0, abs=0.001)
    machine.off = 0
    assert machine.error() == pytest.approx(0, abs=0.001)
    machine.wait(STOOD)
    assert machine.clock.settled


def test_TA10_a_time_service_that_slews_is_followed_and_never_doubted(caplog: pytest.LogCaptureFixture) -> None:
    machine = settled_machine()
    for _ in range(24 * 60):
        machine.off += 0.03
        machine.wait(60, every=30)
        assert machine.error() == pytest.approx(machine.off, abs=0.001)
    assert not caplog.records


def test_TA10_a_clock_that_runs_away_in_small_steps_is_followed_no_faster_than_a_second_a_minute() -> None:
    """Between two looks of a busy delegator a wild clock moves little: it is measured from where it stood a minute
    before."""
    machine = settled_machine()
    for _ in range(1000):
        machine.off += 0.05
        machine.wait(0.01, every=0.01)
    assert abs(machine.error()) <= SMALL


def test_TA10_the_log_says_that_the_clock_jumped_and_by_how_much(caplog: pytest.LogCaptureFixture) -> None:
    machine = settled_machine()
    machine.off = 40 * DAYS + 8
    machine.wait(8)
    assert "ahead by 40 days, 0:00:08" in machine.clock.doubt()["clock"]
    machine.off = 0
    machine.wait(8)
    first, last = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert "jumped ahead by 40 days, 0:00:08" in first
    assert "is back where it was; for 8 s it was off" in last


# --- who looks ----------------------------------------------------------------------------------------------------

_WALL = {"datetime": ("now", "utcnow", "today"), "date": ("today",), "time": ("time", "time_ns", "gmtime", "localtime")}


def _looks(path: Path) -> int:
    """Uses of the wall clock in a module, called or passed on."""
    found = 0
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found += node.attr in _WALL.get(node.value.id, ())
    return found


def test_TA10_every_use_of_the_wall_clock_is_listed_with_what_a_wrong_look_costs() -> None:
    """Whoever adds one writes down how it mends itself, or takes the time from delegator.clockwork.clocks."""
    page = (ROOT / "docs" / "clocks.md").read_text()
    listed = dict(re.findall(r"^\| `(delegator/[\w/]+\.py)` \| (.+) \|$", page, re.M))
    looking = {str(path.relative_to(ROOT)) for path in (ROOT / "delegator").rglob("*.py")
               if _looks(path) and "demo" not in path.parts and "device" not in path.parts}
    assert looking == set(listed)
    assert all(len(words.split("|")) == 2 for words in listed.values()), "what a wrong look costs, and why it mends"


def test_TA10_no_verb_of_the_store_looks_at_a_clock() -> None:
    """Who calls a verb tells it the time, so that a portal and a test have one clock and not the store's. What looks is
    no verb: the opening of a database, which makes the audit's key, and the saving of one that was deleted."""
    looking = {path.name for path in (ROOT / "delegator" / "store").rglob("*.py") if _looks(path)}
    assert looking == {"keeping.py", "ledger.py"}


def test_TA10_the_law_sees_a_look(tmp_path: Path) -> None:
    for source in ("datetime.now(UTC)", "call(datetime.now)", "time.time()", "f(clock=time.time)"):
        (tmp_path / "one.py").write_text(source)
        assert _looks(tmp_path / "one.py") == 1, source
    (tmp_path / "one.py").write_text("time.monotonic(); self._now(); clock.now()")
    assert _looks(tmp_path / "one.py") == 0


def test_TA10_what_a_look_costs_is_nothing_to_a_handshake() -> None:
    """Two readings and a comparison: as many calls as that, counted."""
    calls: list[str] = []
    clock = Clock(lambda: calls.append("wall") or 1e9,
                  lambda: calls.append("steady") or 5.0)  # type: ignore[func-returns-value]
    calls.clear()
    clock.now()
    assert calls == ["wall", "steady"]
    assert timedelta(seconds=STOOD) <= timedelta(minutes=2), "whoever waits for what is over waits no longer"
