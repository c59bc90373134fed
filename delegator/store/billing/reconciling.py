"""Usage against the audit: does each billable event have its one row, does each row have its event, do they agree.

Events of the period are walked by claim id, each page looked up in the audit; then rows of the period are walked by
time, each page looked up among the claims. So whatever time or customer either side was given, the pair is found; and
a page is all that memory holds. Statements are compared too: with their own lines, and with their row of audit.
The invariants: nothing is changed; an event that is older than what is left of the audit is told as not provable, not
as wrong.
Must not live here: whether the audit itself is as it was written (store.audit.verification).
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from delegator.billing import digest
from delegator.model.audited import Act, Record
from delegator.model.billed import Period, Statement
from delegator.store.audit.inspection import COLUMNS, Wanted, page_of, record_of
from delegator.store.billing.usage import PAGE, Event, Usage, fits
from delegator.store.bulk import listed
from delegator.store.moments import milliseconds, moment
from delegator.store.transaction import Query, Row

MOST = 1000
"""Differences that are kept to be told; of more only the number."""
Read = Callable[[Query], Awaitable[Sequence[Row]]]


class What(enum.Enum):
    """What can differ."""

    NO_ROW = "event without a row of audit"
    TWO_ROWS = "event with several rows of audit"
    OTHER = "event and row of audit differ"
    NO_EVENT = "row of audit without an event"
    STATEMENT = "statement is not as it was closed"


MEANS = {
    What.NO_ROW: "the claim was put into the database by hand, or its row was taken out of the audit",
    What.TWO_ROWS: "rows were put into the audit by hand: delegator audit verify",
    What.OTHER: "one of them was changed by hand; if the audit verifies, it was the claim",
    What.NO_EVENT: "the claim was removed or changed by hand; a credential was issued and is not billed",
    What.STATEMENT: "lines were changed by hand after the month was closed, or the closing is not in the audit",
}
"""What each says, and what to do."""


class Difference(msgspec.Struct, frozen=True):
    """One thing that does not fit, with the row of audit it is about where there is one."""

    what: What
    claim_id: str | None
    row: str | None
    words: str


@dataclass(slots=True)
class Found:
    """What a reconciliation came to so far."""

    events: int = 0
    rows: int = 0
    unprovable: int = 0
    differences: list[Difference] = field(default_factory=list)
    counted: Counter[What] = field(default_factory=Counter)

    def add(self, what: What, claim_id: str | None, row: str | None, words: str) -> None:
        self.counted[what] += 1
        if len(self.differences) < MOST:
            self.differences.append(Difference(what, claim_id, row, words))


class Verdict(enum.Enum):
    """How it ended."""

    PROVEN = "proven"
    DIFFERS = "differs"
    NOT_PROVABLE = "not provable"


class Reconciliation:
    """One comparison of a period, to be run. `statement` is what was stated of it, if it is closed."""

    def __init__(self, read: Read, usage: Usage, period: Period, statement: Statement | None = None) -> None:
        self._read, self._usage, self._period, self._statement = read, usage, period, statement
        self.found = Found()
        self.since: datetime | None = None
        """From when on the audit is complete; None when there is none."""

    @property
    def verdict(self) -> Verdict:
        if self.found.counted:
            return Verdict.DIFFERS
        gone = self.since is None or self.since >= self._period.ends
        return Verdict.NOT_PROVABLE if gone or self.found.unprovable else Verdict.PROVEN

    async def size(self) -> int:
        """How many steps `run` will tell of, about: each event twice."""
        rows = await self._usage.counts(self._period, self._period.ends)
        return 2 * sum(count.issued for count in rows)

    async def run(self, page: int = PAGE) -> AsyncIterator[int]:
        """Compare, telling after each page how many events or rows it had."""
        self.since = await complete_since(self._read)
        async for events in self._usage.events(self._period, page):
            await self._prove(events)
            yield len(events)
        async for records in self._rows(page):
            await self._look_up(records)
            yield len(records)
        if self._statement is not None:
            await self._restate(self._statement)

    # --- from events to the audit ---

    async def _prove(self, events: Sequence[Event]) -> None:
        some, values = listed([event.claim_id for event in events])
        rows = await self._read(Query(
            f"SELECT {COLUMNS} FROM audit WHERE claim_id IN ({some}) AND act = '{Act.CLAIM_ISSUED.value}'", values))
        by_claim: dict[str | None, list[Record]] = {}
        for record in map(record_of, rows):
            by_claim.setdefault(record.entry.claim_id, []).append(record)
        self.found.events += len(events)
        for event in events:
            self._compare(event, by_claim.get(event.claim_id, []))

    def _compare(self, event: Event, records: Sequence[Record]) -> None:
        names = ", ".join(sorted(record.name for record in records)) or None
        if len(records) > 1:
            self.found.add(What.TWO_ROWS, event.claim_id, names, f"rows {names}")
        elif records:
            words = "; ".join(_differing(event, records[0]))
            if words:
                self.found.add(What.OTHER, event.claim_id, names, words)
        elif self.since is None or moment(event.issued_at) < self.since:
            self.found.unprovable += 1
        else:
            self.found.add(What.NO_ROW, event.claim_id, None,
                           f"{event.customer}, {event.callback or 'unknown'}, {moment(event.issued_at).isoformat()}")

    # --- from the audit to events ---

    async def _rows(self, page: int) -> AsyncIterator[list[Record]]:
        wanted = Wanted(since=self._period.begins, until=self._period.ends, act=Act.CLAIM_ISSUED.value)
        after: Record | None = None
        while rows := await self._read(page_of(wanted, after, page)):
            records = [record_of(row) for row in rows]
            yield records
            after = records[-1]

    async def _look_up(self, records: Sequence[Record]) -> None:
        """Rows that disagree with their event were found from the other side, unless it is elsewhere in time."""
        some, values = listed([record.entry.claim_id for record in records])
        rows = await self._read(Query(
            f"SELECT claim_id, asked_at, issued_at FROM claims WHERE claim_id IN ({some})", values))
        claims = {str(row[0]): row for row in rows}
        self.found.rows += len(records)
        for record in records:
            self._find(record, claims.get(str(record.entry.claim_id)))

    def _find(self, record: Record, claim: Row | None) -> None:
        """`claim` is its id, when it was asked for, and issued."""
        entry, begins, ends = record.entry, self._period.begins, self._period.ends
        issued = None if claim is None else claim[2]
        if claim is None or not isinstance(issued, int):
            gone = "is not there" if claim is None else "was never issued"
            self.found.add(What.NO_EVENT, entry.claim_id, record.name,
                           f"the claim {gone}; the row says {entry.customer}, {entry.delegate}")
        elif not milliseconds(begins) <= issued < milliseconds(ends):
            self.found.add(What.OTHER, entry.claim_id, record.name,
                           f"issued at {moment(issued).isoformat()}, by the audit at {entry.at.isoformat()}")
        elif not fits(str(claim[0]), int(str(claim[1]))):
            self.found.add(What.NO_EVENT, entry.claim_id, record.name,
                           "the claim is not counted: its id does not begin with the time of asking")

    # --- the statement ---

    async def _restate(self, statement: Statement) -> None:
        """Its lines against its digest, and that against the row that closed the month."""
        if digest(statement.lines) != statement.digest:
            self.found.add(What.STATEMENT, None, None, "its lines are not those of its digest")
        closed = Wanted(since=statement.closed_at, until=moment(milliseconds(statement.closed_at) + 1),
                        act=Act.USAGE_CLOSED.value)
        rows = [record_of(row) for row in await self._read(page_of(closed, None, 2))]
        if self.since is not None and statement.closed_at < self.since and not rows:
            self.found.unprovable += 1
        elif not _says(rows, statement):
            self.found.add(What.STATEMENT, None, rows[0].name if rows else None, "the audit knows of another closing")


def _says(rows: Iterable[Record], statement: Statement) -> bool:
    details = [row.entry.detail for row in rows]
    return [(one.get("month"), one.get("digest")) for one in details] == [
        (str(statement.period.month), statement.digest)]


def _differing(event: Event, record: Record) -> list[str]:
    """What an event and its row say differently. Rows that are older than metering say nothing of the callback."""
    entry = record.entry
    pairs: dict[str, tuple[object, object]] = {
        "customer": (event.customer, entry.customer), "delegate": (event.delegate, entry.delegate),
        "time": (event.issued_at, milliseconds(entry.at))}
    if "callback" in entry.detail:
        pairs["callback"] = (event.callback, entry.detail["callback"])
    return [f"{name} is {_told(one)}, in the audit {_told(other)}"
            for name, (one, other) in pairs.items() if one != other]


def _told(value: object) -> str:
    return moment(value).isoformat() if isinstance(value, int) else str(value)


async def complete_since(read: Read) -> datetime | None:
    """From when on no row is missing because of pruning, or because there were claims before there was an audit. A
    pruned chain is complete from the end of its first row that is left: those before that one went because they were
    older."""
    firsts = []
    for chain in await read(Query("SELECT chain FROM audit_marks ORDER BY chain")):
        rows = await read(Query(f"SELECT {COLUMNS} FROM audit WHERE chain = $1 ORDER BY number LIMIT 1", (chain[0],)))
        firsts += [record_of(row) for row in rows]
    pruned = [first.entry.until or first.entry.at for first in firsts if first.number > 1]
    if pruned:
        return max(pruned)
    return min((_begun(first) for first in firsts), default=None)


def _begun(first: Record) -> datetime:
    return moment(0) if first.entry.detail.get("claims_before") == 0 else first.entry.at
