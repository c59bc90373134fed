"""The door: bytes become a question, an answer or an error becomes bytes, each call one trail (blocks 212 and 216)."""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.model import CredentialRequest
from delegator.net.connection import Connection
from delegator.trail import Step
from delegator.wire.http import HttpError, Request, Response
from delegator.wire.refused import Refused
from pki import Refusal

from .lab import FACTORY, PEER, SOAP11, Lab, Wire, asking, certificate, envelope

TAG = "ABC1234"
SOAP12 = "http://www.w3.org/2003/05/soap-envelope"


async def get(lab: Lab, method: str, target: str, host: str = "") -> Response:
    """What is no call leaves no trail."""
    headers = {b"host": host.encode()} if host else {}
    response = await lab.server.answer(Request(method, target, headers, b"", False), cast(Connection, Wire(None)))
    assert not lab.ended
    return response


# --- what is no call ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/?wsdl", "/?WSDL", "/?singleWsdl"])
async def test_the_service_describes_itself_at_the_address_that_was_called(lab: Lab, target: str) -> None:
    response = await get(lab, "GET", target, "delegator.example:4433")
    assert (response.status, response.headers) == (200, {b"Content-Type": b"text/xml; charset=utf-8"})
    assert b'location="https://delegator.example:4433/"' in response.body


async def test_the_address_that_is_set_wins_over_the_one_that_was_called(lab: Lab) -> None:
    lab.serve(url="https://public.example:4433/")
    response = await get(lab, "GET", "/?wsdl", "10.0.0.1:4433")
    assert b'location="https://public.example:4433/"' in response.body


OTHERS = {("GET", "/"): (404, b"GET /?wsdl describes this service\n"),
          ("GET", "/wsdl"): (404, b"GET /?wsdl describes this service\n"),
          ("POST", "/other"): (404, b"POST a SOAP request to /, or GET /?wsdl\n"),
          ("PUT", "/"): (405, b"POST a SOAP request to /, or GET /?wsdl\n"),
          ("HEAD", "/other"): (405, b"POST a SOAP request to /, or GET /?wsdl\n")}


@pytest.mark.parametrize(("method", "target"), OTHERS)
async def test_whatever_else_is_told_what_there_is(lab: Lab, method: str, target: str) -> None:
    response = await get(lab, method, target)
    assert (response.status, response.body) == OTHERS[method, target]
    assert response.headers == {b"Content-Type": b"text/plain; charset=utf-8"}


# --- calls --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/", "/?", "/?anything=1"])
@pytest.mark.parametrize(("soap", "content_type"), [
    (SOAP11, b"text/xml; charset=utf-8"), (SOAP12, b"application/soap+xml; charset=utf-8")])
async def test_a_call_is_answered_in_the_version_it_was_made_in(
        lab: Lab, target: str, soap: str, content_type: bytes) -> None:
    await lab.own(TAG)
    wire = Wire(certificate(TAG))
    reply = await lab.post(asking(TAG, soap=soap), wire, target=target)
    assert (reply.status, reply.response.headers) == (200, {b"Content-Type": content_type})
    assert reply.response.body.startswith(b'<?xml version="1.0" encoding="utf-8"?>')
    assert soap.encode() in reply.response.body
    assert (reply.trail.connection, reply.trail.peer) == (wire.id, PEER)
    connected, authenticated, asked, *_ = reply.trail.marks
    assert (connected.step, connected.at, authenticated.step, authenticated.at) == (
        Step.CONNECTED, wire.connected_at, Step.AUTHENTICATED, wire.authenticated_at)
    assert asked.at > authenticated.at


async def test_a_call_in_another_shape_than_most_clients_write_is_the_same_call(lab: Lab) -> None:
    """With a header and spaces it is read by the slower of two readers."""
    await lab.own(TAG)
    plain = asking(TAG)
    one = await lab.post(plain, Wire(certificate(TAG)))
    reply = await lab.post(
        plain.replace(b"<s:Body>", b"<s:Header/>\n <s:Body>\n "), Wire(certificate(TAG)))
    assert reply.status == 200
    assert reply.credential == one.credential
    assert reply.trail.facts["operation"] == "GetProvisioningCredential"


FAULTS = {
    "not XML": (b"hello", "MalformedRequest", "not an XML document we take: "),
    "no envelope": (b"<a/>", "MalformedRequest", "the root is 'a', not Envelope"),
    "an operation we do not have": (envelope("Other", ""), "MalformedRequest", ""),
    "a delegate's operation": (envelope("RequestCredential", ""), "MalformedRequest", ""),
    "a tag that is none": (asking("abc"), "MalformedRequest", ""),
    "another version": (asking(TAG).replace(SOAP11.encode(), b"urn:other"), "VersionMismatch",
                        "no SOAP version has the namespace 'urn:other'"),
}


@pytest.mark.parametrize("what", FAULTS)
async def test_what_cannot_be_understood_is_a_fault_and_its_reason_stays_here(lab: Lab, what: str) -> None:
    body, code, why = FAULTS[what]
    reply = await lab.post(body, Wire(certificate(TAG)))
    assert (reply.fault, reply.status, reply.level) == (code, 500, logging.WARNING)
    assert reply.response.headers == {b"Content-Type": b"text/xml; charset=utf-8"}
    (reason,) = reply.trail.reasons
    assert reason.startswith(why)
    assert reason.encode() not in reply.response.body
    assert reply.steps == ["connected", "authenticated", "refused"]
    assert (reply.note("refused"), reply.trail.facts) == (code, {"outcome": code})
    assert lab.counted("delegator_handshakes_total", outcome=code) == 1


@pytest.mark.parametrize(("body", "status"), [
    (asking("abc", soap=SOAP12), 400), (asking(TAG, soap=SOAP12), 400),
    (asking(TAG, soap=SOAP12).replace(b"<s:Body>", b"<s:Body><x/>"), 400)])
async def test_a_fault_is_told_in_the_version_of_the_call(lab: Lab, body: bytes, status: int) -> None:
    reply = await lab.post(body, Wire(certificate(TAG)))
    assert (reply.status, reply.response.headers[b"Content-Type"]) == (status, b"application/soap+xml; charset=utf-8")


async def test_a_fault_of_ours_is_logged_whole_and_told_as_one_word(
        lab: Lab, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    await lab.own(TAG)

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("inside")
    monkeypatch.setattr(lab.store, "about", broken)
    reply = await lab.post(asking(TAG, soap=SOAP12), Wire(certificate(TAG)))
    assert (reply.fault, reply.status, reply.level) == ("Unavailable", 500, logging.ERROR)
    assert reply.trail.reasons == ("unhandled, see the log",)
    assert b"inside" not in reply.response.body
    assert [one.message for one in caplog.records if one.name == "delegator.doors.calls"] == ["a fault of ours"]
    assert "ZeroDivisionError: inside" in caplog.text


async def test_when_to_come_again_stands_in_the_head_and_in_the_fault(
        lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def later(*_: object) -> None:
        raise DelegatorError(Kind.TRY_LATER, "secret reason", retry_after=77, alternates=("other.example:4433",))
    monkeypatch.setattr(lab.server, "_operations", {CredentialRequest: later})
    reply = await lab.post(asking(TAG), Wire(certificate(TAG)))
    assert reply.response.headers == {b"Content-Type": b"text/xml; charset=utf-8", b"Retry-After": b"77"}
    assert (reply.retry_after, reply.texts("AlternateDelegator")) == (77, ["other.example:4433"])
    assert b"secret reason" not in reply.response.body


@pytest.mark.parametrize("said", [b"application/json", b"text/xml; charset=iso-8859-1", b"text/plain"])
async def test_TC2_a_call_that_is_said_to_be_no_xml_is_refused_unread_and_is_on_record(lab: Lab, said: bytes) -> None:
    await lab.own(TAG)
    reply = await lab.post(asking(TAG), Wire(certificate(TAG)), headers={b"content-type": said})
    assert (reply.status, reply.fault) == (415, "MalformedRequest")
    assert "is wanted" in reply.trail.reasons[0]
    assert await lab.claims(TAG) == []
    fits = b'Application/SOAP+XML;charset="UTF-8"'
    assert (await lab.post(asking(TAG), Wire(certificate(TAG)), headers={b"content-type": fits})).status == 200


# --- connections that came to nothing -----------------------------------------------------------------------------


def refused(lab: Lab, **said: Any) -> tuple[Any, int]:
    wire = Wire(None)
    lab.server.refused(cast(Connection, wire), Refused(**said))
    ((trail, level),) = lab.trails(wire)
    return trail, level


async def test_a_certificate_that_was_refused_is_on_record(lab: Lab) -> None:
    trail, level = refused(lab, refusal=Refusal.REVOKED, detail="certificate revoked", subject="CN=ABC1234",
                           serial="0a")
    assert level == logging.WARNING
    assert trail.facts == {"outcome": "TlsRefused", "refusal": Refusal.REVOKED.value, "certificate": "CN=ABC1234",
                           "serial": "0a"}
    assert [mark.step for mark in trail.marks] == [Step.CONNECTED, Step.REFUSED]
    assert trail.marks[0].at == 1
    assert (trail.reasons, trail.marks[1].note) == ((trail.marks[1].note,), trail.reasons[0])
    assert "certificate revoked" in trail.reasons[0]
    assert refused(lab, refusal=None, detail="no", leaf=b"what it showed")[0].shown == b"what it showed"
    assert lab.counted("delegator_tls_refused_total", reason=Refusal.REVOKED.value) == 1


async def test_who_speaks_no_tls_is_on_record_too(lab: Lab) -> None:
    trail, _ = refused(lab, refusal=None, detail="no TLS")
    assert trail.facts == {"outcome": "TlsRefused", "refusal": "protocol"}


async def test_bytes_that_are_no_request_are_answered_as_http_and_soap_would(lab: Lab) -> None:
    wire = Wire(certificate(TAG))
    response = lab.server.unreadable(HttpError(413, "the body is larger than 64 KiB"), cast(Connection, wire))
    ((trail, level),) = lab.trails(wire)
    assert (response.status, response.headers) == (413, {b"Content-Type": b"text/xml; charset=utf-8"})
    assert b"<d:Code>MalformedRequest</d:Code>" in response.body
    assert trail.reasons == ("the body is larger than 64 KiB",)
    assert [mark.step.called for mark in trail.marks] == ["connected", "authenticated", "refused"]
    assert [mark.at for mark in trail.marks[:2]] == [wire.connected_at, wire.authenticated_at]
    assert (trail.facts, level) == ({"outcome": "MalformedRequest"}, logging.WARNING)
    assert FACTORY.encode() not in response.body
