"""What the device was told at its command line, as one value. Checked in options; nothing here decides."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from delegator.device.addresses import Address
from delegator.device.answers import Limits
from delegator.device.messages import Identity
from delegator.device.retry import INTERVAL, WINDOW


class Own(NamedTuple):
    """How a shared certificate becomes an own one: the key, the folder that keeps the certificate, and the PKCS#10
    request to send or else the command that makes one."""

    key: Path
    folder: Path
    request: str = ""
    command: tuple[str, ...] = ()


class Settings(NamedTuple):
    """All of `activate`."""

    addresses: tuple[Address, ...]
    certificate: str
    key: str
    ca: str
    identity: Identity
    state: Path
    server_name: str | None = None
    hook: tuple[str, ...] = ()
    hook_timeout: float = 300.0
    timeout: float = 30.0
    interval: float = INTERVAL
    window: float = WINDOW
    once: bool = False
    again: bool = False
    limits: Limits = Limits()
    own: Own | None = None
    proxy: Address | None = None
    budget: float = math.inf
    """Seconds for one attempt, all of its servers together; what is left of it is passed on."""
