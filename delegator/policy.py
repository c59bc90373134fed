"""Policy: what a customer allows. Block 214.

Pure: (policies, case) -> Decision, and the decision always lists every reason, not the first one. `over_limits`
is the part that depends on counts; the store calls it inside the transaction that takes the place, so that a
limit is exact.
The invariant: what no policy speaks of is decided the safe way (identity `own`, no shared certificate).
Must not live here: routing, counting, clocks.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from delegator.model import Customer, Delegate, IdentityKind, IdentityRule, Policy


@dataclass(frozen=True, slots=True)
class Case:
    """Everything a policy may look at. `approved` names the policies whose list holds this tag; `by_domain` says that
    reverse DNS alone led to the customer."""

    customer: Customer
    delegate: Delegate
    identity: IdentityKind
    registered: bool
    approved: frozenset[str]
    now: datetime
    by_domain: bool = False


class Why(enum.Enum):
    """Every way in which a policy can say no."""

    DISABLED = "disabled"
    UNREGISTERED = "unregistered"
    NOT_ALLOWED = "not allowed"
    NOT_YET = "not yet"
    CLOSED = "closed"
    IDENTITY = "identity"
    NOT_APPROVED = "not approved"
    DOMAIN_ALONE = "domain alone"
    DEVICES_TAKEN = "devices taken"
    ATTEMPTS_USED = "attempts used"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason against: its kind for programs, its text for people."""

    why: Why
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Decision:
    """Allowed, or every reason why not."""

    reasons: tuple[Reason, ...]

    @property
    def allowed(self) -> bool:
        return not self.reasons


@dataclass(frozen=True, slots=True)
class Applied:
    """A policy and the holder whose devices its limits count: "customer/<name>" or "delegate/<name>"."""

    policy: Policy
    holder: str


def applied(customer: Customer, delegate: Delegate, policies: Mapping[str, Policy]) -> tuple[Applied, ...]:
    """The policies that speak: the customer's and the delegate's; the safe default where there is neither."""
    pairs = ((customer.policy, f"customer/{customer.name}"), (delegate.policy, f"delegate/{delegate.name}"))
    found = tuple(Applied(policies[name], holder) for name, holder in pairs if name is not None)
    return found or (Applied(Policy(), f"customer/{customer.name}"),)


def decide(policies: Sequence[Applied], case: Case) -> Decision:
    """Judge a case by all policies that apply. All must agree."""
    reasons = [reason for holds, reason in _standing(case) if not holds]
    for one in policies:
        found = [check(one.policy, case) for check in _CHECKS]
        reasons += [Reason(why, f"policy {one.policy.name}: {text}") for why, text in filter(None, found)]
    return Decision(tuple(reasons))


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


def _standing(case: Case) -> tuple[tuple[bool, Reason], ...]:
    return (
        (case.customer.enabled, Reason(Why.DISABLED, f"customer {case.customer.name} is disabled")),
        (case.delegate.enabled, Reason(Why.DISABLED, f"delegate {case.delegate.name} is disabled")),
        (case.identity is IdentityKind.OWN or case.registered or case.by_domain,
         Reason(Why.UNREGISTERED, "a shared certificate needs a device that is registered")),
    )


_Found = tuple[Why, str] | None


def _custom_operations(policy: Policy, case: Case) -> _Found:
    if not policy.custom_operations:
        return Why.NOT_ALLOWED, "custom operations are not allowed"
    return None


def _callbacks(policy: Policy, case: Case) -> _Found:
    if policy.callbacks is not None and case.delegate.kind not in policy.callbacks:
        return Why.NOT_ALLOWED, f"callback {case.delegate.kind.value} is not allowed"
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
    _custom_operations, _callbacks, _opening, _closing, _identity, _approved, _shared_by_domain)
