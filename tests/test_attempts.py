"""Whoever guesses has to wait: by each name, for a window, in a bounded table."""

from __future__ import annotations

from delegator.attempts import Attempts

WINDOW, REMEMBERED = 300.0, 64


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def under(user: str, address: str) -> dict[object, int]:
    return {("user", user): 5, ("address", address): 30}


def test_misses_of_a_user_and_of_an_address_are_counted_in_a_window() -> None:
    clock = Clock()
    attempts = Attempts(clock, WINDOW, REMEMBERED)
    for _ in range(5):
        assert attempts.wait(under("p-1", "192.0.2.1")) == 0
        attempts.missed(under("p-1", "192.0.2.1"))
    assert attempts.wait(under("p-1", "192.0.2.99")) == WINDOW
    assert attempts.wait(under("p-2", "192.0.2.1")) == 0
    for number in range(25):
        attempts.missed(under(f"p-x{number}", "192.0.2.1"))
    assert attempts.wait(under("p-2", "192.0.2.1")) == WINDOW
    clock.now = WINDOW - 0.5
    assert attempts.wait(under("p-1", "192.0.2.99")) == 1, "never 0 before its time"
    clock.now = WINDOW
    assert attempts.wait(under("p-1", "192.0.2.1")) == 0
    attempts.missed(under("p-1", "192.0.2.1"))
    assert attempts.wait(under("p-1", "192.0.2.1")) == 0


def test_a_flood_of_names_is_bounded_and_forgets_who_began_first() -> None:
    clock = Clock()
    attempts = Attempts(clock, WINDOW, REMEMBERED)
    for number in range(2 * REMEMBERED):
        clock.now = number / 1000
        attempts.missed({number: 1})
    assert len(attempts) == REMEMBERED
    assert attempts.wait({REMEMBERED - 1: 1}) == 0
    assert attempts.wait({REMEMBERED: 1}) > 0


def test_under_no_name_nobody_waits() -> None:
    assert Attempts(Clock(), WINDOW, REMEMBERED).wait({}) == 0
