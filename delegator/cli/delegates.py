"""`delegator delegates`: the customers' provisioning servers, or what stands for them.

The invariant: no command shows a password or a private key.
Must not live here: which option says what (reaching), calling delegates (callbacks), running one (delegate).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from delegator import widening
from delegator.cli import changing, console, files, listing, reach, reaching
from delegator.cli.console import Output, verb
from delegator.cli.host_keys import scan_host_key
from delegator.cli.parameters import ranged, typed
from delegator.cli.session import looking, stored
from delegator.desk import forms, registering, shapes
from delegator.errors import DelegatorError, Kind
from delegator.model import CallbackWay, Delegate
from delegator.model.places import authority
from delegator.store import Store
from delegator.store.changing import DELEGATE

Fields = dict[str, Any]
_UNSET = ("url", "trust-anchor", "policy", *reaching.UNSET)


@click.group("delegates", cls=console.Verbs, epilog=console.as_example("delegator delegates list --customer acme"))
def group() -> None:
    """The customers' provisioning servers, or what stands for them."""


group.add_command(scan_host_key)
group.add_command(reach.test)


def _described(new: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options for what is said of a delegate however it is reached; of a `new` one, with what is so unless said."""
    otherwise = "; {} unless said".format if new else lambda _: ""
    options = (
        click.option("--url", type=typed(forms.url), help="Where devices go next (https)."),
        click.option("--trust-anchor", type=click.Path(path_type=Path), metavar="FILE",
                     help="Whom devices shall trust there (PEM), if not --callback-ca or the factory CA."),
        click.option("--policy", type=typed(forms.name),
                     help="What holds for this delegate, besides the customer's policy."),
        click.option("--priority", type=ranged(registering.PRIORITY), help="Among a customer's delegates the lowest is "
                     f"asked first, the next when it is down{otherwise(100)}."),
        click.option("--weight", type=ranged(registering.WEIGHT), help="Its share of devices among those of equal "
                     f"priority{otherwise(1)}."))

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function
    return decorate


@verb(group, "add", "delegator delegates add acme-berlin --customer acme --soap delegate.acme.example:8443/soap "
                    "--callback-ca acme-ca.crt\n"
                    "delegator delegates add acme-paris --customer acme --ssh delegator@paris.acme.example "
                    "--private-key-file paris.key --host-key-file paris.pub\n"
                    "delegator delegates add acme-small --customer acme --hosted 'admin-{tag}'\n"
                    "delegator delegates add acme-own --customer acme --local /opt/acme/credential")
@click.argument("name", type=typed(forms.name))
@click.option("--customer", type=typed(forms.name), required=True, help="Whose delegate it is.")
@reaching.options
@_described(new=True)
@click.option("--disabled", is_flag=True, help="Send no device there for now.")
def add(name: str, customer: str, url: str | None, trust_anchor: Path | None, policy: str | None,
        priority: int | None, weight: int | None, disabled: bool, **said: Any) -> Output | None:
    """Add the delegate NAME of a customer, reached by --soap, --ssh or --local, or kept here by --hosted. To change one
    that is there: delegator delegates change."""
    way = reaching.named_way(said)
    if way is None:
        raise click.UsageError(f"give one of {' or '.join(one.option for _, one in reaching.NAMING.values())}")
    callback = reaching.made(way, reaching.fields_of(said, way), None)
    named = _named(url, trust_anchor, policy, priority, weight)
    return _add(delegate=Delegate(name, customer, callback, enabled=not disabled, **named))


def _named(url: str | None, trust_anchor: Path | None, policy: str | None, priority: int | None,
           weight: int | None) -> Fields:
    anchor = None if trust_anchor is None else files.certificates(trust_anchor)
    named = {"url": url, "trust_anchor": anchor, "policy": policy, "priority": priority, "weight": weight}
    return {key: value for key, value in named.items() if value is not None}


@stored
async def _add(store: Store, delegate: Delegate) -> Output:
    now = await store.tables()
    after = changing.would_be(now, DELEGATE.name, delegate.name, delegate)
    lets_in = changing.let_in(now, DELEGATE, delegate.name, None, delegate)
    taken_over = widening.taken_over(after, delegate)
    await store.add_delegate(delegate, datetime.now(UTC))
    output = Output(shapes.delegate(delegate),
                    words=(f"delegate {delegate.name} is registered", *reach.remarks(delegate.name, delegate.callback)))
    if sum(one.customer == delegate.customer for one in after.directory.delegates.values()) == 1:
        return changing.plainly(output, lets_in)
    return changing.plainly(changing.also(output, lets_in), taken_over)


@verb(group, "change", "delegator delegates change acme-berlin --address 192.0.2.7 --policy night\n"
                       "delegator delegates change acme-paris --host-key-file paris.pub")
@click.argument("name", type=typed(forms.name))
@reaching.options
@_described(new=False)
@changing.unset(*_UNSET)
def change(name: str, url: str | None, trust_anchor: Path | None, policy: str | None, priority: int | None,
           weight: int | None, unset: tuple[str, ...], **said: Any) -> Output | None:
    """Change the delegate NAME: what is not named stays. Says what changed, and whether that lets more devices in.

    With --soap, --ssh, --local or --hosted it is reached that way from now on; of the same kind, what else was said of
    it stays. Whose it is never changes.
    """
    back = changing.taken_back(unset, {"url": url, "trust_anchor": trust_anchor, "policy": policy, **said})
    fields = {**_named(url, trust_anchor, policy, priority, weight),
              **{field: None for field in back if field in ("url", "trust_anchor", "policy")}}
    return _change(name=name, said=said, fields=fields, back=[field for field in back if field not in fields])


@stored
async def _change(store: Store, name: str, said: Fields, fields: Fields, back: list[str]) -> Output:
    standing = (await store.tables()).directory.delegates.get(name)
    if standing is None:
        raise console.missing("delegate", name, "delegates")
    way = reaching.named_way(said) or standing.way
    reached = {**reaching.fields_of(said, way), **reaching.emptied(back, way)}
    changing.must_say([*fields, *reached, *back], "--address, --policy or --priority")

    def how(one: Delegate) -> Delegate:
        if one.way != standing.way:
            raise DelegatorError(Kind.CONFLICT, f"delegate {name} was changed meanwhile", hint="look, and run it again")
        callback = reaching.made(way, reached, one.callback) if reached or way is not one.way else one.callback
        return msgspec.structs.replace(one, callback=callback, **fields)
    would_be = how(standing).callback  # tried before anything is written, on what stands there now
    remarks = reach.remarks(name, would_be)
    output = await changing.change(store, DELEGATE, name, how, shapes.delegate)
    return output.saying(*remarks) if reached else output


@verb(group, "disable", "delegator delegates disable acme-berlin")
@click.argument("name", type=typed(forms.name))
@stored
async def disable(store: Store, name: str) -> Output:
    """Send no device to the delegate NAME from now on. Claims that stand go on until they end."""
    return await changing.change(store, DELEGATE, name, lambda one: msgspec.structs.replace(one, enabled=False),
                                 shapes.delegate)


@verb(group, "enable", "delegator delegates enable acme-berlin")
@click.argument("name", type=typed(forms.name))
@stored
async def enable(store: Store, name: str) -> Output:
    """Send devices to the delegate NAME again, as far as policies allow."""
    return await changing.change(store, DELEGATE, name, lambda one: msgspec.structs.replace(one, enabled=True),
                                 shapes.delegate)


@verb(group, "list", "delegator delegates list --customer acme --callback soap")
@click.option("--customer", type=typed(forms.name), help="Only those of this customer.")
@click.option("--policy", type=typed(forms.name), help="Only those that have this policy.")
@click.option("--callback", type=click.Choice([way.value for way in CallbackWay]), help="Only those reached so.")
@listing.enabled
@listing.most()
@looking
async def list_(store: Store, customer: str | None, policy: str | None, callback: str | None, enabled: bool | None,
                most: int) -> Output:
    """List delegates by name; passwords and private keys are never shown."""
    wanted = listing.filters(customer=customer, policy=policy, enabled=enabled,
                             way=None if callback is None else CallbackWay(callback))
    found = [one for one in await store.delegates() if wanted(one)]
    rows = [(one.name, one.customer, _reached(one), one.url, one.policy, one.enabled) for one in found[:most]]
    lines = console.table(("name", "customer", "reached", "url", "policy", "enabled"), rows)
    return await listing.told(store, "delegates", [shapes.delegate(one) for one in found], lines, most,
                              {"customer": customer, "policy": policy})


@verb(group, "show", "delegator delegates show acme-berlin --json")
@click.argument("name", type=typed(forms.name))
@looking
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
@click.argument("name", type=typed(forms.name))
@stored
async def remove(store: Store, name: str) -> Output:
    """Remove the delegate NAME, once nothing refers to it any more."""
    return await changing.remove(store, DELEGATE, name)


def _reached(delegate: Delegate) -> str:
    """The way and the one setting that tells most."""
    shape = shapes.callback(delegate)
    where = authority(str(shape["host"]), int(str(shape["port"]))) if "host" in shape else ""
    return f"{delegate.way.value} {delegate.callback.shown.format(**shape, where=where)}"
