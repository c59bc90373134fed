"""`delegator delegates`: the customers' provisioning servers, or what stands for them.

The invariant: no command shows a password or a private key.
Must not live here: which option says what (reaching), calling delegates (callbacks), running one (delegate).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from delegator.cli import console, files, forms, reaching, shapes
from delegator.cli.console import Output, verb
from delegator.cli.host_keys import scan_host_key
from delegator.cli.session import stored
from delegator.model import Callback, CallbackKind, Delegate, SshCallback
from delegator.model.places import authority
from delegator.store import Store

Fields = dict[str, Any]


@click.group("delegates", epilog=console.as_example("delegator delegates list --customer acme"))
def group() -> None:
    """The customers' provisioning servers, or what stands for them."""


group.add_command(scan_host_key)


@verb(group, "add", "delegator delegates add acme-berlin --customer acme --soap delegate.acme.example:8443/soap "
                    "--callback-ca acme-ca.crt\n"
                    "delegator delegates add acme-paris --customer acme --ssh delegator@paris.acme.example "
                    "--private-key-file paris.key --host-key-file paris.pub\n"
                    "delegator delegates add acme-small --customer acme --hosted 'admin-{tag}'\n"
                    "delegator delegates add acme-own --customer acme --local /opt/acme/credential")
@click.argument("name", type=forms.name)
@click.option("--customer", type=forms.name, required=True, help="Whose delegate it is.")
@reaching.options
@click.option("--url", type=forms.url, help="Where devices go next (https).")
@click.option("--trust-anchor", type=click.Path(path_type=Path), metavar="FILE",
              help="Whom devices shall trust there (PEM), if not --callback-ca or the factory CA.")
@click.option("--policy", type=forms.name, help="What holds for this delegate, besides the customer's policy.")
@click.option("--priority", type=click.IntRange(0, 1_000_000), help="Among a customer's delegates the lowest is asked "
              "first, the next when it is down; 100 unless said.")
@click.option("--weight", type=click.IntRange(1, 1_000_000), help="Its share of devices among those of equal "
              "priority; 1 unless said.")
@click.option("--disabled/--enabled", default=None, help="Send no device there for now, or again.")
@click.option("--replace", is_flag=True, help="Change the delegate if there is one of that name; what is not named "
              "stays.")
def add(name: str, customer: str, url: str | None, trust_anchor: Path | None, policy: str | None,
        priority: int | None, weight: int | None, disabled: bool | None, replace: bool, **said: Any) -> Output | None:
    """Add the delegate NAME of a customer, reached by --soap, --ssh or --local, or kept here by --hosted."""
    kind = reaching.named_kind(said)
    if kind is None and not replace:
        raise click.UsageError(f"give one of {' or '.join(one.option for one in reaching.NAMING.values())}")
    fields = reaching.fields_of(said, kind) if kind else {}
    anchor = None if trust_anchor is None else files.certificates(trust_anchor)
    named = {"url": url, "trust_anchor": anchor, "policy": policy, "priority": priority, "weight": weight,
             "enabled": None if disabled is None else not disabled}
    named = {key: value for key, value in named.items() if value is not None}
    return _add(name=name, customer=customer, kind=kind, said=said, fields=fields, named=named, replace=replace)


@stored
async def _add(store: Store, name: str, customer: str, kind: CallbackKind | None, said: Fields, fields: Fields,
               named: Fields, replace: bool) -> Output:
    before = (await store.tables()).directory.delegates.get(name) if replace else None
    if kind is None:
        if before is None:
            raise console.missing("delegate", name, "delegates")
        kind, fields = before.kind, reaching.fields_of(said, before.kind)
    callback = reaching.made(kind, fields, before.callback if before else None)
    delegate = (Delegate(name, customer, callback, **named) if before is None else
                dataclasses.replace(before, customer=customer, callback=callback, **named))
    await store.add_delegate(delegate, replace=replace)
    return Output(shapes.delegate(delegate), words=(f"delegate {name} is registered", *_pinned(callback)))


def _pinned(callback: Callback) -> tuple[str, ...]:
    """The fingerprint once more: it is what people compare."""
    if not isinstance(callback, SshCallback):
        return ()
    from delegator.callbacks.ssh_keys import host_key_in

    return (f"only the host key {host_key_in(callback.host_key).fingerprint} is accepted from {callback.host}",)


@verb(group, "list", "delegator delegates list --customer acme")
@click.option("--customer", type=forms.name, help="Only those of this customer.")
@stored
async def list_(store: Store, customer: str | None) -> Output:
    """List delegates; passwords and private keys are never shown."""
    found = [one for one in await store.delegates() if customer in (None, one.customer)]
    rows = [(one.name, one.customer, _reached(one), one.url, one.policy, one.enabled) for one in found]
    return Output([shapes.delegate(one) for one in found],
                  console.table(("name", "customer", "reached", "url", "policy", "enabled"), rows))


@verb(group, "show", "delegator delegates show acme-berlin --json")
@click.argument("name", type=forms.name)
@stored
async def show(store: Store, name: str) -> Output:
    """Show the delegate NAME, without its password, and the state of its circuit breaker."""
    found = (await store.tables()).directory.delegates.get(name)
    if found is None:
        raise console.missing("delegate", name, "delegates")
    health = await store.health(name)
    breaker = {"breaker": health.state, "breaker_why": health.why, "breaker_since": shapes.at(health.since)
               } if health else {"breaker": "closed"}
    data = {**shapes.delegate(found), **breaker}
    return Output(data, console.pairs(data))


@verb(group, "remove", "delegator delegates remove acme-berlin")
@click.argument("name", type=forms.name)
@stored
async def remove(store: Store, name: str) -> Output:
    """Remove the delegate NAME, once nothing refers to it any more."""
    await store.remove("delegate", name)
    return Output({"removed": name}, words=(f"delegate {name} is removed",))


def _reached(delegate: Delegate) -> str:
    """The kind of callback and the one setting that tells most."""
    shape = shapes.callback(delegate)
    where = authority(str(shape["host"]), int(str(shape["port"]))) if "host" in shape else ""
    return f"{shape['kind']} {_REACHED[delegate.kind].format(**shape, where=where)}"


_REACHED = {CallbackKind.SOAP: "{where}{path}", CallbackKind.SSH: "{user}@{where}",
            CallbackKind.HOSTED: "{user_name}", CallbackKind.LOCAL: "{program}"}
