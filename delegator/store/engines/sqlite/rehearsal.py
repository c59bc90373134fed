"""What a start would make of a database, told without changing it: `config check` asks here what `serve` will do.

It asks the very code that a start runs (soundness, migrate, the ledger of the audit), so that both say the same, word
for word. What only work shows, a disk that is full or a migration that fails on somebody's rows, no rehearsal tells.
The invariant: no row is written, and no file is made.
Must not live here: what else is worth a remark, as to who may read a file (cli).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from delegator.sealing import SealingKey
from delegator.store.audit.ledger import Ledger
from delegator.store.engines.sqlite.reading import unusable
from delegator.store.engines.sqlite.soundness import require_sound
from delegator.store.migrate import APPLIED, schema_files, still_missing
from delegator.store.transaction import Query, Row
from pki.disk import require_regular

_TABLES = {"sqlite": "SELECT name FROM sqlite_schema WHERE type = 'table'",
           "postgres": "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"}
Read = Callable[[Query], Awaitable[Sequence[Row]]]


class Standing(msgspec.Struct, frozen=True):
    """The number of the newest schema file that was applied, 0 for none; of the newest that a start would apply, None
    where it applies none; and of the newest that this program knows."""

    at: int
    to: int | None
    known: int

    @property
    def words(self) -> str:
        if not self.at:
            return "holds no tables yet; made at first use"
        if self.at > self.known:
            return f"schema {self.at}, of a newer release; this one knows {self.known} and works beside it"
        return f"schema {self.at}" + ("" if self.to is None else f"; a start brings it to {self.to}, for good")


async def rehearse(read: Read, dialect: str, sealing: SealingKey | None) -> Standing:
    """With `read` of a database as it is. Without a sealing key, which is then told on its own, what it must open is
    left out. Raises DelegatorError as a start would."""
    tables = {str(row[0]) for row in await read(Query(_TABLES[dialect]))}
    applied = await read(APPLIED) if "schema_files" in tables else []
    missing = still_missing(applied, dialect)
    if sealing is not None and "audit_keys" in tables:
        await _audit_opens(read, sealing)
    newest = max((int(str(row[0])) for row in applied), default=0)
    return Standing(newest, missing[-1].number if missing else None, schema_files(dialect)[-1].number)


async def _audit_opens(read: Read, sealing: SealingKey) -> None:
    """A start writes a row of the audit: for that it opens the key of its hashes, or begins an audit without one."""
    found = await read(Query("SELECT sealed FROM audit_keys WHERE number = 1"))
    if found or await read(Query("SELECT 1 FROM audit LIMIT 1")):
        sealed = found[0][0] if found else None
        assert Ledger("main", sealing, sealed if isinstance(sealed, bytes) else None).key


def reading(connection: sqlite3.Connection) -> Read:
    async def read(query: Query) -> Sequence[Row]:
        return connection.execute(query.sql, query.parameters).fetchall()
    return read


async def rehearse_sqlite(path: Path, sealing: SealingKey | None) -> Standing:
    """Of a database file that is there. Raises DelegatorError as a start would."""
    require_sound(path)
    try:
        with closing(_opened(path)) as connection:
            connection.execute("BEGIN IMMEDIATE")  # may we write there at all, and does nobody hold it for long
            return await rehearse(reading(connection), "sqlite", sealing)  # closing takes the transaction back
    except (OSError, sqlite3.Error) as error:
        raise unusable(path, error) from error


def _opened(path: Path) -> sqlite3.Connection:
    """SQLite would open a pipe, and wait for somebody who writes to it; and it takes `:memory:` for no file at all."""
    require_regular(path, path.stat())
    return sqlite3.connect(path.absolute(), isolation_level=None)
