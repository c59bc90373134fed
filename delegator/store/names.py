"""Names for a shell to complete, read from the store that settings name, whatever state it is in.

The invariants: nothing is written, made or upgraded, not even a file beside the database; a look takes a fraction of a
second and returns few names, or none where anything is in the way.
Must not live here: what a command does with a name.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from delegator import config
from delegator.store.transaction import Query
from pki.disk import require_regular

MOST = 50
"""Names told to a shell: more fit on no screen."""
PATIENCE = 1.0
"""Seconds, of somebody who pressed a key."""
_LAST = "\U0010ffff"
_TABLES = {"customers": "customers", "delegates": "delegates", "policies": "policies", "rules": "rules",
           "plans": "plans"}


def query(noun: str, begun: str) -> Query | None:
    """The names of a noun that begin so; None for one that has no names."""
    like = begun.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    if noun in _TABLES:
        return Query(f"SELECT DISTINCT name FROM {_TABLES[noun]} WHERE name LIKE $1 ESCAPE '\\' ORDER BY name "
                     f"LIMIT {MOST}", (like,))
    if noun == "orders":
        return Query(f"SELECT order_number FROM orders WHERE order_number LIKE $1 ESCAPE '\\' ORDER BY order_number "
                     f"LIMIT {MOST}", (like,))
    if noun == "devices":  # by the index, however many there are; T begins a service tag, S a serial number
        return Query(f"SELECT substr(name, 2) FROM device_names WHERE (name >= $1 AND name < $2) OR (name >= $3 AND "
                     f"name < $4) ORDER BY name LIMIT {MOST}",
                     tuple(letter + begun + end for letter in "TS" for end in ("", _LAST)))
    return None


def names(where: config.Store, noun: str, begun: str) -> list[str]:
    """Those that begin so, as far as they can be read at once."""
    asked = query(noun, begun)
    if asked is None:
        return []
    found = _of_postgres(where, asked) if where.url else _of_file(Path(where.path), asked)
    return [name for name in found if name.startswith(begun)]


def _of_file(path: Path, asked: Query) -> list[str]:
    """A file that nobody has open is read as it is, so that no second file is made beside it."""
    require_regular(path, path.stat())  # of a pipe nobody would write to the shell would wait for ever
    used = path.with_name(path.name + "-wal").exists()
    place = f"{path.absolute().as_uri()}?mode=ro" + ("" if used else "&immutable=1")
    with contextlib.closing(sqlite3.connect(place, uri=True, timeout=PATIENCE / 4)) as connection:
        places = {str(number): value for number, value in enumerate(asked.parameters, 1)}
        return [str(row[0]) for row in connection.execute(asked.sql.replace("$", ":"), places)]


def _of_postgres(where: config.Store, asked: Query) -> list[str]:
    return asyncio.run(asyncio.wait_for(_read(where, asked), PATIENCE))


async def _read(where: config.Store, asked: Query) -> list[str]:
    from delegator.store.engines.postgres.connecting import connect, server_of  # needs asyncpg, which is optional

    connection = await connect(server_of(where.url, where.password_file, PATIENCE))
    try:
        rows: Sequence[Sequence[object]] = await connection.fetch(asked.sql, *asked.parameters)
        return [str(row[0]) for row in rows]
    finally:
        await connection.close()
