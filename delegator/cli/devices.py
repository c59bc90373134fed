"""`delegator devices`: which device is whose.

The invariants: an import is kept whole or not at all, unless --keep-good asks otherwise; running it again changes
nothing; a list, an import or an export of ten million needs no more memory than one of a thousand.
Must not live here: the format of files (records, importing, exporting).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import click

from delegator.cli import console, exporting, feeding, forms, owning, shapes
from delegator.cli.console import Output, verb
from delegator.cli.importing import COLUMNS, IDENTIFIERS, Rows
from delegator.cli.records import Table
from delegator.cli.session import stored
from delegator.model import Registration
from delegator.store import Store
from delegator.store.fleet import only
from delegator.store.importing import How
from delegator.store.spool import Spool

_SCREEN = 200
"""Rows for which columns are fitted together."""


@click.group("devices", epilog=console.as_example("delegator devices import shipment.csv --customer acme"))
def group() -> None:
    """Which device is whose."""


@verb(group, "add", "delegator devices add ABC1234 --customer acme --mac 00:1A:2B:3C:4D:5E --model R750\n"
                    "delegator devices add --serial SN-0042 --order 4711")
@click.argument("tag", type=forms.tag, required=False)
@click.option("--customer", type=forms.name, help="Who owns it; else whoever --order belongs to, or will.")
@click.option("--serial", type=forms.serial, help="Its serial number.")
@click.option("--mac", type=forms.mac, multiple=True, help="A MAC address of it; may be repeated.")
@click.option("--model", type=forms.model_name, help="Its model.")
@click.option("--order", type=forms.words, help="The order it was sold with.")
@click.option("--delegate", type=forms.name, help="Its delegate; else rules choose among the customer's.")
@click.option("--replace", is_flag=True, help="Change the device if it is registered differently.")
@stored
async def add(store: Store, tag: str | None, customer: str | None, serial: str | None, mac: tuple[str, ...],
              model: str | None, order: str | None, delegate: str | None, replace: bool) -> Output:
    """Register the device TAG, or one known only by --serial or --mac."""
    if not (tag or serial or mac):
        raise click.UsageError("say which device: TAG, --serial or --mac")
    if customer is None and (order is None or delegate is not None):
        raise click.UsageError("say whose it is with --customer, or --order alone for a device in stock")
    one = Registration(customer, tag, serial, tuple(dict.fromkeys(mac)), model, order, delegate)
    new = await store.add_devices([one], replace=replace)
    name = tag or serial or mac[0]
    said = (f"device {name} is registered to {customer or f'order {order}'}" if new else
            f"device {name} was registered already, just so")
    return Output(shapes.registration(one), words=(said,))


@verb(group, "list", "delegator devices list --customer acme --json")
@click.option("--customer", type=forms.name, help="Only those of this customer.")
@stored
async def list_(store: Store, customer: str | None) -> None:
    """List devices, as they are read."""
    show = _as_json if console.wants_json() else _as_text
    await show(store.devices(customer))


async def _as_json(devices: AsyncIterator[Registration]) -> None:
    """One array, an element a line."""
    between = "["
    async for one in devices:
        click.echo(f"{between}{json.dumps(shapes.registration(one))}", nl=False)
        between = ",\n"
    click.echo("]" if between != "[" else "[]")


async def _as_text(devices: AsyncIterator[Registration]) -> None:
    rows: list[Registration] = []
    first = True
    async for one in devices:
        rows.append(one)
        if len(rows) == _SCREEN:
            _echo_rows(rows, first)
            rows, first = [], False
    _echo_rows(rows, first)


def _echo_rows(rows: list[Registration], with_headings: bool) -> None:
    shaped = [shapes.registration(one) for one in rows]
    lines = console.table([name.replace("_", " ") for name in COLUMNS],
                          [[one[name] for name in COLUMNS] for one in shaped])
    for line in lines if with_headings else lines[1:]:
        click.echo(line)


@verb(group, "show", "delegator devices show ABC1234\ndelegator devices show 00:1A:2B:3C:4D:5E")
@click.argument("device", type=forms.identifier)
@stored
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
@click.argument("device", type=forms.identifier)
@stored
async def remove(store: Store, device: str) -> Output:
    """Take DEVICE off the register, by service tag, serial number or MAC address; its claims stay on record."""
    one = only(await store.fleet.called(device), device)
    await store.fleet.remove(one, datetime.now(UTC))
    return Output({"removed": device, "device": shapes.registration(one)}, words=(f"device {device} is removed",))


@verb(group, "import", "delegator devices import shipment.csv --customer acme\n"
                       "delegator devices import - --customer acme --dry-run < shipment.jsonl")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--customer", type=forms.name, help="Who owns those devices whose row does not say it.")
@feeding.options
@stored
async def import_(store: Store, file: Path, customer: str | None, **how: bool) -> Output:
    """Register all devices of FILE, CSV or JSON lines; - is standard input.

    CSV begins with a header, some of service_tag, serial_number, mac_addresses (several: with ; or spaces), model,
    order, delegate, customer; JSON lines are objects with these names. A row with an order and no customer belongs to
    whoever the order belongs to, or will. All rows are registered, or none; rows that are registered already count as
    unchanged. A delegator that runs meanwhile goes on serving devices, and sees all of it at once.
    """
    stages = feeding.Stages()
    with Spool() as spool:
        with feeding.opened(file, stages) as (source, step):
            table = Table(source, COLUMNS, IDENTIFIERS, step)
            spool.fill(Rows(customer).read(table))
        wanted = How(**how, source={"file": file.name, "sha256": table.sha256})
        imported = await store.fleet.import_all(spool, wanted, stages.next)
        stages.finish()
        counts = imported.counts
        return feeding.result(
            {"rows": counts.rows, "new": counts.new, "changed": counts.changed, "unchanged": counts.unchanged,
             "refused_rows": counts.refused, "sha256": table.sha256},
            spool.refused(feeding.MOST_TOLD), kept=imported.kept, dry_run=how["dry_run"])


@verb(group, "export", "delegator devices export --customer acme --format csv > acme.csv\n"
                       "delegator devices export all.jsonl --format jsonl")
@exporting.options("Only those of this customer, by themselves or by their order.")
@stored
async def export(store: Store, file: Path, customer: str | None, form: str) -> Output | None:
    """Write all devices to FILE, or to standard output, as `devices import` takes them.

    They are the devices of one moment, whatever changes meanwhile. A device that is its order's customer's is written
    with its order and an empty customer, as it is registered. With --json a FILE must be named.
    """
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
