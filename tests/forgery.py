"""Certificates that the factory's authority would never sign, signed with its own key all the same.

`pki` refuses to make any of them (tests/pki/test_lint.py), so they are made with `cryptography` directly: what is left
to judge is the reader's own judgement.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from pki import Folder, keys

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
Pair = tuple[Path, Path]
NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Signer:
    """Whoever signs: an authority's certificate and its key."""

    certificate: x509.Certificate
    key: Key

    @classmethod
    def of(cls, folder: Folder) -> Signer:
        return cls(folder.ca_certificate, keys.from_pem((folder.path / "ca.key").read_bytes()))


def name_of(names: Sequence[str | tuple[str, _ASN1Type]]) -> x509.Name:
    """Common names, each with a string type of its own where that is said; unchecked."""
    with warnings.catch_warnings(action="ignore"):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, *((one,) if isinstance(one, str) else one),
                                             _validate=False) for one in names])


def forged(signer: Signer, *names: str | tuple[str, _ASN1Type], key: Key | None = None, authority: bool | None = False,
           usage: Sequence[str] | None = ("digital_signature",),
           purposes: Sequence[ObjectIdentifier] | None = (CLIENT,),
           start: datetime = NOW - DAY, end: datetime = NOW + DAY, path_length: int | None = None,
           digest: hashes.HashAlgorithm | None = None) -> Signer:
    """A certificate and its key. None leaves an extension out."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(signer.certificate.subject, name_of(names), key.public_key(),
                                      x509.random_serial_number(), start, end)
    if authority is not None:
        builder = builder.add_extension(x509.BasicConstraints(authority, path_length), True)
    if usage is not None:
        bits = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
        builder = builder.add_extension(x509.KeyUsage(**{bit: bit in usage for bit in bits}), True)
    if purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), False)
    return Signer(builder.sign(signer.key, digest or hashes.SHA256()), key)


def written(folder: Path, stem: str, made: Signer, *chain: x509.Certificate) -> Pair:
    """As files: the certificate with what follows it, and the key."""
    certificate, key = folder / f"{stem}.crt", folder / f"{stem}.key"
    pem = serialization.Encoding.PEM
    certificate.write_bytes(b"".join(one.public_bytes(pem) for one in (made.certificate, *chain)))
    key.write_bytes(made.key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return certificate, key


def authority(name: str, signer: Signer | None = None, path_length: int | None = None) -> Signer:
    """An authority; without a signer its own root."""
    key = ec.generate_private_key(ec.SECP256R1())
    if signer is None:
        subject = name_of([name])
        builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(),
                                          NOW - 2 * DAY, NOW + 300 * DAY)
        signed = (builder.add_extension(x509.BasicConstraints(True, path_length), True)
                  .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
                  .sign(key, hashes.SHA256()))
        return Signer(signed, key)
    return forged(signer, name, key=key, authority=True, usage=("key_cert_sign", "crl_sign"), purposes=None,
                  path_length=path_length)
