"""The oldest rows of the audit go, and the chain stays whole: a sealed checkpoint stands for what went.

The invariants: nothing goes that does not verify, so that pruning cannot wipe the traces of a change; the checkpoint
is moved in the transaction that removes rows; the newest row of a chain always stays.
Must not live here: when to prune (serving.app, cli), how long rows are kept (config).
"""

from __future__ import annotations

import asyncio
from datetime import datetime

import msgspec

from delegator.errors import DelegatorError, Kind
from delegator.model.audited import Act, By, Entry
from delegator.store.audit.chain import START, Head, Link, hash_of, head_of, same, seal_of
from delegator.store.audit.inspection import rows_after
from delegator.store.audit.ledger import append, heads_of_all
from delegator.store.audit.verification import Read
from delegator.store.moments import milliseconds
from delegator.store.transaction import Query, Transaction

AT_ONCE = 250
"""Rows checked, or removed, in one go: a running delegator does this too, and no device shall wait for it."""


class Pruned(msgspec.Struct, frozen=True):
    """How far a chain was pruned: its last row that went, and how many went."""

    chain: str
    upto: Head
    rows: int


async def prunable(read: Read, key: bytes, chain: str, before: datetime) -> Pruned | None:
    """How far a chain may be pruned: rows whose last repetition was before then. Raises DelegatorError (CONFLICT)
    where they are not as they were written."""
    start = head = await _begin(read, key, chain)
    last = await read(Query("SELECT max(number) FROM audit WHERE chain = $1", (chain,)))
    while rows := await read(rows_after(chain, head.number, AT_ONCE)):
        for row in rows:
            link = Link._make(row[:15])
            if link.until_at >= milliseconds(before) or link.number == last[0][0]:
                return None if head == start else Pruned(chain, head, head.number - start.number)
            own = hash_of(key, head.hash, link)
            if link.number != head.number + 1 or not same(row[15], own):
                raise _broken(chain, head.number + 1)
            head = Head(link.number, own)
        await asyncio.sleep(0)
    return None


async def _begin(read: Read, key: bytes, chain: str) -> Head:
    rows = await read(Query("SELECT number, hash, seal FROM audit_checkpoints WHERE chain = $1", (chain,)))
    if not rows:
        return Head(0, START)
    head = head_of(rows[0])
    if not same(rows[0][2], seal_of(key, "checkpoint", chain, head)):
        raise _broken(chain, head.number)
    return head


def _broken(chain: str, number: int) -> DelegatorError:
    return DelegatorError(Kind.CONFLICT, f"audit chain {chain} is not as it was written at row {number}",
                          hint="nothing was removed; look at it with: delegator audit verify")


def note(pruned: Pruned, before: datetime, now: datetime, by: By) -> Transaction[None]:
    """The row that says what goes."""
    yield from append(Entry(Act.AUDIT_PRUNED, now, by.actor, peer=by.peer, detail={
        "chain": pruned.chain, "number": pruned.upto.number, "hash": pruned.upto.hash.hex(), "rows": pruned.rows,
        "before": before.isoformat()}))


def remove(key: bytes, chain: str, upto: int) -> Transaction[int]:
    """Remove the oldest rows up to this one, AT_ONCE at most, and move the checkpoint; how many went."""
    rows = yield Query("SELECT number, hash FROM audit WHERE chain = $1 AND number <= $2 ORDER BY number LIMIT $3",
                       (chain, upto, AT_ONCE))
    if not rows:
        return 0
    head = head_of(rows[-1])
    yield Query("INSERT INTO audit_checkpoints (chain, number, hash, seal) VALUES ($1, $2, $3, $4) ON CONFLICT (chain) "
                "DO UPDATE SET number = $2, hash = $3, seal = $4",
                (chain, *head, seal_of(key, "checkpoint", chain, head)))
    yield Query("DELETE FROM audit WHERE chain = $1 AND number <= $2", (chain, head.number))
    return len(rows)


class Marked(msgspec.Struct, frozen=True):
    """The heads of all chains, and the chains that are not what their last mark says."""

    heads: dict[str, Head]
    broken: tuple[str, ...]


def mark(key: bytes, now: datetime) -> Transaction[Marked]:
    """Mark how far each chain has come. A chain that has not the row of its last mark any more keeps that mark: it is
    the evidence. Where there are several chains, each is told how far the others are."""
    heads = yield from heads_of_all()
    marks = yield Query("SELECT chain, number, hash, seal FROM audit_marks")
    broken = []
    for row in marks:
        chain, stood = str(row[0]), head_of(row[1:3])
        if not (yield from _holds(key, chain, stood, row[3])):
            broken.append(chain)
        elif heads[chain] != stood:
            yield Query("UPDATE audit_marks SET number = $2, hash = $3, seal = $4 WHERE chain = $1",
                        (chain, *heads[chain], seal_of(key, "mark", chain, heads[chain])))
    if len(heads) > 1:
        yield from append(Entry(Act.AUDIT_MARKED, now, "delegator", detail={
            "heads": {chain: [head.number, head.hash.hex()] for chain, head in heads.items()}}))
    return Marked(heads, tuple(broken))


def _holds(key: bytes, chain: str, stood: Head, seal: object) -> Transaction[bool]:
    """Whether a mark is ours and its row is there, or was pruned."""
    if not isinstance(seal, bytes) or not same(seal, seal_of(key, "mark", chain, stood)):
        return False
    rows = yield Query("SELECT hash FROM audit WHERE chain = $1 AND number = $2", (chain, stood.number))
    if rows:
        return same(rows[0][0], stood.hash)
    pruned = yield Query("SELECT number FROM audit_checkpoints WHERE chain = $1", (chain,))
    return bool(pruned) and int(str(pruned[0][0])) >= stood.number
