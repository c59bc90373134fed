"""Devices that customers own, found by any of their identifiers. Transactions and queries, no driver.

Devices are read afresh at each handshake by their keys (5-10 µs, flat to ten million rows), so a change needs no
mark for running servers.
The invariant: an identifier belongs to one registration; whose it is stays untold to anybody else.
Must not live here: claims, the small tables.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from dataclasses import replace as changed

from delegator.errors import DelegatorError, Kind
from delegator.model import Device, Registration
from delegator.store.registry import must_exist
from delegator.store.rows import registration_of
from delegator.store.transaction import Query, Transaction

_DEVICE = ("SELECT d.device_id, d.customer, d.service_tag, d.serial_number, d.model, d.order_number, d.delegate, "
           "(SELECT group_concat(mac, ',') FROM device_macs m WHERE m.device_id = d.device_id) FROM devices d ")


def candidates(service_tag: str | None, serial_number: str | None, macs: tuple[str, ...]) -> Query:
    """Every registration that shares an identifier: a few key look-ups in one statement."""
    said = tuple(value for value in (service_tag, serial_number) if value is not None)
    return Query(_candidates(service_tag is not None, serial_number is not None, len(macs)), (*said, *macs))


@functools.cache
def _candidates(tag: bool, serial: bool, macs: int) -> str:
    """The statement for a question of this shape. There are few shapes: a device says 16 MAC addresses at most."""
    columns = [column for column, said in (("service_tag", tag), ("serial_number", serial)) if said]
    keys = [f"SELECT device_id FROM devices WHERE {column} = ${number}" for number, column in enumerate(columns, 1)]
    if macs:
        places = ", ".join(f"${number}" for number in range(len(columns) + 1, len(columns) + 1 + macs))
        keys.append(f"SELECT device_id FROM device_macs WHERE mac IN ({places})")
    return f"{_DEVICE} WHERE d.device_id IN ({' UNION ALL '.join(keys)})"


def candidates_for(device: Device) -> Query:
    """The registrations that routing has to choose from."""
    return candidates(device.service_tag, device.serial_number, device.mac_addresses)


def approving(service_tag: str) -> Query:
    """The policies whose approved list holds a tag."""
    return Query("SELECT policy FROM approvals WHERE service_tag = $1", (service_tag,))


def page(customer: str | None, after: int, most: int) -> Query:
    """Registered devices by id, a page at a time."""
    condition, parameters = ("AND d.customer = $3", (after, most, customer)) if customer else ("", (after, most))
    return Query(_DEVICE + f"WHERE d.device_id > $1 {condition} ORDER BY d.device_id LIMIT $2", parameters)


def add_device(device: Registration, replace: bool) -> Transaction[bool]:
    """Register a device; False when the very same stands there already. Raises DelegatorError (CONFLICT) when an
    identifier is taken by another registration, NOT_FOUND when its customer or delegate does not exist, MALFORMED
    when it has no identifier."""
    if not (device.service_tag or device.serial_number or device.mac_addresses):
        raise DelegatorError(Kind.MALFORMED, "a device needs a service tag, a serial number or a MAC address")
    yield from must_exist("customer", device.customer)
    yield from _must_be_of_customer(device)
    rows = yield candidates(device.service_tag, device.serial_number, device.mac_addresses)
    known = [registration_of(row) for row in rows]
    if [changed(one, device_id=0, mac_addresses=tuple(sorted(one.mac_addresses))) for one in known] == [
            changed(device, device_id=0, mac_addresses=tuple(sorted(device.mac_addresses)))]:
        return False
    if known and not (replace and len(known) == 1 and known[0].customer == device.customer):
        raise _conflict(device, known)
    for one in known:
        yield Query("DELETE FROM devices WHERE device_id = $1", (one.device_id,))
    inserted = yield Query(
        "INSERT INTO devices (customer, service_tag, serial_number, model, order_number, delegate) "
        "VALUES ($1, $2, $3, $4, $5, $6) RETURNING device_id",
        (device.customer, device.service_tag, device.serial_number, device.model, device.order, device.delegate))
    for mac in device.mac_addresses:
        yield Query("INSERT INTO device_macs (mac, device_id) VALUES ($1, $2)", (mac, inserted[0][0]))
    return True


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import came to: how many are new, and which of the rows, by position, were refused and why."""

    new: int
    refused: tuple[tuple[int, DelegatorError], ...]


class Undone(DelegatorError):
    """An import that the caller did not want to keep; raised so that the driver takes all of it back."""

    def __init__(self, imported: Imported) -> None:
        super().__init__(Kind.CONFLICT, "the import was taken back")
        self.imported = imported


def import_devices(registrations: Iterable[Registration], replace: bool,
                   keep: Callable[[Imported], bool]) -> Transaction[Imported]:
    """Register what can be registered, then keep all of that or, as `keep` says, nothing (Undone). A row that is
    refused has written nothing: `add_device` looks before it writes."""
    new, refused = 0, []
    for position, one in enumerate(registrations):
        try:
            new += yield from add_device(one, replace)
        except DelegatorError as error:
            refused.append((position, error))
    imported = Imported(new, tuple(refused))
    if not keep(imported):
        raise Undone(imported)
    return imported


def _must_be_of_customer(device: Registration) -> Transaction[None]:
    if device.delegate is None:
        return
    found = yield Query("SELECT 1 FROM delegates WHERE name = $1 AND customer = $2",
                        (device.delegate, device.customer))
    if not found:
        raise DelegatorError(Kind.NOT_FOUND, f"customer {device.customer} has no delegate named {device.delegate}",
                             hint="see: delegator delegates list")


def _conflict(device: Registration, known: list[Registration]) -> DelegatorError:
    name = device.service_tag or device.serial_number or ", ".join(device.mac_addresses)
    if any(one.customer != device.customer for one in known):
        return DelegatorError(Kind.CONFLICT, f"device {name}: an identifier is registered to another customer")
    if len(known) > 1:
        return DelegatorError(Kind.CONFLICT, f"device {name}: its identifiers belong to several registered devices")
    return DelegatorError(Kind.CONFLICT, f"device {name} is registered already, differently",
                          hint="repeat with --replace to change it")


def remove_device(service_tag: str) -> Transaction[None]:
    """Take a device off the register; its claims stay on record. Raises DelegatorError (NOT_FOUND)."""
    removed = yield Query("DELETE FROM devices WHERE service_tag = $1 RETURNING device_id", (service_tag,))
    if not removed:
        raise DelegatorError(Kind.NOT_FOUND, f"no device is registered under {service_tag}",
                             hint="see: delegator devices list")
