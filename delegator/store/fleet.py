"""The verbs of a Store for devices: register, import, find by any identifier, list, remove.

The invariant: a list may be as long as it likes, memory holds one page of it.
Must not live here: SQL of single devices (store.devices) and of imports (store.imports, store.importing).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

from msgspec.structs import replace as replaced

from delegator.model import Claim, Registration
from delegator.model.audited import Act, By, Entry
from delegator.store import claims, devices, imports, orders
from delegator.store.audit import ledger
from delegator.store.bulk import listed
from delegator.store.devices import names_of, only
from delegator.store.driver import Running
from delegator.store.importing import How, Imported, Importer, Stage
from delegator.store.moments import milliseconds
from delegator.store.rows import REGISTRATION, registration_of
from delegator.store.spool import Spool
from delegator.store.transaction import Query, Row, Transaction

__all__ = ["Fleet", "Read", "View", "only", "snapshot_of"]
PAGE = 1000
_TIDIED = 500
"""Rows in one commit of clearing up, about 10 ms."""
_TOGETHER = 500
"""Names looked up at once."""
Read = Callable[[Query], Awaitable[Sequence[Row]]]
Seen = Callable[[Registration, Registration], None]
"""Is told within a transaction how a device was and is."""


_TOLD = ("customer", "service_tag", "serial_number", "mac_addresses", "model", "order", "delegate")
"""Fields of a device that a row of audit names when they change."""


class View:
    """Registered devices as one way of reading shows them."""

    def __init__(self, read: Read) -> None:
        self._read = read

    async def count(self, customer: str | None = None) -> int:
        """How many devices are registered, or belong to a customer, itself or by their order."""
        query = Query("SELECT count(*) FROM current_devices") if customer is None else Query(
            "SELECT (SELECT count(*) FROM current_devices WHERE device_id IN (SELECT device_id FROM devices "
            "WHERE customer = $1)) + (SELECT count(*) FROM current_devices WHERE customer IS NULL AND device_id IN "
            "(SELECT d.device_id FROM devices d JOIN orders o ON o.order_number = d.order_number "
            "WHERE o.customer = $1))", (customer,))
        return int(str((await self._read(query))[0][0]))

    async def devices(self, customer: str | None = None, page: int = PAGE) -> AsyncIterator[Registration]:
        """Devices by number; of a customer, first those that name it, then those of its orders."""
        if customer is None or await self._read(Query("SELECT 1 FROM device_changes LIMIT 1")):
            async for one in self._all(page):
                if customer in (None, one.customer):
                    yield one
            return
        async for one in self._of(customer, "SELECT device_id FROM devices WHERE customer = $3 AND device_id > $1 "
                                  "ORDER BY device_id LIMIT $2", customer, page):
            yield one
        async for order in self._orders(customer, page):
            async for one in self._of(customer, "SELECT device_id FROM devices WHERE order_number = $3 AND customer "
                                      "IS NULL AND device_id > $1 ORDER BY device_id LIMIT $2", order, page):
                yield one

    async def _all(self, page: int) -> AsyncIterator[Registration]:
        after, query = 0, f"SELECT {REGISTRATION} FROM registrations WHERE device_id > $1 ORDER BY device_id LIMIT $2"
        while found := await self._read(Query(query, (after, page))):
            for row in found:
                yield registration_of(row)
            after = int(str(found[-1][0]))

    async def _of(self, customer: str, numbers: str, which: str, page: int) -> AsyncIterator[Registration]:
        after = 0
        while found := [row[0] for row in await self._read(Query(numbers, (after, page, which)))]:
            some, values = listed(found)
            for row in await self._read(Query(f"SELECT {REGISTRATION} FROM registrations WHERE device_id IN ({some}) "
                                              "ORDER BY device_id", values)):
                if row[1] == customer:
                    yield registration_of(row)
            after = int(str(found[-1]))

    async def _orders(self, customer: str, page: int) -> AsyncIterator[str]:
        after = ""
        while found := await self._read(orders.page(customer, after, page)):
            for row in found:
                yield str(row[0])
            after = str(found[-1][0])


class Fleet:
    """See the module. `snapshot`, where a driver has it, gives reads that all see one moment; without it each sees
    its own."""

    def __init__(self, driver: Running, by: By,
                 snapshot: Callable[[], AbstractAsyncContextManager[Read]] | None = None) -> None:
        self._driver, self._by, self._snapshot = driver, by, snapshot
        self.view = View(driver.read)

    @contextlib.asynccontextmanager
    async def moment(self) -> AsyncIterator[View]:
        """All devices as they are now, however long reading takes and whatever changes meanwhile."""
        if self._snapshot is None:
            yield self.view
            return
        async with self._snapshot() as read:
            yield View(read)

    async def add(self, registrations: Iterable[Registration], now: datetime, *, replace: bool = False,
                  seen: Callable[[Registration], None] | None = None) -> int:
        """Register devices in one transaction, all or none; the number of new or changed ones. `seen` is told each of
        these as it stands then, before it is there for anybody else: where that raises, nothing was registered."""
        all_of = list(registrations)
        return await self._driver.run(lambda: self._add(all_of, replace, now, seen))

    def _add(self, all_of: Sequence[Registration], replace: bool, at: datetime,
             seen: Callable[[Registration], None] | None) -> Transaction[int]:
        added = []
        for one in all_of:
            if (yield from devices.add_device(one, replace)):
                added.append(one)
        if added:
            yield from ledger.append(_entry(Act.DEVICES_ADDED, at, self._by, added))
        for one in added if seen is not None else ():
            assert seen is not None
            seen((yield from devices.settled(names_of(one)))[0])
        return len(added)

    async def import_all(self, spool: Spool, how: How, stage: Stage, now: Callable[[], datetime]) -> Imported:
        """Register what a spool holds, as store.importing says. It may take minutes, so it is told a clock and not a
        time."""
        return await Importer(self._driver, self._by, now, stage).run(spool, how)

    async def tidy(self, now: datetime) -> bool:
        """One small step of clearing up after imports; whether there is more to do. Cheap where there is nothing."""
        if not await self._driver.read(Query("SELECT 1 FROM imports LIMIT 1")):
            return False
        return await self._driver.run(lambda: imports.tidy(milliseconds(now), _TIDIED), imports.scope)

    async def called(self, text: str) -> list[Registration]:
        """The registrations that have this text as their service tag, serial number or MAC address."""
        known = devices.readings(text)
        return [registration_of(row) for row in await self._driver.read(devices.called(known))] if known else []

    async def unregistered(self, tags: Sequence[str]) -> list[str]:
        """Those of some service tags under which no device is registered, in their order."""
        found: set[str] = set()
        for at in range(0, len(tags), _TOGETHER):
            rows = await self._driver.read(devices.called([f"T{tag}" for tag in tags[at:at + _TOGETHER]]))
            found |= {str(registration_of(row).service_tag) for row in rows}
        return [tag for tag in tags if tag not in found]

    async def customers_of(self, tags: Sequence[str]) -> dict[str, str | None]:
        """Whose the devices of some service tags are; None for nobody's, and for what is not registered."""
        found: dict[str, str | None] = dict.fromkeys(tags)
        for at in range(0, len(tags), _TOGETHER):
            rows = await self._driver.read(devices.called([f"T{tag}" for tag in tags[at:at + _TOGETHER]]))
            found |= {str(one.service_tag): one.customer for one in map(registration_of, rows)}
        return found

    async def change(self, text: str, how: Callable[[Registration], Registration], now: datetime,
                     seen: Seen = lambda before, after: None) -> tuple[Registration, Registration]:
        """Change the device of this service tag, serial number or MAC address in one transaction: `how` makes its new
        row of the one that stands there. As it was and as it is, each with whose it is, which `seen` is told before
        anybody else sees it: where that raises, nothing has changed. Raises DelegatorError."""
        return await self._driver.run(lambda: self._change(text, how, now, seen))

    def _change(self, text: str, how: Callable[[Registration], Registration], at: datetime,
                seen: Seen) -> Transaction[tuple[Registration, Registration]]:
        before, after = yield from devices.alter(devices.readings(text), text, how)
        fields = [name for name in _TOLD if getattr(before.itself, name) != getattr(after.itself, name)]
        if fields:
            entry = _entry(Act.DEVICE_CHANGED, at, self._by, [after])
            yield from ledger.append(replaced(entry, detail={**entry.detail, "fields": fields}))
        seen(before, after)
        return before, after

    async def remove(self, one: Registration, now: datetime,
                     seen: Callable[[Registration], None] = lambda before: None) -> Claim | None:
        """Take a device off the register; the claim that goes on holding its tag. `seen` is told what goes: where that
        raises, it stays. Raises DelegatorError: see store.devices."""
        return await self._driver.run(lambda: self._remove(one, now, seen))

    def _remove(self, one: Registration, at: datetime,
                seen: Callable[[Registration], None]) -> Transaction[Claim | None]:
        seen((yield from devices.remove_device(one)))
        yield from ledger.append(_entry(Act.DEVICE_REMOVED, at, self._by, [one]))
        rows = () if one.service_tag is None else (yield claims.live_of(one.service_tag))
        return claims.claim_of(rows[0]) if rows else None


def _entry(act: Act, at: datetime, by: By, some: Sequence[Registration]) -> Entry:
    """One row for all of them; what can be told of one alone stands in the row's own columns."""
    one = some[0] if len(some) == 1 else None
    customers = {each.customer for each in some}
    return Entry(act, at, by.actor, service_tag=one.service_tag if one else None,
                 customer=customers.pop() if len(customers) == 1 else None, peer=by.peer,
                 detail={"devices": len(some), **({"serial_number": one.serial_number} if one else {})})


def snapshot_of(driver: Any) -> Callable[[], AbstractAsyncContextManager[Read]] | None:
    """The driver's own way to read one moment, where it has one."""
    found: Callable[[], AbstractAsyncContextManager[Read]] | None = getattr(driver, "snapshot", None)
    return found
