"""`main`: runs one command, says the result on standard output and the story on standard error.

The invariant: whatever happens ends in an exit code of the table and in a sentence; a password is never printed.
Must not live here: decisions about the activation (flow).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TextIO

from delegator.device import checking, options, reasons, retry, status, tls
from delegator.device.flow import Result, World, activate
from delegator.device.reasons import Busy, Failure, Misconfigured, Reason
from delegator.device.state import CREDENTIAL, PROVISIONING, Folder, Phase

log = logging.getLogger("delegator.device")

_FAILED, _USAGE, _CONFIGURATION, _CONFLICT, _SIGNALLED = 1, 2, 3, 6, 128


class Stopped(BaseException):
    """SIGTERM or Ctrl-C: not an error, and nothing below `main` may catch it by mistake."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Report(NamedTuple):
    """The end of a command: exit code, the facts for standard output, the sentence for standard error."""

    exit_code: int
    facts: dict[str, object]
    sentence: str


def main(argv: Sequence[str] | None = None, world: World | None = None) -> int:
    """Runs one command; `argv` is without the program's name. Returns the exit code, which is never 0 where
    the result could not be written."""
    _fill_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a letter that the terminal does not have stops nothing
    if sys.stdout is None:
        _written(sys.stderr, "delegator device: standard output: it is closed\n")
    code = _ran(argv, world)
    said = _written(sys.stdout, "")
    _written(sys.stderr, "")
    return code or (0 if said else _FAILED)


def _fill_descriptors() -> None:
    """Standard streams that whoever started us closed lead nowhere: else the next file that is opened, such as the
    lock, would take their place, and a hook's words would be written into it."""
    while True:
        try:
            descriptor = os.open(os.devnull, os.O_RDWR)
        except OSError:  # a folder of its own without devices
            return
        if descriptor > _STANDARD_ERROR:
            os.close(descriptor)
            return
        os.set_inheritable(descriptor, True)  # a hook's are these


_STANDARD_ERROR = 2


def _ran(argv: Sequence[str] | None, world: World | None) -> int:
    parser = options.parser()
    try:
        words = parser.parse_args(argv)
        wrong = options.contradiction(words)
        if wrong is not None:
            parser.error(wrong)
    except SystemExit as end:  # argparse has said what was wrong
        return _USAGE if end.code else 0
    except OSError as error:  # or could not say its help
        return _lost(sys.stdout, error)
    if words.command == "reasons":
        return 0 if _written(sys.stdout, reasons.table() + "\n") else _FAILED
    return _say(_run(words, world or World()), words.json)


def _run(words: argparse.Namespace, world: World) -> Report:
    """A command, with every way to end turned into a report."""
    ear = _Ear()
    try:
        try:
            with _logging(getattr(words, "verbose", False)):
                ear.open()
                return _done(words, world)
        finally:
            ear.raises = False  # a signal before this line is raised, once; one behind it finds the command done
    except Stopped as stop:
        return _ended("stopped", _SIGNALLED + stop.number, "stopped; the next activation goes on from here")
    finally:
        ear.close()


def _done(words: argparse.Namespace, world: World) -> Report:
    try:
        return _COMMANDS[words.command](words, world)
    except Misconfigured as error:
        return _ended("failed", _CONFIGURATION, str(error))
    except Busy as error:
        return _ended("failed", _CONFLICT, str(error))
    except Failure as failure:
        return _failed(failure)
    except Exception as error:
        return _failed(Failure(reasons.OWN_TROUBLE, reasons.system_words(error)))


def _failed(failure: Failure) -> Report:
    """This device's own trouble before there was an activation at all."""
    reason = failure.reason
    return Report(reason.exit_code, {"outcome": status.FAILED, "reason": reason.name, "exit_code": reason.exit_code,
                                     "detail": failure.detail}, _not_activated(reason, failure.detail))


def _activate(words: argparse.Namespace, world: World) -> Report:
    settings = options.settings(words)
    if not tls.clock_is_set():
        log.warning("the clock of this device is not set (it shows %s): certificates are judged by the build time",
                    time.strftime("%Y-%m-%d", time.gmtime()))
    began = world.monotonic()
    while True:
        rest = settings.window - (world.monotonic() - began)
        try:
            folder = Folder(settings.state)
            with folder.held():
                result = activate(settings._replace(window=rest), folder, world)
                return _report(result, folder, settings.identity.service_tag)
        except Failure as failure:  # not even the folder: a disk that is full may be so for a moment only
            wait = retry.pause(settings.interval, None, world.uniform)
            if settings.once or not retry.worth_waiting(0.0, wait, rest):
                raise
            log.warning("%s [%s]; next attempt in %.0f s", failure, failure.reason.name, wait)
            world.sleep(wait)


def _report(result: Result, folder: Folder, service_tag: str) -> Report:
    state, reason = result.state, result.reason
    ready = state is not None and state.phase is Phase.CONFIRMED
    fetched = ready and state is not None and bool(state.delegate_url)
    facts: dict[str, object] = {
        "outcome": _outcome(result), "reason": reason and reason.name, "exit_code": reason.exit_code if reason else 0,
        "detail": result.detail, "attempts": result.attempts, "phase": state and state.phase.value,
        "service_tag": service_tag, "claim_id": (state and state.claim_id) or None,
        "delegate_url": (state and state.delegate_url) or None, "state": str(folder.path),
        "credential_file": str(folder.path / CREDENTIAL) if ready else None,
        "provisioning_file": str(folder.path / PROVISIONING) if fetched else None,
    }
    if reason is not None:
        status.write(folder.path, {name: facts[name] for name in _TOLD_LATER})
        return Report(reason.exit_code, facts, _not_activated(reason, result.detail))
    status.clear(folder.path)
    return Report(0, facts, _SENTENCES[_outcome(result)])


_TOLD_LATER = ("outcome", "reason", "exit_code", "detail", "attempts")


def _not_activated(reason: Reason, detail: str) -> str:
    return f"not activated: {reason.meaning}{f' ({detail})' if detail else ''}. {_look_at(reason)}"


def _look_at(reason: Reason) -> str:
    return f"Look at: {reason.look_at}{'' if reason.look_at.endswith('?') else '.'}"


def _check(words: argparse.Namespace, _world: World) -> Report:
    """The worst finding decides."""
    found = checking.look(options.settings(words))
    wrong = [one.reason for one in found if one.reason is not None]
    worst = min(wrong, key=lambda reason: reason.number) if wrong else None
    facts: dict[str, object] = {
        "outcome": status.FAILED if worst else "good", "reason": worst and worst.name,
        "exit_code": worst.exit_code if worst else 0,
        "findings": [{"what": one.what, "words": one.words, "reason": one.reason and one.reason.name}
                     for one in found]}
    lines = [f"{one.what}: {one.words}" for one in found]
    said = f"not everything is in order. {_look_at(worst)}" if worst else _NOTHING_IN_THE_WAY
    return Report(worst.exit_code if worst else 0, facts, "\n  ".join([said, *lines]))


_NOTHING_IN_THE_WAY = ("nothing is in the way. Whether --tag fits the certificate, and whether this device has an "
                       "owner, only `activate` finds out.")


def _status(words: argparse.Namespace, _world: World) -> Report:
    """Of a device that may be waiting: nothing is changed, and nobody is kept."""
    try:
        facts = status.read(Path(words.state))
    except OSError as error:
        raise Misconfigured(f"the state folder {words.state} cannot be read: {reasons.system_words(error)}") from None
    at_work = "an activation is at work" if facts["at_work"] else "no activation is at work"
    code = facts["exit_code"]
    reason = next((one for one in reasons.REASONS if one.name == facts["reason"]), None)
    why = f": {reason.meaning}" if reason else ""
    more = f" {_look_at(reason)}" if reason else ""
    return Report(code if isinstance(code, int) else _FAILED, facts, f"{facts['outcome']}{why}; {at_work}.{more}")


_COMMANDS: dict[str, Callable[[argparse.Namespace, World], Report]] = {
    "activate": _activate, "check": _check, "status": _status}


def _outcome(result: Result) -> str:
    if result.reason is not None:
        return "failed"
    return "ready" if result.attempts else "already-ready"


_SENTENCES = {
    "ready": "this device is ready, and the delegator knows it.",
    "already-ready": "this device was made ready before, and nothing was asked. For another owner: see --again.",
}


def _ended(outcome: str, exit_code: int, words: str) -> Report:
    sentence = reasons.shown(words)
    return Report(exit_code, {"outcome": outcome, "reason": None, "exit_code": exit_code, "detail": sentence},
                  sentence)


def _say(report: Report, as_json: bool) -> int:
    facts = json.dumps(report.facts) if as_json else "\n".join(
        f"{name}: {_as_text(value)}" for name, value in report.facts.items() if value not in (None, ""))
    said = _written(sys.stdout, f"{facts}\n")
    _written(sys.stderr, f"delegator device: {report.sentence}\n")
    return report.exit_code or (0 if said else _FAILED)


def _as_text(value: object) -> str:
    """One line, as JSON writes what is no word or number."""
    return reasons.shown(str(value)) if isinstance(value, str) else json.dumps(value)


def _written(stream: TextIO | None, text: str) -> bool:
    """Writes all of it now; false where a full disk, a reader that left or a closed stream keeps it from that."""
    if stream is None:
        return not text
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        _lost(stream, error)
        return False
    return True


def _lost(stream: TextIO, error: OSError) -> int:
    """Says that standard output is lost, unless its reader left. What Python itself would flush at the end goes
    nowhere, since that would fail once more and with a traceback."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    if stream is sys.stdout and not isinstance(error, BrokenPipeError):
        _written(sys.stderr, f"delegator device: standard output: {error.strerror}\n")
    return _FAILED


class _Standard(logging.StreamHandler):  # type: ignore[type-arg] # Python 3.9 and 3.10 know no such argument
    """A log that nobody takes stops nothing, and is not told with a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class _OneLine(logging.Formatter):
    """What others said is part of many lines, and may not begin one."""

    def format(self, record: logging.LogRecord) -> str:
        record.msg, record.args = reasons.shown(record.getMessage()), None
        return super().format(record)


@contextlib.contextmanager
def _logging(verbose: bool) -> Iterator[None]:
    """Words on standard error while the command runs; the block numbers in front are those of the patent's figure."""
    handler = _Standard(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        yield
    finally:
        log.removeHandler(handler)


class _Ear:
    """Of SIGTERM and Ctrl-C the first raises Stopped, and none that follows changes anything, to the very end of the
    process. Elsewhere than in the main thread Python allows no handlers.

    When it is closed a caller's own handler is put back, but a default that kills only where no signal came: the next
    one would decide the exit code instead, while the result is written, or while Python ends, which puts every handler
    back to the default but leaves ignored what is ignored."""

    def __init__(self) -> None:
        self.raises, self.heard = False, False
        self._before: dict[signal.Signals, Any] = {}

    def open(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        found = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        self._before = {number: one for number, one in found.items() if one is not None}  # None: Python did not set it
        self.raises = True
        for number in self._before:
            signal.signal(number, self._hear)

    def close(self) -> None:
        held = signal.pthread_sigmask(signal.SIG_BLOCK, self._before)  # of one just while it changes Python complains
        for number, handler in self._before.items():
            own = callable(handler) and handler is not signal.default_int_handler
            signal.signal(number, signal.SIG_IGN if self.heard and not own else handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        """Stays while anything is at work: what is ignored would be so in a hook, too."""
        if self.raises:
            self.raises, self.heard = False, True
            raise Stopped(number)
