"""Copies of the embedded database: made while a delegator writes to it, examined, and put back.

A copy shows the database as it was at one moment, its begin: a read transaction holds that view while the pages are
copied, writers go on (WAL), and a copy of whatever length is never begun anew. It holds no key: what is sealed in it
opens only with the sealing key, which is kept elsewhere.
The invariants: a file under a copy's name is whole and was examined; nothing is ever written over, what a restore
replaces is kept beside it; a database that somebody has open is not replaced.
Must not live here: other engines (they bring their own tools), when to make copies.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import itertools
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from delegator.errors import DelegatorError, Kind
from delegator.sealing import ID_BYTES, SealingKey, id_of
from delegator.store.engines.sqlite.rehearsal import reading, rehearse
from delegator.store.engines.sqlite.soundness import RESTORE, is_broken, troubles
from delegator.store.migrate import APPLIED, still_missing
from delegator.store.resealing import SEALED, Column
from pki.disk import require_regular

PAGES = 2048
"""Copied at a time, 8 MiB: between two steps the progress is told and other threads run."""
_EARLIER = "take another copy, made earlier"
_NO_COPY = f"no copy was made; keep those you have, and {RESTORE}, with the newest that restore --check finds sound"
_BESIDE = ("-wal", "-shm", "-journal")
Progress = Callable[[int, int], None]
"""Told how many pages are copied, of how many."""


class Copy(msgspec.Struct, frozen=True):
    """What a database file was found to hold. `keys` are the ids of the keys that seal something in it."""

    path: Path
    size: int
    schema: int
    claims: int
    devices: int
    keys: tuple[str, ...]


def make(source: Path, target: Path, progress: Progress) -> Copy:
    """Copy a database that may be in use to a new file, mode 0600. Raises DelegatorError: CONFIGURATION when the
    source cannot be read or is not sound, in which case there is no copy; CONFLICT when the target is there."""
    _require_free(target)
    with _scratch(target) as scratch:
        with _reading(source, hint=_NO_COPY) as connection:
            _copy(connection, scratch, progress)
        # The copy is faithful: what is wrong with it is wrong with the database.
        found = examine(scratch, called=source, hint=_NO_COPY)
        _publish(scratch, target)
    return Copy(target, found.size, found.schema, found.claims, found.devices, found.keys)


def examine(path: Path, called: Path | None = None, hint: str = _EARLIER) -> Copy:
    """Read a whole copy: is it sound, of a schema that this program knows, with everything there: all that a start
    looks at, and more. `called` is what it is a copy of, for errors, and `hint` what to do where it is not sound.
    Raises DelegatorError (CONFIGURATION)."""
    name = called or path
    with _reading(path, called, hint) as connection:
        trouble = list(itertools.islice(troubles(connection, "integrity_check"), 3))
        if trouble:
            raise _damaged(name, "; ".join(trouble), hint)
        if connection.execute("PRAGMA foreign_key_check").fetchone():
            raise _damaged(name, "rows refer to others that are not there", hint)
        return Copy(path, path.stat().st_size, _schema(name, connection), _count(connection, "claims"),
                    _count(connection, "devices"), _keys(connection))


def opened_by(path: Path, key: SealingKey) -> None:
    """Open what a start opens, and one value of each table and key. Raises DelegatorError (UNAVAILABLE) for one that
    does not open."""
    with _reading(path) as connection:
        asyncio.run(rehearse(reading(connection), "sqlite", key))
        for column in _sealed_in(connection):
            start = f"substr({column.column}, 1, {ID_BYTES})"
            rows = connection.execute(f"SELECT min({column.key}), {column.column} FROM {column.table} "
                                      f"WHERE {column.holds} GROUP BY {start}")
            for name, sealed in rows:
                key.open(sealed, column.name(name))


def restore(backup: Path, path: Path, moment: datetime, *, replace: bool, progress: Progress) -> Path | None:
    """Put a copy where the database is expected. A database that is there already is kept beside it under another
    name, which is returned. What takes its place is examined once more, as it lies there: between a look at the copy
    and this its disk may have changed it. Raises DelegatorError: CONFIGURATION for a copy that a start would refuse,
    CONFLICT when there is a database and `replace` does not say so, or somebody has it open; then nothing changed."""
    there = path.exists()
    if there and not replace:
        raise DelegatorError(Kind.CONFLICT, f"{path} exists", hint="with --replace it is kept under another name and "
                             "the copy takes its place")
    if there and not path.is_file():
        raise DelegatorError(Kind.CONFIGURATION, f"{path} is not a file, and nothing takes its place",
                             hint="check [store] path")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _scratch(path) as scratch:
        with _reading(backup) as connection:
            _copy(connection, scratch, progress)
        examine(scratch, called=backup)
        with _nobody_else(path) if there else contextlib.nullcontext():
            aside = _put_aside(path, moment) if there else None
            if not there:  # a log of one that was deleted would be read into the copy
                _put_aside(path, moment)
            _publish(scratch, path)
    return aside


def rescue(connection: sqlite3.Connection, path: Path, moment: datetime) -> Path:
    """Copy a database that has lost its name, and so is there only for who has it open, to a new file beside that name,
    which is returned. One of the same second was made by another worker. Raises DelegatorError, OSError,
    sqlite3.Error."""
    target = path.with_name(f"{path.name}{_SAVED}{moment:%Y%m%dT%H%M%SZ}")
    if target.exists():
        return target
    with _scratch(target) as scratch:
        _copy(connection, scratch, lambda done, pages: None)
        examine(scratch, called=path)
        _publish(scratch, target)
    return target


def rescued(path: Path) -> Path | None:
    """The newest that `rescue` made of the database at a path; None where there is none."""
    found = sorted(path.parent.glob(f"{glob.escape(path.name)}{_SAVED}*Z")) if path.parent.is_dir() else []
    return found[-1] if found else None


_SAVED = ".saved-"


# --- reading ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _reading(path: Path, called: Path | None = None, hint: str = _EARLIER) -> Iterator[sqlite3.Connection]:
    """One view of a database, as it is now, for as long as the connection is open; see `examine`."""
    try:
        require_regular(path, path.stat())  # SQLite would open a pipe, and wait for somebody who writes to it
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True,
                                                isolation_level=None)) as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            yield connection
    except OSError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"{called or path}: {error.strerror}", hint="check the path and who "
                             "owns it") from None
    except sqlite3.Error as error:
        if is_broken(error):
            raise _damaged(called or path, str(error), hint) from None
        raise DelegatorError(Kind.CONFIGURATION, f"{called or path}: {error}", hint="check the path and who owns it"
                             ) from None


def _copy(source: sqlite3.Connection, target: Path, progress: Progress) -> None:
    """All pages, and the copy made one plain file without a log beside it, on disk."""
    with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as made:
        source.backup(made, pages=PAGES, progress=lambda _, left, total: progress(total - left, total), sleep=0.0)
        made.execute("PRAGMA journal_mode = DELETE")
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _schema(path: Path, connection: sqlite3.Connection) -> int:
    try:
        rows = connection.execute(APPLIED.sql).fetchall()
    except sqlite3.OperationalError:
        raise DelegatorError(Kind.CONFIGURATION, f"{path}: no database of a delegator", hint=_EARLIER) from None
    try:
        still_missing(rows, "sqlite")
    except DelegatorError as error:
        raise DelegatorError(error.kind, f"{path}: {error.detail}", hint="use the release that wrote it, or a newer one"
                             ) from None
    return max((int(row[0]) for row in rows), default=0)


def _count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def _sealed_in(connection: sqlite3.Connection) -> list[Column]:
    """An older schema may not have all tables yet."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    return [column for column in SEALED if column.table in tables]


def _keys(connection: sqlite3.Connection) -> tuple[str, ...]:
    found = {id_of(row[0]) for column in _sealed_in(connection) for row in connection.execute(
        f"SELECT DISTINCT substr({column.column}, 1, {ID_BYTES}) FROM {column.table} "
        f"WHERE {column.holds}")}
    return tuple(sorted(found))


# --- files --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """A private file in the same folder, gone at the end unless it was given its name."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.absolute().parent)
    except OSError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"{target.parent}: {error.strerror}",
                             hint="check the folder and who owns it") from None
    os.close(descriptor)
    scratch = Path(name)
    try:
        yield scratch
    finally:
        for ending in ("", *_BESIDE):
            scratch.with_name(scratch.name + ending).unlink(missing_ok=True)


def _publish(scratch: Path, target: Path) -> None:
    """Give it its name, if nobody else has it now, and make that last."""
    try:
        os.link(scratch, target)
    except FileExistsError:
        raise _taken(target) from None
    folder = os.open(target.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _require_free(target: Path) -> None:
    if os.path.lexists(target):
        raise _taken(target)


def _taken(target: Path) -> DelegatorError:
    return DelegatorError(Kind.CONFLICT, f"{target} exists, and nothing is ever written over",
                          hint="choose another name, such as one with the date in it")


@contextlib.contextmanager
def _nobody_else(path: Path) -> Iterator[None]:
    """Hold a database alone. What does not open at all is held by nobody: that is why it is replaced.

    Whoever has a database in WAL mode open, even idle, holds a shared lock on it; leaving that mode needs a lock of
    one's own, and so finds them all, on this machine."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        try:
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise DelegatorError(Kind.CONFLICT, f"{path} is in use: a delegator runs, or a command",
                                     hint="stop it first: systemctl stop delegator.socket delegator.service") from None
        yield


def _put_aside(path: Path, moment: datetime) -> Path:
    """The old database and whatever belongs to it, under another name: a log left behind would be read into the new
    one."""
    aside = path.with_name(f"{path.name}.replaced-{moment:%Y%m%dT%H%M%SZ}")
    _require_free(aside)
    for ending in (*_BESIDE, ""):
        old = path.with_name(path.name + ending)
        if old.exists():
            old.rename(aside.with_name(aside.name + ending))
    return aside


def _damaged(path: Path, why: str, hint: str) -> DelegatorError:
    return DelegatorError(Kind.CONFIGURATION, f"database {path} is damaged: {why}", hint=hint)
