"""Talking to the delegator: which certificate to show, which address to try, one SOAP call.

A device that came with a shared certificate shows it until it has one of its own on its disk; from then on it shows
that one, and the claim goes over to it.

The invariant: the same question goes to the next address only where the reason table says so, and if all fail
the failure that got furthest is the one that is reported. Must not live here: SOAP itself (messages, answers).
"""

from __future__ import annotations

import logging
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from delegator.device import enrolling, messages, reasons, tls
from delegator.device.addresses import MOST, Address
from delegator.device.certificate import common_names
from delegator.device.channel import Peer
from delegator.device.contents import contents
from delegator.device.envelope import HttpAnswer
from delegator.device.exchange import Limit, Line, Request, exchange
from delegator.device.reasons import Failure
from delegator.device.settings import Settings
from delegator.device.state import HANDSHAKE_CERTIFICATE, State

log = logging.getLogger("delegator.device")
Read = TypeVar("Read")

_ANSWER_SIZE = 256 * 1024
"""A SOAP answer holds a credential, a URL and some certificates: a few kilobytes."""


def certificate_request(settings: Settings, state: State) -> str | None:
    """The PKCS#10 request as xs:base64Binary, as long as this device shows a certificate that is not its own."""
    if settings.own is None or state.own or _names(settings.certificate) == [state.service_tag]:
        return None
    return enrolling.request(settings.own, state.service_tag)


def _names(certificate: str) -> list[str]:
    try:
        return common_names(contents(certificate).decode("ascii"))
    except (OSError, ValueError):
        return []  # tls says what is wrong with it


def context_for(settings: Settings, state: State) -> ssl.SSLContext:
    """With the certificate that this device shows now."""
    if settings.own is not None and state.own:
        own = settings.own
        return tls.delegator_context(str(own.folder / HANDSHAKE_CERTIFICATE), str(own.key), settings.ca)
    return tls.delegator_context(settings.certificate, settings.key, settings.ca)


HOPS = 3
"""How far a device follows "ask there": far enough for region, country and site, and no chain without end."""


def call(settings: Settings, state: State, operation: str, body: bytes, read: Callable[[HttpAnswer], Read],
         addresses: tuple[Address, ...], line: Line) -> tuple[Address, Read]:
    """One SOAP call to the first delegator that answers it, in the time that is left of the attempt. One that names
    others instead of itself is followed, to delegators that prove themselves by the same factory CA. Returns who
    answered, too. The connection of a question that was answered stays on `line`, and a confirmation goes out on it
    where it can. Raises the Failure that got furthest, with the longest pause that any of them asked for."""
    context = context_for(settings, state)
    request = Request("POST", "/", (("Content-Type", "text/xml; charset=utf-8"),
                                    ("SOAPAction", messages.action(operation))), body)
    ends = time.monotonic() + settings.budget
    failures: list[Failure] = []
    tried: set[Address] = set()
    learned = max(1, MOST - len(addresses))  # who is named by others may not take the place of who was configured
    to_try = deque((address, 0) for address in addresses)
    while to_try and len(tried) <= MOST:
        address, hops = to_try.popleft()
        seconds = min(settings.timeout, ends - time.monotonic())
        if address in tried or seconds <= 0:
            continue
        if hops:
            learned -= 1
            if learned < 0:
                continue
        tried.add(address)
        try:
            return address, _asked(settings, address, context, request, seconds, read, line, operation == messages.ASK)
        except Failure as failure:
            line.close()
            log.warning("%s: %s [%s]", address, failure, failure.reason.name)
            failures.append(failure)
            there = [(other, hops + 1) for other in failure.ask_at] if hops < HOPS else []
            to_try.extendleft(reversed(there))
            if not failure.reason.elsewhere and not there:
                break
    raise _furthest(failures)


def _asked(settings: Settings, address: Address, context: ssl.SSLContext, request: Request, seconds: float,
           read: Callable[[HttpAnswer], Read], line: Line, keep: bool) -> Read:
    """What one delegator says. Whatever it sends, an error that nobody thought of is its answer's, so that the next
    one is asked all the same. Raises Failure."""
    name = settings.server_name if address in settings.addresses and settings.server_name else address.host
    peer, ends = Peer(address, name, settings.proxy), time.monotonic() + seconds
    try:
        said = line.again(peer, request, Limit(seconds / 2, _ANSWER_SIZE))
        if said is not None and _answers(read, said):
            return read(said)
        limit = Limit(ends - time.monotonic(), _ANSWER_SIZE)
        return read(exchange(peer, context, request, limit, None, line if keep else None))
    except Failure:
        raise
    except Exception as error:
        raise Failure(reasons.ANSWER_NOT_UNDERSTOOD, f"{type(error).__name__}: {error}") from None


def _answers(read: Callable[[HttpAnswer], Read], said: HttpAnswer) -> bool:
    """Whether what came on a line is an answer to what was asked, be it a refusal, and not one that came too late for
    what was asked before: then it is asked anew."""
    try:
        read(said)
    except Failure as failure:
        if failure.reason is reasons.ANSWER_NOT_UNDERSTOOD:
            log.info("203 that is not the answer to this question: %s", failure)
            return False
    return True


def _furthest(failures: list[Failure]) -> Failure:
    if not failures:
        return Failure(reasons.NO_ROUTE, "there was no time left to ask")
    furthest = max(failures, key=lambda failure: failure.reason.number)
    furthest.retry_after = max((one.retry_after for one in failures if one.retry_after is not None), default=None)
    return furthest
