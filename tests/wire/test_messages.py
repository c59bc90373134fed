"""A3: what a device says and is answered, as elements and back; one table per dialect, nothing is guessed (T-C4)."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    Secret,
)
from delegator.wire import messages, scalars
from delegator.wire.messages import Dialect, Operation, Service
from delegator.wire.reading import Part, Record
from delegator.wire.soap import Element, Version, parse, render
from pki.said import is_harmful

UNHURRIED = settings(deadline=None)  # the machine is shared
NS = "urn:delegator:provisioning:1"
CLAIM = "0123456789abcdef" * 2
SECRET = "t-0123456789abcdef"

# --- every value there is -----------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff",
                              include_characters="\t\n\r &<>\"']"))
urls = texts.map(str.strip)
host_names = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?(\.[a-z0-9]{1,9}){0,3}", fullmatch=True)
addresses = st.ip_addresses().map(str)
claim_ids = st.from_regex(r"[0-9a-f]{32}", fullmatch=True)
secrets = st.from_regex(r"[A-Za-z0-9._:-]{16,128}", fullmatch=True).map(Secret)
devices = st.builds(
    Device, st.from_regex(r"[A-Z0-9]{5,20}", fullmatch=True),
    st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}", fullmatch=True),
    st.lists(st.from_regex(r"([0-9a-fA-F]{2}-){5}[0-9a-fA-F]{2}", fullmatch=True), max_size=16).map(tuple),
    st.none() | st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9 ._/+()-]{0,62}[A-Za-z0-9)])?", fullmatch=True))
locations = st.builds(Location, st.none() | addresses, st.none() | host_names, st.none() | host_names)
zones = st.integers(-840, 840).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(datetime(1900, 1, 1), datetime(2900, 1, 1), timezones=zones)
words = texts.filter(lambda text: text and not is_harmful(text))
credentials = st.builds(Credential, words, words.map(Secret), st.none() | times)
results, details = st.sampled_from(Result), st.none() | texts
requests = st.one_of(
    st.builds(CredentialRequest, devices, secrets, locations, st.none() | st.binary(max_size=60)),
    st.builds(Confirmation, claim_ids, results, details, st.none() | secrets),
    st.builds(AddressChange, devices, addresses, st.none() | addresses),
    st.builds(DelegateRequest, claim_ids, devices, locations),
    st.builds(Deployment, claim_ids, results, details))
answers = st.builds(Answer, credentials, claim_ids, st.none() | st.builds(DelegateAddress, urls, texts),
                    st.none() | texts, st.lists(urls, max_size=16).map(tuple))
versions = st.sampled_from(Version)


@UNHURRIED
@given(requests, versions)
def test_a3_every_call_is_read_back_exactly(request_: messages.Request, version: Version) -> None:
    assert messages.read(parse(render(version, messages.write(request_))).operation) == request_


def asked(name: str) -> Element:
    return Element(NS, name)


@UNHURRIED
@given(st.tuples(st.just(asked("GetProvisioningCredential")), answers)
       | st.tuples(st.just(asked("RequestCredential")), credentials), versions)
def test_a3_every_answer_is_read_back_exactly(call: tuple[Element, Answer | Credential], version: Version) -> None:
    body = render(version, messages.write_answer(*call))
    assert messages.read_answer(call[0], parse(body).operation) == call[1]


@pytest.mark.parametrize("name", ["ConfirmProvisioning", "NotifyAddressChange", "NotifyDeployed"])
def test_the_other_answers_are_empty(name: str) -> None:
    answer = messages.write_answer(asked(name), None)
    assert answer == Element(NS, name + "Response")
    assert messages.read_answer(asked(name), answer) is None


def test_a_password_keeps_every_character_that_it_may_have() -> None:
    password = "  & < > \" ' ]]> \u00a0\U0001f511  "
    credential = Credential(" root ", Secret(password))
    body = render(Version.V11, messages.write_answer(asked("RequestCredential"), credential))
    assert b"]]>" not in body
    assert messages.read_answer(asked("RequestCredential"), parse(body).operation) == credential


def test_a_secret_does_not_show_in_a_refusal() -> None:
    for call in (credential_call(TransactionId="hush hush hush hush"), credential_call(TransactionId="hush")):
        assert "hush" not in str(refused(call).reasons)
    answer = Element(NS, "RequestCredentialResponse", "", (
        Element(NS, "Credential", "", (Element(NS, "UserName", "u"), Element(NS, "Password", "hush" * 1000))),))
    with pytest.raises(DelegatorError) as caught:
        messages.read_answer(asked("RequestCredential"), answer)
    assert "hush" not in caught.value.detail


# --- what is refused ----------------------------------------------------------------------------------------------


def leaf(name: str, text: str = "") -> Element:
    return Element(NS, name, text)


def credential_call(*more: Element, **parts: str) -> Element:
    """A good call, with other texts for some of its elements (an empty text: without it), and with more of them."""
    told = {"ServiceTag": "ABC1234", "TransactionId": SECRET} | parts

    def some(*names: str) -> tuple[Element, ...]:
        return tuple(leaf(name, told[name]) for name in names if told.get(name))

    return Element(NS, "GetProvisioningCredential", "", (
        Element(NS, "Device", "", some("ServiceTag", "SerialNumber", "MacAddress", "Model")),
        Element(NS, "Location", "", some("IPAddress", "HostName", "Domain")),
        *some("TransactionId", "CertificateRequest"), *more))


def refused(call: Element) -> DelegatorError:
    with pytest.raises(DelegatorError) as caught:
        messages.read(call)
    assert caught.value.kind is Kind.MALFORMED
    return caught.value


LONG = "x" * 50_000


@pytest.mark.parametrize(("call", "names"), [
    (credential_call(ServiceTag=""), "Device: ServiceTag is missing"),
    (credential_call(TransactionId=""), "TransactionId is missing"),
    (credential_call(ServiceTag="abc1234"), "Device: service tag 'abc1234'"),
    (credential_call(ServiceTag="ABC 1234"), "Device: service tag"),
    (credential_call(ServiceTag="АВС1234"), "Device: service tag"),  # Cyrillic
    (credential_call(ServiceTag="ABC1234\xa0"), "Device: service tag"),
    (credential_call(ServiceTag=LONG), "Device: service tag"),
    (credential_call(TransactionId="short"), "GetProvisioningCredential/TransactionId"),
    (credential_call(CertificateRequest="a b*c"), "GetProvisioningCredential/CertificateRequest"),
    (credential_call(CertificateRequest="ü"), "GetProvisioningCredential/CertificateRequest"),
    (credential_call(leaf("Password", "x")), "no element 'Password'"),
    (credential_call(leaf("ServiceTag", "ABC1234")), "no element 'ServiceTag'"),
    (credential_call(leaf("TransactionId", SECRET)), "TransactionId stands there twice"),
    (credential_call(Element(NS, "Device", "", (leaf("ServiceTag", "XYZ1234"),))), "Device stands there twice"),
    (credential_call(Element("urn:other", "CertificateRequest", "")), "of 'urn:other'"),
    (credential_call(Element("", "CertificateRequest", "")), "of ''"),
    (Element(NS, "GetProvisioningCredential", "", (leaf("Device", "ABC1234"),)), "Device: text where elements"),
    (Element(NS, "GetProvisioningCredential", "", (Element(NS, "Device", "", (
        Element(NS, "ServiceTag", "", (leaf("i", "ABC1234"),)),)),)), "Device/ServiceTag: elements where a text"),
    (Element(NS, "GetProvisioningCredential", "", (Element(NS, "Device", "", (
        leaf("ServiceTag", "ABC1234"), leaf("ServiceTag", "ABC1234"))),)), "ServiceTag stands there twice"),
    (Element(NS, "NotifyAddressChange", "", (Element(NS, "Device", "", (
        leaf("ServiceTag", "ABC1234"),)),)), "NewAddress is missing"),
    (Element(NS, "NotifyAddressChange", "", (Element(NS, "Device", "", (leaf("ServiceTag", "ABC1234"),)),
                                             leaf("NewAddress", "fe80::1%eth0"))), "has a scope"),
    (Element(NS, "ConfirmProvisioning", "", (leaf("ClaimId", "x"),)), "ConfirmProvisioning/ClaimId"),
    (Element(NS, "NotifyDeployed", "", (leaf("ClaimId", CLAIM[:-1]),)), "NotifyDeployed/ClaimId"),
    (Element(NS, "NotifyDeployed", "", (leaf("ClaimId", CLAIM), leaf("Result", "deployed"))), "none of Deployed"),
])
def test_TC4_a_refusal_names_the_element(call: Element, names: str) -> None:
    error = refused(call)
    assert names in error.detail
    assert len(error.detail) < 400


def test_a_namespace_nobody_owns_and_a_name_nobody_serves_are_told_apart() -> None:
    assert refused(Element("urn:vendor:discovery", "GetCred")).detail == (
        "no dialect has the namespace: 'urn:vendor:discovery'")
    assert refused(Element("", "GetProvisioningCredential")).detail == "no dialect has the namespace: ''"
    assert refused(asked("GetCred")).detail == f"no operation in {NS} has the name: 'GetCred'"
    assert refused(asked("RequestCredentialResponse")).detail.startswith("no operation in")


def test_each_side_serves_its_own_operations_only() -> None:
    call = messages.write(DelegateRequest(CLAIM, Device("ABC1234")))
    assert messages.read(call, Service.DELEGATE) == messages.read(call)
    with pytest.raises(DelegatorError, match="no operation"):
        messages.read(call, Service.DELEGATOR)


def test_elements_are_taken_in_any_order_and_written_in_the_schemas() -> None:
    call = credential_call(SerialNumber="S1", MacAddress="00-11-22-33-44-55", IPAddress="192.0.2.1")
    turned = call._replace(children=call.children[::-1])
    assert messages.read(turned) == messages.read(call)
    assert messages.write(messages.read(turned)).children[0].name == "Device"


def test_outer_blanks_mean_nothing_but_in_text_that_may_be_a_secret() -> None:
    call = credential_call(ServiceTag="\n  ABC1234\t", TransactionId=f" {SECRET}\n", IPAddress=" ::1 ",
                           CertificateRequest=" AQ I\n=\n")
    value = messages.read(call)
    assert value == CredentialRequest(Device("ABC1234"), Secret(SECRET), Location("::1"), b"\1\2")
    deployed = messages.read(Element(NS, "NotifyDeployed", "", (
        leaf("ClaimId", f" {CLAIM} "), leaf("Result", " Failed "), leaf("Detail", " disk "))))
    assert deployed == Deployment(CLAIM, Result.FAILED, " disk ")


def test_an_empty_location_is_no_location() -> None:
    assert messages.read(credential_call()) == CredentialRequest(Device("ABC1234"), Secret(SECRET))


# --- times --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "time"), [
    ("2026-11-21T10:00:00Z", datetime(2026, 11, 21, 10, tzinfo=UTC)),
    (" 2026-11-21T10:00:00+02:00\n", datetime(2026, 11, 21, 8, tzinfo=UTC)),
    ("2026-11-21T10:00:00.1234567Z", datetime(2026, 11, 21, 10, 0, 0, 123456, tzinfo=UTC)),
])
def test_times_are_utc(text: str, time: datetime) -> None:
    assert scalars.TIME.read(text) == time


@pytest.mark.parametrize("text", ["2026-11-21T10:00:00", "2026-11-21", "2026-13-21T10:00:00Z", "now", "",
                                  "٢٠٢٦-11-21T10:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        scalars.TIME.read(text)


def test_times_are_written_with_a_z() -> None:
    noon = datetime(2026, 11, 21, 12, tzinfo=timezone(timedelta(hours=2)))
    assert scalars.TIME.write(noon) == "2026-11-21T10:00:00Z"


# --- answers, and what cannot be written --------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [
    Element(NS, "ConfirmProvisioningResponse"), Element("urn:other", "RequestCredentialResponse"),
    Element(NS, "RequestCredential"), Element(NS, "RequestCredentialResponse"),
    Element(NS, "RequestCredentialResponse", "", (Element(NS, "Credential", "", (
        leaf("UserName", "u"), leaf("Password", ""))),)),
])
def test_TC10_a_delegates_answer_must_answer_the_question(answer: Element) -> None:
    with pytest.raises(DelegatorError):
        messages.read_answer(asked("RequestCredential"), answer)


@pytest.mark.parametrize("value", [
    Deployment(CLAIM, Result.FAILED, "x" * 1025),
    DelegateRequest(CLAIM, Device("ABC1234", mac_addresses=tuple(f"0011223344{i:02}" for i in range(17)))),
])
def test_what_the_schema_has_no_room_for_is_not_written(value: messages.Request) -> None:
    with pytest.raises(DelegatorError) as caught:
        messages.write(value)
    assert caught.value.kind is Kind.UNAVAILABLE


def test_a_time_without_zone_is_not_written() -> None:
    with pytest.raises(DelegatorError, match="without zone"):
        messages.write_answer(asked("RequestCredential"),
                              Credential("u", Secret("p"), datetime(2026, 1, 1)))


def test_an_answer_is_no_call() -> None:
    with pytest.raises(TypeError):
        messages.write(Credential("u", Secret("p")))  # type: ignore[arg-type]


# --- fuzz and dialects --------------------------------------------------------------------------------------------

RECORDS = [record for operation in messages.OWN.operations for record in (operation.request, operation.answer)]
NAMES = sorted({part.name for record in RECORDS for part in record.parts}
               | {"ServiceTag", "MacAddress", "IPAddress", "UserName", "Password", "URL", "Other"})
WORDS = ["ABC1234", CLAIM, SECRET, "", "::1", "Failed", "00:11:22:33:44:55", " ", "\0", "é", "AQ=="]
SOUP = st.lists(st.tuples(st.booleans(), st.sampled_from(NAMES), st.sampled_from(WORDS)), max_size=9)


@UNHURRIED
@given(st.sampled_from(RECORDS), SOUP)
def test_any_elements_are_a_value_or_malformed(record: Record, soup: list[tuple[bool, str, str]]) -> None:
    children: list[Element] = []
    for inner, name, text in soup:
        if inner and children:
            children[-1] = children[-1]._replace(text="", children=(*children[-1].children, leaf(name, text)))
        else:
            children.append(leaf(name, text))
    element = Element(NS, record.name, "", tuple(children))
    with contextlib.suppress(DelegatorError):
        if record.name.endswith("Response"):
            messages.read_answer(asked(record.name.removesuffix("Response")), element)
        else:
            messages.read(element)


def test_a_vendors_dialect_is_one_more_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server reads and answers it without knowing: same values in, same names of theirs out."""
    tag = Record("", Device, (Part("Svctag", "service_tag", scalars.token()),))
    vendor = Dialect("urn:vendor:discovery", (Operation(
        Service.DELEGATOR,
        Record("GetCred", CredentialRequest, (Part("Host", "device", tag),
                                              Part("Nonce", "transaction_id", scalars.secret(scalars.token())))),
        Record("Cred", Answer, (Part("Pw", "", scalars.STRING, of=lambda a: a.credential.password.reveal()),)),
    ),))
    monkeypatch.setitem(messages.DIALECTS, vendor.namespace, vendor)
    call = Element(vendor.namespace, "GetCred", "", (
        Element(vendor.namespace, "Host", "", (Element(vendor.namespace, "Svctag", "ABC1234"),)),
        Element(vendor.namespace, "Nonce", SECRET)))
    assert messages.read(call) == CredentialRequest(Device("ABC1234"), Secret(SECRET))
    assert messages.write(messages.read(call), vendor) == call
    answer = messages.write_answer(call, Answer(Credential("u", Secret("p")), CLAIM))
    assert answer == Element(vendor.namespace, "Cred", "", (Element(vendor.namespace, "Pw", "p"),))
    assert messages.action(call) == "urn:vendor:discovery#GetCred"
