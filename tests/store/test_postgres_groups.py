"""PostgreSQL: devices that ask at the same time share a transaction, and nobody has less by it (docs/adr/0020; A6, T1).

Each test sets a crowd off while another transaction is under way, so that it goes together.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from delegator import config
from delegator.errors import DelegatorError, Kind
from delegator.model import NotificationKind, Policy, Result, Telling
from delegator.model.audited import Act
from delegator.store import Outcome, grouping, open_named
from delegator.store.connecting import connect as connected
from delegator.store.connecting import server_of
from delegator.store.inspection import Wanted
from delegator.store.transaction import Query, rows_alone

pytestmark = pytest.mark.counterpart("initdb")
MANY = 12


@pytest.fixture
def url(postgres_quick):
    with postgres_quick.lent() as name:
        yield postgres_quick.url(name)


@pytest.fixture
async def opening(url, key):
    async with contextlib.AsyncExitStack() as stores:
        async def opening(connections: int = 4, timeout: float = 5.0):
            store = await open_named(config.Store(url=url, connections=connections, timeout=timeout), key)
            stores.push_async_callback(store.close)
            return store
        yield opening


@pytest.fixture
async def store(opening, ask):
    """One that has begun its chains, as one that serves for a while."""
    store = await opening()
    await store.open_and_issue(ask("FIRST01", customer="umbra", delegate="umbra-1"), lambda claim: "x")
    return store


def driver_of(store):
    return store._driver.driver


async def together(store, works, *, within: bool = True):
    """What each comes to, set off while another is under way; and how many commits that took."""
    def busy():
        yield Query("SELECT pg_sleep(0.01)")
    await asyncio.sleep(2 * grouping.CROWD)  # what gathered before has gone
    first = asyncio.create_task(driver_of(store).run(busy, rows_alone, repeatable=True))
    await asyncio.sleep(0)
    before = driver_of(store).commits.done
    with store.request() if within else contextlib.nullcontext():
        outcomes = await asyncio.gather(*works, return_exceptions=True)
    await first
    return outcomes, driver_of(store).commits.done - before - 1


def asking(store, ask, many: int = MANY, **said):
    return [store.open_and_issue(ask(f"TAG{n:04}", **said), lambda claim: f"secret of {claim}") for n in range(many)]


async def findings(store):
    verification = store.audit.verification()
    async for _ in verification.run():
        pass
    return verification.findings


async def test_A6_a_crowd_shares_one_commit_and_each_has_its_claim_its_place_and_its_row(store, ask):
    outcomes, commits = await together(store, asking(store, ask))
    assert commits == 1
    assert {one.outcome for one in outcomes} == {Outcome.ISSUED}
    claims = {one.claim_id: one for one in await store.claims(customer="acme")}
    assert {one.claim.claim_id for one in outcomes} == claims.keys()
    for one in outcomes:
        assert claims[one.claim.claim_id] == one.claim
        assert store.reveal(one.claim) == f"secret of {one.claim.claim_id}"
    assert await store.taken("acme", "acme-1") == {"customer/acme": MANY, "delegate/acme-1": MANY}
    rows = list(await store.audit.list(Wanted(act=Act.CLAIM_ISSUED.value, customer="acme"), 100))
    assert [one.entry.claim_id for one in reversed(rows)] == [one.claim.claim_id for one in outcomes]
    assert await findings(store) == []


async def test_A6_on_a_connection_whose_chain_has_not_begun_one_of_them_begins_it(opening, ask):
    store = await opening(connections=1)
    outcomes, commits = await together(store, asking(store, ask))
    assert (commits, {one.outcome for one in outcomes}) == (1, {Outcome.ISSUED})
    assert await store.audit.count(Wanted(act=Act.AUDIT_BEGAN.value)) == 1
    assert await findings(store) == []


async def test_A6_what_a_group_writes_is_what_one_alone_writes(store, ask, at):
    """Issued after a callback, told, confirmed, asked for again: the same values as without groups."""
    told = Telling((NotificationKind.MAIL, NotificationKind.WEBHOOK), "acme-1", "localhost", None)
    asks = [ask(f"TAG{n:04}") for n in range(MANY)]
    await together(store, [store.open_and_issue(one, lambda claim: "x", told) for one in asks])
    again, _ = await together(store, [store.open_and_issue(one, lambda claim: "y", told) for one in asks])
    assert {one.outcome for one in again} == {Outcome.SAME_AGAIN}
    assert {store.reveal(one.claim) for one in again} == {"x"}
    confirmed, commits = await together(store, [
        store.confirm(one.claim_id, "key:one", Result.DEPLOYED, None, at(1)) for one in asks])
    assert commits == 1
    assert [one.claim_id for one in confirmed] == [one.claim_id for one in asks]
    rows = await store._driver.read(Query("SELECT count(*), count(DISTINCT claim_id) FROM outbox"))
    assert tuple(rows[0]) == (2 * MANY, MANY)
    assert await findings(store) == []


async def test_6_4_who_fails_fails_alone_and_leaves_nothing(store, ask):
    def wrong():
        yield Query("INSERT INTO places (holder, taken) VALUES ($1, 1), ($2, 1) "
                    "ON CONFLICT (holder) DO UPDATE SET taken = places.taken + 1", ("customer/wrong", "delegate/wrong"))
        yield Query("SELECT 1 / (1 - $1)", (1,))
    works = asking(store, ask)
    works.insert(5, driver_of(store).run(wrong, rows_alone, repeatable=True))
    outcomes, _ = await together(store, works)
    assert outcomes.pop(5).kind is Kind.UNAVAILABLE
    assert {one.outcome for one in outcomes} == {Outcome.ISSUED}
    assert await store.taken("wrong", "wrong") == {}
    assert await store.taken("acme", "acme-1") == {"customer/acme": MANY, "delegate/acme-1": MANY}
    assert await findings(store) == []


async def test_6_4_who_only_looks_and_refuses_costs_the_others_nothing(store, ask):
    def refusing():
        yield Query("SELECT 1")
        raise DelegatorError(Kind.CONFLICT, "no")
    works = asking(store, ask)
    works.insert(5, driver_of(store).run(refusing, rows_alone, repeatable=True))
    outcomes, commits = await together(store, works)
    assert (outcomes.pop(5).detail, commits) == ("no", 1)
    assert {one.outcome for one in outcomes} == {Outcome.ISSUED}


async def test_A10_who_wants_a_tag_that_another_delegator_has_waits_alone(store, opening, ask):
    other, held, go_on = await opening(), asyncio.Event(), asyncio.Event()

    def holding():
        held.set()
        while not go_on.is_set():
            yield Query("SELECT pg_sleep(0.01)")
    holds = asyncio.create_task(driver_of(other).run(holding, lambda: ("tag/TAG0003",)))
    await held.wait()
    tasks = [asyncio.ensure_future(one) for one in asking(store, ask)]
    waits = tasks.pop(3)
    outcomes, commits = await together(store, tasks)
    assert {one.outcome for one in outcomes} == {Outcome.ISSUED}
    assert not waits.done()
    assert commits < MANY
    go_on.set()
    await holds
    assert (await waits).outcome is Outcome.ISSUED


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


async def test_A6_of_one_counted_name_a_group_has_one_member(store, ask):
    """Each connection has one claim of it under way at most, and that is what being far from a limit rests on."""
    limited = Policy("far", max_devices=1000)
    works = [*asking(store, ask, policy=limited),
             *(store.open_claim(ask(f"UMB{n:04}", customer="umbra", delegate="umbra-1")) for n in range(MANY))]
    outcomes, commits = await together(store, works)
    assert {one.outcome for one in outcomes} == {Outcome.ISSUED, Outcome.OPENED}
    assert commits == 1 + MANY - 1


async def test_A6_whom_others_wait_for_one_after_the_other_waits_for_no_company(store, ask):
    outcomes, commits = await together(store, asking(store, ask, policy=Policy("paced", claims_per_hour=1000)))
    assert {one.outcome for one in outcomes} == {Outcome.ISSUED}
    assert commits == MANY


async def test_A6_a_limit_that_is_near_is_exact_in_a_crowd(store, ask):
    limited = Policy("few", max_devices=5)
    outcomes, _ = await together(store, asking(store, ask, policy=limited))
    assert sorted(one.outcome.name for one in outcomes) == ["ISSUED"] * 5 + ["OVER_LIMIT"] * (MANY - 5)


async def test_5_who_stops_waiting_costs_the_others_nothing(store, ask):
    tasks = [asyncio.ensure_future(one) for one in asking(store, ask)]
    together_with = asyncio.ensure_future(together(store, tasks))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks[5].cancel()
    outcomes, _ = await together_with
    assert isinstance(outcomes.pop(5), asyncio.CancelledError)
    assert {one.outcome for one in outcomes} == {Outcome.ISSUED}


async def test_T1_what_is_not_done_in_a_hurry_is_undone_and_goes_alone(store, ask, monkeypatch):
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


async def test_A10_who_has_little_time_left_joins_no_group(opening, ask):
    store = await opening(timeout=0.4)
    outcomes, commits = await together(store, asking(store, ask))
    assert {one.outcome for one in outcomes} == {Outcome.ISSUED}
    assert commits == MANY


async def test_A10_groups_of_two_delegators_that_tell_the_same_people_do_not_stop_each_other(opening, ask):
    """Each holds queues until its commit; both take them in one order."""
    stores = [await opening(), await opening()]
    names = [f"acme-{n}" for n in range(6)]

    def crowd(store, place: int):
        return together(store, [store.open_and_issue(
            ask(f"T{place}{n:05}", delegate=name), lambda claim: "x",
            Telling((NotificationKind.MAIL,), name, "localhost", None))
            for n, name in enumerate(names if place else reversed(names))])
    for store in stores:
        await store.open_and_issue(ask(f"FIRST{stores.index(store)}", customer="umbra"), lambda claim: "x")
    found = await asyncio.gather(*(crowd(store, place) for place, store in enumerate(stores)))
    for outcomes, commits in found:
        assert {one.outcome for one in outcomes} == {Outcome.ISSUED}
        assert commits == 1


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
async def test_6_4_a_commit_of_a_group_that_was_not_heard_of_is_looked_up_for_each(store, ask, postgres_quick, url):
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
async def test_T1_whose_time_is_over_while_its_group_commits_is_told_so_and_finds_it_by_asking_again(
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
