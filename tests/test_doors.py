"""T-C1: nothing a peer sends reaches the last `except` of a door. Each is asked with any method, target, head, body."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delegator.delegate import server as delegate
from delegator.delegate.ledger import Ledger
from delegator.doors.devices import soap as server
from delegator.model import Answer, Credential, Device, Secret
from delegator.net.connection import Connection
from delegator.net.lobby import Guest
from delegator.provisioning.handshake import Handshake
from delegator.serving.app import operations
from delegator.watching import ops
from delegator.watching.metrics import Metrics
from delegator.wire import messages
from delegator.wire.http import HttpError, Request, RequestReader, Response, render_response
from pki import Folder

NOW = datetime(2026, 12, 1, tzinfo=UTC)
Door = Callable[[Request, Connection], Awaitable[Response]]
STRANGER = cast(Connection, SimpleNamespace(
    id="1", peer_address="192.0.2.7", certificate=None, certificate_der=None, connected_at=1, authenticated_at=2))
SEEN_IN_ATTACKS = ["//[", "//[::1", "/[", "/provisioning/[", "/?wsdl#[", "//", "///", "/%", "/%00", "/..//..",
                   "http://[",
                   "http://a:b@[::1", "*", "/provisioning?[", "/?wsdl?wsdl",
                   "/provisioning/" + "a" * 5000, "\\", "/\udcff"]
TARGETS = st.one_of(
    st.sampled_from(SEEN_IN_ATTACKS),
    st.text(st.characters(min_codepoint=33, max_codepoint=255), min_size=1, max_size=60),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40).map("/{}".format),
    st.text("[]:@/?#%.\\", min_size=1, max_size=12).map("/provisioning{}".format))
HEADS = st.dictionaries(
    st.sampled_from([b"host", b"content-type", b"authorization", b"soapaction", b"accept", b"x"]),
    st.one_of(st.sampled_from([b"[", b"[::1", b"Basic =", b"Basic \xff\xfe", b"text/xml; charset=[", b"a:b:c"]),
              st.binary(max_size=40)))
BODIES = st.one_of(st.binary(max_size=200), st.sampled_from([
    b"", b"<", b"<a/>", b"<a xmlns='[['/>", b"\xff\xfe<\0",
    b"<s:Envelope xmlns:s='http://schemas.xmlsoap.org/soap/envelope/'>"
    b"<s:Body><x/></s:Body></s:Envelope>"]))


async def nothing() -> dict[str, str]:
    return {}


class NoLedger:
    """No credential is in force here."""

    async def find(self, user_name: str) -> None:
        return None

    def is_password(self, *_: object) -> bool:
        return False


@pytest.fixture
def told() -> list[object]:
    return []


@pytest.fixture(params=["devices", "delegate", "operators"])
def door(request: pytest.FixtureRequest, tmp_path: Path, told: list[object]) -> Door:
    if request.param == "devices":
        return server.Server({}, lambda trail, _: told.append(trail), "", lambda: "here:1").answer
    if request.param == "delegate":
        return delegate.Server(cast(Ledger, NoLedger()), frozenset({"delegator.test"}), tmp_path, lambda: NOW,
                               lifetime=timedelta(hours=1)).answer
    operators = ops.Ops(Metrics(), nothing, dict, nothing)
    return lambda asked, _: operators.answer(asked)


@pytest.fixture
def faults(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    yield (found := [])
    found += [one.getMessage() for one in caplog.records if one.exc_info]
    assert found == [], "the last except was reached"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(method=st.sampled_from(["GET", "POST", "HEAD", "PUT", "OPTIONS", "DELETE", "CONNECT", "TRACE", "PROPFIND"]),
       target=TARGETS, head=HEADS, body=BODIES)
async def test_whatever_is_asked_is_answered_and_is_no_fault_of_ours(
        door: Door, faults: list[str], method: str, target: str, head: dict[bytes, bytes], body: bytes) -> None:
    answer = await door(Request(method, target, head, body, True), STRANGER)
    assert answer.status in (200, 400, 401, 403, 404, 405, 413, 415, 429, 500)
    if answer.status == 500:
        assert b"Fault" in answer.body, "SOAP 1.1 has no other status for a fault of the caller's"
        assert b"Unavailable" not in answer.body


@pytest.mark.parametrize("target", SEEN_IN_ATTACKS[:-1])
async def test_each_target_that_was_seen_is_answered(door: Door, faults: list[str], target: str) -> None:
    """As it comes through the reader of HTTP, where that lets it pass."""
    try:
        (asked,) = RequestReader().feed(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    except HttpError:
        return
    assert (await door(asked, STRANGER)).status < 500


# --- as bytes, to doors that know the caller ------------------------------------------------------------------------

NS = "urn:delegator:provisioning:1"
_DEVICE = ("<Device><ServiceTag>ABC1234</ServiceTag><SerialNumber>S1</SerialNumber><MacAddress>00:11:22:33:44:55"
           "</MacAddress><Model>R</Model></Device>")
_LOCATION = "<Location><IPAddress>192.0.2.1</IPAddress><HostName>a.b</HostName><Domain>b</Domain></Location>"
CALLS = {
    "GetProvisioningCredential": f"{_DEVICE}{_LOCATION}<TransactionId>0123456789abcdef</TransactionId>",
    "ConfirmProvisioning": f"<ClaimId>{'0' * 32}</ClaimId><Result>Deployed</Result><Detail>a</Detail>",
    "NotifyAddressChange": f"{_DEVICE}<NewAddress>192.0.2.2</NewAddress><OldAddress>192.0.2.1</OldAddress>",
    "RequestCredential": f"<ClaimId>{'0' * 32}</ClaimId>{_DEVICE}{_LOCATION}",
    "NotifyDeployed": f"<ClaimId>{'0' * 32}</ClaimId><Result>Failed</Result><Detail>x</Detail>"}
PIECES = [b"\0", b"&#13;", b"&#xD800;", b"&#0;", b"\xff\xfe", "\u202e".encode(), b"xsi:nil='true'", b"<![CDATA[",
          b"]]>", b"<!DOCTYPE a [", b"&amp;", b"//[", b"::ffff:1.2.3.4", b"fe80::1%eth0", b"9" * 400, b"a" * 3000,
          b"AAAA====", "\uff21".encode(), b"-1", b"<ServiceTag>", b"</ServiceTag>", b"<MacAddress>zz</MacAddress>",
          b"xmlns=''", b""]
VALUES = [b"", b"[", b"[::1", b"[::1]:0", b"a:b:c", b"\xff", b"Basic =", b"Basic \xff\xfe", b"Basic Og==",
          b"Basic /////w==", b"Basic YTpi", b"Bearer x", b"100-continue", b"200-maybe", b"chunked", b"gzip, chunked",
          b"chunked, chunked", b"h2c", b"websocket", b"-1", b"+5", b"0x10", b"9" * 30, b"5, 5", b"text/xml",
          b"application/json", b"close", b"text/xml; charset=[", b'application/soap+xml; action="', b"upgrade",
          b"text/xml; charset=utf-8"]
NAMES = [b"Host", b"Content-Type", b"Content-Length", b"Transfer-Encoding", b"Authorization", b"Expect", b"Upgrade",
         b"Connection", b"SOAPAction", b"Content-Encoding", b"Trailer", b"TE", b"host ", b"\xff"]
METHODS = [b"POST", b"GET", b"HEAD", b"PUT", b"OPTIONS", b"CONNECT", b"TRACE", b"PRI", b"get", b"QUERY", b""]


@st.composite
def calls(draw: st.DrawFn) -> bytes:
    """A call in a SOAP envelope, changed in a few places."""
    name = draw(st.sampled_from(list(CALLS)))
    soap = draw(st.sampled_from(["http://schemas.xmlsoap.org/soap/envelope/",
                                 "http://www.w3.org/2003/05/soap-envelope"]))
    body = bytearray(f'<s:Envelope xmlns:s="{soap}"><s:Body><{name} xmlns="{NS}">{CALLS[name]}</{name}></s:Body>'
                     "</s:Envelope>".encode())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(body)))
        body[at:at + draw(st.integers(0, 30))] = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=3)))
    return bytes(body)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Bytes that look much like a request."""
    body = draw(st.one_of(calls(), st.just(b"")))
    heads = draw(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=3))
    if draw(st.booleans()):
        heads += [(b"Host", b"x"), (b"Content-Length", b"%d" % len(body))]
    target = draw(st.one_of(st.just("/"), st.sampled_from(SEEN_IN_ATTACKS[:-1]), TARGETS)).encode("latin-1", "replace")
    version = draw(st.sampled_from([b"HTTP/1.1"] * 5 + [b"HTTP/1.0", b"HTTP/2.0", b""]))
    return b"%b %b %b\r\n%b\r\n%b" % (draw(st.sampled_from(METHODS)), target, version, b"".join(
        b"%b: %b\r\n" % head for head in heads), body)


class Knows:
    """A handshake and a ledger that say yes to everything, so that nothing stops what was asked on its way."""

    async def provision(self, *_: object) -> Answer:
        return Answer(Credential("u", Secret("p")), "0" * 32)

    async def confirm(self, *_: object) -> None: ...

    note_address = fetched = conclude = confirm

    async def find(self, user_name: str) -> SimpleNamespace:
        user_name.encode()
        return SimpleNamespace(device=Device("ABC1234"))

    def is_password(self, _: object, shown: Secret, *__: object) -> bool:
        return bool(shown.reveal().encode())

    async def learn(self, _: object, fresh: Credential, __: object) -> Credential:
        return fresh


class Caller:
    """One connection at the operators' port, with all that comes on it."""

    heard = False

    def __init__(self, said: bytes) -> None:
        self.said, self.told = said, b""

    async def read(self) -> bytes:
        piece, self.said = self.said[:1000], self.said[1000:]
        return piece

    async def send(self, data: bytes) -> None:
        self.told += data


Told = Callable[[bytes], Awaitable[list[int]]]


@pytest.fixture(params=["devices", "delegate", "operators"])
def told_bytes(request: pytest.FixtureRequest, factory: Folder, tmp_path: Path) -> Told:
    """A door that is told bytes, by whom it knows; the statuses that it answers."""
    if request.param == "operators":
        async def operators(said: bytes) -> list[int]:
            caller = Caller(said)
            await ops.Ops(Metrics(), nothing, dict, nothing).connected(cast(Guest, caller))
            return [int(caller.told.split(b" ")[1])]
        return operators
    pem = (factory.path / "delegate-clients/delegator.test.crt").read_bytes()
    der = x509.load_pem_x509_certificates(pem)[0].public_bytes(Encoding.DER)
    known = cast(Connection, SimpleNamespace(id="1", peer_address="192.0.2.7", certificate=None, certificate_der=der,
                                             connected_at=1, authenticated_at=2, vouch=lambda: None))
    (tmp_path / "default.xml").write_text(f'<Provisioning xmlns="{NS}"/>')
    asked_here = operations(cast(Handshake, Knows()))
    door = (server.Server(asked_here, lambda *_: None, "", lambda: "here:1") if request.param == "devices"
            else delegate.Server(cast(Ledger, Knows()), frozenset({"delegator.test"}), tmp_path, lambda: NOW,
                                 lifetime=timedelta(hours=1)))

    async def asked(said: bytes) -> list[int]:
        reader = RequestReader()
        try:
            found = reader.feed(said)
        except HttpError as error:
            return [door.unreadable(error, known).status]
        answers = [await door.answer(one, known) for one in found]
        assert all(render_response(one, close=True) for one in answers)
        return [one.status for one in answers]
    return asked


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=120, deadline=None)
@given(said=requests())
async def test_TC1_whatever_bytes_come_from_whom_a_door_knows_they_end_in_an_answer(
        told_bytes: Told, faults: list[str], caplog: pytest.LogCaptureFixture, said: bytes) -> None:
    for status in await told_bytes(said):
        assert status in (200, 400, 401, 403, 404, 405, 413, 414, 415, 417, 429, 431, 500, 501, 505)
    assert not [one for one in caplog.records if one.exc_info], said


async def test_TC1_the_bytes_of_a_plain_call_get_through(told_bytes: Told) -> None:
    """Else the test above would look at nothing but refusals."""
    statuses = []
    for name, inner in CALLS.items():
        body = ('<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
                f'<{name} xmlns="{NS}">{inner}</{name}></s:Body></s:Envelope>').encode()
        statuses += await told_bytes(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    statuses += await told_bytes(b"GET /provisioning HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YTpi\r\n\r\n")
    statuses += await told_bytes(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert set(CALLS) == {one.name for one in messages.OWN.operations}
    called = {service: len(messages.OWN.serving(service)) for service in messages.Service}
    assert statuses.count(200) in (called[messages.Service.DELEGATOR], called[messages.Service.DELEGATE] + 1, 1), (
        "a door answers its own operations; a delegate and the operators' port have one of these pages each")


def test_faults_are_seen_here(caplog: pytest.LogCaptureFixture) -> None:
    """What the fixture above looks for is what a last `except` writes."""
    try:
        raise RuntimeError
    except RuntimeError:
        logging.getLogger("delegator.doors.calls").exception("a fault of ours")
    assert any(one.exc_info for one in caplog.records)
