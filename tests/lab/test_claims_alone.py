"""What a claim's transaction does for one tag, one customer and one delegate leaves every other one alone.

The rows of delegator.store.claims, confirming and ownership, looked at from outside.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from delegator.model import Claim, ClaimState, Identity, IdentityKind, IdentityRule, Order, Policy, Result
from delegator.policy import Applied, Reason, Why
from delegator.store import Outcome, milliseconds
from delegator.store.claims import Ask, expire_lapsed
from delegator.store.confirming import confirm
from delegator.store.devices import still_owned
from delegator.store.transaction import Counted, Query, Transaction

from .lab import PEER, START, Lab

TAG, OTHER = "ABC1234", "UMB1234"


async def test_a_limit_clears_up_after_its_own_customer_alone(lab: Lab) -> None:
    await lab.policy("acme", max_devices=1, lease=timedelta(minutes=5), replace=True)
    await lab.policy("umbra", lease=timedelta(minutes=5))
    await lab.customer("umbra", policy="umbra", replace=True)
    await lab.own(TAG, "ABC9999")
    await lab.own(OTHER, customer="umbra")
    await lab.ask(TAG)
    await lab.ask(OTHER)
    lab.clock.forward(minutes=6)
    assert (await lab.ask("ABC9999")).status == 200, "the place of a lease that is over is given anew"
    assert (await lab.claim(TAG)).state is ClaimState.EXPIRED
    assert (await lab.claim(OTHER)).state is ClaimState.ISSUED, "whose housekeeping comes in its own time"


@pytest.mark.parametrize("customer", [None, "acme"])
async def test_housekeeping_ends_the_oldest_leases_first_and_so_many_at_once(lab: Lab, customer: str | None) -> None:
    tags = ["ABC0001", "ABC0002", "ABC0003"]
    await lab.own(*tags)
    for tag in reversed(tags):
        await lab.ask(tag)
        lab.clock.forward(seconds=1)
    later = milliseconds(START + timedelta(hours=30))
    run = lab.store._driver.run
    assert await run(lambda: expire_lapsed(milliseconds(START + timedelta(hours=24)), customer)) == 1, "to the moment"
    assert await run(lambda: expire_lapsed(later, customer, 1)) == 1
    assert [(await lab.claim(tag)).state.value for tag in tags] == ["issued", "expired", "expired"]
    assert await run(lambda: expire_lapsed(later, customer)) == 1
    assert await run(lambda: expire_lapsed(later, customer)) == 0
    assert await lab.acts(tags[0]) == ["claim.asked", "claim.issued", "claim.expired"]
    (row,) = await lab.audit(service_tag=tags[0], act="claim.expired")
    assert (row.actor, row.peer) == ("delegator", None)


async def test_the_other_delegate_answers_for_one_claim_and_no_other_moves(lab: Lab) -> None:
    await lab.delegate("acme-1", priority=1, replace=True)
    await lab.delegate("acme-2", priority=2)
    await lab.own(TAG, "ABC9999")
    await lab.own(OTHER, customer="umbra")
    lab.servers.broken |= {"acme-1": "down", "acme-2": "down", "umbra-1": "down"}
    for tag in (OTHER, "ABC9999"):
        await lab.ask(tag)
        lab.clock.forward(seconds=1)
    del lab.servers.broken["acme-2"]
    assert (await lab.ask(TAG)).credential[0] == "user of acme-2"
    assert [(await lab.claim(tag)).delegate for tag in (TAG, "ABC9999", OTHER)] == ["acme-2", "acme-1", "umbra-1"]
    assert [(await lab.claim(tag)).state.value for tag in ("ABC9999", OTHER)] == ["asking", "asking"]
    assert await lab.store.taken("acme", "acme-1") == {"customer/acme": 2, "delegate/acme-1": 1}
    assert await lab.store.taken("acme", "acme-2") == {"customer/acme": 2, "delegate/acme-2": 1}
    assert await lab.store.taken("umbra", "umbra-1") == {"customer/umbra": 1, "delegate/umbra-1": 1}


async def test_each_row_of_audit_says_who_did_it_and_from_where(lab: Lab) -> None:
    await lab.own(TAG)
    reply = await lab.ask(TAG, peer="198.51.100.9")
    await lab.confirm(TAG, reply.claim, peer="198.51.100.10")
    await lab.store.ownership.release(TAG, START, "back in stock")
    rows = [one for one in await lab.audit(service_tag=TAG) if one.act.value.startswith("claim.")]
    assert [(one.act.value, one.actor, one.peer, one.reasons) for one in rows] == [
        ("claim.asked", "device", "198.51.100.9", ()), ("claim.issued", "device", "198.51.100.9", ()),
        ("claim.confirmed", "device", "198.51.100.10", ()),
        ("claim.released", "operator lab", None, ("back in stock",))]
    assert {(one.customer, one.delegate, one.claim_id) for one in rows} == {("acme", "acme-1", reply.claim)}
    assert [one.detail["event"] for one in rows] == ["asked", "delegate answered", "deployed", "released"]
    assert [(one.detail["attempt"], one.detail["identity"]) for one in rows] == [(1, "own")] * 4
    assert (rows[2].detail["result"], rows[2].detail["words"]) == ("Deployed", None)


def asked(customers: Policy, delegates: Policy) -> Ask:
    return Ask("c" * 32, Identity(IdentityKind.OWN, TAG, "key:one"), "acme", "acme-1", PEER, 0, 0, 0,
               (Applied(customers, "customer/acme"), Applied(delegates, "delegate/acme-1")))


def test_a_claim_has_to_itself_its_tag_and_the_holders_that_are_limited() -> None:
    """What a database of several servers locks; too much of it and they wait for each other, too little and a limit
    is passed."""
    free = Policy("free", attempts=1, identity=IdentityRule.EITHER)
    assert asked(free, free).scope() == [f"tag/{TAG}"]
    assert asked(Policy("hourly", claims_per_hour=9), free).scope() == [f"tag/{TAG}", "customer/acme"]
    tag, counted, hourly = asked(Policy("hourly", claims_per_hour=9), Policy("ten", max_devices=10)).scope()
    assert (tag, hourly) == (f"tag/{TAG}", "customer/acme")
    assert isinstance(counted, Counted)
    assert (counted.name, counted.near(9), counted.near(10)) == ("delegate/acme-1", False, True)


async def test_a_registration_that_another_tag_took_is_nobodys_any_more_and_says_so(lab: Lab) -> None:
    await lab.register("acme", serial_number="SN1")
    number = (await lab.store.ownership.device("SN1")).device_id
    later = milliseconds(START + timedelta(hours=1))

    def ask(tag: str, key: str) -> Ask:
        return Ask(key * 32, Identity(IdentityKind.OWN, tag, f"key:{key}"), "acme", "acme-1", PEER, milliseconds(START),
                   later, later, unnamed=number, owned=number)
    assert (await lab.store.open_claim(ask(TAG, "a"))).outcome is Outcome.OPENED
    refused = await lab.store.open_claim(ask("ABC9999", "b"))
    assert (refused.outcome, refused.claim) == (Outcome.OVER_LIMIT, None)
    assert refused.reasons == (Reason(Why.UNREGISTERED, "its registration was taken by another service tag"),)
    assert await lab.claims("ABC9999") == []


@pytest.mark.parametrize("faster", [Result.DEPLOYED, Result.FAILED])
async def test_whoever_tells_the_end_between_the_look_and_the_change_of_another_is_believed(
        lab: Lab, faster: Result) -> None:
    """As two connections of PostgreSQL would: the slower one is told the same claim, and writes nothing of its own."""
    await lab.own(TAG)
    claim = (await lab.ask(TAG)).claim
    binding, now = (await lab.claim(TAG)).binding, milliseconds(START)

    def both() -> Transaction[Claim | None]:
        slow = confirm(claim, binding, Result.DEPLOYED, "slow", now)
        seen = yield next(slow)
        yield from confirm(claim, binding, faster, "fast", now)
        step = slow.send(seen)
        while True:
            try:
                step = slow.send((yield step))
            except StopIteration as ended:
                return ended.value
    found = await lab.store._driver.run(both)
    assert found is not None
    told = ["fast"] if faster is Result.DEPLOYED else ["fast", "slow"]
    assert (found.claim_id, found.state, found.detail) == (claim, ClaimState.CONFIRMED, told[-1])
    ends = [one.detail["words"] for one in await lab.audit(service_tag=TAG) if "words" in one.detail]
    assert ends == told


# --- what costs every device a statement ---------------------------------------------------------------------------


async def test_what_is_confirmed_is_looked_at_once_and_no_more(lab: Lab) -> None:
    """However often, and with whatever words, its end is told again."""
    await lab.own(TAG)
    claim = (await lab.ask(TAG)).claim
    await lab.confirm(TAG, claim)
    binding, statements = (await lab.claim(TAG)).binding, 0

    def again() -> Transaction[Claim | None]:
        nonlocal statements
        running = confirm(claim, binding, Result.DEPLOYED, "other words", milliseconds(START))
        step = next(running)
        while True:
            statements += 1
            try:
                step = running.send((yield step))
            except StopIteration as ended:
                return ended.value
    assert await lab.store._driver.run(again) == await lab.claim(TAG)
    assert statements == 1


async def test_whose_own_row_names_its_customer_is_looked_up_in_no_order(
        lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, real = [], still_owned

    def counted(device_id: int, customer: str) -> Transaction[bool]:
        asked.append(customer)
        return real(device_id, customer)
    monkeypatch.setattr("delegator.store.claims.still_owned", counted)
    await lab.own(TAG)
    await lab.store.orders.add(Order("O1", "acme"), START)
    await lab.own("ABC9999", customer=None, order="O1")
    assert ((await lab.ask(TAG)).status, asked) == (200, [])
    assert ((await lab.ask("ABC9999")).status, asked) == (200, ["acme"])


async def test_a_start_writes_to_those_claims_alone_that_a_crash_left_busy(lab: Lab) -> None:
    await lab.own(TAG)
    lab.servers.broken["acme-1"] = "down"
    await lab.ask(TAG)
    assert (await lab.claim(TAG)).state is ClaimState.ASKING

    def changes() -> Transaction[int]:
        rows = yield Query("SELECT total_changes()")
        return int(str(rows[0][0]))
    before = await lab.store._driver.run(changes)
    await lab.store.pause_all()
    assert await lab.store._driver.run(changes) == before, "its callback failed, and it waits for nobody"
