"""Whether a database file is sound, as far as that can be told before a start.

A check of every page takes 15 to 25 ms for each MiB (measured, cold), so a start checks all of a file that is small,
and of a larger one what costs nothing: that it is a database, has all its pages, and that its tables can be read. The
rest of a large one is examined whenever a copy is made (`delegator backup`), and a page that turns out to be broken
later makes the store unavailable, never wrong.
The invariant: looking changes no row, and a file that is not there is sound.
Must not live here: what to do about it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from delegator.errors import DelegatorError, Kind

SMALL = 64 * 1024 * 1024
"""Bytes of a file that is checked whole: a start waits for it for about a second. A hundred thousand devices."""
RESTORE = "stop the delegator, then: delegator restore COPY --replace"
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_broken(error: BaseException) -> bool:
    """Whether SQLite says that the file itself is damaged, or is no database."""
    return getattr(error, "sqlite_errorcode", 0) & 0xff in _BROKEN


def require_sound(path: Path) -> None:
    """Raises DelegatorError (CONFIGURATION) for a damaged file, with the way back."""
    if not path.exists() or not path.stat().st_size:
        return
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            found = _found(connection, path)
    except sqlite3.DatabaseError as error:
        if not is_broken(error):
            return  # locked, or not ours to read: opening it tells better
        found = str(error)
    if found:
        raise DelegatorError(Kind.CONFIGURATION, f"database {path} is damaged: {found}", hint=RESTORE)


def _found(connection: sqlite3.Connection, path: Path) -> str:
    """The first thing that is wrong, else nothing."""
    pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        connection.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone()
    if pages * size > SMALL:
        return ""
    found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    return "" if found == "ok" else " ".join(found.split())
