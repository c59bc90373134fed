"""Routing: facts about a device and what is registered lead to a delegate. Block 213.

Pure: the same function serves devices and answers `delegator explain`. A route always carries its `because`.
The order is fixed: exact service tag, serial number, MAC address, whose registration names a customer or leaves that to
its order; then rules (order, model, prefixes, network, domain) by priority, then the default rule, then nothing. What
is registered and belongs to nobody yet is in stock and has no way. A rule can choose among the delegates of the
customer that a device is registered to; it can never take a registered device to another customer.
Must not live here: look-ups (the store finds the candidates), policy, DNS.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence

import msgspec

from delegator.model import (
    Delegate,
    Device,
    Location,
    Registration,
    Rule,
    is_placeholder_mac,
    is_placeholder_serial,
)
from delegator.model.places import is_beneath, is_within, network


class Facts(msgspec.Struct, frozen=True):
    """What is known of the device that asks: what it says, and from which address it says it."""

    device: Device
    location: Location
    peer_address: str


class Route(msgspec.Struct, frozen=True):
    """The way to a delegate. `registration` is None when only a rule led there; `others` stand in, in this order,
    when the delegate cannot be reached."""

    delegate: Delegate
    because: str
    registration: Registration | None = None
    others: tuple[Delegate, ...] = ()
    by_domain: bool = False
    """Nothing but reverse DNS led there (see domains.py)."""


class NoRoute(msgspec.Struct, frozen=True):
    """Nobody here is known to own the device; `because` says how far the search came, `delegators` who may know,
    `hint` what an operator can do about it."""

    because: str
    delegators: tuple[str, ...] = ()
    hint: str = "register it with: delegator devices add"

    def __eq__(self, other: object) -> bool:
        """By what was found; what can be done about it is no part of that."""
        if not isinstance(other, NoRoute):
            return NotImplemented
        return (self.because, self.delegators) == (other.because, other.delegators)

    def __hash__(self) -> int:
        return hash((self.because, self.delegators))


class Directory(msgspec.Struct, frozen=True):
    """The small tables routing works on, put in order once by `directory`."""

    delegates: dict[str, Delegate]
    rules: tuple[Rule, ...]
    rules_of: dict[str, tuple[Rule, ...]]
    delegates_of: dict[str, tuple[Delegate, ...]]


def directory(delegates: Iterable[Delegate], rules: Iterable[Rule]) -> Directory:
    """Order the tables: rules with conditions by priority and name, rules without any (the default) at the end;
    a customer's delegates by name, the disabled ones only where there is no other."""
    by_name = {delegate.name: delegate for delegate in delegates}
    known = [rule for rule in rules if rule.delegate in by_name or rule.delegator is not None]
    ordered = tuple(sorted(known, key=lambda rule: (not _conditions(rule), rule.priority, rule.name)))
    rules_of: dict[str, tuple[Rule, ...]] = {}
    for rule in ordered:
        if rule.delegate is not None:
            customer = by_name[rule.delegate].customer
            rules_of[customer] = (*rules_of.get(customer, ()), rule)
    delegates_of: dict[str, tuple[Delegate, ...]] = {}
    for delegate in sorted(by_name.values(), key=lambda d: (not d.enabled, d.name)):
        before = delegates_of.get(delegate.customer, ())
        if delegate.enabled or not before:
            delegates_of[delegate.customer] = (*before, delegate)
    return Directory(by_name, ordered, rules_of, delegates_of)


def by_preference(delegates: Sequence[Delegate], service_tag: str) -> tuple[Delegate, ...]:
    """The order in which a customer's delegates are asked for a device: by priority, then shared out by weight.

    Weighted rendezvous hashing: a device keeps its order whatever happens to other devices, and taking one delegate
    away moves only the devices that had it first.
    """
    def place(delegate: Delegate) -> tuple[int, float, str]:
        digest = hashlib.sha256(f"{service_tag}/{delegate.name}".encode()).digest()
        share = (int.from_bytes(digest[:7], "big") + 1) / 2**56
        return delegate.priority, -math.log(share) / delegate.weight, delegate.name
    return tuple(delegates) if len(delegates) == 1 else tuple(sorted(delegates, key=place))


NOBODY = "not registered, and no rule matches"
"""The reason given where a device is neither registered nor matched by a rule."""
_IDENTIFIERS = ("service tag", "serial number", "MAC address")
"""Strongest first."""


def identified_by(registration: Registration, device: Device) -> str | None:
    """Which identifier ties this registration to the device, or None. A registered tag that differs always
    means None: a serial number or MAC address is only said, and must not pull another device's row. What thousands of
    machines say (a placeholder) ties nobody to anything, wherever it is registered."""
    if registration.service_tag is not None:
        return _IDENTIFIERS[0] if registration.service_tag == device.service_tag else None
    serial = registration.serial_number
    if serial is not None and serial == device.serial_number and not is_placeholder_serial(serial):
        return _IDENTIFIERS[1]
    if not all(map(is_placeholder_mac, set(registration.mac_addresses) & set(device.mac_addresses))):
        return _IDENTIFIERS[2]
    return None


def _nobodys(device: Device) -> str:
    """The serial number and addresses that are placeholders (thousands of machines say the same), in words for the
    refusal: they were not looked up."""
    serial = device.serial_number
    said = [] if serial is None or not is_placeholder_serial(serial) else [serial]
    said += filter(is_placeholder_mac, device.mac_addresses)
    return f" ({', '.join(said)}: a placeholder, which finds nobody)" if said else ""


def registered(device: Device, candidates: Sequence[Registration]) -> tuple[Registration, str] | None:
    """The strongest registration among the candidates and the identifier that found it."""
    found = [(r, by) for r in candidates if (by := identified_by(r, device)) is not None]
    return min(found, key=lambda pair: (_IDENTIFIERS.index(pair[1]), pair[0].device_id), default=None)


def choose(facts: Facts, candidates: Sequence[Registration], tables: Directory) -> Route | NoRoute:
    """Find the delegate for a device. Never raises; order as in the module's contract."""
    found = registered(facts.device, candidates)
    if found is None:
        matched = _first_match(tables.rules, facts, None)
        if matched is None:
            return NoRoute(f"{NOBODY}{_nobodys(facts.device)}")
        return _by_rule(*matched, tables, None)
    registration, by = found
    if registration.customer is None:
        return _in_stock(registration, by, facts, tables)
    own = tables.delegates.get(registration.delegate or "")
    known = f"its {by} is registered" if not registration.by_order else (
        f"its {by} is registered in order {registration.order}, which belongs to {registration.customer},")
    if own is not None and own.customer == registration.customer:
        return Route(own, f"{known} with delegate {own.name}", registration)
    owned = known.removesuffix(",") if registration.by_order else f"{known} to customer {registration.customer}"
    matched = _first_match(tables.rules_of.get(registration.customer, ()), facts, registration)
    if matched is not None:
        return _by_rule(matched[0], f"{owned}; {matched[1]}", tables, registration)
    if registration.customer in tables.delegates_of:
        first, *others = by_preference(tables.delegates_of[registration.customer], facts.device.service_tag)
        return Route(first, owned, registration, tuple(others))
    return NoRoute(f"{owned}, which has no delegate",
                   hint=f"give it one with: delegator delegates add NAME --customer {registration.customer}")


def _in_stock(registration: Registration, by: str, facts: Facts, tables: Directory) -> NoRoute:
    """The answer for a device in stock: nobody owns it yet. Other delegators are named as for an unknown device."""
    order = "" if registration.order is None else f": order {registration.order} belongs to no customer yet"
    sold = (f"orders add {registration.order}" if registration.order is not None else
            f"devices change {registration.service_tag or 'DEVICE'}")
    return NoRoute(f"its {by} is registered, in stock{order}", elsewhere(facts, tables),
                   f"say whose it is with: delegator {sold} --customer NAME")


def elsewhere(facts: Facts, tables: Directory) -> tuple[str, ...]:
    """The delegators that rules name for a device as it describes itself, whether or not it is registered here."""
    matched = _first_match(tables.rules, facts, None)
    return () if matched is None or matched[0].delegator is None else (matched[0].delegator,)


def _by_rule(rule: Rule, because: str, tables: Directory, registration: Registration | None) -> Route | NoRoute:
    if rule.delegate is not None:
        return Route(tables.delegates[rule.delegate], because, registration)
    assert rule.delegator is not None
    return NoRoute(f"not registered; {because} sends it to {rule.delegator}", (rule.delegator,))


def _first_match(rules: Sequence[Rule], facts: Facts, registration: Registration | None) -> tuple[Rule, str] | None:
    for rule in rules:
        conditions = _conditions(rule)
        if all(_CONDITIONS[name](wanted, facts, registration) for name, wanted in conditions):
            said = ", ".join(f"{name.replace('_', ' ')} {wanted}" for name, wanted in conditions)
            return rule, f"rule {rule.name} ({said or 'the default'})"
    return None


_Condition = Callable[[str, Facts, "Registration | None"], bool]


def _in_network(wanted: str, facts: Facts, _: Registration | None) -> bool:
    return is_within(facts.peer_address, (wanted,))


def _in_domain(wanted: str, facts: Facts, _: Registration | None) -> bool:
    return is_beneath(facts.location.domain or facts.location.host_name or "", wanted)


_CONDITIONS: dict[str, _Condition] = {
    "order": lambda wanted, _, registration: registration is not None and registration.order == wanted,
    "model": lambda wanted, facts, _: facts.device.model == wanted,
    "tag_prefix": lambda wanted, facts, _: facts.device.service_tag.startswith(wanted),
    "mac_prefix": lambda wanted, facts, _: any(m.startswith(wanted.upper()) for m in facts.device.mac_addresses),
    "network": _in_network,
    "domain": _in_domain,
}


def catches_all(rule: Rule) -> bool:
    """Whether a rule leads every device to a delegate. That is so if it has no condition, and also if its only one is a
    network so wide that it keeps nobody out."""
    return rule.delegate is not None and not any(
        name != "network" or not _everywhere(wanted) for name, wanted in _conditions(rule) if wanted != "")


def _everywhere(wanted: str) -> bool:
    """Whether a network is wider than any that one owner has: 10.0.0.0/8 is the widest of a company, and no provider
    has a /16 of IPv6."""
    try:
        held = network(wanted, strict=False)
    except ValueError:
        return False  # an invalid network contains no device
    return held.prefixlen < (8 if held.version == 4 else 16)


def _conditions(rule: Rule) -> list[tuple[str, str]]:
    return [(name, wanted) for name in _CONDITIONS if (wanted := getattr(rule, name)) is not None]
