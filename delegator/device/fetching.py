"""Talking to the owner's server: the provisioning data, against the handed-over trust anchor alone.

The invariant: the credential is sent only after the server proved itself, to that server only (no redirection),
and the factory's key and certificate stay between device and maker. Must not live here: applying (hook).
"""

from __future__ import annotations

import base64

from delegator.device import reasons, tls
from delegator.device.addresses import parse_delegate_url
from delegator.device.answers import Credential
from delegator.device.envelope import HttpAnswer, parse_xml, seconds
from delegator.device.exchange import Limit, Request, exchange
from delegator.device.messages import NAMESPACE
from delegator.device.reasons import Failure, Reason

_DATA_SIZE = 16 * 1024 * 1024
"""Provisioning data may carry certificates and scripts, but it is read into a small device's memory."""

_AT_THE_DELEGATE: dict[Reason, Reason] = {
    reasons.NAME_NOT_FOUND: reasons.DELEGATE_UNREACHABLE,
    reasons.NO_ROUTE: reasons.DELEGATE_UNREACHABLE,
    reasons.NOTHING_LISTENING: reasons.DELEGATE_UNREACHABLE,
    reasons.TLS_REFUSED: reasons.DELEGATE_UNREACHABLE,
    reasons.TLS_FAILED: reasons.DELEGATE_UNREACHABLE,
    reasons.CLIENT_REFUSED: reasons.DELEGATE_UNREACHABLE,
    reasons.NO_ANSWER: reasons.DELEGATE_UNREACHABLE,
    reasons.SERVER_NOT_TRUSTED: reasons.DELEGATE_NOT_TRUSTED,
    reasons.SERVER_NAME_MISMATCH: reasons.DELEGATE_NOT_TRUSTED,
    reasons.ANSWER_NOT_UNDERSTOOD: reasons.DELEGATE_FAILED,
}
"""The same accident at the second server is another reason: another person must act."""


def fetch(url: str, trust_anchor: str, credential: Credential, timeout: float) -> bytes:
    """The provisioning document (block 218). Raises Failure."""
    place = parse_delegate_url(url)
    request = Request("GET", place.target, (("Authorization", basic(credential)), ("Accept", "text/xml")))
    try:
        answer = exchange(place.address, place.address.host, tls.delegate_context(trust_anchor), request,
                          Limit(timeout, _DATA_SIZE))
    except Failure as failure:
        reason = _AT_THE_DELEGATE.get(failure.reason, failure.reason)
        raise Failure(reason, f"{url}: {_there(failure)}") from None
    return _document(answer)


def _there(failure: Failure) -> str:
    """An accident in words that are written for the first server, of the second one."""
    words = str(failure)
    for at_the_delegator, at_the_delegate in _WORDS:
        words = words.replace(at_the_delegator, at_the_delegate)
    return words


_WORDS = (("the delegator's", "the owner's server's"), ("the delegator", "the owner's server"),
          ("the factory CA", "the trust anchor"))


def basic(credential: Credential) -> str:
    """HTTP Basic authentication with UTF-8 (RFC 7617 section 2.1)."""
    pair = f"{credential.user_name}:{credential.password}".encode()
    return "Basic " + base64.b64encode(pair).decode("ascii")


def _namespace(name: str) -> str:
    return f"the namespace {name}" if name else "no namespace"


def _document(answer: HttpAnswer) -> bytes:
    if answer.status == 401:
        raise Failure(reasons.UNUSABLE_CREDENTIAL, "the delegate answered 401", seconds(answer.retry_after))
    if answer.status != 200:
        raise Failure(reasons.DELEGATE_FAILED, f"HTTP status {answer.status}", seconds(answer.retry_after))
    root = parse_xml(answer.body, reasons.DELEGATE_FAILED)
    if root.tag != f"{{{NAMESPACE}}}Provisioning":
        space, _, name = root.tag.rpartition("}")
        raise Failure(reasons.DELEGATE_FAILED, f"the root element is {name[:80]} in {_namespace(space[1:81])}, and "
                      f"must be Provisioning in the namespace {NAMESPACE}")
    return answer.body
