"""Statements: months that are closed, each line kept as it was stated. What changes later is a correction, told apart.

The invariants: a statement is written once, with a row of audit that holds its digest; closed months touch without gap
or overlap, whatever became of the time zone in between, so no event is stated twice or never.
Must not live here: counting (usage), prices (delegator.billing).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal

from delegator.billing import as_row, digest, lines_of, totals
from delegator.errors import DelegatorError, Kind
from delegator.model.audited import Act, By, Entry
from delegator.model.billed import Count, Line, Month, Period, Statement
from delegator.store.audit.ledger import append
from delegator.store.billing import plans
from delegator.store.bulk import insert
from delegator.store.driver import Running
from delegator.store.looking import look
from delegator.store.moments import milliseconds, moment
from delegator.store.transaction import Query, Row, Transaction

GRACE = timedelta(hours=1)
"""After the end of a month until it can be closed: what was issued before has long been committed by then, also by a
delegator whose clock is behind."""
_COLUMNS = ("month, customer, item, title, quantity, confirmed, included, billable, unit_price, amount, currency, "
            "plan, plan_version")


def line_of(row: Row) -> Line:
    """A row of _COLUMNS as a value."""
    texts = [None if value is None else str(value) for value in row]
    month, customer, item, title, quantity, confirmed, included, billable, price, amount, currency, plan, said = texts
    return Line(
        Month.of(str(month)), str(customer), str(title), str(item), int(str(quantity)),
        None if confirmed is None else int(confirmed), int(str(included)), int(str(billable)),
        None if price is None else Decimal(price), None if amount is None else Decimal(amount), currency, plan,
        None if said is None else int(said))


def period_of(month: Month, zone: str) -> Transaction[Period]:
    """When a month begins and ends: by the calendar of the zone, unless it was closed, or a closed neighbour ends or
    begins elsewhere. So a zone that was changed moves no closed month, and no event falls between two."""
    rows = yield Query("SELECT month, zone, from_at, until_at FROM statements WHERE month IN ($1, $2, $3)",
                       (str(month.after(-1)), str(month), str(month.after(1))))
    found = {str(row[0]): row for row in rows}
    if str(month) in found:
        return _period(found[str(month)])
    before, after = found.get(str(month.after(-1))), found.get(str(month.after(1)))
    begins = month.begins(zone) if before is None else moment(before[3])
    ends = month.after(1).begins(zone) if after is None else moment(after[2])
    return Period(month, zone, begins, ends)


def _period(row: Row) -> Period:
    return Period(Month.of(str(row[0])), str(row[1]), moment(row[2]), moment(row[3]))


def statement(month: Month) -> Transaction[Statement | None]:
    """What was stated; None while the month is not closed."""
    rows = yield Query("SELECT month, zone, from_at, until_at, closed_at, closed_by, digest FROM statements "
                       "WHERE month = $1", (str(month),))
    if not rows:
        return None
    lines = yield Query(f"SELECT {_COLUMNS} FROM statement_lines WHERE month = $1 ORDER BY customer, item",
                        (str(month),))
    found = sorted(map(line_of, lines), key=lambda line: line.place)
    return Statement(_period(rows[0]), moment(rows[0][4]), str(rows[0][5]), str(rows[0][6]), tuple(found))


def lines(month: Month, counts: Iterable[Count]) -> Transaction[tuple[Line, ...]]:
    """What would be stated of these counts, by the plans in force that month."""
    prices = yield from plans.of_month(month)
    titles = yield Query("SELECT name, title FROM customers")
    return lines_of(month, counts, prices, {str(row[0]): str(row[1]) for row in titles})


def close(period: Period, counts: Iterable[Count], now: datetime, by: By) -> Transaction[Statement]:
    """State a month for good. Raises DelegatorError: CONFLICT when it is closed, TRY_LATER before its end and GRACE."""
    month = str(period.month)
    if now < period.ends + GRACE:
        raise DelegatorError(Kind.TRY_LATER, f"month {month} can be closed from "
                             f"{(period.ends + GRACE).isoformat(timespec='seconds')} on")
    if (yield Query("SELECT 1 FROM statements WHERE month = $1", (month,))):
        raise DelegatorError(Kind.CONFLICT, f"month {month} is closed already",
                             hint=f"see: delegator usage --month {month}")
    if (yield from period_of(period.month, period.zone)) != period:
        raise DelegatorError(Kind.CONFLICT, f"a month beside {month} was closed meanwhile", hint="close it again")
    stated = yield from lines(period.month, counts)
    sums = digest(stated)
    yield Query("INSERT INTO statements (month, zone, from_at, until_at, closed_at, closed_by, digest) "
                "VALUES ($1, $2, $3, $4, $5, $6, $7)",
                (month, period.zone, milliseconds(period.begins), milliseconds(period.ends), milliseconds(now),
                 by.actor, sums))
    yield from insert(f"statement_lines ({_COLUMNS})", [as_row(line) for line in stated])
    yield from append(Entry(Act.USAGE_CLOSED, now, by.actor, peer=by.peer, detail={
        "month": month, "digest": sums, "lines": len(stated), "totals": [
            {"currency": one.currency, "quantity": one.quantity, "amount": one.amount and format(one.amount, "f")}
            for one in totals(stated)]}))
    return Statement(period, now, by.actor, sums, stated)


class Statements:
    """The verbs above on a driver."""

    def __init__(self, driver: Running, by: By) -> None:
        self._driver, self._by = driver, by

    async def period(self, month: Month, zone: str) -> Period:
        return await look(self._driver.read, period_of(month, zone))

    async def statement(self, month: Month) -> Statement | None:
        return await look(self._driver.read, statement(month))

    async def lines(self, month: Month, counts: Iterable[Count], customer: str | None = None) -> tuple[Line, ...]:
        """What would be stated now; of all customers, or one."""
        found = await look(self._driver.read, lines(month, counts))
        return tuple(line for line in found if customer in (None, line.customer))

    async def close(self, period: Period, counts: Iterable[Count], now: datetime) -> Statement:
        """Raises DelegatorError: CONFLICT, TRY_LATER."""
        all_of = list(counts)
        return await self._driver.run(lambda: close(period, all_of, now, self._by))
