"""Way `ssh`: the customer's command on the customer's machine. Its fields, and how people say them.

The invariant: only the machine that shows the pinned host key is spoken to.
Must not live here: calling it, and what a command may say (callbacks.ssh).
"""

from __future__ import annotations

from delegator.model.places import normal_host, normalise
from delegator.model.secret import Secret
from delegator.model.ways.soap import ADDRESS
from delegator.model.ways.way import CallbackWay, Reached, Said


class SshCallback(Reached, frozen=True):
    """The customer's command over SSH. `host_key` is the pinned public key in OpenSSH's form; in `command` `{tag}`,
    `{ip}`, `{peer}` and `{claim}` are filled with checked values only."""

    host: str
    user: str
    private_key: Secret
    host_key: str
    port: int = 22
    command: str = "getCred {tag} {ip}"
    address: str | None = None

    way = CallbackWay.SSH
    shown = "{user}@{where}"
    forms = {  # noqa: RUF012 - read by all, changed by nobody
        "host": "address", "port": "port", "address": "address", "user": "ssh user", "private_key": "private key",
        "host_key": "host key", "command": "ssh command"}
    said = (
        Said("--ssh", "ssh", "The customer's command over SSH.", "USER@HOST[:PORT]",
             fill=lambda ssh: dict(zip(("user", "host", "port"), ssh, strict=True))),
        Said("--private-key-file", "private key file", "The key that lets us in there, without a pass phrase; kept "
             "sealed. - is standard input.", "FILE", field="private_key"),
        Said("--host-key-file", "host key file", "That machine's host key, as scan-host-key writes it; no other is "
             "accepted.", "FILE", field="host_key"),
        Said("--host-key", "host key", "The same as a word: 'ssh-ed25519 AAAA...'.", "LINE", field="host_key"),
        Said("--command", "ssh command", "What to run there, with {tag}, {ip}, {peer} and {claim}. 'getCred {tag} "
             "{ip}' unless said.", "TEMPLATE", field="command"),
        ADDRESS)

    def __post_init__(self) -> None:
        normalise(self, host=normal_host, address=normal_host)

    @property
    def contact(self) -> tuple[str, int]:
        return self.address or self.host, self.port
