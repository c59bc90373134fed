"""Laws of policy: a decision lists every reason, and what is not said is safe (R-because, R-shared, A6; block 214)."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from delegator.model import (
    CallbackWay,
    Customer,
    Delegate,
    HostedCallback,
    IdentityKind,
    IdentityRule,
    Policy,
    Secret,
    SoapCallback,
)
from delegator.model.hours import opening
from delegator.policy import (
    WINDOW,
    Applied,
    Case,
    Hosts,
    Reason,
    Why,
    applied,
    asks_hosts,
    decide,
    in_networks,
    over_limits,
    over_pace,
    paced,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CUSTOMER, DELEGATE = Customer("acme", "Acme"), Delegate("acme-1", "acme", SoapCallback("d.example"))
CASE = Case(CUSTOMER, DELEGATE, IdentityKind.OWN, True, frozenset(), NOON)
LIFTED = [{"custom_operations": True}, {"valid_from": None}, {"valid_until": None}, {"identity": IdentityRule.EITHER},
          {"approved_only": False}, {"max_devices": None}, {"callbacks": None}, {"attempts": 1_000_000},
          {"shared_by_domain": True}, {"hours": ()}, {"networks": (), "domains": ()}, {"own_anywhere": True},
          {"claims_per_hour": None}]
"""What lifts each restriction. Networks and domains are one: either lets a device in, so that to take one of the two
away is to bind closer."""

hours = st.none() | st.integers(-2, 2).map(lambda n: NOON + timedelta(hours=n))
policies = st.builds(
    Policy, st.sampled_from(["p", "q", "r"]), st.booleans(), hours, hours, st.sampled_from(IdentityRule),
    st.booleans(), st.none() | st.integers(0, 3),
    st.none() | st.frozensets(st.sampled_from([CallbackWay.SOAP, CallbackWay.HOSTED])), st.integers(1, 3),
    shared_by_domain=st.booleans(), hours=st.lists(st.sampled_from(
        [opening(text) for text in ("Thu 08:00-13:00 Europe/Berlin", "daily 12:00-14:00 UTC")]), max_size=2).map(tuple),
    networks=st.lists(st.sampled_from(["192.0.2.0/24", "2001:db8::/32"]), unique=True, max_size=2).map(tuple),
    domains=st.sampled_from([(), ("acme.example",)]), own_anywhere=st.booleans())
delegates = st.builds(Delegate, st.just("acme-1"), st.just("acme"), st.sampled_from(
    [SoapCallback("d.example"), HostedCallback("root", Secret("x"))]), enabled=st.booleans())
cases = st.builds(Case, st.builds(Customer, st.just("acme"), st.just("Acme"), st.booleans()), delegates,
                  st.sampled_from(IdentityKind), st.booleans(), st.frozensets(st.sampled_from(["p", "q"])), hours.map(
                      lambda moment: moment or NOON), st.booleans(),
                  st.sampled_from(["", "192.0.2.7", "::ffff:192.0.2.7", "198.51.100.7", "2001:db8::7"]),
                  st.none() | st.builds(Hosts, st.sampled_from([(), ("a.acme.example",), ("evil-acme.example",)]),
                                        st.just("because"), st.booleans()))
holders = st.sampled_from(["customer/acme", "delegate/acme-1"])
applied_lists = st.lists(st.builds(Applied, policies, holders), max_size=3)


def violated(policy: Policy, case: Case) -> list[Why]:
    """Every condition of a policy that a case breaks, told anew."""
    wanted = {IdentityRule.OWN: [IdentityKind.OWN], IdentityRule.SHARED: [IdentityKind.SHARED],
              IdentityRule.EITHER: list(IdentityKind)}[policy.identity]
    conditions = [
        (Why.NOT_ALLOWED, not policy.custom_operations),
        (Why.NOT_ALLOWED, policy.callbacks is not None and case.delegate.way not in policy.callbacks),
        (Why.NOT_YET, case.now < (policy.valid_from or case.now)),
        (Why.CLOSED, policy.valid_until is not None and not case.now < policy.valid_until),
        (Why.HOURS, bool(policy.hours) and not any(
            {"Thu": 7 <= case.now.hour < 12, "daily": 12 <= case.now.hour < 14}[str(one).split()[0]]
            for one in policy.hours)),
        *((why, away(policy, case) is why) for why in (Why.LOCATION, Why.LOCATION_UNKNOWN)),
        (Why.IDENTITY, case.identity not in wanted),
        (Why.NOT_APPROVED, policy.approved_only and policy.name not in case.approved),
        (Why.DOMAIN_ALONE, case.by_domain and case.identity.value == "shared" and not policy.shared_by_domain)]
    return [why for why, broken in conditions if broken]


def away(policy: Policy, case: Case) -> Why | None:
    """Whether a device is where the policy does not want it. 1 January 2026 is a Thursday, at UTC+1 in Berlin."""
    version = {"": "", "192.0.2.7": "192.0.2.0/24", "::ffff:192.0.2.7": "192.0.2.0/24",
               "2001:db8::7": "2001:db8::/32"}.get(case.peer, "")
    free = case.identity is IdentityKind.OWN and policy.own_anywhere
    if free or version in policy.networks or not (policy.networks or policy.domains):
        return None
    if policy.domains and case.hosts is not None and "a.acme.example" in case.hosts.names:
        return None
    return Why.LOCATION_UNKNOWN if policy.domains and case.hosts is not None and case.hosts.late else Why.LOCATION


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


@given(policies, cases, st.sampled_from(LIFTED))
def test_A6_lifting_a_restriction_never_turns_allowed_into_refused(policy, case, lifted):
    before = decide([Applied(policy, "h")], case).reasons
    after = decide([Applied(replace(policy, **lifted), "h")], case).reasons
    assert set(after) <= set(before)


@given(policies, cases)
def test_A6_all_networks_are_every_address_that_is_known_and_not_one_that_is_unknown(policy, case):
    """A list of networks wants to know where a device is; naming all of them takes nothing of that away."""
    everywhere = replace(policy, networks=("0.0.0.0/0", "::/0"), domains=(), own_anywhere=False)
    reasons = [reason.why for reason in decide([Applied(everywhere, "h")], case).reasons]
    assert (Why.LOCATION in reasons) is (case.peer == "")


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


def test_R_shared_without_any_policy_the_own_certificate_is_asked_for():
    """A stolen shared certificate alone releases nothing by default (CVE-2024-47575)."""
    (one,) = said = applied(CUSTOMER, DELEGATE, {})
    assert one == Applied(Policy(), "customer/acme")
    assert decide(said, CASE).allowed
    assert [r.why for r in decide(said, replace(CASE, identity=IdentityKind.SHARED)).reasons] == [Why.IDENTITY]


@given(cases)
def test_R_shared_a_shared_certificate_opens_nothing_for_a_device_that_is_not_registered(case):
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


# --- hours and places --------------------------------------------------------------------------------------------


def reasons(policy: Policy, **changes: object) -> list[str]:
    return [reason.text for reason in decide([Applied(policy, "h")], replace(CASE, **changes)).reasons]


def test_A6_any_of_several_openings_is_enough_and_the_reason_says_the_time_there():
    hours = tuple(map(opening, ("Mon-Wed 08:00-18:00 Europe/Berlin", "Thu 09:00-17:00 America/New_York")))
    policy = Policy("p", hours=hours)
    assert whys(policy, now=NOON + timedelta(hours=3)) == [], "Thursday 10:00 in New York"
    assert reasons(policy) == [
        "policy p: outside its hours, Mon-Wed 08:00-18:00 Europe/Berlin; Thu 09:00-17:00 America/New_York: "
        "it is Thu 13:00 Europe/Berlin, Thu 07:00 America/New_York"]


@pytest.mark.parametrize(("peer", "network", "inside"), [
    ("192.0.2.255", "192.0.2.0/24", True), ("192.0.3.0", "192.0.2.0/24", False), ("192.0.2.7", "192.0.2.7/32", True),
    ("::ffff:192.0.2.7", "192.0.2.0/24", True), ("192.0.2.7", "::ffff:192.0.2.0/120", True),
    ("::ffff:192.0.2.7", "::/0", False), ("192.0.2.7", "::/0", False), ("2001:db8::7", "0.0.0.0/0", False),
    ("2001:DB8:0::7", "2001:db8::/32", True), ("fe80::1%eth0", "fe80::/10", True), ("192.0.2.7", "0.0.0.0/0", True),
    ("", "0.0.0.0/0", False), ("unix:", "0.0.0.0/0", False), ("127.1", "127.0.0.0/8", False)])
def test_A6_a_network_holds_the_addresses_it_is_for(peer, network, inside):
    assert in_networks(peer, Policy(networks=(network,)).networks) is inside
    assert whys(Policy(networks=(network,)), peer=peer) == [Why.LOCATION] * (not inside)


def test_A6_the_address_that_counts_is_the_one_the_device_was_seen_at():
    """What it says of itself is no part of a case at all."""
    assert not {"location", "ip_address"} & set(Case.__slots__)
    assert reasons(Policy("p", networks=("192.0.2.0/24", "2001:db8::/32")), peer="198.51.100.7") == [
        "policy p: 198.51.100.7 is in none of its networks, 192.0.2.0/24, 2001:db8::/32"]
    assert reasons(Policy("p", networks=("192.0.2.0/24",))) == [
        "policy p: an unknown address is in none of its networks, 192.0.2.0/24"]


def test_R_shared_a_known_network_or_a_forward_confirmed_domain_is_enough():
    policy = Policy("p", identity=IdentityRule.EITHER, networks=("192.0.2.0/24",), domains=("acme.example",))
    at_home = Hosts(("host.acme.example",), "confirmed")
    shared = {"identity": IdentityKind.SHARED, "peer": "198.51.100.7"}
    assert whys(policy, **shared | {"peer": "192.0.2.7"}) == []
    assert whys(policy, **shared, hosts=at_home) == []
    assert whys(policy, **shared, hosts=Hosts(("evil-acme.example",), "confirmed")) == [Why.LOCATION]
    assert whys(policy, **shared, hosts=Hosts((), "no host name")) == [Why.LOCATION]
    assert reasons(policy, **shared) == ["policy p: 198.51.100.7 is in none of its networks and not confirmed in "
                                         "acme.example: reverse DNS was not asked"]


def test_R_shared_a_domain_that_the_dns_did_not_answer_for_is_no_verdict_on_the_device():
    late = Hosts((), "no answer within 2 s", late=True)
    assert whys(Policy(domains=("acme.example",)), hosts=late) == [Why.LOCATION_UNKNOWN]


@given(policies, cases)
def test_A6_the_dns_is_asked_only_where_it_can_make_a_difference(policy, case):
    said = [Applied(policy, "h")]
    found = {decide(said, replace(case, hosts=hosts)).reasons
             for hosts in (Hosts(("a.acme.example",), ""), Hosts(("b.example",), ""))}
    assert asks_hosts(said, case) is (len(found) > 1)


def test_R_shared_networks_can_bind_shared_certificates_alone():
    policy = Policy(identity=IdentityRule.EITHER, networks=("192.0.2.0/24",), own_anywhere=True)
    assert whys(policy, peer="198.51.100.7") == []
    assert whys(policy, peer="198.51.100.7", identity=IdentityKind.SHARED) == [Why.LOCATION]


# --- limits -------------------------------------------------------------------------------------------------------


class Hour:
    """A model of the limit that knows every claim and when it was opened, told without buckets."""

    def __init__(self, most: int) -> None:
        self.most, self.opened = most, list[int]()

    def counted(self, now: int) -> list[int]:
        """Minutes of the claims that count: opened in this minute, or in the sixty before it."""
        return [at for at in self.opened if now - 60 <= at]


@given(st.integers(1, 4), st.lists(st.integers(0, 40), max_size=40))
def test_A6_the_window_slides_as_a_model_with_every_claim_in_it_does(most, waits):
    """And: within any 60 minutes never more than allowed; once all claims are 61 minutes old, one is allowed; after
    the seconds that a refused device is told, and not a minute before, there is room."""
    policy, model, minute = [Applied(Policy("p", claims_per_hour=most), "h")], Hour(most), 0
    for wait in waits:
        minute += wait
        pace = sorted(Counter(model.counted(minute)).items())
        now = datetime.fromtimestamp(minute * 60 + 20, UTC)
        found = over_pace(policy, {"h": pace}, now)
        assert bool(found) is (len(model.counted(minute)) >= most)
        if not found:
            model.opened.append(minute)
            continue
        again = minute * 60 + 20 + found[0].retry_after
        assert again % 60 == 0
        assert len(model.counted(again // 60)) < most <= len(model.counted(again // 60 - 1))
    assert all(sum(first <= at <= first + 60 for at in model.opened) <= most for first in model.opened)


def test_A6_claims_per_hour_are_counted_where_they_are_limited_and_nowhere_else():
    slow, free = Applied(Policy("slow", claims_per_hour=2), "customer/acme"), Applied(Policy("free"), "delegate/acme-1")
    assert paced([slow, free]) == ("customer/acme",)
    assert paced([free]) == ()
    assert over_pace([slow, free], {"customer/acme": [(100, 2)]}, datetime.fromtimestamp(130 * 60, UTC)) == (
        Reason(Why.PACE, "policy slow: 2 of 2 claims an hour are used", (100 + WINDOW + 1 - 130) * 60),)
    assert over_pace([slow, free], {}, NOON) == over_pace([free], {"delegate/acme-1": [(0, 99)]}, NOON) == ()


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
