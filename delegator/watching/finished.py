"""Finished handshakes, told a moment later and all of that moment together: the log line, the metrics, readiness.

No device waits for any of it. This code runs rarely between two handshakes and is then cold in the processor's caches:
told together, all but the first run it warm, and their lines leave by one write.
The invariants: what the audit holds is noted at once, never later; all are told in the order in which they finished,
before whatever is logged next, before metrics are read, and before the end; a line has the time of its handshake, not
of its telling; whoever fails to take one is said, and the others are told all the same. A kill loses a moment of lines.
Must not live here: what a line or a metric is (logs, metrics).
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from delegator.trail import Trail
from delegator.watching import logs

log = logging.getLogger(__name__)
MOMENT = 0.03
"""Seconds: some ten handshakes on a busy machine, and nothing to whoever reads."""
MOST = 64
"""Handshakes that wait: some 2 ms of the loop, and 40 KB of lines, which a pipe takes at once."""
Note = Callable[[Trail], None]


class Finished:
    """Told of finished trails by the loop's thread. `audited` is told at once, `others` a moment later, each by what
    it is called."""

    def __init__(self, audited: Note, others: Mapping[str, Note]) -> None:
        self._audited, self._others = audited, others
        self._waiting: list[tuple[Trail, int]] = []
        self._due = self._ended = False
        self._thread = threading.get_ident()

    def add(self, trail: Trail, level: int) -> None:
        """A handshake is over; `level` is its line's."""
        _each("the audit", self._audited, ((trail, level),))
        if not self._waiting:
            logs.heed(self._before_a_line)
        self._waiting.append((trail, level))
        if self._ended or len(self._waiting) >= MOST:
            self.tell()
        elif not self._due:
            self._due = True
            # It serves all connections: in an empty context its log lines carry no connection's id.
            asyncio.get_running_loop().call_later(MOMENT, self._now_due, context=contextvars.Context())

    def _now_due(self) -> None:
        self._due = False
        self.tell()

    def tell(self) -> None:
        """Tell what waits."""
        finished, self._waiting = self._waiting, []
        if finished:
            logs.heed_no_more(self._before_a_line)
            try:
                logs.record(finished)
            except Exception:
                log.exception("%d finished handshakes could not be told to the log: a fault of ours", len(finished))
            for name, note in self._others.items():
                _each(name, note, finished)

    def _before_a_line(self) -> None:
        """Lines stand in the order in which things happened, but for those of other threads, who may not look."""
        if threading.get_ident() == self._thread:
            self.tell()

    def end(self) -> None:
        """Tell what waits, and whatever still comes at once."""
        self._ended = True
        self.tell()


def _each(name: str, note: Note, finished: Sequence[tuple[Trail, int]]) -> None:
    """Tell one of them about each; what it cannot take is said once, with the last error."""
    failed, last = 0, None
    for trail, _ in finished:
        try:
            note(trail)
        except Exception as error:
            failed, last = failed + 1, error
    if last is not None:
        log.error("%d finished handshakes could not be told to %s: a fault of ours", failed, name, exc_info=last)
