"""What policy tells a person: each reason in whole words, with the numbers that it judged by (R-because, A6)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from delegator.model import Customer, Delegate, IdentityKind, IdentityRule, Policy, SoapCallback
from delegator.model.hours import opening
from delegator.policy import WINDOW, Applied, Case, Hosts, Why, decide, over_limits, over_pace

NOON, TICK = datetime(2026, 1, 1, 12, tzinfo=UTC), timedelta(microseconds=1)
CUSTOMER, DELEGATE = Customer("acme", "Acme"), Delegate("acme-1", "acme", SoapCallback("d.example"))
CASE = Case(CUSTOMER, DELEGATE, IdentityKind.OWN, True, frozenset(), NOON)


def reasons(policy, **changes):
    return [reason.text for reason in decide([Applied(policy, "h")], replace(CASE, **changes)).reasons]


@pytest.mark.parametrize(("policy", "changes", "texts"), [
    (Policy("p", custom_operations=False), {}, ["custom operations are not allowed"]),
    (Policy("p", callbacks=frozenset()), {}, ["callback soap is not allowed"]),
    (Policy("p", valid_from=NOON + TICK), {}, ["provisioning opens at 2026-01-01T12:00:00.000001+00:00"]),
    (Policy("p", valid_until=NOON), {}, ["provisioning closed at 2026-01-01T12:00:00+00:00"]),
    (Policy("p", domains=("acme.example", "b.example")), {"hosts": Hosts((), "no host name")},
     ["not confirmed in acme.example, b.example: no host name"]),
    (Policy("p"), {"identity": IdentityKind.SHARED}, ["identity must be own, the device showed shared"]),
    (Policy("p", approved_only=True), {}, ["the service tag is not on the approved list"]),
    (Policy("p", identity=IdentityRule.EITHER), {"identity": IdentityKind.SHARED, "by_domain": True},
     ["a shared certificate and reverse DNS are not enough"])])
def test_A6_each_reason_says_in_whole_words_what_is_asked_for(policy, changes, texts):
    assert reasons(policy, **changes) == [f"policy p: {text}" for text in texts]


def test_A6_a_zone_that_this_machine_does_not_know_opens_nothing_and_is_named():
    hours = tuple(replace(opening("daily 00:00-24:00 UTC"), zone=f"Moon/{zone}") for zone in "SEADRKCB")
    shown = "; ".join(map(str, hours))
    assert reasons(Policy("p", hours=hours)) == [
        f"policy p: outside its hours, {shown}: this machine does not know the time zone "
        + ", ".join(f"Moon/{zone}" for zone in "ABCDEKRS")]
    assert reasons(Policy("p", hours=(*hours, opening("daily 00:00-24:00 UTC")))) == [], "another opening opens"


def test_A6_what_stands_whatever_a_policy_says_is_told_in_whole_words():
    case = replace(CASE, customer=replace(CUSTOMER, enabled=False), delegate=replace(DELEGATE, enabled=False),
                   identity=IdentityKind.SHARED, registered=False)
    assert [(one.why, one.text) for one in decide([], case).reasons] == [
        (Why.DISABLED, "customer acme is disabled"), (Why.DISABLED, "delegate acme-1 is disabled"),
        (Why.UNREGISTERED, "a shared certificate needs a device that is registered")]


def test_A6_a_limit_says_how_many_there_are():
    limited = [Applied(Policy("p", max_devices=2, attempts=3), "h")]
    assert [one.text for one in over_limits(limited, {"h": 2}, 3)] == [
        "policy p: all 2 devices are taken", "policy p: 3 attempts are used up"]
    assert [one.text for one in over_limits(limited, {}, 2)] == []


def test_A6_room_comes_when_enough_of_the_earliest_claims_count_no_longer():
    """A lowered limit leaves more open than are allowed: then several have to go."""
    now = datetime.fromtimestamp(130 * 60, UTC)
    slow = [Applied(Policy("slow", claims_per_hour=2), "h")]
    (one,) = over_pace(slow, {"h": [(100, 2), (110, 1), (120, 1)]}, now)
    assert one.retry_after == (110 + WINDOW + 1 - 130) * 60, "four are open, three must go"
    assert over_pace(slow, {"h": [(0, 5)]}, now)[0].retry_after == 1, "at once, if the store has them still"
    assert WINDOW == 60
