"""Laws of domain association: names prove little, labels are never cut, a shared certificate is not enough (A5,
T-B4)."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from publicsuffixlist import PublicSuffixList

from delegator.desk import forms
from delegator.domains import (
    MOST_LABELS,
    MOST_NAMES,
    PREFIX,
    Naming,
    asked_about,
    candidates,
    domain_of,
    host_name,
    host_names,
)
from delegator.model import HOST_NAME, NAME, IdentityKind, IdentityRule, Policy, SoapCallback
from delegator.model.places import reached
from delegator.outbound import DENIED, networks
from delegator.policy import Applied, Case, Decision, Why, applied, decide
from delegator.watching.metrics import Metrics

SUFFIXES = PublicSuffixList().privatesuffix
NAMING = Naming("provisioning-delegate")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
hosts = st.lists(labels, min_size=1, max_size=6).map(".".join)
addresses = st.ip_addresses()


# --- names --------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(min_size=1, max_size=63), min_size=1, max_size=14))
@example([b"a\x00b", b"example"])
@example([b"a.b", b"example"])
@example([b"$(id)", b"example"])
@example([b"-a", b"example"])
@example([b"192", b"0", b"2", b"7"])
@example([b"\xc3\xa9", b"example"])
@example([b"Ab", b"EXAMPLE"])
def test_TB4_what_is_taken_for_a_host_name_is_one_and_nothing_was_cut(found: list[bytes]) -> None:
    name = host_name(found)
    if name is not None:
        assert HOST_NAME.fullmatch(name)
        assert name.split(".") == [label.decode().lower() for label in found]
        assert len(found) <= MOST_LABELS
        with pytest.raises(ValueError):
            ipaddress.ip_address(name)


@pytest.mark.slow
@given(st.lists(hosts.map(lambda host: tuple(host.encode().split(b"."))), max_size=20))
def test_TB4_names_are_taken_in_a_fixed_order_each_once_and_not_too_many(found: list[tuple[bytes, ...]]) -> None:
    names = host_names(found)
    assert names == host_names(reversed(found)) == tuple(sorted(set(names)))
    assert len(names) <= MOST_NAMES


@given(hosts)
@example("evil-customer.example")
@example("h.customer.example.evil.test")
@example("www.co.uk")
@example("x.github.io")
@example("ec2-192-0-2-7.compute-1.amazonaws.com")
def test_a5_candidates_are_parents_from_the_longest_to_the_registrable_one(host: str) -> None:
    """Never the host's own name, never a public suffix, always cut at a dot."""
    registrable = SUFFIXES(host)
    found = candidates(host, registrable)
    assert host not in found
    assert list(found) == sorted(found, key=len, reverse=True)
    for domain in found:
        assert host.endswith("." + domain)
        assert SUFFIXES(domain) == registrable
    assert bool(found) is (registrable not in (None, host))


@pytest.mark.parametrize(("host", "found"), [
    ("a.lab.customer.example", ("lab.customer.example", "customer.example")),
    ("h.evil-customer.example", ("evil-customer.example",)), ("h.customer.example.evil.test",
    ("customer.example.evil.test", "example.evil.test", "evil.test")), ("customer.example", ()), ("com", ()),
    ("www.co.uk", ()), ("h.bbc.co.uk", ("bbc.co.uk",)), ("someone.github.io", ()), ("h.someone.github.io",
    ("someone.github.io",)), ("localhost", ())])
def test_TB4_what_looks_like_a_customers_domain_is_not_inside_it(host: str, found: tuple[str, ...]) -> None:
    assert candidates(host, SUFFIXES(host)) == found


# --- addresses ----------------------------------------------------------------------------------------------------


@given(addresses, st.booleans())
def test_TB4_no_private_address_is_asked_about_however_it_is_wrapped(
        address: ipaddress.IPv4Address | ipaddress.IPv6Address, mapped: bool) -> None:
    text = f"::ffff:{address}" if mapped and address.version == 4 else str(address)
    asked, refusal = asked_about(text, ())
    denied = any(one in network for one in reached(text) for _, network in DENIED)
    assert (asked is None) is denied is bool(refusal)
    assert asked in (None, address) or getattr(address, "ipv4_mapped", None) == asked


def test_TB4_an_operator_can_allow_a_private_network_and_only_that() -> None:
    lab = networks(("10.1.0.0/16", "fd00:1::/32"))
    for text, allowed in (("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("fd00:1::7", True), ("10.2.0.1", False),
                          ("fd00:2::7", False), ("2002:a01:203::1", False)):
        assert (asked_about(text, lab)[0] is not None) is allowed


# --- what stands for a domain -------------------------------------------------------------------------------------


@given(hosts)
def test_a5_what_stands_for_a_domain_is_known_by_its_name_and_never_taken_for_a_registered_one(domain: str) -> None:
    customer, delegate = NAMING.customer(domain), NAMING.delegate(domain, "192.0.2.1")
    assert delegate.customer == customer.name == delegate.name == PREFIX + domain
    assert domain_of(delegate.name) == domain
    assert not NAME.fullmatch(customer.name)
    assert domain_of(domain) is None
    assert isinstance(delegate.callback, SoapCallback)
    assert delegate.callback.host == NAMING.host(domain) == f"provisioning-delegate.{domain}"
    assert delegate.callback.address == "192.0.2.1"


def test_a5_a_domain_that_leaves_no_room_for_the_label_has_no_delegate() -> None:
    long = ".".join(["l" * 60] * 4)
    assert HOST_NAME.fullmatch(long)
    assert NAMING.host(long) is None


def test_a5_an_operator_names_such_a_customer_as_claims_do() -> None:
    assert forms.owner("domain:Customer.Example") == "domain:customer.example"
    assert forms.owner("acme") == "acme"
    for wrong in ("domain:", "domain:a b", "other:customer.example", "customer.example"):
        with pytest.raises(ValueError):
            forms.owner(wrong)


def test_TB4_strangers_domains_make_no_metrics_of_their_own() -> None:
    metrics = Metrics()
    for number in range(3):
        metrics.breaker_changed(f"domain:d{number}.example", "open")
    assert metrics.text().count(b'delegator_delegate_breaker{') == 3, "one delegate, three states"


# --- policy -------------------------------------------------------------------------------------------------------


def _decided(policy: Policy | None, identity: IdentityKind, **changed: bool) -> Decision:
    naming = Naming("provisioning-delegate", policy=None if policy is None else policy.name)
    customer, delegate = naming.customer("customer.example"), naming.delegate("customer.example")
    policies: tuple[Applied, ...] = applied(customer, delegate, {} if policy is None else {policy.name: policy})
    case = Case(customer, delegate, identity, changed.get("registered", False), frozenset(), NOON,
                changed.get("by_domain", True))
    return decide(policies, case)


def test_a5_an_own_certificate_and_reverse_dns_are_enough_by_the_safe_default() -> None:
    assert _decided(None, IdentityKind.OWN).allowed


def test_TB4_a_shared_certificate_and_reverse_dns_are_not_enough_unless_policy_says_so() -> None:
    """The safe default has two reasons against; accepting shared certificates alone leaves one."""
    assert [reason.why for reason in _decided(None, IdentityKind.SHARED).reasons] == [Why.IDENTITY, Why.DOMAIN_ALONE]
    either = Policy("dns", identity=IdentityRule.EITHER)
    assert [reason.why for reason in _decided(either, IdentityKind.SHARED).reasons] == [Why.DOMAIN_ALONE]
    only = Policy("dns", shared_by_domain=True)
    assert [reason.why for reason in _decided(only, IdentityKind.SHARED).reasons] == [Why.IDENTITY]
    both = Policy("dns", identity=IdentityRule.EITHER, shared_by_domain=True)
    assert _decided(both, IdentityKind.SHARED).allowed


def test_TB4_what_is_allowed_by_domain_opens_nothing_for_devices_that_a_rule_found() -> None:
    both = Policy("dns", identity=IdentityRule.EITHER, shared_by_domain=True)
    reasons = _decided(both, IdentityKind.SHARED, by_domain=False).reasons
    assert [reason.why for reason in reasons] == [Why.UNREGISTERED]
    either = Policy("dns", identity=IdentityRule.EITHER)
    assert _decided(either, IdentityKind.SHARED, by_domain=False, registered=True).allowed
