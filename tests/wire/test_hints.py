"""What proves nothing is never the end of a device: a hint that is not of its form is left out and noted, once and
harmlessly; what proves something, and the structure of a message, stay as strict as they were."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delegator.errors import DelegatorError, Kind
from delegator.model import (
    Confirmation,
    Credential,
    CredentialRequest,
    Device,
    Location,
    Registration,
    Secret,
    is_placeholder_mac,
    is_placeholder_serial,
)
from delegator.routing import identified_by
from delegator.wire import canonical, messages, soap
from delegator.wire.messages import OWN, Service
from delegator.wire.reading import Part, Record
from delegator.wire.scalars import Scalar
from delegator.wire.soap import Element, Version, parse

NS = OWN.namespace
CLAIM, SECRET = "0123456789abcdef" * 2, "t-0123456789abcdef"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
GOOD = {"ServiceTag": "ABC1234", "SerialNumber": "SN-1", "MacAddress": "00:11:22:33:44:55", "Model": "R740",
        "IPAddress": "192.0.2.7", "HostName": "idrac", "Domain": "example.com", "TransactionId": SECRET,
        "CertificateRequest": "MIIB", "ClaimId": CLAIM, "Result": "Deployed", "Detail": "fine",
        "OldAddress": "192.0.2.6", "NewAddress": "192.0.2.7"}
HINTS = frozenset(("SerialNumber", "MacAddress", "Model", "IPAddress", "HostName", "Domain", "OldAddress"))
STRICT = frozenset(GOOD) - HINTS - {"Detail"}
SPOILT = {"SerialNumber": ["To Be Filled By O.E.M.", "-x", "S\u00e9rie 1"],
          "Model": ["System x3550 -[7914AC1]-", "<x>"],
          "MacAddress": ["00:11:22:33:44", "00:11-22:33:44:55", "n/a"], "HostName": ["-a", "MY_HOST", "a..b", "ab.."],
          "IPAddress": ["192.0.2.300", "192.0.2.1/24", "fe80::1%eth0", "unknown", "0x7f000001"],
          "OldAddress": ["DHCP", "192.0.2.1:80"], "Domain": ["a b", ".", "-"]}


def made(record: Record, texts: dict[str, list[str]], drop: str = "") -> Element:
    """A whole message of a record, each scalar with its good text, or others."""
    children = []
    for part in record.parts:
        if isinstance(part.type, Record):
            children.append(made(part.type, texts, drop))
        elif part.name != drop:
            children += [Element(NS, part.name, text) for text in texts.get(part.name, [GOOD[part.name]])]
    return Element(NS, record.name, "", tuple(children))


def scalars_of(record: Record) -> list[Part]:
    return [one for part in record.parts
            for one in (scalars_of(part.type) if isinstance(part.type, Record) else [part])]


CALLS = [operation.request for operation in OWN.operations]
PARTS = [(call, part) for call in CALLS for part in scalars_of(call)]


def named(value: object) -> str:
    return getattr(value, "name", "")


def test_every_part_of_every_call_is_known_here_as_a_hint_or_as_proof() -> None:
    assert {part.name for _, part in PARTS} == HINTS | STRICT | {"Detail"}
    assert {part.name for _, part in PARTS if part.judge is not None} == HINTS
    assert {part.name for _, part in PARTS if part.cut} == {"Detail"}
    assert not any(part.least for _, part in PARTS if part.judge is not None or part.cut)


@pytest.mark.parametrize(("call", "part"), [one for one in PARTS if one[1].name in HINTS], ids=named)
def test_a_hint_that_is_not_of_its_form_costs_itself_alone_and_is_noted(call: Record, part: Part) -> None:
    for text in (*SPOILT[part.name], "x" * 50_000, "\u202e\t\n\\'\""):
        left_out: list[str] = []
        assert messages.read(made(call, {part.name: [text]}), left_out=left_out) == messages.read(
            made(call, {}, drop=part.name))
        assert len(left_out) == 1
        assert left_out[0].startswith(f"{part.name} ")
        assert left_out[0].isascii()
        assert left_out[0].isprintable()
        assert len(left_out[0]) < 400


@pytest.mark.parametrize(("call", "part"), [one for one in PARTS if one[1].name in STRICT], ids=named)
def test_what_proves_or_decides_something_is_as_strict_as_ever(call: Record, part: Part) -> None:
    with pytest.raises(DelegatorError) as caught:
        messages.read(made(call, {part.name: ["* not of any form *"]}))
    assert caught.value.kind is Kind.MALFORMED


@pytest.mark.parametrize(("call", "part"), PARTS, ids=named)
def test_an_optional_element_that_says_nothing_was_not_sent(call: Record, part: Part) -> None:
    without = made(call, {}, drop=part.name)
    for text in ("", " \n "):
        left_out: list[str] = []
        if part.least:
            with pytest.raises(DelegatorError):
                messages.read(made(call, {part.name: [text]}))
        elif part.name not in ("Detail", "CertificateRequest"):  # texts in which nothing is something, to no harm
            assert messages.read(made(call, {part.name: [text]}), left_out=left_out) == messages.read(without)
            assert not left_out
        else:
            messages.read(made(call, {part.name: [text]}))


def test_an_empty_group_of_hints_is_no_group() -> None:
    call = made(CALLS[0], {})
    emptied = call._replace(children=tuple(
        child._replace(children=()) if child.name == "Location" else child for child in call.children))
    value = messages.read(emptied)
    assert isinstance(value, CredentialRequest)
    assert value.location == Location()


def test_one_bad_address_in_a_list_leaves_the_others_and_too_many_leave_the_first() -> None:
    left_out: list[str] = []
    good = [f"00:11:22:33:44:{number:02X}" for number in range(20)]
    value = messages.read(made(CALLS[0], {"MacAddress": ["eth0", *good[:2], ""]}), left_out=left_out)
    assert isinstance(value, CredentialRequest)
    assert value.device.mac_addresses == tuple(good[:2])
    assert left_out == ["MacAddress 'eth0' is not of its form"]
    value = messages.read(made(CALLS[0], {"MacAddress": good}), left_out=(left_out := []))
    assert isinstance(value, CredentialRequest)
    assert value.device.mac_addresses == tuple(good[:messages.MANY])
    assert set(left_out) == {"more than 16 times MacAddress"}


def test_a_long_detail_is_cut_and_the_confirmation_counts() -> None:
    left_out: list[str] = []
    value = messages.read(made(CALLS[1], {"Detail": ["x" * 5000]}), left_out=left_out)
    assert isinstance(value, Confirmation)
    assert value.detail == "x" * messages.MAX_TEXT
    assert left_out == ["ConfirmProvisioning/Detail: 5000 characters where 0 to 1024 are wanted, the rest is cut off"]


@given(st.lists(st.text(max_size=80), max_size=60))
@settings(deadline=None)
def test_whatever_hints_hold_the_note_is_short_plain_and_no_error(texts: list[str]) -> None:
    left_out: list[str] = []
    messages.read(made(CALLS[0], {"MacAddress": texts, "Model": texts[:1], "HostName": texts[1:2]}), left_out=left_out)
    said = "; ".join(left_out)
    assert len(said) < 1500
    assert said.isascii()
    assert said.isprintable()


def test_a_secret_is_in_no_note() -> None:
    left_out: list[str] = []
    with pytest.raises(DelegatorError) as caught:
        messages.read(made(CALLS[0], {"TransactionId": ["hush hush"], "Model": ["-"]}), left_out=left_out)
    assert "hush" not in caught.value.detail + "; ".join(left_out)


# --- xsi:nil ------------------------------------------------------------------------------------------------------


def envelope(device: str, more: str = "") -> bytes:
    return (f'<s:Envelope xmlns:s="{Version.V11.value}" xmlns:x="{XSI}"><s:Body>'
            f'<GetProvisioningCredential xmlns="{NS}">'
            f"<Device><ServiceTag>ABC1234</ServiceTag>{device}</Device>{more}<TransactionId>{SECRET}</TransactionId>"
            "</GetProvisioningCredential></s:Body></s:Envelope>").encode()


@pytest.mark.parametrize("more", ["", '<Location x:nil="true"/>', '<Location x:nil="1"> </Location>'])
@pytest.mark.parametrize("device", [
    '<SerialNumber x:nil="true"/>', '<SerialNumber x:nil="true"></SerialNumber><Model x:nil="1">\n</Model>',
    '<MacAddress x:nil=" true "/>', '<Model x:nil="false"/>'])
def test_nil_is_not_sent(device: str, more: str) -> None:
    read = messages.read(parse(envelope(device, more)).operation)
    assert read == CredentialRequest(Device("ABC1234"), Secret(SECRET))


@pytest.mark.parametrize("nil", ["true", "1"])
@pytest.mark.parametrize("element", ["<Model x:nil='{}'>R740</Model>",
                                     "<Location x:nil='{}'><Domain>a</Domain></Location>"])
def test_what_says_nil_and_holds_something_says_two_things_and_is_refused(element: str, nil: str) -> None:
    said = element.format(nil)
    body = envelope(said) if "Model" in said else envelope("", said)
    with pytest.raises(DelegatorError, match="xsi:nil"):
        parse(body)


def test_nil_does_not_reach_beyond_its_element() -> None:
    value = messages.read(parse(envelope('<SerialNumber x:nil="true"/><Model>R740</Model>')).operation)
    assert isinstance(value, CredentialRequest)
    assert value.device == Device("ABC1234", model="R740")


def test_the_short_way_leaves_all_of_this_to_the_careful_one() -> None:
    good = envelope("<Model>R740</Model>").replace(b' xmlns:x="' + XSI.encode() + b'"', b"")
    assert canonical.read(good, Service.DELEGATOR) is not None
    for element in (b"<Model>-[7914AC1]-</Model>", b"<Model></Model>"):
        body = good.replace(b"<Model>R740</Model>", element)
        assert canonical.read(body, Service.DELEGATOR) is None
        assert messages.read(parse(body).operation)


# --- answers of delegates -----------------------------------------------------------------------------------------


def test_an_empty_end_in_a_delegates_answer_is_none() -> None:
    credential = Credential("u", Secret("p"))
    asked = Element(NS, "RequestCredential")
    answer = messages.write_answer(asked, credential)
    inner = answer.children[0]
    emptied = answer._replace(children=(inner._replace(children=(*inner.children, Element(NS, "NotAfter"))),))
    assert messages.read_answer(asked, emptied) == credential
    body = soap.render(Version.V11, emptied).replace(b"<NotAfter>", f'<NotAfter xmlns:i="{XSI}" i:nil="true">'.encode())
    assert messages.read_answer(asked, parse(body).operation) == credential


def test_an_end_that_is_no_time_is_refused_still() -> None:
    asked = Element(NS, "RequestCredential")
    answer = messages.write_answer(asked, Credential("u", Secret("p")))
    inner = answer.children[0]
    spoilt = answer._replace(children=(inner._replace(children=(*inner.children, Element(NS, "NotAfter", "soon"))),))
    with pytest.raises(DelegatorError, match="NotAfter"):
        messages.read_answer(asked, spoilt)


# --- placeholders -------------------------------------------------------------------------------------------------

PLACEHOLDERS = ["To Be Filled By O.E.M.", "To be filled by O.E.M", "Default string", "Default-string", "None", "none",
                "N/A", "0", "00000000", "0000-0000", "System Serial Number", "Not Specified", "Not-Specified", "NULL",
                "unknown", "Unknown", "INVALID", "123456789", "0123456789", "FFFFFFFF", "XXXXXXX", "OEM", "O.E.M.",
                "...", "x", "1111111"]
REAL = ["SN-1", "CN7475158R01AB", "7F8G9H2", "2UA1234ABC", "1111112", "S", "A1", "VMware-56-4d-1a", "0001", "ABCDEFG"]


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_what_firmware_says_for_no_number_is_known(text: str) -> None:
    assert is_placeholder_serial(text)


@pytest.mark.parametrize("text", REAL)
def test_a_number_is_a_number(text: str) -> None:
    assert not is_placeholder_serial(text)


@pytest.mark.parametrize(("text", "known"), [
    ("FF:FF:FF:FF:FF:FF", True), ("00:00:00:00:00:00", True), ("01:00:5E:00:00:01", True), ("22:22:22:22:22:22", True),
    ("00:11:22:33:44:55", False), ("02:00:00:00:00:01", False)])
def test_an_address_of_no_interface_is_known(text: str, known: bool) -> None:
    assert is_placeholder_mac(text) is known


@pytest.mark.parametrize("known", [
    {"serial_number": "None"}, {"serial_number": "0"}, {"serial_number": "123456789"},
    {"mac_addresses": ("FF:FF:FF:FF:FF:FF",)}, {"mac_addresses": ("00:00:00:00:00:00",)}])
def test_a_placeholder_never_finds_a_registration_with_the_same(known: dict[str, Any]) -> None:
    assert identified_by(Registration("acme", **known), Device("ABC1234", **known)) is None


def test_beside_a_placeholder_a_real_address_counts() -> None:
    macs = ("FF:FF:FF:FF:FF:FF", "00:11:22:33:44:55")
    assert identified_by(Registration("acme", mac_addresses=macs), Device("ABC1234", mac_addresses=macs))


def test_every_hint_is_a_scalar() -> None:
    assert all(isinstance(part.type, Scalar) for _, part in PARTS)


ODD_HINTS = {
    "an element inside": "<SerialNumber><b/></SerialNumber>",
    "twice": "<SerialNumber>SN-1</SerialNumber><SerialNumber>SN-2</SerialNumber>",
}
ODD_PLACES = {
    "a word": "<Location>unknown</Location>",
    "twice": "<Location><IPAddress>192.0.2.1</IPAddress></Location><Location><Domain>b.example</Domain></Location>",
    "two addresses": "<Location><IPAddress>192.0.2.1</IPAddress><IPAddress>2001:db8::1</IPAddress></Location>",
    "an element that is none of ours": "<Location><Rack>7</Rack></Location>",
}


def _told(device: str = "", place: str = "") -> tuple[CredentialRequest, list[str]]:
    asked = (f'<s:Envelope xmlns:s="{Version.V11.value}"><s:Body><GetProvisioningCredential xmlns="{NS}"><Device>'
             f"<ServiceTag>ABC1234</ServiceTag>{device}</Device>{place}<TransactionId>{SECRET}</TransactionId>"
             "</GetProvisioningCredential></s:Body></s:Envelope>")
    left_out: list[str] = []
    found = messages.read(parse(asked.encode()).operation, Service.DELEGATOR, left_out)
    assert isinstance(found, CredentialRequest)
    return found, left_out


@pytest.mark.parametrize("odd", ODD_HINTS)
def test_g_whatever_is_wrong_with_a_hint_costs_it_alone(odd: str) -> None:
    found, left_out = _told(device=ODD_HINTS[odd])
    assert found.device.service_tag == "ABC1234"
    assert found.device.serial_number in (None, "SN-1")
    assert left_out


@pytest.mark.parametrize("odd", ODD_PLACES)
def test_g_so_does_whatever_is_wrong_with_where_it_says_it_is(odd: str) -> None:
    found, left_out = _told(place=ODD_PLACES[odd])
    assert found.location.ip_address in (None, "192.0.2.1")
    assert left_out


def test_g_what_is_proven_or_asked_for_stays_strict() -> None:
    for device in ("<ServiceTag>ABC1234</ServiceTag>", "<Unknown/>"):
        with pytest.raises(DelegatorError):
            _told(device=device)
