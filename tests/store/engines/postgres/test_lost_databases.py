"""PostgreSQL gone back or replaced beneath us: an old primary beside a promoted one, a database made anew, restored
from an older dump, a table emptied. Whatever was answered holds, nothing is answered anew (R-lasting).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from delegator import config
from delegator.errors import DelegatorError, Kind
from delegator.store import open_named

from ....postgres import OWNER, Cluster, cluster_folder, run
from .test_trouble import Crowd

pytestmark = [pytest.mark.counterpart("initdb"), pytest.mark.slow]


class Pair:
    """A primary and its standby, one database, and settings that name both."""

    def __init__(self, folder: Path, seen: Path) -> None:
        self.first, self.second = Cluster(folder, 5432), Cluster(folder, 5433)
        self.first.make()
        self.first.start()
        self.first.with_schema()
        self.name = self.first.database()
        self.second.follow(self.first)
        self.second.start()
        self.where = config.Store(url=self.first.url(self.name, OWNER, self.second), connections=4, timeout=2.0,
                                  path=str(seen))

    def end(self) -> None:
        self.first.end()
        self.second.end()


@pytest.fixture
def pair(tmp_path):
    with cluster_folder() as folder:
        made = Pair(folder, tmp_path / "delegator.db")
        yield made
        made.end()


@pytest.fixture
async def serving(pair, key):
    async with contextlib.AsyncExitStack() as stores:
        async def serving(where: config.Store = pair.where):
            store = await open_named(where, key)
            stores.push_async_callback(store.close)
            store.listen(lambda: None)
            return store
        yield serving


async def is_right(crowd: Crowd, cluster: Cluster, pair: Pair, key) -> None:
    """Whatever anybody was told stands in the server that is promoted, by a look of its own."""
    store = await open_named(config.Store(url=cluster.url(pair.name), connections=2), key)
    try:
        await crowd.is_right_about(store)
    finally:
        await store.close()


async def test_R_lasting_an_old_primary_that_comes_back_beside_the_promoted_one_is_not_used(
        serving, pair, key, ask, caplog):
    """The first dies, the second is promoted, the first is started again by mistake. Connections are cut all the while,
    so that new ones are made; one delegator more is started when both take writes."""
    crowd = Crowd([await serving(), await serving()], ask)
    async with crowd.busy():
        await asyncio.to_thread(pair.first.stop, "fast")
        await asyncio.to_thread(pair.second.promote)
        await crowd.served(20)
        await asyncio.to_thread(pair.first.start)
        back = time.monotonic()
        for _ in range(10):
            await asyncio.to_thread(pair.second.sql, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
                                                     "usename = 'delegator'")
            await crowd.served(10)
        crowd.stores.append(await serving())
        await crowd.served(30)
        while not any(f"{pair.first.port} takes writes" in one.getMessage() for one in caplog.records):
            assert time.monotonic() - back < 10
            await asyncio.sleep(0.1)
    assert pair.first.sql("SELECT count(*) FROM claims WHERE service_tag > ''", pair.name) != ""
    await is_right(crowd, pair.second, pair, key)


async def test_R_lasting_a_promotion_beside_a_primary_that_lives_is_noticed_within_seconds(serving, pair, key, ask):
    """What was answered before it is noticed is the price of a promotion without fencing, unless commits wait for the
    standby, as docs/scale.md has it: then there is none."""
    pair.first.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
    pair.first.sql("SELECT pg_reload_conf()")
    store = await serving()
    crowd = Crowd([store], ask)
    async with crowd.busy():
        await asyncio.to_thread(pair.second.promote)
        began = time.monotonic()
        await crowd.served(20)
        assert time.monotonic() - began < 10
    await is_right(crowd, pair.second, pair, key)


async def test_R_lasting_a_standby_that_lacks_what_was_promised_is_used_and_that_is_said(
        serving, pair, key, ask, caplog):
    """Commits did not wait for it. Who had it take over knows that, or reads it now."""
    store = await serving()
    await store.open_and_issue(ask("KEPT001"), lambda claim: "kept")
    await asyncio.to_thread(pair.second.stop, "fast")
    await store.open_and_issue(ask("LOST001"), lambda claim: "lost")
    await asyncio.to_thread(pair.first.stop, "immediate")
    await asyncio.to_thread(pair.second.start)
    await asyncio.to_thread(pair.second.promote)
    async with asyncio.timeout(10):
        while (await _told(store.check())) is not None:
            await asyncio.sleep(0.05)
    await store.open_and_issue(ask("NEXT001"), lambda claim: "next")
    assert store.reveal((await store.open_and_issue(ask("KEPT001"), lambda claim: "x")).claim) == "kept"
    async with asyncio.timeout(5):
        while not any("lacks what was promised" in one.getMessage() for one in caplog.records):
            await asyncio.sleep(0.1)
    assert await _told(store.check()) is None


async def test_R_lasting_after_a_start_the_old_primary_alone_is_refused_too(serving, pair, key, ask):
    """By what this machine has seen: the promoted one is away."""
    store = await serving()
    await asyncio.to_thread(pair.first.stop, "fast")
    await asyncio.to_thread(pair.second.promote)
    async with asyncio.timeout(10):
        while (await _told(store.check())) is not None:
            await asyncio.sleep(0.1)
        while '"timeline": 2' not in Path(f"{pair.where.path}.seen").read_text():
            await asyncio.sleep(0.1)
    await store.close()
    await asyncio.to_thread(pair.second.stop, "fast")
    await asyncio.to_thread(pair.first.start)
    with pytest.raises(DelegatorError, match="timeline 1") as refused:
        await serving()
    assert "Fencing" in refused.value.hint
    await asyncio.to_thread(pair.second.start)
    assert await _told((await serving()).check()) is None


async def test_R_lasting_two_that_were_promoted_side_by_side_are_not_written_to(serving, pair, key):
    third = Cluster(pair.first.folder, 5434)
    third.follow(pair.first)
    third.start()
    try:
        url = pair.first.url(pair.name, OWNER, pair.second, third)
        where = config.Store(url=url, connections=4, timeout=2.0, path=f"{pair.where.path}-three")
        store = await serving(where)
        await asyncio.to_thread(pair.first.stop, "immediate")
        for one in (pair.second, third):
            await asyncio.to_thread(one.promote)
        async with asyncio.timeout(5):
            while "both" not in ((await _told(store.check())) or ""):
                await asyncio.sleep(0.1)
        await asyncio.to_thread(third.stop)
        async with asyncio.timeout(5):
            while await _told(store.check()) is not None:
                await asyncio.sleep(0.1)
    finally:
        third.end()


async def _told(work) -> str | None:
    """Why not, None when it went well."""
    try:
        await work
    except DelegatorError as error:
        return error.detail if error.kind is Kind.TRY_LATER else None
    return None


# --- one server ---------------------------------------------------------------------------------------------------


def made_anew(cluster: Cluster, name: str, dump: Path) -> None:
    cluster.sql(f"DROP DATABASE {name} WITH (FORCE)")
    cluster.sql(f"CREATE DATABASE {name} TEMPLATE template_delegator OWNER {OWNER}")


def restored(cluster: Cluster, name: str, dump: Path) -> None:
    made_anew(cluster, name, dump)
    restored_in_place(cluster, name, dump)


def restored_in_place(cluster: Cluster, name: str, dump: Path) -> None:
    run("pg_restore", "--clean", "--if-exists", "--host", cluster.socket, "--port", cluster.port, "--username",
        "postgres", "--dbname", name, dump)


GONE_BACK: dict[str, Callable[[Cluster, str, Path], object]] = {
    "dropped and made anew": made_anew,
    "dropped and restored from an older dump": restored,
    "restored in place from an older dump": restored_in_place,
    "its claims emptied": lambda cluster, name, dump: cluster.sql("TRUNCATE claims CASCADE", name),
    "its audit emptied": lambda cluster, name, dump: cluster.sql("TRUNCATE audit", name),
    "an old row of it deleted": lambda cluster, name, dump: cluster.sql(
        "ALTER TABLE claims DISABLE TRIGGER ALL; DELETE FROM claims; ALTER TABLE claims ENABLE TRIGGER ALL", name),
}


@pytest.mark.parametrize("how", GONE_BACK)
async def test_R_lasting_a_database_that_goes_back_beneath_us_is_noticed_and_nothing_more_is_given(
        postgres, key, ask, tmp_path, how, caplog):
    name, dump = postgres.database(), tmp_path / "dump"
    where = config.Store(url=postgres.url(name), connections=4, timeout=2.0, path=str(tmp_path / "delegator.db"))
    store = await open_named(where, key)
    try:
        store.listen(lambda: None)
        dump.write_bytes(b"")
        await store.open_and_issue(ask("FIRST01"), lambda claim: "first")
        await asyncio.to_thread(dumped, postgres, name, dump)
        await store.open_and_issue(ask("SECOND1"), lambda claim: "second")
        await asyncio.to_thread(GONE_BACK[how], postgres, name, dump)
        began, why = time.monotonic(), None
        while time.monotonic() - began < 5 and why is None:
            await asyncio.sleep(0.2)
            why = await _told(store.check())
        assert why is not None, "readiness tells within seconds"
        for tag in ("SECOND1", "THIRD01"):
            with pytest.raises(DelegatorError) as told:
                await store.open_and_issue(ask(tag), lambda claim: "another")
            assert told.value.kind is Kind.TRY_LATER
            assert told.value.hint
        assert any(one.levelname == "ERROR" for one in caplog.records)
    finally:
        await store.close()


def dumped(cluster: Cluster, name: str, dump: Path) -> None:
    text = cluster.folder / f"{name}.dump"
    run("pg_dump", "--format=custom", "--host", cluster.socket, "--port", cluster.port, "--username", "postgres",
        "--file", text, name)
    dump.write_bytes(text.read_bytes())
    dump.chmod(0o644)
    for folder in dump.parents[:3]:
        folder.chmod(folder.stat().st_mode | 0o055)
