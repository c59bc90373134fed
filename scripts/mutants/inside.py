"""What happens in a process that runs tests: pytest as a plugin sees it, one fault in it, the lines each test runs.

A worker has collected every quick test and imported everything; each job is a fork of it, so that a fault costs no
start of Python and dies with its process. A fault inside functions is put in by exchanging their code where they
live; one that acts at import needs a process that has imported nothing of ours yet, and collects for itself.
The invariant: what a job changes, nobody but its own process sees.
Must not live here: which fault, which tests (main), which process does it (pool).
"""

from __future__ import annotations

import contextlib
import gc
import importlib.abc
import importlib.machinery
import json
import marshal
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

LEAST, TIMES = 5, 10
"""Seconds that any test may take, and how many times what it took when it was recorded: past that it hangs."""
OPTIONS = ["-q", "-m", "not slow and not counterpart", "-p", "no:cacheprovider", "--capture=sys", "-W",
           "ignore::pytest.PytestAssertRewriteWarning"]


@dataclass(frozen=True, slots=True)
class Job:
    """One fault and the tests to run, in this order, with the seconds each may take. `before` and `after` are the
    module's code, marshalled; no module at all is a run without a fault."""

    module: str
    before: bytes
    after: bytes
    tests: tuple[tuple[str, float], ...]
    folder: str
    record: Mapping[str, str] | None = None
    """Instead of running with a fault: the files whose lines are noted, by module."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Which test failed, None where all passed; `hung` where it took too long or ended the process; `unplaced` where
    the fault could not be put in here."""

    by: str | None
    hung: bool = False
    unplaced: bool = False
    seconds: float = 0.0
    recorded: str = ""


def code_of(marshalled: bytes) -> CodeType:
    code: CodeType = marshal.loads(marshalled)  # noqa: S302 - our parent made it
    return code


# --- faults -------------------------------------------------------------------------------------------------------


def inner(code: CodeType) -> Iterator[CodeType]:
    """The functions and classes that are defined in a piece of code."""
    return (one for one in code.co_consts if isinstance(one, CodeType))


def same_frame(one: CodeType, other: CodeType) -> bool:
    """Whether two pieces do the same themselves, whatever is defined in them does."""
    def bare(code: CodeType) -> tuple[object, ...]:
        known = [const if not isinstance(const, CodeType) else const.co_name for const in code.co_consts]
        return (code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars,
                [(type(const), const) for const in known])
    return bare(one) == bare(other)


def exchanges(before: CodeType, after: CodeType) -> list[tuple[CodeType, CodeType]] | None:
    """The functions that differ, as they are and as they shall be; None where something at import differs."""
    if not same_frame(before, after):
        return None
    found = []
    for one, other in zip(inner(before), inner(after), strict=True):
        if one == other:
            continue
        if one.co_flags & 0x2:  # a function: it has fast locals, a class's body has none
            found.append((one, other))
        elif (deeper := exchanges(one, other)) is None:
            return None
        else:
            found += deeper
    return None if any(one.co_freevars != other.co_freevars for one, other in found) else found


_living: dict[str, list[FunctionType]] = {}
"""The functions of each module, found once: to look through all objects in each fork would copy all of its memory."""


def look_around() -> None:
    """Before the forks: find the functions, and leave what there is to no collector."""
    for one in gc.get_objects():
        if isinstance(one, FunctionType):
            _living.setdefault(one.__module__, []).append(one)
    gc.collect()
    gc.freeze()


def put_in(job: Job) -> None:
    """Exchange the code of the functions that live. Raises LookupError where one of them does not."""
    changed = exchanges(code_of(job.before), code_of(job.after)) or []
    for before, after in changed:
        found = [one for one in _living.get(job.module, ()) if one.__code__ == before]
        if not found:
            raise LookupError(f"{job.module}: {before.co_qualname} does not live")
        for one in found:
            one.__code__ = after


class Importing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives a module that is imported the code with the fault."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def find_spec(self, name: str, path: Sequence[str] | None,
                  target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        if name != self._job.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        spec.loader = self
        return spec

    def exec_module(self, module: ModuleType) -> None:
        exec(code_of(self._job.after), module.__dict__)  # noqa: S102 - it is what importing does


# --- running ------------------------------------------------------------------------------------------------------


def run(items: Sequence[pytest.Item], job: Job, say: Callable[[str], None]) -> str | None:
    """Run a job's tests until the first that fails, and name it. A test that hangs ends the process: each is said
    before it begins."""
    by_name = {item.nodeid: item for item in items}
    chosen = [(by_name[name], seconds) for name, seconds in job.tests if name in by_name]
    try:
        for at, (item, seconds) in enumerate(chosen):
            following = chosen[at + 1][0] if at + 1 < len(chosen) else None
            say(item.nodeid)
            signal.alarm(int(LEAST + TIMES * seconds))
            if any(report.failed for report in runtestprotocol(item, nextitem=following, log=False)):
                return item.nodeid
    finally:
        signal.alarm(LEAST)
        if items:
            items[0].session._setupstate.teardown_exact(None)
        signal.alarm(0)
    return None


class Plugin:
    """Stands where pytest would run what it collected."""

    def __init__(self, then: Callable[[Sequence[pytest.Item]], None]) -> None:
        self._then = then

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._then(session.items)
        return True


def collect(paths: Iterable[str], then: Callable[[Sequence[pytest.Item]], None]) -> int:
    """Collect the quick tests of some paths, all where none is named, and hand them on."""
    calm()
    with contextlib.redirect_stdout(sys.stderr):
        return int(pytest.main([*OPTIONS, *paths], plugins=[Plugin(then)]))


def calm() -> None:
    """Found examples are told to nobody, so none is made small; the same ones each time."""
    from hypothesis import Phase, settings

    settings.register_profile("mutants", derandomize=True, database=None, deadline=None, max_examples=30,
                              phases=(Phase.explicit, Phase.generate))
    settings.load_profile("mutants")


def settle(items: Sequence[pytest.Item], folder: str) -> None:
    """Temporary files of this process go where whoever started it clears up."""
    factory: Any = items[0].config._tmp_path_factory  # type: ignore[attr-defined]
    factory._basetemp = Path(folder)
    tempfile.tempdir = folder


# --- recording ----------------------------------------------------------------------------------------------------


def record(items: Sequence[pytest.Item], job: Job) -> str | None:
    """Run tests and note, for each, its seconds and the lines it ran of the files that matter: null for one that fails,
    as it would see every fault. The names of those."""
    assert job.record is not None
    wanted = {os.path.realpath(path): module for module, path in job.record.items()}
    lines: dict[str, set[int]] = {}

    def within(frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            lines[frame.f_code.co_filename].add(frame.f_lineno)
        return within

    def trace(frame: FrameType, event: str, _: object) -> Any:
        name = frame.f_code.co_filename
        if name not in wanted:
            return None
        lines.setdefault(name, set()).add(frame.f_lineno)
        return within

    by_name, failed = {item.nodeid: item for item in items}, list[str]()
    chosen = [by_name[name] for name, _ in job.tests]
    with Path(job.folder + ".json").open("w", encoding="utf-8") as out:
        for item, following in zip(chosen, [*chosen[1:], None], strict=True):
            lines.clear()
            began = time.monotonic()
            threading.settrace(trace)
            sys.settrace(trace)
            reports = runtestprotocol(item, nextitem=following, log=False)
            sys.settrace(None)
            threading.settrace(None)
            if any(report.failed for report in reports):
                failed.append(item.nodeid)
            found = {wanted[name]: sorted(those) for name, those in lines.items() if those}
            print(json.dumps([item.nodeid, round(time.monotonic() - began, 4),
                              None if item.nodeid in failed else found]), file=out)
    return ", ".join(failed) or None
