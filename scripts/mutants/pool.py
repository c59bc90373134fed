"""Processes that run tests with a fault in them: warm ones that have collected everything, cold ones that have not.

Both are forks of this one, and fork once more for each job. A cold one's child imports and collects what the job
names: 1.5 s instead of 10 ms (measured), so it is there for what acts at import alone.
The invariants: one process for one job, whatever becomes of it; what it left behind is gone after it.
Must not live here: what is run in them (inside), what it means (main).
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import pytest

from scripts.mutants import inside
from scripts.mutants.inside import Job, Outcome

MEMORY = Path("/dev/shm")  # noqa: S108 - each job makes a folder of its own there
Say = Callable[[str], None]
_UNPLACED, _PASSED, _FAILED = "unplaced", "passed", "failed "


class Worker:
    """The near end of one process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def ready(self) -> list[str]:
        """Wait until it is; the names of the tests it has collected, none for a cold one."""
        names: list[str] = self._connection.recv()
        return names

    def do(self, job: Job) -> Outcome:
        """Run a job to its end."""
        folder = Path(tempfile.mkdtemp(prefix="mutants-", dir=MEMORY if MEMORY.is_dir() else None))
        began = time.monotonic()
        try:
            self._connection.send(replace(job, folder=str(folder / "tests")))
            outcome: Outcome = self._connection.recv()
            kept = folder / "tests.json"
            return replace(outcome, seconds=time.monotonic() - began,
                           recorded=kept.read_text(encoding="utf-8") if kept.exists() else "")
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def warm(count: int) -> list[Worker]:
    """Workers that share one collection: the first one makes it, the others are its forks."""
    pairs = [Pipe() for _ in range(count)]
    _fork(lambda: _warm([there for _, there in pairs]), [here for here, _ in pairs])
    return [Worker(here) for here, _ in pairs]


def cold() -> Worker:
    here, there = Pipe()
    _fork(lambda: _cold(there), [here])
    return Worker(here)


def _fork(work: Callable[[], object], not_its: Sequence[Connection] = ()) -> int:
    """A process of its own, which ends without what this one has still to do."""
    pid = os.fork()
    if pid:
        return pid
    try:
        for connection in not_its:
            connection.close()
        work()
    except (EOFError, ConnectionResetError, KeyboardInterrupt):
        pass
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    os._exit(0)


def _warm(theirs: Sequence[Connection]) -> None:
    def serve(items: Sequence[pytest.Item]) -> None:
        inside.look_around()
        for there in theirs:
            _fork(functools.partial(_serve, there, items))
        for there in theirs:
            there.close()
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()
    inside.collect([], serve)


def _cold(there: Connection) -> None:
    _serve(there, ())


def _serve(there: Connection, items: Sequence[pytest.Item]) -> None:
    """One child a job."""
    there.send([item.nodeid for item in items])
    while True:
        job: Job = there.recv()
        said = Path(job.folder + ".said")
        pid = _fork(functools.partial(_child, job, said, items))
        os.waitpid(pid, 0)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        there.send(_outcome(said))


def _child(job: Job, said: Path, items: Sequence[pytest.Item]) -> None:
    """Its last line says what failed; one that says neither this nor that hung, or was ended."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # whoever this is a fork of may have had a use for it
    Path(job.folder).mkdir()
    for number, target in ((1, os.devnull), (2, os.environ.get("MUTANTS_STDERR", os.devnull))):
        os.dup2(os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT), number)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    with said.open("w", encoding="utf-8") as out:
        def say(line: str) -> None:
            print(line, file=out, flush=True)
        try:
            failed = _in_warm(items, job, say) if items else _in_cold(job, say)
            say(f"{_FAILED}{failed}" if failed else _PASSED)
        except LookupError:
            traceback.print_exc()
            say(_UNPLACED)


def _in_warm(items: Sequence[pytest.Item], job: Job, say: Say) -> str | None:
    inside.settle(items, job.folder)
    if job.record is not None:
        return inside.record(items, job)
    if job.module:
        inside.put_in(job)
    return inside.run(items, job, say)


def _in_cold(job: Job, say: Say) -> str | None:
    """A module that cannot even be imported fails the first test that would have been run."""
    found: list[str | None] = []
    if job.module:
        sys.meta_path.insert(0, inside.Importing(job))
    paths = dict.fromkeys(name.partition("::")[0] for name, _ in job.tests)

    def run(items: Sequence[pytest.Item]) -> None:
        inside.settle(items, job.folder)
        found.append(inside.run(items, job, say))
    inside.collect(paths, run)
    return found[0] if found else f"{job.tests[0][0]} (not even collected)"


def _outcome(said: Path) -> Outcome:
    lines = said.read_text(encoding="utf-8", errors="replace").splitlines() if said.exists() else []
    last = lines[-1] if lines else "nothing was run"
    if last in (_PASSED, _UNPLACED):
        return Outcome(None, unplaced=last == _UNPLACED)
    if last.startswith(_FAILED):
        return Outcome(last.removeprefix(_FAILED))
    return Outcome(last, hung=True)
