"""Whether a database file is sound, and whether a delegator would start with it, as far as that can be told by looking.

A check of every page takes 15 to 25 ms for each MiB (measured, cold), so a start checks all of a file that is small,
and of a larger one what costs nothing: that it is a database, has all its pages, and that its tables can be read. The
rest of a large one is examined whenever a copy is made (`delegator backup`), and a page that turns out to be broken
later makes the store unavailable, never wrong.

SQLite 3.40.0 and 3.40.1 (Debian 12 has the latter) take rows that are sound for broken. Before their checks look at a
row they read it up to the table's last column, and of a table WITHOUT ROWID the record has the columns of its key
first: where the last column is one of those, whatever lies behind it in the record is not read and taken for NULL.
Tables of that shape are made no more, but one was until schema 0010, so what is reported of such a table is looked up.
The invariant: looking changes no row, and a file that is not there is sound.
Must not live here: what to do about it, the way of a copy (backup).
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from delegator.errors import DelegatorError, Kind

SMALL = 64 * 1024 * 1024
"""Bytes of a file that is checked whole: a start waits for it for about a second. A hundred thousand devices."""
ENOUGH = 100
"""Reports of one check at most, as SQLite would have it: whoever reads them needs the first."""
RESTORE = "stop the delegator, then: delegator restore COPY --replace"
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_MISREAD = """
SELECT name FROM pragma_table_list AS tables WHERE schema = 'main' AND type = 'table' AND wr AND EXISTS (
    SELECT 1 FROM pragma_table_info(tables.name) AS last
    WHERE last.cid = (SELECT max(cid) FROM pragma_table_info(tables.name)) AND last.pk BETWEEN 1 AND last.cid)
"""
"""Tables WITHOUT ROWID whose last column does not come last in the record."""
_EMPTY = re.compile(r"NULL value in (\w+)\.(\w+)")


def is_broken(error: BaseException) -> bool:
    """Whether SQLite says that the file itself is damaged, or is no database."""
    return getattr(error, "sqlite_errorcode", 0) & 0xff in _BROKEN


def require_sound(path: Path) -> None:
    """Raises DelegatorError (CONFIGURATION) for a damaged file, with the way back."""
    if not path.is_file() or not path.stat().st_size:
        return  # opening it tells what else it is
    try:
        with closing(sqlite3.connect(path.absolute(), isolation_level=None)) as connection:
            found = _found(connection)
    except sqlite3.DatabaseError as error:
        if not is_broken(error):
            return  # locked, or not ours to read: opening it tells better
        found = str(error)
    if found:
        raise DelegatorError(Kind.CONFIGURATION, f"database {path} is damaged: {found}", hint=RESTORE)


def _found(connection: sqlite3.Connection) -> str:
    """The first thing that is wrong, else nothing."""
    pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        connection.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone()
    return "" if pages * size > SMALL else next(troubles(connection, "quick_check"), "")


def troubles(connection: sqlite3.Connection, check: str) -> Iterator[str]:
    """What one of SQLite's checks (`quick_check`, `integrity_check`) finds, one trouble at a time, without what is
    not so: see the module. A database without trouble has none."""
    doubtful = misread(connection)
    most = ENOUGH + sum(doubtful.values())  # else false reports would use up the number, and hide what follows them
    refuted: dict[str, bool] = {}
    for (report,) in connection.execute(f"PRAGMA {check}({most})"):
        said = _EMPTY.fullmatch(report)
        if said is not None and said[1] in doubtful:
            if report not in refuted:
                refuted[report] = not _has_null(connection, *said.groups())
            if refuted[report]:
                continue
        if report != "ok":
            yield from (line for line in report.splitlines() if not line.startswith("***"))


def misread(connection: sqlite3.Connection) -> dict[str, int]:
    """Tables that SQLite 3.40 reports falsely of, and how many values each holds: no more of them can be reported."""
    return {str(table): _values(connection, table) for (table,) in connection.execute(_MISREAD).fetchall()}


def _values(connection: sqlite3.Connection, table: str) -> int:
    columns = connection.execute("SELECT count(*) FROM pragma_table_info(?1)", (table,)).fetchone()[0]
    return int(columns * connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])


def _has_null(connection: sqlite3.Connection, table: str, column: str) -> bool:
    """What really stands there. By its type, as SQLite answers IS NULL of a NOT NULL column without looking, and in
    the table itself, not in an index of it."""
    return connection.execute(f'SELECT 1 FROM "{table}" NOT INDEXED WHERE typeof("{column}") = \'null\' LIMIT 1'
                              ).fetchone() is not None
