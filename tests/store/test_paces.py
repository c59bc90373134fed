"""Contract: claims per hour and stand-ins' limits are exact, however many ask at once (R-exact; A6)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from delegator.model import ClaimState, Policy
from delegator.policy import Applied, Why
from delegator.store import Answered, Outcome, OverLimit, StandIn, milliseconds
from delegator.store.transaction import Query

ROOT = Path(__file__).parents[2]
THREE = Policy("three", claims_per_hour=3)
PROCESSES, EACH = 4, 16


def tags(many: int) -> list[str]:
    return [f"TAG{number:04}" for number in range(many)]


async def minutes(store, holder: str = "customer/acme") -> list[tuple[int, int]]:
    found = await store._driver.read(Query("SELECT minute, opened FROM paces WHERE holder = $1 ORDER BY minute",
                                           (holder,)))
    return [(int(row[0]), int(row[1])) for row in found]


# --- races --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [Policy("p", max_devices=5), Policy("p", claims_per_hour=5)],
                         ids=["last place", "last claim of the hour"])
async def test_A6_of_64_over_four_stores_exactly_one_wins(opening, ask, policy):
    stores = [await opening() for _ in range(4)]
    for tag in tags(4):
        await stores[0].open_claim(ask(f"OLD{tag}", policy=policy))
    ended = await asyncio.gather(*(
        stores[number % 4].open_claim(ask(tag, policy=policy)) for number, tag in enumerate(tags(64))))
    assert Counter(one.outcome for one in ended) == {Outcome.OPENED: 1, Outcome.OVER_LIMIT: 63}
    assert len(await stores[3].claims()) == 5


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["max_devices", "claims_per_hour"])
async def test_A6_of_64_over_four_processes_exactly_one_wins(opening_sqlite, tmp_path, limit):
    """Each process has two Stores of its own; all begin at the same moment, when one place of five is left."""
    await opening_sqlite()
    database = tmp_path / "delegator.db"

    def start(first: int, many: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("racing.py")), str(database), str(first), str(many),
             f"{limit}=5"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)})

    with contextlib.ExitStack() as processes:
        before = processes.enter_context(start(9000, 4))
        assert before.stdout.readline() == "ready\n"
        assert json.loads(before.communicate("go\n", timeout=60)[0]) == ["OPENED"] * 4
        racing = [processes.enter_context(start(number * EACH, EACH)) for number in range(PROCESSES)]
        assert [one.stdout.readline() for one in racing] == ["ready\n"] * PROCESSES
        for one in racing:
            one.stdin.write("go\n")
            one.stdin.flush()
        ended = Counter(name for one in racing for name in json.loads(one.communicate(timeout=120)[0]))
    assert ended == {"OPENED": 1, "OVER_LIMIT": 63}


# --- the window ---------------------------------------------------------------------------------------------------


async def test_A6_a_claim_counts_for_an_hour_and_is_forgotten_in_the_next_minute(store, ask):
    for minute, tag in enumerate(tags(3)):
        assert (await store.open_claim(ask(tag, minute=minute, policy=THREE))).outcome is Outcome.OPENED
    late = await store.open_claim(ask("NEW1234", minute=60, policy=THREE))
    assert [reason.why for reason in late.reasons] == [Why.PACE]
    assert late.reasons[0].retry_after == 60
    assert await store.claims(service_tag="NEW1234") == []
    assert (await store.open_claim(ask("NEW1234", minute=61, policy=THREE))).outcome is Outcome.OPENED
    assert (await store.open_claim(ask("NEW1235", minute=61.9, policy=THREE))).outcome is Outcome.OVER_LIMIT


async def test_A6_what_asks_again_is_no_further_claim(store, ask):
    """Resumed, answered again, refused: none of them counts."""
    once = Policy("once", claims_per_hour=1)
    assert (await store.open_claim(ask(policy=once))).outcome is Outcome.OPENED
    assert (await store.open_claim(ask("NEW1234", policy=once))).outcome is Outcome.OVER_LIMIT
    assert (await store.open_and_issue(ask(policy=once, minute=2), lambda claim: "x")).outcome is Outcome.ISSUED
    assert (await store.open_claim(ask(policy=once, minute=3))).outcome is Outcome.SAME_AGAIN
    assert [many for _, many in await minutes(store)] == [1]


async def test_A6_without_such_a_policy_nothing_is_counted(store, ask):
    for tag in tags(4):
        await store.open_claim(ask(tag, policy=Policy("free", max_devices=9)))
    assert await minutes(store) == await minutes(store, "delegate/acme-1") == []


async def test_A6_each_limit_counts_for_its_own_holder_and_all_reasons_are_told(store, ask):
    of_delegate = Policy("one", claims_per_hour=1, max_devices=1)
    await store.open_claim(ask("TAG0001", policy=THREE, of_delegate=of_delegate))
    full = await store.open_claim(ask("TAG0002", policy=THREE, of_delegate=of_delegate))
    assert [str(reason) for reason in full.reasons] == [
        "policy one: all 1 devices are taken", "policy one: 1 of 1 claims an hour are used"]
    there = ask("TAG0002", delegate="acme-2", policy=THREE, of_delegate=of_delegate)
    assert (await store.open_claim(there)).outcome is Outcome.OPENED
    assert [many for _, many in await minutes(store)] == [2]


async def test_A6_minutes_that_count_no_more_are_removed_by_a_later_claim(store, ask):
    many = Policy("many", claims_per_hour=1000)
    for minute in (*range(100), 100, 100):
        await store.open_claim(ask(f"TAG{minute:04}", minute=minute, policy=many))
    kept = await minutes(store)
    assert len(kept) == 61
    assert kept[-1][0] - kept[0][0] == 60


async def test_A6_a_clock_that_is_set_back_forgets_nothing_of_the_hour_and_a_wrong_one_blocks_nobody(store, ask):
    for tag in tags(3):
        await store.open_claim(ask(tag, minute=30, policy=THREE))
    assert (await store.open_claim(ask("NEW0001", minute=0, policy=THREE))).outcome is Outcome.OVER_LIMIT
    assert (await store.open_claim(ask("NEW0001", minute=-10_000, policy=THREE))).outcome is Outcome.OPENED
    assert len(await minutes(store)) == 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.integers(0, 45), st.integers(1, 3)), min_size=1, max_size=12),
       most=st.integers(1, 4))
def test_A6_the_store_counts_as_a_model_that_knows_every_claim(database, ask, steps, most):
    """Hours and minutes of any walk: the store and a list of all claims agree on every answer."""
    async def walk() -> None:
        async with database() as opening:
            store, opened, minute = await opening(), [], 0.0
            base = await begun(store)
            for wait, many in steps:
                minute += wait
                for number in range(many):
                    tag = f"T{base}X{len(opened)}X{int(minute)}X{number}"
                    asked = ask(tag, minute=minute, customer=f"c{base}", policy=Policy("p", claims_per_hour=most))
                    counted = [at for at in opened if minute - 60 <= at]
                    ended = (await store.open_claim(asked)).outcome
                    assert ended is (Outcome.OPENED if len(counted) < most else Outcome.OVER_LIMIT)
                    opened += [minute] if ended is Outcome.OPENED else []
    asyncio.run(walk())


async def begun(store) -> int:
    """Examples share a database: each has a customer of its own."""
    return len(await store.claims(most=100_000))


# --- who stands in for another ------------------------------------------------------------------------------------


def standing_in(policy: Policy, at, minute: float = 1, lease: float = 60) -> StandIn:
    return StandIn("acme-2", (Applied(policy, "delegate/acme-2"),), milliseconds(at(minute + lease)))


async def opened_for_first(store, ask, many: int, **how: object) -> list[str]:
    return [(await store.open_claim(ask(tag, busy=120, **how))).claim.claim_id for tag in tags(many)]


@pytest.mark.parametrize("policy", [Policy("two", max_devices=2), Policy("two", claims_per_hour=2)],
                         ids=["places", "claims per hour"])
async def test_A6_a_stand_in_takes_no_more_than_its_own_policy_allows(opening, ask, at, policy):
    """Twelve claims whose delegate is down, over two servers: two are answered in its stead, ten are not, and lose
    nothing by it."""
    stores = await opening(), await opening()
    ids = await opened_for_first(stores[0], ask, 12)
    ended = await asyncio.gather(*(
        stores[number % 2].issue(claim_id, "x", at(1), Answered("acme-2", stand_in=standing_in(policy, at)))
        for number, claim_id in enumerate(ids)), return_exceptions=True)
    refused = [one for one in ended if isinstance(one, OverLimit)]
    assert [len(refused), sum(one.delegate == "acme-2" for one in ended if one not in refused)] == [10, 2]
    assert "delegate acme-2 may not stand in: policy two: " in refused[0].detail
    taken = {"customer/acme": 12, "delegate/acme-1": 10}
    assert await stores[0].taken("acme", "acme-1") == taken
    assert (await stores[0].taken("acme", "acme-2"))["delegate/acme-2"] == 2
    assert Counter(one.state for one in await stores[1].claims()) == {ClaimState.ISSUED: 2, ClaimState.ASKING: 10}


async def test_A6_a_stand_in_over_its_limit_is_not_even_asked(store, ask, at):
    first, second = await opened_for_first(store, ask, 2)
    one = standing_in(Policy("one", max_devices=1), at)
    await store.must_fit(first, one, at(1))
    await store.issue(first, "x", at(1), Answered("acme-2", stand_in=one))
    with pytest.raises(OverLimit, match="all 1 devices are taken"):
        await store.must_fit(second, one, at(1))
    await store.must_fit(first, one, at(1))
    await store.must_fit("f" * 32, one, at(1))


async def test_A6_a_place_that_a_stand_ins_lapsed_claim_holds_is_given_back_first(store, ask, at):
    (first,) = await opened_for_first(store, ask, 1)
    one = Policy("one", max_devices=1)
    await store.open_claim(ask("OLD1234", delegate="acme-2", of_delegate=one, lease=0.5))
    await store.must_fit(first, standing_in(one, at), at(1))


async def test_A6_a_claim_counts_by_the_hour_where_it_went_and_no_longer_where_it_began(store, ask, at):
    hourly = Policy("hourly", claims_per_hour=5)
    (claim_id,) = await opened_for_first(store, ask, 1, policy=hourly, of_delegate=hourly)
    await store.issue(claim_id, "x", at(1), Answered("acme-2", stand_in=standing_in(hourly, at)))
    counted = {holder: sum(many for _, many in await minutes(store, holder))
               for holder in ("customer/acme", "delegate/acme-1", "delegate/acme-2")}
    assert counted == {"customer/acme": 1, "delegate/acme-1": 0, "delegate/acme-2": 1}


async def test_A6_a_stand_in_lends_no_longer_than_its_own_policy_says(store, ask, at):
    (claim_id,) = await opened_for_first(store, ask, 1, lease=600)
    issued = await store.issue(claim_id, "x", at(1), Answered(
        "acme-2", stand_in=standing_in(Policy("short"), at, lease=5)))
    assert issued.lease_until == at(1) + timedelta(minutes=5)
    longer = replace(ask("NEW1234", lease=10), busy_until=0)
    second = (await store.open_claim(longer)).claim.claim_id
    issued = await store.issue(second, "x", at(1), Answered(
        "acme-2", stand_in=standing_in(Policy("long"), at, lease=600)))
    assert issued.lease_until == at(10)
