"""How one policy allows what another refuses, term by term, old -> new. Pure.

The invariants: every field of a policy but its name is compared; what cannot be compared (hours of different zones,
lists of different policies, limits of different holders) counts as looser.
Must not live here: who has which policy and where that leads (widening), judging a request (policy).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from delegator.model import IdentityRule, Policy, places
from delegator.model.hours import Opening
from delegator.policy import Applied

_MINUTES = 24 * 60
_WEEK = 7 * _MINUTES


@dataclass(frozen=True, slots=True)
class Term:
    """One thing that a policy can ask: `covers` when whatever the second refuses by it the first refuses too, and how
    what a policy asks is `said`."""

    name: str
    covers: Callable[[Applied, Applied], bool]
    said: Callable[[Policy], str]
    counted: bool = False
    """Whether it counts the devices of its holder."""


def _most(most: Callable[[Policy], int | None]) -> Callable[[Applied, Applied], bool]:
    """A limit counts the devices of its holder alone, so another holder's limit stands for nothing."""
    def covers(one: Applied, other: Applied) -> bool:
        mine, theirs = most(one.policy), most(other.policy)
        return theirs is None or (mine is not None and mine <= theirs and one.holder == other.holder)
    return covers


def _binds(policy: Policy) -> bool:
    return bool(policy.networks or policy.domains)


def _located(one: Applied, other: Applied) -> bool:
    mine, theirs = one.policy, other.policy
    if not _binds(theirs):
        return True
    if not _binds(mine) or (mine.own_anywhere and not theirs.own_anywhere):
        return False
    return all(_inside(each, theirs.networks) for each in mine.networks) and all(
        any(each == wide or each.endswith("." + wide) for wide in theirs.domains) for each in mine.domains)


def _inside(network: str, networks: Iterable[str]) -> bool:
    """Read as those are that devices are judged by: nobody is in what is no network."""
    one = places.lenient(network)
    return one is None or any(
        wide is not None and one.version == wide.version and one.subnet_of(wide)  # type: ignore[arg-type]
        for wide in map(places.lenient, networks))


def _hours(one: Applied, other: Applied) -> bool:
    """By the wall clock of each zone: what is open in one zone is never taken to be inside what is in another."""
    mine, theirs = one.policy.hours, other.policy.hours
    if not theirs or not mine:
        return not theirs
    return all(_open(mine, zone) <= _open(theirs, zone) for zone in {each.zone for each in mine})


def _open(openings: Sequence[Opening], zone: str) -> set[int]:
    """The minutes of a week at which any of them is open by that zone's clock."""
    minutes: set[int] = set()
    for one in openings:
        if one.zone == zone:
            length = (one.closes - one.opens) % _MINUTES or _MINUTES
            minutes |= {(day * _MINUTES + one.opens + step) % _WEEK for day in one.days for step in range(length)}
    return minutes


def _callbacks(one: Applied, other: Applied) -> bool:
    mine, theirs = one.policy.callbacks, other.policy.callbacks
    return theirs is None or (mine is not None and mine <= theirs)


def _listed(one: Applied, other: Applied) -> bool:
    """Lists belong to policies by name; whether another list is shorter is not looked at."""
    return not other.policy.approved_only or (one.policy.approved_only and one.policy.name == other.policy.name)


def _opens(one: Applied, other: Applied) -> bool:
    mine, theirs = one.policy.valid_from, other.policy.valid_from
    return theirs is None or (mine is not None and mine >= theirs)


def _closes(one: Applied, other: Applied) -> bool:
    mine, theirs = one.policy.valid_until, other.policy.valid_until
    return theirs is None or (mine is not None and mine <= theirs)


def _where(policy: Policy) -> str:
    places = " or ".join([*policy.networks, *policy.domains])
    return (places + (" (own certificate: anywhere)" if policy.own_anywhere else "")) if places else "anywhere"


def _time(moment: datetime | None, otherwise: str) -> str:
    return otherwise if moment is None else moment.isoformat().replace("+00:00", "Z")


def _number(most: int | None) -> str:
    return "any number" if most is None else str(most)


def _lasting(lease: timedelta) -> str:
    return f"{int(lease.total_seconds())}s" if lease % timedelta(hours=1) else f"{lease // timedelta(hours=1)}h"


TERMS: dict[str, Term] = {
    "custom_operations": Term("anything at all", lambda one, other: other.policy.custom_operations,
                               lambda one: "allowed" if one.custom_operations else "nothing is"),
    "callbacks": Term("callbacks", _callbacks, lambda one: "all" if one.callbacks is None else
                       ", ".join(sorted(kind.value for kind in one.callbacks)) or "none"),
    "valid_from": Term("from", _opens, lambda one: _time(one.valid_from, "any time")),
    "valid_until": Term("until", _closes, lambda one: _time(one.valid_until, "no end")),
    "hours": Term("hours", _hours, lambda one: "; ".join(map(str, one.hours)) or "always"),
    "networks": Term("where from", _located, _where),
    "identity": Term("identity", lambda one, other: other.policy.identity in (one.policy.identity,
                                                                               IdentityRule.EITHER),
                      lambda one: one.identity.value),
    "approved_only": Term("which devices", _listed, lambda one: f"the list of policy {one.name}" if one.approved_only
                           else "any"),
    "shared_by_domain": Term("shared certificate by reverse DNS alone",
                              lambda one, other: other.policy.shared_by_domain or not one.policy.shared_by_domain,
                              lambda one: "allowed" if one.shared_by_domain else "refused"),
    "max_devices": Term("devices at once", _most(lambda one: one.max_devices), lambda one: _number(one.max_devices),
                        counted=True),
    "attempts": Term("attempts", lambda one, other: one.policy.attempts <= other.policy.attempts,
                      lambda one: str(one.attempts)),
    "claims_per_hour": Term("claims an hour", _most(lambda one: one.claims_per_hour),
                            lambda one: _number(one.claims_per_hour), counted=True),
    "lease": Term("a credential is given again for", lambda one, other: one.policy.lease <= other.policy.lease,
                   lambda one: _lasting(one.lease)),
}
"""By the field that says it. A longer lease gives the same credential for longer; a shorter one, whose places and tags
are free sooner, is left to the limits of devices and attempts."""
INCLUDED = {"domains": "networks", "own_anywhere": "networks"}
"""Fields that are judged with another one."""
FIELDS = frozenset({*TERMS, *INCLUDED})
"""The fields of a policy that are compared: all of them but its name."""


def looser(before: Policy, after: Policy) -> tuple[str, ...]:
    """How the second allows what the first refused: a sentence for each such term, old -> new; () where it is as
    strict or stricter in everything."""
    return tuple(loosened((Applied(before, ""),), (Applied(after, ""),)))


def loosened(before: Sequence[Applied], after: Sequence[Applied], but: str = "") -> list[str]:
    """All policies must agree, so a term is kept as soon as one of those after covers it."""
    if not all(one.policy.custom_operations for one in after):
        return []
    return [f"{term.name}: {said(term, (old,))} -> {said(term, after)}" for old in before
            for field, term in TERMS.items() if field != but and not any(term.covers(new, old) for new in after)]


def said(term: Term, policies: Sequence[Applied]) -> str:
    """What policies ask by a term, each thing once; of a limit also whose devices it counts."""
    return " and ".join(dict.fromkeys(
        f"{told} of {one.holder.replace('/', ' ')}" if term.counted and one.holder and told.isdigit() else told
        for one in policies for told in (term.said(one.policy),)))
