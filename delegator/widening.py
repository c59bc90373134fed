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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from delegator.looser import FIELDS, TERMS, loosened, looser, said
from delegator.model import Customer, Delegate, IdentityRule, Policy, Registration, Rule
from delegator.policy import Applied, applied
from delegator.routing import Directory

__all__ = ["FIELDS", "Gate", "gate", "let_in", "looser", "of_device", "taken_over"]


class Small(Protocol):
    """The small tables."""

    @property
    def customers(self) -> Mapping[str, Customer]: ...
    @property
    def policies(self) -> Mapping[str, Policy]: ...
    @property
    def directory(self) -> Directory: ...


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
        return any(one.policy.callbacks is not None and self.delegate.way not in one.policy.callbacks
                   for one in self.policies)

    @property
    def asks(self) -> str:
        """What it asks of a device, in words."""
        bare = Policy(attempts=1_000_000, identity=IdentityRule.EITHER, shared_by_domain=True)
        asked = [f"{term.name} {said(term, self.policies)}" for field, term in TERMS.items()
                if field not in ("custom_operations", "lease", "callbacks", "shared_by_domain")
                and any(term.said(one.policy) != term.said(bare) for one in self.policies)]
        return ", ".join(asked)


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
        stood.append(f"callback {before.delegate.way.value} was not allowed")
    return [*stood, *loosened(before.policies, after.policies, but="callbacks")]


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


def taken_over(tables: Small, added: Delegate) -> tuple[str, ...]:
    """Which devices a delegate takes at once that was added to others: those that name none, of its customer, where
    none of the others is asked before it."""
    pool = tables.directory.delegates_of.get(added.customer, ())
    if added not in pool or added.priority > min(one.priority for one in pool):
        return ()
    way = gate(tables, added)
    if way.closed:
        return ()
    shared = any(one.priority == added.priority for one in pool if one.name != added.name)
    return (f"devices registered to customer {added.customer} that name no delegate, at delegate {added.name}, which "
            f"takes {'its share of them' if shared else 'all of them'} at once where no rule leads them: they are "
            f"answered, with {way.asks}",)


def _assigned(one: Gate) -> object:
    """What decides, besides what the policies themselves say."""
    return (one.customer.enabled, one.delegate.enabled, one.delegate.way,
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
