"""A7a: the delegator asks over mutually authenticated TLS; the delegate checks its name and answers idempotently."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from lxml import etree

from delegator.errors import DelegatorError
from delegator.model import Device, Result
from pki import Folder

OURS = "urn:delegator:provisioning:1"
SOAP_11 = "http://schemas.xmlsoap.org/soap/envelope/"
SOAP_12 = "http://www.w3.org/2003/05/soap-envelope"


def request(claim_id, tag="SRV0001", soap=SOAP_11):
    return (f'<s:Envelope xmlns:s="{soap}"><s:Body><RequestCredential xmlns="{OURS}"><ClaimId>{claim_id}</ClaimId>'
            f"<Device><ServiceTag>{tag}</ServiceTag></Device></RequestCredential></s:Body></s:Envelope>").encode()


def post(client, pair, body, content_type="text/xml"):
    return asyncio.to_thread(client.request, "POST", "/", {"Content-Type": content_type}, body, pair)


def code(got):
    return etree.fromstring(got.body).findtext(f".//{{{OURS}}}Code")


async def test_a7a_the_same_claim_has_the_same_credential(inside, new_claim):
    claim = new_claim()
    first = await inside.client.ask("SRV0001", claim)
    assert await inside.client.ask("SRV0001", claim) == first
    assert await inside.client.ask("SRV0002", new_claim()) != first
    assert first.not_after - inside.now() > timedelta(hours=23, minutes=59)


async def test_a7a_the_same_claim_asked_at_once_on_many_connections_has_one_credential(inside, new_claim):
    claim = new_claim()
    answers = await asyncio.gather(*(inside.client.ask("SRV0001", claim) for _ in range(12)))
    assert len({(answer.user_name, answer.password.reveal()) for answer in answers}) == 1


async def test_a7a_a_claim_of_one_device_is_not_answered_for_another(inside, new_claim):
    claim = new_claim()
    await inside.client.ask("SRV0001", claim)
    with pytest.raises(DelegatorError, match="MalformedRequest"):
        await inside.client.ask("SRV0002", claim)


async def test_a7a_a_second_claim_voids_the_first(inside, new_claim):
    older, newer = new_claim(), new_claim()
    first = await inside.client.ask("SRV0001", older)
    second = await inside.client.ask("SRV0001", newer)
    assert (await inside.client.fetch(first)).status == 401
    assert (await inside.client.fetch(second)).status == 200
    with pytest.raises(DelegatorError, match="NotEntitled"):
        await inside.client.ask("SRV0001", older)


async def test_a8_the_delegate_learns_what_the_device_said(inside, new_claim):
    given = await inside.client.ask("SRV0001", new_claim(), serial_number="SN-7", model="R1 (2)",
                                    mac_addresses=("02-00-5E-00-00-01",))
    entry = await inside.ledger.find(given.user_name)
    assert entry.device == Device("SRV0001", "SN-7", ("02:00:5E:00:00:01",), "R1 (2)")
    assert (entry.location.ip_address, entry.location.domain) == ("192.0.2.7", "lab.example")


@pytest.mark.parametrize("who", ["device", "shared", "another delegator", "nobody"])
async def test_a7a_only_a_delegators_name_may_ask(inside, factory: Folder, device, shared, new_claim, caplog, who):
    """A device's certificate has the same authority as the delegator's; it must not do."""
    pairs = {"shared": shared, "nobody": None}
    if who == "device":
        own = device("SRV0001")
        pairs[who] = own.certificate_path, own.key_path
    if who == "another delegator":
        path = factory.certificate_path("delegate-client", "other.test")
        if not path.exists():
            factory.issue("delegate-client", "other.test")
        pairs[who] = path, path.with_suffix(".key")
    claim = new_claim()
    with caplog.at_level(logging.WARNING):
        got = await post(inside.client, pairs[who], request(claim))
    assert (got.status, code(got)) == (500, "IdentityRejected")
    named = {"device": "CN=SRV0001", "shared": "CN=shared-device", "another delegator": "CN=other.test"}
    assert named.get(who, "no certificate") in caplog.text
    assert b"SRV0001" not in got.body


async def test_a7a_a_notification_needs_the_delegators_name_too(inside, device, new_claim):
    claim = new_claim()
    given = await inside.client.ask("SRV0001", claim)
    own = device("SRV0001")
    body = (f'<s:Envelope xmlns:s="{SOAP_11}"><s:Body><NotifyDeployed xmlns="{OURS}"><ClaimId>{claim}</ClaimId>'
            "<Result>Deployed</Result></NotifyDeployed></s:Body></s:Envelope>").encode()
    got = await post(inside.client, (own.certificate_path, own.key_path), body)
    assert code(got) == "IdentityRejected"
    assert (await inside.ledger.find(given.user_name)).result is None


async def test_a7a_a_certificate_of_another_authority_is_refused_by_tls(inside, customer_ca, new_claim, caplog):
    path = customer_ca.certificate_path("delegate-client", "delegator.test")
    if not path.exists():
        customer_ca.issue("delegate-client", "delegator.test")
    with pytest.raises(OSError), caplog.at_level(logging.WARNING):
        await post(inside.client, (path, path.with_suffix(".key")), request(new_claim()))
    assert "unknown authority" in caplog.text


async def test_soap_12_is_answered_in_kind(inside, party, new_claim):
    got = await post(inside.client, party.delegator, request(new_claim(), soap=SOAP_12), "application/soap+xml")
    assert got.status == 200
    assert etree.fromstring(got.body).tag == f"{{{SOAP_12}}}Envelope"
    refused = await post(inside.client, None, request(new_claim(), soap=SOAP_12), "application/soap+xml")
    assert (refused.status, code(refused)) == (400, "IdentityRejected")


@pytest.mark.parametrize("body", [
    b"", b"not xml", b'<!DOCTYPE x><x/>',
    f'<s:Envelope xmlns:s="{SOAP_11}"><s:Body><Unknown xmlns="{OURS}"/></s:Body></s:Envelope>'.encode(),
    request("0" * 32, "../../etc"), request("short"),
    (f'<s:Envelope xmlns:s="{SOAP_11}"><s:Body><ConfirmProvisioning xmlns="{OURS}"><ClaimId>{"0" * 32}</ClaimId>'
     "<Result>Deployed</Result></ConfirmProvisioning></s:Body></s:Envelope>").encode(),
])
async def test_anything_else_is_malformed_and_changes_nothing(inside, party, body):
    got = await post(inside.client, party.delegator, body)
    assert (got.status, code(got)) == (500, "MalformedRequest")


async def test_the_wsdl_is_for_anybody(inside):
    got = await asyncio.to_thread(inside.client.request, "GET", "/?wsdl")
    assert got.status == 200
    assert f"https://localhost:{inside.port}/".encode() in got.body
    assert b"RequestCredential" in got.body
    assert b"GetProvisioningCredential" not in got.body


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/", 404), ("GET", "/provisioningX", 404), ("PUT", "/", 405), ("DELETE", "/provisioning", 405),
    ("POST", "/provisioning", 405), ("OPTIONS", "*", 405)])
async def test_other_methods_and_paths(inside, method, path, status):
    assert (await asyncio.to_thread(inside.client.request, method, path)).status == status


async def test_a13_deployed_and_failed_are_learned_and_deployed_is_final(inside, new_claim):
    claim = new_claim()
    given = await inside.client.ask("SRV0001", claim)
    await inside.client.tell(claim, Result.FAILED, "disk <is> full")
    entry = await inside.ledger.find(given.user_name)
    assert (entry.result, entry.detail) == (Result.FAILED, "disk <is> full")
    assert (await inside.client.fetch(given)).status == 200
    await inside.client.tell(claim)
    deployed = await inside.ledger.find(given.user_name)
    assert deployed.result is Result.DEPLOYED
    await inside.client.tell(claim, Result.FAILED)
    assert await inside.ledger.find(given.user_name) == deployed


async def test_a13_an_unknown_claim_is_heard_and_logged(inside, new_claim, caplog):
    await inside.client.tell(new_claim())
    assert "a claim not known here" in caplog.text


@pytest.mark.counterpart("curl")
async def test_curl_asks_as_the_delegator(inside, curl, party, new_claim, tmp_path: Path):
    (tmp_path / "request.xml").write_bytes(request(new_claim()))
    certificate, key = party.delegator
    words = ("--data-binary", f"@{tmp_path / 'request.xml'}", "--header", "Content-Type: text/xml",
             f"https://localhost:{inside.port}/")
    status, body = await curl("--cert", certificate, "--key", key, *words)
    assert status == 200
    assert "<UserName>p-" in body
    assert await curl("--cert", certificate, "--key", key, *words) == (status, body)
    status, body = await curl(*words)
    assert status == 500
    assert "IdentityRejected" in body


@pytest.mark.counterpart("openssl")
async def test_openssl_is_asked_for_a_certificate_of_the_factory(inside, party):
    child = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", f"127.0.0.1:{inside.port}", "-servername", "localhost", "-CAfile",
        str(party.customer_ca), "-verify_return_error", "-verify_hostname", "localhost",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    out = (await child.communicate())[0].decode()
    assert "Acceptable client certificate CA names" in out
    assert "Test Factory CA" in out
    assert "Verify return code: 0 (ok)" in out


@pytest.mark.parametrize("said", ["application/json", "text/xml; charset=utf-16", "text/plain"])
async def test_TC2_a_call_that_is_said_to_be_no_xml_is_refused_unread(inside, party, new_claim, said):
    got = await post(inside.client, party.delegator, request(new_claim()), said)
    assert (got.status, code(got)) == (415, "MalformedRequest")
    assert (await post(inside.client, party.delegator, request(new_claim()), 'APPLICATION/XML;charset="utf-8"')
            ).status == 200
