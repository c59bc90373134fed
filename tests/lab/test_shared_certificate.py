"""The shared certificate proves "one of ours", never which one: what it may have, what it learns, who else asked (6.1).

Whatever refuses it, the answer is the same to the byte; the reason stays in the trail.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from delegator.model import ClaimState, HostedCallback, IdentityKind, IdentityRule, Notice, NotificationKind, Secret

from ..clock import today
from .lab import OTHER_SECRET, PEER, SECRET, SHARED, START, Lab, key_of

TAG = "ABC1234"
THIEF = "203.0.113.9"


@pytest.fixture
async def open_(lab: Lab) -> Lab:
    """Acme lets the shared certificate in."""
    await lab.policy("acme", replace=True, identity=IdentityRule.EITHER)
    await lab.own(TAG)
    return lab


async def test_R_shared_where_the_policy_allows_it_a_registered_device_is_served(open_: Lab) -> None:
    reply = await open_.ask(TAG, shown=SHARED)
    assert reply.credential == ("user of acme-1", "password 0 of acme-1")
    claim = await open_.claim(TAG)
    assert claim.identity is IdentityKind.SHARED
    assert claim.binding.startswith("secret:")
    assert SECRET not in claim.binding
    assert reply.trail.facts["identity"] == "shared"
    again = await open_.ask(TAG, shown=SHARED)
    assert again.credential == reply.credential


@pytest.mark.parametrize("name", ["shared-device", "shared-device-2026"])
async def test_R_shared_a_batch_has_a_shared_certificate_of_its_own(open_: Lab, name: str) -> None:
    assert (await open_.ask(TAG, shown=name)).status == 200


async def taken(lab: Lab) -> None:
    await lab.ask(TAG, OTHER_SECRET, shown=SHARED)


async def confirmed(lab: Lab) -> None:
    claim = (await lab.ask(TAG, shown=SHARED)).claim
    await lab.confirm(TAG, claim, shown=SHARED, secret=SECRET)


async def limited(lab: Lab) -> None:
    await lab.policy("acme", replace=True, identity=IdentityRule.EITHER, max_devices=1)
    await lab.own("ABC9999")
    await lab.ask("ABC9999")


async def by_its_own(lab: Lab) -> None:
    await lab.ask(TAG)


async def strict(lab: Lab) -> None:
    await lab.policy("acme", replace=True)


async def moved(lab: Lab) -> None:
    await lab.ask(TAG, shown=SHARED)
    await lab.policy("umbra", identity=IdentityRule.EITHER)
    await lab.customer("umbra", policy="umbra", replace=True)
    await lab.store.remove_device(TAG, today())
    await lab.own(TAG, customer="umbra")


async def unknown(lab: Lab) -> None:
    await lab.store.remove_device(TAG, today())


async def stock(lab: Lab) -> None:
    await lab.store.remove_device(TAG, today())
    await lab.own(TAG, customer=None)


async def by_a_rule(lab: Lab) -> None:
    await lab.store.remove_device(TAG, today())
    await lab.rule("any", "acme-1", tag_prefix="ABC")


REFUSED: dict[str, tuple[Any, str]] = {
    "taken by another secret": (taken, "taken by another"),
    "taken by its own certificate": (by_its_own, "taken by another"),
    "confirmed": (confirmed, "already confirmed"),
    "over a limit": (limited, "policy acme: all 1 devices are taken"),
    "a policy that wants its own": (strict, "policy acme: identity must be own, the device showed shared"),
    "not registered": (unknown, "ABC1234: not registered, and no rule matches"),
    "in stock": (stock, "ABC1234: its service tag is registered, in stock"),
    "known by a rule alone": (by_a_rule, "a shared certificate needs a device that is registered"),
    "another customer's claim": (moved, "is of customer acme"),
}


@pytest.mark.parametrize("why", REFUSED)
async def test_R_alike_whatever_refuses_it_it_is_told_the_same(open_: Lab, why: str) -> None:
    prepare, reason = REFUSED[why]
    await prepare(open_)
    asked = len(open_.servers.asked)
    reply = await open_.ask(TAG, shown=SHARED, peer=THIEF)
    assert reply.response == (await open_.ask("NEVER123", shown=SHARED, peer=THIEF)).response
    assert (reply.fault, reply.retry_after, reply.texts("AlternateDelegator")) == ("NotEntitled", None, [])
    assert len(open_.servers.asked) == asked
    assert reply.trail.reasons[0].endswith(reason)
    assert reply.steps[-1] == "refused"
    assert reply.level == logging.INFO


async def test_R_shared_only_a_registered_tag_counts_not_a_serial_number_that_is_said(open_: Lab) -> None:
    await open_.register("acme", serial_number="SN1")
    reply = await open_.ask("XYZ1234", shown=SHARED, serial="SN1")
    assert (reply.fault, reply.trail.reasons) == (
        "NotEntitled", ("a shared certificate needs a device that is registered",))


async def test_R_alike_where_a_stranger_would_be_sent_it_is_sent_whatever_refused_it(open_: Lab) -> None:
    await open_.rule("asia", tag_prefix="ABC", delegator="asia.example:4433")
    await taken(open_)
    await open_.own("ABC7777", customer=None)
    for tag in (TAG, "ABC7777", "ABC8888"):
        reply = await open_.ask(tag, shown=SHARED)
        assert (reply.fault, reply.texts("AlternateDelegator")) == ("NotEntitled", ["asia.example:4433"])


async def test_R_alike_a_limit_that_is_reached_in_the_last_moment_is_told_the_same(open_: Lab) -> None:
    """The look before said there was room; the transaction that would have taken it says there is none."""
    await open_.policy("acme", replace=True, identity=IdentityRule.EITHER, max_devices=1)
    await open_.own("ABC9999")
    footing = open_.store.footing

    async def then_full(ask: Any) -> Any:
        found = await footing(ask)
        open_.store.footing = footing  # type: ignore[method-assign]
        await open_.ask("ABC9999")
        return found
    open_.store.footing = then_full  # type: ignore[method-assign]
    reply = await open_.ask(TAG, shown=SHARED)
    assert (reply.fault, reply.retry_after) == ("NotEntitled", None)
    assert reply.trail.reasons == ("policy acme: all 1 devices are taken",)


async def test_R_contested_a_claim_that_another_took_in_the_last_moment_is_reported_too(open_: Lab) -> None:
    footing = open_.store.footing

    async def then_taken(ask: Any) -> Any:
        found = await footing(ask)
        open_.store.footing = footing  # type: ignore[method-assign]
        await open_.ask(TAG)
        return found
    open_.store.footing = then_taken  # type: ignore[method-assign]
    reply = await open_.ask(TAG, shown=SHARED, peer=THIEF)
    assert reply.fault == "NotEntitled"
    assert open_.counted("delegator_second_claimants_total", identity="shared") == 1


async def test_R_alike_a_delegate_that_fails_is_told_as_to_any_device(open_: Lab) -> None:
    """Who has come so far has learned already that the tag is there for it."""
    open_.servers.broken["acme-1"] = "down"
    assert (await open_.ask(TAG, shown=SHARED)).fault == "TryLater"
    assert (await open_.claim(TAG)).state is ClaimState.ASKING


# --- second claimants ---------------------------------------------------------------------------------------------


async def test_R_contested_a_second_claimant_is_written_down_counted_and_told_to_the_owner(lab: Lab) -> None:
    await lab.policy("globex", identity=IdentityRule.EITHER)
    await lab.customer("globex", policy="globex", replace=True)
    await lab.delegate("globex-1", "globex", by="hosted", hosted={"mail_to": "ops@globex.example"}, replace=True)
    await lab.own(TAG, customer="globex")
    first = await lab.ask(TAG, shown=SHARED)
    lab.clock.forward(minutes=5)
    for _ in range(3):
        assert (await lab.ask(TAG, OTHER_SECRET, shown=SHARED, peer=THIEF)).fault == "NotEntitled"
    assert lab.counted("delegator_second_claimants_total", identity="shared") == 3
    await lab.alarmed()
    (contest,) = await lab.store.contests.list()
    assert (contest.service_tag, contest.identity, contest.claim_id, contest.customer, contest.delegate, contest.peer,
            contest.times) == (TAG, IdentityKind.SHARED, first.claim, "globex", "globex-1", THIEF, 3)
    (row,) = await lab.audit(act="claim.contested")
    assert (row.peer, row.at, row.reasons) == (
        THIEF, lab.clock.now(), ("somebody else asked for it, showing shared certificate",))
    told = {one.event: one for one in await lab.outbox()}
    alarm = told[Notice.SECOND_CLAIMANT.value]
    assert (alarm.carrier, alarm.recipient, alarm.claim_id) == (NotificationKind.MAIL, "globex-1", first.claim)
    assert alarm.body == {"service_tag": TAG, "peer": THIEF, "identity": "shared", "delegator": "delegator.example"}
    assert lab.woken == ["issued", "alarm"]
    assert (await lab.ask(TAG, shown=SHARED)).credential == first.credential, "who was first keeps it"


async def test_R_contested_a_thief_who_comes_first_is_told_of_when_the_device_comes(open_: Lab) -> None:
    await open_.ask(TAG, OTHER_SECRET, shown=SHARED, peer=THIEF)
    assert (await open_.ask(TAG, shown=SHARED, peer=PEER)).fault == "NotEntitled"
    await open_.alarmed()
    (contest,) = await open_.store.contests.list()
    assert contest.peer == PEER


async def test_R_contested_a_second_claimant_is_noted_even_where_the_policy_would_refuse_it(open_: Lab) -> None:
    await open_.ask(TAG)
    await strict(open_)
    await open_.ask(TAG, shown=SHARED, peer=THIEF)
    assert open_.counted("delegator_second_claimants_total", identity="shared") == 1


async def test_R_contested_who_asks_for_what_nobody_holds_is_no_second_claimant(open_: Lab) -> None:
    await open_.ask("NEVER123", shown=SHARED)
    await open_.ask(TAG, shown=SHARED)
    await open_.ask(TAG, shown=SHARED)
    assert open_.counted("delegator_second_claimants_total", identity="shared") == 0


async def test_R_contested_a_claim_whose_lease_is_over_is_held_by_nobody(open_: Lab) -> None:
    await open_.ask(TAG, OTHER_SECRET, shown=SHARED)
    open_.clock.forward(hours=24)
    reply = await open_.ask(TAG, shown=SHARED)
    assert reply.status == 200
    assert open_.counted("delegator_second_claimants_total", identity="shared") == 0


async def test_R_alike_a_refusal_asks_the_dns_as_any_other_would(open_: Lab) -> None:
    open_.serve(reverse_dns=True)
    await taken(open_)
    assert not open_.dns.asked
    await open_.ask(TAG, shown=SHARED, peer="198.51.100.1")
    await open_.ask("NEVER123", shown=SHARED, peer="198.51.100.2")
    assert sorted(open_.dns.asked) == ["198.51.100.1", "198.51.100.2"]


async def test_R_alike_no_refusal_leaves_sooner_than_another(open_: Lab) -> None:
    await strict(open_)
    loop = asyncio.get_running_loop()
    for tag in (TAG, "NEVER123"):
        began = loop.time()
        await open_.ask(tag, shown=SHARED)
        assert loop.time() - began >= 0.005


async def test_R_alike_settings_that_are_wrong_are_told_to_the_operator_and_not_to_the_thief(
        open_: Lab, caplog: pytest.LogCaptureFixture) -> None:
    open_.serve(reverse_dns=True, domain_policy="gone")
    open_.dns.host("192.0.2.7", "host.customer.example")
    reply = await open_.ask("NEVER123", shown=SHARED)
    assert (reply.fault, reply.level) == ("NotEntitled", logging.INFO)
    assert "[domains] policy names gone, which there is not; next: delegator policies add gone" in caplog.text


def hosted(**said: Any) -> HostedCallback:
    return HostedCallback("root", Secret("x"), **said)


async def test_R_identity_the_own_certificate_of_another_tag_is_no_way_around(open_: Lab) -> None:
    assert (await open_.ask(TAG, shown="XYZ9999", key=key_of("XYZ9999"))).fault == "IdentityRejected"
    assert open_.clock.now() == START
