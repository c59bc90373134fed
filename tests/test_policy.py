"""Laws of policy: a decision lists every reason, and what is not said is safe (DESIGN 7, A6; block 214)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegator.model import (
    CallbackKind,
    Customer,
    Delegate,
    HostedCallback,
    IdentityKind,
    IdentityRule,
    Policy,
    Secret,
    SoapCallback,
)
from delegator.policy import Applied, Case, Why, applied, decide, over_limits

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CUSTOMER, DELEGATE = Customer("acme", "Acme"), Delegate("acme-1", "acme", SoapCallback("d.example"))
CASE = Case(CUSTOMER, DELEGATE, IdentityKind.OWN, True, frozenset(), NOON)
LIFTED = {"custom_operations": True, "valid_from": None, "valid_until": None, "identity": IdentityRule.EITHER,
          "approved_only": False, "max_devices": None, "callbacks": None, "attempts": 1_000_000,
          "shared_by_domain": True}
"""Each restriction with the value that lifts it."""

hours = st.none() | st.integers(-2, 2).map(lambda n: NOON + timedelta(hours=n))
policies = st.builds(
    Policy, st.sampled_from(["p", "q", "r"]), st.booleans(), hours, hours, st.sampled_from(IdentityRule),
    st.booleans(), st.none() | st.integers(0, 3),
    st.none() | st.frozensets(st.sampled_from([CallbackKind.SOAP, CallbackKind.HOSTED])), st.integers(1, 3),
    shared_by_domain=st.booleans())
delegates = st.builds(Delegate, st.just("acme-1"), st.just("acme"), st.sampled_from(
    [SoapCallback("d.example"), HostedCallback("root", Secret("x"))]), enabled=st.booleans())
cases = st.builds(Case, st.builds(Customer, st.just("acme"), st.just("Acme"), st.booleans()), delegates,
                  st.sampled_from(IdentityKind), st.booleans(), st.frozensets(st.sampled_from(["p", "q"])), hours.map(
                      lambda moment: moment or NOON), st.booleans())
holders = st.sampled_from(["customer/acme", "delegate/acme-1"])
applied_lists = st.lists(st.builds(Applied, policies, holders), max_size=3)


def violated(policy: Policy, case: Case) -> list[Why]:
    """Every condition of a policy that a case breaks, told anew."""
    wanted = {IdentityRule.OWN: [IdentityKind.OWN], IdentityRule.SHARED: [IdentityKind.SHARED],
              IdentityRule.EITHER: list(IdentityKind)}[policy.identity]
    conditions = [
        (Why.NOT_ALLOWED, not policy.custom_operations),
        (Why.NOT_ALLOWED, policy.callbacks is not None and case.delegate.kind not in policy.callbacks),
        (Why.NOT_YET, case.now < (policy.valid_from or case.now)),
        (Why.CLOSED, policy.valid_until is not None and not case.now < policy.valid_until),
        (Why.IDENTITY, case.identity not in wanted),
        (Why.NOT_APPROVED, policy.approved_only and policy.name not in case.approved),
        (Why.DOMAIN_ALONE, case.by_domain and case.identity.value == "shared" and not policy.shared_by_domain)]
    return [why for why, broken in conditions if broken]


def standing(case: Case) -> list[Why]:
    conditions = [(Why.DISABLED, not case.customer.enabled), (Why.DISABLED, not case.delegate.enabled),
                  (Why.UNREGISTERED, case.identity is IdentityKind.SHARED and not (case.registered or case.by_domain))]
    return [why for why, broken in conditions if broken]


@given(applied_lists, cases)
def test_A6_a_decision_lists_every_violated_condition_and_nothing_else(said, case):
    decision = decide(said, case)
    expected = Counter(standing(case)) + Counter(why for one in said for why in violated(one.policy, case))
    assert Counter(reason.why for reason in decision.reasons) == expected
    assert decision.allowed is (not expected)
    assert all(str(reason).strip() for reason in decision.reasons)


@given(policies, cases, st.sampled_from(sorted(LIFTED)))
def test_A6_lifting_a_restriction_never_turns_allowed_into_refused(policy, case, name):
    before = decide([Applied(policy, "h")], case).reasons
    after = decide([Applied(replace(policy, **{name: LIFTED[name]}), "h")], case).reasons
    assert set(after) <= set(before)


@given(applied_lists, applied_lists, cases)
def test_A6_two_policies_refuse_what_either_refuses_and_for_the_same_reasons(some, more, case):
    both, alone = decide(some + more, case).reasons, decide([], case).reasons
    assert Counter(both) == Counter(decide(some, case).reasons) + Counter(decide(more, case).reasons) - Counter(alone)
    assert decide(some + more, case).allowed == (decide(some, case).allowed and decide(more, case).allowed)


@given(policies, cases)
def test_A6_a_reason_names_the_policy_it_comes_from(policy, case):
    texts = [str(reason) for reason in decide([Applied(policy, "h")], case).reasons[len(standing(case)):]]
    assert all(text.startswith(f"policy {policy.name}: ") for text in texts)


# --- the window ---------------------------------------------------------------------------------------------------

TICK = timedelta(microseconds=1)


def whys(policy: Policy, **changes: object) -> list[Why]:
    return [reason.why for reason in decide([Applied(policy, "h")], replace(CASE, **changes)).reasons]


def test_A6_from_is_inclusive_and_until_is_not():
    window = Policy(valid_from=NOON, valid_until=NOON + timedelta(hours=1))
    assert whys(window, now=NOON - TICK) == [Why.NOT_YET]
    assert whys(window, now=NOON) == []
    assert whys(window, now=NOON + timedelta(hours=1) - TICK) == []
    assert whys(window, now=NOON + timedelta(hours=1)) == [Why.CLOSED]


@given(st.integers(-3, 3).map(lambda n: NOON + n * TICK))
def test_A6_two_windows_that_meet_leave_no_gap_and_no_overlap(now):
    assert bool(whys(Policy(valid_until=NOON), now=now)) != bool(whys(Policy(valid_from=NOON), now=now))


def test_A6_a_window_that_closes_before_it_opens_gives_both_reasons():
    assert whys(Policy(valid_from=NOON + TICK, valid_until=NOON)) == [Why.NOT_YET, Why.CLOSED]


# --- what is not said ---------------------------------------------------------------------------------------------


def test_6_1_without_any_policy_the_own_certificate_is_asked_for():
    """A stolen shared certificate alone releases nothing by default (CVE-2024-47575)."""
    (one,) = said = applied(CUSTOMER, DELEGATE, {})
    assert one == Applied(Policy(), "customer/acme")
    assert decide(said, CASE).allowed
    assert [r.why for r in decide(said, replace(CASE, identity=IdentityKind.SHARED)).reasons] == [Why.IDENTITY]


@given(cases)
def test_6_1_a_shared_certificate_opens_nothing_for_a_device_that_is_not_registered(case):
    case = replace(case, identity=IdentityKind.SHARED, registered=False, by_domain=False)
    either = Applied(Policy(identity=IdentityRule.EITHER), "h")
    assert Why.UNREGISTERED in [reason.why for reason in decide([either], case).reasons]


def test_A6_a_policy_of_the_customer_and_one_of_the_delegate_both_speak():
    table = {"p": Policy("p"), "q": Policy("q")}
    customer, delegate = replace(CUSTOMER, policy="p"), replace(DELEGATE, policy="q")
    assert applied(customer, delegate, table) == (Applied(Policy("p"), "customer/acme"),
                                                  Applied(Policy("q"), "delegate/acme-1"))
    assert applied(CUSTOMER, delegate, table) == (Applied(Policy("q"), "delegate/acme-1"),)
    assert applied(customer, DELEGATE, table) == (Applied(Policy("p"), "customer/acme"),)


def test_A6_a_list_approves_for_its_own_policy_only():
    assert whys(Policy("p", approved_only=True), approved=frozenset({"q"})) == [Why.NOT_APPROVED]
    assert whys(Policy("p", approved_only=True), approved=frozenset({"p"})) == []


def test_A6_an_empty_set_of_callbacks_allows_none():
    assert whys(Policy(callbacks=frozenset())) == [Why.NOT_ALLOWED]


def test_A5_a_shared_certificate_and_reverse_dns_are_not_enough_unless_the_customer_says_so():
    """Both together prove "one of ours, at an address whose owner may write any name", and no more."""
    by_domain = {"identity": IdentityKind.SHARED, "registered": False, "by_domain": True}
    assert whys(Policy(identity=IdentityRule.EITHER), **by_domain) == [Why.DOMAIN_ALONE]
    assert whys(Policy(identity=IdentityRule.EITHER, shared_by_domain=True), **by_domain) == []
    assert whys(Policy(), **by_domain | {"identity": IdentityKind.OWN}) == []


# --- limits -------------------------------------------------------------------------------------------------------


def over(policy: Policy, taken: dict[str, int], attempts: int = 0) -> list[Why]:
    return [reason.why for reason in over_limits([Applied(policy, "customer/acme")], taken, attempts)]


@pytest.mark.parametrize(("most", "taken", "refused"), [
    (None, 10**9, False), (0, 0, True), (1, 0, False), (1, 1, True), (5, 4, False), (5, 5, True), (5, 6, True)])
def test_A6_the_last_place_is_given_and_the_next_one_is_not(most, taken, refused):
    assert over(Policy(max_devices=most), {"customer/acme": taken}) == [Why.DEVICES_TAKEN] * refused
    assert over(Policy(max_devices=most), {"delegate/acme-1": 10**9}) == [Why.DEVICES_TAKEN] * (most == 0)


@pytest.mark.parametrize(("attempts", "used", "refused"), [(1, 0, False), (1, 1, True), (3, 2, False), (3, 3, True)])
def test_A6_attempts_are_counted_by_what_was_used_up(attempts, used, refused):
    assert over(Policy(attempts=attempts), {}, used) == [Why.ATTEMPTS_USED] * refused


@given(applied_lists, st.dictionaries(holders, st.integers(0, 4)), st.integers(0, 4))
def test_A6_limits_list_every_reason_of_every_holder_and_only_grow(said, places, attempts):
    expected = []
    for policy, taken in ((one.policy, places.get(one.holder, 0)) for one in said):
        expected += [Why.DEVICES_TAKEN] * (policy.max_devices in range(taken + 1))
        expected += [Why.ATTEMPTS_USED] * (policy.attempts in range(attempts + 1))
    assert [reason.why for reason in over_limits(said, places, attempts)] == expected
    more = {holder: taken + 1 for holder, taken in places.items()}
    assert set(over_limits(said, places, attempts)) <= set(over_limits(said, more, attempts + 1))
