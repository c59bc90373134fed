"""When the log of a database is brought into its main file: little and often, in a thread, on a connection of its own.

SQLite would do it in the commit that makes the log a thousand pages long, however long it is by then: after a reader
had kept it from shrinking for long, one commit waited for a gigabyte (2.8 s, seen). A step that is not in anybody's
way (PASSIVE) does nearly all of it; what came meanwhile is so little that writers can be held off for it (RESTART), so
that the log begins anew, over blocks that the file has: growing it costs each fsync more. At a quiet moment the file is
cut.
The invariant: writers are held off for what came during one step of at most `LONG` pages.
Must not live here: what a checkpoint means for what we know of the main file (driver).
"""

from __future__ import annotations

import contextlib
import enum
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

log = logging.getLogger(__name__)
PAGES = 1000
"""Pages of the log from which on it is brought in: 4 MiB, SQLite's own number."""
LONG = 4 * PAGES
"""Pages that are too many to hold writers off for, however short the rest of it: first most of them are brought in."""
KEPT = 8 * 1024 * 1024
"""Bytes that the log's file may keep when nobody writes."""
TOLD = 64 * 1024 * 1024
"""Bytes of a log that cannot be brought in, from which on the log of ours says why; and again for each doubling."""
APART = 0.005
"""Seconds between flushes of a large step: without them the one at its end, of half a gigabyte, holds up a commit for
0.9 to 1.3 s, with them 0.11 to 0.17 (measured)."""
PATIENCE = 0.05
"""Seconds to wait for others' transactions to end before writers are held off."""


class Step(enum.Enum):
    """What is to be done with the log."""

    NOTHING = "nothing"
    PASSIVE = "bring in what can be, in nobody's way"
    RESTART = "bring in the rest, then begin anew"
    TRUNCATE = "the same, and cut the file"


def next_step(frames: int, done: int, size: int, *, quiet: bool, held: bool = False) -> Step:
    """By the log's frames, how many of them stand in the main file too, the bytes of its file, whether nobody has
    written lately, and whether the step before changed nothing, because somebody reads what was before it."""
    left = frames - done
    if left >= PAGES:
        return Step.PASSIVE if held or left > LONG else Step.RESTART
    if quiet and left and not held:
        return Step.PASSIVE
    return Step.TRUNCATE if quiet and not left and size > KEPT else Step.NOTHING


class Checkpointer:
    """Takes steps, one at a time and in whatever thread."""

    def __init__(self, path: Path, flush: Callable[[], None]) -> None:
        """`flush` brings the main file to the disk."""
        self._path, self._flush = path, flush
        self._connection: sqlite3.Connection | None = None
        self._told = TOLD

    def step(self, step: Step, *, large: bool) -> None:
        """Take one; `large` where it is more than usual. Raises sqlite3.Error."""
        if self._connection is None:
            # By its name and no other: a file that is not there any more must not be made.
            self._connection = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=rw", uri=True, timeout=PATIENCE,
                                               isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(f"PRAGMA journal_size_limit = {KEPT}")
        with self._flushing() if large else contextlib.nullcontext():
            for one in dict.fromkeys((Step.PASSIVE, step)):  # what came meanwhile is little, and its fsync is short
                self._connection.execute(f"PRAGMA wal_checkpoint({one.name})").fetchall()

    @contextlib.contextmanager
    def _flushing(self) -> Iterator[None]:
        """To the disk as it is written, not all of it at the end: the fsync of a commit waits for less."""
        done = threading.Event()

        def flush() -> None:
            while not done.wait(APART):
                self._flush()
        thread = threading.Thread(target=flush, name="flushing", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def tell(self, held: bool, size: int) -> None:
        """Say when a log grows because somebody reads what was before it."""
        if not held:
            self._told = TOLD
        elif size >= self._told:
            while size >= self._told:
                self._told *= 2
            log.warning("database %s: its log has grown to %d MiB and cannot be brought in while somebody reads what "
                        "was before it: a copy being made, an export, a shell of sqlite3 with a transaction open; "
                        "next: let it end, or end it: lsof %s-wal tells who", self._path, size >> 20, self._path)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
