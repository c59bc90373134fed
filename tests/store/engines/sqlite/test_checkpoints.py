"""The log of an embedded database: brought in little and often, in no commit's way, and short again after (5, 8)."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from delegator.store import Outcome, open_store
from delegator.store.engines.sqlite import checkpoints, keeping
from delegator.store.engines.sqlite.checkpoints import KEPT, LONG, PAGES, Step, next_step
from delegator.store.transaction import Query


@pytest.mark.parametrize(("frames", "done", "size", "how", "step"), [
    (0, 0, 0, {"quiet": True}, Step.NOTHING), (50, 0, 0, {"quiet": False}, Step.NOTHING),
    (50, 0, 0, {"quiet": True}, Step.PASSIVE), (PAGES, 0, 0, {"quiet": False}, Step.RESTART),
    (50, 50, KEPT, {"quiet": True}, Step.NOTHING), (50, 50, KEPT + 1, {"quiet": True}, Step.TRUNCATE),
    (50, 50, KEPT + 1, {"quiet": False}, Step.NOTHING), (LONG, 0, 0, {"quiet": False}, Step.RESTART),
    (LONG + 1, 0, 0, {"quiet": False}, Step.PASSIVE), (LONG + 1, 50, 0, {"quiet": False}, Step.RESTART),
    (PAGES, 0, 0, {"quiet": False, "held": True}, Step.PASSIVE),
    (50, 0, 0, {"quiet": True, "held": True}, Step.NOTHING)],
    ids=["empty", "little", "little and quiet", "enough", "all in", "all in and large", "busy", "long", "too long",
         "long, mostly in", "enough and held", "held"])
def test_R_log_what_is_done_with_the_log(frames, done, size, how, step):
    assert next_step(frames, done, size, **how) is step


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "delegator.db"


@pytest.fixture
async def store(path, key, monkeypatch):
    monkeypatch.setattr(keeping, "QUIET", 0.0)
    monkeypatch.setattr(checkpoints, "TOLD", 64 * 1024)
    store = await open_store(path, key)
    store.listen(lambda: None)
    yield store
    await store.close()


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


async def grown(store, by: int) -> None:
    """So many bytes more of the log."""
    def work():
        yield Query("CREATE TABLE IF NOT EXISTS large (value BLOB)")
        for _ in range(by // 100_000):
            yield Query("INSERT INTO large VALUES ($1)", (os.urandom(100_000),))
    await store._driver.driver.run(work)


async def rounds(store, number: int) -> None:
    for _ in range(number):
        await store._driver.driver._keeping._round()


async def test_R_log_no_commit_of_a_server_brings_the_log_in(store, path):
    """SQLite would, in the commit that makes it a thousand pages long."""
    assert store._driver.driver._connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    await grown(store, 3 * PAGES * 4096)
    await rounds(store, 3)
    assert path.stat().st_size > 2 * PAGES * 4096


async def test_R_log_a_log_that_a_reader_held_is_told_of_brought_in_and_cut_when_it_is_quiet(store, path, ask, caplog):
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM claims").fetchone()
        await grown(store, KEPT + 1_000_000)
        await rounds(store, 3)
        told = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
        assert len(told) == 1, "once, not at each look"
        assert "somebody reads" in told[0]
        assert log_of(path).stat().st_size > KEPT
        assert (await store.open_and_issue(ask(), lambda claim: "x")).outcome is Outcome.ISSUED
        reader.execute("COMMIT")
    await rounds(store, 4)
    assert log_of(path).stat().st_size <= KEPT
    assert (await store.open_and_issue(ask(), lambda claim: "x")).outcome is Outcome.SAME_AGAIN


async def test_R_log_under_load_the_log_begins_anew_and_holds_all_that_was_told(store, path, ask, key, monkeypatch):
    monkeypatch.setattr(checkpoints, "PAGES", 20)
    monkeypatch.setattr(checkpoints, "LONG", 80)
    monkeypatch.setattr(keeping, "PAGES", 20)
    monkeypatch.setattr(keeping, "QUIET", 60.0)
    told = []
    for number in range(40):
        opened = await asyncio.gather(*(store.open_and_issue(ask(f"TAG{number:03}{n}"), lambda claim: claim)
                                        for n in range(4)))
        told += [one.claim for one in opened]
    assert log_of(path).stat().st_size < 40 * 20 * 4096
    assert {one.claim_id: one for one in await store.claims(most=1000)} == {one.claim_id: one for one in told}


async def test_R_log_a_close_waits_for_the_step_under_way(path, key):
    store = await open_store(path, key)
    store.listen(lambda: None)
    await grown(store, 8 * PAGES * 4096)
    await asyncio.sleep(0)
    await asyncio.wait_for(store.close(), 20)
    assert not log_of(path).exists()


@pytest.mark.slow
async def test_R_log_half_a_gigabyte_of_log_holds_up_nobody_for_as_long_as_it_takes_to_bring_it_in(path, key):
    """The worst commit while a long reader's log is brought in waits for a part of what one wait for all would take:
    as SQLite does it it was 3.0 to 11.3 s, apart from commits 0.11 to 0.17 (measured, on a busy machine)."""
    store = await open_store(path, key)
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            store.listen(lambda: None)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM claims").fetchone()
            for _ in range(25):
                await grown(store, 20_000_000)
            assert log_of(path).stat().st_size > 480 << 20
            reader.execute("COMMIT")
        loop = asyncio.get_running_loop()
        worst, until = 0.0, loop.time() + 15
        while loop.time() < until:
            began = loop.time()
            await store.check()
            worst = max(worst, loop.time() - began)
            await asyncio.sleep(0.002)
        assert worst < 2, worst
        await asyncio.sleep(2 * keeping.QUIET + 2 * keeping.LOOK)
        assert log_of(path).stat().st_size <= KEPT
    finally:
        await store.close()
