"""SOAP 1.1 and 1.2 envelopes and faults, in both roles: bytes to `Envelope`, and back.

The invariant: an envelope that exists has one Body with one element in it (no second Body, no Header after it,
nothing beside), and any other bytes raise `SoapError`, which carries the fault and the version to answer with. The
version is told by the envelope's namespace alone; HTTP's media type and SOAPAction decide nothing.
Must not live here: what an operation means (wire.messages), which fault to choose (delegator.errors,
doors.devices.soap).
"""

from __future__ import annotations

import msgspec

from delegator.errors import DelegatorError, Kind
from delegator.model.word import Word
from delegator.wire import xml
from delegator.wire.xml import Element

__all__ = ["FAULT_NAMESPACE", "Element", "Envelope", "Fault", "SoapError", "Version", "fault_of", "http_status",
           "parse", "render", "render_fault"]

FAULT_NAMESPACE = "urn:delegator:provisioning:1"
"""Where our fault codes live: `Fault{Code, RetryAfter?, AlternateDelegator*}` in the detail."""


class Version(Word):
    """A SOAP version, by the namespace of its envelope."""

    V11 = "http://schemas.xmlsoap.org/soap/envelope/"
    V12 = "http://www.w3.org/2003/05/soap-envelope"

    @property
    def content_type(self) -> bytes:
        return _CONTENT_TYPES[self]


_CONTENT_TYPES = {Version.V11: b"text/xml; charset=utf-8", Version.V12: b"application/soap+xml; charset=utf-8"}
_VERSIONS = {version.value: version for version in Version}
_XML = '<?xml version="1.0" encoding="utf-8"?>\n'
_FRAMES = {version: (f'{_XML}<soap:Envelope xmlns:soap="{version.value}"><soap:Body>', "</soap:Body></soap:Envelope>")
           for version in Version}


class Fault(msgspec.Struct, frozen=True):
    """What a peer is told: a code (ours, or a foreign stack's), a sentence, seconds until it may ask again, and
    the delegators to ask instead."""

    code: str
    message: str
    retry_after: int | None = None
    alternates: tuple[str, ...] = ()


class Envelope(msgspec.Struct, frozen=True):
    """One message: its single body element, and what that says where it is a fault."""

    version: Version
    operation: Element
    fault: Fault | None = None


MUST_UNDERSTAND = "MustUnderstand"
VERSION_MISMATCH = "VersionMismatch"


class SoapError(DelegatorError):
    """Bytes that are no envelope we take. `fault` and `version` are the hint for the reply (SOAP 1.1 where unknown).

    `fault.code` is `MalformedRequest`, or one of the two codes SOAP itself reserves for a refused envelope.
    """

    def __init__(self, detail: str, version: Version = Version.V11, code: str | None = None) -> None:
        super().__init__(Kind.MALFORMED, detail)
        self.version = version
        self.fault = Fault(code or self.appearance.fault, self.appearance.message)


# --- reading ------------------------------------------------------------------------------------------------------

_TRUE = frozenset(("1", "true"))
_FOR_US = {  # SOAP 1.1 section 4.2.2, SOAP 1.2 part 1 section 2.2: which roles an ultimate receiver plays
    Version.V11: ("actor", frozenset(("", "http://schemas.xmlsoap.org/soap/actor/next"))),
    Version.V12: ("role", frozenset(("", "http://www.w3.org/2003/05/soap-envelope/role/next",
                                     "http://www.w3.org/2003/05/soap-envelope/role/ultimateReceiver"))),
}


def parse(body: bytes) -> Envelope:
    """Read a message. Raises SoapError, whatever the bytes are."""
    try:
        root, marked = xml.read(body)
    except xml.NotXml as error:
        raise SoapError(f"not an XML document we take: {error}") from None
    version = _VERSIONS.get(root.namespace)
    if root.name != "Envelope":
        raise SoapError(f"the root is {root.name[:64]!a}, not Envelope")
    if version is None:
        raise SoapError(f"no SOAP version has the namespace {root.namespace[:64]!a}", code=VERSION_MISMATCH)
    operation = _single_operation(root, version)
    if len(root.children) == 2:
        _refuse_mandatory(root.children[0], marked, version)
    return Envelope(version, operation, _read_fault(operation, version))


def _single_operation(envelope: Element, version: Version) -> Element:
    shape = [child.name if child.namespace == envelope.namespace else "?" for child in envelope.children]
    if shape not in (["Body"], ["Header", "Body"]):
        raise SoapError(f"an Envelope holds an optional Header and one Body, not {shape[:4]!a}", version)
    operations = envelope.children[-1].children
    if len(operations) != 1:
        raise SoapError(f"the Body holds {len(operations)} elements where one is wanted", version)
    return operations[0]


def _refuse_mandatory(header: Element, marked: xml.Marked, version: Version) -> None:
    """We know no header, so one that must be understood and is meant for us is refused (SOAP 1.1 section 4.2.3)."""
    soap = version.value + xml.SEPARATOR
    role, ours = _FOR_US[version]
    entries = {(entry.namespace, entry.name) for entry in header.children}
    for depth, name, attributes in marked:
        if (depth == 2 and name in entries and attributes.get(soap + "mustUnderstand", "").strip() in _TRUE
                and attributes.get(soap + role, "") in ours):
            raise SoapError(f"header {name[1][:64]!a} must be understood and is not", version, MUST_UNDERSTAND)


# --- faults -------------------------------------------------------------------------------------------------------

_RESERVED = frozenset((MUST_UNDERSTAND, VERSION_MISMATCH))
_OUR_DOING = frozenset(("TryLater", "Unavailable"))  # the message was fine: repeat it, later
_ROLES = {Version.V11: ("Client", "Server"), Version.V12: ("Sender", "Receiver")}


def _role(version: Version, code: str) -> str:
    """Whose fault it is in SOAP's words (SOAP 1.1 section 4.4.1, SOAP 1.2 part 1 section 5.4.6)."""
    return code if code in _RESERVED else _ROLES[version][code in _OUR_DOING]


def http_status(version: Version, fault: Fault) -> int:
    """SOAP 1.1 faults travel with 500 (a gSOAP client takes 403 for a broken server); SOAP 1.2 part 2 table 20."""
    return 400 if version is Version.V12 and _role(version, fault.code) == "Sender" else 500


def fault_of(error: DelegatorError) -> Fault:
    """What a peer is told about an error: its kind's appearance, or the fault SOAP itself asks for."""
    if isinstance(error, SoapError):
        return error.fault
    return Fault(error.appearance.fault, error.appearance.message, error.retry_after, error.alternates)


def _detail(fault: Fault) -> str:
    after = "" if fault.retry_after is None else f"<d:RetryAfter>{fault.retry_after}</d:RetryAfter>"
    there = "".join(f"<d:AlternateDelegator>{xml.escape(one)}</d:AlternateDelegator>" for one in fault.alternates)
    return f'<d:Fault xmlns:d="{FAULT_NAMESPACE}"><d:Code>{xml.escape(fault.code)}</d:Code>{after}{there}</d:Fault>'


def render_fault(version: Version, fault: Fault) -> bytes:
    """The bytes of a fault. Raises ValueError where the message holds what XML cannot carry."""
    role, message, detail = _role(version, fault.code), xml.escape(fault.message), _detail(fault)
    if version is Version.V11:
        inner = (f"<faultcode>soap:{role}</faultcode><faultstring>{message}</faultstring>"
                 f"<detail>{detail}</detail>")
    else:
        inner = (f"<soap:Code><soap:Value>soap:{role}</soap:Value><soap:Subcode>"
                 f'<soap:Value xmlns:d="{FAULT_NAMESPACE}">d:{xml.escape(fault.code)}</soap:Value>'
                 f'</soap:Subcode></soap:Code><soap:Reason><soap:Text xml:lang="en">{message}</soap:Text>'
                 f"</soap:Reason><soap:Detail>{detail}</soap:Detail>")
    return frame(version, f"<soap:Fault>{inner}</soap:Fault>")


_FAULT_PATHS = {  # code, message and detail in a fault; SOAP 1.1's are in no namespace
    Version.V11: (("faultcode",), ("faultstring",), ("detail", "Fault")),
    Version.V12: (("Code", "Value"), ("Reason", "Text"), ("Detail", "Fault")),
}


def _find(element: Element | None, *path: str) -> Element | None:
    for name in path:
        children = element.children if element else ()
        element = next((child for child in children if child.name == name), None)
    return element


def _text(element: Element | None, otherwise: str = "") -> str:
    return element.text.strip() if element else otherwise


def _read_fault(operation: Element, version: Version) -> Fault | None:
    """A fault of ours, or of a foreign stack with the code it gave (without its prefix)."""
    if operation.name != "Fault" or operation.namespace != version.value:
        return None
    code, message, detail = (_find(operation, *path) for path in _FAULT_PATHS[version])
    ours = detail if detail and detail.namespace == FAULT_NAMESPACE else None
    seconds = _text(_find(ours, "RetryAfter"))
    return Fault(_text(_find(ours, "Code"), _text(code).rpartition(":")[2]), _text(message),
                 int(seconds) if seconds.isascii() and seconds.isdigit() and len(seconds) < 6 else None,
                 tuple(one.text.strip() for one in (ours.children if ours else ())
                       if one.name == "AlternateDelegator"))


# --- writing ------------------------------------------------------------------------------------------------------


def frame(version: Version, operation: str) -> bytes:
    """The bytes of a message whose operation is text already."""
    before, after = _FRAMES[version]
    return (before + operation + after).encode("utf-8")


def render(version: Version, operation: Element) -> bytes:
    """The bytes of a message. Raises DelegatorError where a value holds a character XML 1.0 cannot carry."""
    try:
        return frame(version, xml.write(operation))
    except xml.NotXml as error:
        raise DelegatorError(Kind.UNAVAILABLE, f"{operation.name}: {error}") from None
