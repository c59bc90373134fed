"""Connections to one database, lent one at a time; while it is away whoever asks is told so at once.

Each connection has a lane: a number that is its own among all connections of all delegators, held by a lock of its
session. What would be one hot row for all (a counter, the end of the audit's chain) is one row for each lane.
The invariants: a connection is lent to one at a time; one that may be in an unknown state is never lent again; while
nobody answers there is one attempt to connect at a time, with a growing pause.
Must not live here: transactions, what is done with a connection.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from delegator.clockwork.deadline import deadline
from delegator.errors import DelegatorError, Kind
from delegator.store.engines.oldness import Oldness
from delegator.store.engines.postgres.connecting import CONNECT
from delegator.store.engines.postgres.troubles import Trouble, told, trouble_of, words_of

log = logging.getLogger(__name__)
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.5
"""Seconds between attempts to connect: short, as a database is back within seconds of its restart or failover."""
_LANE = ("SELECT number FROM (SELECT generate_series(1, 100000) AS number) AS numbers "
         "WHERE pg_try_advisory_lock($1, number::integer) LIMIT 1")
"""One number after the other until one is free. As a table, FROM generate_series, all of them would be made first: most
of what a new connection costs the server."""
_LANES = 0x1A9E
"""The first half of the keys of lanes' locks; those of transactions are one number, which is another space."""
_SETTLE = ("SELECT current_setting('max_connections')::integer, set_config('delegator.lane', $1, false), "
           "CASE WHEN current_setting('synchronous_commit') = 'off' "
           "THEN set_config('synchronous_commit', 'on', false) END")
"""A credential that was answered must be on disk, whatever the server's default."""


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """One connection, the number that is its own, and how many connections the server has at most."""

    connection: Any
    number: int
    most: int


class Pool:
    """At most `most` connections, made when needed. `name` is the database's in errors, `patience` the seconds that
    whoever has no deadline of his own waits for his turn, `fit` says whether a connection still leads to the right
    server."""

    def __init__(self, connect: Callable[[], Awaitable[Any]], name: str, most: int, patience: float,
                 fit: Callable[[Any], bool] = lambda connection: True) -> None:
        self._connect, self._name, self._most, self._patience = connect, name, most, patience
        self._fit = fit
        self._idle: list[Lane] = []
        self._waiting: deque[tuple[asyncio.Future[Lane | None], float]] = deque()
        self._now = asyncio.get_running_loop().time
        self._oldness = Oldness(self._first)
        self._open = 0
        self._pause = 0.0
        self._away_until = 0.0
        self._away: DelegatorError | None = None
        self._closed = False

    @property
    def most(self) -> int:
        """Connections at most."""
        return self._most

    @property
    def age(self) -> float:
        """Seconds that whoever waits longest for a connection has waited."""
        return self._oldness.age

    def _first(self) -> float | None:
        while self._waiting and self._waiting[0][0].done():  # gave up
            self._waiting.popleft()
        return self._waiting[0][1] if self._waiting else None

    def crowded(self, waited: float) -> DelegatorError:
        """What who waited that long is told, and who would have to wait behind it."""
        return DelegatorError(
            Kind.TRY_LATER, f"database {self._name}: all {self._most} connections were busy for {waited:.1f} s",
            hint="raise [store] connections, or add a delegator; where few devices ask, look for what the database "
                 "waits for")

    async def take(self) -> Lane:
        """A connection for one use; `give` or `drop` it afterwards. Raises DelegatorError: TRY_LATER while the
        database is away or all connections are busy for too long, UNAVAILABLE once closed, CONFIGURATION."""
        limit = deadline()
        until = self._now() + self._patience if limit is None else limit
        if until <= self._now():
            raise self._late(0.0)
        while True:
            if self._closed:
                self._pass_on(None)
                raise DelegatorError(Kind.UNAVAILABLE, f"database {self._name}: it is closed")
            # The last one used: the server and we have it in our caches.
            lane = self._idle.pop() if self._idle else None
            if lane is None and self._open < self._most:
                return await self._connected(until)
            lane = lane or await self._turn(until)
            if lane is not None and not lane.connection.is_closed() and self._fit(lane.connection):
                return lane
            if lane is not None:
                lane.connection.terminate()
                self._open -= 1

    def give(self, lane: Lane) -> None:
        if self._closed:
            self.drop(lane)
        elif not self._pass_on(lane):
            self._idle.append(lane)

    def drop(self, lane: Lane) -> None:
        """Let go of a connection that is not to be used again."""
        lane.connection.terminate()
        self._open -= 1
        self._pass_on(None)

    def drop_idle(self) -> None:
        """One connection went to a server that is not the right one any more: so do the others."""
        for lane in self._idle:
            lane.connection.terminate()
        self._open -= len(self._idle)
        self._idle.clear()

    def back(self) -> None:
        """The database was reached by another way: no need to wait for the next attempt."""
        self._away_until = 0.0

    def _pass_on(self, lane: Lane | None) -> bool:
        """Give whoever waits longest a connection, or word that there is room for one; False when nobody waits."""
        while self._waiting:
            turn, _ = self._waiting.popleft()
            if not turn.done():
                turn.set_result(lane)
                return True
        return False

    async def _turn(self, until: float) -> Lane | None:
        turn: asyncio.Future[Lane | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, since := self._now()))
        try:
            async with asyncio.timeout_at(until):
                return await turn
        except TimeoutError:
            self._undo(turn)
            raise self.crowded(self._now() - since) from None
        except asyncio.CancelledError:
            self._undo(turn)
            raise

    def _undo(self, turn: asyncio.Future[Lane | None]) -> None:
        """It was this one's turn at the very moment in which it stopped waiting: the next one has it."""
        if not turn.cancel() and not turn.cancelled():
            lane = turn.result()
            if lane is None:
                self._pass_on(None)
            else:
                self.give(lane)

    async def _connected(self, until: float) -> Lane:
        if self._away is not None and time.monotonic() < self._away_until:
            self._pass_on(None)  # who waits is told so too
            raise self._away
        self._open += 1
        if self._away is not None:  # one attempt at a time: the others are told so meanwhile
            self._away_until = time.monotonic() + LONGEST_PAUSE
        limit, began = asyncio.timeout_at(until), self._now()
        try:
            async with limit:
                lane = await self._made()
        except BaseException as error:
            self._open -= 1
            self._pass_on(None)
            if limit.expired():  # says more of who asked than of the database
                raise self._late(self._now() - began) from None
            if isinstance(error, Exception):
                raise self._gone(error) from error
            raise
        if self._away is not None:
            log.warning("database %s: is back", self._name)
        self._away, self._pause = None, 0.0
        return lane

    def _late(self, after: float) -> DelegatorError:
        return DelegatorError(Kind.TRY_LATER, f"database {self._name}: no connection to it within the {after:.1f} s "
                              "that were left of the request's time", hint="is the network to it slow?")

    async def _made(self) -> Lane:
        """A new connection. That one was ended as it began says nothing yet of the database: it is made once more."""
        began = time.monotonic()
        try:
            return await self._new()
        except Exception as error:
            if self._away or trouble_of(error) is not Trouble.LOST or time.monotonic() - began > LONGEST_PAUSE:
                raise
        return await self._new()

    async def _new(self) -> Lane:
        connection = await self._connect()
        try:
            async with asyncio.timeout(CONNECT):
                number = await connection.fetchval(_LANE, _LANES)
                most = await connection.fetchval(_SETTLE, str(number))
        except BaseException:
            connection.terminate()
            raise
        return Lane(connection, number, most)

    def _gone(self, error: Exception) -> DelegatorError:
        self._pause = min(LONGEST_PAUSE, self._pause * 2 or FIRST_PAUSE)
        self._away_until = time.monotonic() + self._pause
        away = error if isinstance(error, DelegatorError) else told(error, self._name)
        if self._away is None:
            log.error("database %s: is away: %s", self._name, away.detail)
        self._away = away
        return away

    async def close(self) -> None:
        """Close what is idle, open nothing more; whoever still has a connection drops it."""
        self._closed = True
        idle, self._idle = self._idle, []
        for lane in idle:
            try:
                await lane.connection.close(timeout=1)
            except Exception as error:
                log.debug("database %s: while closing: %s", self._name, words_of(error))
