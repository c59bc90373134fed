"""Connections are lent: nobody waits for a database that is away, and none outlives the pool (A8)."""

from __future__ import annotations

import asyncio

import pytest

from delegator.errors import DelegatorError, Kind

pytest.importorskip("asyncpg")

from delegator.store.engines.postgres.pool import Pool


class Connection:
    def __init__(self) -> None:
        self.ended = False

    def is_closed(self) -> bool:
        return self.ended

    def terminate(self) -> None:
        self.ended = True

    async def close(self, timeout: float) -> None:
        self.ended = True

    async def fetchval(self, _question: str, *_parameters: object) -> int:
        return 1


class Server:
    """Answers until it is away."""

    away = False

    async def connect(self) -> Connection:
        await asyncio.sleep(0)
        if self.away:
            raise OSError("nobody answers")
        return Connection()


async def test_A8_all_who_wait_for_a_connection_are_told_that_the_database_is_away():
    server = Server()
    pool = Pool(server.connect, "d", 1, 30.0)
    lane = await pool.take()
    waiting = [asyncio.create_task(pool.take()) for _ in range(5)]
    await asyncio.sleep(0)
    server.away = True
    pool.drop(lane)
    async with asyncio.timeout(10):
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {one.kind for one in outcomes} == {Kind.TRY_LATER}


async def test_A8_what_is_given_back_after_the_close_is_not_kept_open():
    pool = Pool(Server().connect, "d", 1, 30.0)
    lane = await pool.take()
    waiting = [asyncio.create_task(pool.take()) for _ in range(3)]
    await asyncio.sleep(0)
    await pool.close()
    pool.give(lane)
    assert lane.connection.ended
    async with asyncio.timeout(10):
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(one) for one in outcomes} == {DelegatorError}
