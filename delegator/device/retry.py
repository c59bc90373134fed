"""When to ask again: pure arithmetic, no clock and no chance of its own.

The invariant: never earlier than the delegator said (of more than LONGEST only that much is obeyed) nor than the
interval allows, never later than the window allows.
"""

from __future__ import annotations

from collections.abc import Callable

INTERVAL = 90.0
WINDOW = 24 * 3600.0
"""Every 90 s for 24 h after power-on: what service processors in the field do."""

_SHORTEST = 0.5
"""The shortest pause, as a part of the interval."""

LONGEST = 6 * 3600.0
"""The longest pause that is obeyed: who says a year may not end the run of all devices that hear it."""

Uniform = Callable[[float, float], float]


def pause(interval: float, retry_after: int | None, uniform: Uniform) -> float:
    """Seconds until the next attempt, spread so that a rack powered up at once does not ask at once.

    Retry-After is the earliest moment (RFC 9110 section 10.2.3), so the spread is only added to it. It may not be
    earlier than without it: a delegator that says 0 would be asked twice a second by each device.
    """
    if retry_after is None:
        return interval * uniform(_SHORTEST, 2 - _SHORTEST)
    earliest = max(min(retry_after, LONGEST), interval * _SHORTEST)
    return earliest + uniform(0.0, max(1.0, earliest / 4))


def worth_waiting(elapsed: float, wait: float, window: float) -> bool:
    """Whether the next attempt would still be inside the window, counted on the clock that never jumps."""
    return elapsed + wait <= window
