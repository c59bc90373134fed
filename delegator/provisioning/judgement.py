"""Whose a device is and what is allowed to it: everything that is worked out before a claim. Blocks 213 and 214.

The same code serves devices, answers `explain` and says what a changed policy would do. It reads what is registered,
asks the DNS only where that can make a difference, and has no effect.
The invariant: a refusal carries every reason, and what a device is told of it stands in one table.
Must not live here: claims, callbacks, answers (handshake), the rules themselves (routing, policy).
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Protocol

import msgspec
from msgspec.structs import replace

from delegator.errors import DelegatorError, HeldUp, Kind
from delegator.model import Claim, Customer, Delegate, Device, IdentityKind
from delegator.net.reverse import Domains
from delegator.policy import (
    Applied,
    Case,
    Decision,
    Hosts,
    Why,
    applied,
    asks_hosts,
    decide,
)
from delegator.routing import Facts, NoRoute, Route, choose, registered
from delegator.store import Candidates, StandIn, Tables, milliseconds
from delegator.store.moments import moment
from delegator.trail import Step, Trail

_KIND_OF = {Why.IDENTITY: Kind.IDENTITY, Why.DEVICES_TAKEN: Kind.TRY_LATER, Why.PACE: Kind.TRY_LATER,
            Why.LOCATION_UNKNOWN: Kind.TRY_LATER, Why.OWNER: Kind.TRY_LATER}
"""What a device is told, by reason; any other reason is NOT_ENTITLED, and NOT_ENTITLED wins among several."""
LIMIT_RETRY = 300
"""Seconds until a device asks again when all places are taken: longer than its usual 90, nobody is in a hurry."""
DNS_RETRY = 30
"""Seconds until a device asks again whose address could not be looked up: by then the failure is forgotten."""


class Judgement(msgspec.Struct, frozen=True):
    """Everything that was worked out about a device before a claim: shared by `provision` and `explain`."""

    tables: Tables
    route: Route
    customer: Customer
    policies: tuple[Applied, ...]
    decision: Decision


class Knowing(Protocol):
    """Where what is registered is known from: the store, or what it would be after a change."""

    async def about(self, device: Device) -> tuple[Tables, Candidates]: ...


async def judge(store: Knowing, facts: Facts, identity: IdentityKind, at: datetime, trail: Trail,
                domains: Domains | None = None) -> Judgement:
    """Route and decide, without any effect. Raises DelegatorError: NOT_ENTITLED when nobody owns the device,
    TRY_LATER when only the DNS could have told, and did not."""
    try:
        tables, found = await store.about(facts.device)
    except DelegatorError as error:
        raise HeldUp(error) from error
    route = choose(facts, found.registrations, tables.directory)
    if isinstance(route, NoRoute) and domains is not None and registered(facts.device, found.registrations) is None:
        route = await _by_domain(facts, route, domains, trail)
    if isinstance(route, NoRoute):
        raise DelegatorError(Kind.NOT_ENTITLED, f"{facts.device.service_tag}: {route.because}",
                             hint=route.hint, alternates=route.delegators)
    customer = _customer(route.delegate.customer, tables, domains)
    trail.facts |= {"customer": customer.name, "delegate": route.delegate.name}
    trail.registered = _is_its_own(route, facts)
    by_tag = route.registration is not None and route.registration.service_tag is not None
    case = Case(customer, route.delegate, identity, by_tag, found.approved, at, route.by_domain, facts.peer_address)
    policies = applied(customer, route.delegate, tables.policies)
    others = [(other, applied(customer, other, tables.policies)) for other in route.others]
    if asks_hosts(policies, case) or any(asks_hosts(theirs, case) for _, theirs in others):
        case = replace(case, hosts=await _hosts(case.peer, domains, trail))
    mark(trail, Step.ROUTED, f"customer {customer.title}, delegate {route.delegate.name}, "
                                   f"because {route.because}")
    decision = decide(policies, case)
    if others:
        route = replace(route, others=tuple(other for other, theirs in others
                                            if decide(theirs, replace(case, delegate=other)).allowed))
    names = ", ".join(one.policy.name for one in policies)
    mark(trail, Step.DECIDED, f"policy {names} " + ("allows it" if decision.allowed else "refuses"))
    return Judgement(tables, route, customer, policies, decision)


def _is_its_own(route: Route, facts: Facts) -> bool:
    """Whether a registration of this very tag led to the customer. Serial number and MAC address are only what a device
    says of itself."""
    return route.registration is not None and route.registration.service_tag == facts.device.service_tag


async def _by_domain(facts: Facts, route: NoRoute, domains: Domains, trail: Trail) -> Route | NoRoute:
    """For a device that nobody registered and no rule matches: whose domain it calls from."""
    finding = await domains.find(facts.peer_address)
    mark(trail, Step.LOOKED_UP, finding.because)
    if finding.late:
        raise DelegatorError(Kind.TRY_LATER, f"{facts.device.service_tag}: {route.because}; {finding.because}")
    if finding.domain is None:
        return replace(route, because=f"{route.because}; {finding.because}", delegators=())
    return Route(domains.found(finding), finding.because, by_domain=True)


async def _hosts(peer: str, domains: Domains | None, trail: Trail) -> Hosts:
    """The names that reverse DNS gives for the address the device calls from, for a policy that names domains."""
    if domains is None:
        return Hosts((), "reverse DNS is off, [domains] enabled")
    finding = await domains.find(peer)
    mark(trail, Step.LOOKED_UP, finding.because)
    return Hosts(finding.hosts, finding.because, finding.late)


def delegate_of(name: str, tables: Tables, domains: Domains | None) -> Delegate | None:
    """The delegate of this name, registered or standing for a domain."""
    by_domain = None if domains is None else domains.delegate(name)
    return by_domain or tables.directory.delegates.get(name)


def _customer(name: str, tables: Tables, domains: Domains | None) -> Customer:
    """The customer of this name, registered or standing for a domain. Raises DelegatorError (CONFIGURATION)."""
    customer = None if domains is None else domains.customer(name)
    if customer is None:
        return tables.customers[name]
    if customer.policy is not None and customer.policy not in tables.policies:
        raise DelegatorError(Kind.CONFIGURATION, f"[domains] policy names {customer.policy}, which there is not",
                             hint=f"delegator policies add {customer.policy}")
    return customer


def stand_in(delegate: Delegate, judgement: Judgement, now: datetime, since: int = 0) -> StandIn | None:
    """What the delegate's own policy says, which the claim was not opened under; None where it has none."""
    holder = f"delegate/{delegate.name}"
    policies = applied(judgement.customer, delegate, judgement.tables.policies)
    own = tuple(one for one in policies if one.holder == holder)
    if not own:
        return None
    return StandIn(delegate.name, own, milliseconds(now + min(one.policy.lease for one in own)), since)


def lent_until(claim: Claim, within: StandIn | None) -> datetime:
    """When the credential of a claim ends, if it is that delegate's."""
    return claim.lease_until if within is None else min(claim.lease_until, moment(within.lease_until))


_RETRY = {Why.LOCATION_UNKNOWN: DNS_RETRY}


def refusal(decision: Decision) -> DelegatorError:
    kinds = {_KIND_OF.get(reason.why, Kind.NOT_ENTITLED) for reason in decision.reasons}
    kind = next(kind for kind in (Kind.NOT_ENTITLED, Kind.IDENTITY, Kind.TRY_LATER) if kind in kinds)
    texts = tuple(str(reason) for reason in decision.reasons)
    later = max(reason.retry_after or _RETRY.get(reason.why, LIMIT_RETRY) for reason in decision.reasons)
    return DelegatorError(kind, "; ".join(texts), reasons=texts,
                          retry_after=later if kind is Kind.TRY_LATER else None)


def mark(trail: Trail, step: Step, note: str) -> None:
    """Take a step, now."""
    trail.mark(step, time.monotonic_ns(), note)
