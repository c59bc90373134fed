"""How many groups go at once, and with how many in each: by a connection that answers when it is told to."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("asyncpg")
from delegator.clockwork.deadline import Within, deadline
from delegator.store.engines.postgres.grouping import GROUP, Groups
from delegator.store.engines.postgres.locks import Needs
from delegator.store.engines.postgres.pool import Pool
from delegator.store.transaction import Commits


class Connection:
    """Takes everything, and has room for a hundred like it."""

    numbers = 0

    def is_closed(self) -> bool:
        return False

    def terminate(self) -> None:
        pass

    async def fetchval(self, *_: object, **__: object) -> int:
        self.numbers += 1
        return 1 if self.numbers % 2 else 100

    async def execute(self, sql: str, **_: object) -> str:
        return f"SELECT {sql.count('::bigint')}"

    async def fetch(self, *_: object, **__: object) -> list[object]:
        return []


class Whole:
    """Nobody was promoted."""

    def require_whole(self) -> None:
        pass

    def require(self, _: object) -> None:
        pass


class Slow:
    """Commits end when somebody says so."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    @property
    def until(self) -> float:
        until = deadline()
        assert until is not None
        return until

    async def of_commit(self, _: object) -> None:
        await self.go_on.wait()


def nothing():
    return
    yield


async def test_R_grouped_where_commits_are_slow_groups_leave_half_of_the_connections_to_others():
    """Groups that took them all waited for each other until their time was over, and then everybody went alone."""
    async def connect() -> Connection:
        return Connection()

    async def let_go(*_: object) -> None:
        raise AssertionError("nothing was to be undone")
    pool, slow, commits = Pool(connect, "x", 8, 5.0), Slow(), Commits()
    groups = Groups(pool, Whole(), slow, commits, lambda lane, works: [work() for work in works], let_go)
    done: list[int] = []

    async def device(number: int) -> None:
        async def alone() -> None:
            await slow.go_on.wait()
        with Within(60.0):
            await groups.of(nothing, Needs(frozenset({f"tag/{number}"})), alone)
        done.append(number)
    devices = [asyncio.create_task(device(number)) for number in range(8 * GROUP)]
    while len(groups._tasks) < 4 or groups._waiting[GROUP:] == []:
        await asyncio.sleep(0.001)
    for _ in range(50):
        await asyncio.sleep(0.001)
        assert len(groups._tasks) == 4
    slow.go_on.set()
    await asyncio.gather(*devices)
    await groups.close()
    assert sorted(done) == list(range(8 * GROUP))
    assert commits.transactions == 8 * GROUP - 1, "all but the first, which found nobody to go with"
    assert commits.failed == 0
