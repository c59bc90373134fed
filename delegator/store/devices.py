"""Devices that customers own, found by any of their identifiers. Transactions and queries, no driver.

Devices are read afresh at each handshake by their keys (flat to ten million rows), so a change needs no mark for
running servers. They are read through the view `registrations`, which leaves out what an import has not shown yet.
The invariants: an identifier belongs to one registration, as its row in device_names says, which is written and
removed with the device; nothing here gives a device that has an owner to another one, or an identifier of a device
with a service tag to another device; whose something is, only an operator is told.
Must not live here: claims, the small tables, many devices at once (store.imports).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec.structs import replace as changed

from delegator.errors import DelegatorError, Kind, Missing, Owned
from delegator.model import SERIAL_NUMBER, SERVICE_TAG, Device, Registration, normal_mac
from delegator.store.bulk import listed, places
from delegator.store.registry import must_exist
from delegator.store.rows import REGISTRATION, registration_of
from delegator.store.transaction import Query, Transaction, Value

COLUMNS = "customer, service_tag, serial_number, mac_addresses, model, order_number, delegate"
"""Of the tables devices and device_changes, as `columns_of` fills them."""


def names(service_tag: str | None, serial_number: str | None, macs: Iterable[str]) -> list[str]:
    """The rows of device_names for identifiers in their normal form."""
    known = [] if service_tag is None else ["T" + service_tag]
    if serial_number is not None:
        known.append("S" + serial_number)
    for mac in macs:
        known.append("M" + mac.replace(":", ""))
    return known


def names_of(one: Registration) -> list[str]:
    return names(one.service_tag, one.serial_number, one.mac_addresses)


def readings(text: str) -> tuple[str, ...]:
    """The names that a text may stand for, whatever kind of identifier it is."""
    kinds = (("T", SERVICE_TAG), ("S", SERIAL_NUMBER))
    found = [letter + text for letter, form in kinds if form.fullmatch(text)]
    with contextlib.suppress(ValueError):
        found += names(None, None, [normal_mac(text)])
    return tuple(found)


def spoken(name: str) -> str:
    """A name as people say it: its kind and the identifier."""
    kinds = {"T": "service tag", "S": "serial number", "M": "MAC address"}
    said = name[1:] if name[0] != "M" else ":".join(name[at:at + 2] for at in range(1, len(name), 2))
    return f"{kinds[name[0]]} {said}"


@functools.cache
def _candidates(count: int) -> str:
    named = ", ".join(f"(SELECT device_id FROM device_names WHERE name = ${place})" for place in range(1, count + 1))
    return f"SELECT {REGISTRATION} FROM registrations WHERE device_id IN ({named})"


_TAGGED = (f"SELECT {REGISTRATION}, (SELECT number FROM revision) FROM registrations "
           "WHERE device_id = (SELECT device_id FROM device_names WHERE name = $1)")
"""As `_candidates(1)`, which would make SQLite open a table of its own for the list: 20 000 instructions."""


def tagged(service_tag: str) -> Query:
    """The registration of a tag, and the revision that the small tables have at that moment. Routing takes it before
    whatever else a device says of itself, so that alone is looked up where there is one: of ten million devices each
    name is two more pages that no cache holds."""
    return Query(_TAGGED, ("T" + service_tag,))


def untagged(device: Device) -> Query | None:
    """The registrations behind whatever else a device says of itself; None where it says nothing else."""
    known = names(None, device.serial_number, device.mac_addresses)
    return called(known) if known else None


def called(known: Sequence[str]) -> Query:
    """The registrations behind names."""
    return Query(_candidates(len(known)), tuple(known))


def approving(service_tag: str) -> Query:
    """The policies whose approved list holds a tag."""
    return Query("SELECT policy FROM approvals WHERE service_tag = $1", (service_tag,))


def columns_of(one: Registration) -> tuple[Value, ...]:
    """What a row says of a device, in the order of COLUMNS."""
    own = one.itself
    return (own.customer, own.service_tag, own.serial_number, ",".join(own.mac_addresses) or None, own.model, own.order,
            own.delegate)


def same(registered: Registration, said: Registration) -> bool:
    """Whether a device is registered just as it is said. A registration without a service tag takes one with its
    first claim, and stays the same by that."""
    own = changed(registered.itself, device_id=0, mac_addresses=tuple(sorted(registered.mac_addresses)),
                  service_tag=registered.service_tag if said.service_tag else None)
    return own == changed(said.itself, device_id=0, mac_addresses=tuple(sorted(said.mac_addresses)))


def label(device: Registration) -> str:
    """What a device is called: its tag, else its serial number, else a MAC address."""
    return device.service_tag or device.serial_number or device.mac_addresses[0]


def _may_be(said: Registration, one: Registration) -> bool:
    """Whether a row that shares an identifier with a registered device can be about that one: what says most of a
    device, of what both say, is the same. So a shared serial number or address never renames a device with a tag."""
    for mine, theirs in ((said.service_tag, one.service_tag), (said.serial_number, one.serial_number)):
        if mine is not None and theirs is not None:
            return mine == theirs
    return True


def _meant(said: Registration, known: Sequence[Registration]) -> Registration | None:
    """Which of the registered devices that share an identifier with a row this is about: the one with its tag."""
    tagged_so = [one for one in known if said.service_tag is not None and one.service_tag == said.service_tag]
    return next(iter(tagged_so or [one for one in known if _may_be(said, one)]), None)


def owner_of(one: Registration, sold: Mapping[str, str]) -> str | None:
    """Whose a device is: its own row's customer, or its order's, where `sold` says which orders are whose."""
    return one.itself.customer or sold.get(one.order or "")


def obstacle(said: Registration, known: Sequence[Registration], replace: bool, sold: Mapping[str, str],
             unnamed: Iterable[str] = ()) -> DelegatorError | None:
    """Why a device that shares identifiers with `known` cannot be registered like this; `sold` says whose orders are,
    `unnamed` what the row does not name."""
    one = _meant(said, known)
    after = said if one is None else amended(said, one, unnamed)
    owner = owner_of(after, sold)
    others = [each for each in known if each is not one]
    if others:
        return taken(said, others, owner, also=one)
    if one is None:
        return None
    if one.customer not in (None, owner):
        return _moving(said, one, owner)
    if not replace:
        tag = f" --tag {said.service_tag}" if said.service_tag is not None and one.service_tag is None else ""
        return DelegatorError(Kind.CONFLICT, f"device {label(one)} is registered already, differently",
                              hint=f"change it with: delegator devices change {label(one)}{tag}; an import, with "
                                   "--replace")
    return None


def _shared(said: Registration, one: Registration) -> str:
    theirs = names_of(one)
    return ", ".join(spoken(name) for name in names_of(said) if name in theirs)


def _whose(one: Registration) -> str:
    return f"{label(one)} is {one.customer}'s" + (f" by its order {one.order}" if one.by_order else "")


def taken(said: Registration, others: Sequence[Registration], owner: str | None,
          also: Registration | None = None) -> DelegatorError:
    """Identifiers of a device that is `owner`'s belong to others; `also` is the registered device that it is."""
    called = label(said)
    foreign = [one for one in others if one.customer not in (None, owner)]
    if foreign:
        one = foreign[0]
        return Owned(f"device {called}: {_shared(said, one)} is registered to another customer", _whose(one),
                     hint="correct the identifier, or see which of the two it is: delegator devices list")
    whose = ", ".join(f"{_shared(said, one)} belongs to {label(one)}" for one in others)
    several = len(others) + (also is not None) > 1
    return DelegatorError(
        Kind.CONFLICT, f"device {called}: {whose}" + (
            "; its identifiers belong to several registered devices" if several else ""),
        hint=f"correct it, or look at the other one: delegator devices show {label(others[0])}")


def _moving(said: Registration, one: Registration, owner: str | None) -> DelegatorError:
    """A device that has an owner would be somebody else's, or nobody's."""
    name = next((name for name in names_of(said) if name in names_of(one)), names_of(said)[0])
    text = spoken(name).rpartition(" ")[2]
    back = f"delegator devices return {text}" + (f" --order {said.order}" if said.order and owner is None else "")
    if owner is None:
        return Owned(f"{spoken(name)} is registered to a customer, and by this it would be nobody's", _whose(one),
                     hint=f"take it back to stock: {back}")
    return Owned(f"{spoken(name)} is registered to another customer", _whose(one),
                 hint=f"it moves by: delegator transfers offer {text} --to {owner}; back to stock by: {back}")


def sold_orders(numbers: Iterable[str | None]) -> Query | None:
    """Orders among these that are somebody's, with whose; None where there are none to ask for."""
    wanted = sorted({number for number in numbers if number is not None})
    if not wanted:
        return None
    some, values = listed(wanted)
    return Query(f"SELECT order_number, customer FROM orders WHERE order_number IN ({some})", values)


def _sold(some: Iterable[Registration]) -> Transaction[dict[str, str]]:
    query = sold_orders(one.order for one in some if one.itself.customer is None)
    rows = () if query is None else (yield query)
    return {str(row[0]): str(row[1]) for row in rows}


def successor(said: Registration, before: Registration) -> Registration:
    """What a registered device becomes that is said as a whole. The tag that it took with its first claim stays with
    it: it says which device may go on."""
    return changed(said, device_id=before.device_id, service_tag=said.service_tag or before.service_tag)


def amended(said: Registration, before: Registration, unnamed: Iterable[str]) -> Registration:
    """What a registered device becomes by a row that says nothing of the `unnamed` fields: these stay."""
    own = successor(said, before)
    stay = {name: getattr(before.itself, name) for name in unnamed if not getattr(said, name)}
    if own.customer is None and stay.get("customer") is None:
        stay.pop("delegate", None)  # it was the customer's that the row takes away
    return changed(own, **stay) if stay else own


def add_device(device: Registration, replace: bool) -> Transaction[bool]:
    """Register a device; False when the very same stands there already. Raises DelegatorError (CONFLICT) when an
    identifier is taken by another registration, NOT_FOUND when its customer or delegate does not exist, MALFORMED
    when it has no identifier, TRY_LATER when an import under way is about it."""
    mine = names_of(device)
    if not mine:
        raise DelegatorError(Kind.MALFORMED, "a device needs a service tag, a serial number or a MAC address")
    yield from must_exist("customer", device.customer)
    yield from must_be_of_customer(device)
    known = yield from settled(mine)
    if len(known) == 1 and same(known[0], device):
        return False
    if known:
        refusal = obstacle(device, known, replace, (yield from _sold([device])))
        if refusal is not None:
            raise refusal
        after = successor(device, known[0])
        if not same(known[0], after):
            yield from change(after, known[0])
            return True
        return False
    number = yield Query("UPDATE device_numbers SET next_id = next_id + 1 RETURNING next_id - 1")
    yield Query(f"INSERT INTO devices (device_id, {COLUMNS}) VALUES ($1, {places(7, 2)})",
                (number[0][0], *columns_of(device)))
    yield from _name(mine, number[0][0])
    return True


def alter(known: Sequence[str], text: str, how: Callable[[Registration], Registration],
          ) -> Transaction[tuple[Registration, Registration]]:
    """Change the one registered device of these names, which `text` calls; as it was and as it is, each with whose it
    is. `how` is given the device's own row. Raises DelegatorError: NOT_FOUND, CONFLICT, TRY_LATER as `add_device`."""
    before = only((yield from settled(known)), text)
    after = how(before.itself)
    yield from must_exist("customer", after.customer)
    yield from must_be_of_customer(after)
    owner = owner_of(after, (yield from _sold([after])))
    if before.customer not in (None, owner):
        raise _moving(after, before, owner)
    others = [one for one in (yield from settled(names_of(after))) if one.device_id != before.device_id]
    if others:
        raise taken(after, others, owner, also=before)
    if not same(before, after) or after.itself != before.itself:
        yield from change(after, before)
    return before, (yield from settled(names_of(after)))[0]


def only(found: Sequence[Registration], text: str) -> Registration:
    """The one registration of this name. Raises DelegatorError: NOT_FOUND for none, CONFLICT for several."""
    if not found:
        raise Missing("device", text, f"no device is registered under {text}",
                      hint="see: delegator devices list")
    if len(found) > 1:
        raise DelegatorError(Kind.CONFLICT, f"{text} is an identifier of {len(found)} devices, of another kind each",
                             hint="say another identifier of the one that is meant")
    return found[0]


def change(after: Registration, before: Registration) -> Transaction[None]:
    yield Query("UPDATE devices SET customer = $2, service_tag = $3, serial_number = $4, mac_addresses = $5, "
                "model = $6, order_number = $7, delegate = $8 WHERE device_id = $1",
                (before.device_id, *columns_of(after)))
    given_up = [name for name in names_of(before) if name not in names_of(after)]
    yield from _unname(given_up)
    yield from _name([name for name in names_of(after) if name not in names_of(before)], before.device_id)


def _name(added: Sequence[str], device_id: Value) -> Transaction[None]:
    for name in added:
        yield Query("INSERT INTO device_names (name, device_id) VALUES ($1, $2)", (name, device_id))


def _unname(removed: Sequence[str]) -> Transaction[None]:
    for name in removed:
        yield Query("DELETE FROM device_names WHERE name = $1", (name,))


def settled(mine: Sequence[str]) -> Transaction[list[Registration]]:
    """The registrations behind names. Raises DelegatorError (TRY_LATER) where an import is about any of them."""
    held = yield Query(f"SELECT device_id FROM device_names WHERE name IN ({places(len(mine))})", tuple(mine))
    numbers = sorted({int(str(row[0])) for row in held})
    if not numbers:
        return []
    rows = yield Query(f"SELECT {REGISTRATION} FROM registrations WHERE device_id IN ({places(len(numbers))}) "
                       "AND NOT EXISTS (SELECT 1 FROM device_changes c WHERE c.device_id = registrations.device_id)",
                       tuple(numbers))
    if len(rows) < len(numbers):
        raise DelegatorError(Kind.TRY_LATER, "an import under way is about this device",
                             hint="run it again when the import has ended")
    return [registration_of(row) for row in rows]


def take_tag(device_id: int, tag: str) -> Transaction[bool]:
    """A registration without a service tag takes one. False when it has one by now, when another device has this one,
    or while an import changes it."""
    rows = yield Query("UPDATE devices SET service_tag = $2 WHERE device_id = $1 AND service_tag IS NULL AND NOT "
                       "EXISTS (SELECT 1 FROM device_changes c WHERE c.device_id = devices.device_id) AND NOT EXISTS "
                       "(SELECT 1 FROM device_names n WHERE n.name = $3) RETURNING device_id",
                       (device_id, tag, "T" + tag))
    if rows:
        yield from _name(["T" + tag], device_id)
    return bool(rows)


def still_owned(device_id: int, customer: str) -> Transaction[bool]:
    """Whether a device is this customer's, by itself or by its order. Asked only where its own row does not say so:
    the view takes several look-ups."""
    rows = yield Query("SELECT 1 FROM registrations WHERE device_id = $1 AND owner = $2", (device_id, customer))
    return bool(rows)


def must_be_of_customer(device: Registration) -> Transaction[None]:
    if device.delegate is None:
        return
    found = yield Query("SELECT 1 FROM delegates WHERE name = $1 AND customer = $2",
                        (device.delegate, device.customer))
    if not found:
        raise no_such_delegate(device.customer, device.delegate)


def no_such_delegate(customer: str | None, delegate: str) -> DelegatorError:
    return Missing("delegate", delegate, f"customer {customer} has no delegate named {delegate}",
                   hint="see: delegator delegates list")


def remove_device(one: Registration) -> Transaction[Registration]:
    """Take a device off the register, as it stood until now; its claims stay on record. Raises DelegatorError
    (NOT_FOUND) when it is gone or another by now, TRY_LATER while an import is about it."""
    known = yield from settled(names_of(one))
    if [each.device_id for each in known] != [one.device_id]:
        raise DelegatorError(Kind.NOT_FOUND, "that device is no longer registered", hint="see: delegator devices list")
    yield from _unname(names_of(known[0]))
    yield Query("DELETE FROM devices WHERE device_id = $1", (one.device_id,))
    return known[0]
