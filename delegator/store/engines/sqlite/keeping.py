"""Keeps an eye on the files of a database that is served, and its log short.

After each commit and each second the files are looked at. Where one was taken away or replaced, nothing more is
promised: whoever asks is told to try later, the log and readiness say why and what to do, and what we still hold is
brought to safety, as far as that can be done: the log into the main file, wherever that lies now, and a main file that
was deleted into a copy beside its path.
The invariants: no commit is answered that a look did not find at its place; we go on by ourselves only with the very
files that we had, untouched meanwhile.
Must not live here: what a look finds (whereabouts), when the log is brought in (checkpoints).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from delegator.clockwork.rounds import guarded, kept
from delegator.errors import DelegatorError, Kind
from delegator.store.engines.sqlite.checkpoints import LONG, PAGES, Checkpointer, Step, next_step
from delegator.store.engines.sqlite.whereabouts import Files, Lost, Whereabouts

log = logging.getLogger(__name__)
LOOK = 1.0
"""Seconds between looks while nobody writes."""
QUIET = 2.0
"""Seconds without a commit after which the log is brought in to the last page, and its file cut."""
SETTLE = 3.0
"""Seconds after a loss in which workers that share the files bring the log in, one after the other: what that changes
is no work of somebody else's."""
UNSETTLED, PAUSE = 50, 0.02
"""Looks at a main file that somebody writes to, until a commit is not waited for any longer, and seconds between."""


class Keeping:
    """Of one driver. `connection` is what it writes with, `reader` what it reads with; both have read already."""

    def __init__(self, path: Path, connection: sqlite3.Connection, reader: sqlite3.Connection) -> None:
        self._path, self._connection, self._reader = path, connection, reader
        self._where = Whereabouts(path)
        self._where.begin()
        self._checkpointer = Checkpointer(path, self._where.flush)
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._written = 0.0
        self._held = False
        self._troubled = False
        self._lost_at = 0.0
        self._unsure = False
        """Whether somebody went on writing to the main file at the last look: nothing is promised, nor told by reading,
        before one found it in order."""
        self._another = False
        """Whether somebody else's file lay in the place of ours since."""
        self._left: Files | None = None
        """As the files lay when we stopped writing to them."""

    # --- for the driver ---

    def require(self) -> None:
        """Raises DelegatorError (TRY_LATER) once a look found that no commit counts, and while none can tell."""
        self._where.require()
        if self._unsure:
            raise self._written_to()

    def require_there(self) -> None:
        """The same after a look: for who opens the file by its name, which would make another where there is none."""
        self._require(self._where.look())

    def before_commit(self) -> None:
        self.require()
        self._require(self._where.look_at_end())

    async def after_commit(self) -> None:
        """Raises DelegatorError (TRY_LATER) where what was committed will not last. A command, which promises nothing,
        does not wait for a checkpoint of somebody else's to end."""
        self._require(self._where.look() or (await self._touched() if self._task is not None else None))
        self._written = time.monotonic()
        end = self._where.end
        if self._task is not None and end is not None and end.frames - end.done >= PAGES:
            self._wake.set()

    def serve(self) -> None:
        """Look also when nobody writes, and bring the log in apart from commits, from now to `close`."""
        if self._task is None:
            if self._where.told:
                self._connection.execute("PRAGMA wal_autocheckpoint = 0")
            self._task = asyncio.get_running_loop().create_task(kept(self._watch, "watching the database's files"))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._checkpointer.close()
        self._where.close()

    # --- rounds ---

    async def _watch(self) -> None:
        while True:
            await guarded(self._round, f"database {self._path}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._wake.wait()
            self._wake.clear()

    async def _round(self) -> None:
        if self._where.lost is not None:
            await self._seek()
            return
        lost = self._where.look() or await self._touched()
        if lost is not None:
            self._lose(lost)
        elif self._where.told:
            await self._bring_in()
            return
        await self._seek()

    def _require(self, lost: Lost | None) -> None:
        if lost is not None:
            self._lose(lost)
            self._wake.set()
        self.require()

    async def _touched(self) -> Lost | None:
        """What is wrong with a main file that we did not write to. One that another process brings the log into, such
        as an import, is looked at when that is done. Raises DelegatorError (TRY_LATER) while somebody goes on writing
        to it otherwise."""
        for _ in range(UNSETTLED):
            if not self._where.touched():
                self._unsure = self._unsure and self._where.writing
                return None
            if self._where.halfway:
                return None
            found = self._where.weigh(self._reader)
            if not isinstance(found, bool):
                return found
            await asyncio.sleep(PAUSE)
            self._where.found()
        self._unsure = True
        raise self._written_to()

    def _written_to(self) -> DelegatorError:
        return DelegatorError(Kind.TRY_LATER, f"database {self._path}: somebody goes on writing to its file")

    # --- the log ---

    async def _bring_in(self) -> None:
        end, files = self._where.end, self._where.found()
        if end is None or files.log is None:
            return
        step = next_step(end.frames, end.done, files.log.size, held=self._held,
                         quiet=time.monotonic() - self._written > QUIET)
        if step is Step.NOTHING:
            return
        self._where.writing = True
        try:
            await _to_its_end(asyncio.to_thread(self._checkpointer.step, step, large=end.frames - end.done > LONG))
        except sqlite3.Error as error:
            if not self._troubled:  # once, not each second of a full disk
                log.warning("database %s: its log was not brought in: %s", self._path, error)
            self._troubled = True
        else:
            self._troubled = False
        finally:
            self._where.writing = False
        lost = self._where.look() or await self._touched()
        if lost is not None:
            self._lose(lost)
            return
        after = self._where.end
        self._held = after is not None and after.salts == end.salts and after.done == end.done < end.frames
        self._checkpointer.tell(self._held, files.log.size)
        if not self._held and after is not None and after.frames - after.done >= PAGES:
            self._wake.set()

    # --- lost ---

    def _lose(self, lost: Lost) -> None:
        if self._where.lost is not None:
            return
        if self._where.whereto:
            lost = replace(lost, why=f"{lost.why}, and lies at {self._where.whereto} now")
        self._where.lose(lost)
        self._left, self._lost_at = None, time.monotonic()
        self._another = self._where.another(self._where.found())
        log.error("database %s: %s; no credential is given; next: %s", self._path, lost.why, lost.hint)

    async def _seek(self) -> None:
        """Bring to safety what is still ours; go on where all is back as it was."""
        lost = self._where.lost
        if lost is None or lost.final:
            return
        if self._left is None:
            await _to_its_end(asyncio.to_thread(self._save))
            return
        found = self._where.found()
        if self._where.elsewhere(found) is not None:
            self._another = self._another or self._where.another(found)
            if time.monotonic() - self._lost_at < SETTLE:
                self._left = self._where.rest()
            return
        wrong = self._where.returned(self._left, self._reader, another=self._another)
        if wrong is None:
            self._where.lost = None
            log.warning("database %s: is back as it was, credentials are given again", self._path)
        elif not isinstance(wrong, bool):
            self._where.lose(wrong)
            log.error("database %s: %s; next: %s", self._path, wrong.why, wrong.hint)

    def _save(self) -> None:
        """What the log holds goes into our main file, wherever that lies; one that was deleted is copied."""
        from delegator.store.engines.sqlite.backup import rescue  # which asks here how a database is opened

        lost = self._where.lost
        assert lost is not None
        if self._where.unchanged() and not self._where.replaced_index():
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if self._where.gone:
            try:
                copy = rescue(self._connection, self._path, datetime.now(UTC))
            except (DelegatorError, OSError, sqlite3.Error) as error:
                log.error("database %s: it was deleted, and could not be saved: %s", self._path, error)
            else:
                self._where.lose(replace(lost, hint=f"stop the delegator, then: delegator restore {copy} --replace",
                                         final=True))
                log.error("database %s: it was deleted; all that it held is saved as %s; next: stop the delegator, "
                          "then: delegator restore %s --replace", self._path, copy, copy)
        self._left = self._where.rest()


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Work in a thread, waited for although we are cancelled: nobody may close what it works with."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await asyncio.wait([task])
        raise
