"""Orders: what was sold to whom. One row hands over everything that was registered, or will be, with that number.

The factory lists devices with their order numbers, sales says which order is whose; either may come first. No
device's row is touched: the view `registrations` looks the order up for devices that name no customer themselves.
The invariants: an order belongs to one customer, and is never moved to another one in a single step; its delegate is
one of that customer's.
Must not live here: devices (store.devices), what a route makes of it (routing).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime

import msgspec
from msgspec.structs import replace as changed_entry

from delegator.errors import DelegatorError, Kind, Missing
from delegator.model import Order
from delegator.model.audited import Act, By, Entry
from delegator.store.audit import ledger
from delegator.store.bulk import insert, listed
from delegator.store.devices import no_such_delegate
from delegator.store.driver import Running
from delegator.store.registry import must_exist
from delegator.store.transaction import Query, Row, Transaction

COLUMNS = "order_number, customer, delegate"
MOST = 20_000
"""Orders in one import: all of them are one transaction, and nobody else writes meanwhile. A year of 50 orders a day
fits; a feed that is longer comes in several files."""
_TOGETHER = 500


def order_of(row: Row) -> Order:
    return Order(str(row[0]), str(row[1]), None if row[2] is None else str(row[2]))


def page(customer: str | None, after: str, most: int) -> Query:
    """Orders by number, a page at a time."""
    condition, parameters = ("AND customer = $3", (after, most, customer)) if customer else ("", (after, most))
    return Query(f"SELECT {COLUMNS} FROM orders WHERE order_number > $1 {condition} ORDER BY order_number LIMIT $2",
                 parameters)


def named(numbers: Sequence[str]) -> Query:
    some, values = listed(numbers)
    return Query(f"SELECT {COLUMNS} FROM orders WHERE order_number IN ({some})", values)


def devices_in(number: str) -> Query:
    """How many registered devices have this order number, and how many of them are the order's to give."""
    return Query("SELECT count(*), COALESCE(SUM(CASE WHEN customer IS NULL THEN 1 ELSE 0 END), 0) FROM current_devices "
                 "WHERE device_id IN (SELECT device_id FROM devices WHERE order_number = $1)", (number,))


class Assigned(msgspec.Struct, frozen=True):
    """What an import of orders came to: counts, and which of them, by position, were refused and why."""

    new: int
    changed: int
    unchanged: int
    refused: tuple[tuple[int, str], ...]


Seen = Callable[[Order | None, Order, int], None]
"""Is told within a transaction how an order was and is, and how many devices are its to give. Where that raises,
nothing has changed."""


def add(order: Order, replace: bool, at: datetime, by: By,
        seen: Seen = lambda before, after, given: None) -> Transaction[bool]:
    """Say whose an order is; False when that is known already. Raises DelegatorError: CONFLICT when it is somebody
    else's or another delegate's, NOT_FOUND when there is no such customer or delegate."""
    yield from must_exist("customer", order.customer)
    yield from _must_be_of_customer(order)
    known = [order_of(row) for row in (yield named([order.number]))]
    seen(known[0] if known else None, order, (yield from _given(order.number)))
    if known == [order]:
        return False
    if known:
        error = obstacle(order, known[0], replace)
        if error is not None:
            raise error
    yield from _write(order)
    act = Act.ORDER_CHANGED if known else Act.ORDER_ADDED
    yield from ledger.append(Entry(act, at, by.actor, customer=order.customer, delegate=order.delegate, peer=by.peer,
                                  detail={"order": order.number}))
    return True


def _given(number: str) -> Transaction[int]:
    rows = yield devices_in(number)
    return int(str(rows[0][1]))


def change(number: str, delegate: str | None, at: datetime, by: By,
           seen: Seen = lambda before, after, given: None) -> Transaction[tuple[Order, Order]]:
    """Give an order another delegate of its customer's, or none. As it was and as it is. Raises DelegatorError
    (NOT_FOUND)."""
    rows = yield named([number])
    if not rows:
        raise no_such_order(number)
    before = order_of(rows[0])
    after = changed_entry(before, delegate=delegate)
    yield from _must_be_of_customer(after)
    seen(before, after, (yield from _given(number)))
    if after != before:
        yield from _write(after)
        yield from ledger.append(Entry(Act.ORDER_CHANGED, at, by.actor, customer=after.customer, delegate=delegate,
                                      peer=by.peer, detail={"order": number, "fields": ["delegate"]}))
    return before, after


def _must_be_of_customer(order: Order) -> Transaction[None]:
    if order.delegate is not None and not (yield Query("SELECT 1 FROM delegates WHERE name = $1 AND customer = $2",
                                                       (order.delegate, order.customer))):
        raise no_such_delegate(order.customer, order.delegate)


def obstacle(order: Order, known: Order, replace: bool) -> DelegatorError | None:
    """Why an order cannot be changed like this."""
    if known.customer != order.customer:
        return DelegatorError(Kind.CONFLICT, f"order {order.number} belongs to another customer",
                              hint="remove it first, or transfer its devices: delegator transfers offer")
    if not replace:
        return DelegatorError(Kind.CONFLICT, f"order {order.number} is assigned already, with another delegate",
                              hint=f"change it with: delegator orders change {order.number}; an import, with --replace")
    return None


def _write(order: Order) -> Transaction[None]:
    yield Query(f"INSERT INTO orders ({COLUMNS}) VALUES ($1, $2, $3) ON CONFLICT (order_number) "
                "DO UPDATE SET delegate = $3 WHERE orders.customer = $2",
                (order.number, order.customer, order.delegate))


Keep = Callable[[Assigned], bool]


def import_all(orders: Sequence[Order], entry: Entry, replace: bool, keep: Keep,
               unnamed: Collection[str] = ()) -> Transaction[Assigned]:
    """Assign orders that stand in one list each once, as far as `keep` says so from what it came to; `unnamed` are
    those of which nothing is said of a delegate, so that they keep the one they have."""
    known = yield from _known([order.number for order in orders])
    owners = {str(row[0]) for row in (yield Query("SELECT name FROM customers"))}
    delegates = {(row[0], row[1]) for row in (yield Query("SELECT customer, name FROM delegates"))}
    new, changed, refused = [], [], []
    for at, order in enumerate(orders):
        standing, error = known.get(order.number), None
        if order.number in unnamed and standing is not None and order == changed_entry(standing, delegate=None):
            order = standing
        if order.customer not in owners:
            error = f"there is no customer named {order.customer}"
        elif order.delegate is not None and (order.customer, order.delegate) not in delegates:
            error = f"customer {order.customer} has no delegate named {order.delegate}"
        elif standing is None:
            new.append(order)
        elif standing != order:
            refusal = obstacle(order, standing, replace)
            error = None if refusal is None else refusal.detail
            changed += [order] if refusal is None else []
        refused += [] if error is None else [(at, error)]
    assigned = Assigned(len(new), len(changed), len(orders) - len(new) - len(changed) - len(refused), tuple(refused))
    if keep(assigned):
        yield from insert(f"orders ({COLUMNS})", [(one.number, one.customer, one.delegate) for one in new])
        for order in changed:
            yield from _write(order)
        counts = {"new": len(new), "changed": len(changed), "unchanged": assigned.unchanged, "refused": len(refused)}
        yield from ledger.append(changed_entry(entry, detail={**entry.detail, **counts}))
    return assigned


def _known(numbers: Sequence[str]) -> Transaction[dict[str, Order]]:
    found: dict[str, Order] = {}
    for at in range(0, len(numbers), _TOGETHER):
        found |= {str(row[0]): order_of(row) for row in (yield named(numbers[at:at + _TOGETHER]))}
    return found


def remove(number: str, at: datetime, by: By) -> Transaction[None]:
    """What was this order's is in stock again. Raises DelegatorError (NOT_FOUND)."""
    rows = yield Query("DELETE FROM orders WHERE order_number = $1 RETURNING customer", (number,))
    if not rows:
        raise no_such_order(number)
    yield from ledger.append(Entry(Act.ORDER_REMOVED, at, by.actor, customer=str(rows[0][0]), peer=by.peer,
                                  detail={"order": number}))


def no_such_order(number: str) -> DelegatorError:
    return Missing("order", number, f"order {number} is assigned to nobody", hint="see: delegator orders list")


class Orders:
    """The verbs of a Store for orders. `by` says whose acts these are, for the audit."""

    def __init__(self, driver: Running, by: By) -> None:
        self._driver, self._by = driver, by

    async def add(self, order: Order, at: datetime, *, replace: bool = False,
                  seen: Seen = lambda before, after, given: None) -> bool:
        """See `add`."""
        return await self._driver.run(lambda: add(order, replace, at, self._by, seen))

    async def change(self, number: str, delegate: str | None, at: datetime,
                     seen: Seen = lambda before, after, given: None) -> tuple[Order, Order]:
        """See `change`."""
        return await self._driver.run(lambda: change(number, delegate, at, self._by, seen))

    async def remove(self, number: str, at: datetime) -> None:
        """See `remove`."""
        await self._driver.run(lambda: remove(number, at, self._by))

    async def get(self, number: str) -> Order | None:
        rows = await self._driver.read(named([number]))
        return order_of(rows[0]) if rows else None

    async def devices(self, number: str) -> tuple[int, int]:
        """How many devices have this order number; how many of them name no customer themselves."""
        row = (await self._driver.read(devices_in(number)))[0]
        return int(str(row[0])), int(str(row[1]))

    async def page(self, customer: str | None, after: str, most: int) -> list[Order]:
        return [order_of(row) for row in await self._driver.read(page(customer, after, most))]

    async def import_all(self, orders: Sequence[Order], entry: Entry, *, replace: bool = False,
                         keep: Keep = lambda _: True, unnamed: Collection[str] = ()) -> Assigned:
        """Assign orders in one transaction, as far as `keep` says so from what it came to. `entry` is the row of audit
        for it, without its counts. Raises DelegatorError (MALFORMED) for more than MOST."""
        if len(orders) > MOST:
            raise DelegatorError(Kind.MALFORMED, f"{len(orders)} orders are more than {MOST} at once",
                                 hint="split the file; what is assigned already is left as it is")
        return await self._driver.run(lambda: import_all(orders, entry, replace, keep, unnamed))
