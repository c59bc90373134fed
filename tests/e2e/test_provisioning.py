"""The main job over real connections: who gets a credential, who does not, and what each is told. A1-A8, A13."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from delegator.model import ClaimState, Customer, Delegate, IdentityRule, Policy, Registration, Rule, SoapCallback
from pki import Folder, Reason

from ..clock import today
from .conftest import TRANSACTION, World, envelope
from .operating import hang_up


def test_a3_a7a_the_delegates_credential_reaches_the_device(world: World) -> None:
    """Identity, route, policy, claim, callback over mutual TLS, answer: with address and anchor of the delegate."""
    world.own("MAIN001")
    world.start()
    reply = world.ask("MAIN001", extra="<SerialNumber>SN-1</SerialNumber><Model>R760</Model>")
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/xml; charset=utf-8"
    assert reply.credential == ("temp", world.delegate.given[world.delegate.calls[0]])
    assert reply.text("URL") == f"https://localhost:{world.delegate.port}/provisioning"
    assert "BEGIN CERTIFICATE" in (reply.text("TrustAnchor") or "")


def test_a7c_a_hosted_credential_needs_nobody_else(world: World) -> None:
    world.host("HOST001", "HOST002")
    world.start()
    first, second = world.ask("HOST001"), world.ask("HOST002")
    assert first.text("UserName") == "root"
    assert len(first.text("Password") or "") == 20
    assert first.text("Password") != second.text("Password")
    assert first.text("Delegate") is None
    assert not world.delegate.calls


def test_R_once_the_same_device_gets_the_same_answer_and_nobody_else_does(world: World, factory: Folder) -> None:
    world.own("SAME001")
    world.start()
    answers = {world.ask("SAME001", transaction=f"retry-number-{n:05}").body for n in range(3)}
    assert len(answers) == 1
    assert len(set(world.delegate.calls)) == 1
    repaired = factory.issue("device", "SAME001", renew=True)
    assert repaired.key_path is not None
    assert world.ask("SAME001", shown=(repaired.certificate_path, repaired.key_path)).fault == "NotEntitled"


def test_a13_confirmation_wipes_the_credential_and_tells_the_delegate(world: World) -> None:
    world.own("DONE001", "DONE002")
    world.start()
    claim = world.ask("DONE001").text("ClaimId")
    assert world.confirm("DONE002", claim).fault == "NotEntitled"
    assert world.confirm("DONE001", claim, result="Failed").status == 200
    assert world.ask("DONE001").text("ClaimId") == claim
    assert world.confirm("DONE001", claim).status == 200
    (kept,) = world.store(lambda store: store.claims())
    assert (kept.state, kept.sealed) == (ClaimState.CONFIRMED, None)
    until = time.monotonic() + 15
    while (claim, "Deployed") not in world.delegate.deployed and time.monotonic() < until:
        time.sleep(0.02)
    assert (claim, "Deployed") in world.delegate.deployed
    assert world.ask("DONE001").fault == "NotEntitled"


def test_R_shared_shared_identity_is_entitled_only_by_policy_and_registration(world: World,
                                                                              shared: tuple[Path, Path]) -> None:
    """The shared certificate alone releases nothing (CVE-2024-47575)."""
    world.own("SHRD001")
    world.host("SHRD002")
    world.store(lambda store: store.add_policy(Policy("either", identity=IdentityRule.EITHER), today()))
    world.store(lambda store: store.add_customer(Customer("globex", "Globex", policy="either"), today(), replace=True))
    world.store(lambda store: store.add_rule(Rule("everything", "globex-hosted"), today()))
    world.start()
    assert world.ask("SHRD001", shown=shared).fault == "NotEntitled", "nor is it told that its policy wants the own one"
    first = world.ask("SHRD002", shown=shared)
    assert first.status == 200
    assert world.ask("SHRD002", shown=shared).body == first.body
    assert world.ask("SHRD002", shown=shared, transaction="a-second-claimant").fault == "NotEntitled"
    assert world.ask("SHRD003", shown=shared).fault == "NotEntitled", "a rule alone does not entitle a shared one"
    claim = first.text("ClaimId")
    assert world.confirm("SHRD002", claim, shown=shared, transaction=None).fault == "NotEntitled"
    assert world.confirm("SHRD002", claim, shown=shared, transaction="a-second-claimant").fault == "NotEntitled"
    assert world.confirm("SHRD002", claim, shown=shared).status == 200


def test_a4_changes_by_another_process_count_at_once(world: World) -> None:
    """Registration, rules and policies are seen at the next handshake, without a reload."""
    world.start()
    assert world.ask("LATE001").fault == "NotEntitled"
    world.own("LATE001")
    assert world.ask("LATE001").status == 200
    world.own("LATE002")
    closed = Policy("default", valid_until=datetime.now(UTC) - timedelta(days=1))
    world.store(lambda store: store.add_policy(closed, today(), replace=True))
    assert world.ask("LATE002").fault == "NotEntitled"
    assert "closed" in " ".join(world.trails("LATE002")[-1]["reasons"])


def test_a6_max_devices_is_exact_when_many_ask_at_once(world: World) -> None:
    tags = [f"MANY{n:03}" for n in range(12)]
    world.host(*tags)
    world.store(lambda store: store.add_policy(Policy("five", max_devices=5), today()))
    world.store(lambda store: store.add_customer(Customer("globex", "Globex", policy="five"), today(), replace=True))
    for tag in tags:
        world.paths(tag)
    world.start()
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(world.ask, tags))
    assert sorted(reply.fault or "answered" for reply in replies) == ["TryLater"] * 7 + ["answered"] * 5
    assert {reply.headers.get("retry-after") for reply in replies if reply.fault} == {"300"}


def test_identity_comes_before_everything(world: World) -> None:
    """Block 213: the common name is the tag, or there is no answer; the delegate never hears of it."""
    world.own("REAL001")
    world.start()
    assert world.ask("REAL001", shown=world.paths("LIAR001")).fault == "IdentityRejected"
    assert not world.delegate.calls
    assert world.trails("REAL001")[-1]["reasons"] == ["the certificate is for 'LIAR001', the request for REAL001"]


@pytest.mark.slow
class TestTheDelegateFails:
    """Bad input: the device gets TryLater, the claim stays consistent, the next try succeeds."""

    @pytest.mark.parametrize("mode", ["slow", "fault", "nonsense", "cut", "silent"])
    def test_it_answers_badly(self, world: World, mode: str) -> None:
        world.own("BAD0001")
        world.start()
        world.delegate.mode = mode
        reply = world.ask("BAD0001")
        assert (reply.fault, reply.status, reply.headers["retry-after"]) == ("TryLater", 500, "30")
        assert reply.credential == (None, None)
        world.delegate.mode = "good"
        assert world.ask("BAD0001").status == 200
        assert len(set(world.delegate.calls)) == 1, "one claim id, whatever happened in between"
        (claim,) = world.store(lambda store: store.claims())
        assert claim.state is ClaimState.ISSUED

    @pytest.mark.parametrize("fault", ["down", "untrusted", "misnamed"])
    def test_it_cannot_be_reached_as_itself(self, world: World, factory: Folder, delegate_authority: Folder,
                                            fault: str) -> None:
        world.own("BAD0002")
        good = SoapCallback("localhost", world.delegate.port, "/", delegate_authority.ca_path.read_text(),
                            "127.0.0.1")
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            bad = {"down": SoapCallback("localhost", unused.getsockname()[1], "/", good.trust_anchor, "127.0.0.1"),
                   "untrusted": SoapCallback("localhost", good.port, "/", factory.ca_path.read_text(), "127.0.0.1"),
                   "misnamed": SoapCallback("other.test", good.port, "/", good.trust_anchor, "127.0.0.1")}[fault]
            world.store(lambda store: store.add_delegate(Delegate("acme-server", "acme", bad), today(), replace=True))
            world.start()
            assert world.ask("BAD0002").fault == "TryLater"
        assert not world.delegate.given, "nothing was said before the name was checked"
        world.store(lambda store: store.add_delegate(Delegate("acme-server", "acme", good), today(), replace=True))
        assert world.ask("BAD0002").status == 200

    def test_while_it_is_asked_the_same_tag_is_told_to_wait(self, world: World) -> None:
        world.own("BUSY001")
        world.start()
        world.delegate.mode = "slow"
        thread = threading.Thread(target=world.ask, args=("BUSY001",))
        thread.start()
        assert world.delegate.in_hand.wait(5)
        assert world.ask("BUSY001").fault == "TryLater"
        thread.join()
        assert len(world.delegate.calls) == 1


class TestTls:
    """A1: who may speak at all."""

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_a_foreign_device_gets_an_alert_and_a_recorded_reason(self, world: World, customer_ca: Folder,
                                                                  version: ssl.TLSVersion) -> None:
        path = customer_ca.certificate_path("device", "FOREIGN9")
        if not path.exists():
            customer_ca.issue("device", "FOREIGN9")
        world.start()
        with (pytest.raises(ssl.SSLError, match="unknown ca"),
              world.connection(path, path.with_suffix(".key"), version) as sock):
            sock.sendall(b"POST / HTTP/1.1\r\n")
            sock.recv(1)
        refused = world.trails()[-1]
        assert refused["outcome"] == "TlsRefused"
        assert "FOREIGN9" in refused["certificate"]

    def test_a_revocation_counts_without_a_restart(self, world: World, factory: Folder) -> None:
        """The list is read again when it changes; the device learns by alert which it is."""
        world.host("REVOKE1", "REVOKE2")
        world.start()
        assert world.ask("REVOKE1").status == 200
        factory.revoke([world.device("REVOKE1").serial], Reason.KEY_COMPROMISE, factory.authority())
        hang_up(world)
        with pytest.raises(ssl.SSLError, match="revoked"):
            world.ask("REVOKE1")
        assert world.ask("REVOKE2").status == 200

    def test_nothing_older_than_tls_1_2(self, world: World) -> None:
        world.start()
        done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{world.port}", "-tls1_1", "-cipher",
                               "ALL:@SECLEVEL=0"], capture_output=True, text=True, input="", check=False)
        assert "alert protocol version" in done.stderr


@pytest.mark.slow
class TestHttp:
    """Bad input below SOAP ends in one clear answer, never in a hang."""

    def test_a_body_cut_in_the_middle_is_nothing(self, world: World) -> None:
        world.host("CUT0001")
        world.start()
        body = envelope("CUT0001")
        with world.connection(*world.paths("CUT0001")) as sock:
            sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:100])
        assert world.ask("CUT0001").status == 200
        assert len(world.trails("CUT0001")) == 1

    @pytest.mark.parametrize(("head", "status"), [
        (b"X: " + b"a" * 20_000, 431), (b"\r\n".join(b"X-%d: 1" % n for n in range(200)), 431),
        (b"Content-Length: 99999999", 413), (b"Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
        (b"Content-Length: +5", 400)])
    def test_limits_and_framing(self, world: World, head: bytes, status: int) -> None:
        world.start()
        with world.connection(*world.paths("HTTP001")) as sock:
            sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
            response = http.client.HTTPResponse(sock)
            response.begin()
            assert response.status == status
            assert response.headers["Connection"] == "close"

    def test_two_requests_on_one_connection(self, world: World) -> None:
        world.host("KEEP001")
        world.start()
        client = http.client.HTTPSConnection("localhost", world.port, context=world.tls(*world.paths("KEEP001")))
        answers = set()
        for _ in range(2):
            client.request("POST", "/", envelope("KEEP001"), {"Content-Type": "text/xml"})
            answers.add(client.getresponse().read())
        client.close()
        assert len(answers) == 1

    def test_a_client_that_waits_for_100_continue_is_told_to_go_on(self, world: World) -> None:
        world.host("WAIT001")
        world.start()
        body = envelope("WAIT001")
        with world.connection(*world.paths("WAIT001")) as sock:
            sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                         b"Content-Length: %d\r\n\r\n" % len(body))
            assert sock.recv(100).startswith(b"HTTP/1.1 100")
            sock.sendall(body)
            assert sock.recv(4096).startswith(b"HTTP/1.1 200")

    def test_slow_and_silent_peers_are_let_go(self, world: World) -> None:
        """Every phase has a deadline."""
        text = (world.root / "delegator.toml").read_text()
        (world.root / "delegator.toml").write_text(text.replace("handshake = 5.0", "handshake = 0.5")
                                                   .replace("request = 5.0", "request = 0.5"))
        world.start()
        with socket.create_connection(("127.0.0.1", world.port), 5) as silent:
            assert silent.recv(1) == b""
        with world.connection(*world.paths("SLOW001")) as sock:
            sock.sendall(b"POST / HT")
            assert sock.recv(1) == b""

    @pytest.mark.parametrize("version", ["http://schemas.xmlsoap.org/soap/envelope/",
                                         "http://www.w3.org/2003/05/soap-envelope"])
    def test_both_soap_versions(self, world: World, version: str) -> None:
        world.host("SOAP001")
        world.start()
        reply = world.post(envelope("SOAP001", soap=version), *world.paths("SOAP001"))
        assert reply.status == 200
        assert version.encode() in reply.body


HOSTILE = {
    "not XML": b"hello",
    "cut": envelope("XML0001")[:-20],
    "deep": envelope("XML0001", extra="<a>" * 3000 + "</a>" * 3000),
    "DTD": b'<!DOCTYPE x [<!ENTITY e "ABC">]>' + envelope("&e;").split(b"?>")[1],
    "external entity": b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + envelope("&e;").split(b"?>")[1],
    "wrong operation": envelope("XML0001").replace(b"GetProvisioningCredential", b"DropTable"),
    "a delegate's operation": envelope("XML0001").replace(b"GetProvisioningCredential", b"RequestCredential"),
    "wrong namespace": envelope("XML0001").replace(b"urn:delegator:provisioning:1", b"urn:other"),
    "lower-case tag": envelope("xml0001"),
    "Cyrillic tag": envelope("ХМL0001"),
    "tag cut at a comment": envelope("XML<!---->0001"),
    "short transaction id": envelope("XML0001", transaction="short"),
}


QUICK = ("not XML", "DTD", "tag cut at a comment")
"""Each starts a delegator; all of them are tried in the laboratory and by readers in milliseconds too."""


@pytest.mark.parametrize("body", [
    pytest.param(body, id=name, marks=() if name in QUICK else pytest.mark.slow) for name, body in HOSTILE.items()])
def test_TC1_TC4_what_is_not_understood_is_a_fault_and_costs_nothing(world: World, body: bytes) -> None:
    world.host("XML0001")
    world.start()
    reply = world.post(body, *world.paths("XML0001"))
    assert (reply.status, reply.fault) == (500, "MalformedRequest"), reply.body
    assert b"passwd" not in reply.body
    assert world.ask("XML0001").status == 200, "the device itself is still welcome"


def test_TC1_a_request_that_is_too_large_is_a_fault_too(world: World) -> None:
    """A model of that length is no model, and would be left out; 70 KB are more than is read."""
    world.host("XML0001")
    world.start()
    for size, told in ((50_000, (200, None)), (70_000, (413, "MalformedRequest"))):
        reply = world.post(envelope("XML0001", extra="<Model>" + "x" * size + "</Model>"), *world.paths("XML0001"))
        assert (reply.status, reply.fault) == told, reply.body


def test_an_unknown_path_or_method(world: World) -> None:
    world.start()
    client = http.client.HTTPSConnection("localhost", world.port, context=world.tls(*world.paths("HTTP002")))
    found = {}
    for method, target in (("GET", "/?wsdl"), ("GET", "/other"), ("POST", "/other"), ("DELETE", "/")):
        client.request(method, target)
        response = client.getresponse()
        response.read()
        found[f"{method} {target}"] = response.status
    client.close()
    assert found == {"GET /?wsdl": 200, "GET /other": 404, "POST /other": 404, "DELETE /": 405}


def test_no_secret_is_ever_written_in_the_clear(world: World) -> None:
    """R-sealed, R-secret: neither the log nor the database nor its journal holds a password or a transaction id."""
    world.own("CANARY1")
    world.host("CANARY2")
    world.start()
    secrets = [str(world.ask(tag).text("Password")) for tag in ("CANARY1", "CANARY2")] + [TRANSACTION]
    written = b"".join(path.read_bytes() for path in world.root.iterdir() if path.is_file())
    assert len(written) > 10_000
    for secret in secrets:
        assert secret.encode() not in written
        assert json.dumps(secret)[1:-1].encode() not in written


@pytest.mark.slow
def test_sigterm_lets_a_request_in_hand_be_answered(world: World) -> None:
    world.own("DRAIN01")
    world.start()
    world.delegate.mode = "slow"
    text = world.root / "delegator.toml"
    world.stop()
    text.write_text(text.read_text().replace("budget = 1.0", "budget = 5.0"))
    world.start()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(world.ask, "DRAIN01")
        assert world.delegate.in_hand.wait(5)
        assert world.stop() == 0
        assert asked.result().status == 200


def test_R_identity_a_serial_number_is_only_said_so_the_first_claim_binds_it(
        world: World, shared: tuple[Path, Path]) -> None:
    """A device registered by its serial number alone: the first own certificate takes it, no other tag after it, and
    a shared certificate, which proves no tag, never does."""
    world.store(lambda store: store.add_policy(Policy("either", identity=IdentityRule.EITHER), today()))
    world.store(lambda store: store.add_customer(Customer("globex", "Globex", policy="either"), today(), replace=True))
    world.store(lambda store: store.add_devices([Registration("globex", serial_number="SN-77")], today()))
    world.start()
    said = "<SerialNumber>SN-77</SerialNumber>"
    assert world.ask("SERI001", shown=shared, extra=said).fault == "NotEntitled"
    first = world.ask("SERI002", extra=said)
    assert first.status == 200
    assert world.ask("SERI003", extra=said).fault == "NotEntitled"
    assert world.ask("SERI002", extra=said).body == first.body
