"""A device changes hands in two steps: its owner offers it, another customer accepts it.

Until it is accepted the old owner stays; accepting moves the registration, wipes the old owner's credential and
frees the tag in one transaction, so that there is no moment with two owners or none. A customer with a signing key
on record signs each of its steps; statement and signature stand in the row of audit.
The invariants: a device has one open offer at most; an offer is accepted by the customer it was made to, once, for
the device as it was offered; where a key is on record no step of that customer goes without its signature.
Must not live here: signatures themselves (signing), repairs and returns (store.ownership).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from msgspec.structs import replace

from delegator.errors import DelegatorError, Kind, Missing
from delegator.model import Registration, normal_mac
from delegator.model.audited import By, Entry
from delegator.model.lifecycle import Event
from delegator.model.owned import STEPS, Transfer, TransferState
from delegator.signing import Sign, Signed, checked, statement
from delegator.store import devices
from delegator.store.audit import ledger
from delegator.store.claims import release
from delegator.store.moments import milliseconds, moment
from delegator.store.registry import must_exist
from delegator.store.rows import REGISTRATION
from delegator.store.transaction import Query, Row, Transaction

COLUMNS = ("transfer_id, device, device_id, service_tag, order_number, offered_by, offered_to, state, offered_at, "
           "until, ended_at, because")
_LIST = "see: delegator transfers list"


class Step(msgspec.Struct, frozen=True):
    """One step as it is taken: by whom, at what time (ms), for which customer (None for an offer: whoever owns the
    device), and with which signature."""

    by: By
    now: int
    customer: str | None = None
    sign: Sign | None = None


class Side(msgspec.Struct, frozen=True):
    """The customer that takes a step (None for an offer: whoever owns the device), with what it signs, and why."""

    customer: str | None = None
    sign: Sign | None = None
    because: str | None = None


def transfer_of(row: Row) -> Transfer:
    """A row of COLUMNS as a value."""
    text = [None if value is None else str(value) for value in row]
    return Transfer(
        transfer_id=str(row[0]), device=str(row[1]), device_id=None if row[2] is None else int(str(row[2])),
        service_tag=text[3], order=text[4], offered_by=str(row[5]), offered_to=str(row[6]),
        state=TransferState(row[7]), offered_at=moment(row[8]), until=moment(row[9]),
        ended_at=None if row[10] is None else moment(row[10]), because=text[11])


# --- devices ------------------------------------------------------------------------------------------------------


def find(name: str) -> Transaction[Registration]:
    """The registered device of this tag, or else of this serial number or MAC address. Raises DelegatorError
    (NOT_FOUND, or TRY_LATER while an import is about it)."""
    found = yield from devices.settled(devices.names(name, name, _macs(name)))
    if not found:
        raise Missing("device", name, f"no device is registered under {name}",
                             hint="see: delegator devices list")
    return next((one for one in found if one.service_tag == name), found[0])


def _macs(name: str) -> tuple[str, ...]:
    try:
        return (normal_mac(name),)
    except ValueError:
        return ()


def in_order(order: str, customer: str) -> Query:
    """A customer's devices of an order."""
    return Query(f"SELECT {REGISTRATION} FROM registrations WHERE device_id IN (SELECT device_id FROM devices "
                 "WHERE order_number = $1) AND order_number = $1 AND owner = $2 ORDER BY device_id", (order, customer))


# --- steps --------------------------------------------------------------------------------------------------------


def facts_of(transfer: Transfer, step: TransferState) -> dict[str, object]:
    """What is stated, and signed, of a step. An offer is stated before it has a number: its end tells it from any
    other offer of that device."""
    facts: dict[str, object] = {
        "act": STEPS[step].value, "device": transfer.device, "offered_by": transfer.offered_by,
        "offered_to": transfer.offered_to, "until": transfer.until.isoformat()}
    return facts if step is TransferState.OFFERED else {**facts, "transfer": transfer.transfer_id}


def stated(transfer: Transfer, step: TransferState) -> bytes:
    """What is signed of a step, byte for byte."""
    return statement(facts_of(transfer, step))


def offer(name: str, transfer_id: str, to: str, until: int, step: Step) -> Transaction[Transfer]:
    """The owner of a device offers it to another customer. Raises DelegatorError."""
    device = yield from find(name)
    if step.customer != device.customer:
        yield from must_exist("customer", step.customer)
    made = planned(device, transfer_id, to, moment(until), step)
    yield from must_exist("customer", to)
    yield from _must_be_free(device, step.now)
    if step.sign is not None:
        yield from _must_be_new(made)
    yield Query(
        f"INSERT INTO transfers ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, 'offered', $8, $9, NULL, $10)",
        (transfer_id, made.device, made.device_id, made.service_tag, made.order, made.offered_by, to, step.now, until,
         made.because))
    yield from _note(made, step)
    return made


def planned(device: Registration, transfer_id: str, to: str, until: datetime, step: Step) -> Transfer:
    """The offer of a device as it would be made. Raises DelegatorError."""
    owner = _owner(device, step.customer)
    if owner == to:
        raise DelegatorError(Kind.CONFLICT, f"device {devices.label(device)} is {to}'s already",
                             hint="see: delegator transfers list")
    return Transfer(transfer_id, devices.label(device), device.device_id, device.service_tag, device.order, owner, to,
                    TransferState.OFFERED, moment(step.now), until, because=step.by.because)


def _owner(device: Registration, said: str | None) -> str:
    """Who owns it. Raises DelegatorError: CONFLICT for nobody, NOT_ENTITLED when somebody else was said to."""
    if device.customer is None:
        raise DelegatorError(Kind.CONFLICT, f"device {devices.label(device)} is in stock: nobody owns it",
                             hint="register it to its customer with: delegator devices add")
    if said not in (None, device.customer):
        raise DelegatorError(Kind.NOT_ENTITLED, f"device {devices.label(device)} is not {said}'s",
                             hint=f"see: delegator devices show {devices.label(device)}")
    return device.customer


def _must_be_free(device: Registration, now: int) -> Transaction[None]:
    """No open offer stands; one whose time is over is ended here and now."""
    rows = yield Query(f"SELECT {COLUMNS} FROM transfers WHERE device_id = $1 AND state = 'offered'",
                       (device.device_id,))
    for standing in map(transfer_of, rows):
        if milliseconds(standing.until) > now:
            raise DelegatorError(Kind.CONFLICT, f"device {standing.device} is offered to {standing.offered_to} already",
                                 hint=f"delegator transfers withdraw {standing.transfer_id} "
                                      f"--as {standing.offered_by}")
        yield from _lapse(standing, now)


def _must_be_new(made: Transfer) -> Transaction[None]:
    """A signed offer is good once: what its owner withdrew, or the other declined, cannot be made again with it."""
    rows = yield Query("SELECT 1 FROM transfers WHERE device = $1 AND offered_by = $2 AND offered_to = $3 "
                       "AND until = $4", (made.device, made.offered_by, made.offered_to, milliseconds(made.until)))
    if rows:
        raise DelegatorError(Kind.CONFLICT, f"this very offer of {made.device} was made before",
                             hint="sign a new one that ends at another time: --until TIME")


def named(which: str) -> Query:
    return Query(f"SELECT {COLUMNS} FROM transfers WHERE transfer_id = $1 OR (state = 'offered' AND device = $1) "
                 "ORDER BY offered_at DESC", (which,))


def the_one(rows: Sequence[Row], which: str) -> Transfer:
    """The transfer of this number, or the open offer of this device. Raises DelegatorError (NOT_FOUND)."""
    if not rows:
        raise Missing("device", which, f"nothing is offered under {which}", hint=_LIST)
    return transfer_of(rows[0])


def _due(which: str, to: TransferState, step: Step) -> Transaction[Transfer]:
    """An offer that this step may end. Raises DelegatorError: NOT_ENTITLED for the wrong customer, CONFLICT when it
    is over."""
    offered = the_one((yield named(which)), which)
    if step.customer != offered.whose(to):
        yield from must_exist("customer", step.customer)
        raise DelegatorError(Kind.NOT_ENTITLED, f"transfer {offered.transfer_id} of {offered.device} is not "
                             f"{step.customer}'s to end like this", hint=f"it is {offered.whose(to)}'s")
    if offered.state is not TransferState.OFFERED or milliseconds(offered.until) <= step.now:
        state = offered.state if offered.state is not TransferState.OFFERED else TransferState.LAPSED
        raise DelegatorError(Kind.CONFLICT, f"transfer {offered.transfer_id} of {offered.device} is over: "
                             f"{state.value}", hint="offer it anew with: delegator transfers offer")
    return offered


def accept(which: str, step: Step, delegate: str | None = None) -> Transaction[Transfer]:
    """The other customer takes the device: registration, credential and tag in one. What its order and its delegate
    were is the old owner's business and does not go along. Raises DelegatorError."""
    offered = yield from _due(which, TransferState.ACCEPTED, step)
    device = yield from _as_offered(offered)
    after = replace(device, customer=offered.offered_to, delegate=delegate, order=None, by_order=False)
    yield from devices.must_be_of_customer(after)
    yield from devices.change(after, device)
    if device.service_tag is not None:
        yield from release(device.service_tag, step.now, replace(step.by, detail={"transfer": offered.transfer_id}),
                           Event.TRANSFERRED)
    return (yield from _end(offered, TransferState.ACCEPTED, step))


def _as_offered(offered: Transfer) -> Transaction[Registration]:
    """The device, still registered to whoever offered it. Raises DelegatorError (CONFLICT)."""
    try:
        device = yield from find(offered.device)
    except DelegatorError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
        device = None
    if device is None or (device.device_id, device.customer) != (offered.device_id, offered.offered_by):
        raise DelegatorError(Kind.CONFLICT, f"device {offered.device} is not registered any more as it was offered",
                             hint=f"delegator transfers withdraw {offered.transfer_id} --as {offered.offered_by}")
    return device


def decline(which: str, step: Step) -> Transaction[Transfer]:
    """The other customer does not want it. Raises DelegatorError."""
    return (yield from _end((yield from _due(which, TransferState.DECLINED, step)), TransferState.DECLINED, step))


def withdraw(which: str, step: Step) -> Transaction[Transfer]:
    """The owner keeps it after all. Raises DelegatorError."""
    return (yield from _end((yield from _due(which, TransferState.WITHDRAWN, step)), TransferState.WITHDRAWN, step))


def drop_offer(device: Registration, by: By, now: int) -> Transaction[None]:
    """The device goes back to stock: what was offered of it is withdrawn, whoever would have had to sign."""
    rows = yield Query(f"SELECT {COLUMNS} FROM transfers WHERE device_id = $1 AND state = 'offered'",
                       (device.device_id,))
    for offered in map(transfer_of, rows):
        yield from _write_end(offered, TransferState.WITHDRAWN, now, by, {})


def lapsing(now: int, most: int) -> Query:
    return Query(f"SELECT {COLUMNS} FROM transfers WHERE state = 'offered' AND until <= $1 ORDER BY until LIMIT $2",
                 (now, most))


def lapse(now: int, most: int = 500) -> Transaction[int]:
    """End the offers whose time is over, at most `most`."""
    rows = yield lapsing(now, most)
    for offered in map(transfer_of, rows):
        yield from _lapse(offered, now)
    return len(rows)


def _lapse(offered: Transfer, now: int) -> Transaction[None]:
    yield from _write_end(offered, TransferState.LAPSED, now, By("delegator"), {})


def _end(offered: Transfer, to: TransferState, step: Step) -> Transaction[Transfer]:
    signed = yield from _signature(offered, to, step)
    return (yield from _write_end(offered, to, step.now, step.by, _as_detail(signed)))


def _write_end(offered: Transfer, to: TransferState, now: int, by: By,
               signed: Mapping[str, object]) -> Transaction[Transfer]:
    yield Query("UPDATE transfers SET state = $2, ended_at = $3 WHERE transfer_id = $1 AND state = 'offered'",
                (offered.transfer_id, to.value, now))
    ended = replace(offered, state=to, ended_at=moment(now))
    yield from ledger.append(_entry(ended, by, now, signed))
    return ended


def _note(made: Transfer, step: Step) -> Transaction[None]:
    signed = yield from _signature(made, TransferState.OFFERED, step)
    yield from ledger.append(_entry(made, step.by, step.now, _as_detail(signed)))


def _entry(transfer: Transfer, by: By, now: int, signed: Mapping[str, object]) -> Entry:
    facts = {**facts_of(transfer, transfer.state), "transfer": transfer.transfer_id, "order": transfer.order}
    return Entry(
        STEPS[transfer.state], moment(now), by.actor, service_tag=transfer.service_tag,
        customer=transfer.whose(transfer.state), peer=by.peer,
        reasons=() if by.because is None else (by.because,), detail={**facts, **signed})


# --- signatures ---------------------------------------------------------------------------------------------------


def key_of(customer: str) -> Query:
    return Query("SELECT public_key FROM customer_keys WHERE customer = $1", (customer,))


def _signature(transfer: Transfer, to: TransferState, step: Step) -> Transaction[Signed | None]:
    """The signature of the customer whose step it is. Raises DelegatorError (IDENTITY) where one is wanted and not
    there, or not good, and where there is one that nothing can check."""
    whose = transfer.whose(to)
    rows = yield key_of(whose)
    if not rows and step.sign is None:
        return None
    if not rows or step.sign is None:
        raise DelegatorError(
            Kind.IDENTITY, f"{whose} has no signing key on record to check this with" if step.sign else
            f"{whose} signs what it does, and this is not signed",
            hint=f"delegator customers change {whose} --signing-key FILE" if step.sign else
            "give its key with --sign-with FILE, or what it signed with --signature FILE")
    said = stated(transfer, to)
    try:
        return checked(said, step.sign(said), str(rows[0][0]))
    except ValueError as error:
        raise DelegatorError(Kind.IDENTITY, f"{transfer.device}: {error}",
                             hint="see what there is to sign with: delegator transfers statement") from None


def _as_detail(signed: Signed | None) -> dict[str, object]:
    return {} if signed is None else {"statement": signed.statement, "signature": signed.signature,
                                      "public_key": signed.public_key}
