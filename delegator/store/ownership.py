"""Whose a device is: released, returned to stock, handed to another customer, repaired.

Each verb is one transaction: claims that end, the registration, and one row of audit for each claim that changed
and one for the act itself. A crash leaves all of it or nothing.
The invariants: a device that nobody owns has no live claim; the key of a board that was replaced is refused from the
commit of the repair on.
Must not live here: the two steps of a transfer (store.transfers), when a claim may be opened (store.claims).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TypeVar

from msgspec.structs import replace

from delegator.errors import DelegatorError, Kind, Missing
from delegator.model import Claim, Registration
from delegator.model.audited import Act, By, Entry, Record
from delegator.model.lifecycle import Event
from delegator.model.owned import STEPS, Board, Transfer, TransferState
from delegator.signing import fingerprint
from delegator.store import boards, claims, devices, enrolled, indexed, transfers
from delegator.store.audit import inspection, ledger
from delegator.store.audit.inspection import Wanted
from delegator.store.driver import Running
from delegator.store.filters import chosen
from delegator.store.looking import look
from delegator.store.moments import milliseconds, moment
from delegator.store.registry import must_exist
from delegator.store.rows import registration_of
from delegator.store.transaction import Query, Transaction
from delegator.store.transfers import Side, Step

T = TypeVar("T")
_OWNER = Side()
_STEPS_READ = 100_000
"""Rows looked through for the steps of one transfer: those of its device since it was offered."""
REPLACED = "main board replaced"
"""Why a certificate that was issued online is revoked with a repair."""
KEY = "key:"
"""How the binding of a claim to an own certificate's key begins; what follows is the key's fingerprint."""


def give_back(name: str, order: str, now: int, by: By) -> Transaction[Registration]:
    """A device goes back to stock, under an order that is nobody's: what it claimed is over, what was offered of it
    too, and nobody owns it. The device as it was. Raises DelegatorError (NOT_FOUND, CONFLICT)."""
    device = yield from transfers.find(name)
    if device.customer is None:
        raise DelegatorError(Kind.CONFLICT, f"device {name} is in stock already",
                             hint=f"see: delegator devices show {name}")
    yield from transfers.drop_offer(device, by, now)
    sold = yield Query("SELECT customer FROM orders WHERE order_number = $1", (order,))
    if sold:
        raise DelegatorError(Kind.CONFLICT, f"order {order} is of customer {sold[0][0]!s}, so it would own the device",
                             hint="name an order for returned devices that belongs to nobody: --order NUMBER")
    yield from devices.change(
        replace(device, customer=None, delegate=None, order=order, by_order=False), device)
    released = [] if device.service_tag is None else (
        yield from claims.release(device.service_tag, now, by, Event.RETURNED))
    yield from ledger.append(Entry(
        Act.DEVICE_RETURNED, moment(now), by.actor, service_tag=device.service_tag, customer=device.customer,
        peer=by.peer, reasons=_reasons(by),
        detail={"device": devices.label(device), "order": order, "order_before": device.order,
                "claims": len(released)}))
    return device


def repair(tag: str, key: str | None, until: int | None, now: int, by: By) -> Transaction[list[Board]]:
    """An operator approves a new main board under an old tag: what the old one claimed is over and its key refused;
    `key` (a fingerprint) names the new one's, without it any other key may come once, `until` then. What is kept of
    the tag's keys from now on. Raises DelegatorError (NOT_FOUND, CONFLICT)."""
    new = "" if key is None else KEY + key
    old = yield from _known_keys(tag)
    registered = yield from devices.settled(devices.names(tag, None, ()))
    if not old and not registered:
        raise Missing("device", tag, f"no device is registered under {tag}, and none ever claimed it",
                      hint="see: delegator devices list")
    if not old and key is None:
        raise DelegatorError(Kind.CONFLICT, f"{tag} never claimed anything, so its old key is not known",
                             hint="name the new board's: --certificate FILE")
    live = yield Query(f"SELECT binding FROM claims WHERE service_tag = $1 AND {indexed.LIVE}", (tag,))
    if live and live[0][0] == new:
        raise DelegatorError(Kind.CONFLICT, f"that is the key that {tag} has now",
                             hint="give the certificate of the new main board")
    yield from claims.release(tag, now, by, Event.REPAIRED)
    for binding in old:
        if binding != new:
            yield from boards.refuse(tag, binding, now)
    yield from boards.expect(tag, new, now, until)
    if (yield from enrolled.standing(tag)) is not None:
        yield from enrolled.forget(tag, REPLACED, now, by)
    known = [boards.board_of(row) for row in (yield boards.of_tag(tag))]
    yield from ledger.append(Entry(
        Act.DEVICE_REPAIRED, moment(now), by.actor, service_tag=tag,
        customer=registered[0].customer if registered else None, peer=by.peer,
        reasons=_reasons(by), detail={
            "refused": [binding.removeprefix(KEY) for binding in old if binding != new and binding.startswith(KEY)],
            "approved": key, "until": None if until is None else moment(until).isoformat()}))
    return known


def _known_keys(tag: str) -> Transaction[list[str]]:
    """What claims of a tag were ever bound to, and the keys that were enrolled for it."""
    claimed = yield Query(f"SELECT DISTINCT binding FROM claims WHERE {indexed.OF_TAG.format('$1')}", (tag,))
    enrolled_keys = yield Query("SELECT DISTINCT key_fingerprint FROM enrolled WHERE service_tag = $1", (tag,))
    return sorted({str(row[0]) for row in claimed} | {f"{KEY}{row[0]!s}" for row in enrolled_keys})


def set_key(customer: str, public_key: str | None, now: int, by: By) -> Transaction[str | None]:
    """The public key (PEM) that a customer signs with, or None for none; the one before. Raises DelegatorError
    (NOT_FOUND)."""
    yield from must_exist("customer", customer)
    before = yield transfers.key_of(customer)
    if public_key is None:
        yield Query("DELETE FROM customer_keys WHERE customer = $1", (customer,))
    else:
        yield Query("INSERT INTO customer_keys (customer, public_key, since) VALUES ($1, $2, $3) "
                    "ON CONFLICT (customer) DO UPDATE SET public_key = $2, since = $3", (customer, public_key, now))
    yield from ledger.append(Entry(
        Act.CUSTOMER_SIGNING_KEY, moment(now), by.actor, customer=customer, peer=by.peer,
        detail={"key": None if public_key is None else fingerprint(public_key)}))
    return str(before[0][0]) if before else None


def _reasons(by: By) -> tuple[str, ...]:
    return () if by.because is None else (by.because,)


class Ownership:
    """The verbs of a Store for whose a device is. `by` says whose acts these are, for the audit."""

    def __init__(self, driver: Running, by: By) -> None:
        self._driver, self._by = driver, by

    def _because(self, text: str | None) -> By:
        return replace(self._by, because=text)

    async def release(self, service_tag: str, now: datetime, because: str | None = None) -> list[Claim]:
        """Free a tag for its own device and owner; the claims changed, the live one first."""
        return await self._driver.run(
            lambda: claims.release(service_tag, milliseconds(now), self._because(because)))

    async def give_back(self, names: Iterable[str], order: str, now: datetime,
                        because: str | None = None) -> list[Registration]:
        """Devices go back to stock under an order, all or none; as they were. Raises DelegatorError."""
        by, all_of = self._because(because), list(names)
        return await self._driver.run(
            lambda: _each(give_back(name, order, milliseconds(now), by) for name in all_of))

    async def repair(self, tag: str, key: str | None, now: datetime, until: datetime | None,
                     because: str) -> list[Board]:
        """A new main board under an old tag. Raises DelegatorError."""
        return await self._driver.run(lambda: repair(
            tag, key, None if until is None else milliseconds(until), milliseconds(now), self._because(because)))

    async def boards(self, tag: str) -> list[Board]:
        return [boards.board_of(row) for row in await self._driver.read(boards.of_tag(tag))]

    async def set_key(self, customer: str, public_key: str | None, now: datetime) -> None:
        await self._driver.run(lambda: set_key(customer, public_key, milliseconds(now), self._by))

    async def key(self, customer: str) -> str | None:
        rows = await self._driver.read(transfers.key_of(customer))
        return str(rows[0][0]) if rows else None

    # --- transfers ---

    async def in_order(self, order: str, customer: str) -> list[str]:
        """The names of a customer's devices of an order."""
        rows = await self._driver.read(transfers.in_order(order, customer))
        return [devices.label(registration_of(row)) for row in rows]

    async def offer(self, offers: Iterable[tuple[str, str]], to: str, until: datetime, now: datetime,
                    side: Side = _OWNER, *, told: Callable[[], None] | None = None) -> list[Transfer]:
        """Offer devices, each with the number of its transfer, all or none; `told` is called after each. Raises
        DelegatorError."""
        step, all_of = self._step(side, now), list(offers)
        return await self._driver.run(lambda: _each(
            (transfers.offer(name, number, to, milliseconds(until), step) for name, number in all_of), told))

    async def end(self, to: TransferState, which: Iterable[str], now: datetime, side: Side, *,
                  delegate: str | None = None, told: Callable[[], None] | None = None) -> list[Transfer]:
        """Accept, decline or withdraw offers, by number or device, all or none; `told` is called after each. Raises
        DelegatorError."""
        step, all_of = self._step(side, now), list(which)

        def one(name: str) -> Transaction[Transfer]:
            if to is TransferState.ACCEPTED:
                return transfers.accept(name, step, delegate)
            return {TransferState.DECLINED: transfers.decline, TransferState.WITHDRAWN: transfers.withdraw}[to](
                name, step)
        return await self._driver.run(lambda: _each((one(name) for name in all_of), told))

    def _step(self, side: Side, now: datetime) -> Step:
        return Step(self._because(side.because), milliseconds(now), side.customer, side.sign)

    async def planned(self, name: str, to: str, until: datetime) -> Transfer:
        """The offer of a device as it would be made: what its owner signs. Raises DelegatorError."""
        return transfers.planned(await self.device(name), "", to, until, Step(self._by, 0))

    async def lapse(self, now: datetime) -> int:
        """End the offers whose time is over. Looks first: most of the time there is none, and nobody waits."""
        if not await self._driver.read(transfers.lapsing(milliseconds(now), 1)):
            return 0
        return await self._driver.run(lambda: transfers.lapse(milliseconds(now)))

    async def transfer(self, which: str) -> Transfer:
        """The transfer of this number, or the open offer of this device. Raises DelegatorError (NOT_FOUND)."""
        return transfers.the_one(await self._driver.read(transfers.named(which)), which)

    async def device(self, name: str) -> Registration:
        """The registered device of this tag, serial number or MAC address. Raises DelegatorError (NOT_FOUND)."""
        return await look(self._driver.read, transfers.find(name))

    async def steps(self, transfer: Transfer) -> list[Record]:
        """The rows of audit of a transfer, oldest first."""
        wanted = Wanted(service_tag=transfer.service_tag, since=transfer.offered_at)
        rows = await self._driver.read(inspection.rows_of(wanted, _STEPS_READ))
        acts = set(STEPS.values())
        return [one for one in reversed([inspection.record_of(row) for row in rows])
                if one.entry.act in acts and one.entry.detail.get("transfer") == transfer.transfer_id]

    async def transfers(self, *, customer: str | None = None, state: TransferState | None = None,
                        device: str | None = None, order: str | None = None, most: int = 1000) -> list[Transfer]:
        """Transfers, newest first; of a customer, those it offers and those it is offered."""
        where, values = chosen({
            "offered_by = {0} OR offered_to = {0}": customer, "state = {0}": None if state is None else state.value,
            "device = {0} OR service_tag = {0}": device, "order_number = {0}": order}, 2)
        rows = await self._driver.read(Query(
            f"SELECT {transfers.COLUMNS} FROM transfers WHERE {where} ORDER BY offered_at DESC, transfer_id DESC "
            "LIMIT $1", (most, *values)))
        return [transfers.transfer_of(row) for row in rows]


def _each(works: Iterable[Transaction[T]], told: Callable[[], None] | None = None) -> Transaction[list[T]]:
    made = []
    for work in works:
        made.append((yield from work))
        if told is not None:
            told()
    return made
