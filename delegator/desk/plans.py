"""A plan as people say it: amounts, prices by way of callback, and the month from which it holds.

The invariants: what is not said of a plan that is changed stays as it is in its last version; no way has two prices;
`none` stands for no plan, so no plan is called so.
Must not live here: what a plan makes of events (delegator.billing), how versions are kept (store.billing.plans).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from delegator.desk import forms
from delegator.desk.refusals import Clash
from delegator.desk.sheets import Field, Range, Sheet, text
from delegator.model import CallbackWay
from delegator.model.billed import MOST_INCLUDED, Month, Plan

INCLUDED = Range(0, MOST_INCLUDED)
Priced = tuple[CallbackWay | None, Decimal]


def price(word: str) -> Priced:
    """An amount for all ways of callback, or WAY=AMOUNT for one. Raises ValueError."""
    way, parted, value = word.rpartition("=")
    known = {one.value: one for one in CallbackWay}
    if parted and way not in known:
        raise ValueError(f"{word[:64]!a} must be AMOUNT, or WAY=AMOUNT with one of {', '.join(known)}")
    return (known[way] if parted else None), forms.fee(value)


def prices(said: Sequence[Priced]) -> tuple[Decimal | None, dict[CallbackWay, Decimal]]:
    """The price for all ways, and those of single ways. Raises Clash."""
    ways = [way for way, _ in said]
    if len(set(ways)) < len(ways):
        raise Clash("{price} says the same way twice", at="price")
    found = dict(said)
    return found.get(None), {way: value for way, value in found.items() if way is not None}


def made(fields: Mapping[str, Any]) -> Plan:
    """Raises ValueError."""
    if fields["name"] == forms.NOBODY:
        raise ValueError(f"a plan cannot be named {fields['name']}: that stands for no plan")
    if fields.get("currency") is None or fields.get("price") is None:
        raise Clash("a plan needs {currency} and a {price} without a way, for the ways that have none", at="price")
    return Plan(**fields)


def changed(last: Plan, fields: Mapping[str, Any]) -> Plan:
    """The version that follows: of `prices` those that are said, all else as it is said or was. Raises ValueError."""
    return replace(last, **{**fields, "prices": {**last.prices, **fields.get("prices", {})}})


def _by_way(value: object) -> dict[CallbackWay, Decimal]:
    """Raises ValueError."""
    known = {one.value: one for one in CallbackWay}
    if not isinstance(value, Mapping) or not set(value) <= set(known):
        raise ValueError(f"must be an object with some of {', '.join(known)}")
    return {known[way]: text(forms.fee)(said) for way, said in value.items()}


SHEET: Sheet[Plan] = Sheet("plan", {
    "name": Field("name", text(forms.name)), "currency": Field("currency", text(forms.currency)),
    "price": Field("price", text(forms.fee)), "since": Field("since", text(forms.month)),
    "included": Field("included", INCLUDED), "prices": Field("prices", _by_way),
    "base_fee": Field("base_fee", text(forms.fee)),
}, made, frozenset({"name", "currency", "price", "since"}))


def since(said: Month | None, this: Month, *, first: bool) -> Month:
    """From which month on: the one that is said, else the current one for what comes `first`, else the next one, as
    what has begun is billed as it was agreed."""
    return said or this.after(0 if first else 1)
