"""Transactions of several devices in one of PostgreSQL's: who goes with whom, and who goes alone.

Whoever comes while another is under way waits until that one ends, WAIT at most; all that came meanwhile go together,
with one beginning, one commit, and their statements in step (store.lockstep). One that meets nobody goes alone and
waits for nobody. What holds of two side by side (docs/adr/0013) holds of two in a group: no name is wanted by both.
A group waits for nobody else either: who wants a name that is taken is left out of it; a row that another holds, an
error of anybody's, and HURRY undo it as a whole. Who was left out or undone goes alone, as if there were no groups; and
after one that was undone there are none for a while, longer each time: whoever makes them fail takes nothing from the
others but what groups save.
The invariants: a group is committed as one or undone as one; only who may be run again is a member, so that a commit
of which no word came is looked up for each; nobody who is told of a success has less time or certainty than alone.
Must not live here: one transaction alone, its tries (store.postgres), turns within the process (store.turns).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from delegator.deadline import Within
from delegator.errors import DelegatorError, Kind
from delegator.store.fencing import Fence
from delegator.store.lockstep import Failed, Say, answered, in_step
from delegator.store.needs import EVERYTHING, Near, Needs
from delegator.store.patience import Doubt, Late, Patience
from delegator.store.pool import Lane, Pool
from delegator.store.transaction import Commits, Query, Transaction, Work
from delegator.store.troubles import Trouble, trouble_of, words_of

log = logging.getLogger(__name__)
T = TypeVar("T")
GROUP = 32
"""Members at most: past that a round trip costs each less than its own values do."""
WAIT = 0.02
"""Seconds that whoever comes waits for those under way: a group takes 5 to 10 ms, and one that hangs holds up nobody
for longer."""
CROWD = 0.005
"""Seconds that the next group waits for company where the last one had some, as on SQLite."""
HURRY = 0.25
"""Seconds from a group's beginning to its commit; who has not twice that left does not join."""
LOCK = 50
"""Milliseconds that a group waits for a row or table that another has locked."""
REST = 0.1, 10.0
"""Seconds without groups after the first that was undone, and at most."""
_BEGIN = (f"BEGIN; SELECT pg_advisory_xact_lock_shared({EVERYTHING}); "
          f"SET LOCAL lock_timeout = {LOCK}")
_FREE = "SELECT 1 FROM (VALUES {}) AS wanted (key, shared) WHERE {}"
"""As many rows as there are names that are free now, or taken by this very transaction before."""
_TAKEN = "CASE WHEN shared THEN pg_try_advisory_xact_lock_shared(key) ELSE pg_try_advisory_xact_lock(key) END"
_TAKE = f"SELECT {_TAKEN} FROM unnest($1::bigint[], $2::boolean[]) AS wanted (key, shared)"


class Alone(Exception):
    """It is to go alone: it was left out of its group, or that was undone."""


@dataclass(slots=True, eq=False)
class Member:
    """One who waits. `until` is its deadline by the loop's clock."""

    work: Work[Any]
    needs: Needs
    until: float
    future: asyncio.Future[Any]

    def told(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


Making = Callable[[Lane, Sequence[Work[Any]]], list[Transaction[Any]]]
"""Makes the transactions of a group for a lane."""


class Groups:
    """See the module. `let_go` puts a connection back after an error."""

    def __init__(self, pool: Pool, fence: Fence, patience: Patience, commits: Commits, making: Making,
                 let_go: Callable[[Lane, BaseException], Awaitable[None]]) -> None:
        self._pool, self._fence, self._patience, self._commits = pool, fence, patience, commits
        self._making, self._let_go = making, let_go
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Member] = []
        self._under_way = 0
        self._gathering: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._rest, self._rests_until = 0.0, 0.0
        self._most = max(1, pool.most // 2)
        """Groups under way at most. Where commits are slow the next ones grow meanwhile, instead of taking what
        those who go alone need, and of waiting for a connection until their HURRY is over."""
        self._closing = False

    async def of(self, work: Work[T], needs: Needs, alone: Callable[[], Awaitable[T]]) -> T:
        """What it comes to, in a group where others are under way. Raises what `alone` does, Near, Late, Doubt."""
        until, now = self._patience.until, self._loop.time()
        idle = not self._under_way and self._gathering is None
        if idle or _in_line(needs) or now < self._rests_until or until - now < 2 * HURRY:
            return await self._by_itself(alone)
        member = Member(work, needs, until, self._loop.create_future())
        self._waiting.append(member)
        if len(self._waiting) >= GROUP and len(self._tasks) < self._most:
            self._go()
        elif self._gathering is None:
            self._gather(WAIT)
        try:
            outcome: T = await member.future
        except Alone:
            return await self._by_itself(alone)
        return outcome

    async def _by_itself(self, alone: Callable[[], Awaitable[T]]) -> T:
        self._under_way += 1
        try:
            return await alone()
        finally:
            self._under_way -= 1
            if self._waiting:
                self._go()

    def _gather(self, seconds: float) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
        self._gathering = self._loop.call_later(seconds, self._go)

    def _go(self) -> None:
        """Whoever waits goes now, GROUP at most, unless as many groups as may be are under way: then who has too little
        time left for one goes alone, and the others wait on."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        soon = self._loop.time() + 2 * HURRY
        for one in self._waiting:
            if one.until < soon:
                one.told(Alone())
        waiting = [one for one in self._waiting if not one.future.done()]
        most = 0 if len(self._tasks) >= self._most and not self._closing else GROUP
        some, self._waiting = waiting[:most], waiting[most:]
        if self._waiting:
            self._gather(CROWD if some else WAIT)
        members = _apart(some)
        if len(members) == 1:
            members[0].told(Alone())
        elif members:
            self._under_way += 1
            task = self._loop.create_task(self._group(members), context=Context())  # no request's own
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _group(self, members: list[Member]) -> None:
        try:
            await self._together(members)
            self._rest = 0.0
        except Alone:
            pass
        except Exception as error:
            log.debug("store: a group of %d was undone, each goes alone: %s", len(members), words_of(error))
            self._rest = min(2 * self._rest or REST[0], REST[1])
            self._rests_until = self._loop.time() + self._rest
        finally:
            for one in members:
                one.told(Alone())
            self._under_way -= 1
            self._gather(CROWD)

    async def _together(self, members: list[Member]) -> None:
        with Within(HURRY) as hurry:
            assert hurry.until is not None
            self._fence.require_whole()
            try:
                lane = await self._pool.take()
            except DelegatorError as error:  # a crowded pool says nothing of groups
                raise Alone from error
        try:
            say = partial(self._say, lane, hurry.until)
            inside = await self._begun(say, lane, members)
            outcomes = await in_step(say, self._making(lane, [one.work for one in inside]))
            self._fence.require(lane.connection)
        except BaseException as error:
            await self._undo(lane, error)
            raise
        try:
            await self._commit(lane, inside)
            self._fence.require(lane.connection)  # else it was done where it will not last, and is done again
        except BaseException as error:
            self._commits.failed += 1
            await self._undo(lane, error)
            if isinstance(error, Exception) and trouble_of(error) is Trouble.LOST:
                for one in inside:
                    one.told(Doubt(error))
            raise
        self._commits.done += 1
        self._commits.transactions += len(inside)
        self._pool.give(lane)
        for one, outcome in zip(inside, outcomes, strict=True):
            if isinstance(outcome, Failed):
                one.told(outcome.error)
            elif not one.future.done():
                one.future.set_result(outcome)

    async def _undo(self, lane: Lane, error: BaseException) -> None:
        """Beside its members, who have waited for long enough."""
        if isinstance(error, Exception) and trouble_of(error) is not Trouble.LOST:
            self._patience.settle(lane)
        else:
            await self._let_go(lane, error)

    async def _say(self, lane: Lane, until: float, verb: str, *arguments: object) -> Any:
        """What the server answers. Raises Late once the group has had its time: it is undone beside its members."""
        left = until - self._loop.time()
        try:
            if left > 0:
                return await getattr(lane.connection, verb)(*arguments, timeout=left)
        except TimeoutError:
            pass  # of the group, not of a request: no device is late
        raise Late(Kind.TRY_LATER, f"a group of transactions was not done within {HURRY:g} s")

    async def _begun(self, say: Say, lane: Lane, members: list[Member]) -> list[Member]:
        """The transaction, and those whose names are free and far from their limits. Raises Alone for nobody."""
        wanted = [(one, key, shared) for one in members for key, shared in one.needs.locks]
        if await say("execute", _beginning([(key, shared) for _, key, shared in wanted])) != f"SELECT {len(wanted)}":
            rows = await say("fetch", _TAKE, [key for _, key, _ in wanted], [shared for _, _, shared in wanted])
            for (one, _, _), row in zip(wanted, rows, strict=True):
                if not row[0]:
                    one.told(Alone())
        await self._must_be_far(say, lane, members)
        inside = [one for one in members if not one.future.done()]
        if not inside:
            raise Alone
        return inside

    async def _must_be_far(self, say: Say, lane: Lane, members: list[Member]) -> None:
        """As for one alone: of each counted name a group has one member at most."""
        counted = [(one, name) for one in members if not one.future.done() for name in one.needs.counted]
        questions: dict[int, Query] = {place: name.question for place, (_, name) in enumerate(counted)}
        for place, rows in (await answered(say, questions)).items():
            one, name = counted[place]
            if name.near(int(str(rows[0][0] or 0)) + lane.most):
                one.told(Near(name.name))

    async def _commit(self, lane: Lane, inside: list[Member]) -> None:
        """Whose time is over meanwhile is told so, and finds what became of it by asking again."""
        timers = [self._loop.call_at(one.until, self._overdue, one) for one in inside]
        try:
            with Within(max(one.until for one in inside) - self._loop.time()):
                await self._patience.of_commit(lane)
        finally:
            for timer in timers:
                timer.cancel()

    def _overdue(self, one: Member) -> None:
        if not one.future.done():
            one.told(self._patience.late("whether it was committed is found by asking again"))

    async def close(self) -> None:
        """Those under way are finished, and who waits for company goes now."""
        self._closing = True
        self._go()
        while self._tasks or self._waiting:
            if self._tasks:
                await asyncio.wait(self._tasks)
            self._go()


def _in_line(needs: Needs) -> bool:
    """Whether it has to itself what others wait for one after the other, more than its own tag: it waits for no company
    meanwhile."""
    return needs.names is None or len(needs.names) > 1


def _beginning(locks: Sequence[tuple[int, bool]]) -> str:
    """Statements that begin and take the locks that are free; the last one's word says how many those are."""
    values = ", ".join(f"({key}::bigint, {shared})" for key, shared in locks) or "(0::bigint, true)"
    return f"{_BEGIN}; {_FREE.format(values, _TAKEN if locks else 'false')}"


def _apart(members: Sequence[Member]) -> list[Member]:
    """Those that want no name in common. In a transaction of the server's a lock keeps nobody from having it again, so
    the others go alone."""
    taken: set[str] = set()
    apart = []
    for one in members:
        names = {*(one.needs.names or ()), *(each.name for each in one.needs.counted)}
        if taken & names:
            one.told(Alone())
        else:
            taken |= names
            apart.append(one)
    return apart
