"""Talking to the delegator: which certificate to show, which address to try, one SOAP call.

An activation ends with the certificate it began with, because the claim is bound to it; a certificate that came
with an answer is for the next one.

The invariant: the same question goes to the next address only where the reason table says so, and if all fail
the failure that got furthest is the one that is reported. Must not live here: SOAP itself (messages, answers).
"""

from __future__ import annotations

import base64
import logging
import ssl
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from delegator.device import messages, tls
from delegator.device.addresses import Address
from delegator.device.envelope import HttpAnswer
from delegator.device.exchange import Limit, Request, exchange
from delegator.device.reasons import Failure, Misconfigured
from delegator.device.settings import Settings
from delegator.device.state import HANDSHAKE_CERTIFICATE, Folder, State

log = logging.getLogger("delegator.device")
Read = TypeVar("Read")

_ANSWER_SIZE = 256 * 1024
"""A SOAP answer holds a credential, a URL and some certificates: a few kilobytes."""


def certificate_request(settings: Settings, state: State) -> str | None:
    """The PKCS#10 request as xs:base64Binary, as long as this device has only the shared certificate."""
    if settings.own is None or state.own:
        return None
    try:
        lines = Path(settings.own.request).read_text(encoding="ascii").splitlines()
        request = "".join(line.strip() for line in lines if not line.startswith("-----"))
        base64.b64decode(request, validate=True)
    except (OSError, ValueError) as error:
        raise Misconfigured(f"the certificate request {settings.own.request} is not PEM: {error}") from None
    return request


def context_for(settings: Settings, folder: Folder, state: State) -> ssl.SSLContext:
    """With the certificate that this activation began with."""
    if settings.own is not None and state.own:
        return tls.delegator_context(str(folder.path / HANDSHAKE_CERTIFICATE), settings.own.key, settings.ca)
    return tls.delegator_context(settings.certificate, settings.key, settings.ca)


HOPS = 3
"""How far a device follows "ask there": far enough for region, country and site, and no chain without end."""


def call(settings: Settings, folder: Folder, state: State, operation: str, body: bytes,
         read: Callable[[HttpAnswer], Read], addresses: tuple[Address, ...]) -> tuple[Address, Read]:
    """One SOAP call to the first delegator that answers it. One that names others instead of itself is followed,
    to delegators that prove themselves by the same factory CA. Returns who answered, too. Raises the Failure that
    got furthest."""
    context = context_for(settings, folder, state)
    request = Request("POST", "/", (("Content-Type", "text/xml; charset=utf-8"),
                                    ("SOAPAction", messages.action(operation))), body)
    failures, tried = [], set()
    to_try = deque((address, 0) for address in addresses)
    while to_try:
        address, hops = to_try.popleft()
        if address in tried:
            continue
        tried.add(address)
        try:
            name = settings.server_name or address.host if hops == 0 else address.host
            answer = exchange(address, name, context, request, Limit(settings.timeout, _ANSWER_SIZE))
            return address, read(answer)
        except Failure as failure:
            log.warning("%s: %s [%s]", address, failure, failure.reason.name)
            failures.append(failure)
            there = [(other, hops + 1) for other in failure.ask_at] if hops < HOPS else []
            to_try.extendleft(reversed(there))
            if not failure.reason.elsewhere and not there:
                break
    raise max(failures, key=lambda failure: failure.reason.number)
