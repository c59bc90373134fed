"""Where the delegator never connects, as far as that is known without asking anybody.

The invariant: nothing is asked of a delegate, and nothing is changed: no credential, no claim, no circuit breaker.
Must not live here: connecting (callbacks; the door opens what connects), the rule of addresses (outbound).
"""

from __future__ import annotations

import ipaddress

from delegator.model import Callback
from delegator.outbound import Outbound

_LOCAL = ("127.0.0.1", "::1")
"""What `localhost` is on any machine (RFC 6761 section 6.3)."""


def refusal(callback: Callback, outbound: Outbound) -> str | None:
    """Why the delegator will never connect there, as its settings stand. Only of addresses and of this machine's own
    name: what another one resolves to is judged at each call."""
    where = callback.contact
    if where is None:
        return None
    host, port = where
    refusals = [outbound.refusal(one, port) for one in _addresses(host)]
    return refusals[0] if refusals and all(refusals) else None


def _addresses(host: str) -> tuple[str, ...]:
    plain = host.strip("[]").rstrip(".").lower()
    if plain == "localhost" or plain.endswith(".localhost"):
        return _LOCAL
    try:
        return (str(ipaddress.ip_address(plain.partition("%")[0])),)
    except ValueError:
        return ()
