"""The walk of one import: look, decide, write what nobody sees yet, show it, tidy up.

Everything is looked at before anything is written, so that a file with a wrong row costs the store no write at all.
The invariant: an import that is not kept, fails or is killed has changed nothing that a reader could see.
Must not live here: single steps (store.imports), the file's rows (store.spool), words for people (cli).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import msgspec

from delegator.errors import DelegatorError, Kind, Owned
from delegator.model import Registration
from delegator.model.audited import Act, By, Entry
from delegator.store import imports
from delegator.store.audit import ledger
from delegator.store.bulk import listed
from delegator.store.devices import amended, obstacle, same, sold_orders
from delegator.store.driver import Running
from delegator.store.imports import Slot
from delegator.store.moments import milliseconds
from delegator.store.rows import REGISTRATION, registration_of
from delegator.store.spool import Counts, Refused, Said, Spool
from delegator.store.transaction import Query, Row, Transaction

R = TypeVar("R")
Write = Callable[[Slot, Sequence[R], int], Transaction[None]]
HOLD = 0.025
"""Seconds of our own CPU that one commit aims at. Who waits for SQLite's lock looks every few milliseconds, later every
25. Time in which we wait for the disk or for a core is not counted: smaller commits would not make that less, only
more of it."""
REST = 0.2
"""How long an import leaves the lock alone after a commit, as a part of what that took: others get a turn."""
SHARED_HOLD = 0.25
"""Seconds that one commit aims at where the database is one for many and nobody waits for it: what is sent first is
worked on while we make the rest ready. All time counts: its server has its own limit."""
_LEAST, _MOST, _FIRST = 100, 16_000, 1000
_SHARED_MOST = 64_000
_LOOKED_AT = 2000
_TIDIED = 200
WAITING = imports.ALIVE / 1000 + 5
"""Seconds that we wait for another import: longer than a dead one blocks the way."""


class How(msgspec.Struct, frozen=True):
    """What is wanted: devices that are registered differently changed (`replace`), good rows kept although others are
    not (`keep_good`), nothing written (`dry_run`). `source` says for the audit what was imported, `unnamed` which
    fields the row on a line does not name: those of a device that is registered stay. `whose`: whether a refusal says
    whose something is, for operators alone."""

    replace: bool = False
    keep_good: bool = False
    dry_run: bool = False
    source: Mapping[str, object] | None = None
    unnamed: Callable[[int], frozenset[str]] = lambda line: frozenset()
    whose: bool = False


Stage = Callable[[str, int], Callable[[int], None]]
"""Told what comes next and of how many pieces it is made; gives back what is told of pieces that are done."""


class Imported(msgspec.Struct, frozen=True):
    """What an import came to, and whether it was `kept`. Which lines were refused, the spool knows."""

    counts: Counts
    kept: bool


@dataclass(slots=True)
class Pace:
    """How many rows go into a commit so that it takes about `hold` seconds by `clock`, and which part of its time is
    rested afterwards."""

    hold: float
    most: int
    rest: float
    clock: Callable[[], float]
    rows: int

    def took(self, rows: int, seconds: float) -> None:
        wanted = int(rows * self.hold / max(seconds, 0.0001))
        self.rows = max(_LEAST, min(self.most, 2 * self.rows, (self.rows + wanted) // 2))


class Importer:
    """Imports into one store. `stage` is told of what is done."""

    def __init__(self, driver: Running, by: By, now: Callable[[], datetime], stage: Stage) -> None:
        self._driver, self._by, self._now, self._stage = driver, by, now, stage

    async def run(self, spool: Spool, how: How) -> Imported:
        """See the module. Raises DelegatorError: TRY_LATER while another import is under way, CONFLICT when somebody
        else registered the same meanwhile; then nothing was changed."""
        spool.settle()
        await self._check_owners(spool)
        await self._look(spool)
        await self._decide(spool, how)
        counts = spool.counts()
        if counts.changed:
            spool.refuse_twice_changed()
            counts = spool.counts()
        kept = not how.dry_run and (how.keep_good or not counts.refused)
        if kept and (counts.new or counts.changed):
            await self._write(spool, counts, how)
        elif kept:
            await self._driver.run(lambda: ledger.append(self._entry(counts, how)))
        return Imported(counts, kept)

    def _ms(self) -> int:
        return milliseconds(self._now())

    # --- looking ---

    async def _check_owners(self, spool: Spool) -> None:
        """Customers and delegates are few; what is held against one is held against all its lines."""
        customers = {str(row[0]) for row in await self._driver.read(Query("SELECT name FROM customers"))}
        delegates = {(str(row[0]), str(row[1])) for row in
                     await self._driver.read(Query("SELECT customer, name FROM delegates"))}
        for customer, delegate in spool.owners():
            error = None
            if customer is not None and customer not in customers:
                error = f"there is no customer named {customer}"
            elif delegate is not None and (customer, delegate) not in delegates:
                error = f"customer {customer} has no delegate named {delegate}"
            if error is not None:
                spool.refuse([Refused(line, error) for line in spool.of_owner(customer, delegate)])

    async def _look(self, spool: Spool) -> None:
        """Find the registered devices that share an identifier with a line."""
        step = self._stage("checked", spool.names())
        for kind in "MST":
            await self._look_for(spool, kind, step)

    async def _look_for(self, spool: Spool, kind: str, step: Callable[[int], None]) -> None:
        """Where nothing registered is between the first name of a kind and the last, as with new devices of a series,
        nothing has to be looked for."""
        between = spool.between(kind)
        if between is None or not await self._any(*between):
            return
        for named in spool.named(kind, lambda: _LOOKED_AT):
            lines = dict(reversed(named))
            spool.know([(lines[name], number) for name, number in await self._registered([*reversed(lines)])])
            step(len(named))

    async def _registered(self, names: list[str]) -> list[tuple[str, int]]:
        """Those of some sorted names that are taken."""
        if not await self._any(names[0], names[-1]):
            return []
        some, values = listed(names)
        rows = await self._driver.read(Query(
            f"SELECT name, device_id FROM device_names WHERE name IN ({some})", values))
        return [(str(row[0]), int(str(row[1]))) for row in rows]

    async def _any(self, first: str, last: str) -> bool:
        return bool(await self._driver.read(Query(
            "SELECT 1 FROM device_names WHERE name >= $1 AND name <= $2 LIMIT 1", (first, last))))

    async def _decide(self, spool: Spool, how: How) -> None:
        """What it means for each line that some of its identifiers are registered."""
        for lines in spool.known(lambda: _LOOKED_AT):
            numbers = sorted({number for _, known in lines for number in known})
            rows = await self._rows(numbers)
            sold = await self._sold([*(said for said, _ in lines)], rows.values())
            matched, refused = [], []
            for said, known in lines:
                verdict = _verdict(said, [rows[number] for number in known if number in rows], len(known), how,
                                   sold)
                if isinstance(verdict, str):
                    refused.append(Refused(said.line, verdict))
                else:
                    matched.append((said.line, verdict))
            spool.match(matched)
            spool.refuse(refused)

    async def _rows(self, numbers: Sequence[int]) -> dict[int, Row]:
        these, values = listed(numbers)
        found = await self._driver.read(Query(
            f"SELECT {REGISTRATION} FROM registrations WHERE device_id IN ({these})", values))
        return {int(str(row[0])): row for row in found}

    async def _sold(self, lines: Sequence[Said], rows: Iterable[Row]) -> dict[str, str]:
        """Whose the orders are that lines without a customer name, or their devices have."""
        unsaid = [one.order for one in lines if one.customer is None]
        orders = [None if row[5] is None else str(row[5]) for row in rows] if unsaid else []
        query = sold_orders([*unsaid, *orders])
        found = () if query is None else await self._driver.read(query)
        return {str(row[0]): str(row[1]) for row in found}

    # --- writing ---

    async def _write(self, spool: Spool, counts: Counts, how: How) -> None:
        slot = await self._slot(spool.last_line() + 1)
        step = self._stage("written", counts.new + counts.changed + spool.names())
        try:
            pace = self._pace()
            for rows in spool.new(slot.first_id, lambda: pace.rows):
                await self._paced(pace, rows, imports.add_devices, slot, step)
            pace = self._pace()
            for rows in spool.new_names(slot.first_id, lambda: pace.rows):
                await self._paced(pace, rows, imports.add_names, slot, step)
            await self._change(spool, slot, how, step)
            await self._driver.run(lambda: self._shown(slot, counts, how), imports.scope)
        except BaseException as error:
            await self._driver.run(lambda: imports.drop(slot), imports.scope)
            if isinstance(error, asyncio.CancelledError):
                raise  # whoever comes next takes it back: there is no time now
            await self.tidy()
            raise _meanwhile(error) from error
        await self.tidy()

    async def _slot(self, numbers: int) -> Slot:
        """Raises DelegatorError (TRY_LATER) when another import keeps going for longer than we wait."""
        import_id, until = secrets.token_hex(8), time.monotonic() + WAITING
        while True:
            await self.tidy()
            slot = await self._driver.run(lambda: imports.begin(import_id, numbers, self._ms()), imports.scope)
            if slot is not None:
                return slot
            if time.monotonic() > until:
                raise DelegatorError(Kind.TRY_LATER, "another import is under way",
                                     hint="run it again when that has ended")
            await asyncio.sleep(0.25)

    def _pace(self) -> Pace:
        if self._driver.shared:
            return Pace(SHARED_HOLD, _SHARED_MOST, 0, time.monotonic, _FIRST)
        return Pace(HOLD, _MOST, REST, time.process_time, _FIRST)

    async def _paced(self, pace: Pace, rows: Sequence[R], write: Write[R], slot: Slot,
                     step: Callable[[int], None]) -> None:
        """One commit, and a rest in which others get at the lock."""
        began, busy = time.monotonic(), pace.clock()
        await self._driver.run(lambda: write(slot, rows, self._ms()), imports.scope)
        took = time.monotonic() - began
        pace.took(len(rows), pace.clock() - busy)
        step(len(rows))
        await asyncio.sleep(took * pace.rest)

    async def _change(self, spool: Spool, slot: Slot, how: How, step: Callable[[int], None]) -> None:
        for lines in spool.changing(lambda: _TIDIED):
            rows = await self._rows([number for number, _ in lines])
            sold = await self._sold([said for _, said in lines], rows.values())
            if any(isinstance(_verdict(said, [rows[number]], 1, how, sold), str)
                   for number, said in lines if number in rows):
                raise DelegatorError(Kind.CONFLICT, "whose a device is has changed")
            pairs = [(before := registration_of(rows[number]), amended(registration_said(said), before,
                                                                         how.unnamed(said.line)))
                     for number, said in lines if number in rows]
            if len(pairs) < len(lines):
                raise DelegatorError(Kind.CONFLICT, "a device was removed")
            await self._paced(self._pace(), pairs, imports.add_changes, slot, step)

    def _shown(self, slot: Slot, counts: Counts, how: How) -> Transaction[None]:
        yield from imports.show(slot, self._ms())
        yield from ledger.append(self._entry(counts, how))

    def _entry(self, counts: Counts, how: How) -> Entry:
        return Entry(Act.DEVICES_IMPORTED, self._now(), self._by.actor, peer=self._by.peer, detail={
            **(how.source or {}), "rows": counts.rows, "new": counts.new, "changed": counts.changed,
            "unchanged": counts.unchanged, "refused": counts.refused})

    async def tidy(self) -> None:
        """Clear up after imports that ended or died, in small commits."""
        more = True
        while more:
            more = await self._driver.run(lambda: imports.tidy(self._ms(), _TIDIED), imports.scope)
            await asyncio.sleep(REST * HOLD if more else 0)


def _meanwhile(error: BaseException) -> BaseException:
    """A conflict in the middle means that somebody else was at the same devices: looking had found none."""
    if isinstance(error, DelegatorError) and error.kind is Kind.CONFLICT:
        return DelegatorError(Kind.CONFLICT, "somebody else registered or changed some of these devices during the "
                              f"import, which was taken back ({error.detail})", hint="run it again")
    return error


def registration_said(said: Said) -> Registration:
    """A line as a value."""
    macs = tuple(said.mac_addresses.split(",")) if said.mac_addresses else ()
    return Registration(said.customer, said.service_tag, said.serial_number, macs, said.model, said.order,
                        said.delegate)


def _verdict(said: Said, known: Sequence[Row], wanted: int, how: How,
             sold: Mapping[str, str]) -> str | int | None:
    """Why the line is refused; or the number of the device that it changes; or None for what is so already."""
    if len(known) < wanted:
        return "another import under way is about this device"
    if wanted == 1 and _just_so(said, known[0]):
        return None
    one, registered = registration_said(said), [registration_of(row) for row in known]
    if wanted == 1 and same(registered[0], one):
        return None
    if how.replace and len(registered) == 1 and same(registered[0], amended(one, registered[0],
                                                                                    how.unnamed(said.line))):
        return None
    error = obstacle(one, registered, how.replace, sold, how.unnamed(said.line))
    if error is None:
        return registered[0].device_id
    return f"{error.told}; {error.hint}" if isinstance(error, Owned) and how.whose else error.detail


def _just_so(said: Said, row: Row) -> bool:
    """The usual case without making values of either: three in four µs less for each line of a file imported again."""
    _, _, tag, serial, model, order, delegate, macs, customer = row
    own = delegate if customer is not None else None
    return said[1:] == (customer, tag, serial, macs, model, order, own)
