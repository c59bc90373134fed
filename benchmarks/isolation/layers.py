"""The layers and all modes: who plays, who makes it be called, and what it does when it behaves.

The invariant: a layer's modes are played against one server, whose settings are the layer's.
Must not live here: what modes do.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from benchmarks.isolation import callers, delegates, names, relays, shells
from benchmarks.isolation.modes import Mode


class Kind(enum.Enum):
    """Why the peer and the server speak; the value is how the attacker is to be run."""

    DELEGATE = "called"
    """A device asks, and its delegate is called."""
    TOLD = "told"
    """A device was answered, and an administrator is told of it."""
    NAMES = "names"
    """A device that nobody registered comes from a new address."""
    CALLS = "calls"
    """It calls itself."""


@dataclass(frozen=True, slots=True)
class Layer:
    """`well` is how the same peer behaves well; `plays` whom it stands for; `where` what it attacks."""

    name: str
    kind: Kind
    plays: str
    well: Any


_DELEGATE = "a customer's SOAP delegate, or whoever answers at its address"
LAYERS: dict[str, Layer] = {one.name: one for one in (
    Layer("tcp", Kind.DELEGATE, _DELEGATE, delegates.well),
    Layer("tls 1.2", Kind.DELEGATE, _DELEGATE, delegates.well),
    Layer("tls 1.3", Kind.DELEGATE, _DELEGATE, delegates.well),
    Layer("http", Kind.DELEGATE, _DELEGATE, delegates.well),
    Layer("soap", Kind.DELEGATE, _DELEGATE, delegates.well),
    Layer("ssh", Kind.DELEGATE, "a customer's SSH delegate", shells.well),
    Layer("webhook", Kind.TOLD, "a customer's receiver of webhooks", delegates.well),
    Layer("smtp", Kind.TOLD, "the mail relay", relays.well),
    Layer("dns", Kind.NAMES, "the owner of a reverse zone", names.well),
    Layer("device", Kind.CALLS, "a device with one valid certificate", callers.well["device"]),
    Layer("stranger", Kind.CALLS, "a stranger at the devices' port", callers.well["stranger"]),
    Layer("ops", Kind.CALLS, "a caller of the operators' port", callers.well["ops"]),
    Layer("proxy", Kind.CALLS, "who reaches the port of a delegator behind load balancers", callers.well["proxy"]),
    Layer("reference", Kind.CALLS, "a stranger at the reference delegate", callers.well["reference"]),
)}
MODES: tuple[Mode, ...] = (*delegates.MODES, *shells.MODES, *delegates.WEBHOOKS, *relays.MODES, *names.MODES,
                           *callers.MODES)
