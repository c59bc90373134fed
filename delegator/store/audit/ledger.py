"""The audit: one row for each act, each chained to the one before.

A transaction that wants a row yields an `Appending`; the Ledger, which stands before the driver and knows chain and
key, turns it into the statements that write it. So whoever acts says what happened and nothing else.
The invariant: a row is written in the transaction that does what it tells of, so that neither is there alone.
Must not live here: what is worth a row (whoever acts), hashes (chain), reading and pruning (inspection).
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from delegator.errors import DelegatorError, Kind
from delegator.model.audited import Act, Entry
from delegator.sealing import SealingKey
from delegator.store.audit.chain import START, Head, Link, hash_of, head_of, link, seal_of
from delegator.store.audit.witness import Receded, Witness, require_onward
from delegator.store.transaction import Query, Row, Scope, Transaction, Work

if TYPE_CHECKING:
    from delegator.store.driver import Driver

T = TypeVar("T")
KEY_ROW = "audit_keys/1"
"""What the key of hashes is sealed for; whoever rotates the sealing key opens and seals it anew under this name."""
_COLUMNS = ", ".join(Link._fields)
_INSERT = f"INSERT INTO audit ({_COLUMNS}, hash) VALUES ({', '.join(f'${place}' for place in range(1, 17))})"
_LAST = "SELECT number, hash FROM audit WHERE chain = $1 ORDER BY number DESC LIMIT 1"
"""Read for the first row of each commit: whether what this process wrote last was rolled back, or followed by another
process's, nobody else can say. Look-up and insert take 9 µs on SQLite; one statement with EXISTS or RETURNING took 28
and more."""


class Appending(Query, frozen=True, kw_only=True):
    """A query whose statement the Ledger makes: the row for an entry. Its own SQL is invalid on purpose, so that it
    fails if it ever reaches a database as it is."""

    entry: Entry


def append(entry: Entry) -> Transaction[None]:
    """Chain one row, in the transaction that this is a part of."""
    yield Appending("a row of the audit: this transaction must be run through the Ledger", entry=entry)


class Ledger:
    """One process's end of one chain. `sealed` is the key of hashes as it stands in the database, None when it is
    missing there."""

    def __init__(self, chain: str, sealing: SealingKey, sealed: bytes | None) -> None:
        self.chain = chain
        self._sealing, self._sealed = sealing, sealed
        self._key: bytes | None = None
        self._end: tuple[int, Head] | None = None
        """The newest row, and the commit it is part of."""
        self._beginning = 0
        """The turn in which a transaction of a group began the chain."""
        self.known: Head | None = None
        """The newest row that we know to be durable."""

    @property
    def key(self) -> bytes:
        """Raises DelegatorError (UNAVAILABLE) when it is missing, or sealed with a key that is not given."""
        if self._key is None:
            if self._sealed is None:
                raise DelegatorError(Kind.UNAVAILABLE, "the audit has rows, but the key of its hashes is gone",
                                     hint="somebody removed it: restore table audit_keys from a backup")
            self._key = base64.b64decode(self._sealing.open(self._sealed, KEY_ROW))
        return self._key

    def beside(self, chain: str) -> Ledger:
        """The end of another chain, for another connection of this process."""
        return Ledger(chain, self._sealing, self._sealed)

    def kept(self, work: Transaction[T], turn: int, wrote: list[tuple[Ledger, Head]] | None = None,
             together: bool = False) -> Transaction[T]:
        """A transaction with the rows it appends written for it. `turn` and `together` are the driver's; `wrote` is
        told the end of the chain where it appended any: once that is durable it is to be `known`."""
        wrote = [] if wrote is None else wrote
        wrote.clear()
        if together and self._newest(turn) is None:
            rows = yield Query(_LAST, (self.chain,))  # for all in step, before any of them adds a row
            self._take_in(turn, rows)
        head = None if together else self._newest(turn)
        try:
            query = next(work)
            while True:
                if type(query) is Appending:
                    head = yield from self._append(query.entry, head, turn if together else None)
                    query = work.send(())
                else:
                    query = work.send((yield query))
        except StopIteration as end:
            if head is not None:  # one that fails is undone, and leaves the end where it was
                if not together:
                    self._end = turn, head
                wrote.append((self, head))
            return cast(T, end.value)

    def _newest(self, turn: int | None) -> Head | None:
        """The end of the chain, where it is part of this very turn."""
        return self._end[1] if self._end is not None and self._end[0] == turn else None

    def _take_in(self, turn: int, rows: Sequence[Row]) -> None:
        if rows and self._newest(turn) is None:
            require_onward(self.chain, self.known, head_of(rows[0]))
            self._end = turn, head_of(rows[0])

    def _append(self, entry: Entry, head: Head | None, shared: int | None) -> Transaction[Head]:
        """The new head of the chain, after this one, which is read where it is not known. `shared` is the turn of
        transactions that go in step: another of them may have appended since this one did, so the end counts that all
        of them know, and moves as soon as it is asked for."""
        if head is None and self._newest(shared) is None:
            head = yield from self._read(entry.at, shared)
        head = self._newest(shared) or head
        assert head is not None
        row = link(self.chain, head.number + 1, entry)
        head = Head(row.number, hash_of(self.key, head.hash, row))
        if shared is not None:
            self._end = shared, head
        yield Query(_INSERT, (*row, head.hash))
        return head

    def _read(self, at: datetime, shared: int | None) -> Transaction[Head]:
        """The end of the chain as it stands there. Where it has not begun, one of those that go in step begins it, and
        the others look until it has."""
        rows = yield Query(_LAST, (self.chain,))
        require_onward(self.chain, self.known, head_of(rows[0]) if rows else None)
        while shared is not None and shared == self._beginning and not rows and self._newest(shared) is None:
            rows = yield Query(_LAST, (self.chain,))
        known = self._newest(shared) or (head_of(rows[0]) if rows else None)
        if known is not None:
            return known
        if shared is not None:
            self._beginning = shared
        return (yield from self.begin(at))

    def begin(self, now: datetime) -> Transaction[Head]:
        """The first row of a chain says how far the others have come, so that none of them can vanish unseen; that of
        the first chain, what there was before the audit: a device waits while a later one begins. The first mark is
        made with it."""
        heads = yield from heads_of_all()
        detail: dict[str, object] = {
            "heads": {chain: [head.number, head.hash.hex()] for chain, head in heads.items()}}
        if not heads:
            claims = yield Query("SELECT count(*) FROM claims")
            detail["claims_before"] = claims[0][0]
        row = link(self.chain, 1, Entry(Act.AUDIT_BEGAN, now, "delegator", detail=detail))
        head = Head(1, hash_of(self.key, START, row))
        yield Query(_INSERT, (*row, head.hash))
        yield Query("INSERT INTO audit_marks (chain, number, hash, seal) VALUES ($1, $2, $3, $4) "
                    "ON CONFLICT (chain) DO NOTHING", (self.chain, *head, seal_of(self.key, "mark", self.chain, head)))
        return head


def heads_of_all() -> Transaction[dict[str, Head]]:
    """The newest row of each chain. Chains are listed by their marks: reading all rows for that took 0.1 s for a
    million."""
    heads = {}
    for chain in (yield Query("SELECT chain FROM audit_marks ORDER BY chain")):
        rows = yield Query(_LAST, (chain[0],))
        if rows:
            heads[str(chain[0])] = head_of(rows[0])
    return heads


class Kept:
    """A driver whose transactions go through a ledger; all else is the driver's own. What it has told to be durable it
    remembers the end of: a database that holds less is an older one, and nothing is asked of that any more."""

    def __init__(self, driver: Driver, ledger: Ledger) -> None:
        self.driver, self.ledger = driver, ledger
        self._ledgers = {ledger.chain: ledger}
        self.shared = driver.shared
        self.witness = Witness(driver, lambda: self._ledgers.values())

    def read(self, query: Query) -> Coroutine[Any, Any, list[Row]]:
        """Rows of one read outside any transaction. What a device has is told by reading, too: not out of an older
        copy. Raises DelegatorError."""
        self.witness.require()
        return self.driver.read(query)

    async def run(self, work: Work[T], scope: Scope | None = None, *, repeatable: bool = False) -> T:
        self.witness.require()
        wrote: list[tuple[Ledger, Head]] = []
        era = self.witness.era
        try:
            outcome = await self.driver.run(lambda: self._of_chain().kept(
                work(), self.driver.turn, wrote, self.driver.together), scope, repeatable=repeatable)
        except Receded as error:
            if self.driver.era != era:  # another server took over meanwhile, and what we know is of the one before
                return await self.run(work, scope, repeatable=repeatable)
            raise self.witness.lose(error.detail) from None
        if self.driver.era == era:
            for ledger, head in wrote:
                if ledger.known is None or ledger.known.number < head.number:
                    ledger.known = head
            self.witness.told(outcome)
        return outcome

    def listen(self, changed: Callable[[], None]) -> None:
        """Who wants to be told of changes serves devices: from now on what was promised is looked for as well."""
        self.driver.listen(changed)
        self.witness.serve()

    async def close(self) -> None:
        await self.witness.close()
        await self.driver.close()

    def _of_chain(self) -> Ledger:
        """Who keeps the chain of the connection that the driver makes a transaction for."""
        chain = self.driver.chain
        if chain not in self._ledgers:
            self._ledgers[chain] = self.ledger.beside(chain)
        return self._ledgers[chain]


async def kept(driver: Driver, sealing: SealingKey) -> Kept:
    """A driver with its ledger, on a database whose schema is up to date. Where there is neither key nor row, the
    audit is begun: so a database with a key and no row has been tampered with."""
    read = Query("SELECT sealed FROM audit_keys WHERE number = 1")
    found = await driver.read(read)
    if not found:
        await driver.run(lambda: _make_key(sealing, driver.chain, datetime.now(UTC)))
        found = await driver.read(read)
    sealed = found[0][0] if found else None
    return Kept(driver, Ledger(driver.chain, sealing, sealed if isinstance(sealed, bytes) else None))


def _make_key(sealing: SealingKey, chain: str, now: datetime) -> Transaction[None]:
    if (yield Query("SELECT 1 FROM audit LIMIT 1")):
        return
    sealed = sealing.seal(base64.b64encode(os.urandom(32)).decode(), KEY_ROW)
    yield Query("INSERT INTO audit_keys (number, sealed) VALUES (1, $1)", (sealed,))
    yield from Ledger(chain, sealing, sealed).begin(now)
