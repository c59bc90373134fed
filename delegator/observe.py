"""What operators see: logs, fed by trails. One line for each handshake, whatever became of it.

The invariant: a log line is one line (hostile text is escaped, a traceback's lines are indented) and no secret can be
in it: values of type Secret print blank, and credentials never enter a trail.
Must not live here: decisions, metrics' transport.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
import time
from typing import TextIO

import msgspec

from delegator.trail import CONNECTION, Trail
from pki.said import visible

log = logging.getLogger("delegator.handshake")


def configure(level: str, as_json: bool, stream: TextIO | None = None) -> None:
    """Send all logs to `stream` (standard error), as text or as JSON lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonLines() if as_json else _Text())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Nobody reads what these find out: 6.7 to 1.9 µs a record (measured).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.getLogger("aiosqlite").setLevel(logging.WARNING)


def record(trail: Trail, level: int) -> None:
    """Log a finished trail. `facts["outcome"]` says how it ended."""
    if log.isEnabledFor(level):
        # Made by hand: the logger's own way looks for the calling line, which is always this one (9 µs to 5, measured).
        made = logging.LogRecord(log.name, level, "", 0, "handshake", (), None)
        made.trail = trail
        log.handle(made)


@functools.lru_cache(maxsize=2)
def _second(moment: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))


def _when(record: logging.LogRecord) -> str:
    return f"{_second(int(record.created))}.{record.msecs:03.0f}+00:00"


def _trail(record: logging.LogRecord) -> Trail | None:
    return getattr(record, "trail", None)


def _connection(record: logging.LogRecord) -> str:
    """The connection that was worked for; whoever works for many at once says which one, or that it is none."""
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
