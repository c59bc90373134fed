"""`delegator devices`: which device is whose.

The invariants: an import is kept whole or not at all, unless --keep-good asks otherwise; running it again changes
nothing; an import or an export of ten million needs no more memory than one of a thousand.
Must not live here: the format of files (desk.records, desk.rows, exporting).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from delegator.cli import changing, console, exporting, feeding, listing, owning
from delegator.cli.console import Output, verb
from delegator.cli.parameters import as_usage, option_of, typed
from delegator.cli.session import looking, stored
from delegator.desk import forms, registering, shapes
from delegator.desk.records import Table
from delegator.desk.rows import COLUMNS, IDENTIFIERS, UNPROVEN, Rows
from delegator.store import Store
from delegator.store.fleet import only
from delegator.store.importing import How
from delegator.store.spool import Spool


@click.group("devices", cls=console.Verbs,
             epilog=console.as_example("delegator devices import shipment.csv --customer acme"))
def group() -> None:
    """Which device is whose."""


@verb(group, "add", "delegator devices add ABC1234 --customer acme --mac 00:1A:2B:3C:4D:5E --model R750\n"
                    "delegator devices add --serial SN-0042 --order 4711")
@click.argument("tag", type=typed(forms.tag), required=False)
@click.option("--customer", type=typed(forms.name), help="Who owns it; else whoever --order belongs to, or will.")
@click.option("--serial", type=typed(forms.own_serial), help="Its serial number.")
@click.option("--mac", type=typed(forms.own_mac), multiple=True, help="A MAC address of it; may be repeated.")
@click.option("--model", type=typed(forms.model_name), help="Its model.")
@click.option("--order", type=typed(forms.words), help="The order it was sold with.")
@click.option("--delegate", type=typed(forms.name), help="Its delegate; else rules choose among the customer's.")
@stored
async def add(store: Store, tag: str | None, customer: str | None, serial: str | None, mac: tuple[str, ...],
              model: str | None, order: str | None, delegate: str | None) -> Output:
    """Register the device TAG, or one known only by --serial or --mac. To change one that is there: delegator devices
    change."""
    with as_usage(lambda field: _OPTIONS.get(field, option_of(field))):
        one = registering.device({"customer": customer, "service_tag": tag, "serial_number": serial,
                                  "mac_addresses": mac, "model": model, "order": order, "delegate": delegate})
    name = tag or serial or mac[0]
    tables, lets_in = await store.tables(), changing.Told()
    new = await store.fleet.add([one], datetime.now(UTC), seen=lambda made: lets_in.are(
        changing.let_in_device(tables, None, made)))
    said = (f"device {name} is registered to {customer or f'order {order}'}" if new else
            f"device {name} was registered already, just so")
    unproven = () if tag else (f"it has no service tag: {UNPROVEN}",)
    return changing.plainly(Output(shapes.registration(one), words=(said, *unproven)), lets_in.words)


@verb(group, "change", "delegator devices change ABC1234 --delegate acme-berlin --model R750\n"
                       "delegator devices change ABC1234 --unset delegate")
@click.argument("device", type=typed(forms.identifier))
@click.option("--customer", type=typed(forms.name), help="Who owns it, where nobody does.")
@click.option("--tag", "service_tag", type=typed(forms.tag), help="Its service tag, where it has none yet.")
@click.option("--serial", "serial_number", type=typed(forms.own_serial), help="Its serial number.")
@click.option("--mac", "mac_addresses", type=typed(forms.own_mac), multiple=True,
              help="A MAC address of it, instead of those that it has; may be repeated.")
@click.option("--model", type=typed(forms.model_name), help="Its model.")
@click.option("--order", type=typed(forms.words), help="The order it was sold with.")
@click.option("--delegate", type=typed(forms.name), help="Its delegate.")
@changing.unset("serial", "mac", "model", "order", "delegate")
@stored
async def change(store: Store, device: str, unset: tuple[str, ...], **said: Any) -> Output:
    """Change how DEVICE is registered, called by its service tag, serial number or MAC address: what is not named
    stays. Says what changed, and whether that lets more devices in.

    It stays its owner's: delegator transfers moves it to another customer, delegator devices return to stock.
    """
    fields = {key: value for key, value in said.items() if value not in (None, ())}
    back = [_CALLED.get(name, name) for name in unset]
    changing.taken_back(back, said)
    changing.must_say([*fields, *back], "--delegate or --model")
    emptied = {name: () if name == "mac_addresses" else None for name in back}
    tables, lets_in = await store.tables(), changing.Told()
    before, after = await store.fleet.change(
        device, lambda one: registering.device_changed(one, {**fields, **emptied}), datetime.now(UTC),
        seen=lambda before, after: lets_in.are(changing.let_in_device(tables, before, after)))
    return changing.told(shapes.owned(after), f"device {device}",
                         changing.differences(shapes.owned(before), shapes.owned(after)), lets_in.words)


_CALLED = {"serial": "serial_number", "mac": "mac_addresses"}
_OPTIONS = {"service_tag": "TAG", "serial_number": "--serial", "mac_addresses": "--mac"}


@verb(group, "list", "delegator devices list --customer acme --order 4711 --json")
@click.option("--customer", type=typed(forms.name),
              help="Only those of this customer, by themselves or by their order.")
@click.option("--order", type=typed(forms.words), help="Only those of this order.")
@click.option("--delegate", type=typed(forms.name), help="Only those that name this delegate, or whose order does.")
@click.option("--model", type=typed(forms.model_name), help="Only those of this model.")
@listing.most()
@looking
async def list_(store: Store, customer: str | None, most: int, **chosen: str | None) -> Output:
    """List devices, in the order in which they were registered. All of them, however many: delegator devices export."""
    wanted = listing.filters(**chosen)
    found = await listing.first((one async for one in store.devices(customer) if wanted(one)), most)
    return await listing.shown(store, "devices", [shapes.registration(one) for one in found], COLUMNS, most,
                               {"customer": customer, "order": chosen["order"], "delegate": chosen["delegate"]})


@verb(group, "show", "delegator devices show ABC1234\ndelegator devices show 00:1A:2B:3C:4D:5E")
@click.argument("device", type=typed(forms.identifier))
@looking
async def show(store: Store, device: str) -> Output:
    """Show how DEVICE is registered, and its claims: a service tag, serial number or MAC address."""
    found = await store.fleet.called(device)
    one = only(found, device) if found else None
    tag = device if one is None else one.service_tag
    claims = [] if tag is None else [shapes.claim(each) for each in await store.claims(service_tag=tag)]
    if one is None and not claims:
        only(found, device)
    data = {**({"service_tag": tag} if one is None else shapes.owned(one)),
            "registered": one is not None, **await owning.standing(store, device, tag), "claims": claims}
    columns = ("claim_id", "state", "delegate", "attempt", "asked_at", "lease_until")
    lines = console.pairs({name: value for name, value in data.items() if name != "claims"})
    return Output(data, [*lines, *console.table([name.replace("_", " ") for name in columns],
                                                [[each[name] for name in columns] for each in claims])])


@verb(group, "remove", "delegator devices remove ABC1234\ndelegator devices remove SN-0042")
@click.argument("device", type=typed(forms.identifier))
@stored
async def remove(store: Store, device: str) -> Output:
    """Take DEVICE off the register, by service tag, serial number or MAC address; its claims stay on record.

    A claim that stands goes on: it counts as a place and holds the tag until it is released. Says so."""
    one = only(await store.fleet.called(device), device)
    tables, lets_in = await store.tables(), changing.Told()
    claim = await store.fleet.remove(one, datetime.now(UTC), lambda before: lets_in.are(
        changing.let_in_device(tables, before, None)))
    output = Output({"removed": device, "device": shapes.registration(one),
                     "claim": None if claim is None else shapes.claim(claim)},
                    words=(f"device {device} is removed", *([] if claim is None else [
                        f"its claim stands ({claim.state.value}): it counts as a place of customer {claim.customer} "
                        f"and holds the tag {one.service_tag}; free both with: delegator claims release "
                        f"{one.service_tag}"])))
    return changing.also(output, lets_in.words)


@verb(group, "import", "delegator devices import shipment.csv --customer acme\n"
                       "delegator devices import - --customer acme --dry-run < shipment.jsonl")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--customer", type=typed(forms.name), help="Who owns those devices whose row does not say it.")
@feeding.options
@stored
async def import_(store: Store, file: Path, customer: str | None, **how: bool) -> Output:
    """Register all devices of FILE, CSV or JSON lines; - is standard input.

    CSV begins with a header, some of service_tag, serial_number, mac_addresses (several: with ; or spaces), model,
    order, delegate, customer; JSON lines are objects with these names. A row with an order and no customer belongs to
    whoever the order belongs to, or will. All rows are registered, or none; rows that are registered already count as
    unchanged. With --replace those that are registered differently change, found by their tag where the row has one; of
    columns that its row does not have, each keeps what it has. None moves to another customer. A delegator that runs
    meanwhile goes on serving devices, and sees all of it at once.
    """
    stages = feeding.Stages()
    with Spool() as spool:
        with feeding.opened(file, stages) as (source, step):
            table, unnamed = Table(source, COLUMNS, IDENTIFIERS, step), changing.Unnamed(COLUMNS)
            rows = Rows(customer)
            spool.fill(rows.read(unnamed.noted(table)))
        wanted = How(**how, source={"file": file.name, "sha256": table.sha256}, unnamed=unnamed.of, whose=True)
        imported = await store.fleet.import_all(spool, wanted, stages.next, lambda: datetime.now(UTC))
        stages.finish()
        counts = imported.counts
        output = feeding.result(
            {"rows": counts.rows, "new": counts.new, "changed": counts.changed, "unchanged": counts.unchanged,
             "refused_rows": counts.refused, "placeholders": rows.placeholders, "untagged": rows.untagged,
             "sha256": table.sha256},
            spool.refused(feeding.MOST_TOLD), kept=imported.kept, dry_run=how["dry_run"])
        output = changing.plainly(output, changing.imported("devices", counts.new, counts.changed, imported.kept))
        return output.saying(*rows.words)


@verb(group, "export", "delegator devices export --customer acme --format csv > acme.csv\n"
                       "delegator devices export all.jsonl --format jsonl")
@exporting.options("Only those of this customer, by themselves or by their order.")
@looking
async def export(store: Store, file: Path, customer: str | None, form: str) -> Output | None:
    """Write all devices to FILE, or to standard output, as `devices import` takes them.

    They are the devices of one moment, whatever changes meanwhile. A device that is its order's customer's is written
    with its order and an empty customer, as it is registered. With --json a FILE must be named.
    """
    await listing.must_know(store, {"customer": customer})
    stages = feeding.Stages()
    async with store.fleet.moment() as view:
        async def rows() -> AsyncIterator[shapes.Shape]:
            async for one in view.devices(customer):
                yield shapes.registration(one)
        step = stages.next("devices", await view.count(customer))
        done = await exporting.export(file, form, COLUMNS, rows(), {"customer": customer}, "devices", step)
    stages.finish()
    return done


group.add_command(owning.return_)
group.add_command(owning.repair)
