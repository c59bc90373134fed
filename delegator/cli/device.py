"""`delegator device`: play the device's side, with the client that devices carry.

Must not live here: the options of that client; they are passed on as they are (delegator.device).
"""

from __future__ import annotations

import click

from delegator.cli.console import Verbs, as_example

_EXAMPLE = """delegator device activate --delegator 127.0.0.1:4433 --tag ABC1234 --ca var/pki/ca.crt \\
    --certificate var/pki/devices/ABC1234.crt --key var/pki/devices/ABC1234.key --state var/device"""


@click.group("device", cls=Verbs, epilog=as_example("delegator device activate --help"))
def group() -> None:
    """Play the device's side: what runs inside a device at its first power-on."""


@group.command("activate", add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def activate(context: click.Context, words: tuple[str, ...]) -> None:
    """Ask the delegator for the first credential, as a device does; --help shows its options."""
    from delegator.device import main

    code = main(["activate", *words])
    if {"-h", "--help"} & set(words):
        click.echo(f"\nExample:\n  {_EXAMPLE}")
    context.exit(code)
