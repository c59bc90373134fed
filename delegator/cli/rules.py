"""`delegator rules`: facts about a device that lead to a delegate.

The invariant: `list` shows rules in the very order in which the server tries them, because it asks the server's code.
Must not live here: matching (routing).
"""

from __future__ import annotations

import click

from delegator.cli import console, forms, shapes
from delegator.cli.console import Output, verb
from delegator.cli.session import stored
from delegator.model import Rule
from delegator.store import Store

_CONDITIONS = ("order", "model", "tag_prefix", "mac_prefix", "network", "domain")
_DEFAULT = "always (the default rule)"


@click.group("rules", epilog=console.as_example("delegator rules list"))
def group() -> None:
    """Facts about a device that lead to a delegate, where its registration does not name one."""


@verb(group, "add", "delegator rules add berlin --delegate acme-berlin --network 192.0.2.0/24 --priority 10")
@click.argument("name", type=forms.name)
@click.option("--delegate", type=forms.name, help="Where the rule leads.")
@click.option("--delegator", metavar="HOST[:PORT]", type=forms.delegator,
              help="Instead: another delegator, which unregistered devices shall ask.")
@click.option("--priority", type=click.IntRange(0, 1_000_000), default=100, show_default=True,
              help="Lower is tried first.")
@click.option("--model", type=forms.model_name, help="The device's model, exactly.")
@click.option("--tag-prefix", type=forms.tag_prefix, help="How its service tag begins.")
@click.option("--mac-prefix", type=forms.mac_prefix, help="How one of its MAC addresses begins.")
@click.option("--network", type=forms.network, help="The network it calls from, such as 192.0.2.0/24.")
@click.option("--domain", type=forms.domain, help="The domain it says it is in, or any below it.")
@click.option("--order", type=forms.words, help="The order it was registered with.")
@click.option("--replace", is_flag=True, help="Change the rule if there is one of that name.")
@stored
async def add(store: Store, name: str, delegate: str | None, delegator: str | None, priority: int, replace: bool,
              **conditions: str | None) -> Output:
    """Add the rule NAME. All its conditions must hold; without any it is the default rule."""
    if (delegate is None) == (delegator is None):
        raise click.UsageError("name either --delegate or --delegator")
    rule = Rule(name, delegate, priority, delegator=delegator, **conditions)
    await store.add_rule(rule, replace=replace)
    return Output(shapes.rule(rule), words=(f"rule {name} leads to {delegate or delegator}: {when(rule)}",))


@verb(group, "list", "delegator rules list --json")
@stored
async def list_(store: Store) -> Output:
    """List rules in the order in which they are tried.

    Only rules that lead to the customer's own delegates are tried for a device that is registered to a customer.
    """
    rules = (await store.tables()).directory.rules
    rows = [(number, rule.name, rule.priority, when(rule), rule.delegate or f"ask at {rule.delegator}")
            for number, rule in enumerate(rules, 1)]
    return Output([{**shapes.rule(rule), "default": _is_default(rule)} for rule in rules],
                  console.table(("tried", "name", "priority", "when", "leads to"), rows))


@verb(group, "show", "delegator rules show berlin")
@click.argument("name", type=forms.name)
@stored
async def show(store: Store, name: str) -> Output:
    """Show the rule NAME."""
    found = [rule for rule in await store.rules() if rule.name == name]
    if not found:
        raise console.missing("rule", name, "rules")
    data = {**shapes.rule(found[0]), "default": _is_default(found[0])}
    return Output(data, console.pairs(data))


@verb(group, "remove", "delegator rules remove berlin")
@click.argument("name", type=forms.name)
@stored
async def remove(store: Store, name: str) -> Output:
    """Remove the rule NAME."""
    await store.remove("rule", name)
    return Output({"removed": name}, words=(f"rule {name} is removed",))


def when(rule: Rule) -> str:
    said = [(name, getattr(rule, name)) for name in _CONDITIONS if getattr(rule, name) is not None]
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in said) or _DEFAULT


def _is_default(rule: Rule) -> bool:
    return when(rule) == _DEFAULT
