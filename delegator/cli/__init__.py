"""The command line: `delegator [--config FILE] NOUN VERB`. One module per noun, imported when it is named.

The invariants: data goes to standard output and words to standard error; whatever goes wrong ends in a sentence,
the next useful action and an exit code of the table in delegator.errors, never in a traceback for what is expected.
Must not live here: what a command does (its module), how things are shown (console).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from delegator import __version__
from delegator.cli.lazy import LazyGroup, Place
from delegator.cli.settings_file import CONFIG_FILE, chosen

__all__ = ["main"]

NOUNS = {
    "serve": Place("delegator.cli.serve:command", "Run the delegator: serve devices."),
    "demo": Place("delegator.cli.demo:command", "See the whole thing work: three devices, two customers, one machine."),
    "customers": Place("delegator.cli.customers:group", "Who owns devices."),
    "delegates": Place("delegator.cli.delegates:group", "The customers' servers, or what stands for them."),
    "devices": Place("delegator.cli.devices:group", "Which device is whose."),
    "orders": Place("delegator.cli.orders:group", "Which order is whose."),
    "rules": Place("delegator.cli.rules:group", "Facts about a device that lead to a delegate."),
    "policies": Place("delegator.cli.policies:group", "What a customer allows."),
    "claims": Place("delegator.cli.claims:group", "What devices asked for, and what became of it."),
    "enrolments": Place("delegator.cli.enrolments:group", "Certificates of their own for devices with the shared one."),
    "transfers": Place("delegator.cli.transfers:group", "Devices that change hands, from one customer to another."),
    "notifications": Place("delegator.cli.notifications:group", "Who was told of what, by mail or webhook."),
    "audit": Place("delegator.cli.auditing:group", "Who did what, when, from where, and why it ended so."),
    "plans": Place("delegator.cli.plans:group", "What customers pay."),
    "usage": Place("delegator.cli.usage:group", "What was issued for whom in a month, and what it costs."),
    "explain": Place("delegator.cli.explain:command", "Why a device is, or is not, given a credential."),
    "config": Place("delegator.cli.configuration:group", "The settings, and whether what they name is in order."),
    "backup": Place("delegator.cli.backups:backup", "Copy the database while it is in use."),
    "restore": Place("delegator.cli.backups:restore", "Put a copy of the database back."),
    "sealing": Place("delegator.cli.sealing_keys:group", "The keys that seal secrets, and their rotation."),
    "completion": Place("delegator.cli.completion:command", "Complete commands and options in your shell."),
    "delegate": Place("delegator.cli.delegate_server:group", "Run a delegate, the customer's side."),
    "device": Place("delegator.cli.device:group", "Play the device's side."),
}
_WITHOUT_SETTINGS = ("config", "delegate", "device", "demo", "completion")
"""Nouns that do not need the settings, or read them themselves to tell what is wrong with them."""

_WORDS = "delegator.words"


class Commands(LazyGroup):
    """The outermost group: turns everything that ends a command into words and an exit code."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_WORDS] = tuple(args)
        return super().parse_args(ctx, args)

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, complete_var: str | None = None,
             standalone_mode: bool = True, windows_expand_args: bool = True, **extra: Any) -> Any:
        from delegator.cli import console

        words = list(sys.argv[1:] if args is None else args)
        try:
            outcome = super().main(words, prog_name or "delegator", complete_var, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as bare:
            bare.show()
            outcome = bare.exit_code
        except Exception as error:
            problem = console.problem_of(error)
            if problem is None:
                raise
            outcome = console.complain(console.blamed(problem), "--json" in words)
        code = outcome if isinstance(outcome, int) else 0
        return sys.exit(code) if standalone_mode else code


@click.group(cls=Commands, places=NOUNS, epilog="\b\nExample:\n  delegator --config delegator.toml customers list",
             context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--config", "path", type=click.Path(path_type=Path), envvar="DELEGATOR_CONFIG", metavar="FILE",
              help=f"Settings; else DELEGATOR_CONFIG, else ./{CONFIG_FILE} if there is one, else what is built in.")
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context, path: Path | None) -> None:
    """Zero-touch provisioning that a manufacturer runs for all its customers.

    Any setting can be overridden in the environment: DELEGATOR_SERVER__PORT=4434 sets [server] port.
    Every command knows --json (one JSON document on standard output) and --help.
    """
    from delegator.cli import session

    if context.invoked_subcommand == "delegate" and not _asks_for_help(context):
        _nothing_that_a_delegate_ignores(context)
    session.remember(context, chosen(path))
    if context.invoked_subcommand not in _WITHOUT_SETTINGS and not _asks_for_help(context):
        context.obj = session.settings()


def _nothing_that_a_delegate_ignores(context: click.Context) -> None:
    """It has settings of its own. Raises UsageError for a file that was named for it in the wrong place."""
    if context.get_parameter_source("path") is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--config goes after `delegate serve` or `delegate list`: before them it names the "
                               "settings of a delegator")


def _asks_for_help(context: click.Context) -> bool:
    """Help must come also where the settings are broken."""
    return bool({"-h", "--help"} & set(context.meta.get(_WORDS, ())))
