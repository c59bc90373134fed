"""What is billed: months, plans with their versions, counted events, lines of a statement. Money is Decimal, exact.

The invariant: a value that exists is valid; no float is ever near an amount.
Must not live here: what follows from a plan (delegator.billing), how any of it is kept (store).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import msgspec

from delegator.model.ways import CallbackWay

_MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])", re.ASCII)
_AMOUNT = re.compile(r"\d{1,12}(\.\d{1,6})?", re.ASCII)
CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
UNKNOWN = "unknown"
"""How the delegate of an event was reached where nobody knows any more: claims from before it was noted."""
BASE_FEE = "base fee"
MOST_INCLUDED = 1_000_000_000
_DIGITS = {"BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3, "BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0,
           "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0, "RWF": 0, "UGX": 0, "VND": 0, "VUV": 0, "XAF": 0, "XOF": 0,
           "XPF": 0}
"""Digits behind the point where they are not two (ISO 4217)."""


class Month(msgspec.Struct, frozen=True, order=True):
    """A month of the calendar, "2026-11" in words. Raises ValueError outside the years 2000 to 2999."""

    year: int
    month: int

    def __post_init__(self) -> None:
        if not (2000 <= self.year <= 2999 and 1 <= self.month <= 12):
            raise ValueError(f"{self.year:04}-{self.month:02} is no month between 2000-01 and 2999-12")

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"

    @classmethod
    def of(cls, text: str) -> Month:
        """Raises ValueError."""
        found = _MONTH.fullmatch(text)
        if found is None:
            raise ValueError(f"{text[:64]!a} is no month such as 2026-11")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def at(cls, moment: datetime, zone: str) -> Month:
        """The month that a calendar in that zone shows then. `moment` is aware."""
        there = moment.astimezone(ZoneInfo(zone))
        return cls(there.year, there.month)

    def after(self, months: int) -> Month:
        """So many months later, or earlier."""
        year, month = divmod(self.year * 12 + self.month - 1 + months, 12)
        return Month(year, month + 1)

    def begins(self, zone: str) -> datetime:
        """Its first moment there, in UTC."""
        return datetime(self.year, self.month, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC)


class Period(msgspec.Struct, frozen=True):
    """From when to before when (aware UTC) a month goes, by the calendar of `zone` unless a closed neighbour says
    otherwise."""

    month: Month
    zone: str
    begins: datetime
    ends: datetime


def amount(text: str) -> Decimal:
    """A price or fee: not negative, six digits behind the point at most. Raises ValueError."""
    if _AMOUNT.fullmatch(text) is None:
        raise ValueError(f"{text[:64]!a} is no amount such as 0.25: digits, a point, and six more digits at most")
    return Decimal(text)


def digits(currency: str) -> int:
    """Digits behind the point of an amount in this currency."""
    return _DIGITS.get(currency, 2)


class Plan(msgspec.Struct, frozen=True):
    """One version of what a customer pays a month, in force from the month `since`: a base fee, and for each event past
    the `included` ones `price`, or for some ways of callback another one. Raises ValueError."""

    name: str
    currency: str
    price: Decimal
    since: Month
    included: int = 0
    prices: Mapping[CallbackWay, Decimal] = msgspec.field(default_factory=dict)
    base_fee: Decimal = Decimal(0)
    version: int = 1

    def __post_init__(self) -> None:
        if CURRENCY.fullmatch(self.currency) is None:
            raise ValueError(f"{self.currency[:64]!a} is no currency such as EUR: three capital letters (ISO 4217)")
        if not 0 <= self.included <= MOST_INCLUDED:
            raise ValueError(f"included events must be 0 to {MOST_INCLUDED}")
        if round(self.base_fee, digits(self.currency)) != self.base_fee:
            raise ValueError(f"a base fee in {self.currency} has at most {digits(self.currency)} digits behind the "
                             "point")

    def price_of(self, way: CallbackWay | None) -> Decimal:
        """Of one event; None stands for a way that nobody knows."""
        return self.price if way is None else self.prices.get(way, self.price)


class Count(msgspec.Struct, frozen=True):
    """How many credentials were issued for a customer in a month by one way of callback, and how many of these claims
    were confirmed by now."""

    customer: str
    way: CallbackWay | None
    issued: int
    confirmed: int

    @property
    def item(self) -> str:
        """How it is named on a statement."""
        return UNKNOWN if self.way is None else self.way.value


class Line(msgspec.Struct, frozen=True):
    """One line of a statement: `quantity` is events, of which `included` cost nothing and `billable` cost `unit_price`
    each. Without a plan there are no prices. `confirmed` is None for the base fee."""

    month: Month
    customer: str
    title: str
    item: str
    quantity: int
    confirmed: int | None
    included: int
    billable: int
    unit_price: Decimal | None = None
    amount: Decimal | None = None
    currency: str | None = None
    plan: str | None = None
    plan_version: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.customer, self.item

    @property
    def place(self) -> tuple[str, bool, str]:
        """Where it stands on a statement: by customer, the base fee last."""
        return self.customer, self.item == BASE_FEE, self.item


class Total(msgspec.Struct, frozen=True):
    """All lines of one currency; of those without a plan None."""

    currency: str | None
    quantity: int
    billable: int
    amount: Decimal | None


class Correction(msgspec.Struct, frozen=True):
    """A line that would be stated otherwise now: quantity and amount as stated, and as they would be."""

    customer: str
    item: str
    stated: int
    counted: int
    difference: Decimal | None
    currency: str | None


class Statement(msgspec.Struct, frozen=True):
    """A closed month: its lines as they were stated, and the digest of them that stands in the audit."""

    period: Period
    closed_at: datetime
    closed_by: str
    digest: str
    lines: tuple[Line, ...]
