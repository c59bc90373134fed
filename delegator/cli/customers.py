"""`delegator customers`: who owns devices.

Must not live here: what a customer's devices are allowed (policies).
"""

from __future__ import annotations

import click

from delegator.cli import console, forms, shapes
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
@click.option("--replace", is_flag=True, help="Change the customer if there is one of that name.")
@stored
async def add(store: Store, name: str, title: str, policy: str | None, disabled: bool, replace: bool) -> Output:
    """Add the customer NAME."""
    customer = Customer(name, title, not disabled, policy)
    await store.add_customer(customer, replace=replace)
    return Output(shapes.customer(customer), words=(f"customer {name} is registered",))


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
    data = {**shapes.customer(tables.customers[name]), "delegates": delegates}
    return Output(data, console.pairs(data))


@verb(group, "remove", "delegator customers remove acme")
@click.argument("name", type=forms.name)
@stored
async def remove(store: Store, name: str) -> Output:
    """Remove the customer NAME, once nothing refers to it any more."""
    await store.remove("customer", name)
    return Output({"removed": name}, words=(f"customer {name} is removed",))
