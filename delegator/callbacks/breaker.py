"""A circuit breaker: after several failures in a row a delegate is left alone for a while, then tried by one call.

Pure: time is passed in, as monotonic seconds. closed -> open -> half-open -> closed, or open again.
The invariants: while it is half-open at most one call is under way; one subject alone (a device, a claim) neither opens
it nor keeps it open, as long as others ask.
Must not live here: calls, clocks, what counts as a failure (callbacks.guard).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

OPEN_AFTER = 5
"""Failures in a row: one lost answer is nothing, five are a pattern, and each has cost a device a retry. They are of
two devices at least: a delegate that fails one device for ever is that device's trouble."""
REST = 30.0
"""Seconds a delegate is left alone: a third of a device's usual 90 s, so that no device waits a round for nothing."""


class State(enum.Enum):
    """Where a breaker stands; the value is what operators and metrics see."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(slots=True)
class Breaker:
    """The state for one delegate."""

    state: State = State.CLOSED
    failures: int = 0
    opened_at: float = 0.0
    first: str = ""
    """Whom the first of the failures in a row concerned."""
    alone: bool = True
    """Whether all of them concerned that one."""
    last: str = ""
    """Whom the last failure concerned."""

    def admit(self, now: float, whom: str) -> bool:
        """May a call that concerns `whom` go out now? Asking when the rest is over takes the one trial of half-open.
        Whom the last failure concerned has it only after a second rest, so that one device which its delegate never
        answers does not take every trial from all others."""
        if self.state is State.CLOSED:
            return True
        rest = REST if whom != self.last else 2 * REST
        if self.state is State.OPEN and now >= self.opened_at + rest:
            self.state = State.HALF_OPEN
            return True
        return False

    def retry_after(self, now: float) -> int:
        """Seconds until asking again may be worth it, at least one."""
        return max(1, round(self.opened_at + REST - now)) if self.state is State.OPEN else 1

    def succeeded(self) -> None:
        """The delegate answered, be it with a no."""
        self.state, self.failures, self.alone, self.last = State.CLOSED, 0, True, ""

    def failed(self, now: float, whom: str) -> None:
        """It gave no answer, or nonsense, to a call that concerns `whom`."""
        if not self.failures:
            self.first = whom
        self.failures += 1
        self.alone, self.last = self.alone and whom == self.first, whom
        if self.state is State.HALF_OPEN or (self.failures >= OPEN_AFTER and not self.alone):
            self.state, self.opened_at = State.OPEN, now

    def gave_up(self, now: float) -> None:
        """A trial that was cancelled told nothing: back to open, and the next call may try at once."""
        if self.state is State.HALF_OPEN:
            self.state, self.opened_at = State.OPEN, now - REST
