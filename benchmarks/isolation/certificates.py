"""Certificates that no authority of ours would sign: with thousands of names, for those who read them.

The invariant: each is made once and kept in its file.
Must not live here: who shows them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pki import Folder, disk, keys

SUBJECT, ALTERNATIVE, LARGEST = 500, 2000, 2500
"""Names in a subject as many as fit into a handshake, alternative ones as many as fit into a certificate that is taken,
and in a subject as many as OpenSSL reads."""


def crowded(path: Path, subject: int, alternative: int, signer: Folder | None = None) -> Path:
    """A certificate with so many names of each kind, signed by an authority or by itself; its key is beside it."""
    if path.exists():
        return path
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"N{number:x}") for number in range(subject)])
    names = [*(x509.DNSName(f"{number:x}.a") for number in range(alternative)), x509.DNSName("localhost")]
    builder = (x509.CertificateBuilder().subject_name(own)
               .issuer_name(own if signer is None else signer.ca_certificate.subject).public_key(key.public_key())
               .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
               .not_valid_after(now + timedelta(days=3650))
               .add_extension(x509.SubjectAlternativeName(names), critical=False))
    made = builder.sign(key if signer is None else keys.from_pem(disk.read_private(signer.key_path), None),
                        hashes.SHA256())
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return path
