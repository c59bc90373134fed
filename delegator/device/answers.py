"""What the device is told: from a SOAP answer to values, or to the reason why not.

The invariant: a value that leaves here is complete and can be used by this device.
Must not live here: SOAP and XML as such (envelope), what to do next (flow).
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
import xml.etree.ElementTree as ET
from typing import NamedTuple

from delegator.device import reasons
from delegator.device.addresses import Address, parse_delegate_url
from delegator.device.envelope import HttpAnswer, alternates, child, content_of, strange, text, value
from delegator.device.messages import ASK, CONFIRM
from delegator.device.reasons import Failure

_HARMFUL = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Controls, marks that nobody sees or that turn what is read, halves of characters, ends of lines: an account's tools
may mean something by them."""


class Credential(NamedTuple):
    """The account the device is given. Its repr is blank, so no log line can hold the password."""

    user_name: str
    password: str
    not_after: str | None = None

    def __repr__(self) -> str:
        return "Credential(...)"


class Delegate(NamedTuple):
    """The owner's server and the only certificate authority by which it may prove itself."""

    url: str
    trust_anchor: str


class Answer(NamedTuple):
    """All that GetProvisioningCredential gives (block 216)."""

    credential: Credential
    delegate: Delegate | None
    claim_id: str
    handshake_certificate: str | None = None
    alternates: tuple[Address, ...] = ()


class Limits(NamedTuple):
    """What accounts this device can hold, in bytes of UTF-8. A real service processor takes 16 and 20."""

    user: int = 255
    password: int = 1024


def read_answer(http: HttpAnswer) -> Answer:
    """The answer to `messages.ask`."""
    response = content_of(http, ASK + "Response")
    return Answer(_credential(response), _delegate(response), _claim_id(response),
                  _handshake_certificate(response), alternates(response))


def read_confirmation(http: HttpAnswer) -> None:
    """The answer to `messages.confirm`: there is nothing in it, but it must be an answer."""
    content_of(http, CONFIRM + "Response")


def check_credential(credential: Credential, limits: Limits, basic: bool) -> None:
    """Whether this device can set the account, before anything is stored (`basic`: shown to a delegate later)."""
    if any(unicodedata.category(c) in _HARMFUL for c in credential.user_name + credential.password):
        raise Failure(reasons.UNUSABLE_CREDENTIAL, "holds control characters")
    too_long = (len(credential.user_name.encode()) > limits.user
                or len(credential.password.encode()) > limits.password)
    if too_long:
        raise Failure(reasons.UNUSABLE_CREDENTIAL,
                      f"longer than {limits.user} or {limits.password} bytes in UTF-8 (--max-user, --max-password)")
    if basic and ":" in credential.user_name:
        raise Failure(reasons.UNUSABLE_CREDENTIAL, "a colon in the user name cannot be sent (RFC 7617 section 2)")


def usable_claim_id(text: str) -> bool:
    """A claim's name goes to the hook, into a file and onto lines that a script reads."""
    return _CLAIM_ID.fullmatch(text) is not None


_CLAIM_ID = re.compile(r"[!-~]{1,128}")


def _claim_id(response: ET.Element) -> str:
    claim_id = (text(response, "ClaimId") or "").strip()
    if not claim_id:
        raise strange("no ClaimId")
    if not usable_claim_id(claim_id):
        raise strange("a ClaimId that is longer than 128 characters, or has others than those of ASCII in it")
    return claim_id


def _handshake_certificate(response: ET.Element) -> str | None:
    """One that cannot be read is as good as none: the device goes on with what it has."""
    with contextlib.suppress(Failure):
        return text(response, "HandshakeCertificate")
    return None


def _credential(response: ET.Element) -> Credential:
    element = child(response, "Credential")
    if element is None:
        raise Failure(reasons.NO_CREDENTIAL)
    user_name, password = text(element, "UserName"), text(element, "Password")
    if not user_name or not password:
        raise Failure(reasons.NO_CREDENTIAL)
    return Credential(user_name, password, _not_after(element))


def _not_after(credential: ET.Element) -> str | None:
    """For whoever applies the credential to read; what is no moment is left out."""
    with contextlib.suppress(Failure):
        said = (text(credential, "NotAfter") or "").strip()
        return said if _MOMENT.fullmatch(said) else None
    return None


_MOMENT = re.compile(r"[0-9T:.Z+-]{10,40}")


def _delegate(response: ET.Element) -> Delegate | None:
    element = child(response, "Delegate")
    if element is None or not (len(element) or value(element).strip()):
        return None
    url, anchor = text(element, "URL"), text(element, "TrustAnchor")
    if not url or not anchor:
        raise strange("a Delegate without URL or TrustAnchor")
    try:
        parse_delegate_url(url.strip())
    except ValueError as error:
        raise strange(str(error)) from None
    return Delegate(url.strip(), anchor)
