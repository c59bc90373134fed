"""Which parameter of which command takes a name that the store knows, so that a shell can complete it.

Told by the form that the parameter has and by what it is called, in one place for all commands, so that a new command
completes without doing anything for it.
The invariant: completing never fails, waits or writes: where there is no store, no setting or no right to read it,
there is nothing to complete and not a word.
Must not live here: reading names (store.names), the shells' own scripts (completion).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import click
from click.shell_completion import CompletionItem

from delegator.cli.parameters import Typed
from delegator.cli.settings_file import chosen

CALLED = {
    "customer": "customers", "customers": "customers", "to": "customers", "delegate": "delegates",
    "delegates": "delegates", "policy": "policies", "plan": "plans", "order": "orders", "tag": "devices",
    "tags": "devices", "service_tag": "devices", "device": "devices", "names": "devices", "which": "devices"}
"""From what a parameter is called to the noun whose names it takes; a `name` is one of the command's own noun."""
_NEW = "add"
"""The verb whose argument names something that is not there yet."""


class Known(Typed):
    """A form whose words are names that the store knows."""

    def __init__(self, form: Callable[[Any], Any], noun: str) -> None:
        super().__init__(form)
        self.noun = noun

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            return [CompletionItem(name) for name in _names(ctx, self.noun, incomplete)]
        except Exception:
            return []


def _names(context: click.Context, noun: str, begun: str) -> list[str]:
    from delegator import config
    from delegator.store.names import names

    return names(config.load(chosen(context.find_root().params.get("path"))).store, noun, begun)


def equip(noun: str, command: click.Command) -> click.Command:
    """Teaches the command of a noun, and those inside it, to complete names."""
    for verb, inner in _inside("", command):
        for parameter in inner.params:
            known = takes(noun, verb, parameter)
            if known is not None and isinstance(parameter.type, Typed):
                parameter.type = Known(parameter.type.func, known)
    return command


def _inside(verb: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield verb, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _inside(name, inner)


def takes(noun: str, verb: str, parameter: click.Parameter) -> str | None:
    """The noun whose names a parameter takes, if any."""
    if not isinstance(parameter.type, Typed) or (verb == _NEW and isinstance(parameter, click.Argument)):
        return None
    return noun if parameter.name == "name" else CALLED.get(parameter.name or "")
