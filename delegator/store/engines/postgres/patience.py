"""How long an answer of PostgreSQL is waited for, and what becomes of what was not waited for.

A request has one deadline (delegator.clockwork.deadline). When it is here the server is asked to end the statement, the
device is told to try later at once, and the transaction is undone beside it. A commit is never cancelled: one that
waits for a standby would then be answered as done before it is safe; there we hang up, and asking again tells what
became of it. Who has no deadline, such as a command, waits for each statement as long as the server's own limit says.
The invariants: what was given up before its commit was asked for is undone; its connection is lent again only once that
is known.
Must not live here: transactions (driver), connections (pool).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from delegator.clockwork.deadline import deadline
from delegator.clockwork.rounds import guarded
from delegator.errors import DelegatorError, Kind
from delegator.store.engines.postgres.connecting import Server
from delegator.store.engines.postgres.installed import asyncpg
from delegator.store.engines.postgres.pool import Lane, Pool
from delegator.store.engines.slowness import Slowness

ROOM = 1.5
"""Seconds that an answer may come later than the server's own limit for a statement; then the network is gone."""
SETTLE = 3.0
"""Seconds for a server to end what was given up and undo it; then the connection is let go."""
FOREIGN = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What a database does to us. TimeoutError is an OSError. Anything else comes from the transaction itself."""


class Late(DelegatorError):
    """The deadline of a request passed; its transaction is undone beside it."""


class Doubt(Exception):
    """The connection was lost while committing: it was done, or not."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Patience:
    """See the module."""

    def __init__(self, server: Server, pool: Pool, slowness: Slowness) -> None:
        self._name, self._timeout = server.name, server.timeout
        self._longest = server.timeout + ROOM
        self._pool, self._slowness = pool, slowness
        self._settling: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def until(self) -> float:
        """The deadline of the request at hand, by the loop's clock; without one, of a wait that begins now."""
        limit = deadline()
        return self._loop.time() + self._longest if limit is None else limit

    async def of(self, lane: Lane, verb: Callable[..., Awaitable[Any]], *arguments: object) -> Any:
        """What a statement answers. Raises Late. Without a deadline, where no answer comes although the server has its
        own limit, we hang up."""
        until = deadline()
        if until is None:
            return await self._or_hang_up(self._longest, lane, verb(*arguments))
        self.must_last()
        try:
            return await verb(*arguments, timeout=until - self._loop.time())
        except TimeoutError:
            raise self.late("it was undone") from None

    async def of_commit(self, lane: Lane) -> None:
        """Raises what tells that the connection was lost, where there is no answer in time."""
        until = deadline()
        await self._or_hang_up(self._longest if until is None else until - self._loop.time(), lane,
                               lane.connection.execute("COMMIT"))

    async def _or_hang_up(self, seconds: float, lane: Lane, answer: Awaitable[Any]) -> Any:
        timer = self._loop.call_later(seconds, lane.connection.terminate)
        try:
            return await answer
        finally:
            timer.cancel()

    def must_last(self) -> None:
        """Raises Late once the deadline is past, before anything more is asked."""
        until = deadline()
        if until is not None and until <= self._loop.time():
            raise self.late("it was undone")

    def late(self, fate: str) -> Late:
        """`fate` is what became of the transaction."""
        why = (f"not done within the {self._timeout:g} s that a request has: somebody holds a lock, or the server or "
               "the network to it is slow")
        self._slowness.late(why)
        return Late(Kind.TRY_LATER, f"database {self._name}: {why}; {fate}",
                    hint="who waits for what: SELECT * FROM pg_stat_activity WHERE wait_event_type = 'Lock'")

    def settle(self, lane: Lane) -> None:
        """Undo what was given up, beside its device, which is being answered."""
        self._settling.add(task := self._loop.create_task(guarded(lambda: self._settle(lane), "giving up")))
        task.add_done_callback(self._settling.discard)

    async def _settle(self, lane: Lane) -> None:
        try:
            await lane.connection.execute("ROLLBACK", timeout=SETTLE)
        except FOREIGN:
            self._pool.drop(lane)
            self._pool.drop_idle()
        except BaseException:
            self._pool.drop(lane)
            raise
        else:
            self._pool.give(lane)

    async def close(self) -> None:
        for task in self._settling:
            task.cancel()
        await asyncio.gather(*self._settling, return_exceptions=True)
