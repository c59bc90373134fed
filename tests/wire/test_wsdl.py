"""The WSDL says what the reader takes: checked by zeep, a client we did not write, and by libxml2 against the XSD."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import zeep
import zeep.exceptions
import zeep.transports
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from delegator.errors import APPEARANCES
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
    Secret,
)
from delegator.wire import messages, wording, wsdl
from delegator.wire.soap import (
    MUST_UNDERSTAND,
    VERSION_MISMATCH,
    Fault,
    Version,
    http_status,
    parse,
    render,
    render_fault,
)
from pki.said import is_harmful

UNHURRIED = settings(deadline=None)  # the machine is shared
CLAIM = "0123456789abcdef" * 2
SECRET = "t-0123456789abcdef"
PASSWORD = "  & < > \" ' ]]> \u00a0\U0001f511 "
ADDRESS = "https://delegator.example:4433/?a=1&b=\"<'>"

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")

Reply = Answer | Credential | None | Fault


class Wire(zeep.transports.Transport):
    """Instead of a network: our parser reads what zeep sends, and our writer answers."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: messages.Request | None = None
        self.version: Version | None = None
        self.sent: dict[str, str] = {}
        self.reply: Reply = None

    def post(self, address: str, message: bytes, headers: dict[str, str]) -> requests.Response:
        assert address == ADDRESS
        self.sent = headers
        envelope = parse(message)
        self.version, self.asked = envelope.version, messages.read(envelope.operation)
        response = requests.Response()
        response.headers["Content-Type"] = envelope.version.content_type.decode()
        if isinstance(self.reply, Fault):
            response.status_code = http_status(envelope.version, self.reply)
            response._content = render_fault(envelope.version, self.reply)
        else:
            response.status_code = 200
            response._content = render(envelope.version, messages.write_answer(envelope.operation, self.reply))
        return response


@pytest.fixture(params=[Version.V11, Version.V12], ids=["SOAP 1.1", "SOAP 1.2"])
def version(request: pytest.FixtureRequest) -> Version:
    assert isinstance(request.param, Version)
    return request.param


@pytest.fixture
def wire() -> Wire:
    return Wire()


def client(path: Path, document: bytes, service: str, version: Version, wire: Wire) -> Any:
    path.write_bytes(document)
    port = f"{service}Soap{version.name[1:]}"
    return zeep.Client(str(path), service_name=service, port_name=port, transport=wire).service


@pytest.fixture
def delegator(tmp_path: Path, version: Version, wire: Wire) -> Any:
    return client(tmp_path / "delegator.wsdl", wsdl.wsdl(ADDRESS), "Delegator", version, wire)


@pytest.fixture
def delegate(tmp_path: Path, version: Version, wire: Wire) -> Any:
    return client(tmp_path / "delegate.wsdl", wsdl.delegate_wsdl(ADDRESS), "Delegate", version, wire)


DEVICE = {"ServiceTag": "ABC1234", "MacAddress": ["00:11:22:33:44:55", "00-11-22-33-44-56"]}


def test_a3_zeep_asks_and_reads_all_of_the_answer(delegator: Any, wire: Wire, version: Version) -> None:
    wire.reply = Answer(Credential("root", Secret(PASSWORD), datetime(2026, 11, 21, 10, tzinfo=UTC)), CLAIM,
                        DelegateAddress("https://delegate.example/?a&b", "-----BEGIN\n"), "PEM",
                        ("https://a.example", "https://b.example"))
    answer = delegator.GetProvisioningCredential(
        Device={**DEVICE, "SerialNumber": "S1", "Model": "R (2)"},
        Location={"IPAddress": "::1", "Domain": "a.example"}, TransactionId=SECRET, CertificateRequest=b"\1\2")
    assert wire.version is version
    assert wire.asked == CredentialRequest(Device("ABC1234", "S1", ("001122334455", "001122334456"), "R (2)"),
                                           Secret(SECRET), Location("::1", None, "a.example"), b"\1\2")
    assert (answer.Credential.UserName, answer.Credential.Password) == ("root", PASSWORD)
    assert answer.Credential.NotAfter == wire.reply.credential.not_after
    assert (answer.Delegate.URL, answer.ClaimId) == ("https://delegate.example/?a&b", CLAIM)
    assert answer.AlternateDelegator == ["https://a.example", "https://b.example"]


def test_a3_zeep_leaves_out_what_is_optional(delegator: Any, wire: Wire) -> None:
    wire.reply = Answer(Credential("root", Secret("x")), CLAIM)
    answer = delegator.GetProvisioningCredential(Device={"ServiceTag": "ABC1234"}, TransactionId=SECRET)
    assert wire.asked == CredentialRequest(Device("ABC1234"), Secret(SECRET))
    assert (answer.Delegate, answer.HandshakeCertificate, answer.AlternateDelegator) == (None, None, [])


def test_a13_zeep_confirms_and_notifies(delegator: Any, wire: Wire) -> None:
    assert not delegator.ConfirmProvisioning(ClaimId=CLAIM, Result="Failed", Detail=" disk ", TransactionId=SECRET)
    assert wire.asked == Confirmation(CLAIM, Result.FAILED, " disk ", Secret(SECRET))
    delegator.NotifyAddressChange(Device=DEVICE, NewAddress="192.0.2.1")
    assert isinstance(wire.asked, AddressChange)


def test_a8_zeep_plays_the_delegator_at_a_delegate(delegate: Any, wire: Wire) -> None:
    wire.reply = Credential("root", Secret(PASSWORD))
    assert delegate.RequestCredential(ClaimId=CLAIM, Device=DEVICE).Password == PASSWORD
    assert isinstance(wire.asked, DelegateRequest)
    wire.reply = None
    delegate.NotifyDeployed(ClaimId=CLAIM, Result="Deployed")
    assert wire.asked == Deployment(CLAIM, Result.DEPLOYED)


def test_zeep_reads_our_fault(delegator: Any, wire: Wire, version: Version) -> None:
    wire.reply = Fault("TryLater", "Ask again later.", 30)
    with pytest.raises(zeep.exceptions.Fault) as caught:
        delegator.ConfirmProvisioning(ClaimId=CLAIM, Result="Deployed")
    assert caught.value.message == "Ask again later."
    assert caught.value.code == {Version.V11: "soap:Server", Version.V12: "soap:Receiver"}[version]
    assert caught.value.detail.findtext(".//{*}RetryAfter") == "30"
    if version is Version.V12:
        assert [name.localname for name in caught.value.subcodes] == ["TryLater"]


def test_the_soap_action_is_the_one_we_send_ourselves(delegator: Any, wire: Wire, version: Version) -> None:
    delegator.ConfirmProvisioning(ClaimId=CLAIM, Result="Deployed")
    action = messages.action(messages.write(Confirmation(CLAIM, Result.DEPLOYED)))
    assert action in str(wire.sent)
    assert action == "urn:delegator:provisioning:1#ConfirmProvisioning"


# --- schema -------------------------------------------------------------------------------------------------------

SCHEMA = etree.XMLSchema(etree.XML(wsdl.xsd()))
TEXTS = st.text("ab &<>\"'\t\n\r]\u20ac", min_size=1, max_size=20)
WORDS = TEXTS.filter(lambda text: not is_harmful(text))
CREDENTIALS = st.builds(Credential, WORDS, WORDS.map(Secret), st.none() | st.datetimes(timezones=st.just(UTC)))
DEVICES = st.builds(Device, st.just("ABC1234"), st.none() | st.just("S-1"), st.just(()) | st.just(("001122334455",)),
                    st.none() | st.just("R 1"))
PLACES = st.builds(Location, st.none() | st.just("::1"))
DELEGATES = st.builds(DelegateAddress, st.just("https://a"), TEXTS)
WRITTEN = st.one_of(
    st.builds(messages.write, st.one_of(
        st.builds(CredentialRequest, DEVICES, st.just(Secret(SECRET)), PLACES,
                  st.none() | st.binary()),
        st.builds(Confirmation, st.just(CLAIM), st.sampled_from(Result), st.none() | TEXTS, st.none()),
        st.builds(AddressChange, DEVICES, st.just("::1"), st.none() | st.just("::2")),
        st.builds(DelegateRequest, st.just(CLAIM), DEVICES),
        st.builds(Deployment, st.just(CLAIM), st.sampled_from(Result), st.none() | TEXTS))),
    st.builds(lambda credential: messages.write_answer(
        messages.write(DelegateRequest(CLAIM, Device("ABC1234"))), credential), CREDENTIALS),
    st.builds(lambda answer: messages.write_answer(
        messages.write(CredentialRequest(Device("ABC1234"), Secret(SECRET))), answer),
        st.builds(Answer, CREDENTIALS, st.just(CLAIM), st.none() | DELEGATES,
                  st.none() | TEXTS, st.just(()) | st.just(("https://b",)))),
)


@UNHURRIED
@given(WRITTEN)
def test_whatever_we_write_is_valid(operation: messages.Element) -> None:
    SCHEMA.assertValid(etree.XML(render(Version.V11, operation))[0][0])


@pytest.mark.parametrize("version_", list(Version))
def test_the_fault_detail_is_valid(version_: Version) -> None:
    document = etree.XML(render_fault(version_, Fault("TryLater", "later", 30)))
    SCHEMA.assertValid(next(document.iter(f"{{{messages.OWN.namespace}}}Fault")))


@pytest.mark.parametrize("spoil", [
    lambda text: text.replace("ABC1234", "abc1234"), lambda text: text.replace(SECRET, "short"),
    lambda text: text.replace("<Device>", "<Device><Password>x</Password>"),
    lambda text: text.replace(NAMESPACE, "urn:other"), lambda text: text.replace("GetProv", "Prov"),
], ids=["tag", "transaction id", "unknown element", "namespace", "operation"])
def test_what_the_schema_refuses_we_refuse(spoil: Callable[[str], str]) -> None:
    call = render(Version.V11, messages.write(CredentialRequest(Device("ABC1234"), Secret(SECRET)))).decode()
    spoiled = spoil(call).encode()
    assert spoiled != call.encode()
    assert not SCHEMA.validate(etree.XML(spoiled)[0][0])
    with pytest.raises(messages.DelegatorError):
        messages.read(parse(spoiled).operation)


NAMESPACE = messages.OWN.namespace


def test_an_address_is_escaped_and_what_xml_cannot_carry_refused() -> None:
    assert b"a=1&amp;b=&quot;&lt;'&gt;" in wsdl.wsdl(ADDRESS)
    with pytest.raises(ValueError):
        wsdl.wsdl("https://a\0")


def test_the_two_documents_share_no_operation() -> None:
    for document, foreign in ((wsdl.wsdl("x"), b"RequestCredential"), (wsdl.delegate_wsdl("x"), b"GetProvisioning")):
        assert foreign not in document

# --- what people and generators read ------------------------------------------------------------------------------

XS, WSDL = "{http://www.w3.org/2001/XMLSchema}", "{http://schemas.xmlsoap.org/wsdl/}"
DOCUMENTS = {"Delegator": etree.XML(wsdl.wsdl(ADDRESS)), "Delegate": etree.XML(wsdl.delegate_wsdl(ADDRESS))}
PUBLISHED = {  # what stubs in the field were generated from; it may grow, and nothing of it may go
    "Delegator": {
        "message": {"Fault", "GetProvisioningCredential", "GetProvisioningCredentialResponse", "ConfirmProvisioning",
                    "ConfirmProvisioningResponse", "NotifyAddressChange", "NotifyAddressChangeResponse"},
        "portType": {"Delegator"}, "binding": {"DelegatorSoap11", "DelegatorSoap12"}, "service": {"Delegator"}},
    "Delegate": {
        "message": {"Fault", "RequestCredential", "RequestCredentialResponse", "NotifyDeployed",
                    "NotifyDeployedResponse"},
        "portType": {"Delegate"}, "binding": {"DelegateSoap11", "DelegateSoap12"}, "service": {"Delegate"}},
}
ELEMENTS = {"Delegator": PUBLISHED["Delegator"]["message"], "Delegate": PUBLISHED["Delegate"]["message"]}


def names(document: Any, tag: str) -> set[str]:
    return {element.get("name") for element in document.findall(tag)}


def test_each_operation_element_type_and_service_is_explained() -> None:
    for document in (*DOCUMENTS.values(), etree.XML(wsdl.xsd())):
        for path in (f"{WSDL}portType", f"{WSDL}service", f"{WSDL}portType/{WSDL}operation"):
            for one in document.findall(path):
                assert len(one.findtext(f"{WSDL}documentation")) > 20, one.get("name")
        for one in document.iter(f"{XS}element", f"{XS}complexType", f"{XS}enumeration"):
            unnamed = one.tag == f"{XS}complexType" and one.get("name") is None
            typed_above = one.getparent().tag == f"{XS}schema" and (one.get("type") or "").startswith("d:")
            confirmation = one.tag == f"{XS}enumeration" and one.get("value") in ("Deployed", "Failed")
            if not (unnamed or typed_above or confirmation):
                assert one.findtext(f"{XS}annotation/{XS}documentation"), one.attrib


def test_there_are_words_for_what_is_spoken_and_for_nothing_else() -> None:
    """A new element without its words, or words for one that is gone, is seen here."""
    records, wanted = [messages.FAULT, *(one for o in messages.OWN.operations for one in (o.request, o.answer))], set()
    while records:
        record = records.pop()
        wanted |= {record.name} | {f"{record.name}/{part.name}" for part in record.parts}
        records += [part.type for part in record.parts if isinstance(part.type, messages.Record)]
    assert set(wording.ELEMENTS) == wanted
    assert set(wording.OPERATIONS) == {operation.name for operation in messages.OWN.operations}
    assert set(wording.SERVICES) == {service.value for service in messages.Service}


def test_the_code_is_an_enumeration_of_what_is_ever_sent() -> None:
    sent = {look.fault for look in APPEARANCES.values()} | {MUST_UNDERSTAND, VERSION_MISMATCH}
    for document in DOCUMENTS.values():
        codes = document.findall(f".//{XS}element[@name='Code']//{XS}enumeration")
        assert {one.get("value") for one in codes} == sent
    for code in sent:
        for version_ in Version:
            document = etree.XML(render_fault(version_, Fault(code, "words", 30)))
            SCHEMA.assertValid(next(document.iter(f"{{{NAMESPACE}}}Fault")))


@pytest.mark.parametrize("service", DOCUMENTS)
def test_nothing_that_was_published_is_gone(service: str) -> None:
    document = DOCUMENTS[service]
    for tag, were in PUBLISHED[service].items():
        assert were <= names(document, f"{WSDL}{tag}"), tag
    assert ELEMENTS[service] <= names(document.find(f"{WSDL}types/{XS}schema"), f"{XS}element")
    for one in document.findall(f"{WSDL}service"):
        assert names(one, f"{WSDL}port") == PUBLISHED[service]["binding"]
    assert document.find(f"{WSDL}service").get("name") == service, "the first is what a library takes that is not told"


@pytest.mark.parametrize("service", DOCUMENTS)
def test_no_class_has_to_be_named_like_the_fault_of_soap_or_like_its_port_type(service: str) -> None:
    """Generators name classes by types, by the messages of faults, by port types and by services."""
    document = DOCUMENTS[service]
    schema = document.find(f"{WSDL}types/{XS}schema")
    assert "Fault" not in names(schema, f"{XS}complexType")
    (fault,) = (one for one in schema.findall(f"{XS}element") if one.get("name") == "Fault")
    assert fault.get("type") == "d:ProvisioningFault"
    spoken = {one.get("message") for one in document.iter(f"{WSDL}fault")} - {None}
    assert spoken == {"d:ProvisioningRefused"}
    assert f"{service}Service" in names(document, f"{WSDL}service") - names(document, f"{WSDL}portType")


def test_zeep_reads_code_and_seconds_by_the_type(delegator: Any, wire: Wire, tmp_path: Path) -> None:
    wire.reply = Fault("TryLater", "Ask again later.", 30, ("b.example:4433",))
    with pytest.raises(zeep.exceptions.Fault) as caught:
        delegator.ConfirmProvisioning(ClaimId=CLAIM, Result="Deployed")
    types = delegator._client.wsdl.types
    read = types.get_type(f"{{{NAMESPACE}}}ProvisioningFault").parse_xmlelement(caught.value.detail[0], types)
    assert (read.Code, read.RetryAfter, read.AlternateDelegator) == ("TryLater", 30, ["b.example:4433"])
