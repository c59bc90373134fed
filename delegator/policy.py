"""Policy: what a customer allows. Block 214.

Pure: (policies, case) -> Decision, and the decision always lists every reason, not the first one. `over_limits`
and `over_pace` are the part that depends on counts; the store calls them inside the transaction that takes the place,
so that a limit is exact.
The invariants: what no policy speaks of is decided the safe way (identity `own`, no shared certificate); what cannot
be known (a zone, a name of an address) allows nothing.
Must not live here: routing, counting, clocks, the DNS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import accumulate

import msgspec

from delegator.model import Customer, Delegate, IdentityKind, IdentityRule, Policy
from delegator.model.hours import local
from delegator.model.places import is_beneath, is_within
from delegator.model.word import Word

WINDOW = 60
"""Minutes that a claim counts against `claims_per_hour`, after the one in which it was opened: so never more than
that many in any hour, and a claim is forgotten within the 61st minute."""
Pace = Sequence[tuple[int, int]]
"""Claims opened of late: (minute since 1970, how many), the earliest first, as far as they still count."""


class Hosts(msgspec.Struct, frozen=True):
    """The forward-confirmed names of a device's address, or `because` there are none; `late` when the DNS gave no
    answer, which says nothing about the device."""

    names: tuple[str, ...]
    because: str
    late: bool = False


class Case(msgspec.Struct, frozen=True):
    """Everything a policy may look at. `approved` names the policies whose list holds this tag; `by_domain` says that
    reverse DNS alone led to the customer; `peer` is the address the device was seen at, never one that it says;
    `hosts` are its names in the DNS, None where nobody asked (see `asks_hosts`)."""

    customer: Customer
    delegate: Delegate
    identity: IdentityKind
    registered: bool
    approved: frozenset[str]
    now: datetime
    by_domain: bool = False
    peer: str = ""
    hosts: Hosts | None = None


class Why(Word):
    """Every way in which a policy can say no."""

    DISABLED = "disabled"
    UNREGISTERED = "unregistered"
    NOT_ALLOWED = "not allowed"
    NOT_YET = "not yet"
    CLOSED = "closed"
    HOURS = "hours"
    LOCATION = "location"
    LOCATION_UNKNOWN = "location unknown"
    IDENTITY = "identity"
    NOT_APPROVED = "not approved"
    DOMAIN_ALONE = "domain alone"
    DEVICES_TAKEN = "devices taken"
    ATTEMPTS_USED = "attempts used"
    PACE = "claims per hour"
    BOARD = "main board"
    OWNER = "owner changed"


class Reason(msgspec.Struct, frozen=True):
    """One reason against: its kind for programs, its text for people. `retry_after` is in how many seconds it may
    hold no more, where that is known."""

    why: Why
    text: str
    retry_after: int | None = None

    def __str__(self) -> str:
        return self.text


class Decision(msgspec.Struct, frozen=True):
    """Allowed, or every reason why not."""

    reasons: tuple[Reason, ...]

    @property
    def allowed(self) -> bool:
        return not self.reasons


class Applied(msgspec.Struct, frozen=True):
    """A policy and the holder whose devices its limits count: "customer/<name>" or "delegate/<name>"."""

    policy: Policy
    holder: str


def applied(customer: Customer, delegate: Delegate, policies: Mapping[str, Policy]) -> tuple[Applied, ...]:
    """The policies that apply: the customer's and the delegate's, or the safe default if neither has one."""
    pairs = ((customer.policy, f"customer/{customer.name}"), (delegate.policy, f"delegate/{delegate.name}"))
    found = tuple(Applied(policies[name], holder) for name, holder in pairs if name is not None)
    return found or (Applied(_SAFE, f"customer/{customer.name}"),)


_SAFE = Policy()


def decide(policies: Sequence[Applied], case: Case) -> Decision:
    """Judge a case by all policies that apply. All must agree."""
    reasons = _standing(case)
    for one in policies:
        for check in _CHECKS:
            found = check(one.policy, case)
            if found is not None:
                reasons.append(Reason(found[0], f"policy {one.policy.name}: {found[1]}"))
    return Decision(tuple(reasons))


def asks_hosts(policies: Sequence[Applied], case: Case) -> bool:
    """Whether the names of the device's address could make a difference: then somebody must ask the DNS."""
    for one in policies:
        policy = one.policy
        if policy.domains and _binds(policy, case) and not in_networks(case.peer, policy.networks):
            return True
    return False


def over_limits(policies: Sequence[Applied], places: Mapping[str, int], attempts: int) -> tuple[Reason, ...]:
    """Why a further claim would break a limit, or (). `places` counts devices that hold a claim, by holder;
    `attempts` counts this tag's expired claims."""
    reasons = []
    for policy, holder in ((one.policy, one.holder) for one in policies):
        if policy.max_devices is not None and places.get(holder, 0) >= policy.max_devices:
            reasons.append(Reason(Why.DEVICES_TAKEN,
                                  f"policy {policy.name}: all {policy.max_devices} devices are taken"))
        if attempts >= policy.attempts:
            reasons.append(Reason(Why.ATTEMPTS_USED, f"policy {policy.name}: {policy.attempts} attempts are used up"))
    return tuple(reasons)


def capped(policies: Sequence[Applied]) -> tuple[tuple[str, int], ...]:
    """The holders of which only so many devices may be served, each with how many; usually none."""
    found: tuple[tuple[str, int], ...] = ()
    for one in policies:
        if one.policy.max_devices is not None:
            found += ((one.holder, one.policy.max_devices),)
    return found


def paced(policies: Sequence[Applied]) -> tuple[str, ...]:
    """The holders whose claims are counted by the hour; usually none."""
    found: tuple[str, ...] = ()
    for one in policies:
        if one.policy.claims_per_hour is not None:
            found += (one.holder,)
    return found


def over_pace(policies: Sequence[Applied], paces: Mapping[str, Pace], now: datetime) -> tuple[Reason, ...]:
    """Why a further claim would be one too many for an hour, or (). `paces` holds what was opened within the window,
    by holder."""
    reasons = []
    for policy, holder in ((one.policy, one.holder) for one in policies):
        most, pace = policy.claims_per_hour, paces.get(holder, ())
        if most is not None and (opened := sum(many for _, many in pace)) >= most:
            reasons.append(Reason(Why.PACE, f"policy {policy.name}: {opened} of {most} claims an hour are used",
                                  _until_room(pace, opened - most, now)))
    return tuple(reasons)


def _until_room(pace: Pace, too_many: int, now: datetime) -> int:
    """Seconds until there is room again: until the earliest `too_many` claims and one more have left the window. There
    are that many, since a limit is at least 1."""
    gone = accumulate(many for _, many in pace)
    minute = next(minute for (minute, _), so_far in zip(pace, gone, strict=True) if so_far > too_many)
    return max(1, (minute + WINDOW + 1) * 60 - int(now.timestamp()))


def _standing(case: Case) -> list[Reason]:
    """Reasons that count whatever any policy says."""
    reasons = []
    if not case.customer.enabled:
        reasons.append(Reason(Why.DISABLED, f"customer {case.customer.name} is disabled"))
    if not case.delegate.enabled:
        reasons.append(Reason(Why.DISABLED, f"delegate {case.delegate.name} is disabled"))
    if case.identity is IdentityKind.SHARED and not case.registered and not case.by_domain:
        reasons.append(Reason(Why.UNREGISTERED, "a shared certificate needs a device that is registered"))
    return reasons


_Found = tuple[Why, str] | None


def _custom_operations(policy: Policy, case: Case) -> _Found:
    if not policy.custom_operations:
        return Why.NOT_ALLOWED, "custom operations are not allowed"
    return None


def _callbacks(policy: Policy, case: Case) -> _Found:
    if policy.callbacks is not None and case.delegate.way not in policy.callbacks:
        return Why.NOT_ALLOWED, f"callback {case.delegate.way.value} is not allowed"
    return None


def _opening(policy: Policy, case: Case) -> _Found:
    """From is inclusive, until is not, so that two windows can meet."""
    if policy.valid_from is not None and case.now < policy.valid_from:
        return Why.NOT_YET, f"provisioning opens at {policy.valid_from.isoformat()}"
    return None


def _closing(policy: Policy, case: Case) -> _Found:
    if policy.valid_until is not None and case.now >= policy.valid_until:
        return Why.CLOSED, f"provisioning closed at {policy.valid_until.isoformat()}"
    return None


def _hours(policy: Policy, case: Case) -> _Found:
    """Hours allow it if any of the openings is open. A time zone that this machine does not know never is."""
    if not policy.hours:
        return None
    unknown = set()
    for one in policy.hours:
        try:
            if one.is_open(case.now):
                return None
        except LookupError:
            unknown.add(one.zone)
    said = "; ".join(map(str, policy.hours))
    if unknown:
        zones = ", ".join(sorted(unknown))
        return Why.HOURS, f"outside its hours, {said}: this machine does not know the time zone {zones}"
    zones_of = dict.fromkeys(one.zone for one in policy.hours)
    shown = ", ".join(f"{local(case.now, zone):%a %H:%M} {zone}" for zone in zones_of)
    return Why.HOURS, f"outside its hours, {said}: it is {shown}"


def _location(policy: Policy, case: Case) -> _Found:
    """Networks are asked first: they cost no look-up."""
    if not (policy.networks or policy.domains) or not _binds(policy, case) or in_networks(case.peer, policy.networks):
        return None
    said = f"{case.peer or 'an unknown address'} is in none of its networks" if policy.networks else ""
    if not policy.domains:
        return Why.LOCATION, f"{said}, {', '.join(policy.networks)}"
    hosts = case.hosts or _UNASKED
    if any(is_beneath(name, domain) for name in hosts.names for domain in policy.domains):
        return None
    why = Why.LOCATION_UNKNOWN if hosts.late else Why.LOCATION
    return why, f"{said}{' and ' if said else ''}not confirmed in {', '.join(policy.domains)}: {hosts.because}"


_UNASKED = Hosts((), "reverse DNS was not asked")


def _binds(policy: Policy, case: Case) -> bool:
    """Whether the policy's networks and domains apply to this device."""
    return case.identity is IdentityKind.SHARED or not policy.own_anywhere


def in_networks(peer: str, networks: Sequence[str]) -> bool:
    """Whether an address is in one of the networks; what is no address, as on a Unix socket, is in none. An IPv4
    address inside IPv6 is that IPv4 address."""
    return bool(networks) and is_within(peer, networks)


def _identity(policy: Policy, case: Case) -> _Found:
    if policy.identity is IdentityRule.EITHER or policy.identity.value == case.identity.value:
        return None
    return Why.IDENTITY, f"identity must be {policy.identity.value}, the device showed {case.identity.value}"


def _approved(policy: Policy, case: Case) -> _Found:
    if policy.approved_only and policy.name not in case.approved:
        return Why.NOT_APPROVED, "the service tag is not on the approved list"
    return None


def _shared_by_domain(policy: Policy, case: Case) -> _Found:
    """Together they prove no more than "one of ours, at an address whose owner may write any name" (RFC 8601 3)."""
    if case.by_domain and case.identity is IdentityKind.SHARED and not policy.shared_by_domain:
        return Why.DOMAIN_ALONE, "a shared certificate and reverse DNS are not enough"
    return None


_CHECKS: tuple[Callable[[Policy, Case], _Found], ...] = (
    _custom_operations, _callbacks, _opening, _closing, _hours, _location, _identity, _approved, _shared_by_domain)
