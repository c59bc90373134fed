"""A policy as people say it: its fields, which of them go together, and how one is changed.

The invariants: what is not said is the safe choice of the model, or of a policy that is changed, left as it is; what is
said and taken back at once is refused.
Must not live here: files (policy_file), the words for what a policy says (policy_words), judging (delegator.policy).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from delegator.desk import forms, shapes
from delegator.desk.refusals import Clash
from delegator.desk.sheets import Field, Range, Sheet, many, switch, text
from delegator.model import CallbackWay, IdentityRule, Policy

MAX_DEVICES, CLAIMS_PER_HOUR, ATTEMPTS = Range(0), Range(1), Range(1)
IDENTITIES = tuple(rule.value for rule in IdentityRule)
_WAYS = tuple(way.value for way in CallbackWay)
_SAFE = Policy()


def identity(word: str) -> IdentityRule:
    """Raises ValueError."""
    if word not in IDENTITIES:
        raise ValueError(f"must be one of {', '.join(IDENTITIES)}")
    return IdentityRule(word)


def _callback(word: str) -> CallbackWay:
    """One way: in a file each has a place of its own in the list. Raises ValueError."""
    if word.strip() not in _WAYS:
        raise ValueError(f"{word[:64]!a} must be one of {', '.join(_WAYS)}")
    return CallbackWay(word.strip())


def made(fields: Mapping[str, Any]) -> Policy:
    """Raises ValueError."""
    return checked(Policy(**fields))


def checked(policy: Policy) -> Policy:
    """The policy, if its parts go together. Raises Clash. It is no invariant of the model: one that an older release
    has kept must be read, or a delegator could not start; it opens nothing."""
    if policy.valid_from is not None and policy.valid_until is not None and policy.valid_until <= policy.valid_from:
        begins, ends = shapes.at(policy.valid_from), shapes.at(policy.valid_until)
        raise Clash("{until} is not after {from}", at="until", **{"until": ends, "from": begins})
    return policy


def changed(policy: Policy, said: Mapping[str, Any], back: Iterable[str] = ()) -> Policy:
    """The policy with what was said, and without the fields that were taken back, both in the model's names. Raises
    Clash for what makes no sense."""
    taken = set(back)
    both = sorted(name for name, one in SHEET.fields.items() if one.into in said.keys() & taken)
    if both:
        raise Clash(", ".join(f"{{{name}}}" for name in both) + " is both said and unset", at=both[0])
    return checked(msgspec.structs.replace(policy, **{name: getattr(_SAFE, name) for name in taken}, **said))


SHEET: Sheet[Policy] = Sheet("policy", {
    "name": Field("name", text(forms.name)), "identity": Field("identity", text(identity)),
    "from": Field("valid_from", text(forms.moment), empty=True),
    "until": Field("valid_until", text(forms.moment), empty=True),
    "hours": Field("hours", many(forms.opening)), "networks": Field("networks", many(forms.network)),
    "domains": Field("domains", many(forms.domain)), "own_anywhere": Field("own_anywhere", switch),
    "approved_only": Field("approved_only", switch), "max_devices": Field("max_devices", MAX_DEVICES, empty=True),
    "claims_per_hour": Field("claims_per_hour", CLAIMS_PER_HOUR, empty=True), "attempts": Field("attempts", ATTEMPTS),
    "lease": Field("lease", text(forms.duration)),
    "callbacks": Field("callbacks", lambda value: frozenset(many(_callback)(value)), empty=True),
    "shared_by_domain": Field("shared_by_domain", switch), "custom_operations": Field("custom_operations", switch),
}, made, frozenset({"name"}))
