"""Contract: limits are exact, however many ask at once (R-once, R-exact; A6 client limits, A11 what is counted)."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from msgspec.structs import replace

from delegator.model import ClaimState, Policy, Result
from delegator.policy import Why
from delegator.store import Outcome

FIVE = Policy("five", max_devices=5)


def tags(many: int) -> list[str]:
    return [f"TAG{number:04}" for number in range(many)]


async def test_A6_of_64_devices_that_race_for_the_last_place_exactly_one_wins(opening, ask):
    """Over two servers of one database; four places are taken already."""
    servers = await opening(), await opening()
    for tag in tags(4):
        await servers[0].open_claim(ask(f"OLD{tag}", policy=FIVE))
    outcomes = await asyncio.gather(*(
        servers[number % 2].open_claim(ask(tag, policy=FIVE)) for number, tag in enumerate(tags(64))))
    assert Counter(one.outcome for one in outcomes) == {Outcome.OPENED: 1, Outcome.OVER_LIMIT: 63}
    assert {reason.why for one in outcomes for reason in one.reasons} == {Why.DEVICES_TAKEN}
    assert await servers[0].taken("acme", "acme-1") == {"customer/acme": 5, "delegate/acme-1": 5}
    assert len(await servers[1].claims()) == 5


async def test_R_once_of_64_that_claim_one_tag_exactly_one_is_answered(opening, ask):
    servers = await opening(), await opening()
    asks = [ask(by=f"key:{number}") for number in range(64)]
    outcomes = await asyncio.gather(*(
        servers[number % 2].open_and_issue(one, lambda _, one=one: one.identity.binding)
        for number, one in enumerate(asks)))
    assert Counter(one.outcome for one in outcomes) == {Outcome.ISSUED: 1, Outcome.TAKEN: 63}
    (winner,) = [one.claim for one in outcomes if one.outcome is Outcome.ISSUED]
    assert servers[0].reveal(winner) == winner.binding
    assert [one.claim_id for one in await servers[1].claims()] == [winner.claim_id]


async def test_R_once_of_64_calls_of_one_device_one_goes_to_the_delegate_and_63_wait(store, ask):
    outcomes = await asyncio.gather(*(store.open_claim(ask()) for _ in range(64)))
    assert Counter(one.outcome for one in outcomes) == {Outcome.OPENED: 1, Outcome.BUSY: 63}
    assert len({one.claim.claim_id for one in outcomes}) == 1


async def test_A6_a_device_that_has_its_place_keeps_it_when_all_are_taken(store, ask, at):
    for tag in tags(5):
        await store.open_and_issue(ask(tag, policy=FIVE), lambda claim: "x")
    assert (await store.open_claim(ask("TAG0000", policy=FIVE, minute=1))).outcome is Outcome.SAME_AGAIN
    assert (await store.open_claim(ask("NEW1234", policy=FIVE, minute=1))).outcome is Outcome.OVER_LIMIT
    assert await store.claims(service_tag="NEW1234") == []


async def test_A6_a_confirmed_device_holds_its_place_until_it_is_released(store, ask, at):
    one = Policy(max_devices=1)
    claim = (await store.open_and_issue(ask(policy=one), lambda claim: "x")).claim
    await store.confirm(claim.claim_id, "key:one", Result.DEPLOYED, None, at(1))
    assert (await store.open_claim(ask("NEW1234", policy=one, minute=10_000))).outcome is Outcome.OVER_LIMIT
    await store.ownership.release("ABC1234", at(10_001))
    assert (await store.open_claim(ask("NEW1234", policy=one, minute=10_001))).outcome is Outcome.OPENED


async def test_A6_places_of_lapsed_claims_are_given_back_without_a_sweep(store, ask):
    for tag in tags(5):
        await store.open_claim(ask(tag, policy=FIVE))
    assert (await store.open_claim(ask("NEW1234", policy=FIVE, minute=59))).outcome is Outcome.OVER_LIMIT
    assert (await store.open_claim(ask("NEW1234", policy=FIVE, minute=60))).outcome is Outcome.OPENED
    assert await store.taken("acme", "acme-1") == {"customer/acme": 1, "delegate/acme-1": 1}
    assert Counter(one.state for one in await store.claims()) == {ClaimState.EXPIRED: 5, ClaimState.ASKING: 1}


async def test_A6_what_is_only_looked_at_makes_no_room(store, ask):
    """A look before a claim, as a shared certificate gets it, says what limits say and changes nothing."""
    for tag in tags(5):
        await store.open_claim(ask(tag, policy=FIVE))
    looked = await store.footing(ask("NEW1234", policy=FIVE, minute=60))
    assert [reason.why for reason in looked.reasons] == [Why.DEVICES_TAKEN]
    assert {one.state for one in await store.claims()} == {ClaimState.ASKING}


async def test_A6_a_customers_limit_counts_all_its_delegates_and_a_delegates_limit_only_its_own(store, ask):
    two, one = Policy("two", max_devices=2), Policy("one", max_devices=1)
    assert (await store.open_claim(ask("TAG0001", delegate="acme-1", policy=two))).outcome is Outcome.OPENED
    full = await store.open_claim(ask("TAG0002", delegate="acme-1", policy=two, of_delegate=one))
    assert [str(reason) for reason in full.reasons] == ["policy one: all 1 devices are taken"]
    there = await store.open_claim(ask("TAG0002", delegate="acme-2", policy=two, of_delegate=one))
    assert there.outcome is Outcome.OPENED
    both = await store.open_claim(ask("TAG0003", delegate="acme-2", policy=two, of_delegate=one))
    assert [reason.why for reason in both.reasons] == [Why.DEVICES_TAKEN, Why.DEVICES_TAKEN]
    other = await store.open_claim(ask("TAG0003", customer="umbra", delegate="umbra-1", policy=two))
    assert other.outcome is Outcome.OPENED, "another customer's places are its own"


async def test_A11_claims_can_be_listed_by_customer_newest_first(store, ask):
    for minute, customer in enumerate(["acme", "umbra", "acme"]):
        await store.open_claim(ask(f"TAG000{minute}", customer=customer, delegate=f"{customer}-1", minute=minute))
    assert [one.service_tag for one in await store.claims(customer="acme")] == ["TAG0002", "TAG0000"]
    assert [one.service_tag for one in await store.claims(most=2)] == ["TAG0002", "TAG0001"]
    assert [one.customer for one in await store.claims(service_tag="TAG0001")] == ["umbra"]
    assert await store.claims(customer="umbra", service_tag="TAG0002") == []
    assert await store.claim("f" * 32) is None


@pytest.mark.parametrize("limits", [LookupError("no such policy"), ZeroDivisionError()])
async def test_R_exact_a_limit_that_cannot_be_judged_opens_nothing_and_hurts_nobody_else(store, ask, limits):
    """In one commit with others: its own caller hears of it, the others are served."""
    class Broken(tuple):
        def __iter__(self):
            raise limits
    asks = [ask(tag) for tag in tags(6)]
    asks[3] = replace(asks[3], policies=Broken())
    outcomes = await asyncio.wait_for(
        asyncio.gather(*(store.open_claim(one) for one in asks), return_exceptions=True), 5)
    assert outcomes.pop(3) is limits
    assert {one.outcome for one in outcomes} == {Outcome.OPENED}
    assert await store.taken("acme", "acme-1") == {"customer/acme": 5, "delegate/acme-1": 5}
