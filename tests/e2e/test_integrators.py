"""Independent clients go through the whole call over loopback: openssl s_client, curl and zeep. A1, A2, A3, A13.

None of them shares a line with us: each brings its own TLS settings, HTTP and XML. The two scripts that integrators
start from are run as integrators run them, as processes with words, an exit code and two streams.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
import zeep
import zeep.exceptions
from zeep.transports import Transport

from delegator.model import ClaimState, Rule
from pki import Folder, Reason

from ..clock import today
from .conftest import NS, ROOT, SOAP11, TRANSACTION, Reply, World, confirmation, envelope

SOAP12 = "http://www.w3.org/2003/05/soap-envelope"
SCRIPTS = {"curl": [str(ROOT / "scripts" / "soap-call.sh")],
           "zeep": [sys.executable, str(ROOT / "scripts" / "soap_call.py")]}
Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def no_longer_welcome(factory: Folder, customer_ca: Folder) -> dict[str, Pair]:
    """Certificates that must not get in: one that ended a second ago, one of somebody else's authority."""
    ended = factory.issue("device", "INTEGEND1", days=0)
    foreign = customer_ca.issue("device", "INTEGFGN1")
    return {"expired": pair(ended.certificate_path), "unknown ca": pair(foreign.certificate_path)}


def pair(certificate: Path) -> Pair:
    return certificate, certificate.with_suffix(".key")


# --- openssl s_client ---------------------------------------------------------------------------------------------


def s_client(world: World, shown: Pair | None, *words: str, ask: bytes = b"",
             ca: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """openssl's own client, strict about whom it speaks with; `ask` is a whole HTTP request."""
    certificate = () if shown is None else ("-cert", shown[0], "-key", shown[1])
    return subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{world.port}", "-servername", "localhost", *certificate,
         "-CAfile", ca or world.factory.ca_path, "-verify_return_error", "-verify_hostname", "localhost", "-quiet",
         *words], input=ask, capture_output=True, check=False, timeout=20)


def http_request(body: bytes) -> bytes:
    return (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml; charset=utf-8\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)) + body


def http_reply(raw: bytes) -> Reply:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines)
    return Reply(int(first.split()[1]), {name.lower(): value.strip() for name, _, value in fields}, body)


@pytest.mark.counterpart("openssl")
class TestOpenssl:
    """A1: the TLS of somebody else, both versions."""

    def test_a1_a3_a13_the_whole_call(self, world: World) -> None:
        """A1, A3, A13: it checks us, we check it, it asks, it is answered, it confirms; each connection ends well."""
        versions = {"-tls1_2": "INTEG0001", "-tls1_3": "INTEG0011"}
        world.own(*versions.values())
        world.start()
        for version, tag in versions.items():
            done = s_client(world, world.paths(tag), version, ask=http_request(envelope(tag)))
            assert done.returncode == 0, done.stderr
            answer = http_reply(done.stdout)
            assert (answer.status, answer.credential[0]) == (200, "temp")
            assert str(answer.credential[1]).startswith("pass<&>\"'-")
            said = http_request(confirmation(str(answer.text("ClaimId"))))
            done = s_client(world, world.paths(tag), version, ask=said)
            assert (done.returncode, http_reply(done.stdout).status) == (0, 200)
        assert {claim.state for claim in world.store(lambda store: store.claims())} == {ClaimState.CONFIRMED}

    @pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
    def test_a1_who_is_refused_hears_by_which_alert(self, world: World, factory: Folder, version: str,
                                                    no_longer_welcome: dict[str, Pair]) -> None:
        """A1, blocks 210 and 211: revoked, expired, foreign or nothing shown; the request is never answered."""
        tag = f"INTEGRV{version[-1]}"
        revoked = world.paths(tag)
        factory.revoke([world.device(tag).serial], Reason.KEY_COMPROMISE, factory.authority())
        world.start()
        shown = {"certificate revoked": revoked, "certificate expired": no_longer_welcome["expired"],
                 "unknown ca": no_longer_welcome["unknown ca"],
                 "handshake failure" if version == "-tls1_2" else "certificate required": None}
        for alert, who in shown.items():
            done = s_client(world, who, version, ask=http_request(envelope(tag)))
            assert f"alert {alert}".encode() in done.stderr, done.stderr
            assert done.stdout == b""
        assert [trail["outcome"] for trail in world.trails()] == ["TlsRefused"] * 4

    def test_a1_a_delegator_of_another_authority_is_not_believed(self, world: World, customer_ca: Folder) -> None:
        """A1, block 207: the device's check of us is real."""
        world.start()
        done = s_client(world, world.paths("INTEG0002"), ask=http_request(envelope("INTEG0002")),
                        ca=customer_ca.ca_path)
        assert done.returncode != 0
        assert b"self-signed certificate in certificate chain" in done.stderr
        assert done.stdout == b""


# --- curl ---------------------------------------------------------------------------------------------------------


def curl(world: World, shown: Pair, body: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["curl", "-q", "--silent", "--show-error", "--include", "--noproxy", "*", "--cacert", world.factory.ca_path,
         "--cert", shown[0], "--key", shown[1], "--data-binary", f"@{body}", *words,
         f"https://localhost:{world.port}/"], capture_output=True, check=False, timeout=20)


@pytest.mark.counterpart("curl")
class TestCurl:
    def test_a3_a_file_is_posted_and_answered_in_its_own_soap_version(self, world: World, tmp_path: Path) -> None:
        """A3: with -H for the media type; a fault travels with the status its SOAP version wants."""
        world.own("INTEG0003")
        world.start()
        body = tmp_path / "ask.xml"
        for soap, media, refused in ((SOAP11, "text/xml", 500), (SOAP12, "application/soap+xml", 400)):
            body.write_bytes(envelope("INTEG0003", soap=soap))
            done = curl(world, world.paths("INTEG0003"), body, "-H", f"Content-Type: {media}; charset=utf-8")
            answer = http_reply(done.stdout)
            assert (done.returncode, answer.status, answer.credential) == (0, 200, ("temp", "pass<&>\"'-0"))
            assert answer.headers["content-type"].startswith(media)
            assert soap.encode() in answer.body
            stranger = http_reply(curl(world, world.paths("INTEG0004"), body).stdout)
            assert (stranger.status, stranger.fault) == (refused, "IdentityRejected")
            assert soap.encode() in stranger.body

    def test_a1_a_refused_certificate_ends_curl_with_the_reason(self, world: World, tmp_path: Path,
                                                                no_longer_welcome: dict[str, Pair]) -> None:
        world.start()
        body = tmp_path / "ask.xml"
        body.write_bytes(envelope("INTEGFGN1"))
        done = curl(world, no_longer_welcome["unknown ca"], body)
        assert done.returncode != 0
        assert b"unknown ca" in done.stderr


# --- zeep ---------------------------------------------------------------------------------------------------------


def zeep_client(world: World, shown: Pair) -> zeep.Client:
    session = requests.Session()
    session.trust_env = False
    session.cert = (str(shown[0]), str(shown[1]))
    session.verify = str(world.factory.ca_path)
    return zeep.Client(f"https://localhost:{world.port}/?wsdl", transport=Transport(session=session, timeout=10))


PORTS = {"DelegatorSoap11": "INTEG0005", "DelegatorSoap12": "INTEG0012"}
"""A binding for each SOAP version, and the device that uses it."""


class TestZeep:
    def test_a3_a13_it_reads_the_served_wsdl_and_makes_every_call(self, world: World) -> None:
        """A3, A13: typed in, typed out, from nothing but the WSDL; each operation, both bindings."""
        world.own(*PORTS.values())
        world.start()
        for port, tag in PORTS.items():
            service = zeep_client(world, world.paths(tag)).bind("Delegator", port)
            device = {"ServiceTag": tag, "SerialNumber": "S-1", "MacAddress": ["00:11:22:33:44:55"], "Model": "R7"}
            where = {"IPAddress": "192.0.2.7", "HostName": "bmc-42", "Domain": "acme.example"}
            answer = service.GetProvisioningCredential(Device=device, Location=where, TransactionId=TRANSACTION)
            assert answer.Credential.UserName == "temp"
            assert answer.Credential.Password.startswith("pass<&>\"'-")
            assert answer.Delegate.TrustAnchor.startswith("-----BEGIN CERTIFICATE-----")
            assert re.fullmatch("[0-9a-f]{32}", answer.ClaimId)
            service.NotifyAddressChange(Device=device, NewAddress="192.0.2.8")
            service.ConfirmProvisioning(ClaimId=answer.ClaimId, Result="Deployed")
        assert {claim.state for claim in world.store(lambda store: store.claims())} == {ClaimState.CONFIRMED}

    def test_a3_a_fault_arrives_as_a_fault_and_the_address_is_the_one_used(self, world: World) -> None:
        """A3: the code that a program decides by stands in the detail, in both SOAP versions; and the WSDL leads back
        to the delegator it was fetched from, by the name it was fetched by."""
        world.start()
        client = zeep_client(world, world.paths("INTEG0006"))
        for port in PORTS:
            with pytest.raises(zeep.exceptions.Fault) as caught:
                client.bind("Delegator", port).GetProvisioningCredential(
                    Device={"ServiceTag": "INTEG0006"}, TransactionId=TRANSACTION)
            assert caught.value.detail.findtext(f".//{NS}Code") == "NotEntitled"
        ports = client.wsdl.services["Delegator"].ports.values()
        assert {port.binding_options["address"] for port in ports} == {f"https://localhost:{world.port}/"}


# --- the scripts --------------------------------------------------------------------------------------------------


@pytest.fixture(params=[pytest.param("curl", marks=pytest.mark.counterpart("curl")), "zeep"])
def script(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def call(script: str, world: World, tag: str, *words: str, shown: Pair | None = None, ca: Path | None = None,
         host: str = "", environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    certificate, key = shown or world.paths(tag)
    return subprocess.run(
        [*SCRIPTS[script], "--host", host or f"localhost:{world.port}", "--cert", str(certificate), "--key", str(key),
         "--ca", str(ca or world.factory.ca_path), "--tag", tag, *words], capture_output=True, text=True, check=False,
        timeout=30, env={**os.environ, "PYTHONWARNINGS": "error", **(environment or {})})


def lines(stdout: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in stdout.splitlines())


class TestTheScripts:
    """What `scripts/` holds: one call each, the same words in, the same facts and exit codes out."""

    def test_a3_the_credential_is_printed_and_nothing_else_is_lost(self, script: str, world: World) -> None:
        """A3: a line for each fact, or one object with all; not a word on standard error."""
        world.own("INTEG0007")
        world.start()
        done = call(script, world, "INTEG0007", "--transaction-id", TRANSACTION)
        assert (done.returncode, done.stderr) == (0, "")
        told = lines(done.stdout)
        assert (told["user_name"], told["password"]) == ("temp", "pass<&>\"'-0")
        assert told["transaction_id"] == TRANSACTION
        done = call(script, world, "INTEG0007", "--json", environment={"TRANSACTION_ID": TRANSACTION})
        assert (done.returncode, done.stderr) == (0, "")
        facts = json.loads(done.stdout)
        assert set(facts) == {"user_name", "password", "not_after", "claim_id", "delegate_url", "trust_anchor",
                              "alternate_delegators", "transaction_id"}
        assert {name: facts[name] for name in told} == told
        assert facts["trust_anchor"].startswith("-----BEGIN CERTIFICATE-----")

    def test_a3_each_refusal_has_its_exit_code(self, script: str, world: World) -> None:
        """A3: NotEntitled, IdentityRejected, MalformedRequest 5; TryLater 75; Unavailable 1. The transaction id is
        told with each, because a retry needs the same one; and who may know better, where somebody may."""
        world.own("INTEG0008")
        world.store(lambda store: store.add_rule(Rule("elsewhere", delegator="second.example:4433"), today()))
        world.start()
        other = world.paths("INTEG0007")
        world.delegate.mode = "fault"
        ends = {
            "NotEntitled": (5, call(script, world, "INTEG0006", "--json")),
            "IdentityRejected": (5, call(script, world, "INTEG0008", "--json", shown=other)),
            "MalformedRequest": (5, call(script, world, "A&B<C>'\"", "--json", shown=other)),
            "TryLater": (75, call(script, world, "INTEG0008", "--json")),
        }
        with sqlite3.connect(world.settings.store.path) as database:
            database.execute("DROP TABLE claims")
        database.close()
        ends["Unavailable"] = (1, call(script, world, "INTEG0008", "--json"))
        for fault, (code, done) in ends.items():
            facts = json.loads(done.stdout)
            assert (done.returncode, facts["fault"]) == (code, fault), done.stderr
            assert facts["retry_after"] == (30 if fault == "TryLater" else None)
            assert len(facts["transaction_id"]) == 32
            assert facts["alternate_delegators"] == (["second.example:4433"] if fault == "NotEntitled" else [])
            assert f": {fault}: " in done.stderr
            assert ("ask again in 30 s" in done.stderr) is (fault == "TryLater")
        told = lines(call(script, world, "INTEG0006").stdout)
        assert (told["fault"], told["alternate_delegators"]) == ("NotEntitled", "second.example:4433")

    def test_a1_unreachable_or_not_believed_is_4(self, script: str, world: World, customer_ca: Folder,
                                                 no_longer_welcome: dict[str, Pair]) -> None:
        """A1: nobody there, a delegator we do not believe, a delegator that does not believe us."""
        world.start()
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            nobody = call(script, world, "INTEG0006", host=f"localhost:{unused.getsockname()[1]}")
        for done, word in ((nobody, "onnect"),
                           (call(script, world, "INTEG0006", ca=customer_ca.ca_path), "self-signed"),
                           (call(script, world, "INTEG0006", shown=no_longer_welcome["unknown ca"]), "unknown ca")):
            assert done.returncode == 4, done.stderr
            assert word in done.stderr
            assert "Traceback" not in done.stderr
            assert "password" not in done.stdout

    def test_a_wrong_word_is_2_and_help_tells_the_exit_codes(self, script: str, world: World) -> None:
        assert call(script, world, "INTEG0006", "--nonsense").returncode == 2
        assert call(script, world, "INTEG0006", ca=world.root / "nothing").returncode == 2
        told = subprocess.run([*SCRIPTS[script], "--help"], capture_output=True, text=True, check=True).stdout
        assert all(word in told for word in ("--host", "--transaction-id", "--json", "exit codes", "75"))

    def test_without_zeep_it_says_how_to_get_it(self) -> None:
        """`-S` is a Python without installed packages."""
        done = subprocess.run([sys.executable, "-S", *SCRIPTS["zeep"][-1:], "--help"], capture_output=True, text=True,
                              check=False, timeout=30)
        assert (done.returncode, done.stdout) == (2, "")
        assert "python3 -m pip install zeep" in done.stderr
        assert "Traceback" not in done.stderr

    def test_what_is_no_delegator_is_1(self, script: str, world: World, delegate_authority: Folder) -> None:
        """A server that takes our certificate and answers nonsense: told as such, without a traceback."""
        world.delegate.answer = lambda handler, body: world.delegate._nonsense(handler,
                                                                               "")  # type: ignore[method-assign]
        done = call(script, world, "INTEG0006", ca=delegate_authority.ca_path,
                    host=f"localhost:{world.delegate.port}")
        assert done.returncode == 1
        assert "is this a delegator?" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.counterpart("curl")
    def test_no_secret_stands_on_a_command_line(self, world: World, tmp_path: Path) -> None:
        """Every user of a machine can read every command line; so the shell script's programs are watched."""
        world.own("INTEG0009")
        world.start()
        seen, tools = tmp_path / "seen", tmp_path / "tools"
        tools.mkdir()
        for name in ("curl", "python3", "sed", "cat"):
            real = subprocess.run(["/bin/sh", "-c", f"command -v {name}"], capture_output=True, text=True,
                                  check=True).stdout.strip()
            (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >>"{seen}"\nexec {real} "$@"\n')
            (tools / name).chmod(0o755)
        done = call("curl", world, "INTEG0009", environment={
            "TRANSACTION_ID": TRANSACTION, "PATH": f"{tools}:{os.environ['PATH']}"})
        assert done.returncode == 0
        watched = seen.read_text()
        assert all(f"{name} " in watched for name in ("curl", "python3", "sed"))
        for secret in (TRANSACTION, lines(done.stdout)["password"]):
            assert secret not in watched


@pytest.mark.counterpart("curl")
def test_a3_both_scripts_tell_the_same(world: World) -> None:
    """A3: the device that asks twice gets one answer, whoever asks for it."""
    world.own("INTEG0010")
    world.start()
    told: list[dict[str, Any]] = [
        json.loads(call(script, world, "INTEG0010", "--json", "--transaction-id", TRANSACTION).stdout)
        for script in SCRIPTS]
    assert told[0] == told[1]
