"""An import of any size that never holds the write lock for long, and is seen whole or not at all.

New devices are written in small commits under numbers of a block that the view `current_devices` leaves out, and what
changes devices that were there stands in device_changes, which it leaves out too. One commit turns the import's one
row from 'open' to 'done', and all of it is there. What is left behind then is tidied up in small commits again; after
a crash whoever comes along does it, or takes an import back that died before that one commit.
The invariants: what belongs to an import that is not 'done' is seen by no reader; names are taken when they are
written, so that no two devices ever hold one; who lost its row in `imports` changes nothing any more.
Must not live here: the order of things (store.importing), files (cli), what a row may say (store.devices).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from delegator.errors import DelegatorError, Kind
from delegator.model import Registration
from delegator.store.bulk import TOGETHER, insert, listed
from delegator.store.devices import COLUMNS, columns_of, names_of
from delegator.store.rows import REGISTRATION, registration_of
from delegator.store.transaction import Query, Row, Transaction, Value

ALIVE = 15_000
"""Milliseconds after which an import that said nothing counts as dead. Its commits are 25 ms apart; a machine that
stops a process for longer than this loses the import, not a device."""


class Slot(NamedTuple):
    """The one import under way: devices get numbers from `first_id` on, to before `past_id`."""

    import_id: str
    first_id: int
    past_id: int


def scope() -> Sequence[str]:
    """What an import's transactions have to themselves: other imports."""
    return ("imports",)


def begin(import_id: str, numbers: int, now: int) -> Transaction[Slot | None]:
    """Take the slot and a block of numbers; None while another import has it."""
    taken = yield Query("INSERT INTO imports (only_row, import_id, state, first_id, past_id, alive_until) "
                        "VALUES (1, $1, 'open', 0, 0, $2) ON CONFLICT (only_row) DO NOTHING RETURNING import_id",
                        (import_id, now + ALIVE))
    if not taken:
        return None
    rows = yield Query("UPDATE device_numbers SET next_id = next_id + $1 RETURNING next_id", (numbers,))
    past = int(str(rows[0][0]))
    yield Query("UPDATE imports SET first_id = $1, past_id = $2", (past - numbers, past))
    return Slot(import_id, past - numbers, past)


def go_on(slot: Slot, now: int) -> Transaction[None]:
    """Say that we are alive, and make sure that the import is still ours. Raises DelegatorError (TRY_LATER)."""
    rows = yield Query("UPDATE imports SET alive_until = $2 WHERE import_id = $1 AND state = 'open' "
                       "RETURNING import_id", (slot.import_id, now + ALIVE))
    if not rows:
        raise DelegatorError(Kind.TRY_LATER, "this import stood still for too long and was taken back",
                             hint="run it again")


def add_devices(slot: Slot, rows: Sequence[tuple[Value, ...]], now: int) -> Transaction[None]:
    """Rows of device_id and COLUMNS."""
    yield from go_on(slot, now)
    yield from insert(f"devices (device_id, {COLUMNS})", rows)


def add_names(slot: Slot, rows: Sequence[tuple[Value, ...]], now: int) -> Transaction[None]:
    """Rows of name and device_id. Raises DelegatorError (CONFLICT) when a name is taken."""
    yield from go_on(slot, now)
    yield from insert("device_names (name, device_id)", rows)


def add_changes(slot: Slot, changes: Sequence[tuple[Registration, Registration]], now: int) -> Transaction[None]:
    """Pairs of what a device was when it was looked at and what it becomes. Raises DelegatorError (CONFLICT) when it
    is another by now, or a name is taken."""
    yield from go_on(slot, now)
    these, numbers = listed([before.device_id for before, _ in changes])
    rows = yield Query(f"SELECT {REGISTRATION} FROM registrations WHERE device_id IN ({these})", numbers)
    if {one.device_id: one for one in map(registration_of, rows)} != {one.device_id: one for one, _ in changes}:
        raise DelegatorError(Kind.CONFLICT, "a device was changed by somebody else during the import",
                             hint="run it again")
    yield from insert(f"device_changes (device_id, {COLUMNS})", [
        (before.device_id, *columns_of(after)) for before, after in changes])
    yield from insert("device_names (name, device_id)", [
        (name, before.device_id) for before, after in changes
        for name in names_of(after) if name not in names_of(before)])


def show(slot: Slot, now: int) -> Transaction[None]:
    """The one step from nothing to all."""
    yield from go_on(slot, now)
    yield Query("UPDATE imports SET state = 'done' WHERE import_id = $1", (slot.import_id,))


def drop(slot: Slot) -> Transaction[None]:
    """Give an import up that was not shown; `tidy` takes it back."""
    yield Query("UPDATE imports SET state = 'dropped' WHERE import_id = $1 AND state = 'open'", (slot.import_id,))


def tidy(now: int, most: int) -> Transaction[bool]:
    """One small step of clearing up after an import that was shown, given up, or whose process died. Whether there is
    more to do."""
    yield Query("UPDATE imports SET state = 'dropped' WHERE state = 'open' AND alive_until <= $1", (now,))
    rows = yield Query("SELECT import_id, first_id, past_id, state FROM imports WHERE state <> 'open'")
    if not rows:
        return False
    slot = Slot(str(rows[0][0]), int(str(rows[0][1])), int(str(rows[0][2])))
    if rows[0][3] == "done":
        more = yield from _settle(most)
    else:
        more = (yield from _take_changes_back(most)) or (yield from _take_back(slot, most))
    if not more:
        yield Query("DELETE FROM imports WHERE import_id = $1", (slot.import_id,))
    return more


_BOTH = ("SELECT c.device_id, d.service_tag, d.serial_number, d.mac_addresses, c.service_tag, c.serial_number, "
         "c.mac_addresses FROM device_changes c JOIN devices d ON d.device_id = c.device_id "
         "ORDER BY c.device_id LIMIT $1")


def _names(row: Row, first: int) -> list[str]:
    tag, serial, macs = row[first:first + 3]
    return names_of(Registration(None, None if tag is None else str(tag), None if serial is None else str(serial),
                                 tuple(str(macs).split(",")) if macs else ()))


_NEW = ", ".join("COALESCE(c.service_tag, devices.service_tag)" if column == "service_tag" else f"c.{column}"
                 for column in COLUMNS.split(", "))
"""A tag that a claim bound meanwhile is kept: no change takes a tag away."""


def _settle(most: int) -> Transaction[bool]:
    """Devices become what they changed to, and names that they gave up are free."""
    rows = yield Query(_BOTH, (most,))
    numbers = tuple(row[0] for row in rows)
    yield from _unname([name for row in rows for name in _names(row, 1) if name not in _names(row, 4)], numbers)
    if rows:
        these, numbers = listed(numbers)
        yield Query(f"UPDATE devices SET ({COLUMNS}) = (SELECT {_NEW} FROM device_changes c "
                    f"WHERE c.device_id = devices.device_id) WHERE device_id IN ({these})", numbers)
        yield Query(f"DELETE FROM device_changes WHERE device_id IN ({these})", numbers)
    return bool(rows)


def _take_changes_back(most: int) -> Transaction[bool]:
    rows = yield Query(_BOTH, (most,))
    numbers = tuple(row[0] for row in rows)
    yield from _unname([name for row in rows for name in _names(row, 4) if name not in _names(row, 1)], numbers)
    if rows:
        these, numbers = listed(numbers)
        yield Query(f"DELETE FROM device_changes WHERE device_id IN ({these})", numbers)
    return bool(rows)


def _take_back(slot: Slot, most: int) -> Transaction[bool]:
    rows = yield Query("SELECT device_id, service_tag, serial_number, mac_addresses FROM devices WHERE device_id >= $1 "
                       "AND device_id < $2 ORDER BY device_id LIMIT $3", (slot.first_id, slot.past_id, most))
    numbers = tuple(row[0] for row in rows)
    yield from _unname([name for row in rows for name in _names(row, 1)], numbers)
    if rows:
        these, numbers = listed(numbers)
        yield Query(f"DELETE FROM devices WHERE device_id IN ({these})", numbers)
    return bool(rows)


def _unname(removed: Iterable[str], numbers: tuple[Value, ...]) -> Transaction[None]:
    """Free names, as far as they are held by these devices: others may have taken theirs since."""
    all_of = sorted(removed)
    for at in range(0, len(all_of), TOGETHER):
        some, values = listed(all_of[at:at + TOGETHER])
        these, numbers = listed(numbers, 1 + len(values))
        yield Query(f"DELETE FROM device_names WHERE name IN ({some}) AND device_id IN ({these})", (*values, *numbers))
