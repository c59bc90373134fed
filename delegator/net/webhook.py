"""One signed HTTPS call to a customer's own receiver.

`Delegator-Signature: t=<unix seconds>,v1=<HMAC-SHA256 of "t.body" in hexadecimal>`: the time is signed too, so that
a receiver can refuse what somebody recorded and sends again.
The invariants: the address is judged by the outbound rule at every connect; no redirect is followed: any answer but
2xx is a failure.
Must not live here: what a call says, when to try again (notify).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from urllib.parse import urlsplit

from delegator.errors import DelegatorError, Kind
from delegator.model import Secret
from delegator.net.aside import aside
from delegator.net.client import Endpoint, call, close
from delegator.outbound import Outbound
from delegator.wire.tls import TlsContext, calling
from pki import pem
from pki.trust import TrustStore

BUDGET = 10.0
"""Seconds for one call, all included: a receiver that keeps the call answers at once and works afterwards."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where to call, the secret that signs, and whom to trust there (PEM; None for the system's authorities)."""

    url: str
    secret: Secret
    anchor: str | None = None


def signature(secret: Secret, body: bytes, at: datetime) -> str:
    """The value of Delegator-Signature."""
    stamp = int(at.timestamp())
    mac = hmac.new(secret.reveal().encode(), b"%d." % stamp + body, hashlib.sha256)
    return f"t={stamp},v1={mac.hexdigest()}"


async def post(webhook: Webhook, body: bytes, outbound: Outbound, now: Callable[[], datetime]) -> int:
    """Make the call; its status. Raises DelegatorError (UNREACHABLE, CONFIGURATION)."""
    parts = urlsplit(webhook.url)
    context = await aside(partial(_context, webhook.anchor, now), "reading the system's authorities"
                          if webhook.anchor is None else "reading a webhook's trust anchor")
    endpoint = Endpoint(parts.hostname or "", parts.port or 443, context, None, outbound)
    headers = {b"Content-Type": b"application/json",
               b"Delegator-Signature": signature(webhook.secret, body, now()).encode()}
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        response = await call(endpoint, target, headers, body, BUDGET)
    finally:
        close(endpoint)
    if not 200 <= response.status < 300:
        raise DelegatorError(Kind.UNREACHABLE, f"{endpoint}: HTTP {response.status}")
    return response.status


def _context(anchor: str | None, now: Callable[[], datetime]) -> TlsContext:
    """Without an anchor, trust is the system's: OpenSSL's own places, or SSL_CERT_FILE."""
    if anchor is None:
        return calling(None, TrustStore(()), now, system=True)
    try:
        return calling(None, TrustStore(pem.read(anchor.encode(), pem.CERTIFICATE, twice=True)), now)
    except pem.PemFault as error:
        raise DelegatorError(Kind.CONFIGURATION, f"the webhook's trust anchor: {error}",
                             hint="give it anew with --webhook-anchor FILE") from None
