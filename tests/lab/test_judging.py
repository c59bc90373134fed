"""What is worked out before a claim, asked directly: hints for operators, whose policy counts, whose limits."""

from __future__ import annotations

from datetime import timedelta

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.model import CallbackWay, Device, IdentityKind, Location
from delegator.policy import Decision, Reason, Why
from delegator.provisioning.judgement import DNS_RETRY, LIMIT_RETRY, Judgement, judge, refusal, stand_in
from delegator.routing import Facts
from delegator.store import milliseconds
from delegator.trail import Trail

from .lab import PEER, START, Lab

TAG = "ABC1234"


async def judged(lab: Lab, tag: str = TAG, identity: IdentityKind = IdentityKind.OWN) -> Judgement:
    facts = Facts(Device(tag), Location(), PEER)
    return await judge(lab.store, facts, identity, lab.clock.now(), Trail("1f-1", PEER), lab.domains)


async def test_what_to_do_for_a_device_that_nobody_owns_is_said_to_the_operator(lab: Lab) -> None:
    with pytest.raises(DelegatorError) as raised:
        await judged(lab)
    assert (raised.value.kind, raised.value.detail, raised.value.hint) == (
        Kind.NOT_ENTITLED, f"{TAG}: not registered, and no rule matches", "register it with: delegator devices add")


async def test_a_policy_that_domains_name_and_nobody_made_is_told_with_how_to_make_it(lab: Lab) -> None:
    lab.serve(reverse_dns=True, domain_policy="gone")
    lab.dns.host(PEER, "bmc.acme.example")
    with pytest.raises(DelegatorError) as raised:
        await judged(lab)
    assert (raised.value.kind, raised.value.detail, raised.value.hint) == (
        Kind.CONFIGURATION, "[domains] policy names gone, which there is not", "delegator policies add gone")


async def test_who_stands_in_is_judged_as_who_it_is(lab: Lab) -> None:
    """A policy may allow one way to call back and not another: what counts is the stand-in's own way, whatever the
    first delegate's is."""
    await lab.policy("soap", callbacks=frozenset({CallbackWay.SOAP}))
    await lab.policy("local", callbacks=frozenset({CallbackWay.LOCAL}))
    await lab.delegate("acme-1", priority=1, replace=True)
    await lab.delegate("acme-2", priority=2, by="local", policy="soap")
    await lab.delegate("acme-3", priority=3, by="local", policy="local")
    await lab.own(TAG)
    found = await judged(lab)
    assert [one.name for one in found.route.others] == ["acme-3"]
    assert [one.holder for one in found.policies] == ["customer/acme"]


async def test_a_disabled_delegate_is_no_stand_in_and_a_first_one_that_is_refused_hides_none(lab: Lab) -> None:
    await lab.policy("closed", valid_until=START)
    await lab.delegate("acme-1", priority=1, policy="closed", replace=True)
    await lab.delegate("acme-2", priority=2)
    await lab.own(TAG)
    found = await judged(lab)
    assert not found.decision.allowed
    assert [one.name for one in found.route.others] == ["acme-2"]


async def test_a_stand_in_keeps_its_own_limits_and_lease_and_the_customers_are_kept_already(lab: Lab) -> None:
    await lab.policy("acme", max_devices=1, lease=timedelta(minutes=5), claims_per_hour=1, replace=True)
    await lab.policy("own", max_devices=3, lease=timedelta(minutes=30), claims_per_hour=7)
    await lab.delegate("acme-1", priority=1, replace=True)
    await lab.delegate("acme-2", priority=2, policy="own")
    await lab.delegate("acme-3", priority=3)
    await lab.own(TAG)
    found = await judged(lab)
    second, third = found.route.others
    within = stand_in(second, found, START)
    assert within is not None
    assert within.delegate == "acme-2"
    assert within.lease_until == milliseconds(START + timedelta(minutes=30)), "the claim's own lease is the customer's"
    assert [(one.policy.name, one.holder) for one in within.policies] == [("own", "delegate/acme-2")]
    assert stand_in(third, found, START) is None


@pytest.mark.parametrize(("whys", "kind", "later"), [
    ([Why.IDENTITY], Kind.IDENTITY, None), ([Why.DEVICES_TAKEN], Kind.TRY_LATER, LIMIT_RETRY),
    ([Why.PACE], Kind.TRY_LATER, LIMIT_RETRY), ([Why.OWNER], Kind.TRY_LATER, LIMIT_RETRY),
    ([Why.LOCATION_UNKNOWN], Kind.TRY_LATER, DNS_RETRY), ([Why.LOCATION], Kind.NOT_ENTITLED, None),
    ([Why.LOCATION_UNKNOWN, Why.DEVICES_TAKEN], Kind.TRY_LATER, LIMIT_RETRY),
    ([Why.DEVICES_TAKEN, Why.IDENTITY], Kind.IDENTITY, None),
    ([Why.DEVICES_TAKEN, Why.IDENTITY, Why.CLOSED], Kind.NOT_ENTITLED, None)])
def test_the_kind_of_a_refusal_is_that_of_its_gravest_reason(whys: list[Why], kind: Kind, later: int | None) -> None:
    error = refusal(Decision(tuple(Reason(why, why.value) for why in whys)))
    assert (error.kind, error.retry_after) == (kind, later)
    assert (error.detail, error.reasons) == ("; ".join(why.value for why in whys), tuple(why.value for why in whys))


def test_a_reason_that_knows_when_it_ends_says_so() -> None:
    assert refusal(Decision((Reason(Why.PACE, "x", 77), Reason(Why.LOCATION_UNKNOWN, "y")))).retry_after == 77
    assert (LIMIT_RETRY, DNS_RETRY) == (300, 30)
