"""`delegator demo`: see the whole thing work on one machine.

Must not live here: the demonstration (delegator.demo).
"""

from __future__ import annotations

from pathlib import Path

import click


@click.command("demo")
@click.option("--keep", is_flag=True, help="Go on serving, and print a line with which to try it by hand.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object first, for scripts; words go to stderr.")
@click.option("--dir", "root", type=click.Path(path_type=Path, file_okay=False), default=Path("var/demo"),
              show_default=True, help="Everything the demonstration writes lies here.")
@click.option("--port", type=click.IntRange(0, 65535), default=4433, show_default=True,
              help="The delegator's port; 0 takes a free one.")
@click.option("--devices", type=click.IntRange(0, 1_000_000), default=0, show_default=True,
              help="Mint and register so many more devices with own certificates.")
@click.pass_context
def command(context: click.Context, keep: bool, as_json: bool, root: Path, port: int, devices: int) -> None:
    """Mint a PKI, start a delegator and a delegate, activate three devices, and tell what happened.

    \b
    Example:
      delegator demo --keep --port 0
    """
    from delegator.demo.play import play

    context.exit(play(root, port, devices, keep=keep, as_json=as_json))
