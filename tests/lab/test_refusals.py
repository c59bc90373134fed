"""What a customer's policy makes of a device: which answer it gets, and every reason in the trail (block 214)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from delegator.model import CallbackWay, IdentityRule
from delegator.model.hours import opening

from ..clock import today
from .lab import SHARED, START, Lab

TAG = "ABC1234"
NO, LATER, WHO = "NotEntitled", "TryLater", "IdentityRejected"

POLICIES: dict[str, tuple[dict[str, Any], str, str]] = {
    "custom operations are off": ({"custom_operations": False}, NO, "custom operations are not allowed"),
    "another callback": ({"callbacks": frozenset({CallbackWay.SSH})}, NO, "callback soap is not allowed"),
    "not open yet": ({"valid_from": START + timedelta(seconds=1)}, NO,
                     "provisioning opens at 2026-01-01T12:00:01+00:00"),
    "closed": ({"valid_until": START}, NO, "provisioning closed at 2026-01-01T12:00:00+00:00"),
    "out of hours": ({"hours": (opening("Mon 08:00-13:00 UTC"),)}, NO,
                     "outside its hours, Mon 08:00-13:00 UTC: it is Thu 12:00 UTC"),
    "another network": ({"networks": ("198.51.100.0/24",)}, NO,
                        "192.0.2.7 is in none of its networks, 198.51.100.0/24"),
    "a domain that nobody can ask for": ({"domains": ("acme.example",)}, NO,
                                         "not confirmed in acme.example: reverse DNS is off, [domains] enabled"),
    "the shared certificate alone": ({"identity": IdentityRule.SHARED}, WHO,
                                     "identity must be shared, the device showed own"),
    "not on the list": ({"approved_only": True}, NO, "the service tag is not on the approved list"),
}


@pytest.mark.parametrize("why", POLICIES)
async def test_a6_what_a_policy_forbids_is_refused_and_said(lab: Lab, why: str) -> None:
    fields, fault, reason = POLICIES[why]
    await lab.policy("acme", replace=True, **fields)
    await lab.own(TAG)
    reply = await lab.ask(TAG)
    assert (reply.fault, reply.retry_after) == (fault, None)
    assert reply.trail.reasons == (f"policy acme: {reason}",)
    assert reply.note("decided") == "policy acme refuses"
    assert (reply.trail.facts["customer"], reply.trail.facts["delegate"]) == ("acme", "acme-1")
    assert not lab.servers.asked
    assert not await lab.claims(TAG)
    assert await lab.acts(TAG) == ["handshake.ended"]


ALLOWED: dict[str, dict[str, Any]] = {
    "the moment it opens": {"valid_from": START},
    "the moment before it closes": {"valid_until": START + timedelta(seconds=1)},
    "its hours": {"hours": (opening("Thu 08:00-13:00 UTC"),)},
    "its network": {"networks": ("192.0.2.0/24",)},
    "either identity": {"identity": IdentityRule.EITHER},
    "its callback": {"callbacks": frozenset({CallbackWay.SOAP})},
    "anywhere, as its certificate is its own": {"networks": ("198.51.100.0/24",), "own_anywhere": True},
}


@pytest.mark.parametrize("why", ALLOWED)
async def test_a6_what_a_policy_allows_is_served(lab: Lab, why: str) -> None:
    await lab.policy("acme", replace=True, **ALLOWED[why])
    await lab.own(TAG)
    assert (await lab.ask(TAG)).status == 200


async def test_a6_a_device_on_the_list_is_served(lab: Lab) -> None:
    await lab.policy("acme", replace=True, approved_only=True)
    await lab.store.approve("acme", [TAG], today())
    await lab.own(TAG, "ABC9999")
    assert (await lab.ask(TAG)).status == 200
    assert (await lab.ask("ABC9999")).fault == NO


async def test_a6_every_reason_is_told_and_the_one_that_ends_it_wins(lab: Lab) -> None:
    """One that may be gone tomorrow does not say "later" while another says "never"."""
    await lab.policy("acme", replace=True, identity=IdentityRule.SHARED, valid_until=START)
    await lab.own(TAG)
    reply = await lab.ask(TAG)
    assert reply.fault == NO
    assert reply.trail.reasons == (f"policy acme: provisioning closed at {START.isoformat()}",
                                   "policy acme: identity must be shared, the device showed own")


async def test_a6_both_the_customers_and_the_delegates_policy_must_agree(lab: Lab) -> None:
    await lab.policy("strict", custom_operations=False)
    await lab.delegate("acme-9", policy="strict")
    await lab.own(TAG, delegate="acme-9")
    reply = await lab.ask(TAG)
    assert reply.note("decided") == "policy acme, strict refuses"
    assert reply.trail.reasons == ("policy strict: custom operations are not allowed",)


async def test_a6_where_nobody_said_anything_the_safe_policy_holds(lab: Lab) -> None:
    await lab.own(TAG, customer="umbra")
    assert (await lab.ask(TAG)).note("decided") == "policy default allows it"
    assert (await lab.ask(TAG, shown=SHARED)).fault == NO


async def test_a_disabled_customer_and_a_disabled_delegate_serve_nobody(lab: Lab) -> None:
    await lab.customer("acme", policy="acme", enabled=False, replace=True)
    await lab.delegate("acme-1", enabled=False, replace=True)
    await lab.own(TAG)
    reply = await lab.ask(TAG)
    assert (reply.fault, reply.trail.reasons) == (
        NO, ("customer acme is disabled", "delegate acme-1 is disabled"))


async def test_a6_where_a_device_is_seen_counts_and_not_where_it_says_it_is(lab: Lab) -> None:
    await lab.policy("acme", replace=True, networks=("198.51.100.0/24",))
    await lab.own(TAG)
    assert (await lab.ask(TAG, location={"IPAddress": "198.51.100.7"})).fault == NO
    assert (await lab.ask(TAG, peer="198.51.100.7", location={"IPAddress": "10.0.0.1"})).status == 200


async def test_a_policy_that_changes_holds_from_the_next_request_on(lab: Lab) -> None:
    await lab.own(TAG, "ABC9999")
    assert (await lab.ask(TAG)).status == 200
    await lab.policy("acme", replace=True, custom_operations=False)
    assert (await lab.ask("ABC9999")).fault == NO
    assert (await lab.ask(TAG)).fault == NO, "the same answer again is a gift of the policy too"


async def test_a_device_over_two_limits_is_told_the_longer_wait(lab: Lab) -> None:
    await lab.policy("acme", replace=True, max_devices=1, claims_per_hour=1)
    await lab.own(TAG, "ABC9999")
    await lab.ask(TAG)
    lab.clock.forward(minutes=59)
    reply = await lab.ask("ABC9999")
    assert (reply.fault, reply.retry_after) == (LATER, 300), "the places, not the 120 s until the hour is over"
    assert len(reply.trail.reasons) == 2
    lab.clock.forward(minutes=-30)
    assert (await lab.ask("ABC9999")).retry_after == 32 * 60
