"""What the device says: the two SOAP 1.1 questions, from values to bytes.

The invariant: every value is escaped on its way into XML, so no value can become markup.
Must not live here: reading answers (answers), sending (exchange).
"""

from __future__ import annotations

from typing import NamedTuple
from xml.sax.saxutils import escape

NAMESPACE = "urn:delegator:provisioning:1"
SOAP = "http://schemas.xmlsoap.org/soap/envelope/"

ASK = "GetProvisioningCredential"
CONFIRM = "ConfirmProvisioning"
DEPLOYED = "Deployed"
FAILED = "Failed"

DETAIL_LIMIT = 200
"""Characters of a failure's detail that are told: a sentence, not a log file."""


class Identity(NamedTuple):
    """Who the device says it is, and where it believes to stand. The certificate proves it, not these words."""

    service_tag: str
    serial_number: str | None = None
    mac_addresses: tuple[str, ...] = ()
    model: str | None = None
    ip_address: str | None = None
    host_name: str | None = None
    domain: str | None = None


def action(operation: str) -> str:
    """The SOAPAction header's value; SOAP 1.1 section 6.1.1 wants the quotes."""
    return f'"{NAMESPACE}#{operation}"'


def ask(identity: Identity, transaction_id: str, certificate_request: str | None) -> bytes:
    """The question of block 212: who I am, and the transaction id that makes asking again safe."""
    device = _group(
        "Device", _text("ServiceTag", identity.service_tag), _text("SerialNumber", identity.serial_number),
        *(_text("MacAddress", mac) for mac in identity.mac_addresses), _text("Model", identity.model))
    location = _group(
        "Location", _text("IPAddress", identity.ip_address), _text("HostName", identity.host_name),
        _text("Domain", identity.domain))
    return _envelope(ASK, device, location, _text("TransactionId", transaction_id),
                     _text("CertificateRequest", certificate_request))


def confirm(claim_id: str, result: str, transaction_id: str, detail: str | None = None) -> bytes:
    """Tells the delegator how it ended, so that it and the delegate both know (claim 12 of the patent)."""
    return _envelope(CONFIRM, _text("ClaimId", claim_id), _text("Result", result),
                     _text("Detail", detail and detail[:DETAIL_LIMIT]), _text("TransactionId", transaction_id))


def _text(name: str, value: str | None) -> str:
    # A bare carriage return would arrive as a line feed (XML 1.0 section 2.11).
    return f"<{name}>{escape(value, {chr(13): '&#13;'})}</{name}>" if value else ""


def _group(name: str, *elements: str) -> str:
    content = "".join(elements)
    return f"<{name}>{content}</{name}>" if content else ""


def _envelope(operation: str, *elements: str) -> bytes:
    return (f'<?xml version="1.0" encoding="utf-8"?>\n<s:Envelope xmlns:s="{SOAP}"><s:Body>'
            f'<{operation} xmlns="{NAMESPACE}">{"".join(elements)}</{operation}>'
            "</s:Body></s:Envelope>").encode()
