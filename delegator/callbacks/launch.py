"""One call of a customer's own logic, as a script: `python -I -S launch.py WORDS`. Standard library only.

Two processes: this one watches; its child takes on the limits and becomes the program, or calls the Python function.
The request (JSON) is on standard input, the answer goes to standard output. WORDS are those of `Order`.
The invariant: when this process ends, in whichever way, nothing that the program started is running any more. It
adopts whatever its child leaves behind (subreaper), counts processes while it watches, and kills to the last one.
Few and cheap imports: they are most of what a call costs (json, pathlib, traceback and typing: 30 of 60 ms).
Must not live here: what an answer means, time limits of a call (both: local).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable, Iterator

MOST_PROCESSES = 64
"""One call's, threads not counted. A shell pipeline has five."""
LOOK = 0.01
"""Seconds between two counts, 50 us each: a fork bomb gets to some hundred processes, never to the machine's end."""
AT_ONCE = 4096
"""Processes that ended that are taken in at once."""
SWEEP = 5.0
"""Seconds in which what is left is killed, as a rule: a fork bomb took 2 to 4 on two busy cores, anything else a few
milliseconds. It goes on after them: one that was left on a machine too busy had it full within minutes (seen)."""
PAUSES = 0.002, 0.02
"""Seconds between two rounds of killing, in those seconds and after them."""
MEBIBYTE = 1024 * 1024
FILE_SIZE = 16 * MEBIBYTE
OPEN_FILES = 64
OURS = "launcher: "
"""Starts a line of standard error that this script wrote, and not the program."""
_SUBREAPER, _PARENT_DEATH, _NO_NEW_PRIVILEGES = 36, 1, 38  # linux/prctl.h
ASK = signal.SIGUSR1
"""How whoever gave the order asks for its end. SIGTERM is the kernel's word that it has died: not the same, because
for a moment after that word a dying parent's other threads still answer to its process id."""
_ASKED = (signal.SIGCHLD, signal.SIGTERM, ASK)


class Order:
    """What to run and how much it may take: the script's arguments, in this order, the program's own at the end."""

    def __init__(self, parent: str, seconds: str, cpu: str, memory: str, user: str, python: str, program: str,
                 *arguments: str) -> None:
        """`parent` is the process id of who orders; `memory` is MiB; `user` is the numbers USER:GROUP, or empty for
        the same one; `python` is module:function or empty."""
        self.parent, self.seconds, self.cpu, self.memory = int(parent), float(seconds), int(cpu), int(memory)
        self.user = tuple(map(int, user.split(":"))) if user else None
        self.python, self.program, self.arguments = python, program, arguments


def main(order: Order) -> int:
    """The exit code, or the negative number of the signal that ended the program."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_SUBREAPER, 1)
    _prctl(_PARENT_DEATH, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, _ASKED)
    _go_first()
    if os.getppid() != order.parent:  # it died before we could ask to be told
        _clear()
        return -signal.SIGTERM
    child = os.fork()
    if child == 0:
        _become(order)
    os.close(0)
    os.close(1)
    code, alone = 125, False
    try:
        code, alone = _watch(child, time.monotonic() + order.seconds)
    finally:
        _sweep(child)
        if alone or os.getppid() != order.parent:
            _clear()
    return code


def _go_first() -> None:
    """Where we may (root, RLIMIT_RTPRIO): among hundreds of processes whoever watches them had its turn up to a second
    late (measured), and a bomb had thousands by then. The child is as any other process."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))


def _clear() -> None:
    """The private folder, where nobody is left to remove it."""
    import shutil

    shutil.rmtree(os.getcwd(), ignore_errors=True)  # noqa: PTH109 - pathlib is not loaded


# --- watching -----------------------------------------------------------------------------------------------------


def _watch(child: int, until: float) -> tuple[int, bool]:
    """How the child ended, and whether nobody waits for that any more. Processes are counted by the clock and not at a
    quiet moment: a fork bomb whose processes end as quickly as they begin leaves none."""
    look = time.monotonic() + LOOK
    while (now := time.monotonic()) < until:
        met = signal.sigtimedwait(_ASKED, LOOK)
        if met is not None and met.si_signo in (signal.SIGTERM, ASK):
            return -signal.SIGTERM, met.si_signo == signal.SIGTERM
        if now >= look:
            if _family() > MOST_PROCESSES:
                _say(f"more than {MOST_PROCESSES} processes")
                return 125, False
            look = time.monotonic() + LOOK
        status = _reap(child, MOST_PROCESSES)
        if status is not None:
            return status, False
    return -signal.SIGTERM, True


def _reap(child: int, most: int = AT_ONCE) -> int | None:
    """Takes in processes that ended, not for ever: whoever is busy with that has its turn late among hundreds of them.
    How the child did, if it is among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        for _ in range(most):
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == child:
                found = os.waitstatus_to_exitcode(status)
    return found


def children(pid: int | str) -> Iterator[int]:
    """Of every thread of a process. It may be gone at any moment."""
    with contextlib.suppress(OSError):
        for task in os.scandir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):  # one that ends meanwhile hides nobody else's
                yield from map(int, _text_of(f"{task.path}/children").split())


def _text_of(path: str) -> bytes:
    """A file of the kernel's; a list of children that is longer than this is long enough."""
    opened = os.open(path, os.O_RDONLY)
    try:
        return os.read(opened, 4096).rpartition(b" ")[0]
    finally:
        os.close(opened)


def _family() -> int:
    """How many descendants there are, counted no further than it matters."""
    count, generation = 0, list(children("self"))
    while generation and count <= MOST_PROCESSES:
        count += len(generation)
        generation = [each for one in generation[:MOST_PROCESSES] for each in children(one)]
    return count


def _sweep(child: int) -> None:
    """Kill the child's group at one stroke, then whatever hid in groups of its own and came to us as orphans."""
    until = time.monotonic() + SWEEP
    _kill_group(child)
    while True:
        _reap(child)
        if _childless():
            return
        kill_all(children("self"))
        time.sleep(PAUSES[time.monotonic() > until])


def kill_all(pids: Iterable[int]) -> None:
    """Each with its group, at one stroke: no fork of theirs gets through between two signals."""
    for pid in list(pids):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            _kill_group(os.getpgid(pid))
            os.kill(pid, signal.SIGKILL)


def _childless() -> bool:
    """By the kernel's word, not by /proc's, which may be hidden."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def _kill_group(group: int) -> None:
    if group != os.getpgrp():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


# --- the child ----------------------------------------------------------------------------------------------------


def _become(order: Order) -> None:
    """Never returns."""
    code = 126
    try:
        os.setsid()
        _limit(order)
        if order.python:
            code = _call(order.program, order.python)
        else:
            _unblock()
            os.execve(order.program, [order.program, *order.arguments], {})  # noqa: S606 - that is the job
    except OSError as error:
        _say(f"{order.program} cannot be run: {error.strerror}")
    finally:
        os._exit(code)


def _limit(order: Order) -> None:
    memory, cpu = order.memory * MEBIBYTE, order.cpu
    limits = {resource.RLIMIT_AS: memory, resource.RLIMIT_FSIZE: FILE_SIZE, resource.RLIMIT_NOFILE: OPEN_FILES,
              resource.RLIMIT_CORE: 0}
    with contextlib.suppress(OSError):
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(score, b"1000")  # short of memory, the kernel ends this one first
        os.close(score)
    os.nice(10)
    os.umask(0o077)
    if order.user:
        _become_user(*order.user)
    for which, most in limits.items():
        resource.setrlimit(which, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))  # first SIGXCPU, which can be told, then SIGKILL
    _prctl(_NO_NEW_PRIVILEGES, 1)
    _prctl(_PARENT_DEATH, signal.SIGKILL)


def _become_user(user: int, group: int) -> None:
    """A user of its own has a number of processes of its own; with ours, the limit would count the delegator too."""
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    resource.setrlimit(resource.RLIMIT_NPROC, (4 * MOST_PROCESSES, 4 * MOST_PROCESSES))


def _unblock() -> None:
    """Python ignores some signals; a program expects their defaults."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)


def _call(folder: str, name: str) -> int:
    """The function gets the request as a dict and gives a dict, or a text. What it prints goes to standard error."""
    import importlib
    import json

    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED)
    answer_to = os.dup(1)
    os.dup2(2, 1)
    module, _, function = name.partition(":")
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    try:
        answer = getattr(importlib.import_module(module), function)(json.load(sys.stdin))
        text = answer if isinstance(answer, str) else json.dumps(answer, default=lambda value: value.isoformat())
        with open(answer_to, "w", encoding="utf-8") as out:  # noqa: PTH123 - a descriptor, not a path
            out.write(text)
    except BaseException as error:
        import traceback

        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        traceback.print_exc()
        return 1
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
    return 0


# --- the system ---------------------------------------------------------------------------------------------------


def _say(words: str) -> None:
    os.write(2, f"\n{OURS}{words}\n".encode())


def _prctl(what: int, value: int) -> None:
    """Linux only; elsewhere the group is killed and nothing more is promised."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(what, value, 0, 0, 0)


def _end(code: int) -> None:
    """As the program ended, so that who waits for us sees it."""
    if code < 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED)
        with contextlib.suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(abs(code))


if __name__ == "__main__":
    _end(main(Order(*sys.argv[1:])))
