"""What a change lets in that was not let in before, in words. Pure.

Every command that can make more devices allowed says so, and asks here what to say: two values of a policy, two states
of the small tables, two registrations of a device are compared, and each difference by which a request that was refused
could be allowed gives a sentence.
The invariant, which is tested as a law: where a request that was refused before is allowed after, there are words. So
what cannot be told apart (which rule a device will match, which delegate its tag leads to) counts as looser; there may
be words where no device comes of it, never the other way round.
Must not live here: judging a request (policy, routing), which command changes what (cli).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from delegator.model import Customer, Delegate, IdentityRule, Policy, Registration, Rule
from delegator.model.hours import Opening
from delegator.policy import Applied, applied
from delegator.routing import Directory

_MINUTES = 24 * 60
_WEEK = 7 * _MINUTES


class Small(Protocol):
    """The small tables."""

    @property
    def customers(self) -> Mapping[str, Customer]: ...
    @property
    def policies(self) -> Mapping[str, Policy]: ...
    @property
    def directory(self) -> Directory: ...


# --- policies -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Term:
    """One thing that a policy can ask: `covers` when whatever the second refuses by it the first refuses too, and how
    what a policy asks is `said`."""

    name: str
    covers: Callable[[Applied, Applied], bool]
    said: Callable[[Policy], str]


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
    one = ipaddress.ip_network(network)
    return any(one.version == wide.version and one.subnet_of(wide)  # type: ignore[arg-type]
               for wide in map(ipaddress.ip_network, networks))


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


_TERMS: dict[str, _Term] = {
    "custom_operations": _Term("anything at all", lambda one, other: other.policy.custom_operations,
                               lambda one: "allowed" if one.custom_operations else "nothing is"),
    "callbacks": _Term("callbacks", _callbacks, lambda one: "all" if one.callbacks is None else
                       ", ".join(sorted(kind.value for kind in one.callbacks)) or "none"),
    "valid_from": _Term("from", _opens, lambda one: _time(one.valid_from, "any time")),
    "valid_until": _Term("until", _closes, lambda one: _time(one.valid_until, "no end")),
    "hours": _Term("hours", _hours, lambda one: "; ".join(map(str, one.hours)) or "always"),
    "networks": _Term("where from", _located, _where),
    "identity": _Term("identity", lambda one, other: other.policy.identity in (one.policy.identity,
                                                                               IdentityRule.EITHER),
                      lambda one: one.identity.value),
    "approved_only": _Term("which devices", _listed, lambda one: f"the list of policy {one.name}" if one.approved_only
                           else "any"),
    "shared_by_domain": _Term("shared certificate by reverse DNS alone",
                              lambda one, other: other.policy.shared_by_domain or not one.policy.shared_by_domain,
                              lambda one: "allowed" if one.shared_by_domain else "refused"),
    "max_devices": _Term("devices at once", _most(lambda one: one.max_devices), lambda one: _number(one.max_devices)),
    "attempts": _Term("attempts", lambda one, other: one.policy.attempts <= other.policy.attempts,
                      lambda one: str(one.attempts)),
    "claims_per_hour": _Term("claims an hour", _most(lambda one: one.claims_per_hour),
                             lambda one: _number(one.claims_per_hour)),
    "lease": _Term("a credential is given again for", lambda one, other: one.policy.lease == other.policy.lease,
                   lambda one: _lasting(one.lease)),
}
"""By the field that says it. A lease is looser either way: a longer one gives the same credential for longer, a
shorter one gives a place and a tag free for the next sooner."""
INCLUDED = {"domains": "networks", "own_anywhere": "networks"}
"""Fields that are judged with another one."""
FIELDS = frozenset({*_TERMS, *INCLUDED})
"""The fields of a policy that are compared: all of them but its name."""


def looser(before: Policy, after: Policy) -> tuple[str, ...]:
    """How the second allows what the first refused: a sentence for each such term, old -> new; () where it is as
    strict or stricter in everything."""
    return tuple(_loosened((Applied(before, ""),), (Applied(after, ""),)))


def _loosened(before: Sequence[Applied], after: Sequence[Applied], but: str = "") -> list[str]:
    """All policies must agree, so a term is kept as soon as one of those after covers it."""
    if not all(one.policy.custom_operations for one in after):
        return []
    return [f"{term.name}: {term.said(old.policy)} -> {_said(term, after)}" for old in before
            for field, term in _TERMS.items() if field != but and not any(term.covers(new, old) for new in after)]


def _said(term: _Term, policies: Sequence[Applied]) -> str:
    return " and ".join(dict.fromkeys(term.said(one.policy) for one in policies))


# --- ways to a delegate -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gate:
    """What stands between a device and a delegate that a route led to."""

    customer: Customer
    delegate: Delegate
    policies: tuple[Applied, ...]

    @property
    def closed(self) -> bool:
        return not (self.customer.enabled and self.delegate.enabled) or self.barred or not all(
            one.policy.custom_operations for one in self.policies)

    @property
    def barred(self) -> bool:
        """Whether a policy does not allow this way to reach the delegate."""
        return any(one.policy.callbacks is not None and self.delegate.kind not in one.policy.callbacks
                   for one in self.policies)

    @property
    def asks(self) -> str:
        """What it asks of a device, in words."""
        bare = Policy(attempts=1_000_000, identity=IdentityRule.EITHER, shared_by_domain=True)
        said = [f"{term.name} {_said(term, self.policies)}" for field, term in _TERMS.items()
                if field not in ("custom_operations", "lease", "callbacks")
                and any(term.said(one.policy) != term.said(bare) for one in self.policies)]
        return ", ".join(said)


def gate(tables: Small, delegate: Delegate) -> Gate:
    customer = tables.customers[delegate.customer]
    return Gate(customer, delegate, applied(customer, delegate, tables.policies))


def _opened(before: Gate | None, after: Gate) -> list[str]:
    """How devices pass the second that did not pass the first."""
    if after.closed:
        return []
    if before is None:
        return [f"they are answered, with {after.asks}"]
    stood = [f"{what} was disabled" for what, on in (
        (f"customer {before.customer.name}", before.customer.enabled),
        (f"delegate {before.delegate.name}", before.delegate.enabled)) if not on]
    if before.barred:
        stood.append(f"callback {before.delegate.kind.value} was not allowed")
    return [*stood, *_loosened(before.policies, after.policies, but="callbacks")]


def let_in(before: Small, after: Small, *, by_domain: bool = False) -> tuple[str, ...]:
    """What a change of the small tables lets in; `by_domain` where reverse DNS is asked about strangers."""
    found: dict[str, None] = {}
    for name in sorted(before.policies.keys() & after.policies.keys()):
        found |= dict.fromkeys(f"policy {name}: {text}" for text in looser(before.policies[name], after.policies[name]))
    for name in sorted(before.directory.delegates.keys() & after.directory.delegates.keys()):
        old, new = gate(before, before.directory.delegates[name]), gate(after, after.directory.delegates[name])
        if _assigned(old) != _assigned(new):
            found |= dict.fromkeys(f"devices of customer {new.customer.name} at delegate {name}: {text}"
                                   for text in _opened(old, new))
    if before.directory.rules != after.directory.rules:
        found |= dict.fromkeys(_strangers(before, after, by_domain))
    for name in sorted(after.customers):
        if _leading(before, name) != _leading(after, name):
            found |= dict.fromkeys(_undirected(before, after, name))
    return tuple(found)


def _assigned(one: Gate) -> object:
    """What decides, besides what the policies themselves say."""
    return (one.customer.enabled, one.delegate.enabled, one.delegate.kind,
            [(each.policy.name, each.holder) for each in one.policies])


@dataclass(frozen=True, slots=True)
class _Way:
    """One rule that is tried, or, without a rule, what is left when none matched."""

    rule: Rule | None
    gate: Gate | None

    def may_share(self, other: _Way) -> bool:
        """Whether one device can match both; never no for sure where it could."""
        if self.rule is None or other.rule is None:
            return True
        for field in ("model", "order"):
            mine, theirs = getattr(self.rule, field), getattr(other.rule, field)
            if mine is not None and theirs is not None and mine != theirs:
                return False
        mine, theirs = self.rule.tag_prefix, other.rule.tag_prefix
        return mine is None or theirs is None or mine.startswith(theirs) or theirs.startswith(mine)


def _strangers(before: Small, after: Small, by_domain: bool) -> Iterable[str]:
    """Devices that nobody registered: rules alone lead them."""
    def ways(tables: Small) -> list[_Way]:
        return [*_ways(tables, [rule for rule in tables.directory.rules if rule.order is None]), _Way(None, None)]
    old, new = ways(before), ways(after)
    for way, was, text in _shifts(old, new):
        if way.rule is not None and way.gate is not None:
            yield (f"devices that nobody registered, by rule {way.rule.name} at delegate {way.gate.delegate.name} of "
                   f"customer {way.gate.customer.name}: {text}")
        elif way.rule is None and by_domain and was.gate is not None:
            yield "devices that nobody registered: no rule leads them now, so reverse DNS may"


def _undirected(before: Small, after: Small, customer: str) -> Iterable[str]:
    """Devices registered to a customer that name no delegate: its rules lead them, else any of its delegates."""
    def ways(tables: Small) -> list[list[_Way]]:
        rest = [_Way(None, gate(tables, one)) for one in tables.directory.delegates_of.get(customer, ())]
        ruled = _ways(tables, tables.directory.rules_of.get(customer, ()))
        return [[*ruled, one] for one in rest or [_Way(None, None)]]
    same_pool = _pool(before, customer) == _pool(after, customer)
    for new in ways(after):
        for old in ways(before):
            for way, _, text in _shifts(old, new, same_pool):
                if way.gate is not None:
                    yield (f"devices registered to customer {customer} that name no delegate, at delegate "
                           f"{way.gate.delegate.name}: {text}")


def _leading(tables: Small, customer: str) -> object:
    return tables.directory.rules_of.get(customer, ()), _pool(tables, customer)


def _pool(tables: Small, customer: str) -> object:
    return [(one.name, one.priority, one.weight) for one in tables.directory.delegates_of.get(customer, ())]


def _ways(tables: Small, rules: Iterable[Rule]) -> list[_Way]:
    known = tables.directory.delegates
    return [_Way(rule, gate(tables, known[rule.delegate]) if rule.delegate is not None else None) for rule in rules]


def _shifts(old: Sequence[_Way], new: Sequence[_Way], same_rest: bool = True) -> Iterable[tuple[_Way, _Way, str]]:
    """Each way that devices may take now which took another one before, that one, and what they pass by it. Whoever
    takes a way matched nothing that is tried before it; so what was tried before it and is not any more was the other
    one, and for a new way whatever there was."""
    def key(way: _Way) -> object:
        return (way.rule.name, way.rule) if way.rule is not None else None
    places = {key(way): at for at, way in enumerate(old)}
    tried: set[object] = set()
    for way in new:
        place = places.get(key(way))
        there = place is not None and (way.rule is not None or same_rest)
        took = old[:place] if there else old
        for was in took:
            if key(was) not in tried and was.may_share(way):
                texts = [""] if way.gate is None else _opened(was.gate, way.gate)
                yield from ((way, was, text) for text in texts)
        tried.add(key(way) if way.rule is not None else _Way)


# --- devices ------------------------------------------------------------------------------------------------------


def of_device(before: Registration | None, after: Registration | None, tables: Small, *,
              by_domain: bool = False) -> tuple[str, ...]:
    """What a changed registration lets in; None where there is none, so that rules alone lead such a device."""
    new, old = _gates(after, tables), _gates(before, tables)
    name = _named(after or before)
    added = _added(before, after)
    found = [f"device {name}: {added}: customer {one.customer.name} answers it, with {one.asks}"
             for one in new if added and after is not None and not one.closed]
    if not found and after is not None and not _led_alike(before, after):
        found = _passed(f"device {name}", old, new)
    lost = _lost(before, after)
    if lost:
        found += _passed(f"a device with {lost}, which nobody registered now,", old, _gates(None, tables))
        if by_domain:
            found.append(f"a device with {lost}: nobody registered it now, so reverse DNS may lead it to an owner")
    return tuple(dict.fromkeys(found))


def _passed(what: str, old: Sequence[Gate], new: Iterable[Gate]) -> list[str]:
    was: list[Gate | None] = [*old] or [None]
    return [f"{what} at delegate {one.delegate.name} of customer {one.customer.name}: {text}"
            for one in new for other in was for text in _opened(other, one)]


def _led_alike(before: Registration | None, after: Registration | None) -> bool:
    return before is not None and after is not None and (
        (before.customer, before.delegate, before.order) == (after.customer, after.delegate, after.order))


def _named(one: Registration | None) -> str:
    assert one is not None
    return one.service_tag or one.serial_number or ", ".join(one.mac_addresses)


def _added(before: Registration | None, after: Registration | None) -> str:
    """The identifiers by which a device is known now and was not."""
    if after is None or after.customer is None:
        return ""
    new = dict.fromkeys(_identifiers(after))
    if before is not None and before.customer is not None:
        new = {each: None for each in new if each not in _identifiers(before)}
    return "known by " + ", ".join(new) if new else ""


def _lost(before: Registration | None, after: Registration | None) -> str:
    """The identifiers by which a device was known and is not now: it goes as nobody's, where rules lead it."""
    kept = [] if after is None else _identifiers(after)
    return "" if before is None else ", ".join(each for each in _identifiers(before) if each not in kept)


def _identifiers(one: Registration) -> list[str]:
    """Where there is a service tag, it alone says which device that is."""
    if one.service_tag is not None:
        return [f"service tag {one.service_tag}"]
    return [*([f"serial number {one.serial_number}"] if one.serial_number else []),
            *(f"MAC address {mac}" for mac in one.mac_addresses)]


def _gates(one: Registration | None, tables: Small) -> list[Gate]:
    """Wherever it may be led."""
    known = tables.directory.delegates
    if one is None:
        return [gate(tables, known[rule.delegate]) for rule in tables.directory.rules
                if rule.delegate is not None and rule.order is None]
    if one.customer is None:
        return []
    own = known.get(one.delegate or "")
    if own is not None and own.customer == one.customer:
        return [gate(tables, own)]
    return [gate(tables, delegate) for delegate in known.values() if delegate.customer == one.customer]
