"""PostgreSQL: transactions side by side, as exact as one after the other, and told of changes (R-scopes, R-seen; A6,
A10)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from delegator import config
from delegator.errors import DelegatorError, Kind
from delegator.model import ClaimState, Customer, IdentityKind, Policy, Result
from delegator.model.audited import Act, Entry
from delegator.model.enrolled import Contest
from delegator.store import Outcome, holders, open_named
from delegator.store.audit import ledger
from delegator.store.audit.inspection import Wanted
from delegator.store.transaction import Query, rows_alone

from ....clock import today

ROOT = Path(__file__).parents[4]
pytestmark = [pytest.mark.counterpart("initdb"), pytest.mark.slow]


@pytest.fixture
async def url(postgres):
    with postgres.lent() as name:
        yield postgres.url(name)


@pytest.fixture
async def opening(url, key):
    """Opens one more store, as one more delegator would."""
    async with contextlib.AsyncExitStack() as stores:
        async def opening(connections: int = 4, timeout: float = 5.0):
            store = await open_named(config.Store(url=url, connections=connections, timeout=timeout), key)
            stores.push_async_callback(store.close)
            return store
        yield opening


@pytest.fixture
async def store(opening):
    return await opening()


@pytest.fixture
def driver(store):
    return store._driver.driver


def pausing(log: list[str], name: str):
    """A transaction that says when it begins and ends, and in between waits in the database."""
    def work():
        log.append(f"{name} begins")
        yield Query("SELECT pg_sleep(0.1)")
        log.append(f"{name} ends")
    return work


async def order_of(driver, *scopes) -> list[str]:
    log: list[str] = []
    await asyncio.gather(*(driver.run(pausing(log, str(number)), scope) for number, scope in enumerate(scopes)))
    return log


async def side_by_side(driver, *scopes) -> None:
    """Each transaction ends only when all of them have begun."""
    begun: set[int] = set()

    def waiting(number: int):
        def work():
            begun.add(number)
            while len(begun) < len(scopes):
                yield Query("SELECT pg_sleep(0.01)")
        return work
    async with asyncio.timeout(4):
        await asyncio.gather(*(driver.run(waiting(number), scope) for number, scope in enumerate(scopes)))


# --- side by side -------------------------------------------------------------------------------------------------


async def test_R_scopes_what_says_nothing_of_its_scope_runs_alone(driver):
    assert await order_of(driver, None, None) in (["0 begins", "0 ends", "1 begins", "1 ends"],
                                                  ["1 begins", "1 ends", "0 begins", "0 ends"])
    log = await order_of(driver, None, rows_alone)
    assert log[0].split()[0] == log[1].split()[0]


async def test_R_scopes_what_shares_no_name_runs_side_by_side_and_what_does_runs_in_turn(driver):
    await side_by_side(driver, lambda: ("a",), lambda: ("b",), rows_alone, rows_alone)
    log = await order_of(driver, lambda: ("a", "b"), lambda: ("b", "c"))
    assert log[0].split()[0] == log[1].split()[0]


async def test_R_scopes_names_are_kept_apart_between_delegators_too(opening):
    here, there = await opening(), await opening()
    log: list[str] = []
    await asyncio.gather(*(one._driver.driver.run(pausing(log, name), lambda: ("same",))
                           for one, name in ((here, "here"), (there, "there"))))
    assert log[0].split()[0] == log[1].split()[0]
    await asyncio.gather(*(one._driver.driver.run(pausing(log, name))
                           for one, name in ((here, "here"), (there, "there"))))
    assert log[4].split()[0] == log[5].split()[0]


@pytest.mark.parametrize("policy", [Policy("none"), Policy("far", max_devices=1000)], ids=["no limit", "far from it"])
async def test_A6_claims_without_a_limit_or_far_from_it_do_not_wait_for_each_other(opening, ask, policy):
    """Each connection counts in a row of its own: while one claim of a customer is held up before its commit, others
    of the same customer and delegate are opened."""
    store = await opening(connections=4)
    held, go_on = asyncio.Event(), asyncio.Event()

    def slow():
        def work():
            yield holders.take(("customer/acme", "delegate/acme-1"))
            held.set()
            while not go_on.is_set():
                yield Query("SELECT pg_sleep(0.01)")
        return store._driver.driver.run(work, rows_alone)

    waiting = asyncio.create_task(slow())
    await held.wait()
    async with asyncio.timeout(2):
        opened = await asyncio.gather(*(
            store.open_claim(ask(f"TAG{number:04}", policy=policy)) for number in range(12)))
    assert {one.outcome for one in opened} == {Outcome.OPENED}
    assert (await store.taken("acme", "acme-1"))["customer/acme"] == 12
    go_on.set()
    await waiting
    assert (await store.taken("acme", "acme-1"))["customer/acme"] == 13


async def test_A10_a_crowd_of_one_customer_leaves_connections_for_the_others(opening, ask):
    """Claims that are counted one after the other wait in line without a connection."""
    store = await opening(connections=2)
    limited = Policy("few", max_devices=100)
    crowd = [asyncio.create_task(store.open_claim(ask(f"TAG{number:04}", policy=limited))) for number in range(60)]
    await asyncio.sleep(0.02)
    began = time.monotonic()
    await store.open_claim(ask("OTHER01", customer="umbra", delegate="umbra-1"))
    assert not all(one.done() for one in crowd), f"served after {time.monotonic() - began:.3f} s"
    assert {one.outcome for one in await asyncio.gather(*crowd)} == {Outcome.OPENED}


async def test_A6_a_limit_is_exact_whether_a_claim_found_it_far_or_near(opening, ask, postgres):
    """200 at once for 160 places: the first are far from the limit by more than the server has connections, and count
    side by side; the last ones do not. One delegator is slow between looking and counting."""
    most = int(postgres.sql("SHOW max_connections"))
    policy = Policy("many", max_devices=most + 40)
    stores = [await opening() for _ in range(4)]
    slow, run = stores[0]._driver.driver, stores[0]._driver.driver._drive

    async def held_up(lane, transaction):
        await asyncio.sleep(0.05)
        return await run(lane, transaction)
    slow._drive = held_up
    opened = await asyncio.gather(*(
        stores[number % 4].open_claim(ask(f"TAG{number:04}", policy=policy)) for number in range(most + 80)))
    assert Counter(one.outcome for one in opened) == {Outcome.OPENED: most + 40, Outcome.OVER_LIMIT: 40}
    assert (await stores[1].taken("acme", "acme-1"))["customer/acme"] == most + 40


@pytest.mark.parametrize("limit", ["max_devices", "claims_per_hour"])
async def test_A6_of_64_over_four_processes_exactly_one_wins(opening, url, limit):
    """Each process has two Stores of its own; all begin at the same moment, when one place of five is left."""
    store = await opening()

    def start(first: int, many: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(Path(__file__).parents[2] / "racing.py"), url, str(first), str(many), f"{limit}=5"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})

    with contextlib.ExitStack() as processes:
        before = processes.enter_context(start(9000, 4))
        assert before.stdout.readline() == "ready\n"
        assert json.loads(before.communicate("go\n", timeout=30)[0]) == ["OPENED"] * 4
        racing = [processes.enter_context(start(number * 16, 16)) for number in range(4)]
        for one in racing:
            assert one.stdout.readline() == "ready\n"
        for one in racing:
            one.stdin.write("go\n")
            one.stdin.flush()
        told = Counter(word for one in racing for word in json.loads(one.communicate(timeout=30)[0]))
    assert told == {"OPENED": 1, "OVER_LIMIT": 63}
    assert (await store.taken("acme", "acme-1"))["customer/acme"] == 5


async def test_R_scopes_races_that_nobody_foresaw_are_run_again_until_both_are_done(opening):
    """A deadlock, which the database ends by failing one of the two; and a unique key that another takes first."""
    here, there = (await opening())._driver.driver, (await opening())._driver.driver
    await here.run(lambda: (yield Query("INSERT INTO places (holder, lane, taken) VALUES ('a', 0, 0), ('b', 0, 0)")))

    def crossing(first: str, second: str):
        def work():
            for holder in (first, second):
                yield Query("UPDATE places SET taken = taken + 1 WHERE holder = $1", (holder,))
                yield Query("SELECT pg_sleep(0.1)")
        return work
    await asyncio.gather(here.run(crossing("a", "b"), rows_alone), there.run(crossing("b", "a"), rows_alone))
    rows = await here.read(Query("SELECT taken FROM places WHERE holder IN ('a', 'b')"))
    assert [row[0] for row in rows] == [2, 2]

    def first_or_not():
        found = yield Query("SELECT title FROM customers WHERE name = 'acme'")
        yield Query("SELECT pg_sleep(0.1)")
        if not found:
            yield Query("INSERT INTO customers (name, title) VALUES ('acme', 'Acme')")
        return bool(found)
    assert sorted(await asyncio.gather(*(one.run(first_or_not, rows_alone) for one in (here, there)))) == [False, True]


async def test_R_whole_what_is_refused_for_good_says_so_and_leaves_nothing(driver, store):
    def work():
        yield Query("INSERT INTO customers (name, title) VALUES ('acme', 'Acme')")
        yield Query("INSERT INTO customers (name, title) VALUES ('umbra', 'Umbra')")
        yield Query("INSERT INTO customers (name, title) VALUES ('acme', 'Again, the secret word')")
    with pytest.raises(DelegatorError) as refusal:
        await driver.run(work)
    assert refusal.value.kind is Kind.CONFLICT
    assert "secret word" not in refusal.value.detail
    assert await store.customers() == []


async def test_R_secret_a_mistake_of_ours_is_unavailable_and_tells_no_value(driver):
    for sql, parameters in (("SELECT nonsense FROM customers", ()), ("SELECT 1 WHERE 1 = $1", ("the secret word",)),
                            ("SELECT CAST(CAST($1 AS TEXT) AS INTEGER)", ("the secret word",))):
        with pytest.raises(DelegatorError) as failure:
            await driver.read(Query(sql, parameters))
        assert failure.value.kind is Kind.UNAVAILABLE
        assert "secret word" not in failure.value.detail
    assert [tuple(row) for row in await driver.read(Query("SELECT 1"))] == [(1,)]


async def test_A13_of_two_equal_confirmations_at_once_both_are_taken(opening, ask, at):
    """Both find the claim issued, one changes it; there is one row of audit."""
    here, there = await opening(), await opening()
    claim = (await here.open_and_issue(ask(), lambda claim: "x")).claim
    held, go_on = asyncio.Event(), asyncio.Event()

    def holding():
        yield Query("UPDATE claims SET busy_until = busy_until WHERE claim_id = $1", (claim.claim_id,))
        held.set()
        while not go_on.is_set():
            yield Query("SELECT pg_sleep(0.01)")
    holds = asyncio.create_task(here._driver.run(holding, rows_alone))
    await held.wait()
    both = [asyncio.create_task(one.confirm(claim.claim_id, "key:one", Result.DEPLOYED, None, at(1)))
            for one in (here, there)]
    async with asyncio.timeout(4):
        while int(str((await here._driver.read(Query(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE claims%' "
                "AND datname = current_database()")))[0][0])) < 2:
            await asyncio.sleep(0.01)
    go_on.set()
    await holds
    assert {one.state for one in await asyncio.gather(*both)} == {ClaimState.CONFIRMED}
    assert await here.audit.count(Wanted(act=Act.CLAIM_CONFIRMED.value)) == 1


async def test_A6_pruning_and_noting_who_asked_for_anothers_tag_wait_for_no_device(opening, ask, at):
    """While a claim is held up before its commit, both are done."""
    store, other = await opening(), await opening()
    old = store._driver.ledger.beside("old")

    def rows():
        for minute in range(9):
            yield from ledger.append(Entry(Act.HANDSHAKE, at(minute), "device"))
    await store._driver.driver.run(lambda: old.kept(rows(), store._driver.driver.turn))
    held, go_on = asyncio.Event(), asyncio.Event()

    def slow():
        held.set()
        while not go_on.is_set():
            yield Query("SELECT pg_sleep(0.01)")
    waiting = asyncio.create_task(other._driver.run(slow, lambda: ("tag/ABC1234",)))
    await held.wait()
    async with asyncio.timeout(3):
        await store.audit.prune(await store.audit.prunable(at(5)), at(5), at(9))
        contest = Contest("ABC1234", IdentityKind.SHARED, "c" * 32, "acme", "acme-1", "203.0.113.9", at(1))
        assert await store.contests.note([(contest, None)]) == [contest]
    assert (await store.audit.chains())["old"] < 9
    go_on.set()
    await waiting


def alone(store):
    """Its transactions go in no group, so that it uses all its connections."""
    store._driver.driver._groups._rests_until = float("inf")
    return store


# --- lanes --------------------------------------------------------------------------------------------------------


async def test_A11_each_connection_has_a_lane_and_a_chain_of_the_audit_to_itself(opening, ask):
    here, there = alone(await opening(connections=3)), alone(await opening(connections=3))
    await asyncio.gather(*(one.open_and_issue(ask(f"TAG{number:02}{place}"), lambda claim: "x")
                           for place, one in enumerate((here, there)) for number in range(20)))
    rows = await here._driver.read(Query("SELECT lane, sum(taken) FROM places WHERE holder = 'customer/acme' "
                                         "GROUP BY lane"))
    lanes = {str(row[0]): int(row[1]) for row in rows}
    chains = await here._driver.read(Query("SELECT chain, count(*), max(number) FROM audit "
                                           "WHERE claim_id IS NOT NULL GROUP BY chain"))
    assert sum(lanes.values()) == 40
    assert {str(row[0]) for row in chains} == set(lanes)
    assert len(lanes) > 3, "both delegators took part, and neither waited for the other"


async def test_A11_lanes_are_taken_up_again_so_that_there_are_no_more_than_connections(opening, ask, key, url):
    for _ in range(3):
        store = await open_named(config.Store(url=url, connections=2), key)
        await store.open_claim(ask())
        await store.close()
    store = await opening()
    assert len(await store._driver.read(Query("SELECT DISTINCT lane FROM places"))) == 1


async def test_A6_places_are_added_up_over_lanes(store, at):
    """One may count down what another counted up."""
    await store._driver.run(lambda: (yield Query(
        "INSERT INTO places (holder, lane, taken) VALUES ('customer/acme', 1, 2), ('customer/acme', 2, 3), "
        "('delegate/acme-1', 1, 6), ('delegate/acme-1', 2, -1), ('customer/gone', 1, 1), ('customer/gone', 2, -1)")))
    assert await store.surveys.places(at(0)) == {"customer/acme": 5, "delegate/acme-1": 5}


async def test_A11_only_the_first_chain_counts_what_was_there_before_the_audit(opening, ask):
    """A device waits while a later one begins."""
    store = alone(await opening())
    await asyncio.gather(*(store.open_and_issue(ask(f"TAG{number:04}"), lambda claim: "x") for number in range(20)))
    begun = [one.entry.detail for one in await store.audit.list(Wanted(act=Act.AUDIT_BEGAN.value), 100)]
    assert len(begun) > 1
    assert [detail["claims_before"] for detail in begun if "claims_before" in detail] == [0]
    assert all(bool(detail["heads"]) is ("claims_before" not in detail) for detail in begun)


# --- told of changes ----------------------------------------------------------------------------------------------


async def heard(store, wanted) -> None:
    async with asyncio.timeout(3):
        while not wanted(store._driver.driver.heard):
            await asyncio.sleep(0.005)


async def test_R_seen_while_it_is_told_of_changes_a_delegator_asks_nothing_at_a_handshake(opening, monkeypatch):
    here, there = await opening(), await opening()
    await here.add_customer(Customer("acme", "Acme"), today())
    await there.tables()
    await heard(there, lambda number: number is not None)
    kept = await there.tables()
    asked: list[Query] = []
    monkeypatch.setattr(there._driver, "read", lambda query: asked.append(query))
    for _ in range(100):
        assert await there.tables() is kept
    assert asked == []
    monkeypatch.undo()
    before, began = there._driver.driver.heard, time.monotonic()
    await here.add_customer(Customer("umbra", "Umbra"), today())
    await heard(there, lambda number: number != before)
    assert time.monotonic() - began < 0.5
    assert set((await there.tables()).customers) == {"acme", "umbra"}


async def test_R_seen_when_it_is_not_told_it_asks(opening, postgres, url):
    """Its listening connection is ended: what changes meanwhile is seen all the same, and then it listens again."""
    here, there = await opening(), await opening()
    await there.tables()
    await heard(there, lambda number: number is not None)
    before = there._driver.driver.heard
    name = url.partition("@/")[2].partition("?")[0]
    ended = postgres.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE "
                         f"'SELECT number FROM revision%' AND datname = '{name}'")
    assert int(ended) >= 1
    await here.add_customer(Customer("acme", "Acme"), today())
    await heard(there, lambda number: number != before)
    assert set((await there.tables()).customers) == {"acme"}
    await heard(there, lambda number: number is not None and number != before)
    assert set((await there.tables()).customers) == {"acme"}


async def test_R_seen_a_schema_file_that_waits_for_somebody_makes_nobody_wait_behind_it(postgres, key, caplog):
    """A lock that is asked for stands in the way of whoever comes later, though nobody has it yet."""
    store = await open_named(config.Store(url=postgres.url(postgres.database()), connections=4), key)
    driver = store._driver.driver
    await store.add_customer(Customer("acme", "Acme"), today())
    async with driver.snapshot() as read:  # as an export of a large table does
        await read(Query("SELECT count(*) FROM claims"))
        began = time.monotonic()
        work = asyncio.create_task(driver.script("BEGIN; ALTER TABLE claims ADD COLUMN more TEXT; COMMIT"))
        waits = []
        while time.monotonic() - began < 3.2:
            asked = time.monotonic()
            assert await store.claims() == []
            waits.append(time.monotonic() - asked)
            await asyncio.sleep(0.02)
        assert not work.done()
    await work
    assert await store.claims() == []
    assert 0.3 < max(waits) < 1.6, "the schema file did not wait, or let others wait"
    assert sum(one > 0.3 for one in waits) <= 3
    assert "its schema waits for somebody" in caplog.text
    await store.close()
