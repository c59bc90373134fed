"""Groups that import a command only when it is named, so that one that is slow or missing costs nobody else.

The invariant: listing commands imports none of them; their one-line summaries stand in the table.
Must not live here: which commands there are (cli/__init__).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from delegator.cli.completing import equip
from delegator.errors import DelegatorError, Kind


class Place(NamedTuple):
    """Where a command is found ("module:attribute") and what it is for, in one line."""

    target: str
    summary: str


class LazyGroup(click.Group):
    """A group over a table of places."""

    def __init__(self, *arguments: Any, places: Mapping[str, Place], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = self._places.get(cmd_name)
        return None if place is None else _found(cmd_name, place)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """As click does, but out of the table: a shell that completes must not wait for every command's imports."""
        names = [CompletionItem(name, help=place.summary) for name, place in self._places.items()
                 if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.summary) for name, place in self._places.items()])

    def resolve_command(self, ctx: click.Context,
                        args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, except that a misspelt name is answered with the names that there are."""
        if args[0] not in self._places and not args[0].startswith("-"):
            from delegator.desk.nearest import near

            found = near(self._places, args[0])
            meant = f"did you mean {found}? There" if found else "there"
            ctx.fail(f"there is no command {args[0]!a}; {meant} are: {', '.join(self._places)}")
        return super().resolve_command(ctx, args)


def _found(name: str, place: Place) -> click.Command:
    module, _, attribute = place.target.partition(":")
    try:
        command = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise DelegatorError(Kind.UNAVAILABLE, f"the command {name} is not part of this installation",
                             hint="install the whole package") from None
    assert isinstance(command, click.Command)
    return equip(name, command)
