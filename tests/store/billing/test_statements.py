"""Contract: plans hold from a month on, and a month that was closed stays as it was stated (A11)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace

from delegator.billing import corrections, digest
from delegator.errors import DelegatorError, Kind
from delegator.model import CallbackWay
from delegator.model.billed import Count, Month, Plan
from delegator.store.audit.inspection import Wanted
from delegator.store.billing.reconciling import Verdict
from delegator.store.billing.statements import GRACE
from delegator.store.transaction import Query

from ...clock import today

JANUARY, FEBRUARY, MARCH = Month(2026, 1), Month(2026, 2), Month(2026, 3)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
STANDARD = Plan("standard", "EUR", Decimal("0.25"), JANUARY, 2, {CallbackWay.SSH: Decimal("0.40")}, Decimal("9.90"))


@pytest.fixture
def issued(shop, ask):
    """Issues one credential, some minutes after the beginning of January."""
    numbers = iter(range(1000))

    async def issue(minute: float = 0, customer: str = "acme", callback: CallbackWay = CallbackWay.SOAP) -> None:
        asked = ask(f"TAG{next(numbers):04}", customer=customer, minute=minute)
        await shop.open_and_issue(replace(asked, callback=callback), lambda claim: "x")
    return issue


async def refused(work, kind: Kind = Kind.CONFLICT) -> DelegatorError:
    with pytest.raises(DelegatorError) as refusal:
        await work
    assert refusal.value.kind is kind
    return refusal.value


async def stated(store, month: Month = JANUARY, zone: str = "UTC", now: datetime = NOW):
    period = await store.statements.period(month, zone)
    return await store.statements.close(period, await store.usage.counts(period, period.ends), now)


async def noted(store) -> list[tuple[str, str | None]]:
    """Acts of operators in the audit, with the customer."""
    return [(row.entry.act.value, row.entry.customer) async for row in store.audit.stream(Wanted())
            if row.entry.act.value.startswith(("plan.", "usage."))]


# --- plans --------------------------------------------------------------------------------------------------------


async def test_A11_a_plan_comes_back_as_it_was_given_digit_by_digit(shop) -> None:
    given = replace(STANDARD, price=Decimal("0.250000"), base_fee=Decimal("9.90"))
    assert await shop.plans.add(given, NOW) == given
    (kept,) = await shop.plans.versions("standard")
    assert (kept, str(kept.price)) == (given, "0.250000")
    assert await shop.plans.all() == [given]


async def test_A11_in_each_month_counts_the_version_of_that_month(shop) -> None:
    await shop.plans.add(STANDARD, NOW)
    await shop.plans.change(replace(STANDARD, price=Decimal("0.20"), since=MARCH), NOW)
    await shop.plans.change(replace(STANDARD, price=Decimal("0.22"), since=FEBRUARY), NOW)
    await shop.plans.change(replace(STANDARD, price=Decimal("0.21"), since=FEBRUARY), NOW)
    await shop.plans.assign("acme", "standard", JANUARY, NOW)
    found = {str(month): (await shop.plans.of_month(month)).get("acme")
             for month in (JANUARY.after(-1), JANUARY, FEBRUARY, MARCH, MARCH.after(7))}
    assert {month: plan and (str(plan.price), plan.version) for month, plan in found.items()} == {
        "2025-12": None, "2026-01": ("0.25", 1), "2026-02": ("0.21", 4), "2026-03": ("0.20", 2),
        "2026-10": ("0.20", 2)}


async def test_A11_a_customer_has_one_plan_a_month_from_the_first_of_it_on(shop) -> None:
    await shop.plans.add(STANDARD, NOW)
    await shop.plans.add(replace(STANDARD, name="large"), NOW)
    await shop.plans.assign("acme", "standard", JANUARY, NOW)
    await shop.plans.assign("acme", "large", FEBRUARY, NOW)
    await shop.plans.assign("acme", None, MARCH, NOW)
    await shop.plans.assign("domain:umbra.example", "large", MARCH, NOW)
    assert [{name: plan.name for name, plan in (await shop.plans.of_month(month)).items()}
            for month in (JANUARY, FEBRUARY, MARCH)] == [
        {"acme": "standard"}, {"acme": "large"}, {"domain:umbra.example": "large"}]
    await shop.plans.assign("acme", "standard", FEBRUARY, NOW)
    assert (await shop.plans.of_month(FEBRUARY))["acme"].name == "standard"
    assert [(one.customer, str(one.since), one.plan) for one in await shop.plans.assignments("acme")] == [
        ("acme", "2026-01", "standard"), ("acme", "2026-02", "standard"), ("acme", "2026-03", None)]


async def test_A11_what_makes_no_sense_is_refused_and_leaves_no_row(shop) -> None:
    await shop.plans.add(replace(STANDARD, since=FEBRUARY), NOW)
    await shop.plans.assign("acme", "standard", FEBRUARY, NOW)
    before = await noted(shop)
    await refused(shop.plans.add(STANDARD, NOW))
    await refused(shop.plans.change(replace(STANDARD, name="other"), NOW), Kind.NOT_FOUND)
    await refused(shop.plans.assign("acme", "other", FEBRUARY, NOW), Kind.NOT_FOUND)
    await refused(shop.plans.assign("nobody", "standard", FEBRUARY, NOW), Kind.NOT_FOUND)
    assert "from 2026-02 on" in (await refused(shop.plans.assign("umbra", "standard", JANUARY, NOW))).detail
    await refused(shop.plans.remove("other", NOW), Kind.NOT_FOUND)
    await refused(shop.plans.remove("standard", NOW))
    await shop.plans.assign("acme", None, MARCH, NOW)
    await refused(shop.plans.remove("standard", NOW))
    assert await noted(shop) == [*before, ("plan.assigned", "acme")]


async def test_A11_every_act_leaves_one_row(shop) -> None:
    await shop.plans.add(STANDARD, NOW)
    await shop.plans.change(replace(STANDARD, since=FEBRUARY), NOW)
    await shop.plans.add(replace(STANDARD, name="trial"), NOW)
    await shop.plans.remove("trial", NOW)
    await shop.plans.assign("acme", "standard", JANUARY, NOW)
    await stated(shop)
    assert await noted(shop) == [("plan.added", None), ("plan.changed", None), ("plan.added", None),
                                 ("plan.removed", None), ("plan.assigned", "acme"), ("usage.closed", None)]


# --- closing ------------------------------------------------------------------------------------------------------


async def test_A11_a_closed_month_stays_as_it_was_stated_and_what_changes_is_a_correction(shop, issued) -> None:
    await shop.plans.add(STANDARD, NOW)
    await shop.plans.assign("acme", "standard", JANUARY, NOW)
    for minute in range(5):
        await issued(minute)
    await issued(5, callback=CallbackWay.SSH)
    await issued(6, customer="umbra")
    before = await stated(shop)
    assert [(line.customer, line.item, line.quantity, line.included, str(line.amount)) for line in before.lines] == [
        ("acme", "soap", 5, 1, "1.00"), ("acme", "ssh", 1, 1, "0.00"), ("acme", "base fee", 1, 0, "9.90"),
        ("umbra", "soap", 1, 0, "None")]
    await issued(7)
    await shop.add_customer(replace((await shop.customers())[0], title="Renamed"), today(), replace=True)
    assert await shop.statements.statement(JANUARY) == before
    counted = await shop.statements.lines(JANUARY, await counts(shop))
    assert [(one.customer, one.item, one.stated, one.counted, str(one.difference))
            for one in corrections(before.lines, counted)] == [("acme", "soap", 5, 6, "0.25")]


async def counts(store) -> list[Count]:
    period = await store.statements.period(JANUARY, "UTC")
    return await store.usage.counts(period, period.ends)


async def test_A11_a_month_is_closed_once_after_its_end(shop) -> None:
    period = await shop.statements.period(JANUARY, "UTC")
    early = await refused(shop.statements.close(period, [], period.ends + GRACE - timedelta(seconds=1)), Kind.TRY_LATER)
    assert "2026-02-01T01:00:00" in early.detail
    outcomes = await asyncio.gather(*(shop.statements.close(period, [], period.ends + GRACE) for _ in range(4)),
                                    return_exceptions=True)
    assert sorted(type(one).__name__ for one in outcomes) == ["DelegatorError"] * 3 + ["Statement"]
    await refused(stated(shop))
    assert [act for act, _ in await noted(shop)] == ["usage.closed"]


async def test_A11_plans_of_closed_months_are_past_changing(shop) -> None:
    await shop.plans.add(STANDARD, NOW)
    await shop.plans.assign("acme", "standard", JANUARY, NOW)
    await stated(shop, FEBRUARY)
    for month in (JANUARY, FEBRUARY):
        for work in (shop.plans.add(replace(STANDARD, name="other", since=month), NOW),
                     shop.plans.change(replace(STANDARD, since=month), NOW),
                     shop.plans.assign("acme", None, month, NOW)):
            assert (await refused(work)).hint.endswith("--from 2026-03")
    await shop.plans.change(replace(STANDARD, since=MARCH), NOW)


@pytest.mark.parametrize("statement", [
    "UPDATE statements SET digest = 'x'", "DELETE FROM statements", "DELETE FROM statement_lines",
    "UPDATE statement_lines SET amount = '0.00'", "UPDATE plans SET price = '0.01'"])
async def test_A11_what_was_stated_is_changed_by_no_statement(shop, issued, statement: str) -> None:
    await shop.plans.add(STANDARD, NOW)
    await issued()
    await stated(shop)

    def forced():
        yield Query(statement)
    await refused(shop._driver.run(forced))


async def test_A11_closed_months_touch_whatever_becomes_of_the_time_zone(shop, issued) -> None:
    """January was closed in UTC; February is Berlin's, but begins where January ended: no event twice, none lost."""
    february, march = 31 * 24 * 60, (31 + 28) * 24 * 60
    for minute in (february - 61, february - 60, february - 1, february, march - 61, march - 60):
        await issued(minute)
    assert (await shop.statements.period(FEBRUARY, "Europe/Berlin")).begins == datetime(2026, 1, 31, 23, tzinfo=UTC)
    january = await stated(shop)
    second = await stated(shop, FEBRUARY, "Europe/Berlin")
    assert second.period.begins == january.period.ends == datetime(2026, 2, 1, tzinfo=UTC)
    assert second.period.ends == datetime(2026, 2, 28, 23, tzinfo=UTC)
    assert [statement.lines[0].quantity for statement in (january, second)] == [3, 2]
    assert (await stated(shop, MARCH, "UTC")).lines[0].quantity == 1
    assert (await shop.statements.period(JANUARY, "Asia/Tokyo")) == january.period
    assert (await shop.statements.period(JANUARY.after(-1), "Asia/Tokyo")).ends == january.period.begins


async def test_A11_a_statement_is_proven_with_its_month(shop, issued) -> None:
    await shop.plans.add(STANDARD, NOW)
    await shop.plans.assign("acme", "standard", JANUARY, NOW)
    await issued()
    statement = await stated(shop)
    assert statement.digest == digest(statement.lines)

    async def verdict(of) -> Verdict:
        reconciliation = shop.reconciliation(of.period, of)
        async for _ in reconciliation.run():
            pass
        return reconciliation.verdict
    assert await verdict(await shop.statements.statement(JANUARY)) is Verdict.PROVEN
    cheaper = tuple(replace(line, amount=Decimal("0.00")) for line in statement.lines)
    assert await verdict(replace(statement, lines=cheaper)) is Verdict.DIFFERS
    assert await verdict(replace(statement, lines=cheaper, digest=digest(cheaper))) is Verdict.DIFFERS
    assert await verdict(replace(statement, closed_at=NOW + timedelta(seconds=1))) is Verdict.DIFFERS


async def test_A11_many_lines_are_stated_in_one_commit(shop) -> None:
    found = [Count(f"domain:c{number}.example", kind, number + 1, 0) for number in range(400) for kind in CallbackWay]
    period = await shop.statements.period(JANUARY, "UTC")
    commits = shop.commits.transactions
    statement = await shop.statements.close(period, found, NOW)
    assert shop.commits.transactions == commits + 1
    assert await shop.statements.statement(JANUARY) == statement
    assert len(statement.lines) == 1600
