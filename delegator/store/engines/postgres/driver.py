"""The PostgreSQL driver: the same transactions side by side, from any number of delegators.

A transaction runs at READ COMMITTED after it has taken, by advisory locks and in one step, what it must have to itself:
the whole database, or the names of its scope (store.transaction). So what was written to run alone does run alone, and
what was looked at closely runs beside others. Commits that meet are grouped by the server.
The invariants: `run` returns only when what it did is committed, or raises and nothing of it remains; where nobody
can tell which, because the connection was lost while committing, only what is safe to repeat is run again.
Must not live here: what the SQL means, connections (pool, connecting).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from delegator.clockwork.deadline import Within, deadline
from delegator.errors import DelegatorError, Kind
from delegator.store.bulk import split
from delegator.store.driver import BRISK
from delegator.store.engines.postgres.connecting import Server, connect, reach, writer_at
from delegator.store.engines.postgres.fencing import Fence
from delegator.store.engines.postgres.grouping import Groups
from delegator.store.engines.postgres.locks import EVERYTHING, MIGRATING, Near, Needs, needs_of
from delegator.store.engines.postgres.notices import Watch
from delegator.store.engines.postgres.patience import FOREIGN, Doubt, Late, Patience
from delegator.store.engines.postgres.pool import Lane, Pool
from delegator.store.engines.postgres.scouting import Scout
from delegator.store.engines.postgres.troubles import Trouble, told, trouble_of, words_of
from delegator.store.engines.postgres.turns import TooMany, Turns, sent_away
from delegator.store.engines.postgres.window import Window
from delegator.store.engines.slowness import Slowness
from delegator.store.transaction import Commits, Counted, Query, Row, Rows, Scope, Transaction, Work, in_postgres

log = logging.getLogger(__name__)
T = TypeVar("T")
TRIES = {Trouble.RACE: 20, Trouble.REFUSED: 3, Trouble.LOST: 8}
"""How often a transaction is run in all, by what went wrong, while patience lasts. A constraint that still refuses it
the third time does so for good. Whether a database is away the pool says; that a connection is gone says little."""
STEP = 0.005
"""Seconds that a transaction waits before it runs again, at most and for each time so far."""
NEAR = 1.0
"""Seconds for which a name that was near its limit is taken alone at once."""
LET_GO, COMES_AGAIN, MOST_APART = 1000, 12, 8
"""Milliseconds that a schema file waits for a lock, while devices wait behind it; how often it comes; and how many
times as long it stays away at most: first as long, then twice as long, and so on. Within a minute and a half whoever
holds that lock has ended, or is not one of ours."""
HELD = ("55P03", "40P01")
"""What it is told when it waited for too long, or in a ring with others."""
REVISION = "SELECT number FROM revision"


class PostgresDriver:
    """Runs transactions on one database. Make it with `open_postgres`."""

    dialect = "postgres"
    shared = True
    reads_beside = False
    """Reading takes one of the same connections."""

    def __init__(self, server: Server, pool: Pool, fence: Fence) -> None:
        self.name = server.name
        self.chain = "main"
        """Of the audit: one for each lane. Right while `run` makes a transaction."""
        self.turn = 0
        """Another number for each transaction, or for each group of them that share a commit."""
        self.together = False
        """Whether those of this turn are done or undone as one. Right while `run` makes a transaction."""
        self._server, self._pool = server, pool
        self.timeout = server.timeout
        self._slowness = Slowness(server.name, time.monotonic)
        self._window = Window(time.monotonic)
        self._patience = Patience(server, pool, self._slowness)
        self._turns = Turns()
        self._near: dict[str, float] = {}
        self._watch: Watch | None = None
        self._fence = fence
        self._scout: Scout | None = None
        self._loop = asyncio.get_running_loop()
        self.commits = Commits()
        self._groups = Groups(pool, fence, self._patience, self.commits, self._made, self._let_go)

    def request(self) -> Within:
        return self._window.request(self.timeout)

    @property
    def is_full(self) -> bool:
        """Whether none is done in time, and enough are under way to find out when one is."""
        return self._window.is_full

    @property
    def age(self) -> float:
        """Seconds that whoever waits longest for a connection has waited."""
        return self._pool.age

    @property
    def moves(self) -> bool:
        """Whether that line moves as it should."""
        return self.age < BRISK

    def crowded(self) -> DelegatorError:
        """What a device is told that would have to join that line."""
        if not self.is_full:
            error = self._pool.crowded(self.age)
            self._slowness.late(error.detail)
            return error
        return DelegatorError(Kind.TRY_LATER, f"database {self.name}: nothing is done in time, so only "
                              f"{self._window.most:.0f} at once are let in", hint="the log says why it is slow")

    @property
    def heard(self) -> int | None:
        """A number that changes with the revision, as the database told it by itself; None when it must be asked.
        Listening begins with the first question: a command that serves nobody does not need it."""
        return self._watched().number

    @property
    def era(self) -> int:
        """Another number when another server is written to."""
        return self._fence.era

    def listen(self, changed: Callable[[], None]) -> None:
        """Call this whenever something changed that servers keep a copy of, or may have."""
        self._watched().changed = changed

    def _watched(self) -> Watch:
        if self._watch is None:
            self._watch = Watch(lambda: connect(self._server, self._fence), REVISION, self._pool.back,
                                self._fence.require)
            self._scout = Scout(self._server.hosts, partial(reach, self._server), writer_at, self._fence,
                                self._pool.drop_idle)
        return self._watch

    async def run(self, work: Work[T], scope: Scope | None = None, *, repeatable: bool = False) -> T:
        """Run a transaction to its committed end. Raises what it raises, or DelegatorError: TRY_LATER while the
        database is away or too slow, CONFLICT, UNAVAILABLE."""
        needs = needs_of(scope)
        if needs.counted:
            needs = needs.alone_with(name for name, until in self._near.items() if until > self._loop.time())
        try:
            outcome = await self._in_turn(work, needs, repeatable)
        except Near as near:
            self._near[near.name] = self._loop.time() + NEAR
            outcome = await self._in_turn(work, needs.alone_with(one.name for one in needs.counted), repeatable)
        self._slowness.done()
        if deadline() is not None:
            self._window.done()
        return outcome

    async def _in_turn(self, work: Work[T], needs: Needs, repeatable: bool) -> T:
        names = sorted(needs.names or ())
        if not names:
            return await self._tried(work, needs, repeatable)
        try:
            async with self._turns.of(names, self._patience.until):
                return await self._tried(work, needs, repeatable)
        except TooMany as error:
            raise sent_away(f"database {self.name}", error.name, self._slowness.slow) from None

    async def _tried(self, work: Work[T], needs: Needs, repeatable: bool) -> T:
        tries: dict[Trouble, int] = {}
        until = self._patience.until
        while True:
            try:
                if repeatable and not tries:
                    return await self._groups.of(work, needs, lambda: self._once(work, needs))
                return await self._once(work, needs)
            except Doubt as doubt:
                error = doubt.error
                if not repeatable:
                    raise DelegatorError(
                        Kind.TRY_LATER, f"database {self.name}: the connection was lost while committing",
                        hint="look whether it was done, and repeat it if it was not") from error
            except FOREIGN as failure:
                error = failure
            trouble = trouble_of(error)
            tries[trouble] = tries.get(trouble, 0) + 1
            if deadline() is not None and trouble is Trouble.LOST and self._loop.time() >= until:
                raise self._patience.late("whether it was committed is found by asking again") from error
            if tries[trouble] >= TRIES.get(trouble, 1) or self._loop.time() > until:
                raise told(error, self.name) from error
            await asyncio.sleep(random.random() * STEP * tries[trouble])  # noqa: S311 - out of step, no secret

    async def _once(self, work: Work[T], needs: Needs) -> T:
        self._fence.require_whole()
        lane = await self._pool.take()
        committing = False
        try:
            await self._patience.of(lane, lane.connection.execute, needs.begin)
            await self._must_be_far(lane, needs.counted)
            outcome = await self._drive(lane, *self._made(lane, [work], together=False))
            self._fence.require(lane.connection)
            self._patience.must_last()
            committing = True
            await self._patience.of_commit(lane)
            self._fence.require(lane.connection)  # else it was done where it will not last, and is done again
        except BaseException as error:
            self.commits.failed += committing
            await self._let_go(lane, error)
            if committing and isinstance(error, Exception) and trouble_of(error) is Trouble.LOST:
                raise Doubt(error) from error
            raise
        self.commits.done += 1
        self.commits.transactions += 1
        self._pool.give(lane)
        return outcome

    def _made(self, lane: Lane, works: Sequence[Work[T]], *, together: bool = True) -> list[Transaction[T]]:
        """Transactions for one turn of a lane."""
        self.chain, self.turn, self.together = str(lane.number), self.turn + 1, together
        return [work() for work in works]

    async def _must_be_far(self, lane: Lane, counted: Sequence[Counted]) -> None:
        """Each other connection can have one more claim under way, and holds this name as we do; whoever needs it alone
        waits for all of them. So what is far by more than there are connections is not reached. Raises Near."""
        for one in counted:
            question = one.question
            rows = await self._patience.of(lane, lane.connection.fetch, in_postgres(question), *question.parameters)
            if one.near(int(rows[0][0] or 0) + lane.most):
                raise Near(one.name)

    async def _drive(self, lane: Lane, transaction: Transaction[T]) -> T:
        fetch = lane.connection.fetch
        try:
            query = next(transaction)
            while True:
                if type(query) is Rows:
                    rows = await self._patience.of(lane, _copy, lane, query)
                else:
                    rows = await self._patience.of(lane, fetch, in_postgres(query), *query.parameters)
                query = transaction.send(rows)
        except StopIteration as end:
            outcome: T = end.value
            return outcome

    async def _let_go(self, lane: Lane, error: BaseException) -> None:
        """Back to the pool if the connection is in order, else away with it."""
        if isinstance(error, Late):
            self._patience.settle(lane)
            return
        lost = not isinstance(error, Exception) or trouble_of(error) is Trouble.LOST
        if not lost:
            try:
                await self._patience.of(lane, lane.connection.execute, "ROLLBACK")
            except FOREIGN:
                lost = True
            except BaseException:
                self._pool.drop(lane)
                raise
        if not lost:
            self._pool.give(lane)
            return
        self._pool.drop(lane)
        if isinstance(error, Exception):
            self._pool.drop_idle()

    async def read(self, query: Query) -> list[Row]:
        """Rows of one read outside any transaction. Raises DelegatorError (TRY_LATER, UNAVAILABLE)."""
        sql, until = in_postgres(query), self._patience.until
        for tries in itertools.count(1):
            self._fence.require_whole()  # what a device has is told by reading, too
            lane = await self._pool.take()
            try:
                rows: list[Row] = await self._patience.of(lane, lane.connection.fetch, sql, *query.parameters)
                self._fence.require(lane.connection)
            except BaseException as error:
                await self._let_go(lane, error)
                if not isinstance(error, FOREIGN):
                    raise
                if tries >= TRIES.get(trouble_of(error), 1) or self._loop.time() > until:
                    raise told(error, self.name) from error
            else:
                self._pool.give(lane)
                return rows
        raise AssertionError

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Callable[[Query], Awaitable[list[Row]]]]:
        """Reads that all see the database as the first of them does, on one connection, however long the
        reader takes in between. What fails is not repeated."""
        lane = await self._pool.take()
        fetch, execute = lane.connection.fetch, lane.connection.execute

        async def read(query: Query) -> list[Row]:
            try:
                rows: list[Row] = await self._patience.of(lane, fetch, in_postgres(query), *query.parameters)
            except FOREIGN as error:
                raise told(error, self.name) from error
            return rows
        try:
            await self._patience.of(lane, execute, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; "
                                                 "SET LOCAL idle_in_transaction_session_timeout = 0")
            yield read
            await self._patience.of(lane, execute, "ROLLBACK")
        except BaseException as error:
            await self._let_go(lane, error)
            raise
        self._pool.give(lane)

    async def script(self, sql: str) -> None:
        """Run a schema file that brings its own transaction, one process at a time, with the database to itself and for
        as long as it takes. Others go on serving meanwhile: it never waits for a lock for long, as they would all wait
        behind it, but lets go and comes again. Raises DelegatorError (CONFIGURATION), and nothing of it remains."""
        lane = await self._pool.take()
        execute = lane.connection.execute
        try:
            await execute(f"SET statement_timeout = 0; SELECT pg_advisory_lock({MIGRATING})")
            try:
                await self._amid_others(execute, sql)
            finally:
                await execute(f"ROLLBACK; SELECT pg_advisory_unlock({MIGRATING}); RESET statement_timeout")
        except FOREIGN as error:
            await self._let_go(lane, error)
            if trouble_of(error) in (Trouble.LOST, Trouble.LATE):
                raise told(error, self.name) from error
            raise DelegatorError(Kind.CONFIGURATION, f"database {self.name}: {told(error, '').detail}",
                                 hint="its user must own the schema; see docs/scale.md") from error
        except BaseException as error:
            await self._let_go(lane, error)
            raise
        self._pool.give(lane)

    async def _amid_others(self, execute: Callable[[str], Awaitable[Any]], sql: str) -> None:
        for tries in itertools.count(1):
            try:
                await execute(f"SET lock_timeout = {LET_GO}; SELECT pg_advisory_lock({EVERYTHING})")
                await execute(sql)
            except FOREIGN as error:
                if getattr(error, "sqlstate", "") not in HELD or tries >= COMES_AGAIN:
                    raise
                log.warning("database %s: its schema waits for somebody: %s", self.name, words_of(error))
            else:
                return
            finally:
                await execute(f"ROLLBACK; RESET lock_timeout; SELECT pg_advisory_unlock({EVERYTHING})")
            await asyncio.sleep(min(tries, MOST_APART) * LET_GO / 1000)

    async def close(self) -> None:
        if self._watch is not None:
            await self._watch.close()
        await self._groups.close()
        await self._patience.close()
        if self._scout is not None:
            await self._scout.close()
        await self._pool.close()


async def _copy(lane: Lane, rows: Rows, **within: float) -> Sequence[Row]:
    """By COPY: with that and without pauses a million devices took 62 s instead of 91 (measured)."""
    table, columns, records = split(rows)
    await lane.connection.copy_records_to_table(table, columns=columns, records=records, **within)
    return ()


async def open_postgres(server: Server, connections: int, seen: Path | None = None) -> PostgresDriver:
    """Connect to the database; `seen` is the file that tells this machine which server was promoted last. Raises
    DelegatorError: CONFIGURATION, UNREACHABLE when nobody answers."""
    fence = Fence(seen, server.url)
    pool = Pool(lambda: connect(server, fence), server.name, connections, server.timeout, fence.fits)
    try:
        pool.give(await pool.take())
    except DelegatorError as error:
        if error.kind is Kind.TRY_LATER:
            raise DelegatorError(Kind.UNREACHABLE, error.detail, hint=error.hint) from error
        raise
    return PostgresDriver(server, pool, fence)
