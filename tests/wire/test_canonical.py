"""The short way to read a message, against the long one: where it answers at all, both say the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegator.errors import DelegatorError
from delegator.wire import canonical, messages, soap
from delegator.wire.messages import OWN, Service
from delegator.wire.soap import Version

DEVICE = ("<{0}Device>{1}<{0}ServiceTag>ABC1234</{0}ServiceTag>{1}<{0}SerialNumber>CN-1</{0}SerialNumber>"
          "<{0}MacAddress>02:00:5e:00:00:01</{0}MacAddress>{1}<{0}MacAddress>02005e000002</{0}MacAddress>"
          "<{0}Model>R 760</{0}Model></{0}Device>{1}")
LOCATION = "<{0}Location>{1}<{0}IPAddress>192.0.2.7</{0}IPAddress></{0}Location>{1}"
SECRET = "<{0}TransactionId>0123456789abcdef</{0}TransactionId>{1}"


def message(inner: str = DEVICE + LOCATION + SECRET, *, prefix: str = "", soap_prefix: str = "s", blank: str = "",
            version: Version = Version.V11, operation: str = "GetProvisioningCredential",
            prolog: str = '<?xml version="1.0" encoding="utf-8"?>\n') -> bytes:
    within = f"{prefix}:" if prefix else ""
    declared = f"xmlns:{prefix}" if prefix else "xmlns"
    body = inner.format(within, blank)
    text = (f'{prolog}<{soap_prefix}:Envelope xmlns:{soap_prefix}="{version.value}">{blank}<{soap_prefix}:Body>{blank}'
            f'<{within}{operation} {declared}="{OWN.namespace}">{blank}{body}</{within}{operation}>{blank}'
            f"</{soap_prefix}:Body>{blank}</{soap_prefix}:Envelope>")
    return text.encode()


def the_long_way(body: bytes) -> tuple[Version, str, messages.Request] | None:
    try:
        envelope = soap.parse(body)
        return (envelope.version, envelope.operation.name, messages.read(envelope.operation, Service.DELEGATOR))
    except DelegatorError:
        return None


def the_short_way(body: bytes) -> tuple[Version, str, messages.Request] | None:
    said = canonical.read(body, Service.DELEGATOR)
    return None if said is None else (said[0], said[1].name, said[2])


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("blank", ["", "\n  "])
@pytest.mark.parametrize("prefix", ["", "ns0"])
def test_a8_every_plain_way_to_write_a_message_is_read(version: Version, blank: str, prefix: str) -> None:
    body = message(prefix=prefix, blank=blank, version=version)
    assert the_short_way(body) == the_long_way(body) is not None


FORMED = [
    (DEVICE + SECRET, "GetProvisioningCredential"),
    ("<{0}ClaimId>" + "0" * 32 + "</{0}ClaimId><{0}Result>Deployed</{0}Result>", "ConfirmProvisioning"),
    (DEVICE + "<{0}NewAddress>192.0.2.9</{0}NewAddress>", "NotifyAddressChange"),
]


def test_every_operation_that_devices_call_is_tried_here() -> None:
    assert {name for _, name in FORMED} == {one.name for one in messages.OWN.serving(messages.Service.DELEGATOR)}


@pytest.mark.parametrize(("inner", "operation"), FORMED)
def test_every_operation_of_the_table_has_its_form(inner: str, operation: str) -> None:
    body = message(inner, operation=operation)
    assert the_short_way(body) == the_long_way(body) is not None


ELSEWHERE = {
    "another order of elements": message(SECRET + DEVICE),
    "an entity": message(DEVICE.replace("R 760", "R &amp; 760") + SECRET),
    "CDATA": message(DEVICE.replace("R 760", "<![CDATA[R 760]]>") + SECRET),
    "a comment in a value": message(DEVICE.replace("R 760", "R<!-- -->760") + SECRET),
    "an attribute": message(DEVICE.replace("<{0}Model>", '<{0}Model a="b">') + SECRET),
    "a second declaration of a prefix": message(DEVICE, prefix="p").replace(b"<p:Model>", b'<p:Model xmlns:p="urn:x">'),
    "a value that the model refuses": message(DEVICE.replace("ABC1234", "abc!") + SECRET),
    "an address the model refuses": message(DEVICE + LOCATION.replace("192.0.2.7", "192.0.2.256") + SECRET),
    "too many MAC addresses": message(DEVICE.replace("<{0}Model>", "<{0}MacAddress>02:00:5e:00:00:01</{0}MacAddress>"
                                                     * 16 + "<{0}Model>") + SECRET),
    "two bodies": message().replace(b"</s:Body>", b"</s:Body><s:Body/>"),
    "a header": message().replace(b"<s:Body>", b"<s:Header/><s:Body>"),
    "a tab in a value": message(DEVICE.replace("R 760", "R\t760") + SECRET),
    "a letter that is not ASCII": message(DEVICE.replace("R 760", "R\u00e9") + SECRET),
    "XML 1.1": message(prolog='<?xml version="1.1" encoding="utf-8"?>'),
    "quotes that differ": message(prolog='<?xml version="1.0\' encoding="utf-8"?>'),
    "a DOCTYPE": message(prolog="<!DOCTYPE a>"),
    "a prefix that XML keeps": message(prefix="xmlp"),
    "a delegate's operation": message("", operation="RequestCredential"),
    "bytes after the end": message() + b"<a/>",
    "more than 64 KiB": message(blank=" " * 9000),
    "nothing": b"",
}


@pytest.mark.parametrize("body", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_what_is_written_otherwise_is_left_to_the_careful_readers(body: bytes) -> None:
    assert canonical.read(body, Service.DELEGATOR) is None


PIECES = ["<", ">", "&", "&lt;", "</", "/>", "<!--", "-->", "<?", "]]>", "<![CDATA[", "=", '"', "'", " ", "\n", "\t",
          "\r", "xmlns", "s:", "ABC1234", "\u00e9", "\x00", "\x7f", "<ServiceTag>", "</ServiceTag>", "<Model>X</Model>"]


@given(at=st.integers(0, 2000), cut=st.integers(0, 40), put=st.lists(st.sampled_from(PIECES), max_size=4),
       prefix=st.sampled_from(["", "ns0"]), version=st.sampled_from(Version))
def test_TC1_what_the_short_way_reads_the_long_way_reads_the_same(at: int, cut: int, put: list[str], prefix: str,
                                                                  version: Version) -> None:
    """A message with some bytes taken out and some hostile ones put in: never another value, never a value more."""
    whole = message(prefix=prefix, version=version)
    at %= len(whole)
    body = whole[:at] + "".join(put).encode() + whole[at + cut:]
    short = the_short_way(body)
    assert short is None or short == the_long_way(body)


def test_TC1_hostile_bytes_are_given_up_in_linear_time() -> None:
    """Long runs of what each repetition takes: 64 KiB of it must not cost more than the careful parser would."""
    import time
    runs = [message(blank=""), b"<a" * 30_000, b" " * 60_000, message().replace(b"R 760", b"a" * 60_000)]
    runs += [message().replace(b"<MacAddress>", b"<MacAddress>1</MacAddress><MacAddress>" * 2000, 1)]
    start = time.process_time()
    for body in runs:
        canonical.read(body, Service.DELEGATOR)
    assert time.process_time() - start < 0.25
