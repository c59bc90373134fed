"""`delegator orders`: which order is whose. One row hands over everything that was registered with that order.

The invariants: an import is kept whole or not at all, unless --keep-good asks otherwise; running it again changes
nothing.
Must not live here: how files are read (desk.records, desk.rows), what an order means for a device (store.orders,
routing).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import click

from delegator.cli import changing, console, exporting, feeding, listing
from delegator.cli.console import Output, verb
from delegator.cli.parameters import typed
from delegator.cli.session import looking, stored
from delegator.desk import forms, rows, shapes
from delegator.desk.records import Table
from delegator.model import Order, Registration
from delegator.model.audited import Act, Entry
from delegator.store import Store, Tables
from delegator.store.orders import Assigned, no_such_order
from delegator.store.spool import Refused

_PAGE = 1000


@click.group("orders", cls=console.Verbs, epilog=console.as_example("delegator orders add 4711 --customer acme"))
def group() -> None:
    """Which order is whose: everything with its number belongs to that customer."""


@verb(group, "add", "delegator orders add 4711 --customer acme --delegate acme-berlin")
@click.argument("order", type=typed(forms.words))
@click.option("--customer", type=typed(forms.name), required=True, help="Whose it is.")
@click.option("--delegate", type=typed(forms.name),
              help="Its devices' delegate; else rules choose among the customer's.")
@stored
async def add(store: Store, order: str, customer: str, delegate: str | None) -> Output:
    """Everything with the number ORDER belongs to a customer, whether it is registered already or later. To give it
    another delegate: delegator orders change."""
    one = Order(order, customer, delegate)
    judged = _Judged(await store.tables())
    new = await store.orders.add(one, datetime.now(UTC), seen=judged)
    said = f"order {order} belongs to {customer}" if new else f"order {order} belonged to {customer} already, just so"
    return changing.plainly(Output(shapes.order(one), words=(f"{said}: {judged.many} devices",)), judged.lets_in)


class _Judged:
    """What devices with that number may do after a change, told for all of them at once, as its transaction saw it; the
    last time counts where that was run again."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.many = 0
        self.lets_in: tuple[str, ...] = ()

    def __call__(self, before: Order | None, after: Order, many: int) -> None:
        self.many = many
        if before is None:
            self.lets_in = (f"devices in order {after.number}, {many} now and all that come: customer "
                            f"{after.customer} answers them, as its policy allows",)
            return
        found = () if before == after else changing.let_in_device(self._tables, _device(before), _device(after))
        self.lets_in = tuple(one.replace("device ORDER", f"{many} devices in order {after.number}", 1) for one in found)


def _device(one: Order) -> Registration:
    """Any of the order."""
    return Registration(one.customer, serial_number="ORDER", order=one.number, delegate=one.delegate, by_order=True)


@verb(group, "change", "delegator orders change 4711 --delegate acme-paris\n"
                       "delegator orders change 4711 --unset delegate")
@click.argument("order", type=typed(forms.words))
@click.option("--delegate", type=typed(forms.name), help="Its devices' delegate.")
@changing.unset("delegate")
@stored
async def change(store: Store, order: str, delegate: str | None, unset: tuple[str, ...]) -> Output:
    """Give ORDER another delegate of its customer's, or none: then rules choose. It never moves to another customer."""
    back = changing.taken_back(unset, {"delegate": delegate})
    changing.must_say([*back, *([delegate] if delegate else [])], "--delegate")
    judged = _Judged(await store.tables())
    before, after = await store.orders.change(order, delegate, datetime.now(UTC), judged)
    return changing.told(shapes.order(after), f"order {order}",
                         changing.differences(shapes.order(before), shapes.order(after)), judged.lets_in)


@verb(group, "list", "delegator orders list --customer acme --json")
@click.option("--customer", type=typed(forms.name), help="Only those of this customer.")
@click.option("--delegate", type=typed(forms.name), help="Only those that name this delegate.")
@listing.most()
@looking
async def list_(store: Store, customer: str | None, delegate: str | None, most: int) -> Output:
    """List orders that belong to somebody, by number."""
    wanted = listing.filters(delegate=delegate)
    found = await listing.first((one async for one in _all(store, customer) if wanted(one)), most)
    return await listing.shown(store, "orders", [shapes.order(one) for one in found], rows.ORDER, most,
                               {"customer": customer, "delegate": delegate})


async def _all(store: Store, customer: str | None) -> AsyncIterator[Order]:
    after = ""
    while found := await store.orders.page(customer, after, _PAGE):
        for one in found:
            yield one
        after = found[-1].number


@verb(group, "show", "delegator orders show 4711")
@click.argument("order", type=typed(forms.words))
@looking
async def show(store: Store, order: str) -> Output:
    """Show whose ORDER is, how many devices are registered with it, and how many of these name no customer of their
    own, which are the order's. An order with devices that is nobody's yet is in stock."""
    known = await store.orders.get(order)
    devices, given = await store.orders.devices(order)
    if known is None and not devices:
        raise no_such_order(order)
    data = {**shapes.order(known or Order(order, "")), "customer": known and known.customer, "devices": devices,
            "devices_of_order": given}
    return Output(data, console.pairs(data))


@verb(group, "remove", "delegator orders remove 4711")
@click.argument("order", type=typed(forms.words))
@stored
async def remove(store: Store, order: str) -> Output:
    """ORDER belongs to nobody any more: its devices are in stock again. Claims that stand go on until they end."""
    await store.orders.remove(order, datetime.now(UTC))
    devices = (await store.orders.devices(order))[1]
    return Output({"removed": order, "devices": devices},
                  words=(f"order {order} belongs to nobody now; {devices} devices are in stock",))


@verb(group, "import", "delegator orders import sales.csv\ndelegator orders import - --dry-run < sales.jsonl")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--customer", type=typed(forms.name), help="Whose those orders are whose row does not say it.")
@feeding.options
@stored
async def import_(store: Store, file: Path, customer: str | None, replace: bool, keep_good: bool,
                  dry_run: bool) -> Output:
    """Take over which orders are whose from FILE, CSV or JSON lines; - is standard input.

    CSV begins with a header, some of order, customer, delegate; JSON lines are objects with these names. All rows are
    taken, or none. At most 20,000 in one file.
    """
    stages = feeding.Stages()
    with feeding.opened(file, stages) as (source, step):
        table, unnamed = Table(source, rows.ORDER, rows.ORDER[:1], step), changing.Unnamed(rows.ORDER)
        good, wrong = rows.orders(unnamed.noted(table), customer)
    stages.finish()

    def keep(assigned: Assigned) -> bool:
        return not dry_run and (keep_good or not (wrong or assigned.refused))
    entry = Entry(Act.ORDERS_IMPORTED, datetime.now(UTC), store.by.actor, peer=store.by.peer,
                  detail={"file": file.name, "sha256": table.sha256, "rows": len(good) + len(wrong)})
    kept = frozenset(order.number for line, order in good if "delegate" in unnamed.of(line))
    assigned = await store.orders.import_all([order for _, order in good], entry, replace=replace, keep=keep,
                                             unnamed=kept)
    refused = sorted([*wrong, *(Refused(good[at][0], error) for at, error in assigned.refused)])
    output = feeding.result(
        {"rows": len(good) + len(wrong), "new": assigned.new, "changed": assigned.changed,
         "unchanged": assigned.unchanged, "refused_rows": len(refused), "sha256": table.sha256},
        refused[:feeding.MOST_TOLD], kept=keep(assigned), dry_run=dry_run)
    return changing.plainly(output, changing.imported("orders", assigned.new, assigned.changed, keep(assigned)))


@verb(group, "export", "delegator orders export > orders.csv\ndelegator orders export orders.jsonl --format jsonl")
@exporting.options("Only those of this customer.")
@looking
async def export(store: Store, file: Path, customer: str | None, form: str) -> Output | None:
    """Write all orders that belong to somebody to FILE, or to standard output, as `orders import` takes them."""
    await listing.must_know(store, {"customer": customer})

    async def all_of() -> AsyncIterator[shapes.Shape]:
        async for one in _all(store, customer):
            yield shapes.order(one)
    return await exporting.export(file, form, rows.ORDER, all_of(), {"customer": customer}, "orders")
