"""The outside of an answer: HTTP status, plain XML, SOAP 1.1 envelope, fault; and reading values without surprises.

The invariant: nothing here trusts a length, a name or an order; what does not fit is a Failure with its reason.
Must not live here: what the elements mean (answers), where the bytes came from (exchange).
"""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ET  # stdlib only; what makes it unsafe is refused before (document)
from typing import NamedTuple

from delegator.device import reasons
from delegator.device.addresses import Address, parse_alternate
from delegator.device.document import Scan
from delegator.device.messages import NAMESPACE, SOAP
from delegator.device.reasons import Failure, Reason

FAULTS: dict[str, Reason] = {
    "MalformedRequest": reasons.MALFORMED_REQUEST,
    "IdentityRejected": reasons.IDENTITY_REJECTED,
    "NotEntitled": reasons.NOT_ENTITLED,
    "TryLater": reasons.TRY_LATER,
    "Unavailable": reasons.UNAVAILABLE,
}
STATUSES: dict[int, Reason] = {429: reasons.TRY_LATER, 502: reasons.UNAVAILABLE, 503: reasons.UNAVAILABLE,
                               504: reasons.UNAVAILABLE}
"""HTTP statuses without a SOAP fault that still say something: a proxy's or a limiter's."""


ALTERNATES = 4
"""Other delegators that a device remembers: each may be anywhere in its owner's network."""


class HttpAnswer(NamedTuple):
    """One HTTP answer. `retry_after` is the header as it came."""

    status: int
    retry_after: str | None
    body: bytes


_MOST_PARTS = 8000
"""Elements and attributes of an answer: ours have some twenty, and each takes forty times its size in memory. Three
thousand alternates are too many to be used, and no cause to throw a credential away."""


def parse_xml(body: bytes, reason: Reason) -> ET.Element:
    """The root element; anything that is not plain, well-formed XML is the given reason. It is looked at before
    anything of it is kept: of a DOCTYPE nothing expands, and neither do names (document)."""
    try:
        scan = Scan(_MOST_PARTS)
        scan.feed(body)
        scan.close()
        return ET.fromstring(body)  # noqa: S314 - there is no DOCTYPE in it
    except (ET.ParseError, ValueError, LookupError, AssertionError) as error:
        raise Failure(reason, str(error)) from None


def content_of(http: HttpAnswer, name: str) -> ET.Element:
    """The one element in the SOAP body, or the failure that status and fault speak of."""
    try:
        content = _body(parse_xml(http.body, reasons.ANSWER_NOT_UNDERSTOOD))
    except Failure as failure:
        if http.status == 200:
            raise
        reason = STATUSES.get(http.status, failure.reason)
        raise Failure(reason, f"HTTP status {http.status}", seconds(http.retry_after)) from None
    if content.tag == f"{{{SOAP}}}Fault":
        raise _fault(content, http)
    if content.tag != f"{{{NAMESPACE}}}{name}" or http.status != 200:
        raise strange(f"HTTP status {http.status} with <{content.tag[:80]}>")
    return content


def _body(envelope: ET.Element) -> ET.Element:
    bodies = envelope.findall(f"{{{SOAP}}}Body") if envelope.tag == f"{{{SOAP}}}Envelope" else []
    if len(bodies) != 1 or len(bodies[0]) != 1:
        raise strange("not one SOAP 1.1 envelope with one thing in it")
    return bodies[0][0]


def _fault(fault: ET.Element, http: HttpAnswer) -> Failure:
    detail = fault.find(f"detail/{{{NAMESPACE}}}Fault")
    code = None if detail is None else text(detail, "Code")
    if detail is None or code is None or code.strip() not in FAULTS:
        return strange("a SOAP fault without a code that this client knows")
    said = (seconds(text(detail, "RetryAfter")), seconds(http.retry_after))
    return Failure(FAULTS[code.strip()], "", max((one for one in said if one is not None), default=None),
                   alternates(detail))


def alternates(parent: ET.Element) -> tuple[Address, ...]:
    """The other delegators an answer or a fault names, the first few of those that can be dialled. They are a help and
    no duty, so an odd one is left out and spoils nothing else."""
    found: list[Address] = []
    for element in parent.findall(f"{{{NAMESPACE}}}AlternateDelegator"):
        with contextlib.suppress(ValueError, Failure):
            found.append(parse_alternate(value(element)))
        if len(found) == ALTERNATES:
            break
    return tuple(found)


def seconds(text: str | None) -> int | None:
    """Retry-After as seconds. A date is not obeyed: this device's clock may not be set (RFC 9110 section 10.2.3)."""
    digits = (text or "").strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None


def child(parent: ET.Element, name: str) -> ET.Element | None:
    """The one child of that name in our namespace, or None; two of them are one too many."""
    found = parent.findall(f"{{{NAMESPACE}}}{name}")
    if len(found) > 1:
        raise strange(f"more than one {name}")
    return found[0] if found else None


def text(parent: ET.Element, name: str) -> str | None:
    """The text of the child, or None where there is no such child."""
    element = child(parent, name)
    return None if element is None else value(element)


def value(element: ET.Element) -> str:
    """The text of an element that holds nothing but text."""
    if len(element):
        raise strange("an element inside a value")
    return element.text or ""


def strange(detail: str) -> Failure:
    """The failure for an answer that nobody agreed on."""
    return Failure(reasons.ANSWER_NOT_UNDERSTOOD, detail)
