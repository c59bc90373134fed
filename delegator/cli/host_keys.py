"""`delegator delegates scan-host-key`: which host key a customer's machine shows, for a person to confirm.

The invariant: a key that nobody compared with its fingerprint is shown and not written to a file.
Must not live here: pinning (delegates add), SSH (callbacks.ssh_session).
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from delegator.cli import console
from delegator.cli.console import Output
from delegator.cli.parameters import typed
from delegator.cli.session import settings
from delegator.desk import forms
from delegator.errors import DelegatorError, Kind
from delegator.model.places import authority

if TYPE_CHECKING:
    from delegator.callbacks.ssh_keys import HostKey

UNCONFIRMED = ("nobody has confirmed it: ask the customer for the output of "
               "`ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub` on that machine")


@console.command("scan-host-key", "delegator delegates scan-host-key delegate.acme.example:22 --output acme.pub")
@click.argument("host", type=typed(forms.host), metavar="HOST[:PORT]")
@click.option("--fingerprint", metavar="SHA256:...", help="What the customer says it is; without it you are asked.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the confirmed key here, for "
              "delegates add --host-key-file.")
def scan_host_key(host: tuple[str, int], fingerprint: str | None, output: Path | None) -> Output:
    """Ask HOST for its SSH host key, show its fingerprint, and have it confirmed."""
    if output is not None and fingerprint is None and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to confirm the key on: give --fingerprint SHA256:...")
    key = asyncio.run(_scan(*host))
    confirmed = _confirmed(key, fingerprint)
    if output is not None and confirmed:
        output.write_text(f"{key}\n")
    words = (f"{authority(*host)} shows the {key.kind} key {key.fingerprint}",
             "it is confirmed" if confirmed else UNCONFIRMED)
    return Output({"host": host[0], "port": host[1], "host_key": str(key), "fingerprint": key.fingerprint,
                   "confirmed": confirmed}, (str(key),), words)


def _confirmed(key: HostKey, fingerprint: str | None) -> bool:
    """Raises DelegatorError (IDENTITY) where it is not what the customer says."""
    if fingerprint is None:
        return sys.stdin.isatty() and click.confirm(
            f"{key.kind} {key.fingerprint}\nIs this the fingerprint that the customer told you?", err=True)
    if fingerprint.removeprefix("SHA256:").rstrip("=") != key.fingerprint.removeprefix("SHA256:"):
        raise DelegatorError(Kind.IDENTITY, f"the host key is {key.fingerprint}, not {fingerprint}",
                             hint="ask the customer; do not register this key")
    return True


async def _scan(host: str, port: int) -> HostKey:
    from delegator.callbacks.ssh import library, reason
    from delegator.serving.parts import load_outbound

    session = await library(Kind.CONFIGURATION)
    try:
        async with asyncio.timeout(settings().callbacks.budget):
            key: HostKey = await session.scan(host, port, load_outbound(settings()))
            return key
    except (session.SshFailure, OSError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise DelegatorError(Kind.UNREACHABLE, f"{authority(host, port)}: {why}",
                             hint="is that the machine, and does it speak SSH there?") from None
