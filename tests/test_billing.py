"""A11: from counted events to lines of an invoice, exact to the last digit."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegator.billing import as_row, corrections, cost, digest, included, lines_of, rounded, totals
from delegator.model import CallbackWay
from delegator.model.billed import BASE_FEE, Count, Month, Plan, amount, digits

NOVEMBER = Month(2026, 11)
kinds = st.none() | st.sampled_from(CallbackWay)
prices = st.decimals(0, 10**6, places=6, allow_nan=False)
currencies = st.sampled_from(["EUR", "JPY", "KWD"])
plans = st.builds(Plan, name=st.just("p"), currency=currencies, price=prices, since=st.just(Month(2026, 1)),
                  included=st.integers(0, 5000), prices=st.dictionaries(st.sampled_from(CallbackWay), prices),
                  base_fee=st.integers(0, 10**6).map(Decimal))
counts = st.dictionaries(st.tuples(st.sampled_from(["acme", "globex", "umbra"]), kinds), st.integers(1, 10**7)).map(
    lambda found: [Count(customer, kind, many, many // 2) for (customer, kind), many in found.items()])


def plan(**more: object) -> Plan:
    return Plan("p", "EUR", Decimal("0.25"), Month(2026, 1), **more)  # type: ignore[arg-type]


def half_up(value: Fraction, places: int) -> Fraction:
    """What rounding should give, by whole numbers alone."""
    scaled = value * 10**places
    whole = scaled.numerator // scaled.denominator
    return Fraction(whole + (1 if scaled - whole >= Fraction(1, 2) else 0), 10**places)


@given(counts, st.dictionaries(st.sampled_from(["acme", "globex"]), plans))
def test_A11_lines_add_up_to_what_was_issued_and_totals_to_what_the_lines_say(found: list[Count],
                                                                              of: dict[str, Plan]) -> None:
    lines = lines_of(NOVEMBER, found, of, {})
    events = [line for line in lines if line.item != BASE_FEE]
    assert {line.key: line.quantity for line in events} == {(one.customer, one.item): one.issued for one in found}
    for line in events:
        assert line.included + line.billable == line.quantity
        assert min(line.included, line.billable) >= 0
    for line in lines:
        priced = of.get(line.customer)
        assert (line.amount is None) == (line.unit_price is None) == (priced is None)
        if priced is not None:
            assert Fraction(line.amount) == half_up(line.billable * Fraction(line.unit_price), digits(priced.currency))
    for customer, priced in of.items():
        mine = [line for line in events if line.customer == customer]
        assert sum(line.included for line in mine) == min(priced.included, sum(line.quantity for line in mine))
    for total in totals(lines):
        mine = [line for line in lines if line.currency == total.currency]
        assert total.quantity == sum(line.quantity for line in mine if line.item != BASE_FEE)
        if total.amount is not None:
            assert Fraction(total.amount) == sum(Fraction(line.amount) for line in mine)
    assert {total.currency for total in totals(lines)} == {line.currency for line in lines}


@given(st.lists(st.tuples(st.sampled_from(CallbackWay), st.integers(1, 50)), unique_by=lambda one: one[0], max_size=4),
       plans)
def test_A11_included_events_are_spent_as_is_cheapest_for_the_customer(found: list[tuple[CallbackWay, int]],
                                                                      of: Plan) -> None:
    mine = [Count("acme", kind, many, 0) for kind, many in found]

    def price(order: tuple[Count, ...]) -> Decimal:
        left, sum_ = of.included, Decimal(0)
        for one in order:
            free = min(left, one.issued)
            left -= free
            sum_ += (one.issued - free) * of.price_of(one.way)
        return sum_
    free = included(mine, of)
    ours = sum(((one.issued - free[one.item]) * of.price_of(one.way) for one in mine), Decimal(0))
    assert ours == min(map(price, permutations(mine)))


@pytest.mark.parametrize(("quantity", "price", "currency", "expected"), [
    (1, "0.005", "EUR", "0.01"), (1, "0.004999", "EUR", "0.00"), (3, "0.335", "EUR", "1.01"), (1, "0.5", "JPY", "1"),
    (1, "0.0005", "KWD", "0.001"), (10**9, "999999999999.999999", "EUR", "999999999999999999000.00")])
def test_A11_an_amount_is_rounded_once_half_up_to_the_digits_of_its_currency(quantity: int, price: str, currency: str,
                                                                             expected: str) -> None:
    assert str(cost(quantity, amount(price), currency)) == expected


def test_A11_a_line_is_ready_for_an_invoice() -> None:
    of = plan(included=100, prices={CallbackWay.SSH: Decimal("0.40")}, base_fee=Decimal(50))
    found = [Count("acme", CallbackWay.SOAP, 1000, 990), Count("acme", CallbackWay.SSH, 40, 40)]
    assert [as_row(line) for line in lines_of(NOVEMBER, found, {"acme": of}, {"acme": "Acme Corporation"})] == [
        ("2026-11", "acme", "soap", "Acme Corporation", 1000, 990, 60, 940, "0.25", "235.00", "EUR", "p", 1),
        ("2026-11", "acme", "ssh", "Acme Corporation", 40, 40, 40, 0, "0.40", "0.00", "EUR", "p", 1),
        ("2026-11", "acme", "base fee", "Acme Corporation", 1, None, 0, 1, "50", "50.00", "EUR", "p", 1)]


def test_A11_who_has_no_plan_is_counted_and_not_priced() -> None:
    (line,) = lines_of(NOVEMBER, [Count("acme", None, 3, 1)], {}, {})
    assert as_row(line) == ("2026-11", "acme", "unknown", "acme", 3, 1, 0, 3, None, None, None, None, None)


@given(counts, counts, st.dictionaries(st.sampled_from(["acme", "globex"]), plans))
def test_A11_corrections_lead_from_what_was_stated_to_what_is_counted(before: list[Count], now: list[Count],
                                                                      of: dict[str, Plan]) -> None:
    stated, counted = (lines_of(NOVEMBER, found, of, {}) for found in (before, now))
    changed = corrections(stated, counted)
    assert corrections(stated, stated) == ()
    quantities = {line.key: line.quantity for line in stated}
    for one in changed:
        assert quantities.get((one.customer, one.item), 0) == one.stated
        quantities[one.customer, one.item] = one.counted
    assert {key: many for key, many in quantities.items() if many} == {line.key: line.quantity for line in counted}
    for customer, priced in of.items():
        sums = [sum((line.amount for line in lines if line.customer == customer), Decimal(0))
                for lines in (stated, counted)]
        told = sum((one.difference for one in changed if one.customer == customer), Decimal(0))
        assert sums[0] + told == sums[1], priced


def test_A11_a_digest_knows_every_digit_and_no_order() -> None:
    lines = lines_of(NOVEMBER, [Count("acme", CallbackWay.SOAP, 5, 5)], {"acme": plan(base_fee=Decimal(1))}, {})
    assert digest(lines) == digest(tuple(reversed(lines)))
    others = lines_of(NOVEMBER, [Count("acme", CallbackWay.SOAP, 5, 4)], {"acme": plan(base_fee=Decimal(1))}, {})
    assert digest(lines) != digest(others)


@given(st.integers(2001 * 12, 2998 * 12))
def test_A11_months_follow_each_other_without_gap(number: int) -> None:
    month = Month(*divmod(number, 12)[:1], number % 12 + 1)
    for zone in ("UTC", "Europe/Berlin", "Pacific/Auckland"):
        end = month.after(1).begins(zone)
        assert Month.at(month.begins(zone), zone) == month
        assert Month.at(end, zone) == month.after(1)
        assert 27 * 24 < (end - month.begins(zone)).total_seconds() / 3600 < 32 * 24
    assert month.after(1).after(-1) == month == Month.of(str(month))


def test_A11_a_month_is_that_of_the_billing_zone() -> None:
    assert Month(2026, 12).begins("Europe/Berlin") == datetime(2026, 11, 30, 23, tzinfo=UTC)
    assert str(Month.at(datetime(2026, 11, 30, 23, tzinfo=UTC), "Europe/Berlin")) == "2026-12"


@pytest.mark.parametrize("text", [
    "2026-00", "2026-13", "26-01", "2026-1", "2026-01-01", "1999-12", "٢٠٢٦-11", "9999-01"])
def test_A11_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="month"):
        Month.of(text)


@pytest.mark.parametrize("text", ["-1", "1e3", "0,25", "1.", ".5", "NaN", "1.0000001", "1234567890123", "٣", ""])
def test_A11_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="amount"):
        amount(text)


@pytest.mark.parametrize("more", [{"included": -1}, {"base_fee": Decimal("0.001")}, {"included": 10**10}])
def test_A11_a_plan_that_makes_no_sense_is_refused(more: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"included|base fee"):
        plan(**more)
    with pytest.raises(ValueError, match="currency"):
        Plan("p", "eur", Decimal(1), NOVEMBER)
    assert rounded(Decimal("0.125"), "EUR") == Decimal("0.13")
