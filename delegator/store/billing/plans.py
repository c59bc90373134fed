"""Plans and who has which: kept by month and version, so that what a month was billed by can always be told.

A version of a plan, and a customer's plan, hold from the first of a month on, never from within one: so each month of
a customer has one plan and needs no rule for parts of it. A month that is closed is past changing.
The invariants: no version is ever changed; each act leaves one row of audit in its own transaction.
Must not live here: what a plan makes of events (delegator.billing), closing months (statements).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal

import msgspec
from msgspec.structs import replace

from delegator.domains import domain_of
from delegator.errors import DelegatorError, Kind, Missing
from delegator.model import CallbackWay
from delegator.model.audited import Act, By, Entry
from delegator.model.billed import Month, Plan
from delegator.store.audit.ledger import append
from delegator.store.driver import Running
from delegator.store.filters import chosen
from delegator.store.looking import look
from delegator.store.registry import must_exist
from delegator.store.transaction import Query, Row, Transaction

_COLUMNS = "name, version, since, currency, included, price, prices, base_fee"
_ALL = Query(f"SELECT {_COLUMNS} FROM plans ORDER BY name, version")


class Assignment(msgspec.Struct, frozen=True):
    """From this month on the customer has this plan, or none."""

    customer: str
    since: Month
    plan: str | None


def plan_of(row: Row) -> Plan:
    """A row of _COLUMNS as a value."""
    prices = msgspec.json.decode(str(row[6]), type=dict[str, str])
    return Plan(
        name=str(row[0]), version=int(str(row[1])), since=Month.of(str(row[2])), currency=str(row[3]),
        included=int(str(row[4])), price=Decimal(str(row[5])), base_fee=Decimal(str(row[7])),
        prices={CallbackWay(kind): Decimal(price) for kind, price in prices.items()})


def _row_of(plan: Plan) -> tuple[str | int, ...]:
    prices = {kind.value: format(price, "f") for kind, price in plan.prices.items()}
    return (plan.name, plan.version, str(plan.since), plan.currency, plan.included, format(plan.price, "f"),
            msgspec.json.encode(prices, order="sorted").decode(), format(plan.base_fee, "f"))


def versions(name: str) -> Transaction[list[Plan]]:
    """All versions of a plan, the first one first. Raises DelegatorError (NOT_FOUND)."""
    rows = yield Query(f"SELECT {_COLUMNS} FROM plans WHERE name = $1 ORDER BY version", (name,))
    if not rows:
        raise Missing("plan", name, f"there is no plan named {name}", hint="see: delegator plans list")
    return [plan_of(row) for row in rows]


def in_force(found: list[Plan], month: Month) -> Plan | None:
    """Of a plan's versions the one that counts in a month."""
    begun = [plan for plan in found if plan.since <= month]
    return max(begun, key=lambda plan: (plan.since, plan.version), default=None)


def add(plan: Plan, now: datetime, by: By) -> Transaction[Plan]:
    """Raises DelegatorError: CONFLICT when there is one of that name, or its month is closed."""
    if (yield Query("SELECT 1 FROM plans WHERE name = $1", (plan.name,))):
        raise DelegatorError(Kind.CONFLICT, f"there is a plan named {plan.name} already",
                             hint=f"change it with: delegator plans change {plan.name}")
    return (yield from _keep(replace(plan, version=1), Act.PLAN_ADDED, now, by))


def change(plan: Plan, now: datetime, by: By) -> Transaction[Plan]:
    """One version more. Raises DelegatorError: NOT_FOUND, or CONFLICT when its month is closed."""
    known = yield from versions(plan.name)
    return (yield from _keep(replace(plan, version=known[-1].version + 1), Act.PLAN_CHANGED, now, by))


def amend(name: str, how: Callable[[Plan], Plan], now: datetime, by: By) -> Transaction[tuple[Plan, Plan]]:
    """One version more, made of the last one as it stands at that moment; both. Raises DelegatorError as `change`, and
    what `how` raises."""
    last = (yield from versions(name))[-1]
    return last, (yield from change(how(last), now, by))


def _keep(plan: Plan, act: Act, now: datetime, by: By) -> Transaction[Plan]:
    yield from must_be_open(plan.since)
    row = _row_of(plan)
    yield Query(f"INSERT INTO plans ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", row)
    yield from _note(act, now, by, dict(zip(_COLUMNS.split(", "), row, strict=True)))
    return plan


def must_be_open(month: Month) -> Transaction[None]:
    """Raises DelegatorError (CONFLICT) where this month or a later one is closed."""
    rows = yield Query("SELECT max(month) FROM statements")
    last = rows[0][0]
    if last is not None and str(month) <= str(last):
        raise DelegatorError(Kind.CONFLICT, f"month {last!s} is closed, and with it all before",
                             hint=f"let it hold from the next one on: --from {Month.of(str(last)).after(1)}")


def assign(customer: str, plan: str | None, since: Month, now: datetime, by: By) -> Transaction[None]:
    """Give a customer a plan from a month on, or none. Raises DelegatorError: NOT_FOUND, or CONFLICT when the month is
    closed or the plan not in force by then."""
    if domain_of(customer) is None:
        yield from must_exist("customer", customer)
    yield from must_be_open(since)
    if plan is not None:
        known = yield from versions(plan)
        if in_force(known, since) is None:
            first = min(one.since for one in known)
            raise DelegatorError(Kind.CONFLICT, f"plan {plan} holds from {first} on, and not yet in {since}",
                                 hint=f"let it begin then: --from {first}")
    yield Query("INSERT INTO customer_plans (customer, since, plan) VALUES ($1, $2, $3) ON CONFLICT (customer, since) "
                "DO UPDATE SET plan = $3", (customer, str(since), plan))
    yield from _note(Act.PLAN_ASSIGNED, now, by, {"plan": plan, "since": str(since)}, customer)


def remove(name: str, now: datetime, by: By) -> Transaction[None]:
    """Raises DelegatorError: NOT_FOUND, or CONFLICT when a customer has it or had it."""
    known = yield from versions(name)
    rows = yield Query("SELECT customer FROM customer_plans WHERE plan = $1 ORDER BY customer LIMIT 1", (name,))
    if rows:
        raise DelegatorError(Kind.CONFLICT, f"plan {name} is or was that of customer {rows[0][0]!s}",
                             hint="what a month was billed by is kept; give customers another plan with: delegator "
                                  "plans assign")
    yield Query("DELETE FROM plans WHERE name = $1", (name,))
    yield from _note(Act.PLAN_REMOVED, now, by, {"name": name, "versions": len(known)})


def _note(act: Act, now: datetime, by: By, detail: Mapping[str, object],
          customer: str | None = None) -> Transaction[None]:
    return append(Entry(act, now, by.actor, customer=customer, peer=by.peer, detail=detail))


def assignments(customer: str | None = None) -> Transaction[list[Assignment]]:
    """By customer and month; of all of them, or one."""
    where, values = chosen({"customer = {0}": customer})
    rows = yield Query(f"SELECT customer, since, plan FROM customer_plans WHERE {where} ORDER BY customer, since",
                       values)
    return [Assignment(str(row[0]), Month.of(str(row[1])), None if row[2] is None else str(row[2])) for row in rows]


def of_month(month: Month) -> Transaction[dict[str, Plan]]:
    """Each customer's plan in a month, in the version that counts then; those without one are left out."""
    known: dict[str, list[Plan]] = {}
    for row in (yield _ALL):
        known.setdefault(str(row[0]), []).append(plan_of(row))
    names = {one.customer: one.plan for one in (yield from assignments()) if one.since <= month}
    found = {customer: in_force(known.get(name, []), month) for customer, name in names.items() if name is not None}
    return {customer: plan for customer, plan in found.items() if plan is not None}


class Plans:
    """The verbs above on a driver."""

    def __init__(self, driver: Running, by: By) -> None:
        self._driver, self._by = driver, by

    async def all(self) -> list[Plan]:
        """Every version of every plan."""
        return [plan_of(row) for row in await self._driver.read(_ALL)]

    async def versions(self, name: str) -> list[Plan]:
        return await look(self._driver.read, versions(name))

    async def assignments(self, customer: str | None = None) -> list[Assignment]:
        return await look(self._driver.read, assignments(customer))

    async def of_month(self, month: Month) -> dict[str, Plan]:
        return await look(self._driver.read, of_month(month))

    async def add(self, plan: Plan, now: datetime) -> Plan:
        return await self._driver.run(lambda: add(plan, now, self._by))

    async def change(self, plan: Plan, now: datetime) -> Plan:
        return await self._driver.run(lambda: change(plan, now, self._by))

    async def amend(self, name: str, how: Callable[[Plan], Plan], now: datetime) -> tuple[Plan, Plan]:
        return await self._driver.run(lambda: amend(name, how, now, self._by))

    async def assign(self, customer: str, plan: str | None, since: Month, now: datetime) -> None:
        await self._driver.run(lambda: assign(customer, plan, since, now, self._by))

    async def remove(self, name: str, now: datetime) -> None:
        await self._driver.run(lambda: remove(name, now, self._by))
