"""The shared certificate made unique, over real connections, with requests that openssl made (R-enrolled, A2)."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from delegator import config
from delegator.model import ClaimState, Customer, Delegate, HostedCallback, IdentityRule, Policy, Secret
from pki import Folder

from ..clock import today
from .conftest import ROOT, TRANSACTION, Reply, World, envelope

pytestmark = pytest.mark.counterpart("openssl")
OTHER = "another-transaction-01"


def openssl(*words: str, given: str = "") -> str:
    return subprocess.run(["openssl", *words], input=given, capture_output=True, text=True, check=True).stdout


class Device:
    """One that came with the shared certificate: its key and requests are made by openssl."""

    def __init__(self, world: World, shared: tuple[Path, Path], tag: str, make: str = "-name prime256v1") -> None:
        self.world, self.shared, self.tag = world, shared, tag
        self.key = world.root / f"{tag}-{time.monotonic_ns()}.key"
        self.certificate = self.key.with_suffix(".crt")
        words = ["ecparam", *make.split(), "-genkey"] if make.startswith("-name") else make.split()
        self.key.write_text(openssl(*words))

    def request(self, subject: str = "/CN=whatever", *more: str) -> str:
        pem = openssl("req", "-new", "-key", str(self.key), "-subj", subject, *more)
        return "".join(pem.splitlines()[1:-1])

    def ask(self, *, transaction: str = TRANSACTION, request: str | None = "", own: bool = False) -> Reply:
        """With a fresh request unless told otherwise; with the shared certificate or, later, with its own."""
        request = self.request() if request == "" else request
        said = f"<CertificateRequest>{request}</CertificateRequest>" if request else ""
        body = envelope(self.tag, transaction).replace(b"</GetProv", said.encode() + b"</GetProv")
        return self.world.post(body, *self.shown(own))

    def confirm(self, reply: Reply, *, own: bool = False, transaction: str | None = TRANSACTION) -> Reply:
        return self.world.confirm(self.tag, reply.text("ClaimId"), shown=self.shown(own), transaction=transaction)

    def shown(self, own: bool) -> tuple[Path, Path]:
        return (self.certificate, self.key) if own else self.shared

    def keep(self, reply: Reply) -> x509.Certificate:
        pem = reply.text("HandshakeCertificate")
        assert pem is not None
        self.certificate.write_text(pem)
        return x509.load_pem_x509_certificate(pem.encode())


def configure(world: World, **enrolment: Any) -> None:
    settings = replace_in(world.settings, enrolment=config.Enrolment(**enrolment))
    world.settings = settings
    (world.root / "delegator.toml").write_text(config.as_toml(settings))


def replace_in(settings: config.Settings, **sections: Any) -> config.Settings:
    known = {name: getattr(settings, name) for name in settings.__struct_fields__}
    return config.Settings(**{**known, **sections})


@pytest.fixture
def enrolling(world: World, factory: Folder) -> World:
    """Globex lets the shared certificate in; the factory's own authority signs online."""
    configure(world, enabled=True, certificate=str(factory.ca_path), key=str(factory.key_path))
    world.store(lambda store: store.add_policy(Policy("either", identity=IdentityRule.EITHER), today()))
    for name in ("globex", "acme"):
        world.store(lambda store, name=name: store.add_customer(Customer(name, name.title(), policy="either"), today(),
                                                                replace=True))
    return world


Make = Callable[..., Device]


@pytest.fixture
def make(enrolling: World, shared: tuple[Path, Path]) -> Make:
    def device(tag: str, **more: Any) -> Device:
        return Device(enrolling, shared, tag, **more)
    return device


def enrolled(world: World, tag: str) -> Any:
    return world.store(lambda store: store.enrolments.of_tag(tag))


@pytest.mark.parametrize("customer", ["globex", "acme"])
def test_a2_a_device_with_the_shared_certificate_gets_its_own_with_the_answer(
        enrolling: World, make: Make, factory: Folder, customer: str) -> None:
    """In one call, hosted or with a delegate: signed by the factory, for its tag and its key, and on record."""
    (enrolling.host if customer == "globex" else enrolling.own)("UNIQ001")
    enrolling.start()
    device = make("UNIQ001")
    reply = device.ask()
    assert reply.status == 200
    certificate = device.keep(reply)
    assert certificate.subject.rfc4514_string() == "CN=UNIQ001", "whatever its request calls itself"
    assert openssl("verify", "-purpose", "sslclient", "-CAfile", str(factory.ca_path), str(device.certificate))
    assert openssl("x509", "-in", str(device.certificate), "-noout", "-pubkey") == openssl(
        "pkey", "-in", str(device.key), "-pubout")
    (kept,) = enrolled(enrolling, "UNIQ001")
    assert int(kept.serial, 16) == certificate.serial_number
    assert (kept.claim_id, kept.used) == (reply.text("ClaimId"), False)
    assert device.ask(own=True, request=None).credential == reply.credential


def test_R_enrolled_a_lost_answer_is_given_again_to_the_byte_until_it_is_confirmed(
        enrolling: World, make: Make) -> None:
    enrolling.host("LOST001")
    enrolling.start()
    device = make("LOST001")
    first = device.ask()
    assert device.ask().body == first.body, "another signature, the same key"
    assert device.ask(request=None).body == first.body
    enrolling.stop(signal.SIGKILL)
    enrolling.start()
    assert device.ask().body == first.body
    assert len(enrolled(enrolling, "LOST001")) == 1
    assert device.confirm(first).status == 200, "with the shared certificate and the secret"
    assert device.confirm(first).status == 200, "repeating it is harmless"
    assert device.ask().fault == "NotEntitled"
    assert enrolled(enrolling, "LOST001")[0].used


def test_R_enrolled_from_its_first_use_the_own_certificate_holds_the_claim_and_the_shared_one_is_refused(
        enrolling: World, make: Make) -> None:
    enrolling.host("USED001")
    enrolling.start()
    device = make("USED001")
    first = device.ask()
    device.keep(first)
    again = device.ask(own=True, request=None)
    assert again.credential == first.credential
    assert again.text("ClaimId") == first.text("ClaimId")
    assert device.ask().fault == "NotEntitled"
    assert device.confirm(first).fault == "NotEntitled", "nor may the shared one end it"
    assert device.confirm(first, own=True, transaction=None).status == 200
    (claim,) = enrolling.store(lambda store: store.claims())
    assert claim.state is ClaimState.CONFIRMED


def test_R_enrolled_confirming_with_the_own_certificate_needs_no_other_use_of_it(enrolling: World, make: Make) -> None:
    enrolling.host("CONF001")
    enrolling.start()
    device = make("CONF001")
    first = device.ask()
    device.keep(first)
    assert device.confirm(first, own=True, transaction=None).status == 200
    assert device.ask().fault == "NotEntitled"
    assert device.ask(transaction=OTHER).fault == "NotEntitled"


def test_R_enrolled_released_it_stays_refused_until_an_operator_forgets_it(enrolling: World, make: Make) -> None:
    """Released, the tag is free for its own certificate alone; forgotten, that one is withdrawn and all begins anew."""
    enrolling.host("FREE001")
    enrolling.start()
    device = make("FREE001")
    first = device.ask()
    device.keep(first)
    device.confirm(first, own=True)
    command(enrolling, "claims", "release", "FREE001")
    assert device.ask().fault == "NotEntitled"
    assert device.ask(transaction=OTHER).fault == "NotEntitled"
    second = device.ask(own=True, request=None)
    assert second.status == 200
    assert second.text("ClaimId") != first.text("ClaimId")
    command(enrolling, "claims", "release", "FREE001")
    command(enrolling, "enrolments", "forget", "FREE001", "--because", "main board replaced")
    repaired = make("FREE001")
    third = repaired.ask(transaction=OTHER)
    assert third.status == 200
    assert repaired.keep(third).serial_number != x509.load_pem_x509_certificate(
        device.certificate.read_bytes()).serial_number
    until_refused(lambda: device.ask(own=True, request=None))
    assert repaired.ask(own=True, request=None).credential == third.credential


def until_refused(ask: Callable[[], Reply], seconds: float = 15, pause: float = 0.3) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(ConnectionError):
            try:
                ask()
            except ssl.SSLError as error:
                if "revoked" in str(error):
                    return
        time.sleep(pause)
    raise AssertionError("it was not refused")


def test_R_enrolled_another_key_under_the_same_transaction_is_a_second_claimant(enrolling: World, make: Make) -> None:
    enrolling.host("KEYS001")
    enrolling.start()
    first, thief = make("KEYS001"), make("KEYS001")
    reply = first.ask()
    assert thief.ask().fault == "NotEntitled"
    assert thief.ask(transaction=OTHER).fault == "NotEntitled"
    assert first.ask().body == reply.body
    assert len(enrolled(enrolling, "KEYS001")) == 1


def test_R_enrolled_a_lapsed_claim_leaves_the_tag_to_who_was_enrolled(enrolling: World, make: Make) -> None:
    """The certificate may be on that device: nobody else gets another one for the tag by waiting for the lease."""
    enrolling.host("LAPS001")
    enrolling.store(lambda store: store.add_policy(
        Policy("either", identity=IdentityRule.EITHER, lease=timedelta(seconds=4)), today(), replace=True))
    enrolling.start()
    device, thief = make("LAPS001"), make("LAPS001")
    first = device.ask()
    time.sleep(4.2)
    assert thief.ask(transaction=OTHER).fault == "NotEntitled"
    second = device.ask()
    assert second.text("ClaimId") != first.text("ClaimId")
    assert second.text("HandshakeCertificate") == first.text("HandshakeCertificate")
    device.keep(second)
    assert device.confirm(second, own=True).status == 200


KEYS = {"-name prime256v1": True, "-name secp384r1": True, "genrsa 2048": True, "genrsa 1024": False,
        "-name secp256k1": False, "genpkey -algorithm ed25519": False}


def test_a2_keys_are_judged_as_partners_are(enrolling: World, make: Make) -> None:
    """P-256, P-384 and RSA from 2048 bits on; what openssl makes otherwise is no key for us."""
    tags = {f"KIND{number:03}": kind for number, kind in enumerate(KEYS)}
    enrolling.host(*tags)
    enrolling.start()
    for tag, kind in tags.items():
        reply = make(tag, make=kind).ask()
        assert reply.fault == (None if KEYS[kind] else "MalformedRequest"), kind
        assert (reply.text("HandshakeCertificate") is not None) is KEYS[kind]


def test_a_bad_request_is_malformed_whatever_the_tag(enrolling: World, make: Make) -> None:
    """It is looked at before anything is looked up; a signature by another key proves nothing."""
    enrolling.host("REGD001")
    enrolling.start()
    answers = set()
    for tag in ("REGD001", "NONE001"):
        device = make(tag)
        der = base64.b64decode(device.request())
        for bad in (b"hello", der[:-5], der[:-1] + bytes([der[-1] ^ 1])):
            reply = device.ask(request=base64.b64encode(bad).decode())
            assert reply.fault == "MalformedRequest"
            answers.add(reply.body)
    assert len(answers) == 1
    assert enrolling.store(lambda store: store.claims()) == []


def test_an_own_certificate_and_a_policy_for_shared_ones_get_none(enrolling: World, make: Make) -> None:
    enrolling.host("OWNC001", "ONLY001")
    enrolling.start()
    device = make("OWNC001")
    device.shared = enrolling.paths("OWNC001")
    assert device.ask().text("HandshakeCertificate") is None
    enrolling.store(lambda store: store.add_policy(Policy("either", identity=IdentityRule.SHARED), today(),
                                                   replace=True))
    reply = make("ONLY001").ask()
    assert (reply.status, reply.text("HandshakeCertificate")) == (200, None)


def test_off_by_default_nothing_changes(world: World, shared: tuple[Path, Path]) -> None:
    world.store(lambda store: store.add_policy(Policy("either", identity=IdentityRule.EITHER), today()))
    world.store(lambda store: store.add_customer(Customer("globex", "Globex", policy="either"), today(), replace=True))
    world.host("OFFD001")
    world.start()
    reply = Device(world, shared, "OFFD001").ask()
    assert (reply.status, reply.text("HandshakeCertificate")) == (200, None)


# --- an authority beside the factory's ------------------------------------------------------------------------------


def command(world: World, *words: str, given: str | None = None, code: int = 0) -> str:
    done = subprocess.run([sys.executable, "-m", "delegator", "--config", str(world.root / "delegator.toml"), *words],
                          capture_output=True, text=True, check=False, input=given, cwd=ROOT)
    assert done.returncode == code, done.stderr
    return done.stdout


def pki(*words: str, given: str | None = None) -> str:
    return subprocess.run([sys.executable, "-m", "pki", *words], input=given, capture_output=True, text=True,
                          check=True, cwd=ROOT).stdout


def beside(world: World, factory: Folder) -> Path:
    """An authority for enrolment alone: its anchor and list beside the factory's."""
    folder = world.root / "enrolment-pki"
    (world.root / "secret").write_text("correct horse\n")
    (world.root / "secret").chmod(0o600)
    pki("init", "--dir", str(folder), "--name", "Enrolment CA", "--passphrase-file", str(world.root / "secret"))
    anchors, lists = world.root / "anchors.pem", world.root / "lists.pem"
    anchors.write_text(factory.ca_path.read_text() + (folder / "ca.crt").read_text())
    lists.write_text(factory.crl_path.read_text() + (folder / "crl.pem").read_text())
    server = world.settings.server
    known = {name: getattr(server, name) for name in server.__struct_fields__}
    told = config.Server(**{**known, "ca": str(anchors), "crl": str(lists)})
    world.settings = replace_in(world.settings, server=told)
    configure(world, enabled=True, certificate=str(folder / "ca.crt"), key=str(folder / "ca.key"),
              passphrase_file=str(world.root / "secret"), days=400)
    return folder


def test_a2_revoked_here_it_is_refused_in_seconds_and_by_everybody_from_the_list_on(
        enrolling: World, make: Make, factory: Folder) -> None:
    """`delegator enrolments revoke`, export, `python -m pki adopt`: the ledger and the list of the authority know."""
    folder = beside(enrolling, factory)
    enrolling.host("GONE001", "STAY001")
    enrolling.start()
    gone, stay = make("GONE001"), make("STAY001")
    for device in (gone, stay):
        certificate = device.keep(device.ask())
        assert certificate.issuer.rfc4514_string() == "CN=Enrolment CA"
        assert device.ask(own=True, request=None).status == 200
    command(enrolling, "enrolments", "revoke", "GONE001", "--reason", "keyCompromise")
    assert "already" in subprocess.run(
        [sys.executable, "-m", "delegator", "--config", str(enrolling.root / "delegator.toml"), "enrolments", "revoke",
         "GONE001"], capture_output=True, text=True, check=False, cwd=ROOT).stderr
    until_refused(lambda: gone.ask(own=True, request=None))
    assert stay.ask(own=True, request=None).status == 200
    assert gone.ask().fault == "NotEntitled", "revoked is not forgotten"

    exported = command(enrolling, "enrolments", "export")
    words = ("adopt", "-", "--dir", str(folder), "--passphrase-file", str(enrolling.root / "secret"), "--json")
    taken = json.loads(pki(*words, given=exported))
    assert (taken["entered"], taken["revoked"], taken["foreign"]) == (2, 1, 0)
    assert json.loads(pki(*words, given=exported))["known"] == 2, "once more changes nothing"
    listed = x509.load_pem_x509_crl((folder / "crl.pem").read_bytes())
    assert [one.serial_number for one in listed] == [x509.load_pem_x509_certificate(
        gone.certificate.read_bytes()).serial_number]
    assert openssl("verify", "-crl_check", "-CAfile", str(folder / "ca.crt"), "-CRLfile", str(folder / "crl.pem"),
                   str(stay.certificate))
    with pytest.raises(subprocess.CalledProcessError):
        openssl("verify", "-crl_check", "-CAfile", str(folder / "ca.crt"), "-CRLfile", str(folder / "crl.pem"),
                str(gone.certificate))
    enrolling.stop()
    enrolling.start()
    until_refused(lambda: gone.ask(own=True, request=None), 1)


def test_an_authority_for_enrolment_alone_vouches_for_no_server(enrolling: World, make: Make, factory: Folder) -> None:
    """Its key lies on a machine that talks to the world: devices are not told to trust delegates that it signed."""
    beside(enrolling, factory)
    enrolling.store(lambda store: store.add_delegate(Delegate(
        "globex-hosted", "globex", HostedCallback("root",
                                                  Secret("x")), url="https://globex.example/"), today(), replace=True))
    enrolling.host("TRST001")
    enrolling.start()
    anchor = make("TRST001").ask().text("TrustAnchor")
    assert anchor is not None
    assert [one.subject.rfc4514_string() for one in x509.load_pem_x509_certificates(anchor.encode())] == [
        factory.ca_certificate.subject.rfc4514_string()]


@pytest.mark.parametrize(("wrong", "said"), [
    ("not an anchor", "not among the anchors"), ("not an issuer", "not among [server] issuers"),
    ("open key", "can be read by others"), ("no key", "No such file"), ("wrong passphrase", "passphrase")])
def test_an_authority_that_is_not_in_order_is_told_at_the_start(enrolling: World, factory: Folder, wrong: str,
                                                                said: str) -> None:
    folder = beside(enrolling, factory)
    if wrong == "not an anchor":
        (enrolling.root / "anchors.pem").write_text(factory.ca_path.read_text())
    if wrong == "not an issuer":
        toml = enrolling.root / "delegator.toml"
        toml.write_text(toml.read_text().replace('issuers = ""', f'issuers = "{factory.ca_path}"'))
    if wrong == "open key":
        (folder / "ca.key").chmod(0o644)
    if wrong == "no key":
        (folder / "ca.key").unlink()
    if wrong == "wrong passphrase":
        (enrolling.root / "secret").write_text("battery staple\n")
    done = subprocess.run([sys.executable, "-m", "delegator", "--config", str(enrolling.root / "delegator.toml"),
                           "serve"], capture_output=True, text=True, check=False, cwd=ROOT, timeout=30)
    assert done.returncode == 3
    assert said in done.stderr


def test_the_commands_show_what_was_issued(enrolling: World, make: Make) -> None:
    enrolling.host("SHOW001")
    enrolling.start()
    device = make("SHOW001")
    device.keep(device.ask())
    (shown,) = json.loads(command(enrolling, "enrolments", "show", "SHOW001", "--json"))
    assert (shown["state"], shown["certificate"]) == ("issued", device.certificate.read_text())
    assert "binding" not in shown
    device.ask(own=True, request=None)
    (listed,) = json.loads(command(enrolling, "enrolments", "list", "--json", "--state", "used"))
    assert listed["service_tag"] == "SHOW001"
    assert "SHOW001" in command(enrolling, "enrolments", "list")
    command(enrolling, "enrolments", "show", "NONE001", code=1)
    command(enrolling, "enrolments", "forget", "NONE001", code=1)


def test_the_device_client_does_all_of_it(enrolling: World, shared: tuple[Path, Path]) -> None:
    """The real client against the real delegator: it ends with its own certificate and confirmed with that."""
    enrolling.host("REAL001")
    enrolling.start()
    own = enrolling.root / "own"
    done = subprocess.run(
        [sys.executable, "-m", "delegator.device", "activate", "--once", "--json", "--delegator",
         f"localhost:{enrolling.port}", "--certificate", str(shared[0]), "--key", str(shared[1]), "--ca",
         str(enrolling.factory.ca_path), "--tag", "REAL001", "--state", str(enrolling.root / "state"), "--own",
         str(own)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (kept,) = enrolled(enrolling, "REAL001")
    assert (own / "handshake.pem").read_text() == kept.certificate
    (claim,) = enrolling.store(lambda store: store.claims())
    assert (claim.state, claim.binding) == (ClaimState.CONFIRMED, f"key:{kept.key_fingerprint}")
