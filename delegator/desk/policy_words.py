"""What a policy says, in people's words: a sentence for each thing that it limits.

The invariant: every field of a policy has its words here, and what it does not say has none but the identity.
Must not live here: data (shapes), judging (delegator.policy).
"""

from __future__ import annotations

from collections.abc import Callable

from delegator.desk import shapes
from delegator.model import IdentityRule, Policy

_IDENTITY = {IdentityRule.OWN: "with its own certificate", IdentityRule.SHARED: "with the shared certificate",
             IdentityRule.EITHER: "with its own or the shared certificate"}


def _callbacks(policy: Policy) -> str | None:
    if policy.callbacks is None:
        return None
    return f"by callback {', '.join(sorted(kind.value for kind in policy.callbacks)) or 'none'} only"


def _whence(policy: Policy) -> str | None:
    """Networks and domains are one condition: either of them is enough."""
    places = [*policy.networks, *(f"addresses confirmed in {domain}" for domain in policy.domains)]
    if not places:
        return None
    return f"from {' or '.join(places)}" + (", unless with its own certificate" if policy.own_anywhere else "")


def in_vain(policy: Policy) -> tuple[str, ...]:
    """What a policy says of domains that allows nothing while reverse DNS is not asked."""
    off = "while reverse DNS is off ([domains] enabled = false)"
    found = []
    if policy.domains:
        left = [*(["addresses in its networks"] if policy.networks else []),
                *(["devices with a certificate of their own"] if policy.own_anywhere else [])]
        found.append(f"{off} no address is confirmed in {', '.join(policy.domains)}, so this policy allows " + (
            f"{' and '.join(left)} only" if left else "nothing"))
    if policy.shared_by_domain:
        found.append(f"{off} it leads no device here, so --shared-by-domain allows nothing")
    return tuple(found)


_WORDS: dict[str, Callable[[Policy], str | None]] = {
    "custom_operations": lambda one: None if one.custom_operations else "nothing is allowed",
    "identity": lambda one: _IDENTITY[one.identity],
    "valid_from": lambda one: None if one.valid_from is None else f"from {shapes.at(one.valid_from)} on",
    "valid_until": lambda one: None if one.valid_until is None else f"until {shapes.at(one.valid_until)}",
    "hours": lambda one: "; ".join(map(str, one.hours)) or None,
    "networks": _whence,
    "approved_only": lambda one: "only devices on its list" if one.approved_only else None,
    "max_devices": lambda one: None if one.max_devices is None else f"{one.max_devices} devices at most",
    "claims_per_hour": lambda one: None if one.claims_per_hour is None
                                   else f"{one.claims_per_hour} claims an hour at most",
    "attempts": lambda one: f"{one.attempts} attempts for each device",
    "lease": lambda one: f"the same credential for {shapes.lasting(one.lease)}",
    "callbacks": _callbacks,
    "shared_by_domain": lambda one: "a shared certificate where reverse DNS alone led here"
                                    if one.shared_by_domain else None,
}
INCLUDED = {"domains": "networks", "own_anywhere": "networks"}
"""Fields that are told with another one."""


def said(policy: Policy) -> list[str]:
    """A sentence for each thing the policy says, in the order in which a device meets them."""
    return [told for words in _WORDS.values() if (told := words(policy)) is not None]


def fields() -> set[str]:
    """The fields that have words."""
    return {*_WORDS, *INCLUDED}
