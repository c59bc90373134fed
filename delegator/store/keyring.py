"""The sealing keys that settings name, read for the database that they name.

A key that is missing is made where nothing is sealed yet, and brought back from a copy where something is: a new one
would open none of it. Which of the two it is, the database itself tells.
The invariant: looking makes no file and changes none.
Must not live here: what a key file is (sealing), what is sealed where (resealing).
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from delegator import config
from delegator.errors import DelegatorError, Kind
from delegator.sealing import RESTORE, SealingKey, making, read_key_file
from delegator.store.engines.sqlite.backup import rescued
from delegator.store.resealing import SEALED

_OLDER = ("restore it from your copy; or take it out of [sealing] older_key_files, if `delegator sealing status` shows "
          "nothing that is sealed with it")


def load(sealing: config.Sealing, where: config.Store) -> SealingKey:
    """All keys. Raises DelegatorError (CONFIGURATION), with what to do about the first that is not in order."""
    files = (sealing.key_file, *sealing.older_key_files)
    return SealingKey(*(read(name, sealing, where) for name in files), files=files)


def read(name: str, sealing: config.Sealing, where: config.Store) -> bytes:
    """One of them. Raises DelegatorError (CONFIGURATION)."""
    path = Path(name)
    return read_key_file(path, "" if path.exists() else _of_missing(name, sealing, where))


def _of_missing(name: str, sealing: config.Sealing, where: config.Store) -> str:
    if name != sealing.key_file:
        return _OLDER
    if where.url:  # who asks may be in the middle of a loop, and the server may be away
        return f"where that database holds anything, {RESTORE}; for a new, empty one, {making(name)}"
    return RESTORE if holds_sealed(Path(where.path)) else making(name)


def unmade(where: config.Store) -> Path | None:
    """Where the database is to be that is not there yet; None where there is one, or a server that has it. Where a
    delegator saved one that was taken away beneath it, an empty one in its place would forget every device and claim:
    raises DelegatorError (CONFIGURATION)."""
    path = Path(where.path)
    if where.url or path.exists():
        return None
    saved = rescued(path)
    if saved is not None:
        raise DelegatorError(
            Kind.CONFIGURATION, f"there is no database at {path.absolute()}, but beside it lies {saved.name}: what a "
            "delegator saved when its database was taken away", hint=f"stop the delegator, then: delegator restore "
            f"{saved} --replace; or move that file elsewhere where a new, empty database is meant")
    return path.absolute()


def beside(where: config.Store) -> str:
    """What there is to say where a database is served beside one that was saved: it may be the older copy that took
    its place. "" where there is none."""
    saved = None if where.url else rescued(Path(where.path))
    return "" if saved is None else (
        f"beside it lies {saved.name}, saved when its database was taken away: where that was not restored since, stop "
        f"the delegator, then: delegator restore {saved} --replace; where it was, move that file elsewhere")


def holds_sealed(path: Path) -> bool:
    """Whether something is sealed in a database file. One that cannot be read may hold anything."""
    if not path.is_file() or not path.stat().st_size:
        return False
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            return any(connection.execute(f"SELECT 1 FROM {one.table} WHERE {one.holds} LIMIT 1").fetchone()
                       for one in SEALED if one.table in tables)
    except sqlite3.Error:
        return True
