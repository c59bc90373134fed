"""The SQLite driver: one writing connection that groups commits, one reading connection on the loop's thread.

Writing goes through aiosqlite. Transactions that arrive while a commit is on its way to the disk wait together
and share the next one: full durability (synchronous=FULL) at a fraction of an fsync each, and a lone transaction
waits for nobody. Reading by key takes 5-10 µs here against 25-90 µs and spikes of 5 ms through a thread
(measured), so it stays on the loop's thread.
The invariant: `run` returns only when what it did is on disk, or raises and nothing of it remains.
Must not live here: what the SQL means.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from delegator.errors import DelegatorError, Kind
from delegator.store.transaction import Query, Row, Transaction, Value

log = logging.getLogger(__name__)
T = TypeVar("T")
GROUP = 128
"""Transactions in one commit at most: past 32 the cost of an fsync each is below that of the row (measured)."""
BUSY_TIMEOUT = 5.0
"""Seconds a writer waits for another process's lock, such as an import from the command line."""
_PRAGMAS = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA foreign_keys = ON",
            "PRAGMA secure_delete = ON")
"""secure_delete: a wiped credential is overwritten in the file, not only unlinked."""
_OF_ONE = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError)
"""What SQLite holds against one statement; any other DatabaseError (full, locked, corrupt) is about the file."""


class WritingConnection(aiosqlite.Connection):
    """aiosqlite's connection with one more verb: a whole group of transactions in one hop to its thread."""

    async def commit_group(self, group: Sequence[Transaction[Any]]) -> list[object]:
        """The result of each transaction, or the exception that it alone failed with. Raises sqlite3.Error
        when the group as a whole could not be committed."""
        outcomes: list[object] = await self._execute(_commit_group, self._conn, group)  # type: ignore[no-untyped-call]
        return outcomes


class SqliteDriver:
    """Runs transactions on one database file. Make it with `open_sqlite`."""

    dialect = "sqlite"

    def __init__(self, path: Path, writer: WritingConnection) -> None:
        self.path = path
        self._writer = writer
        self._reader = _connect(path, check_same_thread=True)
        self._waiting: list[tuple[Transaction[Any], asyncio.Future[Any]]] = []
        self._committing: asyncio.Task[None] | None = None

    async def run(self, work: Transaction[T]) -> T:
        """Run a transaction to its durable end. Raises what it raises, or DelegatorError (UNAVAILABLE)."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit())
        return await future

    async def read(self, query: Query) -> list[Row]:
        """Rows of one read outside any transaction. Raises DelegatorError (UNAVAILABLE)."""
        try:
            return self._reader.execute(query.sql, _bound(query.parameters)).fetchall()
        except sqlite3.Error as error:
            raise _unavailable(self.path, error) from error

    async def script(self, sql: str) -> None:
        """Run a schema file that brings its own transaction. Raises DelegatorError (CONFIGURATION), and nothing of
        it remains."""
        try:
            await self._writer.executescript(sql)
        except sqlite3.Error as error:
            await self._writer.rollback()
            raise _unusable(self.path, error) from error

    async def close(self) -> None:
        """Finish what waits, then let go of the file."""
        if self._committing is not None:
            await self._committing
        self._reader.close()
        await self._writer.close()

    async def _commit(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:GROUP], self._waiting[GROUP:]
                for (_, future), outcome in zip(group, await self._outcomes(group), strict=True):
                    if future.cancelled():
                        continue
                    if isinstance(outcome, BaseException):
                        future.set_exception(outcome)
                    else:
                        future.set_result(outcome)
        finally:
            self._committing = None

    async def _outcomes(self, group: Sequence[tuple[Transaction[Any], asyncio.Future[Any]]]) -> Sequence[object]:
        try:
            return await self._writer.commit_group([work for work, _ in group])
        except Exception as error:  # whatever it is, nobody may be left waiting
            log.error("store: a group of %d transactions was not committed: %s", len(group), error)
            return [_unavailable(self.path, error) for _ in group]


def _unavailable(path: Path, error: Exception) -> DelegatorError:
    return DelegatorError(Kind.UNAVAILABLE, f"database {path}: {error}")


def _unusable(path: Path, error: Exception) -> DelegatorError:
    return DelegatorError(Kind.CONFIGURATION, f"database {path}: {error}",
                          hint="check [store] path and who owns that folder")


def _bound(parameters: tuple[Value, ...]) -> dict[str, Value]:
    """SQLite reads `$1` as a parameter named "1"."""
    return {str(number): value for number, value in enumerate(parameters, 1)}


def _commit_group(connection: sqlite3.Connection, group: Sequence[Transaction[Any]]) -> list[object]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        outcomes = [_run_one(connection, work) for work in group]
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return outcomes


def _run_one(connection: sqlite3.Connection, work: Transaction[Any]) -> object:
    """One transaction under a savepoint of its own: its failure undoes itself and nobody else."""
    connection.execute("SAVEPOINT one")
    try:
        outcome = _drive(connection, work)
    except Exception as error:
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, _OF_ONE):
            raise
        connection.execute("ROLLBACK TO one")
        outcome = _refused(error) if isinstance(error, sqlite3.IntegrityError) else error
    connection.execute("RELEASE one")
    return outcome


def _refused(error: sqlite3.IntegrityError) -> DelegatorError:
    return DelegatorError(Kind.CONFLICT, f"refused by the database: {error}",
                          hint="something else still refers to it, or holds the same identifier")


def _drive(connection: sqlite3.Connection, work: Transaction[Any]) -> object:
    rows: Sequence[Row] | None = None
    try:
        while True:
            query = next(work) if rows is None else work.send(rows)
            rows = connection.execute(query.sql, _bound(query.parameters)).fetchall()
    except StopIteration as end:
        return end.value


def _connect(path: Path, *, check_same_thread: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None,
                                 check_same_thread=check_same_thread)
    try:
        for pragma in _PRAGMAS:
            connection.execute(pragma)
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)


async def open_sqlite(path: Path) -> SqliteDriver:
    """Open or create the database file, mode 0600. Raises DelegatorError (CONFIGURATION)."""
    try:
        _create(path)
        _connect(path, check_same_thread=True).close()  # a file that is no database fails before there is a thread
        writer = WritingConnection(lambda: _connect(path, check_same_thread=False), iter_chunk_size=64)
        await writer
        try:
            return SqliteDriver(path, writer)
        except BaseException:
            await writer.close()
            raise
    except (OSError, sqlite3.Error) as error:
        raise _unusable(path, error) from error
