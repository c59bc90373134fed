"""Whether a delegate can be reached, as far as that is known without asking it, and where the delegator never connects.

The invariant: nothing is asked of a delegate but whether it is there, and nothing is changed: no credential, no claim,
no circuit breaker.
Must not live here: connecting (callbacks; the door opens what connects), the rule of addresses (outbound).
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from delegator.desk.delegates import check
from delegator.model import Callback, HostedCallback, LocalCallback, SoapCallback, SshCallback
from delegator.outbound import Outbound

_LOCAL = ("127.0.0.1", "::1")
"""What `localhost` is on any machine (RFC 6761 section 6.3)."""


def at_hand(callback: Callback) -> str | None:
    """In words, for what is on this machine; None where somebody must be connected to. Raises ValueError, Unfit where
    something here is not as it must be."""
    if isinstance(callback, LocalCallback):
        check(callback)
        return f"{callback.program} is there; it is run only for a device"
    return "its settings are kept here, so there is nobody to reach" if isinstance(callback, HostedCallback) else None


def refusal(callback: Callback, outbound: Outbound) -> str | None:
    """Why the delegator will never connect there, as its settings stand. Only of addresses and of this machine's own
    name: what another one resolves to is judged at each call."""
    where = _where(callback)
    if where is None:
        return None
    host, port = where
    refusals = [outbound.refusal(one, port) for one in _addresses(host)]
    return refusals[0] if refusals and all(refusals) else None


def _where(callback: Callback) -> tuple[str, int] | None:
    match callback:
        case SoapCallback() | SshCallback():
            return callback.address or callback.host, callback.port
        case HostedCallback(webhook_url=str(url)):
            parts = urlsplit(url)
            return parts.hostname or "", parts.port or 443
    return None


def _addresses(host: str) -> tuple[str, ...]:
    plain = host.strip("[]").rstrip(".").lower()
    if plain == "localhost" or plain.endswith(".localhost"):
        return _LOCAL
    try:
        return (str(ipaddress.ip_address(plain.partition("%")[0])),)
    except ValueError:
        return ()
