"""`delegator rules`: facts about a device that lead to a delegate.

The invariant: `list` shows rules in the very order in which the server tries them, because it asks the server's code.
A rule that asks nothing lets every stranger in, so it is made only on purpose.
Must not live here: matching (routing), what a rule lets in (widening), what one means that asks nothing
(desk.strangers).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
from msgspec.structs import replace

from delegator.cli import changing, console, listing
from delegator.cli.console import Output, verb
from delegator.cli.parameters import as_usage, ranged, typed
from delegator.cli.session import looking, stored
from delegator.desk import forms, registering, shapes, strangers
from delegator.model import Rule
from delegator.store import Store
from delegator.store.changing import RULE

F = TypeVar("F", bound=Callable[..., Any])
_CONDITIONS = ("order", "model", "tag_prefix", "mac_prefix", "network", "domain")
_DEFAULT = "always (the default rule)"


@click.group("rules", cls=console.Verbs, epilog=console.as_example("delegator rules list"))
def group() -> None:
    """Facts about a device that lead to a delegate, where its registration does not name one."""


def _options(function: F) -> F:
    """What a rule says, besides where it leads."""
    for option in (
            click.option("--any-genuine-device", is_flag=True,
                         help="Yes, give a credential to any device of the factory that nobody has registered: what a "
                              "rule means that asks nothing."),
            click.option("--order", type=typed(forms.words), help="The order it was registered with."),
            click.option("--domain", type=typed(forms.domain), help="The domain it says it is in, or any below it."),
            click.option("--network", type=typed(forms.network),
                         help="The network it calls from, such as 192.0.2.0/24."),
            click.option("--mac-prefix", type=typed(forms.mac_prefix), help="How one of its MAC addresses begins."),
            click.option("--tag-prefix", type=typed(forms.tag_prefix), help="How its service tag begins."),
            click.option("--model", type=typed(forms.model_name), help="The device's model, exactly."),
            click.option("--delegator", metavar="HOST[:PORT]", type=typed(forms.delegator),
                         help="Instead: another delegator, which unregistered devices shall ask."),
            click.option("--delegate", type=typed(forms.name), help="Where the rule leads.")):
        function = option(function)
    return function


@verb(group, "add", "delegator rules add berlin --delegate acme-berlin --network 192.0.2.0/24 --priority 10")
@click.argument("name", type=typed(forms.name))
@_options
@click.option("--priority", type=ranged(registering.PRIORITY), default=100, show_default=True,
              help="Lower is tried first.")
@stored
async def add(store: Store, name: str, any_genuine_device: bool, delegate: str | None, delegator: str | None,
              priority: int, **conditions: str | None) -> Output:
    """Add the rule NAME. All its conditions must hold. To change one that is there: delegator rules change.

    Devices that nobody has registered are led by rules as well, if they show a certificate of their own from the
    factory and the policy allows them. So a rule that asks nothing is refused unless --any-genuine-device is said.
    """
    with as_usage():  # whether it is meant is asked once it is known what it means
        rule = registering.rule({"name": name, "delegate": delegate, "priority": priority, "delegator": delegator,
                                 **conditions, "any_genuine_device": True})
    meaning = await strangers.must_be_meant(store, rule, datetime.now(UTC), said=any_genuine_device)
    lets_in = changing.let_in(await store.tables(), RULE, name, None, rule)
    await store.add_rule(rule, datetime.now(UTC))
    output = Output(shapes.rule(rule), words=(f"rule {name} leads to {delegate or delegator}: {when(rule)}", *meaning))
    return changing.also(output, lets_in)


@verb(group, "change", "delegator rules change berlin --network 198.51.100.0/24 --unset model")
@click.argument("name", type=typed(forms.name))
@_options
@click.option("--priority", type=ranged(registering.PRIORITY), help="Lower is tried first.")
@changing.unset(*(name.replace("_", "-") for name in _CONDITIONS))
def change(name: str, unset: tuple[str, ...], any_genuine_device: bool, **said: Any) -> Output | None:
    """Change the rule NAME: what is not named stays. Says what changed, and whether that lets more devices in."""
    with as_usage():
        registering.leads_once(said, new=False)
    fields = {key: value for key, value in said.items() if value is not None} | changing.taken_back(unset, said)
    changing.must_say(fields, "--network or --priority")
    if said["delegate"] is not None or said["delegator"] is not None:
        fields |= {"delegate": said["delegate"], "delegator": said["delegator"]}
    return _change(name=name, fields=fields, meant=any_genuine_device)


@stored
async def _change(store: Store, name: str, fields: dict[str, Any], meant: bool) -> Output:
    standing = await _known(store, name)
    meaning = await strangers.must_be_meant(store, replace(standing, **fields), datetime.now(UTC),
                                            said=meant or strangers.stays(standing, fields))

    def how(one: Rule) -> Rule:
        return strangers.changed(one, replace(one, **fields), fields, meant=meant)
    output = await changing.change(store, RULE, name, how, shapes.rule)
    return output.saying(*meaning)


@verb(group, "list", "delegator rules list --delegate acme-berlin --json")
@click.option("--customer", type=typed(forms.name), help="Only those that lead to this customer's delegates.")
@click.option("--delegate", type=typed(forms.name), help="Only those that lead there.")
@listing.most()
@looking
async def list_(store: Store, customer: str | None, delegate: str | None, most: int) -> Output:
    """List rules in the order in which they are tried.

    Only rules that lead to the customer's own delegates are tried for a device that is registered to a customer.
    """
    tables = await store.tables()
    known = tables.directory.delegates
    found = [(number, rule) for number, rule in enumerate(tables.directory.rules, 1)
             if delegate in (None, rule.delegate)
             and (customer is None or (rule.delegate is not None and known[rule.delegate].customer == customer))]
    rows = [(number, rule.name, rule.priority, when(rule), rule.delegate or f"ask at {rule.delegator}")
            for number, rule in found[:most]]
    return await listing.told(
        store, "rules", [{**shapes.rule(rule), "default": _is_default(rule)} for _, rule in found],
        console.table(("tried", "name", "priority", "when", "leads to"), rows), most,
        {"customer": customer, "delegate": delegate})


@verb(group, "show", "delegator rules show berlin")
@click.argument("name", type=typed(forms.name))
@looking
async def show(store: Store, name: str) -> Output:
    """Show the rule NAME."""
    found = await _known(store, name)
    data = {**shapes.rule(found), "default": _is_default(found)}
    return Output(data, console.pairs(data))


async def _known(store: Store, name: str) -> Rule:
    found = [rule for rule in await store.rules() if rule.name == name]
    if not found:
        raise console.missing("rule", name, "rules")
    return found[0]


@verb(group, "remove", "delegator rules remove berlin")
@click.argument("name", type=typed(forms.name))
@stored
async def remove(store: Store, name: str) -> Output:
    """Remove the rule NAME. What it led elsewhere goes by later rules now, which is told where they are laxer."""
    return await changing.remove(store, RULE, name)


def when(rule: Rule) -> str:
    said = [(name, getattr(rule, name)) for name in _CONDITIONS if getattr(rule, name) is not None]
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in said) or _DEFAULT


def _is_default(rule: Rule) -> bool:
    return when(rule) == _DEFAULT
