"""WSDL 1.1 and XML Schema, made from the table in wire.messages: no element name of ours stands here.

The invariant: what the schema allows is what `messages.read` takes, but for the order of elements (here it is the
one we write) and for what XSD has no words for (host names, one separator in a MAC address). What was published
once stays: names are only added, because stubs that were generated from an older document are in the field.
Document/literal wrapped, one port for SOAP 1.1 and one for 1.2 (WS-I Basic Profile 1.1). Built with lxml, which is
fine for documents of our own; strangers' bytes are read by wire.xml.

Generators name classes by types, messages, port types and services. Our `Fault` collides with the Fault that SOAP
libraries have, and a service named as its port type with that. So the fault's type and message have names of their
own (_FAULT_TYPE, _FAULT_MESSAGE), and each service stands there a second time with `Service` behind its name. The
element in the detail goes on being `Fault`: a second one beside it would be refused by .NET, which takes exactly one.
"""

from __future__ import annotations

from collections.abc import Iterable

from lxml import etree

from delegator.wire import messages, wording
from delegator.wire.messages import Dialect, Operation, Service
from delegator.wire.reading import Part, Record
from delegator.wire.scalars import Scalar

_XSD = "http://www.w3.org/2001/XMLSchema"
_WSDL = "http://schemas.xmlsoap.org/wsdl/"
_BINDINGS = {"11": "http://schemas.xmlsoap.org/wsdl/soap/", "12": "http://schemas.xmlsoap.org/wsdl/soap12/"}
_HTTP = "http://schemas.xmlsoap.org/soap/http"
_FAULT_TYPE = "ProvisioningFault"
_FAULT_MESSAGE = "ProvisioningRefused"
_PREFIXES = {"xs": _XSD, "wsdl": _WSDL, "soap": _BINDINGS["11"], "soap12": _BINDINGS["12"]}


def wsdl(address: str) -> bytes:
    """What devices call, at this address. Raises ValueError where the address holds what XML cannot carry."""
    return _definitions(messages.OWN, Service.DELEGATOR, address)


def delegate_wsdl(address: str) -> bytes:
    """What the delegator calls at a customer's delegate, at this address. Raises ValueError likewise."""
    return _definitions(messages.OWN, Service.DELEGATE, address)


def xsd() -> bytes:
    """The schema of all operations and of the fault detail."""
    return _bytes(_schema(messages.OWN, messages.OWN.operations))


def _bytes(root: etree._Element) -> bytes:
    return etree.tostring(root, xml_declaration=True, encoding="utf-8", pretty_print=True)


def _add(parent: etree._Element, namespace: str, tag: str, **attributes: str) -> etree._Element:
    return etree.SubElement(parent, etree.QName(namespace, tag), attributes)


def _annotate(parent: etree._Element, words: str) -> None:
    """In the schema. The first child of whatever it explains."""
    _add(_add(parent, _XSD, "annotation"), _XSD, "documentation").text = words


def _document(parent: etree._Element, words: str) -> None:
    """In the WSDL around it. The first child likewise."""
    _add(parent, _WSDL, "documentation").text = words


# --- schema -------------------------------------------------------------------------------------------------------


def _schema(dialect: Dialect, operations: Iterable[Operation]) -> etree._Element:
    root = etree.Element(etree.QName(_XSD, "schema"), {
        "targetNamespace": dialect.namespace, "elementFormDefault": "qualified",
    }, nsmap={"xs": _XSD, "d": dialect.namespace})
    wrappers = [record for operation in operations for record in (operation.request, operation.answer)]
    for record in _inner_records(wrappers).values():
        _complex_type(root, record, name=record.name)
    for record in wrappers:
        element = _add(root, _XSD, "element", name=record.name)
        _annotate(element, wording.ELEMENTS[record.name])
        _sequence(_add(element, _XSD, "complexType"), record)
    _complex_type(root, messages.FAULT, name=_FAULT_TYPE)
    _add(root, _XSD, "element", name=messages.FAULT.name, type=f"d:{_FAULT_TYPE}")
    return root


def _complex_type(root: etree._Element, record: Record, name: str) -> None:
    named = _add(root, _XSD, "complexType", name=name)
    _annotate(named, wording.ELEMENTS[record.name])
    _sequence(named, record)


def _inner_records(records: Iterable[Record]) -> dict[str, Record]:
    """The records that stand inside others, once each, by the name of their type."""
    found: dict[str, Record] = {}
    for record in records:
        inner = [part.type for part in record.parts if isinstance(part.type, Record)]
        found |= _inner_records(inner) | {one.name: one for one in inner}
    return found


def _sequence(parent: etree._Element, record: Record) -> None:
    sequence = _add(parent, _XSD, "sequence")
    for part in record.parts:
        _element(sequence, part, wording.ELEMENTS[f"{record.name}/{part.name}"])


def _element(sequence: etree._Element, part: Part, words: str) -> None:
    element = _add(sequence, _XSD, "element", name=part.name)
    if isinstance(part.type, Record):
        element.set("type", f"d:{part.type.name}")
    elif not part.type.facets:
        element.set("type", f"xs:{part.type.xsd}")
    if part.least != 1:
        element.set("minOccurs", str(part.least))
    if part.most != 1:
        element.set("maxOccurs", str(part.most))
    _annotate(element, words)
    if not isinstance(part.type, Record) and part.type.facets:
        _restricted(element, part.type)


def _restricted(element: etree._Element, kind: Scalar) -> None:
    restriction = _add(_add(element, _XSD, "simpleType"), _XSD, "restriction", base=f"xs:{kind.xsd}")
    for facet, value in kind.facets:
        one = _add(restriction, _XSD, facet, value=value)
        if value in wording.CODES and facet == "enumeration":
            _annotate(one, wording.CODES[value])


# --- service ------------------------------------------------------------------------------------------------------


def _definitions(dialect: Dialect, service: Service, address: str) -> bytes:
    operations = dialect.serving(service)
    root = etree.Element(etree.QName(_WSDL, "definitions"), {
        "name": service.value, "targetNamespace": dialect.namespace,
    }, nsmap={**_PREFIXES, "d": dialect.namespace})
    _add(root, _WSDL, "types").append(_schema(dialect, operations))
    spoken = {record.name: record for o in operations for record in (o.request, o.answer)}
    for name, record in {messages.FAULT.name: messages.FAULT, _FAULT_MESSAGE: messages.FAULT, **spoken}.items():
        message = _add(root, _WSDL, "message", name=name)
        _add(message, _WSDL, "part", name="parameters", element=f"d:{record.name}")
    _port_type(root, service, operations)
    for version in _BINDINGS:
        _binding(root, dialect, service, version)
    _ports(root, service, address)
    return _bytes(root)


def _port_type(root: etree._Element, service: Service, operations: Iterable[Operation]) -> None:
    port_type = _add(root, _WSDL, "portType", name=service.value)
    _document(port_type, wording.SERVICES[service.value])
    for operation in operations:
        element = _add(port_type, _WSDL, "operation", name=operation.name)
        _document(element, wording.OPERATIONS[operation.name])
        _add(element, _WSDL, "input", message=f"d:{operation.request.name}")
        _add(element, _WSDL, "output", message=f"d:{operation.answer.name}")
        _add(element, _WSDL, "fault", name=messages.FAULT.name, message=f"d:{_FAULT_MESSAGE}")


def _binding(root: etree._Element, dialect: Dialect, service: Service, version: str) -> None:
    soap = _BINDINGS[version]
    binding = _add(root, _WSDL, "binding", name=f"{service.value}Soap{version}", type=f"d:{service.value}")
    _add(binding, soap, "binding", style="document", transport=_HTTP)
    for operation in dialect.serving(service):
        element = _add(binding, _WSDL, "operation", name=operation.name)
        _add(element, soap, "operation", soapAction=dialect.action(operation), style="document")
        for direction in ("input", "output"):
            _add(_add(element, _WSDL, direction), soap, "body", use="literal")
        fault = _add(element, _WSDL, "fault", name=messages.FAULT.name)
        _add(fault, soap, "fault", name=messages.FAULT.name, use="literal")


def _ports(root: etree._Element, service: Service, address: str) -> None:
    for called in (service.value, f"{service.value}Service"):
        element = _add(root, _WSDL, "service", name=called)
        _document(element, wording.SERVICES[service.value])
        for version, soap in _BINDINGS.items():
            name = f"{service.value}Soap{version}"
            port = _add(element, _WSDL, "port", name=name, binding=f"d:{name}")
            _add(port, soap, "address", location=address)
