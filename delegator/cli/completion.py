"""`delegator completion`: what a shell needs to complete commands and options.

Must not live here: what there is to complete (the commands themselves, lazy).
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from delegator.cli import console
from delegator.cli.console import Output

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_DELEGATOR_COMPLETE"


@console.command("completion", "delegator completion bash > /etc/bash_completion.d/delegator")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> Output:
    """Print the lines that teach SHELL to complete delegator's commands, options and the names that are registered."""
    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    script = kind(root, {}, "delegator", VARIABLE).source()
    return Output({"shell": shell, "script": script}, script.splitlines())
