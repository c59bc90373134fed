"""A shared certificate becomes an own one on the device: key, request, checks, and every cut in between (A2, A12)."""

from __future__ import annotations

import base64
import datetime
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from delegator.device import enrolling, flow, options
from delegator.device.certificate import common_names
from delegator.device.settings import Own
from delegator.device.state import Folder

DAY = datetime.timedelta(days=1)
pytestmark = pytest.mark.counterpart("openssl")


@pytest.fixture
def shared(lab):
    return lab.pki.factory.leaf("shared-device")


@pytest.fixture
def own(lab):
    return lab.folder / "own"


def certificate(lab, name, key):
    """Signed by the factory for a public key."""
    factory, now = lab.pki.factory, datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = x509.CertificateBuilder(factory.subject, subject, key, x509.random_serial_number(), now - DAY, now + DAY)
    return made.sign(factory.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def enrols(lab, say, name=None, key=None):
    """The reply of a delegator that certifies what it is asked for, or something else."""
    def reply(heard):
        request = x509.load_der_x509_csr(base64.b64decode(heard.value("CertificateRequest")))
        assert request.is_signature_valid
        pem = certificate(lab, name or say.TAG, key or request.public_key())
        return say.answer(more=f"<HandshakeCertificate>{pem}</HandshakeCertificate>")
    return reply


def test_a2_a_device_makes_its_key_gets_its_certificate_and_confirms_with_it(lab, say, shared, own):
    """R-enrolled: the key is made here and stays here; from its certificate on nothing else is shown."""
    delegator = lab.delegator(enrols(lab, say), say.CONFIRMED)
    assert lab.run(delegator, "--own", str(own), leaf=shared)["outcome"] == "ready"
    asked, confirmed = delegator.heard
    assert (asked.common_name, confirmed.common_name) == ("shared-device", say.TAG)
    assert confirmed.value("TransactionId") == asked.value("TransactionId")
    request = x509.load_der_x509_csr(base64.b64decode(asked.value("CertificateRequest")))
    assert request.subject.rfc4514_string() == f"CN={say.TAG}"
    assert isinstance(request.public_key().curve, ec.SECP256R1)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in own.iterdir()}
    assert modes == {"handshake.key": 0o600, "handshake.pem": 0o600}
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert common_names((own / "handshake.pem").read_text()) == [say.TAG]


def test_a2_it_outlives_the_state_folder(lab, say, shared, own):
    """A factory reset clears the state; the own certificate stays, and is all that is shown from then on."""
    lab.run(lab.delegator(enrols(lab, say), say.CONFIRMED), "--own", str(own), leaf=shared)
    for file in lab.state.iterdir():
        file.unlink()
    delegator = lab.delegator(say.answer(), say.CONFIRMED)
    assert lab.run(delegator, "--own", str(own), leaf=shared)["outcome"] == "ready"
    assert [heard.common_name for heard in delegator.heard] == [say.TAG, say.TAG]
    assert delegator.heard[0].value("CertificateRequest") is None


def test_a_lost_answer_is_asked_for_again_with_the_same_key_and_id(lab, say, shared, own):
    delegator = lab.delegator(None, enrols(lab, say), say.CONFIRMED)
    assert lab.run(delegator, "--own", str(own), leaf=shared)["outcome"] == "ready"
    first, second = (x509.load_der_x509_csr(base64.b64decode(heard.value("CertificateRequest")))
                     for heard in delegator.heard[:2])
    assert first.public_key() == second.public_key()
    assert len({heard.value("TransactionId") for heard in delegator.heard}) == 1


@pytest.mark.parametrize("wrong", ["name", "key", "no certificate", "empty"])
def test_what_is_not_for_this_key_and_tag_is_not_kept(lab, say, shared, own, wrong):
    """The credential is good all the same: the device goes on with what it came with."""
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    odd = {"name": enrols(lab, say, name="ABC9999"), "key": enrols(lab, say, key=other),
           "no certificate": say.answer(more="<HandshakeCertificate>hello</HandshakeCertificate>"),
           "empty": say.answer(more="<HandshakeCertificate/>")}[wrong]
    delegator = lab.delegator(odd, say.CONFIRMED)
    assert lab.run(delegator, "--own", str(own), leaf=shared)["outcome"] == "ready"
    assert delegator.heard[1].common_name == "shared-device"
    assert [path.name for path in own.iterdir()] == ["handshake.key"]


def test_a_device_that_has_its_own_certificate_asks_for_none(lab, say, own):
    delegator = lab.delegator(say.answer(), say.CONFIRMED)
    lab.run(delegator, "--own", str(own))
    assert delegator.heard[0].value("CertificateRequest") is None
    assert not list(own.iterdir())


@pytest.mark.parametrize("code", ["NotEntitled", "IdentityRejected"])
def test_where_the_shared_certificate_is_refused_the_own_one_is_shown(lab, say, shared, own, code):
    """A device that was cut off after it had stored its certificate and before it knew: it learns better."""
    lab.fails(lab.delegator(enrols(lab, say), None), "client-refused", "--own", str(own), leaf=shared)
    state = lab.state / "state.json"
    state.write_text(state.read_text().replace('"own": true', '"own": false').replace('"applied"', '"asking"'))
    delegator = lab.delegator(say.fault(code), say.answer(), say.CONFIRMED)
    assert lab.run(delegator, "--own", str(own), leaf=shared)["outcome"] == "ready"
    assert [heard.common_name for heard in delegator.heard] == ["shared-device", say.TAG, say.TAG]


def test_where_the_own_certificate_was_withdrawn_the_device_begins_anew_with_the_shared_one(lab, say, shared, own):
    """An operator who forgot the enrolment lets it come again; it is refused in TLS until then."""
    lab.run(lab.delegator(enrols(lab, say), say.CONFIRMED), "--own", str(own), leaf=shared)
    other = lab.delegator(say.answer(), client_ca=lab.pki.owner.file)
    facts = lab.fails(other, "client-refused", "--own", str(own), "--again", leaf=shared)
    assert facts["phase"] == "asking"
    delegator = lab.delegator(enrols(lab, say), say.CONFIRMED)
    assert lab.run(delegator, "--own", str(own), leaf=shared)["outcome"] == "ready"
    assert [heard.common_name for heard in delegator.heard] == ["shared-device", say.TAG]


def test_a_copied_disk_brings_no_other_devices_certificate_nor_key(lab, say, shared, own):
    lab.run(lab.delegator(enrols(lab, say, name=None), say.CONFIRMED), "--own", str(own), leaf=shared)
    pem, key = (own / "handshake.pem").read_text(), (own / "handshake.key").read_bytes()
    kept = Own(own / "handshake.key", own)
    assert enrolling.is_usable(kept, say.TAG)
    flow.resume(Folder(lab.state), "ABC9999", False, 1.0, kept)
    assert not list(own.iterdir())
    assert common_names(pem) == [say.TAG]
    assert key


def test_a_damaged_certificate_is_none(lab, say, shared, own):
    """Half a certificate, somebody else's key: the device begins again with what it was made with."""
    lab.run(lab.delegator(enrols(lab, say), say.CONFIRMED), "--own", str(own), leaf=shared)
    path = own / "handshake.pem"
    path.write_text(path.read_text()[:300])
    delegator = lab.delegator(enrols(lab, say), say.CONFIRMED)
    assert lab.run(delegator, "--own", str(own), "--again", leaf=shared)["outcome"] == "ready"
    assert [heard.common_name for heard in delegator.heard] == ["shared-device", say.TAG]


def test_another_command_makes_the_request(lab, say, shared, own):
    """For keys that are made elsewhere: it is told where the key belongs, and says the request."""
    script = lab.folder / "make.sh"
    script.write_text("""set -eu
umask 077
[ -s "$DELEGATOR_KEY_FILE" ] || openssl genrsa -out "$DELEGATOR_KEY_FILE" 2048 2>/dev/null
openssl req -new -key "$DELEGATOR_KEY_FILE" -subj "/CN=$DELEGATOR_SERVICE_TAG"
""")
    delegator = lab.delegator(enrols(lab, say), say.CONFIRMED)
    facts = lab.run(delegator, "--own", str(own), "--request-command", f"sh {script}", leaf=shared)
    assert facts["outcome"] == "ready"
    assert delegator.heard[1].common_name == say.TAG
    assert b"PRIVATE KEY" in (own / "handshake.key").read_bytes()


@pytest.mark.parametrize(("command", "said"), [("false", "cannot make"), ("echo hello", "left no key")])
def test_a_command_that_makes_no_request_may_make_one_later(lab, say, shared, own, command, said):
    """At the first boot there may be too little entropy."""
    delegator = lab.delegator(say.answer())
    facts = lab.fails(delegator, "own-trouble", "--own", str(own), "--request-command", command, leaf=shared)
    assert said in facts["detail"]
    assert not delegator.heard


def test_a_command_that_is_none_is_a_matter_for_a_person_but_not_on_a_device_that_is_ready(lab, say, shared, own):
    words = ("--own", str(own), "--request-command", "no-such-command")
    delegator = lab.delegator(say.answer(), say.CONFIRMED)
    facts = lab.run(delegator, *words, leaf=shared)
    assert (facts["exit_code"], delegator.heard) == (3, [])
    assert "--request-command" in facts["detail"]
    assert lab.run(delegator, leaf=shared)["outcome"] == "ready"
    assert lab.run(delegator, *words, leaf=shared)["outcome"] == "already-ready"


def test_a_request_that_was_made_before_serves_as_well(lab, say, shared):
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    (lab.folder / "request.pem").write_bytes(request.public_bytes(serialization.Encoding.PEM))
    (lab.folder / "request.key").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    delegator = lab.delegator(enrols(lab, say), say.CONFIRMED)
    assert lab.run(delegator, "--certificate-request", str(lab.folder / "request.pem"), "--request-key",
                   str(lab.folder / "request.key"), leaf=shared)["outcome"] == "ready"
    assert [heard.common_name for heard in delegator.heard] == ["shared-device", say.TAG]


@pytest.mark.parametrize("more", [
    ["--request-key", "k"], ["--own", "o", "--certificate-request", "r", "--request-key", "k"],
    ["--request-command", "x"]])
def test_words_that_contradict_each_other(lab, more):
    assert options.contradiction(options.parser().parse_args(lab.words("localhost:1", *more)))


@pytest.mark.parametrize("moment", ["making the key", "asking", "keeping", "confirming"])
def test_a12_a_power_cut_leads_to_one_certificate_for_one_key(lab, say, shared, own, moment):
    """Killed at each step; the next start uses the same key and the same transaction id, and ends ready."""
    reached, release = threading.Event(), threading.Event()
    certifies = enrols(lab, say)

    def answers(heard):
        asking = "<Device>" in heard.body
        if not reached.is_set() and moment == ("asking" if asking else "confirming"):
            reached.set()
            release.wait(20)
        return certifies(heard) if asking and heard.value("CertificateRequest") else (
            say.answer() if asking else say.CONFIRMED)

    delegator = lab.delegator(answers)
    words = ["--own", str(own)]
    script = lab.folder / "device.py"
    script.write_text(f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from delegator.device import enrolling, main, state
moment, mark = {moment!r}, {str(lab.folder / 'mark')!r}
run, write = enrolling._run, state.Folder.write
def stop():
    open(mark, "w").close()
    time.sleep(60)
def slow(command, *more):
    made = run(command, *more)
    if moment == "making the key" and "ecparam" in command:
        stop()
    return made
def cut(self, name, content):
    path = write(self, name, content)
    if moment == "keeping" and name == "handshake.pem":
        stop()
    return path
enrolling._run, state.Folder.write = slow, cut
sys.exit(main({lab.words(delegator, *words, leaf=shared)!r}))
""")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as one:
        deadline = time.monotonic() + 15
        while not (reached.is_set() or (lab.folder / "mark").exists()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        one.send_signal(signal.SIGKILL)
    release.set()
    before = lab.saved()["transaction_id"]
    key = (own / "handshake.key").read_bytes() if moment != "making the key" else None
    assert lab.run(delegator, *words, leaf=shared)["outcome"] == "ready"
    assert {heard.value("TransactionId") for heard in delegator.heard} == {before}
    assert key in (None, (own / "handshake.key").read_bytes())
    assert delegator.heard[-1].common_name == say.TAG
    assert enrolling.is_usable(Own(own / "handshake.key", own), say.TAG)
    assert {path.name for path in own.iterdir()} == {"handshake.key", "handshake.pem"}


# --- the reader of names ------------------------------------------------------------------------------------------


def test_common_names_as_others_read_them(lab, say):
    for name in ("ABC1234", "shared-device", "ünïcode", "x" * 64):
        pem = certificate(lab, name, ec.generate_private_key(ec.SECP256R1()).public_key())
        assert common_names(pem) == [name]
    assert common_names("a line before\n" + Path(lab.pki.device.certificate).read_text() * 2) == [say.TAG]


def test_common_names_of_whatever_bytes(lab):
    """Cut, flipped, nonsense: names or none, never an exception."""
    pem = Path(lab.pki.device.certificate).read_text()
    body = base64.b64decode("".join(pem.splitlines()[1:-1]))

    def armoured(der: bytes) -> str:
        return f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n"
    for size in range(len(body)):
        common_names(armoured(body[:size]))
    for at in range(len(body)):
        common_names(armoured(body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1:]))
    for text in ("", "hello", pem[:-40], armoured(b""), armoured(b"\x30\x80"), armoured(b"\x30\x84\xff\xff\xff\xff")):
        assert common_names(text) == []
