"""Which element is which model value: one table per dialect, read in both directions; the WSDL is made from it too.

The invariant: this file alone knows element names. A dialect owns a namespace, its operations and nothing else, so a
captured vendor dialect is one more table here and no change anywhere; a namespace no dialect owns is refused.
Strict in what is written (the XSD's order). What is read may differ in two things: the order of elements, and hints.
A hint proves nothing and decides nothing alone (a serial number, a host name), and a device that is told
`MalformedRequest` stops for good; so a hint that is not of its form is left out, and said to whoever keeps the trail.
An optional element whose type needs content and that has none was not sent. All else is refused with a detail that
names the element: unknown, repeated and missing ones, values that the model refuses, whatever a claim is bound to.
Must not live here: SOAP's own elements (wire.soap), what to do with a value (provisioning.handshake).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from delegator import model
from delegator.errors import DelegatorError, Kind
from delegator.model import (
    AddressChange,
    Answer,
    Confirmation,
    Credential,
    CredentialRequest,
    DelegateAddress,
    DelegateRequest,
    Deployment,
    Device,
    Location,
    Result,
)
from delegator.model.word import Word
from delegator.wire import scalars, wording, xml
from delegator.wire.reading import Part, Record, malformed, read_record
from delegator.wire.scalars import Scalar
from delegator.wire.soap import FAULT_NAMESPACE, Element, Fault

Request = CredentialRequest | Confirmation | AddressChange | DelegateRequest | Deployment
Reply = Answer | Credential | None

MAX_TEXT = 1024
"""Characters of a Detail or a Password: what the model takes, and a line an operator still reads."""
MANY = 16
"""How often a repeated element may stand. A server has 2 to 8 network ports."""

_CLAIM_ID = scalars.exact(model.CLAIM_ID)
_DETAIL = scalars.text(0, MAX_TEXT)
_RESULT = scalars.one_of(Result)
_TRANSACTION_ID = scalars.secret(scalars.exact(model.TRANSACTION_ID))

# --- records ------------------------------------------------------------------------------------------------------


def _optional(name: str, attribute: str, kind: Scalar | Record, absent: object = None) -> Part:
    return Part(name, attribute, kind, least=0, absent=absent)


def _many(name: str, attribute: str, kind: Scalar | Record) -> Part:
    return Part(name, attribute, kind, least=0, most=MANY, absent=())


def _hint(name: str, attribute: str, kind: Scalar, judge: Callable[[Any], object], many: bool = False) -> Part:
    made = _many(name, attribute, kind) if many else _optional(name, attribute, kind)
    return replace(made, judge=judge)


def _words(name: str, attribute: str) -> Part:
    return replace(_optional(name, attribute, _DETAIL), cut=MAX_TEXT)


def _is_serial(text: str) -> None:
    model.must_match(model.SERIAL_NUMBER, text, "serial number")


def _is_model(text: str) -> None:
    model.must_match(model.MODEL, text, "model")


def _is_host(text: str) -> None:
    model.must_match(model.HOST_NAME, text.removesuffix("."), "host name")


_DEVICE = Record("Device", Device, (
    Part("ServiceTag", "service_tag", scalars.token(model.SERVICE_TAG)),
    _hint("SerialNumber", "serial_number", scalars.token(model.SERIAL_NUMBER), _is_serial),
    _hint("MacAddress", "mac_addresses", scalars.MAC, model.normal_mac, many=True),
    _hint("Model", "model", scalars.token(model.MODEL), _is_model),
))
_LOCATION = Record("Location", Location, (
    _hint("IPAddress", "ip_address", scalars.ADDRESS, model.normal_hint),
    _hint("HostName", "host_name", scalars.HOST, _is_host),
    _hint("Domain", "domain", scalars.HOST, _is_host),
))
_CREDENTIAL = Record("Credential", Credential, (
    Part("UserName", "user_name", scalars.text(1, 255)),
    Part("Password", "password", scalars.secret(scalars.text(1, MAX_TEXT))),
    _optional("NotAfter", "not_after", scalars.TIME),
))
_DELEGATE = Record("Delegate", DelegateAddress, (
    Part("URL", "url", scalars.URL),
    Part("TrustAnchor", "trust_anchor", scalars.STRING),
))
_FAULT_CODE = Scalar("string", str, facets=tuple(("enumeration", code) for code in wording.CODES))
FAULT = Record("Fault", Fault, (
    Part("Code", "code", _FAULT_CODE),
    _optional("RetryAfter", "retry_after", scalars.SECONDS),
    _many("AlternateDelegator", "alternates", scalars.URL),
))
"""What stands in a fault's detail, for the WSDL. wire.soap reads and writes it."""

# --- operations ---------------------------------------------------------------------------------------------------


class Service(Word):
    """Who serves an operation: the delegator to devices, or a delegate to the delegator."""

    DELEGATOR = "Delegator"
    DELEGATE = "Delegate"


class Operation(msgspec.Struct, frozen=True):
    """One call: the element that asks, named as the operation, and the element that answers."""

    service: Service
    request: Record
    answer: Record

    @property
    def name(self) -> str:
        return self.request.name


class Dialect(msgspec.Struct, frozen=True):
    """A namespace and its operations."""

    namespace: str
    operations: tuple[Operation, ...]

    def serving(self, service: Service) -> tuple[Operation, ...]:
        return tuple(operation for operation in self.operations if operation.service is service)

    def action(self, operation: Operation) -> str:
        """The SOAPAction we publish and send; what others send is not looked at."""
        return f"{self.namespace}#{operation.name}"


def _nothing() -> None:
    """An empty answer means: heard."""


def _just(credential: Credential) -> Credential:
    return credential


OWN = Dialect(FAULT_NAMESPACE, (
    Operation(Service.DELEGATOR, Record("GetProvisioningCredential", CredentialRequest, (
        Part("Device", "device", _DEVICE),
        _optional("Location", "location", _LOCATION, Location()),
        Part("TransactionId", "transaction_id", _TRANSACTION_ID),
        _optional("CertificateRequest", "certificate_request", scalars.BASE64),
    )), Record("GetProvisioningCredentialResponse", Answer, (
        Part("Credential", "credential", _CREDENTIAL),
        _optional("Delegate", "delegate", _DELEGATE),
        Part("ClaimId", "claim_id", _CLAIM_ID),
        _optional("HandshakeCertificate", "handshake_certificate", scalars.STRING),
        _many("AlternateDelegator", "alternate_delegators", scalars.URL),
    ))),
    Operation(Service.DELEGATOR, Record("ConfirmProvisioning", Confirmation, (
        Part("ClaimId", "claim_id", _CLAIM_ID),
        Part("Result", "result", _RESULT),
        _words("Detail", "detail"),
        _optional("TransactionId", "transaction_id", _TRANSACTION_ID),
    )), Record("ConfirmProvisioningResponse", _nothing)),
    Operation(Service.DELEGATOR, Record("NotifyAddressChange", AddressChange, (
        Part("Device", "device", _DEVICE),
        _hint("OldAddress", "old_address", scalars.ADDRESS, model.normal_hint),
        Part("NewAddress", "new_address", scalars.ADDRESS),
    )), Record("NotifyAddressChangeResponse", _nothing)),
    Operation(Service.DELEGATE, Record("RequestCredential", DelegateRequest, (
        Part("ClaimId", "claim_id", _CLAIM_ID),
        Part("Device", "device", _DEVICE),
        _optional("Location", "location", _LOCATION, Location()),
    )), Record("RequestCredentialResponse", _just, (
        Part("Credential", "credential", _CREDENTIAL, of=_just),
    ))),
    Operation(Service.DELEGATE, Record("NotifyDeployed", Deployment, (
        Part("ClaimId", "claim_id", _CLAIM_ID),
        Part("Result", "result", _RESULT),
        _words("Detail", "detail"),
    )), Record("NotifyDeployedResponse", _nothing)),
))

DIALECTS: dict[str, Dialect] = {OWN.namespace: OWN}
"""Every dialect spoken, by its namespace."""

# --- reading and writing ------------------------------------------------------------------------------------------


def operation_of(asked: Element, service: Service | None = None) -> tuple[Dialect, Operation]:
    """Whose call this is. Raises DelegatorError(MALFORMED) for a foreign namespace or a name not served."""
    dialect = DIALECTS.get(asked.namespace)
    if dialect is None:
        raise malformed("no dialect has the namespace", repr(asked.namespace[:128]))
    for operation in dialect.operations:
        if operation.name == asked.name and service in (None, operation.service):
            return dialect, operation
    raise malformed(f"no operation in {dialect.namespace} has the name", repr(asked.name[:64]))


def read(asked: Element, service: Service | None = None, left_out: list[str] | None = None) -> Request:
    """The value of a call, of one service only where that is told. `left_out` is told each hint that was left out, in
    words that are harmless wherever they are shown. Raises DelegatorError(MALFORMED)."""
    value: Request = read_record(operation_of(asked, service)[1].request, asked, [] if left_out is None else left_out)
    return value


def read_answer(asked: Element, answer: Element) -> Reply:
    """The value of the answer to `asked`; None where an empty answer is the answer. Raises DelegatorError."""
    dialect, operation = operation_of(asked)
    if (answer.namespace, answer.name) != (dialect.namespace, operation.answer.name):
        raise malformed(operation.name, f"answered by {answer.name[:64]!a} in {answer.namespace[:64]!a}")
    reply: Reply = read_record(operation.answer, answer, [])
    return reply


def write(request: Request, dialect: Dialect = OWN) -> Element:
    """The call that says this value. Raises DelegatorError(UNAVAILABLE) where the schema has no room."""
    for operation in dialect.operations:
        if operation.request.make is type(request):
            return _write_record(operation.request, request, dialect.namespace)
    raise TypeError(f"{type(request).__name__} is no call in {dialect.namespace}")


def write_answer(asked: Element, reply: Reply) -> Element:
    """The answer to `asked`, in its dialect. Raises DelegatorError(UNAVAILABLE) where the schema has no room."""
    dialect, operation = operation_of(asked)
    return _write_record(operation.answer, reply, dialect.namespace)


def render_answer(asked: Element, reply: Reply) -> str:
    """The answer to `asked` as text, without an element for each value on the way (37 to 24 µs, measured). Raises
    DelegatorError(UNAVAILABLE) where schema or XML have no room for a value."""
    dialect, operation = operation_of(asked)
    record = operation.answer
    return f'<{record.name} xmlns="{dialect.namespace}">{_render_parts(record, reply)}</{record.name}>'


def _render_parts(record: Record, value: Any) -> str:
    return "".join([f"<{part.name}>{_render_part(record, part, one)}</{part.name}>"
                    for part, one in _said(record, value)])


def _said(record: Record, value: Any) -> list[tuple[Part, Any]]:
    """The parts that a value has something to say in, and what: one that is there many times comes as often. Raises
    DelegatorError (UNAVAILABLE)."""
    said: list[tuple[Part, Any]] = []
    for part in record.parts:
        inner = getattr(value, part.field) if part.of is None else part.of(value)
        if inner == part.absent and not part.least:
            continue
        if part.most == 1:
            said.append((part, inner))
        elif len(inner) > part.most:
            raise DelegatorError(Kind.UNAVAILABLE, f"{record.name}: more than {part.most} times {part.name}")
        else:
            said += [(part, one) for one in inner]
    return said


def _render_part(record: Record, part: Part, value: Any) -> str:
    if isinstance(part.type, Record):
        return _render_parts(part.type, value)
    try:
        return xml.escape(part.type.write(value))
    except ValueError as error:
        raise DelegatorError(Kind.UNAVAILABLE, f"{record.name}/{part.name}: {error}") from None


def action(asked: Element) -> str:
    """The SOAPAction to send with a call."""
    dialect, operation = operation_of(asked)
    return dialect.action(operation)


def _write_record(record: Record, value: Any, namespace: str, name: str = "") -> Element:
    children = tuple(_write_part(record, part, one, namespace) for part, one in _said(record, value))
    return Element(namespace, name or record.name, "", children)


def _write_part(record: Record, part: Part, value: Any, namespace: str) -> Element:
    if isinstance(part.type, Record):
        return _write_record(part.type, value, namespace, part.name)
    try:
        return Element(namespace, part.name, part.type.write(value))
    except ValueError as error:
        raise DelegatorError(Kind.UNAVAILABLE, f"{record.name}/{part.name}: {error}") from None
