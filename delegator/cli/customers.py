"""`delegator customers`: who owns devices.

Must not live here: what a customer's devices are allowed (policies).
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from delegator.cli import console, forms, owning, shapes
from delegator.cli.console import Output, verb
from delegator.cli.session import stored
from delegator.model import Customer
from delegator.store import Store


@click.group("customers", epilog=console.as_example("delegator customers list"))
def group() -> None:
    """Who owns devices: the tenants of this delegator."""


@verb(group, "add", "delegator customers add acme --title 'Acme Corporation'")
@click.argument("name", type=forms.name)
@click.option("--title", type=forms.words, required=True, help="Its name as people write it.")
@click.option("--policy", type=forms.name, help="What it allows; see: delegator policies add.")
@click.option("--disabled", is_flag=True, help="Answer none of its devices for now.")
@click.option("--signing-key", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE",
              help="The public key (PEM, or a certificate) with which it signs its transfers; `none` for none. "
                   "Stays as it is where nothing is said.")
@click.option("--replace", is_flag=True, help="Change the customer if there is one of that name.")
def add(signing_key: Path | None, **told: Any) -> Output | None:
    """Add the customer NAME."""
    said = signing_key is not None
    key = owning.public_key(signing_key) if signing_key is not None and str(signing_key) != forms.NOBODY else None
    return _add(key=key, said=said, **told)


@stored
async def _add(store: Store, name: str, title: str, policy: str | None, disabled: bool, replace: bool,
               key: str | None, said: bool) -> Output:
    customer = Customer(name, title, not disabled, policy)
    await store.add_customer(customer, replace=replace)
    data = shapes.customer(customer)
    if said:
        await store.ownership.set_key(name, key, datetime.now(UTC))
        data["signing_key"] = await _signing_key(store, name)
    return Output(data, words=(f"customer {name} is registered",))


async def _signing_key(store: Store, name: str) -> str | None:
    """The fingerprint of the key it signs with."""
    from delegator.signing import fingerprint

    key = await store.ownership.key(name)
    return None if key is None else fingerprint(key)


@verb(group, "list", "delegator customers list --json")
@stored
async def list_(store: Store) -> Output:
    """List all customers."""
    customers = [shapes.customer(one) for one in await store.customers()]
    return Output(customers, console.table(("name", "title", "policy", "enabled"),
                                           [tuple(one.values()) for one in customers]))


@verb(group, "show", "delegator customers show acme")
@click.argument("name", type=forms.name)
@stored
async def show(store: Store, name: str) -> Output:
    """Show the customer NAME and its delegates."""
    tables = await store.tables()
    if name not in tables.customers:
        raise console.missing("customer", name, "customers")
    delegates = [one.name for one in tables.directory.delegates.values() if one.customer == name]
    data = {**shapes.customer(tables.customers[name]), "delegates": delegates,
            "signing_key": await _signing_key(store, name)}
    return Output(data, console.pairs(data))


@verb(group, "remove", "delegator customers remove acme")
@click.argument("name", type=forms.name)
@stored
async def remove(store: Store, name: str) -> Output:
    """Remove the customer NAME, once nothing refers to it any more."""
    await store.remove("customer", name)
    return Output({"removed": name}, words=(f"customer {name} is removed",))
