"""The audit as it is read: rows by tag, customer, time, outcome, newest first or as a stream.

The invariant: what is read here is what stands there; whether that is what was written, verification says.
Must not live here: writing rows (ledger), judging them (verification), removing them (pruning).
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec.structs import replace

from delegator.model.audited import Act, Entry, Record
from delegator.routing import NOBODY
from delegator.store.audit.chain import Link
from delegator.store.filters import chosen
from delegator.store.indexed import OF_TAG
from delegator.store.moments import milliseconds, moment
from delegator.store.transaction import Query, Row, Value

COLUMNS = ", ".join((*Link._fields, "hash"))
PAGE = 1000
"""Rows read at once: less than a megabyte."""


class Wanted(msgspec.Struct, frozen=True):
    """Which rows: all of these must hold. Times are aware UTC; `until` is no longer wanted."""

    service_tag: str | None = None
    customer: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    outcome: str | None = None
    act: str | None = None
    actor: str | None = None
    claim_id: str | None = None


_CONDITIONS = {"customer": "customer = {0}", "since": "at >= {0}", "until": "at < {0}", "outcome": "outcome = {0}",
               "act": "act = {0}", "actor": "actor = {0}", "claim_id": "claim_id = {0}"}
_OF_TAG = (f"(SELECT * FROM audit WHERE {OF_TAG} AND service_tag = {{0}} UNION ALL "
           "SELECT * FROM audit WHERE service_tag = {0} AND claim_id IS NULL) AS audit")
"""A claim's rows by its claim, the others by themselves: so the indexes are (see schema 0003)."""
_INDEXED = {"outcome": "done", "actor": "device"}
"""Columns whose index leaves this value out, as nearly every row has it; a query must say so too."""


def rows_of(wanted: Wanted, most: int) -> Query:
    """The newest rows that are wanted."""
    table, conditions, values = _chosen(wanted)
    return Query(f"SELECT {COLUMNS} FROM {table} WHERE {conditions} ORDER BY at DESC, chain, number DESC "
                 f"LIMIT ${len(values) + 1}", (*values, most))


def page_of(wanted: Wanted, after: Record | None, most: int) -> Query:
    """The wanted rows that follow one of them in time, oldest first."""
    if after is not None:  # which is younger than `since`: with both, all rows from there on are read again for a page
        wanted = replace(wanted, since=None)
    table, conditions, values = _chosen(wanted)
    if after is not None:
        first = len(values) + 1
        values += [milliseconds(after.entry.at), after.chain, after.number]
        conditions += (f" AND at >= ${first} AND (at > ${first} OR chain > ${first + 1} OR "
                       f"(chain = ${first + 1} AND number > ${first + 2}))")
    return Query(f"SELECT {COLUMNS} FROM {table} WHERE {conditions} ORDER BY at, chain, number "
                 f"LIMIT ${len(values) + 1}", (*values, most))


def _chosen(wanted: Wanted) -> tuple[str, str, list[Value]]:
    """Table, condition, and the values of its places."""
    tag = () if wanted.service_tag is None else (wanted.service_tag,)
    said: dict[str, Value] = {}
    for field, condition in _CONDITIONS.items():
        value = getattr(wanted, field)
        if value != _INDEXED.get(field, value):
            condition = f"{condition} AND {field} <> '{_INDEXED[field]}'"
        said[condition] = milliseconds(value) if isinstance(value, datetime) else value
    where, values = chosen(said, len(tag) + 1)
    return _OF_TAG.format("$1") if tag else "audit", where, [*tag, *values]


def row_at(chain: str, number: int) -> Query:
    return Query(f"SELECT {COLUMNS} FROM audit WHERE chain = $1 AND number = $2", (chain, number))


def rows_after(chain: str, number: int, most: int) -> Query:
    """A chain's rows in order."""
    return Query(f"SELECT {COLUMNS} FROM audit WHERE chain = $1 AND number > $2 ORDER BY number LIMIT $3",
                 (chain, number, most))


def count_of(wanted: Wanted) -> Query:
    table, conditions, values = _chosen(wanted)
    return Query(f"SELECT count(*) FROM {table} WHERE {conditions}", tuple(values))


def strangers(since: datetime) -> Query:
    """How many tags asked by a certificate of their own that were registered nowhere and that no rule led anywhere."""
    return Query("SELECT count(DISTINCT service_tag) FROM audit WHERE outcome = 'NotEntitled' AND outcome <> 'done' "
                 "AND at >= $1 AND act = $2 AND reasons LIKE $3 AND detail LIKE '%\"identity\":\"own\"%'",
                 (milliseconds(since), Act.HANDSHAKE.value, f"%{NOBODY}%"))


LOOKED_THROUGH = 10_000
"""Refusals by TLS, the newest, among which that of one device is looked for: they have no tag, so each is read."""


def refused_by_tls(tag: str) -> Query:
    """The newest refusal of a certificate whose subject names this tag. The tag is of A-Z and 0-9, so it stands for
    itself in a pattern and in JSON; the ends keep a longer tag out."""
    patterns = [f'%"certificate":"{before}CN={tag}{after}%' for before in ("", "%,") for after in ('"', ",")]
    named = " OR ".join(f"detail LIKE ${place}" for place in range(2, 2 + len(patterns)))
    return Query(f"SELECT {COLUMNS} FROM (SELECT * FROM audit WHERE outcome = 'TlsRefused' AND outcome <> 'done' "
                 f"ORDER BY at DESC LIMIT $1) AS audit WHERE {named} ORDER BY at DESC, chain, number DESC LIMIT 1",
                 (LOOKED_THROUGH, *patterns))


CHAINS = Query("SELECT chain, count(*) FROM audit GROUP BY chain ORDER BY chain")
NAMES = Query("SELECT chain FROM audit_marks ORDER BY chain")
"""Of all chains, by their marks: no need to read their rows."""


def record_of(row: Row) -> Record:
    """A row of COLUMNS as a value."""
    link = Link._make(row[:15])
    tag, customer, delegate, claim_id, peer = link[7:12]
    entry = Entry(
        Act.of(link.act), moment(link.at), link.actor, link.outcome, tag, customer, delegate, claim_id, peer,
        tuple(msgspec.json.decode(link.reasons)), msgspec.json.decode(link.detail),
        None if link.until_at == link.at else moment(link.until_at), link.repeated)
    assert isinstance(row[15], bytes)
    return Record(link.chain, link.number, entry, row[15])
