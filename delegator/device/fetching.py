"""Talking to the owner's server: the provisioning data, against the handed-over trust anchor alone.

The invariant: the credential is sent only after the server proved itself, to that server only (no redirection),
and the factory's key and certificate stay between device and maker. Must not live here: applying (hook).
"""

from __future__ import annotations

import base64
from http import HTTPStatus

from delegator.device import reasons, tls
from delegator.device.addresses import parse_delegate_url
from delegator.device.answers import Credential
from delegator.device.channel import Peer
from delegator.device.document import Document
from delegator.device.envelope import HttpAnswer, seconds
from delegator.device.exchange import Limit, Request, Take, exchange
from delegator.device.reasons import Failure, Reason, system_words

_DATA_SIZE = 16 * 1024 * 1024
"""Provisioning data may carry certificates and scripts; a small device's flash holds no more."""

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


def fetch(url: str, trust_anchor: str, credential: Credential, timeout: float, take: Take) -> None:
    """The provisioning document (block 218), piece by piece to `take`; it counts when this returns. Raises Failure,
    and whatever `take` raises."""
    document = Document()

    def look_and_take(piece: bytes) -> None:
        try:
            document.feed(piece)
        except ValueError as error:
            raise Failure(reasons.DELEGATE_FAILED, str(error)) from None
        try:
            take(piece)
        except OSError as error:
            raise Failure(reasons.OWN_TROUBLE, system_words(error)) from None

    place = parse_delegate_url(url)
    request = Request("GET", place.target, (("Authorization", basic(credential)), ("Accept", "text/xml")))
    try:
        answer = exchange(Peer(place.address, place.address.host, made_for_servers=False),
                          tls.delegate_context(trust_anchor), request, Limit(timeout, _DATA_SIZE), look_and_take)
    except Failure as failure:
        if failure.reason not in _AT_THE_DELEGATE:
            raise
        raise Failure(_AT_THE_DELEGATE[failure.reason], f"{url}: {_there(failure)}", failure.retry_after) from None
    _require_good(answer)
    try:
        document.close()
    except ValueError as error:
        raise Failure(reasons.DELEGATE_FAILED, str(error)) from None


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


def _require_good(answer: HttpAnswer) -> None:
    if answer.status == HTTPStatus.UNAUTHORIZED:
        raise Failure(reasons.UNUSABLE_CREDENTIAL, "the delegate answered 401", seconds(answer.retry_after))
    if answer.status != HTTPStatus.OK:
        raise Failure(reasons.DELEGATE_FAILED, f"HTTP status {answer.status}", seconds(answer.retry_after))
