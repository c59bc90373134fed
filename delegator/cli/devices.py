"""`delegator devices`: which device is whose.

The invariants: an import is kept whole or not at all, unless --keep-good asks otherwise; running it again changes
nothing; a list of ten million needs no more memory than one of a thousand.
Must not live here: the format of files (importing).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import click

from delegator.cli import console, forms, importing, shapes
from delegator.cli.console import Output, verb
from delegator.cli.importing import Batch, Refused
from delegator.cli.session import stored
from delegator.errors import APPEARANCES, DelegatorError, Kind
from delegator.model import Device, Registration
from delegator.store import Store

_COLUMNS = ("service_tag", "serial_number", "mac_addresses", "model", "order", "delegate", "customer")
_SCREEN = 200
"""Rows for which columns are fitted together."""
_TOLD = 20
"""Refused rows told on standard error; --json has all of them."""
_REFUSED = APPEARANCES[Kind.MALFORMED].exit_code


@click.group("devices", epilog=console.as_example("delegator devices import shipment.csv --customer acme"))
def group() -> None:
    """Which device is whose."""


@verb(group, "add", "delegator devices add ABC1234 --customer acme --mac 00:1A:2B:3C:4D:5E --model R750\n"
                    "delegator devices add --serial SN-0042 --customer acme")
@click.argument("tag", type=forms.tag, required=False)
@click.option("--customer", type=forms.name, required=True, help="Who owns it.")
@click.option("--serial", type=forms.serial, help="Its serial number.")
@click.option("--mac", type=forms.mac, multiple=True, help="A MAC address of it; may be repeated.")
@click.option("--model", type=forms.model_name, help="Its model.")
@click.option("--order", type=forms.words, help="The order it was sold with.")
@click.option("--delegate", type=forms.name, help="Its delegate; else rules choose among the customer's.")
@click.option("--replace", is_flag=True, help="Change the device if it is registered differently.")
@stored
async def add(store: Store, tag: str | None, customer: str, serial: str | None, mac: tuple[str, ...],
              model: str | None, order: str | None, delegate: str | None, replace: bool) -> Output:
    """Register the device TAG, or one known only by --serial or --mac."""
    if not (tag or serial or mac):
        raise click.UsageError("say which device: TAG, --serial or --mac")
    one = Registration(customer, tag, serial, tuple(dict.fromkeys(mac)), model, order, delegate)
    new = await store.add_devices([one], replace=replace)
    name = tag or serial or mac[0]
    said = f"device {name} is registered to {customer}" if new else f"device {name} was registered already, just so"
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
    lines = console.table([name.replace("_", " ") for name in _COLUMNS],
                          [[one[name] for name in _COLUMNS] for one in shaped])
    for line in lines if with_headings else lines[1:]:
        click.echo(line)


@verb(group, "show", "delegator devices show ABC1234")
@click.argument("tag", type=forms.tag)
@stored
async def show(store: Store, tag: str) -> Output:
    """Show how the device TAG is registered, and its claims."""
    found = await registration_of(store, tag)
    claims = [shapes.claim(one) for one in await store.claims(service_tag=tag)]
    if found is None and not claims:
        raise _unknown(tag)
    data = {**({"service_tag": tag} if found is None else shapes.registration(found)),
            "registered": found is not None, "claims": claims}
    columns = ("claim_id", "state", "delegate", "attempt", "asked_at", "lease_until")
    lines = console.pairs({name: value for name, value in data.items() if name != "claims"})
    return Output(data, [*lines, *console.table([name.replace("_", " ") for name in columns],
                                                [[one[name] for name in columns] for one in claims])])


async def registration_of(store: Store, tag: str) -> Registration | None:
    """The registration under a service tag."""
    found = (await store.find(Device(tag))).registrations
    return found[0] if found else None


def _unknown(tag: str) -> DelegatorError:
    return DelegatorError(Kind.NOT_FOUND, f"no device is registered under {tag}", hint="see: delegator devices list")


@verb(group, "remove", "delegator devices remove ABC1234")
@click.argument("tag", type=forms.tag)
@stored
async def remove(store: Store, tag: str) -> Output:
    """Take the device TAG off the register; its claims stay on record."""
    await store.remove_device(tag)
    return Output({"removed": tag}, words=(f"device {tag} is removed",))


@verb(group, "import", "delegator devices import shipment.csv --customer acme\n"
                       "delegator devices import - --customer acme --dry-run < shipment.jsonl")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--customer", type=forms.name, help="Who owns those devices whose row does not say it.")
@click.option("--replace", is_flag=True, help="Change devices that are registered differently.")
@click.option("--keep-good", is_flag=True, help="Register the rows that are right even if others are not.")
@click.option("--dry-run", is_flag=True, help="Say what would happen and change nothing.")
def import_(file: Path, customer: str | None, **how: bool) -> Output | None:
    """Register all devices of FILE, CSV or JSON lines; - is standard input.

    CSV begins with a header, some of service_tag, serial_number, mac_addresses (several: with ; or spaces), model,
    order, delegate, customer; JSON lines are objects with these names. All rows are registered, or none; rows that
    are registered already count as unchanged.
    """
    with click.open_file(str(file), "rb") as source:
        batch = importing.read(source.read(), customer)
    return _register(batch=batch, **how)


@stored
async def _register(store: Store, batch: Batch, replace: bool, keep_good: bool, dry_run: bool) -> Output:
    progress = console.Progress(len(batch.rows), "devices")
    imported = await store.import_devices(
        _counted(batch, progress), replace=replace,
        keep=lambda found: not dry_run and (keep_good or not (found.refused or batch.refused)))
    progress.finish()
    late = [Refused(batch.rows[at].line, error.detail) for at, error in imported.refused]
    refused = sorted([*batch.refused, *late], key=lambda one: one.line)
    kept = not dry_run and (keep_good or not refused)
    good = len(batch.rows) - len(imported.refused)
    facts = {"rows": len(batch.rows) + len(batch.refused), "new": imported.new, "unchanged": good - imported.new,
             "refused": [{"line": one.line, "error": one.error} for one in refused], "registered": kept,
             "dry_run": dry_run}
    return Output(facts, words=tuple(_told(facts, refused)), exit_code=_REFUSED if refused else 0)


def _counted(batch: Batch, progress: console.Progress) -> Iterable[Registration]:
    for row in batch.rows:
        progress.step()
        yield row.registration


def _told(facts: dict[str, Any], refused: list[Refused]) -> Iterable[str]:
    yield from (f"line {one.line}: {one.error}" for one in itertools.islice(refused, _TOLD))
    if len(refused) > _TOLD:
        yield f"... and {len(refused) - _TOLD} more; --json tells all"
    counted = f"{facts['new']} new, {facts['unchanged']} unchanged, {len(refused)} refused of {facts['rows']} rows"
    if not refused:
        yield f"{counted}; nothing was changed, as --dry-run asks" if facts["dry_run"] else counted
        return
    yield f"error: {counted}; " + ("the others are registered" if facts["registered"] else "nothing was changed")
    yield "  next: mend those lines and run it again" + ("" if facts["registered"] else ", or add --keep-good")
