"""What operators see: logs, fed by trails. One line for each handshake, whatever became of it.

The invariant: a log line is one line (hostile text is escaped, a traceback's lines are indented) and no secret can be
in it: values of type Secret print blank, and credentials never enter a trail.
Must not live here: decisions, metrics' transport, when a trail is told (finished).
"""

from __future__ import annotations

import contextlib
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

_NAME = "delegator.provisioning.handshake"
log = logging.getLogger(_NAME)
EVENT = "handshake"
"""What the line of a trail tells of."""


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
    told = [(trail, level) for trail, level in finished if log.isEnabledFor(level)]
    for handler in _handlers(log):
        if isinstance(handler, _Lines):
            handler.tell(told, since)
        else:
            for made in [_made(trail, level, since) for trail, level in told if level >= handler.level]:
                handler.handle(made)


def _handlers(logger: logging.Logger | None) -> list[logging.Handler]:
    """Whoever takes what this logger says, as logging itself would find them."""
    found: list[logging.Handler] = []
    while logger is not None:
        found += logger.handlers
        logger = logger.parent if logger.propagate else None
    return found or [handler for handler in (logging.lastResort,) if handler is not None]


def _at(trail: Trail, since: float) -> float:
    """When it took its last step. `since` is when the monotonic clock, by which a trail goes, began."""
    return since + trail.marks[-1].at / 1e9 if trail.marks else time.time()


def _made(trail: Trail, level: int, since: float) -> logging.LogRecord:
    """For handlers that are not ours. Ours make a line of a trail themselves (5 to 2 µs, measured)."""
    made = logging.LogRecord(log.name, level, "", 0, EVENT, (), None)
    made.trail = trail
    made.created = _at(trail, since)
    made.msecs = float(int(made.created % 1 * 1000))
    made.trail = trail
    return made


_heeded: list[Callable[[], None]] = []


def heed(before: Callable[[], None]) -> None:
    """Call this before any line is written that is no finished trail's, in whatever thread it is."""
    _heeded.append(before)


def heed_no_more(before: Callable[[], None]) -> None:
    _heeded.remove(before)


class _Lines(logging.StreamHandler[TextIO]):
    """Writes lines; those of trails that are told together by one write."""

    def emit(self, record: logging.LogRecord) -> None:
        for before in tuple(_heeded):
            before()
        super().emit(record)

    def tell(self, finished: Sequence[tuple[Trail, int]], since: float) -> None:
        """Write a line for each. One of which no line can be made keeps no other from being told; what goes wrong is
        said as it would be of one line."""
        line = self.formatter.line if isinstance(self.formatter, (_Text, _JsonLines)) else _Text().line
        lines = []
        for trail, level in finished:
            if level >= self.level:
                try:
                    lines.append(line(trail, level, _at(trail, since)) + self.terminator)
                except Exception:
                    self._failed(level)
        with self._held():
            try:
                self.stream.write("".join(lines))
                self.flush()
            except Exception:
                self._failed(logging.ERROR)

    def _held(self) -> contextlib.AbstractContextManager[object]:
        """Lines of other threads wait."""
        return self.lock or contextlib.nullcontext()

    def _failed(self, level: int) -> None:
        self.handleError(logging.LogRecord(log.name, level, "", 0, "lines of handshakes", (), None))


@functools.lru_cache(maxsize=2)
def _second(moment: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))


def _when(moment: float) -> str:
    return f"{_second(int(moment))}.{int(moment % 1 * 1000):03}+00:00"


def _connection(record: logging.LogRecord) -> str:
    """The id of the connection that was worked for. Code that serves several connections sets it explicitly, or sets
    "" for none."""
    said: str | None = getattr(record, "connection", None)
    return CONNECTION.get() if said is None else said


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = self._begun(record.created, record.levelno, record.name, record.getMessage())
        if connection := _connection(record):
            line["connection"] = connection
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return self._written(line)

    def line(self, trail: Trail, level: int, moment: float) -> str:
        return self._written(self._begun(moment, level, _NAME, EVENT) | trail.as_data())

    def _begun(self, moment: float, level: int, logger: str, event: str) -> dict[str, object]:
        return {"time": _when(moment), "level": _level(level), "logger": logger, "event": event}

    def _written(self, line: dict[str, object]) -> str:
        said = msgspec.json.encode(line)
        return said.decode() if said.isascii() else json.dumps(msgspec.json.decode(said))  # for any terminal


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = (f"{_when(record.created)} {_level(record.levelno)} {record.name} "
                f"{ascii(record.getMessage())[1:-1]}")
        if connection := _connection(record):
            text += f" connection={connection}"
        if record.exc_info:
            text += "".join([f"\n  {visible(line)}" for line in self.formatException(record.exc_info).split("\n")])
        return text

    def line(self, trail: Trail, level: int, moment: float) -> str:
        said = {"connection": trail.connection, "peer": trail.peer, **trail.facts,
                "ms": f"{trail.milliseconds:.1f}", "reasons": "; ".join(trail.reasons)}
        told = ascii("".join([f" {key}={value}" for key, value in said.items() if value]))[1:-1]
        return f"{_when(moment)} {_level(level)} {_NAME} {EVENT}{told}"


@functools.cache
def _level(level: int) -> str:
    return logging.getLevelName(level).lower()
