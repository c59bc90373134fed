"""`delegator customers`: who owns devices.

Must not live here: what a customer's devices are allowed (policies).
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace

from delegator.cli import changing, console, listing, owning
from delegator.cli.console import Output, verb
from delegator.cli.parameters import typed
from delegator.cli.session import looking, stored
from delegator.desk import forms, shapes
from delegator.model import Customer
from delegator.store import Store, milliseconds
from delegator.store.changing import CUSTOMER
from delegator.store.ownership import set_key
from delegator.store.transaction import Transaction, Work


@click.group("customers", cls=console.Verbs, epilog=console.as_example("delegator customers list"))
def group() -> None:
    """Who owns devices: the tenants of this delegator."""


_KEY = click.option("--signing-key", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE",
                    help="The public key (PEM, or a certificate) with which it signs its transfers; `none` for none.")


@verb(group, "add", "delegator customers add acme --title 'Acme Corporation' --policy rollout")
@click.argument("name", type=typed(forms.name))
@click.option("--title", type=typed(forms.words), required=True, help="Its name as people write it.")
@click.option("--policy", type=typed(forms.name), help="What it allows; see: delegator policies add.")
@click.option("--disabled", is_flag=True, help="Answer none of its devices for now.")
@_KEY
def add(signing_key: Path | None, **told: Any) -> Output | None:
    """Add the customer NAME. To change one that is there: delegator customers change."""
    said, key = _read(signing_key)
    return _add(key=key, said=said, **told)


def _read(signing_key: Path | None) -> tuple[bool, str | None]:
    """Whether a key was said, and which: None for none."""
    if signing_key is None or str(signing_key) == forms.NOBODY:
        return signing_key is not None, None
    return True, owning.public_key(signing_key)


@stored
async def _add(store: Store, name: str, title: str, policy: str | None, disabled: bool, key: str | None,
               said: bool) -> Output:
    customer = Customer(name, title, not disabled, policy)
    # One transaction: a customer is never there without the key that its transfers have to be signed with.
    await store.add_customer(customer, datetime.now(UTC), besides=_signing(store, name, key, []) if said else None)
    data = shapes.customer(customer)
    if said:
        data["signing_key"] = _known_as(key)
    return Output(data, words=(f"customer {name} is registered",))


@verb(group, "change", "delegator customers change acme --policy rollout\n"
                       "delegator customers change acme --signing-key acme.pub --title 'Acme Limited'")
@click.argument("name", type=typed(forms.name))
@click.option("--title", type=typed(forms.words), help="Its name as people write it.")
@click.option("--policy", type=typed(forms.name), help="What it allows.")
@_KEY
@changing.unset("policy", "signing-key")
def change(name: str, title: str | None, policy: str | None, signing_key: Path | None,
           unset: tuple[str, ...]) -> Output | None:
    """Change the customer NAME: what is not named stays. Says what changed, and whether that lets more devices in."""
    back = changing.taken_back(unset, {"policy": policy, "signing_key": signing_key})
    fields: dict[str, Any] = {"title": title, "policy": policy}
    fields = {key: value for key, value in fields.items() if value is not None}
    said, key = (True, None) if "signing_key" in back else _read(signing_key)
    fields |= {name: None for name in back if name != "signing_key"}
    changing.must_say([*fields, *(["signing_key"] if said else [])], "--title or --policy")
    return _change(name=name, fields=fields, key=key, said=said)


@stored
async def _change(store: Store, name: str, fields: dict[str, Any], key: str | None, said: bool) -> Output:
    before: list[str | None] = []
    output = await changing.change(store, CUSTOMER, name, lambda one: replace(one, **fields), shapes.customer,
                                   _signing(store, name, key, before) if said else None)
    if not said:
        return output
    return _with_key(output, name, _known_as(before[-1]), _known_as(key))


def _signing(store: Store, name: str, key: str | None, before: list[str | None]) -> Work[None]:
    """What sets the key within a transaction; `before` then ends with the one that it took the place of."""
    def signing() -> Transaction[None]:
        before.append((yield from set_key(name, key, milliseconds(datetime.now(UTC)), store.by)))
    return signing


def _with_key(output: Output, name: str, before: str | None, after: str | None) -> Output:
    """The change of the key, told with what else changed. Where nothing is signed, nothing has to be."""
    assert isinstance(output.data, dict)
    data = {**output.data, "signing_key": after}
    changed, lets_in = data.pop("changed"), data.pop("lets_in")
    if before != after:
        changed = [*changed, {"field": "signing_key", "old": before, "new": after}]
        if before is not None:
            now = "needs no signature" if after is None else "is signed with another key"
            lets_in = [*lets_in, f"transfers: what customer {name} does had to be signed with its key "
                                 f"{before[:16]}, now it {now}"]
    return changing.told(data, f"customer {name}", changed, lets_in)


@verb(group, "disable", "delegator customers disable acme")
@click.argument("name", type=typed(forms.name))
@stored
async def disable(store: Store, name: str) -> Output:
    """Answer none of the devices of the customer NAME from now on. Claims that stand go on until they end."""
    return await changing.change(store, CUSTOMER, name, lambda one: replace(one, enabled=False), shapes.customer)


@verb(group, "enable", "delegator customers enable acme")
@click.argument("name", type=typed(forms.name))
@stored
async def enable(store: Store, name: str) -> Output:
    """Answer the devices of the customer NAME again, as far as policies allow."""
    return await changing.change(store, CUSTOMER, name, lambda one: replace(one, enabled=True), shapes.customer)


async def _signing_key(store: Store, name: str) -> str | None:
    """The fingerprint of the key it signs with."""
    return _known_as(await store.ownership.key(name))


def _known_as(key: str | None) -> str | None:
    from delegator.signing import fingerprint

    return None if key is None else fingerprint(key)


@verb(group, "list", "delegator customers list --json")
@click.option("--policy", type=typed(forms.name), help="Only those that have this policy.")
@listing.enabled
@listing.most()
@looking
async def list_(store: Store, policy: str | None, enabled: bool | None, most: int) -> Output:
    """List customers by name."""
    wanted = listing.filters(policy=policy, enabled=enabled)
    found = [shapes.customer(one) for one in await store.customers() if wanted(one)]
    return await listing.shown(store, "customers", found, ("name", "title", "policy", "enabled"), most,
                               {"policy": policy})


@verb(group, "show", "delegator customers show acme")
@click.argument("name", type=typed(forms.name))
@looking
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
@click.argument("name", type=typed(forms.name))
@stored
async def remove(store: Store, name: str) -> Output:
    """Remove the customer NAME, once nothing refers to it any more."""
    return await changing.remove(store, CUSTOMER, name)
