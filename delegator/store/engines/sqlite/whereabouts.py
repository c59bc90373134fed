"""Whether the database file that we write to is the one at its path, and still ends with what we brought into it.

A file that was deleted, moved or replaced goes on taking commits for whoever has it open, and all of them are gone
with the process. So each commit is followed by a look, before anybody is answered: the three files lie at their paths
with the numbers that we opened, the log ends with that very commit, and nobody but a checkpoint wrote to the main file.
That takes some 15 µs (measured). What changed the main file is asked for the end of the audit as it lies there: a copy
from before has an older one, another database another one.
The invariants: `Lost.final` is never taken back; a descriptor of SQLite's is only read from, and none of our own is
opened on the main file or its index, as closing it would let go of SQLite's locks (POSIX).
Must not live here: what is done about it (driver), checkpoints (checkpoints).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

from delegator.errors import DelegatorError, Kind
from delegator.store.audit.chain import Head, head_of
from delegator.store.engines.sqlite.reading import is_busy
from delegator.store.engines.sqlite.soundness import RESTORE, is_broken

LAST = "SELECT number, hash FROM audit WHERE chain = 'main' ORDER BY number DESC LIMIT 1"
ROW = "SELECT hash FROM audit WHERE chain = 'main' AND number = ?1"
NOTHING = Head(0, b"")
"""The end of an audit that is not there yet."""
_AT_ONCE = 8
"""Looks at an index or log that others write to meanwhile, until one is of a piece."""
_INDEX = struct.Struct("=IIIBBHIIII8s")
_HEADER, _FRAME = 32, 24
_BACK = "put it back where it was, and the delegator goes on by itself"


class Lost(msgspec.Struct, frozen=True):
    """Why no commit counts, what to do, and whether only a start helps."""

    why: str
    hint: str
    final: bool = False

    def error(self, path: Path) -> DelegatorError:
        return DelegatorError(Kind.TRY_LATER, f"database {path}: {self.why}; no credential is given", hint=self.hint)


class File(NamedTuple):
    """What says which file it is, and whether somebody wrote to it."""

    device: int
    number: int
    size: int
    changed: int

    @property
    def same(self) -> tuple[int, int]:
        return self.device, self.number


class Files(NamedTuple):
    """The database, its log (-wal), and the index of that (-shm); None for what is not there."""

    main: File | None
    log: File | None
    shared: File | None


class End(NamedTuple):
    """The end of the log as the index tells it: how many frames, of which generation, the sums behind the last one;
    how many of them stand in the main file too, and bytes of a page."""

    frames: int
    salts: bytes
    sums: tuple[int, int]
    done: int
    page: int

    def at(self) -> int:
        """Where the last frame's header begins in the log."""
        return _HEADER + (self.frames - 1) * (_FRAME + self.page)


_NAMES = ("it", "its log (-wal)", "the index of its log (-shm)")


def elsewhere(ours: Files, found: Files) -> Lost | None:
    """Which file is another one than we opened, if any. The main file first: it says most."""
    for name, mine, there in zip(_NAMES, ours, found, strict=True):
        if mine is None or (there is not None and mine[:2] == there[:2]):
            continue
        if name == _NAMES[0]:
            return Lost("it is not at its path any more" if there is None else
                        "another file took its place", f"{_BACK}; where it is gone for good: {RESTORE}")
        return Lost(f"{name} was {'removed' if there is None else 'replaced'}", f"{_BACK}; else start it again")
    return None


def torn(before: End | None, now: End) -> str:
    """What of the log cannot be so, from one look to the next: it only grows, or begins again one generation later."""
    if before is None or not before.frames or (before.salts == now.salts and before.frames <= now.frames):
        return ""
    if before.salts == now.salts:
        return "its log goes back to where it was before"
    later = int.from_bytes(now.salts[:4]) - int.from_bytes(before.salts[:4]) & 0xFFFFFFFF
    return "" if 0 < later < 1 << 31 else "its log is another one"


def receded(before: Head, found: Head, newest: Head, there: bytes | None) -> str:
    """Why a main file whose audit ends with `found` is not ours, "" if it may be. `before` is where it ended when we
    looked last, `newest` the end with what the log holds, `there` the hash of the row with `found`'s number."""
    if found.number < before.number:
        return f"it holds an older copy: its audit ends with row {found.number} and ended with {before.number}"
    if found == before or (there is not None and there == found.hash):
        return ""
    pruned = there is None and found.number < newest.number
    return "" if pruned else "it holds another database"


def meddled(left: Files, before: End | None, found: Files, now: End | None, *, another: bool) -> bool:
    """Whether somebody wrote to files that were away, which are back as `found` and `now`, and not by way of the log
    and index that other workers of ours share, who may not have noticed at all. `another` says that a file of somebody
    else's lay in their place meanwhile: who opened that did share them."""
    if before is None or now is None or now == before or another:
        return found[:2] != left[:2] or now != before
    brought_in = (now.done, now.salts) != (before.done, before.salts)
    return found.main != left.main and not brought_in


FINAL = f"{RESTORE}, with the newest copy"


class Whereabouts:
    """The files of one database that we have open. Make it with `begin` once they are open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._real = str(path.resolve())
        self._paths = [str(path), *(f"{self._real}{ending}" for ending in ("-wal", "-shm"))]
        self.lost: Lost | None = None
        self.end: End | None = None
        self._seen = self._ours = Files(None, None, None)
        """As they lay at the last look, and as they were opened."""
        self.writing = False
        """A checkpoint of ours is under way: the main file changes, and is looked at when it is done."""
        self._main: int | None = None
        self._log: int | None = None
        self._index: int | None = None
        self._head = NOTHING
        self._known: File | None = None

    def begin(self) -> None:
        """These are ours from now on. Raises OSError, sqlite3.Error."""
        self._ours = self.found()
        self._main, self._index = _descriptors(self._ours.main, self._ours.shared)
        if self._main is not None and self._index is not None and self._ours.log is not None:
            self._log = os.open(self._paths[1], os.O_RDONLY)  # nobody locks that one: it may be opened and closed
            self.end = self._end()
        self._known = self._ours.main
        with contextlib.suppress(sqlite3.Error):  # of a page that is broken who needs it tells
            self._head = head_in(self.path)

    @property
    def told(self) -> bool:
        """Whether this system tells of open files: else only paths are looked at."""
        return self._log is not None

    def close(self) -> None:
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def require(self) -> None:
        """Raises DelegatorError (TRY_LATER) where we know that no commit counts."""
        if self.lost is not None:
            raise self.lost.error(self.path)

    def lose(self, lost: Lost) -> None:
        if self.lost is None or not self.lost.final:
            self.lost = lost

    def found(self) -> Files:
        self._seen = Files(*map(_file, self._paths))
        return self._seen

    def look(self) -> Lost | None:
        """Whether all three are ours and the log ends as it should."""
        return elsewhere(self._ours, self.found()) or self.look_at_end(whole=True)

    def elsewhere(self, found: Files) -> Lost | None:
        return elsewhere(self._ours, found)

    def another(self, found: Files) -> bool:
        """Whether a file of somebody else's lies in the place of one of ours."""
        return any(mine is not None and there is not None and mine.same != there.same
                   for mine, there in zip(self._ours, found, strict=True))

    def unchanged(self) -> bool:
        """Whether the log ends exactly as it did at the last look."""
        return self._log is None or self._end() == self.end

    def returned(self, left: Files, live: sqlite3.Connection, *, another: bool) -> Lost | bool | None:
        """Of files that are back at their places, once `left` as they were: what is wrong with them, None where
        nothing is, False while somebody is writing to them. A worker that was quicker to go on may be within a commit,
        whose frames are in the log before the index tells of them: so it is looked at under the write lock of that
        index, which keeps off all who share it, and nobody who does not."""
        try:
            live.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if is_busy(error):
                return False
        try:
            return self._returned(left, live, another=another)
        finally:
            if live.in_transaction:
                live.execute("ROLLBACK")

    def _returned(self, left: Files, live: sqlite3.Connection, *, another: bool) -> Lost | bool | None:
        found = self.found()  # before what the index says: what was brought in by then, it says too
        before, now = self.end, None if self._log is None else self._end()
        if self.halfway:
            return False
        beside = now is not None and self._unlike(now, now) != ""  # by the same index, into a log under another name
        if beside or meddled(left, before, found, now, another=another):
            return Lost("it is back, but somebody wrote to it meanwhile", "start the delegator again", final=True)
        return self.look_at_end(whole=True) or self.weigh(live)

    def replaced_index(self) -> bool:
        """Whether somebody else works with an index of their own: nobody keeps us from writing at the same time."""
        there, ours = self.found().shared, self._ours.shared
        return there is not None and ours is not None and there.same != ours.same

    def rest(self) -> Files:
        """As all of it lies now that we write no more; only this may come back."""
        if self._log is not None:
            self.end = self._end()
        main, log = (None if one is None else _told(os.fstat(one)) for one in (self._main, self._log))
        self._known = main
        return Files(main, log, None)

    def look_at_end(self, *, whole: bool = False) -> Lost | None:
        """Whether the index goes on from where it was: asked before each commit too, which would write over what the
        index does not tell of. With `whole`, whether the log still holds its frame before, which lies behind all that
        was there then."""
        if self._log is None:
            return None
        before, now = self.end, self._end()
        why = torn(before, now) or (self._unlike(before, now) if whole and before is not None else "")
        if why:
            return Lost(why, FINAL, final=True)
        self.end = now
        return None

    def _unlike(self, one: End, now: End) -> str:
        """Whether the frame that was the log's last one is what the index said of it."""
        if not one.frames or one.salts != now.salts or self._holds(one):
            return ""
        begun_anew = self._end().salts != now.salts
        return "" if begun_anew or self._holds(one) else "its log does not hold what was written to it"

    def _holds(self, one: End) -> bool:
        assert self._log is not None
        frame = os.pread(self._log, _FRAME, one.at())
        return frame[8:16] == one.salts and struct.unpack(">II", frame[16:24]) == one.sums

    def _end(self) -> End:
        assert self._index is not None
        for _ in range(_AT_ONCE):
            said = os.pread(self._index, 100, 0)
            if len(said) == 100 and said[:48] == said[48:96]:
                break
        else:
            said = said.ljust(100, b"\0")
        _, _, _, _, _, page, frames, _, *sums, salts = _INDEX.unpack_from(said)
        done, = struct.unpack_from("=I", said, 96)
        return End(frames, salts, (sums[0], sums[1]), done, _size(page))

    # --- what the main file holds ---

    def touched(self) -> bool:
        """Whether somebody else had written to the main file by the last look, since it was found in order."""
        return not self.writing and self._seen.main != self._known

    def brought(self) -> tuple[int, int, bytes]:
        """Frames of the log that are in the main file, those that whoever brings them in is at, and which log it is
        (walformat.html section 4.3: nBackfill, nBackfillAttempted, the salts)."""
        if self._index is None:
            return 0, 0, b""
        said = os.pread(self._index, 132, 0).ljust(132, b"\0")
        return int.from_bytes(said[96:100], sys.byteorder), int.from_bytes(said[128:132], sys.byteorder), said[32:40]

    @property
    def halfway(self) -> bool:
        """Whether a checkpoint is under way, be it another process's, or ended halfway: until the next one is done the
        main file alone is in no order, and only with the log it is."""
        done, at, _ = self.brought()
        return done != at

    def weigh(self, live: sqlite3.Connection) -> Lost | bool | None:
        """Look at the main file's own end of the audit, `live` being how we see it: what is wrong, None when it is in
        order, False while somebody is writing to it."""
        before, brought = _file(self._paths[0]), self.brought()
        if brought[0] != brought[1]:
            return False
        try:
            found = head_in(self.path)
            newest = live.execute(LAST).fetchone()
            there = live.execute(ROW, (found.number,)).fetchone()
        except sqlite3.Error as error:
            settled = before == _file(self._paths[0]) and brought == self.brought()
            if not is_broken(error) or not settled:
                return False
            return Lost(f"its file was changed beneath us: {error}", FINAL, final=True)
        if before != _file(self._paths[0]) or brought != self.brought():
            return False
        why = self._unfit() or receded(self._head, found, head_of(newest) if newest else NOTHING,
                                       bytes(there[0]) if there else None)
        if why:
            return Lost(why, FINAL, final=True)
        self._head, self._known = found, before
        self._seen = self._seen._replace(main=before)
        return None

    def _unfit(self) -> str:
        """Whether its first bytes are those of a database with a log that has all its pages."""
        if self._main is None:
            return ""
        said = os.pread(self._main, 100, 0)
        if not said.startswith(b"SQLite format 3\0") or said[18:20] != b"\2\2":
            return "its file was written over"
        whole = int.from_bytes(said[28:32]) * _size(int.from_bytes(said[16:18]))
        return "its file was cut" if os.fstat(self._main).st_size < whole else ""

    def flush(self) -> None:
        if self._main is not None:
            os.fdatasync(self._main)

    # --- where it went ---

    @property
    def gone(self) -> bool:
        """Whether the main file has no name any more: nobody can put it back."""
        return self._main is not None and os.fstat(self._main).st_nlink == 0

    @property
    def whereto(self) -> str:
        """Where the main file lies now, "" where it lies as it did, or nobody can tell."""
        if self._main is None or self.gone:
            return ""
        with contextlib.suppress(OSError):
            found = str(Path(f"/proc/self/fd/{self._main}").readlink())
            return "" if found == self._real else found
        return ""


def _size(page: int) -> int:
    """Bytes of a page as two bytes tell it: 65536 as 1."""
    return 65536 if page == 1 else page


def _file(path: str) -> File | None:
    try:
        return _told(os.stat(path))  # noqa: PTH116 - of each commit, and twice as quick
    except OSError:
        return None


def _told(found: os.stat_result) -> File:
    return File(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _descriptors(*files: File | None) -> list[int | None]:
    """SQLite's own descriptors of these files. They stay open for as long as we have the database open: it keeps one
    while any of its connections holds a lock on the file, and shares that of an index."""
    wanted = {one.same: place for place, one in enumerate(files) if one is not None}
    found: list[int | None] = [None] * len(files)
    with contextlib.suppress(OSError):
        for one in Path("/proc/self/fd").iterdir():
            said = _file(str(one))
            place = None if said is None else wanted.get(said.same)
            if place is not None:
                found[place] = int(one.name)
    return found


def head_in(path: Path) -> Head:
    """The end of the audit in the main file itself, whatever the log says. Raises sqlite3.Error."""
    uri = f"{path.absolute().as_uri()}?immutable=1"
    with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        try:
            row = connection.execute(LAST).fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return NOTHING
            raise
    return head_of(row) if row else NOTHING
