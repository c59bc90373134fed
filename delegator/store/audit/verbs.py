"""The verbs of a Store for its audit: write rows, read them, verify, mark and prune them.

The invariant: rows come in through the ledger alone.
Must not live here: SQL (inspection, pruning, verification), what is worth a row.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from functools import partial

from delegator.model.audited import Act, By, Entry, Record
from delegator.store.audit import inspection, pruning
from delegator.store.audit.inspection import Wanted, record_of
from delegator.store.audit.ledger import Kept, append
from delegator.store.audit.pruning import Marked, Pruned
from delegator.store.audit.verification import Known, Verification
from delegator.store.transaction import Transaction, rows_alone


def _pruning(chain: str) -> tuple[str]:
    """Only old rows go, and devices add new ones: nobody but another pruning is in the way."""
    return (f"prune/{chain}",)


class Auditing:
    """See the module. `by` says whose acts these are."""

    def __init__(self, driver: Kept, by: By) -> None:
        self._driver, self._by = driver, by

    async def append(self, entries: Sequence[Entry]) -> None:
        """Rows for these, in one transaction."""
        def all_of() -> Transaction[None]:
            for entry in entries:
                yield from append(entry)
        await self._driver.run(all_of, rows_alone)

    async def note(self, act: Act, detail: dict[str, object], now: datetime) -> None:
        """A row for an act of whoever acts in this store."""
        await self.append([Entry(act, now, self._by.actor, peer=self._by.peer, detail=detail)])

    # --- reading ---

    async def record(self, chain: str, number: int) -> Record | None:
        rows = await self._driver.read(inspection.row_at(chain, number))
        return record_of(rows[0]) if rows else None

    async def stream(self, wanted: Wanted, page: int = inspection.PAGE) -> AsyncIterator[Record]:
        """All rows that are wanted, oldest first, a page at a time."""
        after: Record | None = None
        while rows := await self._driver.read(inspection.page_of(wanted, after, page)):
            for row in rows:
                after = record_of(row)
                yield after

    async def count(self, wanted: Wanted) -> int:
        rows = await self._driver.read(inspection.count_of(wanted))
        return int(str(rows[0][0]))

    async def strangers(self, since: datetime) -> int:
        """How many devices with a certificate of their own were refused since then because nobody knew them."""
        return int(str((await self._driver.read(inspection.strangers(since)))[0][0]))

    async def last_refused(self, tag: str) -> Record | None:
        """When TLS last refused a certificate whose subject names this tag."""
        rows = await self._driver.read(inspection.refused_by_tls(tag))
        return record_of(rows[0]) if rows else None

    async def chains(self) -> dict[str, int]:
        """How many rows each chain has."""
        return {str(row[0]): int(str(row[1])) for row in await self._driver.read(inspection.CHAINS)}

    def verification(self, known: Iterable[Known] = ()) -> Verification:
        """A check of all chains, to be run. Raises DelegatorError (UNAVAILABLE) without the key."""
        return Verification(self._driver.read, self._driver.ledger.key, known)

    # --- upkeep ---

    async def mark(self, now: datetime) -> Marked:
        """Mark how far each chain has come."""
        return await self._driver.run(lambda: pruning.mark(self._driver.ledger.key, now))

    async def prunable(self, before: datetime) -> list[Pruned]:
        """What has not been repeated since then, by chain. Raises DelegatorError (CONFLICT) where that does not
        verify."""
        found = [await pruning.prunable(self._driver.read, self._driver.ledger.key, chain, before)
                 for chain in await self._names()]
        return [one for one in found if one is not None]

    async def _names(self) -> list[str]:
        return [str(row[0]) for row in await self._driver.read(inspection.NAMES)]

    async def prune(self, what: Sequence[Pruned], before: datetime, now: datetime,
                    went: Callable[[int], None] = lambda rows: None) -> None:
        """Remove those rows, after a row that says so; `went` hears of every few that are gone."""
        key = self._driver.ledger.key
        for one in what:
            alone = partial(_pruning, one.chain)
            await self._driver.run(partial(pruning.note, one, before, now, self._by), alone)
            while rows := await self._driver.run(partial(pruning.remove, key, one.chain, one.upto.number), alone):
                went(rows)
                await asyncio.sleep(0)

    async def list(self, wanted: Wanted, most: int) -> list[Record]:
        """The rows that are wanted, newest first."""
        return [record_of(row) for row in await self._driver.read(inspection.rows_of(wanted, most))]
