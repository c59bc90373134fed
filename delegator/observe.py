"""What operators see: logs, fed by trails. One line for each handshake, whatever became of it.

The invariant: a log line is one line (hostile text is escaped, a traceback's lines are indented) and no secret can be
in it: values of type Secret print blank, and credentials never enter a trail.
Must not live here: decisions, metrics' transport, when a trail is told (finished).
"""

from __future__ import annotations

import functools
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

import msgspec

from delegator.trail import CONNECTION, Trail
from pki.said import visible

log = logging.getLogger("delegator.handshake")


def configure(level: str, as_json: bool, stream: TextIO | None = None) -> None:
    """Send all logs to `stream` (standard error), as text or as JSON lines."""
    handler = _Lines(stream or sys.stderr)
    handler.setFormatter(_JsonLines() if as_json else _Text())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Nobody reads what these find out: 6.7 to 1.9 µs a record (measured).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.getLogger("aiosqlite").setLevel(logging.WARNING)


def record(finished: Sequence[tuple[Trail, int]]) -> None:
    """Log finished trails, each at its level, with the time of its last step. `facts["outcome"]` says how it ended."""
    since = time.time() - time.monotonic()
    ours = [handler for handler in logging.root.handlers if isinstance(handler, _Lines)]
    for handler in ours:
        handler.gather()
    try:
        for trail, level in finished:
            if log.isEnabledFor(level):
                log.handle(_made(trail, level, since))
    finally:
        for handler in ours:
            handler.write()


def _made(trail: Trail, level: int, since: float) -> logging.LogRecord:
    """By hand: the logger's own way looks for the calling line, which is always this one (9 µs to 5, measured).
    `since` is when the monotonic clock, by which a trail goes, began."""
    made = logging.LogRecord(log.name, level, "", 0, "handshake", (), None)
    made.trail = trail
    if trail.marks:
        made.created = since + trail.marks[-1].at / 1e9
        made.msecs = float(int(made.created % 1 * 1000))
    return made


_heeded: list[Callable[[], None]] = []


def heed(before: Callable[[], None]) -> None:
    """Call this before any line is written that is no finished trail's, in whatever thread it is."""
    _heeded.append(before)


def heed_no_more(before: Callable[[], None]) -> None:
    _heeded.remove(before)


class _Lines(logging.StreamHandler[TextIO]):
    """Writes lines; those of trails that are told together by one write."""

    _gathered: list[str] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if _trail(record) is None:
            for before in tuple(_heeded):
                before()
        if self._gathered is None:
            super().emit(record)
            return
        try:
            self._gathered.append(self.format(record) + self.terminator)
        except Exception:
            self.handleError(record)

    def gather(self) -> None:
        """What this thread logs from now on is kept, until `write`; other threads wait."""
        self.acquire()
        self._gathered = []

    def write(self) -> None:
        """By one write. What goes wrong is said as it would be of one line, and nobody else is troubled."""
        lines, self._gathered = self._gathered, None
        try:
            if lines:
                self.stream.write("".join(lines))
                self.flush()
        except Exception:
            self.handleError(logging.LogRecord(log.name, logging.ERROR, "", 0, "lines of handshakes", (), None))
        finally:
            self.release()


@functools.lru_cache(maxsize=2)
def _second(moment: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))


def _when(record: logging.LogRecord) -> str:
    return f"{_second(int(record.created))}.{record.msecs:03.0f}+00:00"


def _trail(record: logging.LogRecord) -> Trail | None:
    return getattr(record, "trail", None)


def _connection(record: logging.LogRecord) -> str:
    """The id of the connection that was worked for. Code that serves several connections sets it explicitly, or sets
    "" for none."""
    said: str | None = getattr(record, "connection", None)
    return CONNECTION.get() if said is None else said


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {"time": _when(record), "level": record.levelname.lower(), "logger": record.name,
                                   "event": record.getMessage()}
        trail = _trail(record)
        if trail is not None:
            line |= trail.as_data()
        elif connection := _connection(record):
            line["connection"] = connection
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        said = msgspec.json.encode(line)
        return said.decode() if said.isascii() else json.dumps(msgspec.json.decode(said))  # for any terminal


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = f"{_when(record)} {record.levelname.lower()} {record.name} {ascii(record.getMessage())[1:-1]}"
        trail = _trail(record)
        if trail is not None:
            said = {"connection": trail.connection, "peer": trail.peer, **trail.facts,
                    "ms": f"{trail.milliseconds:.1f}", "reasons": "; ".join(trail.reasons)}
            text += ascii("".join([f" {key}={value}" for key, value in said.items() if value]))[1:-1]
        elif connection := _connection(record):
            text += f" connection={connection}"
        if record.exc_info:
            text += "".join([f"\n  {visible(line)}" for line in self.formatException(record.exc_info).split("\n")])
        return text
