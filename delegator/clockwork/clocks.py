"""What time it is, as far as one look can be believed: the wall clock, checked against the one that cannot be set.

Whoever sets the clock of a machine forty days ahead for eight seconds must not decide for good what is over. So a wall
clock that jumps against the monotonic one counts only once it has stood for STOOD seconds; until then time goes on from
where it was believed. A clock that goes back to what it showed for longer counts at once, and soon after a start to
what it showed before. So does one that is set back soon after a start, since nothing is over by it that was not; one
that is set ahead then must stand for as long as the one before it did.
The invariants: what is settled jumps only by what two looks STOOD seconds apart agree on, and a clock that was stepped
for good is followed in that time; nothing is settled by the first look after a start.
Must not live here: what is decided by it. docs/clocks.md lists that, with what a wrong look costs and how it mends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

log = logging.getLogger(__name__)
STOOD = 60.0
"""Seconds that a clock must have stood at what it says: longer than a step of a time service and its correction take,
shorter than anybody waits for what is over."""
SMALL = 1.0
"""Seconds that a clock may be off without anybody being told: a slew of 500 ppm comes to 0.03 in STOOD seconds."""


@dataclass(frozen=True, slots=True)
class Offset:
    """What is to be added to the monotonic clock for the time, and when on that clock it was first seen."""

    seconds: float
    seen: float
    stood: float = 0.0
    """How long it stood, once it does no more."""

    def is_near(self, seconds: float) -> bool:
        return abs(self.seconds - seconds) <= SMALL


class Clock:
    """The time of one process. `wall` gives seconds since 1970, `steady` those of a clock that nobody sets."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        at = steady()
        self._believed = Offset(wall() - at, at)
        self._agreed = self._followed = at
        self._doubted: Offset | None = None
        self._former: Offset | None = None

    def now(self) -> datetime:
        """Aware UTC: the wall clock, unless it has just jumped."""
        return datetime.fromtimestamp(self._seconds(), UTC)

    def _seconds(self) -> float:
        wall, at = self._wall(), self._steady()
        if self._doubted is not None or not -SMALL <= wall - at - self._believed.seconds <= SMALL:
            return self._look(wall - at, at)
        self._agreed = at
        if at - self._followed >= STOOD:  # a time service slews, by no more than SMALL in STOOD seconds
            self._believed, self._followed = Offset(wall - at, self._believed.seen), at
        return wall

    @property
    def settled(self) -> bool:
        """Whether two looks agree, so that what is over by `now` is over."""
        self._seconds()
        return self._is_settled()

    def since(self) -> int:
        """Nothing that began before this time (milliseconds) is over yet, whatever `now` says; 0 once that is settled.
        What began later was timed from one look to another."""
        return 0 if self.settled else int((self._believed.seconds + self._believed.seen) * 1000)

    def over(self) -> datetime:
        """What ended before this may be left out for good: now, once that is settled; until then nothing."""
        return self.now() if self.settled else datetime.fromtimestamp(0, UTC)

    def doubt(self) -> dict[str, str]:
        """The words about a clock that is not believed, for whoever asks how we are."""
        self._seconds()
        if self._doubted is None:
            return {}
        by, patience = _words(self._doubted.seconds - self._believed.seconds), self._patience(self._doubted)
        return {"clock": f"the clock jumped {by}; it counts once it has stood for {patience:.0f} s; "
                         "next: see whether the time service set it"}

    def _is_settled(self) -> bool:
        return self._agreed - self._believed.seen >= STOOD

    def _look(self, offset: float, at: float) -> float:
        """The wall clock is not where it is believed, or was not at the last look; what is taken for the time."""
        if self._believed.is_near(offset):
            self._come_back(at)
        elif self._doubted is None or not self._doubted.is_near(offset):
            self._doubt(offset, at)
        elif at - self._doubted.seen >= self._patience(self._doubted):
            log.warning("the clock has stood for %.0f s since it jumped %s: from now on it counts",
                        at - self._doubted.seen, _words(offset - self._believed.seconds))
            self._believe(Offset(offset, self._doubted.seen), at)
        return self._believed.seconds + at

    def _doubt(self, offset: float, at: float) -> None:
        words, former = _words(offset - self._believed.seconds), self._former
        if former is not None and former.is_near(offset) and (
                former.stood >= at - self._believed.seen or not self._is_settled()):
            log.warning("the clock jumped %s, back to what it showed before: it counts at once", words)
            self._believe(Offset(offset, at - former.stood if self._is_settled() else at), at)
        elif not self._is_settled() and offset < self._believed.seconds:
            log.warning("the clock was set %s soon after the start: it counts, but nothing is over for good before it "
                        "has stood for %g s", words, STOOD)
            self._believe(Offset(offset, at), at)
        else:
            self._doubted = Offset(offset, at)
            log.warning("the clock jumped %s against the monotonic one: it counts once it has stood for %.0f s", words,
                        self._patience(self._doubted))

    def _patience(self, doubted: Offset) -> float:
        """How long a clock must stand before it counts: as long as the one before did, so that a machine which starts
        with a wrong one comes right soon."""
        return min(STOOD, doubted.seen - self._believed.seen)

    def _come_back(self, at: float) -> None:
        assert self._doubted is not None
        log.warning("the clock is back where it was; for %.0f s it was off, %s, and did not count",
                    at - self._doubted.seen, _words(self._doubted.seconds - self._believed.seconds))
        self._doubted, self._agreed = None, at

    def _believe(self, offset: Offset, at: float) -> None:
        before = self._believed
        self._former = Offset(before.seconds, before.seen, at - before.seen)
        self._believed, self._agreed, self._followed, self._doubted = offset, at, at, None


def _words(seconds: float) -> str:
    """A jump in words: by how much, and which way."""
    by = timedelta(seconds=round(abs(seconds)))
    return f"{'ahead' if seconds > 0 else 'back'} by {by if by else f'{abs(seconds):.1f} s'}"
