"""A2: keys are strong, encrypted properly when they are encrypted, and taken from a request only with proof."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from pki import Kind, PkiError, keys
from pki.request import requested


@pytest.mark.parametrize(("key_type", "words"), [("ec", "prime256v1"), ("rsa", "2048 bit")])
def test_a2_openssl_reads_an_encrypted_key_of_each_type(
    key_type: str, words: str, tmp_path: Path, openssl: Callable[..., str]
) -> None:
    path = tmp_path / "ca.key"
    path.write_bytes(keys.to_pem(keys.generate(key_type), "pässword".encode()))
    assert words in openssl("pkey", "-in", path, "-passin", "pass:pässword", "-noout", "-text")
    openssl("pkey", "-in", path, "-passin", "pass:wrong", "-noout", ok=False)


def test_a2_guessing_a_passphrase_costs_600_000_rounds(tmp_path: Path, openssl: Callable[..., str]) -> None:
    path = tmp_path / "ca.key"
    path.write_bytes(keys.to_pem(keys.generate(), b"secret"))
    structure = openssl("asn1parse", "-in", path)
    assert "PBES2" in structure
    assert "hmacWithSHA256" in structure
    assert "aes-256-cbc" in structure
    assert f":{600_000:06X}" in structure


def test_a2_an_encrypted_key_comes_back_only_with_its_passphrase() -> None:
    key = keys.generate()
    pem = keys.to_pem(key, b"secret")
    again = keys.from_pem(pem, b"secret")
    assert again.public_key() == key.public_key()
    for passphrase, words in ((b"wrong", "wrong passphrase"), (None, "no passphrase was given")):
        with pytest.raises(PkiError, match=words) as caught:
            keys.from_pem(pem, passphrase)
        assert caught.value.kind is Kind.CONFIGURATION


def test_a2_two_encryptions_of_one_key_differ() -> None:
    key = keys.generate()
    assert keys.to_pem(key, b"secret") != keys.to_pem(key, b"secret")


def test_a2_an_empty_passphrase_is_refused_and_a_plain_key_ignores_one() -> None:
    with pytest.raises(PkiError, match="empty"):
        keys.to_pem(keys.generate(), b"")
    key = keys.generate()
    assert keys.from_pem(keys.to_pem(key), b"not needed").public_key() == key.public_key()


@pytest.mark.parametrize(
    "content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a2_a_damaged_key_file_is_named_as_such(content: bytes) -> None:
    with pytest.raises(PkiError, match="no readable private key"):
        keys.from_pem(content)


WEAK = {
    "rsa 1024": rsa.generate_private_key(65537, 1024),
    "rsa exponent 3": rsa.generate_private_key(3, 2048),
    "P-224": ec.generate_private_key(ec.SECP224R1()),
    "secp256k1": ec.generate_private_key(ec.SECP256K1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}


@pytest.mark.parametrize("name", WEAK)
def test_a2_weak_or_foreign_keys_are_refused_in_a_request(name: str) -> None:
    key = WEAK[name]
    digest = None if name == "ed25519" else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, digest)
    with pytest.raises(PkiError, match=r"weak key|not take|its key is an Ed25519") as caught:
        requested(request.public_bytes(serialization.Encoding.DER))
    assert caught.value.kind is Kind.REFUSED


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), keys.generate("rsa"), keys.generate()])
def test_a2_strong_keys_pass(key: keys.PrivateKey) -> None:
    assert keys.weakness(key.public_key()) is None


@pytest.mark.parametrize("form", ["PEM", "DER"])
def test_a2_the_key_of_an_openssl_request_is_read(
    form: str, request_file: Callable[..., Path], openssl: Callable[..., str], tmp_path: Path
) -> None:
    openssl("req", "-in", request_file(), "-outform", form, "-out", tmp_path / "again")
    key = requested((tmp_path / "again").read_bytes()).key
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    assert pem in openssl("pkey", "-in", tmp_path / "partner.key", "-pubout")


def test_a2_a_request_not_signed_by_its_own_key_is_refused(request_file: Callable[..., Path]) -> None:
    """A2: proof of possession. Otherwise one could have somebody else's key certified under one's own name."""
    request = x509.load_pem_x509_csr(request_file().read_bytes())
    der = bytearray(request.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    with pytest.raises(PkiError, match=r"not signed by its own key|not a readable"):
        requested(bytes(der))


@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE REQUEST-----", b"\x30\x82", b"x" * 70_000])
def test_a2_rubbish_in_place_of_a_request_is_refused(content: bytes) -> None:
    with pytest.raises(PkiError) as caught:
        requested(content)
    assert "openssl req" in caught.value.hint


def test_a2_only_two_key_types_can_be_generated() -> None:
    with pytest.raises(PkiError, match="choose ec or rsa"):
        keys.generate("dsa")
