"""PostgreSQL in trouble: killed, restarted, failed over, silent. Nothing that was told is lost, and nobody waits long.

While the database is away every device is told to try later (R-later, R-repeated; A3, A8).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from dataclasses import dataclass, field

import pytest

from delegator import config
from delegator.errors import DelegatorError, Kind
from delegator.model import ClaimState, Customer
from delegator.store import Outcome, Store, open_named
from delegator.store.engines.postgres.connecting import connect as connected
from delegator.store.engines.postgres.connecting import server_of
from delegator.store.transaction import Query, rows_alone

from ....clock import today
from ....postgres import Cluster, cluster_folder

pytestmark = [pytest.mark.counterpart("initdb"), pytest.mark.slow]


@pytest.fixture
async def url(postgres):
    with postgres.lent() as name:
        yield postgres.url(name)


@pytest.fixture
async def opening(url, key):
    async with contextlib.AsyncExitStack() as stores:
        async def opening(connections: int = 4, timeout: float = 5.0, at: str = url):
            store = await open_named(config.Store(url=at, connections=connections, timeout=timeout), key)
            stores.push_async_callback(store.close)
            return store
        yield opening


def backends(cluster: Cluster, url: str, condition: str = "true") -> str:
    """SQL that ends the connections of this test's database; how many it were."""
    name = url.partition("@/")[2].partition("?")[0]
    return cluster.sql(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}' "
                       f"AND {condition}")


@dataclass
class Crowd:
    """Devices that ask, again and again with new tags, and remember what they were told."""

    stores: list[Store]
    ask: object
    told: dict[str, str] = field(default_factory=dict)
    turned_away: list[DelegatorError] = field(default_factory=list)
    stopping: bool = False

    async def device(self, place: int) -> None:
        number = 0
        while not self.stopping:
            tag = f"D{place:02}X{number:05}"
            once = self.ask(tag, f"key:{tag}")
            try:
                opened = await self.stores[place % len(self.stores)].open_and_issue(
                    once, lambda claim_id: f"secret of {claim_id}")
            except DelegatorError as error:
                self.turned_away.append(error)
                await asyncio.sleep(0.02)
                continue  # it asks again, as a device does
            assert opened.outcome in (Outcome.ISSUED, Outcome.SAME_AGAIN), opened
            self.told[tag] = f"secret of {opened.claim.claim_id}"
            number += 1

    @contextlib.asynccontextmanager
    async def busy(self):
        devices = [asyncio.create_task(self.device(place)) for place in range(8)]
        await self.served(20)
        try:
            yield
            await self.served(20)
        finally:
            self.stopping = True
            async with asyncio.timeout(20):
                await asyncio.gather(*devices)

    async def served(self, more: int) -> None:
        """Wait until so many more were served."""
        until = len(self.told) + more
        async with asyncio.timeout(20):
            while len(self.told) < until:
                await asyncio.sleep(0.01)

    async def is_right_about(self, store: Store) -> None:
        """What devices were told is what the database holds, one claim for each, and all are counted."""
        assert {error.kind for error in self.turned_away} <= {Kind.TRY_LATER}
        claims = {one.service_tag: one for one in await store.claims(most=100_000)}
        assert {tag: store.reveal(claims[tag]) for tag in self.told} == self.told
        assert {one.state for one in claims.values()} == {ClaimState.ISSUED}
        assert len(await store.claims(most=100_000)) == len(claims)
        assert (await store.taken("acme", "acme-1")) == dict.fromkeys(("customer/acme", "delegate/acme-1"), len(claims))


async def test_R_later_connections_that_are_ended_cost_nobody_an_answer(opening, ask, postgres, url):
    """As when an administrator ends sessions, or a proxy in between does: seen as nothing but a moment's wait."""
    crowd = Crowd([await opening(), await opening()], ask)
    async with crowd.busy():
        for _ in range(5):
            assert int(await asyncio.to_thread(backends, postgres, url)) > 0
            await crowd.served(5)
    assert crowd.turned_away == []
    await crowd.is_right_about(await opening())


async def back(store: Store) -> None:
    """Recovery after a stop in the midst of things takes the database as long as it takes it."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await store.check()
            except DelegatorError:
                await asyncio.sleep(0.1)


async def test_R_later_a_restart_under_load_loses_nothing_and_service_is_back_at_once(opening, ask, postgres):
    crowd = Crowd([await opening(), await opening()], ask)
    async with crowd.busy():
        for mode in ("fast", "immediate"):
            await asyncio.to_thread(postgres.stop, mode)
            with pytest.raises(DelegatorError) as away:
                await crowd.stores[0].tables()
            assert away.value.kind is Kind.TRY_LATER
            began = time.monotonic()
            with pytest.raises(DelegatorError):
                await crowd.stores[0].check()
            assert time.monotonic() - began < 1, "who asks meanwhile is told so and does not wait"
            await asyncio.to_thread(postgres.start)
            began = time.monotonic()
            await crowd.served(1)
            assert time.monotonic() - began < 2
    assert crowd.turned_away
    for store in crowd.stores:
        await back(store)
    await crowd.is_right_about(await opening())
    await crowd.stores[0].add_customer(Customer("acme", "Acme"), today())
    assert "acme" in (await crowd.stores[1].tables()).customers


async def test_R_later_a_failover_to_a_standby_loses_nothing(key, ask):
    """Two servers, the second a synchronous standby. The first is gone for good, the second is promoted: delegators
    whose settings name both go on there, and every credential that was given is there."""
    with cluster_folder() as folder:
        first, second = Cluster(folder, 5432), Cluster(folder, 5433)
        first.make()
        first.start()
        await asyncio.to_thread(first.with_schema)
        name = first.database()
        second.follow(first)
        second.start()
        first.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        first.sql("SELECT pg_reload_conf()")
        where = config.Store(url=first.url(name, "delegator", second), connections=4, timeout=2.0)
        try:
            async with contextlib.AsyncExitStack() as stores:
                opened = [await open_named(where, key) for _ in range(2)]
                for one in opened:
                    stores.push_async_callback(one.close)
                crowd = Crowd(opened, ask)
                async with crowd.busy():
                    await asyncio.to_thread(first.stop, "immediate")
                    await asyncio.sleep(0.3)
                    before = len(crowd.told)
                    await asyncio.to_thread(second.promote)
                    await crowd.served(20)
                assert crowd.turned_away
                assert len(crowd.told) > before
                await back(opened[0])  # those who were served may have been the other's
                await crowd.is_right_about(opened[0])
        finally:
            first.end()
            second.end()


# --- a commit that nobody heard of --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def commits_that_hang(cluster: Cluster):
    """Every commit waits for a standby that does not exist: done here, and not told."""
    cluster.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    cluster.sql("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        cluster.sql("ALTER SYSTEM RESET synchronous_standby_names")
        cluster.sql("SELECT pg_reload_conf()")


async def cut_while_committing(cluster: Cluster, url: str) -> None:
    """End the connection that waits in its commit; then commits go through again."""
    async with asyncio.timeout(5):
        while await asyncio.to_thread(backends, cluster, url, "wait_event = 'SyncRep'") == "0":
            await asyncio.sleep(0.01)


async def test_R_repeated_a_claim_whose_commit_was_done_but_not_heard_of_is_answered_once(opening, ask, postgres, url):
    store = await opening()
    async with commits_that_hang(postgres):
        asking = asyncio.create_task(store.open_and_issue(ask(), lambda claim_id: f"secret of {claim_id}"))
        await cut_while_committing(postgres, url)
    opened = await asking
    assert opened.outcome is Outcome.SAME_AGAIN, "it was there already when it was run again"
    assert store.reveal(opened.claim) == f"secret of {opened.claim.claim_id}"
    assert [one.claim_id for one in await store.claims()] == [opened.claim.claim_id]
    assert await store.taken("acme", "acme-1") == {"customer/acme": 1, "delegate/acme-1": 1}


async def test_R_repeated_an_act_of_an_operator_in_doubt_is_not_done_again_but_told(opening, postgres, url):
    store = await opening()
    async with commits_that_hang(postgres):
        adding = asyncio.create_task(store.add_customer(Customer("acme", "Acme"), today()))
        await cut_while_committing(postgres, url)
    with pytest.raises(DelegatorError) as doubt:
        await adding
    assert (doubt.value.kind, doubt.value.hint) == (Kind.TRY_LATER,
                                                    "look whether it was done, and repeat it if it was not")
    assert [one.name for one in await store.customers()] == ["acme"]


async def test_R_durable_a_commit_that_waits_for_its_standby_is_never_answered_before_it_is_safe(
        opening, ask, postgres, url,
                                                                                          monkeypatch):
    """No limit of time ends that wait as if it were done: the device is told to try later."""
    monkeypatch.setattr("delegator.store.engines.postgres.patience.ROOM", 0.2)
    store = await opening(timeout=0.5)
    async with commits_that_hang(postgres):
        with pytest.raises(DelegatorError) as late:
            await store.open_and_issue(ask(), lambda claim: "x")
        assert late.value.kind is Kind.TRY_LATER
        assert postgres.sql("SELECT count(*) FROM claims", url.partition("@/")[2].partition("?")[0]) == "0"
    async with asyncio.timeout(5):
        while (opened := await again(store, ask)) is None:
            await asyncio.sleep(0.05)
    assert store.reveal(opened.claim) == "x"


async def again(store: Store, ask):
    with contextlib.suppress(DelegatorError):
        return await store.open_and_issue(ask(), lambda claim: "y")


# --- slow, silent, full -------------------------------------------------------------------------------------------


async def test_R_later_a_lock_that_somebody_holds_makes_devices_try_later_and_not_wait(opening, ask, url):
    store = await opening(timeout=0.5)
    other = await connected(server_of(url))
    try:
        await other.execute("BEGIN; LOCK TABLE claims IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        outcomes = await asyncio.gather(*(store.open_claim(ask(f"TAG{n:04}")) for n in range(12)),
                                        return_exceptions=True)
        assert {one.kind for one in outcomes} == {Kind.TRY_LATER}
        assert time.monotonic() - began < 4
    finally:
        await other.close()
    assert (await store.open_claim(ask())).outcome is Outcome.OPENED


async def test_R_later_a_server_that_falls_silent_is_left_for_the_next_connection(ask, key, postgres, url):
    """The network drops everything without a word, for connections that stand and for those that are made."""
    async with silent_at_will(postgres.socket) as silence:
        where = url.replace(f"host={postgres.socket}&port=5432", f"host=127.0.0.1&port={silence.port}")
        store = await open_named(config.Store(url=where, connections=2, timeout=0.5), key)
        try:
            await store.open_claim(ask("TAG0001"))
            silence.silent = True
            began = time.monotonic()
            with pytest.raises(DelegatorError) as away:
                await store.open_claim(ask("TAG0002"))
            assert away.value.kind is Kind.TRY_LATER
            assert time.monotonic() - began < 8
            silence.silent = False
            silence.cut()
            async with asyncio.timeout(4):
                while (opened := await again(store, lambda: ask("TAG0002"))) is None:
                    await asyncio.sleep(0.05)
            assert opened.outcome is Outcome.ISSUED
        finally:
            await store.close()


async def test_R_later_a_server_that_is_silent_does_not_keep_us_from_the_other_one(postgres, url):
    """Named first, and nothing comes back from it."""
    with socket.create_server(("127.0.0.1", 0)) as hole:
        async with silent_at_will(postgres.socket) as there:
            await reached_beside(hole.getsockname()[1], there.port,
                                 url.replace(f"host={postgres.socket}&port=5432", ""))


async def reached_beside(hole: int, port: int, url: str) -> None:
    began = time.monotonic()
    connection = await connected(server_of(f"{url}host=127.0.0.1,127.0.0.1&port={hole},{port}"))
    assert time.monotonic() - began < 1
    await connection.close()


async def test_R_later_when_all_connections_are_busy_one_waits_its_turn_and_not_for_ever(opening, driver_work):
    store = await opening(connections=2, timeout=0.5)
    run = store._driver.driver.run
    outcomes = await asyncio.gather(*(run(driver_work(0.4), rows_alone) for _ in range(8)), return_exceptions=True)
    told = [one for one in outcomes if isinstance(one, DelegatorError)]
    assert 0 < len(told) < 8
    assert {one.kind for one in told} == {Kind.TRY_LATER}
    assert "connections were busy" in told[0].detail
    assert await run(driver_work(0), rows_alone) == 0


@pytest.fixture
def driver_work():
    def sleeping(seconds: float):
        def work():
            yield Query("SELECT pg_sleep($1)", (seconds,))
            return seconds
        return work
    return sleeping


async def test_A8_a_connection_whose_rollback_is_cut_off_is_replaced(opening, driver_work, monkeypatch):
    store = await opening(connections=1, timeout=1.0)
    driver = store._driver.driver
    patiently = driver._patience.of

    async def cut_off(lane, verb, *arguments):
        if arguments == ("ROLLBACK",):
            raise asyncio.CancelledError
        return await patiently(lane, verb, *arguments)

    def wrong():
        yield Query("SELECT 1")
        raise DelegatorError(Kind.CONFLICT, "no")
    monkeypatch.setattr(driver._patience, "of", cut_off)
    with pytest.raises(asyncio.CancelledError):
        await driver.run(wrong)
    assert await driver.run(driver_work(0), rows_alone) == 0


async def test_A8_a_slow_reader_of_a_snapshot_is_not_cut_off(opening):
    """Longer than the server lets a transaction stand that changes things."""
    store = await opening(timeout=0.3)
    async with store._driver.driver.snapshot() as read:
        assert [tuple(row) for row in await read(Query("SELECT 1"))] == [(1,)]
        await asyncio.sleep(0.8)
        assert [tuple(row) for row in await read(Query("SELECT 2"))] == [(2,)]
    assert await store.customers() == []


async def test_R_later_who_stops_waiting_takes_no_connection_with_it(opening, driver_work):
    store = await opening(connections=2)
    run = store._driver.driver.run
    tasks = [asyncio.create_task(run(driver_work(5), rows_alone)) for _ in range(6)]
    await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(3):
        assert await asyncio.gather(*(run(driver_work(0), rows_alone) for _ in range(6))) == [0] * 6


@dataclass
class Silence:
    """A way to the server that can be made to carry nothing, without a word."""

    port: int = 0
    silent: bool = False
    ways: list[asyncio.StreamWriter] = field(default_factory=list)

    def cut(self) -> None:
        for way in self.ways:
            way.close()


@contextlib.asynccontextmanager
async def silent_at_will(folder: str):
    silence, tasks = Silence(), []

    async def carry(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                while silence.silent:
                    await asyncio.sleep(0.02)
                writer.write(data)
        writer.close()

    async def accept(reader, writer):
        there = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.5432")
        silence.ways += [writer, there[1]]
        tasks.extend(asyncio.create_task(carry(*way)) for way in ((reader, there[1]), (there[0], writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    silence.port = server.sockets[0].getsockname()[1]
    try:
        yield silence
    finally:
        server.close()
        silence.cut()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
