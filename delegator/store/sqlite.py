"""The SQLite driver: one writing connection that groups commits, one reading connection.

Whatever waits (for the disk, for another process's lock) happens in aiosqlite's thread; statements, 5-10 µs each,
run on the loop's thread, because each one that crosses to another thread costs 25-90 µs and fights for the
interpreter (measured). Transactions that arrive while a commit is on its way to the disk share the next one: full
durability (synchronous=FULL) at a fraction of an fsync each, and a lone transaction waits for nobody.
The invariants: `run` returns only when what it did is on disk, or raises and nothing of it remains; the writing
connection is used by one thread at a time, because one task alone takes it through begin, statements, commit.
Must not live here: what the SQL means.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from delegator.errors import DelegatorError, Kind
from delegator.store.bulk import statements
from delegator.store.checkpoints import KEPT
from delegator.store.keeping import Keeping
from delegator.store.soundness import RESTORE, is_broken
from delegator.store.transaction import Commits, Query, Row, Rows, Scope, Work
from pki.disk import require_regular

log = logging.getLogger(__name__)
T = TypeVar("T")
CROWD = 0.005
"""Seconds the next commit waits for company when the last one had some: 13 % less CPU a handshake under load
(measured). A lone transaction never waits."""
LINE, STALL = 512, 2.0
"""Transactions in line (four commits' worth), and seconds of the commit under way, from which on the store is stalled.
A burst alone makes a long line, which the next commits take."""
GROUP = 128
"""Transactions in one commit at most: past 32 the cost of an fsync each is below that of the row (measured)."""
BUSY_TIMEOUT = 5.0
"""Seconds a writer waits for another process's lock, such as an import from the command line."""
_PRAGMAS = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA foreign_keys = ON",
            "PRAGMA secure_delete = ON", f"PRAGMA journal_size_limit = {KEPT}")
"""secure_delete: a wiped credential is overwritten in the file, not only unlinked."""
_OF_ONE = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError)
"""What SQLite holds against one statement; any other DatabaseError (full, locked, corrupt) is about the file."""


class SqliteDriver:
    """Runs transactions on one database file. Make it with `open_sqlite`."""

    dialect = "sqlite"
    chain = "main"
    """Of the audit: one for all, as transactions run one after the other."""
    shared = False
    era = 0
    """Of the server that we write to: there is none here that another could take over from."""
    heard = None
    """Nobody tells us of a change of the small tables: asking for the revision costs 6 µs (measured)."""

    def __init__(self, path: Path, writer: aiosqlite.Connection, connection: sqlite3.Connection) -> None:
        """`connection` is what `writer` writes with, for statements that wait for nothing."""
        self.path = path
        self._writer = writer
        self._connection = connection
        self._reader = _connect(path)
        self._keeping = Keeping(path, connection, self._reader)
        self._waiting: list[tuple[Work[Any], asyncio.Future[Any]]] = []
        self._committing: asyncio.Task[None] | None = None
        self._crowded = self._closed = False
        self._closing = asyncio.Lock()
        self._began = 0.0
        self._stalled = self._suspected = False
        self.commits = Commits()
        self.turn = 0
        """Another number for each commit, and when it is done again: what a transaction has read holds for the next
        one with the same number."""

    @property
    def stalled(self) -> bool:
        """Whether many wait for a commit that takes too long: a disk that hangs, another process's long write."""
        if len(self._waiting) <= LINE:
            return False
        if not self._stalled and not self._suspected and time.monotonic() - self._began > STALL:
            self._suspected = True
            asyncio.get_running_loop().call_soon(self._suspect, self._began, 3)
        return self._stalled

    def _suspect(self, began: float, turns: int) -> None:
        """A commit that ended in the thread is heard of a turn or two later, and turns are long in a crowd: only one
        that is still under way after three of them hangs."""
        if turns:
            asyncio.get_running_loop().call_soon(self._suspect, began, turns - 1)
            return
        self._suspected = False
        self._stalled = self._began == began and self._committing is not None

    async def run(self, work: Work[T], scope: Scope | None = None, *, repeatable: bool = False) -> T:
        """Run a transaction to its durable end; here each one runs alone, whatever its scope. Raises what it raises,
        or DelegatorError (UNAVAILABLE)."""
        if self._closed:
            raise DelegatorError(Kind.UNAVAILABLE, f"database {self.path}: it is closed")
        self._keeping.require()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit())
        return await future

    async def read(self, query: Query) -> list[Row]:
        """Rows of one read outside any transaction. Raises DelegatorError (UNAVAILABLE)."""
        self._keeping.require()
        try:
            return self._reader.execute(_numbered(query.sql), query.parameters).fetchall()
        except sqlite3.Error as error:
            raise _unavailable(self.path, error) from error

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Callable[[Query], Awaitable[list[Row]]]]:
        """Reads that all see the database as the first of them does, on a connection of their own."""
        self._keeping.require_there()
        connection = _connect(self.path)

        async def read(query: Query) -> list[Row]:
            try:
                return connection.execute(_numbered(query.sql), query.parameters).fetchall()
            except sqlite3.Error as error:
                raise _unavailable(self.path, error) from error
        try:
            connection.execute("BEGIN")
            yield read
        finally:
            connection.close()

    def listen(self, changed: Callable[[], None]) -> None:
        """Nobody tells here, see `heard`. Who wants to be told serves devices: from now on the files are looked at
        although nobody writes, and the log is brought in apart from commits."""
        self._keeping.serve()

    async def script(self, sql: str) -> None:
        """Run a schema file that brings its own transaction. Raises DelegatorError (CONFIGURATION), and nothing of
        it remains."""
        with self._patience():
            try:
                await self._writer.executescript(sql)
            except sqlite3.Error as error:
                await self._writer.rollback()
                raise unusable(self.path, error) from error

    @contextlib.contextmanager
    def _patience(self) -> Iterator[None]:
        """In here the writing connection waits for other processes: only for what runs in the thread."""
        self._connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000:.0f}")
        try:
            yield
        finally:
            self._connection.execute("PRAGMA busy_timeout = 0")

    async def close(self) -> None:
        """Finish what waits, take nothing more, then let go of the file: a statement that runs while another thread
        closes its connection ends the whole process (seen). Closing twice changes nothing; where the first was
        cancelled as it waited, the second ends what it began: the writer's thread would keep the process alive."""
        self._closed = True
        async with self._closing:
            if self._committing is not None:
                await asyncio.wait([self._committing])
            await self._keeping.close()
            self._reader.close()
            await self._writer.close()

    async def _commit(self) -> None:
        try:
            while self._waiting:
                if self._crowded:
                    await asyncio.sleep(CROWD)
                self._crowded = len(self._waiting) > 1
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

    async def _outcomes(self, group: Sequence[tuple[Work[Any], asyncio.Future[Any]]]) -> Sequence[object]:
        self._began, self._stalled = time.monotonic(), False
        try:
            self._keeping.before_commit()
            await self._begin()
            try:
                outcomes = await self._all([work for work, _ in group])
                await self._writer.commit()
                await self._keeping.after_commit()
                self.commits.done += 1
                self.commits.transactions += len(group)
            except BaseException:
                await self._writer.rollback()
                raise
        except Exception as error:  # whatever it is, nobody may be left waiting
            self.commits.failed += 1
            log.error("store: a group of %d transactions was not committed: %s", len(group), error,
                      extra={"connection": ""})
            return [error if isinstance(error, DelegatorError) else _unavailable(self.path, error) for _ in group]
        return outcomes

    async def _all(self, works: Sequence[Work[Any]]) -> Sequence[object]:
        """What became of each. At first without a savepoint for each, two statements less a handshake; where one
        fails, all are undone and done again with them."""
        try:
            return [_drive(self._connection, work) for work in works]
        except Exception as error:
            if _of_file(error):
                raise
        self._connection.execute("ROLLBACK")
        await self._begin()
        return [_run_one(self._connection, work) for work in works]

    async def _begin(self) -> None:
        """At once where nobody else writes; where another process does, wait for it in the thread."""
        self.turn += 1
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # or one of its extended codes
                raise
            with self._patience():
                await self._writer.execute("BEGIN IMMEDIATE")


def _words(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _unavailable(path: Path, error: Exception) -> DelegatorError:
    return DelegatorError(Kind.UNAVAILABLE, f"database {path}: {_words(error)}",
                          hint=RESTORE if is_broken(error) else "")


def unusable(path: Path, error: Exception) -> DelegatorError:
    return DelegatorError(Kind.CONFIGURATION, f"database {path}: {_words(error)}",
                          hint=RESTORE if is_broken(error) else "check [store] path and who owns that folder")


@functools.cache
def _numbered(sql: str) -> str:
    """To SQLite `$1` is a name and `?1` a place; places take our tuples as they are (4 µs less a statement)."""
    return re.sub(r"\$(\d+)", r"?\1", sql)


def _run_one(connection: sqlite3.Connection, work: Work[Any]) -> object:
    """One transaction under a savepoint of its own: its failure undoes itself and nobody else."""
    connection.execute("SAVEPOINT one")
    try:
        outcome = _drive(connection, work)
    except Exception as error:
        if _of_file(error):
            raise
        connection.execute("ROLLBACK TO one")
        outcome = _refused(error) if isinstance(error, sqlite3.IntegrityError) else error
    connection.execute("RELEASE one")
    return outcome


def _of_file(error: Exception) -> bool:
    """Whether it is about the database and not about one transaction."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, _OF_ONE)


def _refused(error: sqlite3.IntegrityError) -> DelegatorError:
    """What SQLite says of a constraint is no word of an operator's; two of the same is what it may name."""
    said = str(error)
    if "FOREIGN KEY" in said:
        words = "what it names is not there, or is being removed, or something still refers to what is to go"
    elif said.startswith("UNIQUE"):
        words = f"there is one with the same {said.rpartition('.')[2].replace('_', ' ')} already"
    else:
        words = "the database does not take such a value"
    return DelegatorError(Kind.CONFLICT, words, hint="look at what is there with `list` and `show`, then run it again")


def _drive(connection: sqlite3.Connection, work: Work[Any]) -> object:
    transaction = work()
    rows: Sequence[Row] | None = None
    try:
        while True:
            query = next(transaction) if rows is None else transaction.send(rows)
            if type(query) is Rows:
                for one in statements(query):
                    connection.execute(_numbered(one.sql), one.parameters)
                rows = ()
            else:
                rows = connection.execute(_numbered(query.sql), query.parameters).fetchall()
    except StopIteration as end:
        return end.value


def _connect(path: Path, timeout: float = BUSY_TIMEOUT, *, check_same_thread: bool = True) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=check_same_thread)
    try:
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # now the log and its index are there
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    require_regular(path, path.stat())  # SQLite would open a pipe, and wait for somebody who writes to it


async def open_sqlite(path: Path) -> SqliteDriver:
    """Open or create the database file, mode 0600. Raises DelegatorError (CONFIGURATION)."""
    try:
        _create(path)
        connection = _connect(path, check_same_thread=False)  # no database at all fails before there is a thread
        writer = aiosqlite.Connection(lambda: connection, iter_chunk_size=64)
        await writer
        try:
            connection.execute("PRAGMA busy_timeout = 0")
            return SqliteDriver(path, writer, connection)
        except BaseException:
            await writer.close()
            raise
    except (OSError, sqlite3.Error) as error:
        raise unusable(path, error) from error
