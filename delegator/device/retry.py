"""When to ask again: pure arithmetic, no clock and no chance of its own.

The invariant: never earlier than the delegator said, never later than the window allows.
"""

from __future__ import annotations

from collections.abc import Callable

INTERVAL = 90.0
WINDOW = 24 * 3600.0
"""Every 90 s for 24 h after power-on: what service processors in the field do."""

Uniform = Callable[[float, float], float]


def pause(interval: float, retry_after: int | None, uniform: Uniform) -> float:
    """Seconds until the next attempt, spread so that a rack powered up at once does not ask at once.

    Retry-After is the earliest moment (RFC 9110 section 10.2.3), so the spread is only added to it.
    """
    if retry_after is None:
        return interval * uniform(0.5, 1.5)
    return retry_after + uniform(0.0, max(1.0, retry_after / 4))


def worth_waiting(elapsed: float, wait: float, window: float) -> bool:
    """Whether the next attempt would still be inside the window, counted on the clock that never jumps."""
    return elapsed + wait <= window
