"""The ways to reach a delegate: a file each, and one table of them.

Each way is a file here (its fields, how people say them, what a list shows, what is refused) and a file of the same
name in callbacks (who calls, and what can be known on this machine): values know neither sockets nor programs. Who adds
one adds a word in `way`, these two files, and a row to the table.
The invariant: whoever has a callback asks it, or this table; nobody asks which of them it is.
Must not live here: calling anybody (callbacks), how a callback is kept (store.rows).
"""

from __future__ import annotations

from delegator.model.ways.hosted import HostedCallback
from delegator.model.ways.local import LocalCallback
from delegator.model.ways.soap import SoapCallback
from delegator.model.ways.ssh import SshCallback
from delegator.model.ways.way import CallbackWay, Reached, Said

__all__ = ["WAYS", "Callback", "CallbackWay", "HostedCallback", "LocalCallback", "Reached", "Said", "SoapCallback",
           "SshCallback"]
Callback = SoapCallback | SshCallback | HostedCallback | LocalCallback
WAYS: dict[CallbackWay, type[Callback]] = {
    CallbackWay.SOAP: SoapCallback, CallbackWay.SSH: SshCallback, CallbackWay.HOSTED: HostedCallback,
    CallbackWay.LOCAL: LocalCallback}
"""In the order in which people are shown them."""
