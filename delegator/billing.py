"""From counted events to lines of a statement. Pure, and exact to the last digit.

Each customer has one plan in a month. Its included events are taken off the dearest ways of callback first, which is
the cheapest for the customer. A line's amount is billable events times unit price, rounded once, half up, to the
currency's digits; a total is the sum of such lines, so it never differs from what the lines add up to.
The invariant: included and billable events of a customer are together what was issued, neither more nor less.
Must not live here: what counts as an event (store.billing.usage), when a plan is in force (store.billing.plans).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_UP, Context, Decimal, Inexact

import msgspec

from delegator.model.billed import BASE_FEE, Correction, Count, Line, Month, Plan, Total, digits

_EXACT = Context(prec=60, traps=[Inexact])
"""Twelve digits before the point, six behind, times ten of a quantity: far from 60, and it says so if not."""


def rounded(value: Decimal, currency: str) -> Decimal:
    """To the currency's digits, half away from zero, as invoices are rounded."""
    return value.quantize(Decimal(1).scaleb(-digits(currency)), ROUND_HALF_UP, Context(prec=60))


def cost(quantity: int, price: Decimal, currency: str) -> Decimal:
    return rounded(_EXACT.multiply(Decimal(quantity), price), currency)


def lines_of(month: Month, counts: Iterable[Count], plans: Mapping[str, Plan],
             titles: Mapping[str, str]) -> tuple[Line, ...]:
    """The statement of a month: by customer, one line for each way of callback that was used, and the base fee of all
    who have a plan. Whoever is registered no more has its name for a title."""
    by_customer: dict[str, list[Count]] = {name: [] for name in plans}
    for count in counts:
        by_customer.setdefault(count.customer, []).append(count)
    return tuple(line for name in sorted(by_customer) for line in _lines_of_one(
        month, name, titles.get(name, name), by_customer[name], plans.get(name)))


def _lines_of_one(month: Month, customer: str, title: str, counts: Sequence[Count],
                  plan: Plan | None) -> Iterator[Line]:
    free = {} if plan is None else included(counts, plan)
    for count in sorted(counts, key=lambda count: count.item):
        if plan is None:
            yield Line(month, customer, title, count.item, count.issued, count.confirmed, 0, count.issued)
            continue
        billable = count.issued - free[count.item]
        price = plan.price_of(count.way)
        yield Line(month, customer, title, count.item, count.issued, count.confirmed, free[count.item], billable, price,
                   cost(billable, price, plan.currency), plan.currency, plan.name, plan.version)
    if plan is not None and plan.base_fee:
        yield Line(month, customer, title, BASE_FEE, 1, None, 0, 1, plan.base_fee,
                   rounded(plan.base_fee, plan.currency), plan.currency, plan.name, plan.version)


def included(counts: Sequence[Count], plan: Plan) -> dict[str, int]:
    """How many events of each way the plan includes: the dearest first, by name where they cost the same."""
    left, free = plan.included, {}
    for count in sorted(counts, key=lambda count: (-plan.price_of(count.way), count.item)):
        free[count.item] = min(left, count.issued)
        left -= free[count.item]
    return free


def totals(lines: Iterable[Line]) -> tuple[Total, ...]:
    """One for each currency, those without a price last."""
    found: dict[str | None, Total] = {}
    for line in lines:
        sum_so_far = found.get(line.currency, Total(line.currency, 0, 0, None if line.amount is None else Decimal(0)))
        events = 0 if line.item == BASE_FEE else 1
        found[line.currency] = Total(
            line.currency, sum_so_far.quantity + events * line.quantity, sum_so_far.billable + events * line.billable,
            None if line.amount is None or sum_so_far.amount is None else _EXACT.add(sum_so_far.amount, line.amount))
    return tuple(found[name] for name in sorted(found, key=lambda name: (name is None, name or "")))


def corrections(stated: Iterable[Line], counted: Iterable[Line]) -> tuple[Correction, ...]:
    """Where a statement would be another now, by quantity or amount."""
    before, now = {line.key: line for line in stated}, {line.key: line for line in counted}
    found = (_correction(before.get(key), now.get(key)) for key in sorted(before.keys() | now.keys()))
    return tuple(one for one in found if one is not None)


def _correction(before: Line | None, now: Line | None) -> Correction | None:
    """None where they agree. A line in another currency than was stated has no difference that could be told."""
    one = before or now
    assert one is not None
    quantities = before.quantity if before else 0, now.quantity if now else 0
    amounts = [line.amount if line else Decimal(0) for line in (before, now)]
    currencies = {line.currency for line in (before, now) if line is not None}
    if quantities[0] == quantities[1] and amounts[0] == amounts[1] and len(currencies) == 1:
        return None
    told = len(currencies) == 1 and amounts[0] is not None and amounts[1] is not None
    difference = _EXACT.subtract(amounts[1] or Decimal(0), amounts[0] or Decimal(0)) if told else None
    return Correction(one.customer, one.item, *quantities, difference, (now or one).currency)


def digest(lines: Iterable[Line]) -> str:
    """SHA-256 (hex) over everything that lines say, in the order of customers and items."""
    rows = [as_row(line) for line in sorted(lines, key=lambda line: line.key)]
    return hashlib.sha256(msgspec.json.encode(rows)).hexdigest()


def as_row(line: Line) -> tuple[str | int | None, ...]:
    """A line as it is kept: month and money as text."""
    return (str(line.month), line.customer, line.item, line.title, line.quantity, line.confirmed, line.included,
            line.billable, None if line.unit_price is None else format(line.unit_price, "f"),
            None if line.amount is None else format(line.amount, "f"), line.currency, line.plan, line.plan_version)
