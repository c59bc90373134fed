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
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NamedTuple, TextIO

from delegator.device import options, reasons, tls
from delegator.device.flow import Result, World, activate
from delegator.device.reasons import Busy, Misconfigured
from delegator.device.settings import Settings
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
    """Runs `activate` or `reasons`; `argv` is without the program's name. Returns the exit code, which is never 0 where
    the result could not be written."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a letter that the terminal does not have stops nothing
    if sys.stdout is None:
        _written(sys.stderr, "delegator device: standard output: it is closed\n")
    code = _ran(argv, world)
    said = _written(sys.stdout, "")
    _written(sys.stderr, "")
    return code or (0 if said else _FAILED)


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
    """The activation, with every way to end turned into a report."""
    with _logging(words.verbose), _signals():
        try:
            return _activate(options.settings(words), world)
        except Misconfigured as error:
            return _ended("failed", _CONFIGURATION, str(error))
        except Busy as error:
            return _ended("failed", _CONFLICT, str(error))
        except Stopped as stop:
            return _ended("stopped", _SIGNALLED + stop.number, "stopped; the next activation goes on from here")
        except OSError as error:
            return _ended("failed", _FAILED, f"this device's own trouble: {reasons.system_words(error)}")


def _activate(settings: Settings, world: World) -> Report:
    if settings.hook and shutil.which(settings.hook[0]) is None:
        raise Misconfigured(f"the hook {settings.hook[0]} is not a command that can be run")
    if settings.own is not None and settings.own.command and shutil.which(settings.own.command[0]) is None:
        raise Misconfigured(f"{settings.own.command[0]} is not a command that can be run: name one that makes a "
                            "certificate request with --request-command")
    if not tls.clock_is_set():
        log.warning("the clock of this device is not set (it shows %s): certificates are judged by the build time",
                    time.strftime("%Y-%m-%d", time.gmtime()))
    folder = Folder(settings.state)
    with folder.held():
        return _report(activate(settings, folder, world), folder)


def _report(result: Result, folder: Folder) -> Report:
    state, reason = result.state, result.reason
    fetched = bool(state.delegate_url) and state.phase is Phase.CONFIRMED
    facts: dict[str, object] = {
        "outcome": _outcome(result), "reason": reason and reason.name, "exit_code": reason.exit_code if reason else 0,
        "detail": result.detail, "attempts": result.attempts, "phase": state.phase.value,
        "service_tag": state.service_tag, "claim_id": state.claim_id or None,
        "delegate_url": state.delegate_url or None, "state": str(folder.path),
        "credential_file": str(folder.path / CREDENTIAL) if state.phase is Phase.CONFIRMED else None,
        "provisioning_file": str(folder.path / PROVISIONING) if fetched else None,
    }
    if reason is not None:
        detail = f" ({result.detail})" if result.detail else ""
        return Report(reason.exit_code, facts, f"not activated: {reason.meaning}{detail}. Look at: {reason.look_at}.")
    return Report(0, facts, _SENTENCES[_outcome(result)])


def _outcome(result: Result) -> str:
    if result.reason is not None:
        return "failed"
    return "ready" if result.attempts else "already-ready"


_SENTENCES = {
    "ready": "this device is ready, and the delegator knows it.",
    "already-ready": "this device was made ready before; use --again to start anew.",
}


def _ended(outcome: str, exit_code: int, sentence: str) -> Report:
    return Report(exit_code, {"outcome": outcome, "reason": None, "exit_code": exit_code, "detail": sentence},
                  sentence)


def _say(report: Report, as_json: bool) -> int:
    facts = json.dumps(report.facts) if as_json else "\n".join(
        f"{name}: {value}" for name, value in report.facts.items() if value not in (None, ""))
    said = _written(sys.stdout, f"{facts}\n")
    _written(sys.stderr, f"delegator device: {report.sentence}\n")
    return report.exit_code or (0 if said else _FAILED)


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


@contextlib.contextmanager
def _logging(verbose: bool) -> Iterator[None]:
    """Words on standard error while the command runs; the block numbers in front are those of the patent's figure."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        yield
    finally:
        log.removeHandler(handler)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and Ctrl-C end the command cleanly; elsewhere than in the main thread Python allows no handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise Stopped(number)
