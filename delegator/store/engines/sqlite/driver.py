"""The SQLite driver: one writing connection that groups commits, one reading connection.

Whatever waits for the disk happens in aiosqlite's thread; statements, 5-10 µs each, run on the loop's thread, because
each one that crosses to another thread costs 25-90 µs and fights for the interpreter (measured). Neither connection
sleeps on that thread: both give up a lock at once (busy_timeout 0), and it is looked for again. Transactions that
arrive while a commit is on its way to the disk share the next one: full durability (synchronous=FULL) at a fraction of
an fsync each, and a lone transaction waits for nobody.
The invariants: `run` returns only when what it did is on disk, or raises and nothing of it remains; the writing
connection is used by one thread at a time, because one task alone takes it through begin, statements, commit.
Must not live here: what the SQL means.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from delegator.clockwork.deadline import Within, deadline
from delegator.errors import DelegatorError, Kind
from delegator.store.bulk import statements
from delegator.store.driver import BRISK, OLD
from delegator.store.engines.slowness import Slowness
from delegator.store.engines.sqlite.checkpoints import KEPT
from delegator.store.engines.sqlite.keeping import Keeping
from delegator.store.engines.sqlite.line import Asked, Line
from delegator.store.engines.sqlite.reading import Reader, is_busy, numbered, unavailable, unusable
from delegator.store.transaction import Commits, Query, Row, Rows, Scope, Work
from pki.disk import require_regular

log = logging.getLogger(__name__)
T = TypeVar("T")
CROWD = 0.005
"""Seconds the next commit waits for company when the last one had some: 13 % less CPU a handshake under load
(measured). A lone transaction never waits."""
GROUP = 128
"""Transactions in one commit at most: past 32 the cost of an fsync each is below that of the row (measured)."""
BUSY_TIMEOUT = 5.0
"""Seconds that whoever is no device waits for another process's lock, such as an import from the command line."""
LOOKS = 0.001, 0.02
"""Seconds between two looks whether another process has let go of the lock, first and last: each takes 10 µs."""
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
    together = False
    """Of those that share a commit each can be undone by itself."""
    shared = False
    reads_beside = True
    """Reading waits for nobody who writes."""
    is_full = False
    """A line that is old says all that there is to say."""
    era = 0
    """Of the server that we write to: there is none here that another could take over from."""
    heard = None
    """Nobody tells us of a change of the small tables: asking for the revision costs 6 µs (measured)."""

    def __init__(self, path: Path, writer: aiosqlite.Connection, connection: sqlite3.Connection,
                 timeout: float = BUSY_TIMEOUT) -> None:
        """`connection` is what `writer` writes with, for statements that wait for nothing; `timeout` is for all that a
        device's request asks."""
        self.path = path
        self.timeout = timeout
        self._writer = writer
        self._connection = connection
        reader = _connect(path)
        self._reader = Reader(path, reader)
        self._keeping = Keeping(path, connection, reader)
        self._slowness = Slowness(str(path), time.monotonic)
        self._line = Line(self._late)
        self._committing: asyncio.Task[None] | None = None
        self._crowded = self._closed = False
        self._closing = asyncio.Lock()
        self.commits = Commits()
        self.turn = 0
        """Another number for each commit, and when it is done again: what a transaction has read holds for the next
        one with the same number."""

    def request(self) -> Within:
        return Within(self.timeout)

    @property
    def age(self) -> float:
        """Seconds since whoever waits longest for the disk, or for another process's lock, began to."""
        return self._line.age

    @property
    def moves(self) -> bool:
        """Whether that line moves as it should."""
        return not self._line.is_held and self.age < BRISK

    def crowded(self) -> DelegatorError:
        """What a device is told that would have to join that line."""
        if self._line.is_held:
            return self._locked()
        why = f"others have waited for a commit for {self.age:.1f} s: the disk is slow, or too many ask"
        return self._slow(why)

    async def run(self, work: Work[T], scope: Scope | None = None, *, repeatable: bool = False) -> T:
        """Run a transaction to its durable end; here each one runs alone, whatever its scope. Raises what it raises,
        or DelegatorError: TRY_LATER where another process holds the lock or the disk is slow, UNAVAILABLE."""
        if self._closed:
            raise DelegatorError(Kind.UNAVAILABLE, f"database {self.path}: it is closed")
        self._keeping.require()
        future = self._line.join(work, deadline())
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit())
        return await future

    async def read(self, query: Query) -> list[Row]:
        """Rows of one read outside any transaction. Raises DelegatorError (TRY_LATER, UNAVAILABLE)."""
        self._keeping.require()
        try:
            return self._reader.now(query)
        except sqlite3.Error as error:
            if not is_busy(error):
                raise unavailable(self.path, error) from error
        return await self._reader.patiently(query, BUSY_TIMEOUT)

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Callable[[Query], Awaitable[list[Row]]]]:
        """Reads that all see the database as the first of them does, on a connection of their own."""
        self._keeping.require_there()
        reader = Reader(self.path, await asyncio.to_thread(_connect, self.path, check_same_thread=False))

        async def read(query: Query) -> list[Row]:
            return await reader.patiently(query, BUSY_TIMEOUT)
        try:
            await read(Query("BEGIN"))
            yield read
        finally:
            reader.close()

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
        """Until nobody waits. While another process holds the lock somebody must see when it lets go."""
        line = self._line
        try:
            while line or (line.is_held and not self._closed):
                if self._crowded:
                    await asyncio.sleep(CROWD)
                self._crowded = len(line) > 1
                line.enter(GROUP)
                for one, outcome in await self._outcomes():
                    if one.future.done():
                        continue
                    if isinstance(outcome, BaseException):
                        one.future.set_exception(outcome)
                    else:
                        one.future.set_result(outcome)
                line.leave()
        finally:
            self._committing = None

    async def _outcomes(self) -> Iterable[tuple[Asked, object]]:
        try:
            self._keeping.before_commit()
            await self._begin()
            try:
                group, outcomes = await self._all()
                if group:
                    await self._writer.commit()
                    await self._keeping.after_commit()
                    self._slowness.done()
                    self.commits.done += 1
                    self.commits.transactions += len(group)
                elif self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            except BaseException:
                await self._writer.rollback()
                raise
        except Exception as error:  # whatever it is, nobody may be left waiting
            group = self._line.still_inside()
            self.commits.failed += 1
            log.error("store: a group of %d transactions was not committed: %s", len(group), error,
                      extra={"connection": ""})
            return [(one, error if isinstance(error, DelegatorError) else unavailable(self.path, error))
                    for one in group]
        return zip(group, outcomes, strict=True)

    async def _all(self) -> tuple[Sequence[Asked], Sequence[object]]:
        """What became of each. At first without a savepoint for each, two statements less a handshake; where one
        fails, all are undone and done again with them."""
        group = self._line.still_inside()
        try:
            return group, [_drive(self._connection, one.work) for one in group]
        except Exception as error:
            if _of_file(error):
                raise
        self._connection.execute("ROLLBACK")
        await self._begin()
        group = self._line.still_inside()
        return group, [_run_one(self._connection, one.work) for one in group]

    async def _begin(self) -> None:
        """At once where nobody else writes. Where another process does, look again and again from the loop: whoever
        gives up meanwhile has nothing begun, and no thread sleeps in a lock."""
        pause = LOOKS[0]
        while True:
            self.turn += 1
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
            else:
                self._line.freed()
                return
            held = self._line.held()
            if held > BUSY_TIMEOUT:
                self._line.give_up(lambda: self._locked(told=False))
            if not self._line.still_inside():
                if self._line or self._closed:
                    return
            elif held > OLD and any(one.until is not None for one in self._line.still_inside()):
                self._locked()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LOOKS[1])

    def _late(self) -> DelegatorError:
        """For a device whose deadline is here."""
        if self._line.is_held:
            return self._locked()
        return self._slow(f"no commit within {self.timeout:g} s: the disk is slow or does not answer, or too many wait")

    def _slow(self, why: str) -> DelegatorError:
        self._slowness.late(why)
        return DelegatorError(Kind.TRY_LATER, f"database {self.path}: {why}",
                              hint="look at the disk: its load, its errors, whether it is full")

    def _locked(self, *, told: bool = True) -> DelegatorError:
        """Told in the log where it concerns a device."""
        why = f"another process has held its write lock for {self._line.held():.1f} s"
        if told:
            self._slowness.late(why)
        return DelegatorError(Kind.TRY_LATER, f"database {self.path}: {why}",
                              hint=f"an import, or a program with a transaction open; who has it: fuser {self.path}")


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
                    connection.execute(numbered(one.sql), one.parameters)
                rows = ()
            else:
                rows = connection.execute(numbered(query.sql), query.parameters).fetchall()
    except StopIteration as end:
        return end.value


def _connect(path: Path, timeout: float = BUSY_TIMEOUT, *, check_same_thread: bool = True) -> sqlite3.Connection:
    place = path.absolute()  # `:memory:` is a file's name here as any other
    connection = sqlite3.connect(place, timeout=timeout, isolation_level=None, check_same_thread=check_same_thread)
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


async def open_sqlite(path: Path, within: float = BUSY_TIMEOUT) -> SqliteDriver:
    """Open or create the database file, mode 0600; `within` is for all that a device's request asks of it. Raises
    DelegatorError (CONFIGURATION)."""
    try:
        _create(path)
        connection = _connect(path, check_same_thread=False)  # no database at all fails before there is a thread
        writer = aiosqlite.Connection(lambda: connection, iter_chunk_size=64)
        await writer
        try:
            connection.execute("PRAGMA busy_timeout = 0")
            return SqliteDriver(path, writer, connection, within)
        except BaseException:
            await writer.close()
            raise
    except (OSError, sqlite3.Error) as error:
        raise unusable(path, error) from error
