"""Of signals that end a program the first one counts, and those that follow change nothing to the very end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from pki import signals

from ..late import ran

ENDING = pytest.mark.parametrize("number", signals.ENDING)
OVER = "from pki import signals; signals.over(signals.handlers())"
FIRST = """
import os, signal, sys
from pki import signals
class End(BaseException): pass
cleared = []
try:
    with signals.first(End()):
        try:
            os.kill(os.getpid(), {number})
        finally:
            for number in signals.ENDING * 2:
                os.kill(os.getpid(), number)
            cleared.append(1)
except End:
    print(cleared)
    sys.exit(7)
"""


class End(BaseException):
    pass


@pytest.fixture
def before() -> Iterator[dict[signal.Signals, Any]]:
    kept = signals.handlers()
    yield kept
    for number, handler in kept.items():
        signal.signal(number, handler)


@ENDING
def test_what_comes_while_python_itself_ends_kills_a_program_that_heeds_nothing(number: signal.Signals) -> None:
    """So that the places are those that we mean."""
    assert ran(number, "").returncode == -number or number == signal.SIGINT
    assert "KeyboardInterrupt" in ran(number, "").stderr or number == signal.SIGTERM


@ENDING
def test_a_program_that_is_ending_is_reached_by_no_more(number: signal.Signals) -> None:
    done = ran(number, OVER)
    assert (done.returncode, done.stderr) == (0, "")


@ENDING
def test_the_first_is_raised_and_the_others_neither_cut_off_the_clearing_nor_decide_the_code(
        number: signal.Signals) -> None:
    done = ran(number, FIRST.format(number=int(number)))
    assert (done.returncode, done.stdout, done.stderr) == (7, "[1]\n", "")


@ENDING
def test_a_handler_of_whoever_embeds_us_is_put_back_and_a_default_is_where_no_signal_came(
        number: signal.Signals, before: dict[signal.Signals, Any]) -> None:
    with signals.first(End()):
        assert signal.getsignal(number) not in before.values()
    assert signals.handlers() == before
    seen: list[int] = []
    signal.signal(number, lambda number, _: seen.append(number))
    with pytest.raises(End), signals.first(End()):
        os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)
    assert seen == [number]


def test_a_handler_that_python_did_not_set_is_left_alone(monkeypatch: pytest.MonkeyPatch,
                                                         before: dict[signal.Signals, Any]) -> None:
    """It tells None of it, which nothing can put back."""
    monkeypatch.setattr(signal, "getsignal", {signal.SIGTERM: None}.get)
    assert signals.handlers() == {}
    with signals.first(End()):
        monkeypatch.undo()
        assert signals.handlers() == before


def test_the_mask_of_the_thread_is_as_it_was(before: dict[signal.Signals, Any]) -> None:
    assert sys.platform != "win32"
    kept = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with signals.first(End()):
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == kept
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == kept
