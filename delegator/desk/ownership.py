"""What people say where devices change hands: offers, returns to stock, repairs, and how many at once.

The invariants: what is named is done as a whole or not at all, so there is a most; an offer ends in the future, to the
second, as the time is part of what is signed; a reason is always asked for where a key is refused from then on.
Must not live here: what a change of owner means (store.ownership, store.transfers).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from delegator.desk import forms
from delegator.desk.refusals import Clash
from delegator.desk.sheets import Field, Sheet, many, text
from delegator.store.moments import milliseconds

MOST = 2_000
"""Devices in one step: one transaction, in which a running delegator writes no claim; past five seconds it would turn
devices away. A device that is accepted and signed for takes a millisecond (measured)."""
DAYS = 30
"""How long an offer stands, where nothing else is said: a month, in which the paperwork of a sale is done."""
STOCK = "returned"
"""The order under which returned devices are in stock, where no other is named."""
ANY_KEY = timedelta(days=7)
"""How long any new main board may come, where nothing else is said; one whose key is known may take its time."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Devices offered to another customer, by whoever owns them: `customer`, where that is said."""

    devices: tuple[str, ...]
    to: str
    until: datetime
    customer: str | None = None
    because: str | None = None


@dataclass(frozen=True, slots=True)
class Return:
    """Devices that go back to stock, under an order that is nobody's."""

    devices: tuple[str, ...]
    order: str = STOCK
    because: str | None = None


@dataclass(frozen=True, slots=True)
class Repair:
    """A new main board: the fingerprint of its key, or None for whichever comes `within` that time."""

    service_tag: str
    because: str
    key: str | None = None
    within: timedelta | None = None

    def until(self, now: datetime) -> datetime | None:
        """When it is too late; never, where the key is known and nothing else is said."""
        return None if self.within is None else now + self.within


def at_most(found: Iterable[str]) -> tuple[str, ...]:
    """Each device once. Raises Clash for more than one transaction takes."""
    once = tuple(dict.fromkeys(found))
    if len(once) > MOST:
        raise Clash(f"more than {MOST} devices are too many for one step", at="devices")
    return once


def some(devices: Sequence[str]) -> tuple[str, ...]:
    """The same of devices that must be named. Raises Clash where there is none."""
    if not devices:
        raise Clash("say which {devices}", at="devices")
    return at_most(devices)


def ends(until: datetime | None, now: datetime) -> datetime:
    """When an offer ends. Raises Clash for one that is over before it begins."""
    whole = to_the_second(until or now + timedelta(days=DAYS))
    if whole <= now:
        raise Clash("{until} is in the past", at="until")
    return whole


def to_the_second(until: datetime) -> datetime:
    """As people write it."""
    return until.replace(microsecond=0)


def number(now: datetime) -> str:
    """A transfer's number: the time, so that they sort, and 80 random bits."""
    return f"{milliseconds(now) & 0xFFFFFFFFFFFF:012x}{secrets.token_hex(10)}"


def repair(fields: Mapping[str, Any]) -> Repair:
    """Raises ValueError."""
    made = Repair(**fields)
    return made if made.key is not None or made.within is not None else Repair(**{**fields, "within": ANY_KEY})


def offer(now: datetime) -> Sheet[Offer]:
    """The sheet of an offer that is made now."""
    def made(fields: Mapping[str, Any]) -> Offer:
        return Offer(**{**fields, "devices": some(fields["devices"]), "until": ends(fields.get("until"), now)})
    return Sheet("offer", {
        "devices": Field("devices", many(forms.identifier)), "to": Field("to", text(forms.name)),
        "until": Field("until", text(forms.moment), empty=True),
        "customer": Field("customer", text(forms.name), empty=True),
        "because": Field("because", text(forms.words), empty=True),
    }, made, frozenset({"devices", "to"}))


RETURN: Sheet[Return] = Sheet("return", {
    "devices": Field("devices", many(forms.identifier)), "order": Field("order", text(forms.words)),
    "because": Field("because", text(forms.words), empty=True),
}, lambda fields: Return(**{**fields, "devices": some(fields["devices"])}), frozenset({"devices"}))
REPAIR: Sheet[Repair] = Sheet("repair", {
    "service_tag": Field("service_tag", text(forms.tag)),
    "key": Field("key", text(forms.fingerprint), empty=True),
    "within": Field("within", text(forms.duration), empty=True), "because": Field("because", text(forms.words)),
}, repair, frozenset({"service_tag", "because"}))
