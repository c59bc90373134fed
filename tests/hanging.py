"""No test hangs: what takes too long fails where it stands, and what cannot even be failed ends the run.

pytest-timeout fails a test by a signal, after the seconds of setup.cfg or of its mark, and what it started is cleared
up. Two kinds get round that: a signal is one exception, which a task or a library may swallow, so here it comes again;
and in a library's C no signal is heard at all, so a second clock, which needs nobody's help, ends the whole run with
the stack of each thread. That clock also goes while a test that failed is cleared up, and when all is done: a thread
that was left behind would keep the process for ever.
The invariant: from the first test to the end of the process one of the clocks goes.
Must not live here: how long a single test may take (its mark).
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
from collections.abc import Generator
from typing import Any

import pytest

from .thorough import THOROUGH

SLOW = 0.0 if THOROUGH else 900.0
"""Seconds that a slow test may take; 0 is no limit."""
AGAIN = 10.0
"""Seconds between one signal and the next."""
BEYOND = 60.0
"""Seconds for clearing up, after which the run is ended."""
_ERRORS = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW))


def pytest_configure(config: pytest.Config) -> None:
    """Standard error as it is before a test's is captured."""
    config.stash[_ERRORS] = os.dup(2)


def _limit(item: pytest.Item) -> float:
    marked = item.get_closest_marker("timeout")
    return float(marked.args[0] if marked is not None else item.config.getini("timeout"))


def _end_the_run_in(seconds: float, config: pytest.Config) -> None:
    faulthandler.dump_traceback_later(seconds, exit=True, file=config.stash[_ERRORS])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    limit = _limit(item)
    if limit:
        _end_the_run_in(limit + BEYOND, item.config)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> Generator[None, object, object]:
    done = yield
    if settings.method == "signal":
        signal.setitimer(signal.ITIMER_REAL, settings.timeout, AGAIN)
    return done


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, object, object]:
    """The test has ended: another signal would hit pytest itself, while it parses sources to show where that was.

    Nor is garbage collected meanwhile. A task that swallowed the signal is told of when it is collected, with a
    traceback, for which Python parses a source as well; one such parse within another ends in `SystemError: AST
    constructor recursion depth mismatch` (CPython gh-106905), and that ended the whole run.
    """
    if call.excinfo is None:
        return (yield)
    signal.setitimer(signal.ITIMER_REAL, 0)
    gc.collect()
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """The summary parses sources too, so what the last tests left is collected before it."""
    gc.collect()


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> None:
    """pytest and pytest-timeout stop their clocks here, before the test is cleared up."""
    if isinstance(node, pytest.Item) and _limit(node):
        _end_the_run_in(BEYOND, node.config)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    _end_the_run_in(BEYOND, config)
