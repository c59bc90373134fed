"""PostgreSQL: devices that ask at the same time share a transaction, and nobody has less by it (docs/adr/0020; A6,
T-C19).

Each test sets a crowd off while another transaction is under way, so that it goes together.
"""

from __future__ import annotations

import asyncio

import pytest

from delegator.model import NotificationKind, Policy, Result, Telling
from delegator.model.audited import Act
from delegator.store import Outcome
from delegator.store.audit.inspection import Wanted
from delegator.store.engines.postgres.connecting import connect as connected
from delegator.store.engines.postgres.connecting import server_of
from delegator.store.transaction import Query

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
    rows = await store._driver.read(Query("SELECT count(*), count(DISTINCT subject) FROM messages"))
    assert tuple(rows[0]) == (2 * MANY, MANY)
    assert await findings(store) == []


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


async def test_A10_whether_the_store_takes_a_change_is_tried_in_no_group(store, ask):
    """Its one row all delegators change: who waits for that undoes no group of devices."""
    outcomes, commits = await together(store, [*asking(store, ask), store.check()])
    assert outcomes.pop() is None
    assert {one.outcome for one in outcomes} == {Outcome.ISSUED}
    assert commits == 2


async def test_A6_a_limit_that_is_near_is_exact_in_a_crowd(store, ask):
    limited = Policy("few", max_devices=5)
    outcomes, _ = await together(store, asking(store, ask, policy=limited))
    assert sorted(one.outcome.name for one in outcomes) == ["ISSUED"] * 5 + ["OVER_LIMIT"] * (MANY - 5)


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


async def test_A10_groups_of_two_delegators_that_are_told_the_same_ends_do_not_stop_each_other(opening, ask, at, url):
    """Four devices tell each of two delegators, in different order, and each row takes a moment to change."""
    stores = [await opening(), await opening()]
    claims = [(await stores[0].open_and_issue(ask(f"TAG{n:04}"), lambda claim: "x")).claim for n in range(4)]
    await stores[1].open_and_issue(ask("FIRST01", customer="umbra"), lambda claim: "x")
    other = await connected(server_of(url))
    await other.execute("CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS "
                        "$$ BEGIN PERFORM pg_sleep(0.005); RETURN NEW; END $$; CREATE TRIGGER slowly BEFORE UPDATE ON "
                        "claims FOR EACH ROW EXECUTE FUNCTION slowly()")

    def crowd(store, some):
        return together(store, [store.confirm(one.claim_id, "key:one", Result.FAILED, "again", at(1)) for one in some])
    found = await asyncio.gather(crowd(stores[0], claims), crowd(stores[1], reversed(claims)))
    await other.execute("DROP FUNCTION slowly CASCADE")
    await other.close()
    for outcomes, commits in found:
        assert {one.result for one in outcomes} == {Result.FAILED}
        assert commits == 1
    assert await findings(stores[0]) == []
