"""TLS without a socket (A1, blocks 205-211): our session against the standard library's, joined by memory alone."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type

from delegator.errors import DelegatorError
from delegator.wire import certificate, tls
from delegator.wire.certificate import LARGEST, TOLD, dns_names, read_certificate
from delegator.wire.tls import Session, TlsContext, client_context, server_context
from pki import Folder, Issued, Reason
from pki.trust import Refusal, TrustStore

from ..forgery import Signer, authority, forged, written

NOW = datetime.now(UTC)


def served(factory: Folder, *, crl: bool = False, now: datetime = NOW, required: bool = True) -> TlsContext:
    trust = TrustStore.load(factory.ca_path, factory.crl_path if crl else None)
    chain = factory.certificate_path("delegator-server", "delegator")
    return server_context(chain, chain.with_suffix(".key"), trust, lambda: now, require_certificate=required)


class Stdlib:
    """The other implementation's end."""

    def __init__(self, factory: Folder, certificate: Path | None, *, server: bool = False,
                 version: ssl.TLSVersion | None = None, key: Path | None = None) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(factory.ca_path)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if certificate is not None:
            context.load_cert_chain(certificate, key or certificate.with_suffix(".key"))
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_side=server,
                                    server_hostname=None if server else "localhost")
        self.done = False

    def step(self, data: bytes = b"") -> bytes:
        """Feed bytes, take bytes. Raises ssl.SSLError with the alert that was received."""
        self._in.write(data)
        try:
            if not self.done:
                self.tls.do_handshake()
                self.done = True
        except ssl.SSLWantReadError:
            pass
        return self._out.read()

    def read(self) -> bytes:
        try:
            return self.tls.read(65536)
        except ssl.SSLWantReadError:
            return b""

    def write(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self._out.read()


def shake(ours: Session, theirs: Stdlib, *, piece: int | None = None) -> None:
    """Carry bytes both ways, `piece` at a time, until neither has more to say."""
    data = theirs.step()
    for _ in range(10):
        for start in range(0, len(data), piece or max(1, len(data))):
            ours.receive(data[start:start + (piece or len(data))])
        data = theirs.step(ours.outgoing())
        if not data:
            return


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("piece", [None, 1], ids=["whole", "byte by byte"])
def test_a1_both_sides_are_proven_and_talk(factory: Folder, device: Callable[[str], Issued],
                                           version: ssl.TLSVersion, piece: int | None) -> None:
    """Blocks 206-210: each shows a certificate, each checks it, and then data flows both ways."""
    issued = device("TLS0001")
    ours, theirs = Session(served(factory)), Stdlib(factory, issued.certificate_path, version=version)
    shake(ours, theirs, piece=piece)
    assert ours.handshaken
    assert ours.refused is None
    peer = ours.peer()
    assert peer is not None
    assert peer.common_names == ("TLS0001",)
    assert peer.serial == issued.certificate.serial_number
    assert ours.receive(theirs.write(b"question")) == b"question"
    ours.send(b"answer")
    theirs.step(ours.outgoing())
    assert theirs.read() == b"answer"
    ours.close()
    theirs.step(ours.outgoing())
    assert theirs.tls.read(1) == b""


def refusal(factory: Folder, context: TlsContext, certificate: Path | None, version: ssl.TLSVersion,
            key: Path | None = None) -> tuple[Session, str]:
    """Our session after a refused handshake, and the alert the other side received."""
    ours, theirs = Session(context), Stdlib(factory, certificate, version=version, key=key)
    with pytest.raises(ssl.SSLError) as caught:
        shake(ours, theirs)
        theirs.tls.read(1)
    assert not ours.handshaken
    return ours, str(caught.value.reason)


CA = "UNKNOWN_CA"


@pytest.mark.parametrize("version", VERSIONS)
class TestRefusals:
    """A1: a refused device gets the right alert (211), and the refusal names the certificate it concerns."""

    def test_a_certificate_from_another_ca(self, factory: Folder, customer_ca: Folder, version: ssl.TLSVersion) -> None:
        if not customer_ca.certificate_path("device", "FOREIGN1").exists():
            customer_ca.issue("device", "FOREIGN1")
        ours, alert = refusal(factory, served(factory), customer_ca.certificate_path("device", "FOREIGN1"), version)
        assert alert == "TLSV1_ALERT_UNKNOWN_CA"
        assert ours.refused is not None
        assert ours.refused.refusal is Refusal.UNKNOWN_CA
        assert "FOREIGN1" in ours.refused.subject

    def test_an_expired_certificate(self, factory: Folder, tmp_path: Path, version: ssl.TLSVersion) -> None:
        folder = Folder.create(tmp_path / "pki", common_name="Old CA", now=NOW - timedelta(days=900))
        old = folder.issue("device", "EXPIRED1", days=30, now=NOW - timedelta(days=800))
        folder.issue("delegator-server", "delegator", names=("localhost",))
        ours, alert = refusal(folder, served(folder), old.certificate_path, version)
        assert alert == "SSLV3_ALERT_CERTIFICATE_EXPIRED"
        assert ours.refused is not None
        assert (ours.refused.refusal, ours.refused.serial) == (Refusal.EXPIRED, old.serial)

    def test_a_certificate_that_is_not_valid_yet(self, factory: Folder, tmp_path: Path,
                                                 version: ssl.TLSVersion) -> None:
        folder = Folder.create(tmp_path / "pki", common_name="Early CA")
        folder.issue("delegator-server", "delegator", names=("localhost",))
        early = folder.issue("device", "FUTURE01", now=NOW + timedelta(days=30))
        ours, alert = refusal(folder, served(folder), early.certificate_path, version)
        assert alert == "SSLV3_ALERT_BAD_CERTIFICATE"
        assert ours.refused is not None
        assert ours.refused.refusal is Refusal.NOT_YET_VALID

    def test_a_revoked_certificate(self, tmp_path: Path, version: ssl.TLSVersion) -> None:
        """R-revoked: the list is a set looked up by us, and OpenSSL still sends `certificate_revoked`."""
        folder = Folder.create(tmp_path / "pki", common_name="Revoking CA")
        folder.issue("delegator-server", "delegator", names=("localhost",))
        stolen = folder.issue("device", "STOLEN01")
        folder.revoke([stolen.serial], Reason.KEY_COMPROMISE, folder.authority())
        ours, alert = refusal(folder, served(folder, crl=True), stolen.certificate_path, version)
        assert alert == "SSLV3_ALERT_CERTIFICATE_REVOKED"
        assert ours.refused is not None
        assert (ours.refused.refusal, ours.refused.depth) == (Refusal.REVOKED, 0)
        assert ours.refused.serial == stolen.serial

    def test_no_certificate_at_all(self, factory: Folder, version: ssl.TLSVersion) -> None:
        ours, alert = refusal(factory, served(factory), None, version)
        assert alert in ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_HANDSHAKE_FAILURE")
        assert ours.refused is not None
        assert ours.refused.refusal is Refusal.NO_CERTIFICATE

    def test_a_server_certificate_is_no_device(self, factory: Folder, version: ssl.TLSVersion) -> None:
        """Same CA, wrong purpose (RFC 5280 section 4.2.1.12)."""
        chain = factory.certificate_path("delegator-server", "delegator")
        ours, alert = refusal(factory, served(factory), chain, version)
        assert alert == "TLSV1_ALERT_UNSUPPORTED_CERTIFICATE" or "CERTIFICATE" in alert
        assert ours.refused is not None
        assert ours.refused.refusal is Refusal.WRONG_PURPOSE

    def test_a_stale_revocation_list_turns_everyone_away(self, factory: Folder, device: Callable[[str], Issued],
                                                         version: ssl.TLSVersion) -> None:
        """Fail closed, and say that it is our fault: internal_error, not "expired"."""
        late = served(factory, crl=True, now=NOW + timedelta(days=4000))
        ours, alert = refusal(factory, late, device("TLS0002").certificate_path, version)
        assert alert == "TLSV1_ALERT_INTERNAL_ERROR"
        assert ours.refused is not None
        assert ours.refused.refusal is Refusal.CRL_STALE

    def test_a_peer_that_refuses_us_is_told_apart(self, factory: Folder, customer_ca: Folder,
                                                  device: Callable[[str], Issued], version: ssl.TLSVersion) -> None:
        """Block 207: the device does not trust the server's certificate, and the reason is recorded as its."""
        ours = Session(served(factory))
        theirs = Stdlib(customer_ca, device("TLS0003").certificate_path, version=version)
        data = theirs.step()
        ours.receive(data)
        with pytest.raises(ssl.SSLCertVerificationError):
            theirs.step(ours.outgoing())
        ours.receive(theirs._out.read())
        assert ours.refused is not None
        assert ours.refused.refusal is None
        assert "unknown ca" in ours.refused.detail


def test_nonsense_is_refused_without_an_exception(factory: Folder) -> None:
    ours = Session(served(factory))
    assert ours.receive(b"GET / HTTP/1.1\r\n\r\n") == b""
    assert ours.refused is not None
    assert ours.closed


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_is_ever_resumed(factory: Folder, device: Callable[[str], Issued], version: ssl.TLSVersion) -> None:
    """A resumed session would skip expiry and revocation (CVE-2025-23419), so none is, in either version."""
    context, certificate = served(factory), device("TLS0004").certificate_path
    client = Stdlib(factory, certificate, version=version)
    ours = Session(context)
    shake(ours, client)
    ours.send(b"x")
    client.step(ours.outgoing())
    client.read()
    session = client.tls.session
    assert session is None or not session.has_ticket
    again = Stdlib(factory, certificate, version=version)
    if session is not None:
        again.tls = client.tls.context.wrap_bio(again._in, again._out, server_hostname="localhost", session=session)
    shake(Session(context), again)
    assert again.done
    assert not again.tls.session_reused


def test_no_ticket_is_sent(factory: Folder, device: Callable[[str], Issued]) -> None:
    """delegator/engine.py: two tickets would be 15 % of a handshake's CPU. Nothing follows the last flight."""
    ours, theirs = Session(served(factory)), Stdlib(factory, device("TLS0005").certificate_path)
    hello = theirs.step()
    ours.receive(hello)
    finished = theirs.step(ours.outgoing())
    ours.receive(finished)
    assert ours.handshaken
    assert ours.outgoing() == b""


class TestClientRole:
    """A7a: as a client of delegates, the same core checks chain and name."""

    @staticmethod
    def reach(factory: Folder, customer_ca: Folder, name: str) -> Session:
        if not customer_ca.certificate_path("delegate-server", "delegate.test").exists():
            customer_ca.issue("delegate-server", "delegate.test")
        chain = factory.certificate_path("delegate-client", "delegator.test")
        trust = TrustStore.load(customer_ca.ca_path)
        ours = Session(client_context(chain, chain.with_suffix(".key"), trust, lambda: NOW), name)
        theirs = Stdlib(factory, customer_ca.certificate_path("delegate-server", "delegate.test"), server=True)
        ours.start()
        for _ in range(4):
            ours.receive(theirs.step(ours.outgoing()))
        return ours

    def test_the_right_name_passes(self, factory: Folder, customer_ca: Folder) -> None:
        ours = self.reach(factory, customer_ca, "delegate.test")
        assert ours.handshaken
        ours.check_name("delegate.test")

    def test_another_name_is_refused(self, factory: Folder, customer_ca: Folder) -> None:
        ours = self.reach(factory, customer_ca, "other.test")
        with pytest.raises(DelegatorError, match=r"not for other\.test"):
            ours.check_name("other.test")


@pytest.mark.counterpart("openssl")
def test_the_der_walk_agrees_with_openssl(factory: Folder, device: Callable[[str], Issued]) -> None:
    """wire.certificate reads what a program that is not ours reads."""
    issued = device("WALK0001")
    certificate = read_certificate(issued.certificate.public_bytes(Encoding.DER))
    said = subprocess.run(["openssl", "x509", "-in", issued.certificate_path, "-noout", "-serial", "-subject",
                           "-nameopt", "sep_multiline,utf8"], capture_output=True, text=True, check=True).stdout
    assert f"serial={certificate.serial:X}" in said.replace("serial=0", "serial=")
    assert f"CN={certificate.common_names[0]}" in said
    pipe = (f"openssl x509 -in {issued.certificate_path} -noout -pubkey | openssl pkey -pubin -outform DER "
            "| openssl dgst -sha256 -r")
    key = subprocess.run(pipe, shell=True, capture_output=True, text=True, check=True).stdout
    assert key.split()[0] == certificate.key_fingerprint


def test_the_der_walk_refuses_what_it_does_not_know(device: Callable[[str], Issued]) -> None:
    der = device("WALK0002").certificate.public_bytes(Encoding.DER)
    for length in range(250):
        with pytest.raises(ValueError, match="certificate"):
            read_certificate(der[:length])


def test_dns_names(factory: Folder, device: Callable[[str], Issued]) -> None:
    path = factory.certificate_path("delegate-client", "delegator.test")
    der = x509.load_pem_x509_certificates(path.read_bytes())[0].public_bytes(Encoding.DER)
    assert dns_names(der) == ("delegator.test",)
    assert dns_names(device("WALK0003").certificate.public_bytes(Encoding.DER)) == ()


def test_a_refusal_is_told_of_the_peer_it_concerns(factory: Folder, customer_ca: Folder,
                                                   device: Callable[[str], Issued]) -> None:
    """Many sessions share a context: what goes wrong on one, later, is not another's refused certificate."""
    context = served(factory)
    ours, theirs = Session(context), Stdlib(factory, device("TLS0006").certificate_path)
    shake(ours, theirs)
    foreign = written(customer_ca.path, "foreign-6", forged(Signer.of(customer_ca), "FOREIGN6"))
    refusal(factory, context, foreign[0], ssl.TLSVersion.TLSv1_3)
    ours.receive(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert ours.refused is not None
    assert (ours.refused.refusal, ours.refused.serial) == (None, "")


ODD_NAMES: list[tuple[str | tuple[str, _ASN1Type], ...]] = [
    (), ("x" * 200,), ("\x1b[2J\r\nlog: all well",), (("A\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
                                                      _ASN1Type.UTF8String),),
    (("AB", _ASN1Type.BMPString),), (("A", _ASN1Type.UniversalString),), (("A\xe9", _ASN1Type.T61String),),
]


@pytest.mark.parametrize("names", ODD_NAMES, ids=range(len(ODD_NAMES)))
@pytest.mark.parametrize("version", VERSIONS)
def test_TC1_whatever_a_stranger_calls_himself_the_refusal_is_one_plain_line(
        factory: Folder, tmp_path: Path, capfd: pytest.CaptureFixture[str], version: ssl.TLSVersion,
        names: tuple[str | tuple[str, _ASN1Type], ...]) -> None:
    """The names of a certificate that nobody we know signed: hostile bytes like any other, judged in OpenSSL's own
    callback, from which no exception may come."""
    stranger = written(tmp_path, "odd", forged(authority("Nobody"), *names))
    ours, _ = refusal(factory, served(factory), stranger[0], version)
    assert ours.refused is not None
    assert ours.refused.refusal is Refusal.UNKNOWN_CA
    assert str(ours.refused).isprintable()
    assert str(ours.refused).isascii()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("bent", [b"\x13\x02\xff\xfe", b"\x16\x02\xc3\xa9", b"\x13\x03*@\n", b"\x03\x02\x00Q"])
def test_TC1_a_name_that_no_reader_understands_is_refused_all_the_same(
        factory: Folder, tmp_path: Path, capfd: pytest.CaptureFixture[str], bent: bytes) -> None:
    """Bytes that are no text of the type they claim to be; OpenSSL takes them, `cryptography` does not."""
    made = forged(authority("Nobody"), "Q" * (len(bent) - 2))
    der = made.certificate.public_bytes(Encoding.DER)
    spoiled = der.replace(b"\x0c" + bytes([len(bent) - 2]) + b"Q" * (len(bent) - 2), bent)
    assert spoiled != der
    pem = ssl.DER_cert_to_PEM_cert(spoiled)
    path, key = written(tmp_path, "bent", made)
    path.write_text(pem)
    ours, _ = refusal(factory, served(factory), path, ssl.TLSVersion.TLSv1_3, key)
    assert ours.refused is not None
    assert str(ours.refused).isascii()
    assert capfd.readouterr().err == ""


# --- certificates that are dear to read ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_TB10_a_strangers_certificate_is_read_for_the_log_only_if_it_is_small(
        factory: Folder, tmp_path: Path, version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody signed it, so anybody can send it: 3 000 names took 25 ms of everybody's time."""
    read, sizes = x509.load_der_x509_certificate, []

    def noted(der: bytes) -> x509.Certificate:
        sizes.append(len(der))
        return read(der)
    for many in (1, 400):
        pair = written(tmp_path, f"nobody{many}", forged(authority("Nobody"), *(f"N{n}" for n in range(many))))
        monkeypatch.setattr(x509, "load_der_x509_certificate", noted)
        ours, alert = refusal(factory, served(factory), pair[0], version)
        monkeypatch.undo()
        assert alert == "TLSV1_ALERT_UNKNOWN_CA"
        assert ours.refused is not None
        assert ("not read" in ours.refused.subject) == (many > 1)
    assert sizes
    assert max(sizes) <= TOLD


def test_TB10_a_leaf_is_no_larger_than_that(factory: Folder, tmp_path: Path) -> None:
    """Whoever has an authority of its own can fill it, and its walk is ours."""
    own = authority("A customer's")
    for many, good in ((900, True), (1400, False)):
        pair = written(tmp_path, f"large{many}", forged(own, *(f"N{n}" for n in range(many)), purposes=None))
        session = Session(client_context(None, None, TrustStore((own.certificate,)), lambda: NOW), "localhost")
        theirs = Stdlib(factory, pair[0], server=True)
        session.start()
        for _ in range(4):
            with contextlib.suppress(ssl.SSLError):
                session.receive(theirs.step(session.outgoing()))
        assert (session.refused is None) == good
        assert good or f"and {LARGEST} are taken" in str(session.refused)


def test_TB10_of_a_server_with_very_many_names_none_is_looked_at(
        factory: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """13 000 fit into what OpenSSL takes, and to compare them took 140 ms."""
    session = Session(client_context(None, None, TrustStore.load(factory.ca_path, None), lambda: NOW), "localhost")
    theirs = Stdlib(factory, factory.certificate_path("delegator-server", "delegator"), server=True)
    session.start()
    for _ in range(4):
        session.receive(theirs.step(session.outgoing()))
    session.check_name("localhost")
    monkeypatch.setattr(tls, "NAMES", 1)
    monkeypatch.setattr(tls.service_identity.pyopenssl, "verify_hostname", None)  # not asked at all
    with pytest.raises(DelegatorError, match="for more than 1 names"):
        session.check_name("localhost")


def test_TB10_a_servers_key_that_is_dear_to_check_with_is_refused_before_it_is_used(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exponent of 3 060 bits makes each signature of a chain take 7 ms; whoever has an authority may choose it."""
    own = authority("A customer's")
    numbers = rsa.generate_private_key(65537, 2048).public_key().public_numbers()
    dear = rsa.RSAPublicNumbers(numbers.e | 1 << 100, numbers.n).public_key()
    for key, is_dear in ((dear, True), (numbers.public_key(), False), (own.key.public_key(), False)):
        name = own.certificate.subject
        made = x509.CertificateBuilder(name, name, key, 7, NOW, NOW + timedelta(days=1)).sign(own.key, hashes.SHA256())
        assert certificate.dear_key(made.public_bytes(Encoding.DER)) is is_dear
    folder = Folder.create(tmp_path / "pki", common_name="A CA", key_type="rsa")
    folder.issue("delegate-server", "localhost", key="rsa")
    for most in (64, 8):
        monkeypatch.setattr(certificate, "EXPONENT", most)
        session = Session(client_context(None, None, TrustStore.load(folder.ca_path, None), lambda: NOW), "localhost")
        theirs = Stdlib(folder, folder.certificate_path("delegate-server", "localhost"), server=True)
        session.start()
        for _ in range(4):
            with contextlib.suppress(ssl.SSLError):
                session.receive(theirs.step(session.outgoing()))
        assert session.handshaken == (most == 64), str(session.refused)
        assert most == 64 or tls.DEAR_KEY in str(session.refused)
        assert most == 64 or session.refused.depth == 1, "its authority's key is looked at before it is used"
