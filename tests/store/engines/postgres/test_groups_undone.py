"""PostgreSQL: a group that fails, hangs or loses its connection costs nobody an answer (docs/adr/0020; R-grouped)."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.store import Outcome, holders
from delegator.store.engines.postgres import grouping
from delegator.store.engines.postgres.connecting import connect as connected
from delegator.store.engines.postgres.connecting import server_of
from delegator.store.engines.postgres.installed import asyncpg
from delegator.store.engines.postgres.patience import Patience
from delegator.store.transaction import Query, rows_alone

from ...crowding import MANY, asking, begun, driver_of, findings, opening_on, together

pytestmark = pytest.mark.counterpart("initdb")


@pytest.fixture
def url(postgres_quick):
    with postgres_quick.lent() as name:
        yield postgres_quick.url(name)


@pytest.fixture
async def opening(url, key):
    async with opening_on(url, key) as opens:
        yield opens


@pytest.fixture
async def store(opening, ask):
    return await begun(opening, ask)


async def test_R_grouped_who_fails_fails_alone_and_leaves_nothing(store, ask):
    def wrong():
        yield holders.take(("customer/wrong", "delegate/wrong"))
        yield Query("SELECT 1 / (1 - $1)", (1,))
    works = asking(store, ask)
    works.insert(5, driver_of(store).run(wrong, rows_alone, repeatable=True))
    outcomes, _ = await together(store, works)
    assert outcomes.pop(5).kind is Kind.UNAVAILABLE
    assert {one.outcome for one in outcomes} == {Outcome.ISSUED}
    assert await store.taken("wrong", "wrong") == {}
    assert await store.taken("acme", "acme-1") == {"customer/acme": MANY, "delegate/acme-1": MANY}
    assert await findings(store) == []


async def test_R_grouped_who_only_looks_and_refuses_costs_the_others_nothing(store, ask):
    def refusing():
        yield Query("SELECT 1")
        raise DelegatorError(Kind.CONFLICT, "no")
    works = asking(store, ask)
    works.insert(5, driver_of(store).run(refusing, rows_alone, repeatable=True))
    outcomes, commits = await together(store, works)
    assert (outcomes.pop(5).detail, commits) == ("no", 1)
    assert {one.outcome for one in outcomes} == {Outcome.ISSUED}


async def test_A10_a_row_that_somebody_holds_holds_up_one_and_the_others_for_a_moment(store, ask, url):
    """Then there are no groups for a while, so that the next ones do not find out again."""
    held = (await store.open_claim(ask("TAG0003"))).claim
    await store.pause(held.claim_id)
    other = await connected(server_of(url))
    try:
        await other.execute(f"BEGIN; SELECT 1 FROM claims WHERE claim_id = '{held.claim_id}' FOR UPDATE")
        tasks = [asyncio.ensure_future(one) for one in asking(store, ask)]
        waits, began = tasks.pop(3), time.monotonic()
        outcomes, _ = await together(store, tasks)
        assert {one.outcome for one in outcomes} == {Outcome.ISSUED}
        assert time.monotonic() - began < 1
        assert not waits.done()
        assert driver_of(store)._groups._rests_until > asyncio.get_running_loop().time() - 1
    finally:
        await other.close()
    assert (await waits).outcome is Outcome.ISSUED


async def test_R_later_who_stops_waiting_costs_the_others_nothing(store, ask):
    tasks = [asyncio.ensure_future(one) for one in asking(store, ask)]
    together_with = asyncio.ensure_future(together(store, tasks))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks[5].cancel()
    outcomes, _ = await together_with
    assert isinstance(outcomes.pop(5), asyncio.CancelledError)
    assert {one.outcome for one in outcomes} == {Outcome.ISSUED}


async def test_TC19_what_is_not_done_in_a_hurry_is_undone_and_goes_alone(store, ask, monkeypatch):
    """The database does not answer for a moment; nothing is logged of a device that would be late."""
    monkeypatch.setattr(grouping, "HURRY", 0.05)

    def slow():
        yield Query("SELECT pg_sleep(0.2)")
        yield Query("SELECT 1")
        return "done"
    works = [*asking(store, ask), driver_of(store).run(slow, rows_alone, repeatable=True)]
    outcomes, _ = await together(store, works)
    assert outcomes.pop() == "done"
    assert {one.outcome for one in outcomes} == {Outcome.ISSUED}
    assert not driver_of(store)._slowness.slow


async def test_R_grouped_a_connection_that_dies_in_the_middle_of_a_group_costs_the_others_nothing(store, ask, url):
    name = url.partition("@/")[2].partition("?")[0]

    def dying():
        yield Query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = pg_backend_pid() "
                    "AND (SELECT count(*) FROM pg_stat_activity WHERE datname = $1) > 0", (name,))
    outcomes, _ = await together(store, [*asking(store, ask),
                                         driver_of(store).run(dying, rows_alone, repeatable=True)])
    assert outcomes.pop().kind is Kind.TRY_LATER
    assert {one.outcome for one in outcomes} == {Outcome.ISSUED}
    assert await store.taken("acme", "acme-1") == {"customer/acme": MANY, "delegate/acme-1": MANY}
    assert await findings(store) == []


async def test_R_once_who_stops_waiting_and_asks_again_is_given_one_claim(store, ask):
    """The group goes on meanwhile, with its tag."""
    tasks = [asyncio.ensure_future(one) for one in asking(store, ask)]
    crowd = asyncio.ensure_future(together(store, tasks))
    while not driver_of(store)._groups._tasks:
        await asyncio.sleep(0)
    await asyncio.sleep(0.002)
    tasks[5].cancel()
    again = await store.open_and_issue(ask("TAG0005"), lambda claim: "another")
    await crowd
    assert again.outcome in (Outcome.SAME_AGAIN, Outcome.ISSUED)
    assert len([one for one in await store.claims(customer="acme") if one.service_tag == "TAG0005"]) == 1
    assert await store.taken("acme", "acme-1") == {"customer/acme": MANY, "delegate/acme-1": MANY}


async def test_A10_a_group_that_was_undone_does_not_keep_its_members_until_the_server_says_so(
        store, ask, monkeypatch):
    """The server takes a second for what is undone: whoever was with the one that failed does not wait for that."""
    execute = asyncpg.Connection.execute

    async def slow(connection, text, *values, **how):
        if text == "ROLLBACK":
            await asyncio.sleep(1)
        return await execute(connection, text, *values, **how)
    monkeypatch.setattr(asyncpg.Connection, "execute", slow)

    def wrong():
        yield Query("SELECT 1 / (1 - $1)", (1,))
    began, done_at = time.monotonic(), []

    async def timed(one):
        done_at.append((await one, time.monotonic() - began))
    await together(store, [*map(timed, asking(store, ask)), driver_of(store).run(wrong, rows_alone, repeatable=True)])
    assert {opened.outcome for opened, _ in done_at} == {Outcome.ISSUED}
    assert max(after for _, after in done_at) < 0.9


async def test_TC19_while_commits_are_slow_the_groups_take_half_of_the_connections_and_none_is_undone(
        store, ask, monkeypatch):
    groups, go_on, of_commit = driver_of(store)._groups, asyncio.Event(), Patience.of_commit

    async def slow(patience, lane):
        await go_on.wait()
        await of_commit(patience, lane)
    monkeypatch.setattr(Patience, "of_commit", slow)
    monkeypatch.setattr(grouping, "GROUP", 3)
    tasks = [asyncio.ensure_future(one) for one in asking(store, ask)]
    async with asyncio.timeout(4):
        while len(groups._tasks) < 2 or groups._pool.age:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert (len(groups._tasks), len(groups._waiting)) == (2, MANY - 1 - 2 * 3)
        go_on.set()
        outcomes = await asyncio.gather(*tasks)
    assert {one.outcome for one in outcomes} == {Outcome.ISSUED}
    assert groups._rest == 0


async def test_R_drained_who_waits_for_company_when_its_store_closes_is_told(opening, ask):
    store = await opening()
    await store.open_and_issue(ask("FIRST01", customer="umbra", delegate="umbra-1"), lambda claim: "x")

    def busy():
        yield Query("SELECT pg_sleep(0.01)")
    under_way = asyncio.create_task(driver_of(store).run(busy, rows_alone, repeatable=True))
    await asyncio.sleep(0)
    tasks = [asyncio.ensure_future(one) for one in asking(store, ask)]
    await asyncio.sleep(0)
    await store.close()
    async with asyncio.timeout(1):
        outcomes = await asyncio.gather(under_way, *tasks, return_exceptions=True)
    assert {getattr(one, "outcome", None) for one in outcomes[1:]} == {Outcome.ISSUED}


# --- a commit that nobody heard of --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def commits_that_hang(cluster):
    """Every commit waits for a standby that does not exist: done here, and not told."""
    cluster.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    cluster.sql("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        cluster.sql("ALTER SYSTEM RESET synchronous_standby_names")
        cluster.sql("SELECT pg_reload_conf()")


async def hanging(cluster, url: str, verb: str) -> None:
    """Something is done to the connection that waits in its commit, once there is one."""
    name = url.partition("@/")[2].partition("?")[0]
    async with asyncio.timeout(5):
        while await asyncio.to_thread(cluster.sql, f"SELECT count({verb}) FROM pg_stat_activity WHERE "
                                      f"datname = '{name}' AND wait_event = 'SyncRep'") == "0":
            await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_R_repeated_a_commit_of_a_group_that_was_not_heard_of_is_looked_up_for_each(
        store, ask, postgres_quick, url):
    async with commits_that_hang(postgres_quick):
        crowd = asyncio.create_task(together(store, asking(store, ask)))
        await hanging(postgres_quick, url, "pg_terminate_backend(pid)")
    outcomes, _ = await crowd
    assert {one.outcome for one in outcomes} == {Outcome.SAME_AGAIN}
    assert {store.reveal(one.claim) == f"secret of {one.claim.claim_id}" for one in outcomes} == {True}
    assert len(await store.claims(customer="acme")) == MANY
    assert await store.taken("acme", "acme-1") == {"customer/acme": MANY, "delegate/acme-1": MANY}
    assert await findings(store) == []


@pytest.mark.slow
async def test_TC19_whose_time_is_over_while_its_group_commits_is_told_so_and_finds_it_by_asking_again(
        opening, ask, postgres_quick):
    """The commit itself goes on: it waits for a standby, and is not answered before it is safe."""
    store = await opening(timeout=1.0)
    await store.open_and_issue(ask("FIRST01", customer="umbra", delegate="umbra-1"), lambda claim: "x")
    asks = [ask(f"TAG{n:04}") for n in range(MANY)]
    async with commits_that_hang(postgres_quick):
        began = time.monotonic()
        told, _ = await together(store, [store.open_and_issue(one, lambda claim: "first") for one in asks])
        assert time.monotonic() - began < 2
        assert {one.kind for one in told} == {Kind.TRY_LATER}
        assert any("found by asking again" in one.detail for one in told)
        assert driver_of(store)._slowness.slow

    async def again(one):
        async with asyncio.timeout(5):
            while True:
                with contextlib.suppress(DelegatorError):
                    return await store.open_and_issue(one, lambda claim: "second")
                await asyncio.sleep(0.05)
    found = await asyncio.gather(*map(again, asks))
    assert len({store.reveal(one.claim) for one in found}) == 1, "all of the group, or none of it"
    assert await store.taken("acme", "acme-1") == {"customer/acme": MANY, "delegate/acme-1": MANY}
    assert await findings(store) == []
