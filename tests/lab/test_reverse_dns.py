"""A device that nobody registered and no rule knows may belong to whoever owns its address (A5, T-B4).

That proves nothing by itself: the domain's own policy, the delegate's certificate and the device's own decide.
"""

from __future__ import annotations

import pytest

from delegator.model import IdentityRule

from .lab import FACTORY, SHARED, Lab

TAG = "ABC1234"
PEER = "192.0.2.7"
OWNER = "domain:customer.example"


@pytest.fixture
async def found(lab: Lab) -> Lab:
    """The device's address is that of a host of customer.example, which has a delegate."""
    lab.serve(reverse_dns=True)
    lab.dns.host(PEER, "rack7.customer.example")
    return lab


async def test_a5_a_stranger_is_led_to_the_delegate_of_its_domain(found: Lab) -> None:
    reply = await found.ask(TAG)
    assert reply.credential == (f"user of {OWNER}", f"password 0 of {OWNER}")
    assert reply.delegate == ("https://provisioning-delegate.customer.example:443/provisioning", FACTORY)
    assert reply.steps[3:6] == ["identified", "looked_up", "routed"]
    because = "reverse DNS of 192.0.2.7: host rack7.customer.example, forward-confirmed, domain customer.example"
    assert reply.note("looked_up") == because
    assert reply.note("routed") == (
        f"customer customer.example (by reverse DNS), delegate {OWNER}, because {because}")
    assert reply.note("decided") == "policy default allows it"
    claim = await found.claim(TAG)
    assert (claim.customer, claim.delegate) == (OWNER, OWNER)
    assert found.counted("delegator_delegate_call_duration_seconds_count", delegate="domain:") == 1
    again = await found.ask(TAG)
    assert (again.credential, again.delegate) == (reply.credential, reply.delegate)
    assert found.dns.asked == [PEER], "and it is remembered"


async def test_a5_an_anchor_for_domains_is_passed_on(found: Lab) -> None:
    found.serve(domain_anchor="DOMAINS")
    assert (await found.ask(TAG)).delegate[1] == "DOMAINS"


async def test_a5_the_policy_for_domains_is_the_one_that_is_set(found: Lab) -> None:
    await found.policy("by-domain", valid_from=found.clock.now().replace(year=2030))
    found.serve(domain_policy="by-domain")
    reply = await found.ask(TAG)
    assert (reply.fault, reply.note("decided")) == ("NotEntitled", "policy by-domain refuses")
    await found.policy("by-domain", replace=True)
    assert (await found.ask(TAG)).note("decided") == "policy by-domain allows it"


async def test_a5_a_policy_for_domains_that_there_is_not_serves_nobody_and_is_our_own_fault(found: Lab) -> None:
    found.serve(domain_policy="gone")
    reply = await found.ask(TAG)
    assert reply.fault == "Unavailable"
    assert reply.trail.reasons == ("[domains] policy names gone, which there is not",)
    assert not found.servers.asked
    await found.own("ABC9999")
    assert (await found.ask("ABC9999")).status == 200, "who is registered is not concerned"


async def test_a5_who_is_registered_or_known_by_a_rule_is_not_looked_up(found: Lab) -> None:
    await found.own(TAG)
    await found.rule("rack", "umbra-1", tag_prefix="XYZ")
    assert (await found.ask(TAG)).credential[0] == "user of acme-1"
    assert (await found.ask("XYZ1234")).credential[0] == "user of umbra-1"
    assert not found.dns.asked


async def test_a5_what_is_registered_and_has_no_way_is_nobodys_by_its_address_either(found: Lab) -> None:
    """In stock, or a customer's without a delegate: its owner is known or not yet there, and no domain is asked."""
    await found.own(TAG, customer=None)
    assert (await found.ask(TAG)).fault == "NotEntitled"
    assert not found.dns.asked


async def test_a5_a_silent_dns_says_later_and_when(found: Lab) -> None:
    found.dns.silent = True
    reply = await found.ask(TAG)
    assert (reply.fault, reply.retry_after) == ("TryLater", 30)
    assert reply.trail.reasons == (
        "ABC1234: not registered, and no rule matches; reverse DNS of 192.0.2.7: silence",)
    found.dns.silent = False
    assert (await found.ask(TAG)).fault == "TryLater", "a failure is remembered, for a moment"
    found.clock.forward(seconds=5)
    assert (await found.ask(TAG)).status == 200


async def test_a5_an_address_without_a_name_leads_nowhere(found: Lab) -> None:
    reply = await found.ask(TAG, peer="192.0.2.99")
    assert (reply.fault, reply.retry_after) == ("NotEntitled", None)
    assert reply.trail.reasons == (
        "ABC1234: not registered, and no rule matches; reverse DNS of 192.0.2.99: no host name",)


async def test_a5_the_shared_certificate_and_an_address_are_not_enough(found: Lab) -> None:
    await found.policy("by-domain", identity=IdentityRule.EITHER)
    found.serve(domain_policy="by-domain")
    reply = await found.ask(TAG, shown=SHARED)
    assert (reply.fault, reply.trail.reasons) == (
        "NotEntitled", ("policy by-domain: a shared certificate and reverse DNS are not enough",))
    await found.policy("by-domain", identity=IdentityRule.EITHER, shared_by_domain=True, replace=True)
    assert (await found.ask(TAG, shown=SHARED)).status == 200


async def test_a5_where_reverse_dns_is_off_nobody_is_asked(lab: Lab) -> None:
    lab.dns.host(PEER, "rack7.customer.example")
    assert (await lab.ask(TAG)).fault == "NotEntitled"
    assert not lab.dns.asked


async def test_a5_the_domains_delegate_is_told_how_it_ended_at_its_address_of_now(found: Lab) -> None:
    reply = await found.ask(TAG)
    await found.confirm(TAG, reply.claim)
    await found.tell()
    ((name, deployment),) = found.servers.told
    assert (name, deployment.claim_id) == (OWNER, reply.claim)
    assert found.servers.at[OWNER] == "203.0.113.10"


# --- domains as a place devices may call from ---------------------------------------------------------------------


@pytest.fixture
async def placed(found: Lab) -> Lab:
    """Acme's devices may call from hosts of customer.example."""
    await found.policy("acme", replace=True, domains=("customer.example",))
    await found.own(TAG)
    return found


async def test_a6_a_device_calls_from_a_host_of_its_customer(placed: Lab) -> None:
    reply = await placed.ask(TAG)
    assert (reply.status, reply.credential[0]) == (200, "user of acme-1")
    assert reply.note("looked_up").startswith("reverse DNS of 192.0.2.7: host rack7.customer.example")


async def test_a6_a_device_from_elsewhere_is_refused(placed: Lab) -> None:
    placed.dns.host("192.0.2.8", "rack7.evil-customer.example")
    reply = await placed.ask(TAG, peer="192.0.2.8")
    assert reply.fault == "NotEntitled"
    assert reply.trail.reasons[0].startswith(
        "policy acme: not confirmed in customer.example: reverse DNS of 192.0.2.8: host rack7.evil-customer.example")


async def test_a6_where_the_dns_is_silent_the_device_comes_again_soon(placed: Lab) -> None:
    placed.dns.silent = True
    reply = await placed.ask(TAG)
    assert (reply.fault, reply.retry_after) == ("TryLater", 30)
    assert reply.trail.reasons == (
        "policy acme: not confirmed in customer.example: reverse DNS of 192.0.2.7: silence",)


async def test_a6_where_a_network_lets_it_in_nobody_is_asked(placed: Lab) -> None:
    await placed.policy("acme", replace=True, domains=("customer.example",), networks=("192.0.2.0/24",))
    assert (await placed.ask(TAG)).status == 200
    assert not placed.dns.asked


async def test_a6_a_stand_ins_domains_are_asked_for_with_the_others(found: Lab) -> None:
    """Only who may stand in for the first is asked when the first fails."""
    await found.policy("there", domains=("customer.example",))
    await found.policy("elsewhere", domains=("other.example",))
    await found.delegate("acme-1", priority=1, replace=True)
    await found.delegate("acme-2", priority=2, policy="elsewhere")
    await found.delegate("acme-3", priority=3, policy="there")
    await found.own(TAG)
    found.servers.broken["acme-1"] = "down"
    assert (await found.ask(TAG)).credential[0] == "user of acme-3"
    assert found.servers.names == ["acme-1", "acme-3"]
