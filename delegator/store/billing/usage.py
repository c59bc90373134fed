"""Billable events: the claims that were issued, counted by month, customer and way of callback.

An event has no row of its own. It is the claim: written by the transaction that issues it, once, by its primary key;
a device that asks again within its lease finds the same claim. The database refuses to remove an issued claim, or to
change what is billed of it (schema 0004). An event belongs to the month in which it was issued.
The invariant: a period is read by its range of claim ids and the few that were issued far from being asked for, never
by reading all claims.
Must not live here: prices (delegator.billing), whether the audit says the same (reconciling).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from delegator.model import CallbackWay, Result
from delegator.model.billed import Count, Period
from delegator.store.filters import chosen
from delegator.store.moments import milliseconds
from delegator.store.transaction import Query, Row

FAR = timedelta(hours=1)
"""Between asking and being issued: from there on an event stands in the index `claims_issued_far`. Retries after a
failed callback come every 90 s, so an outage of an hour is rare; clocks of several delegators differ by less."""
_FAR = FAR // timedelta(milliseconds=1)
SLICE = timedelta(days=1)
"""Counted in one statement: of a month with ten million claims 0.4 million."""
PAGE = 500
_TIMES = "issued_at >= $1 AND issued_at < $2"
_NEAR = f"claim_id > $3 AND claim_id < $4 AND {_TIMES} AND abs(issued_at - asked_at) < {_FAR}"
_FAR_ONES = f"{_TIMES} AND abs(issued_at - asked_at) >= {_FAR}"
_EVENT = "claim_id, customer, delegate, callback, issued_at"
_COUNT = (f"SELECT customer, callback, count(*), count(CASE WHEN result = '{Result.DEPLOYED.value}' THEN 1 END) FROM "
          f"(SELECT customer, callback, result FROM claims WHERE {_NEAR} UNION ALL "
          f"SELECT customer, callback, result FROM claims WHERE {_FAR_ONES}) AS events "
          "WHERE {0} GROUP BY customer, callback")


class Event(msgspec.Struct, frozen=True):
    """One credential issued. `issued_at` is milliseconds since 1970, `callback` None where nobody knows."""

    claim_id: str
    customer: str
    delegate: str
    callback: str | None
    issued_at: int


def event_of(row: Row) -> Event:
    """A row of _EVENT as a value."""
    return Event(str(row[0]), str(row[1]), str(row[2]), None if row[3] is None else str(row[3]), int(str(row[4])))


def span(begins: datetime, ends: datetime) -> tuple[int, int, str, str]:
    """The parameters of `_NEAR`: times, and the claim ids that were asked for around them."""
    return milliseconds(begins), milliseconds(ends), _id_at(begins - FAR), _id_at(ends + FAR)


def _id_at(when: datetime) -> str:
    """Before all claim ids of that time."""
    return f"{max(milliseconds(when), 0):012x}"


def fits(claim_id: str, asked_at: int) -> bool:
    """Whether an id begins with the time of asking, as all do that are made here. Only those are sure to be counted."""
    return claim_id.startswith(f"{asked_at:012x}")


def slices(begins: datetime, ends: datetime) -> Iterator[tuple[datetime, datetime]]:
    """A time in pieces of a day at most."""
    while begins < ends:
        following = min(begins + SLICE, ends)
        yield begins, following
        begins = following


def counting(begins: datetime, ends: datetime, customer: str | None) -> Query:
    """Rows of customer, way of callback, issued, confirmed."""
    where, values = chosen({"customer = {0}": customer}, 5)
    return Query(_COUNT.format(where), (*span(begins, ends), *values))


def near(begins: datetime, ends: datetime, after: Event | None, most: int) -> Query:
    """A page of events that were issued soon after being asked for, by claim id. Each begins at its own key: with two
    lower bounds SQLite would begin each page at the other one."""
    since, until, first, last = span(begins, ends)
    return Query(f"SELECT {_EVENT} FROM claims WHERE {_NEAR} ORDER BY claim_id LIMIT $5",
                 (since, until, first if after is None else after.claim_id, last, most))


def far(begins: datetime, ends: datetime, after: Event | None, most: int) -> Query:
    """A page of the others, by the time at which they were issued."""
    since, seen = (milliseconds(begins), "") if after is None else (after.issued_at, after.claim_id)
    return Query(f"SELECT {_EVENT} FROM claims WHERE {_FAR_ONES} AND (issued_at > $1 OR claim_id > $3) "
                 "ORDER BY issued_at, claim_id LIMIT $4", (since, milliseconds(ends), seen, most))


class Reading(Protocol):
    """What a driver must offer."""

    async def read(self, query: Query) -> list[Row]: ...


class Usage:
    """Counts and lists of events, over a driver."""

    def __init__(self, driver: Reading) -> None:
        self._driver = driver

    async def counts(self, period: Period, until: datetime, customer: str | None = None,
                     step: Callable[[], None] = lambda: None) -> list[Count]:
        """Events of a period up to then (aware UTC), by customer and way; `step` is called after each slice."""
        found: dict[tuple[str, str | None], tuple[int, int]] = {}
        for begins, ends in slices(period.begins, min(period.ends, until)):
            for row in await self._driver.read(counting(begins, ends, customer)):
                key = str(row[0]), None if row[1] is None else str(row[1])
                issued, confirmed = found.get(key, (0, 0))
                found[key] = issued + int(str(row[2])), confirmed + int(str(row[3]))
            step()
        return [Count(name, None if way is None else CallbackWay(way), *found[name, way])
                for name, way in sorted(found, key=lambda key: (key[0], key[1] or ""))]

    async def events(self, period: Period, page: int = PAGE) -> AsyncIterator[list[Event]]:
        """All events of a period, a page at a time."""
        for asked in (near, far):
            after: Event | None = None
            while rows := await self._driver.read(asked(period.begins, period.ends, after, page)):
                events = [event_of(row) for row in rows]
                yield events
                after = events[-1]
