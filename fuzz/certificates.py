"""What is read of certificates and of requests for them."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import warnings

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from delegator.wire import leaf
from delegator.wire.certificate import read_leaf
from fuzz.target import Target, must
from pki import PkiError
from pki.keys import weakness
from pki.request import requested
from pki.trust import leaf_fault, shown

_KEY = ec.derive_private_key(7, ec.SECP256R1())
_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ABC1234")])
_DER, _SPKI = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo


def _certificate() -> bytes:
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(_NAME, _NAME, _KEY.public_key(), 0x1234567890ABCDEF, start,
                                      start + datetime.timedelta(days=9))
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    for extension, critical in (
            (x509.BasicConstraints(False, None), True), (usage, True),
            (x509.SubjectKeyIdentifier.from_public_key(_KEY.public_key()), False),
            (x509.AuthorityKeyIdentifier(bytes(20), None, None), False),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)):
        builder = builder.add_extension(extension, critical)
    return builder.sign(_KEY, hashes.SHA256(), ecdsa_deterministic=True).public_bytes(_DER)


def check_certificate(data: bytes) -> None:
    with warnings.catch_warnings(action="ignore"), contextlib.suppress(ValueError, x509.InvalidVersion):
        must(shown(x509.load_der_x509_certificate(data)).isprintable(), "a name that forges a line of the log")
    try:
        ours, key_at = read_leaf(data)
    except ValueError:
        return
    with warnings.catch_warnings(action="ignore"):
        try:
            theirs = x509.load_der_x509_certificate(data)
            names = tuple(str(one.value) for one in theirs.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
            key = theirs.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
            return  # OpenSSL verified what reaches the reader; what nobody else reads, it never sees
        must(ours.common_names == names, "another reader sees other common names")
        must(ours.serial == theirs.serial_number, "another reader sees another serial number")
        spki = key.public_bytes(_DER, _SPKI)
        must(spki not in data or ours.key_fingerprint == hashlib.sha256(spki).hexdigest(), "another key")
        with contextlib.suppress(ValueError):
            must(leaf._USUAL.match(data, key_at) is None or leaf_fault(theirs, "client") is None,
                 "the short way takes what the long way refuses")
        leaf.fault(data, key_at)


def check_request(data: bytes) -> None:
    with warnings.catch_warnings(action="ignore"), contextlib.suppress(PkiError):
        must(weakness(requested(data).key) is None, "a weak key was taken")


_CSR = x509.CertificateSigningRequestBuilder().subject_name(_NAME).sign(_KEY, hashes.SHA256(), ecdsa_deterministic=True)
_OIDS = tuple(bytes.fromhex(word) for word in (
    "0603550403", "06082a8648ce3d030107", "0603551d13", "0603551d0f", "0603551d25", "0c07", "1307", "1e02", "3000",
    "3080", "a003020102", "a003020103", "308201", "0000", "30818080", "0282", "ff", "06052b81040022"))

TARGETS = (
    Target("certificate", "Serial, common names and key as another reader sees them, or ValueError; the short way to "
           "judge a leaf takes nothing that the long way refuses.", check_certificate, (_certificate(),), _OIDS),
    Target("request", "A strong key whose owner signed, or PkiError.", check_request,
           (_CSR.public_bytes(_DER), _CSR.public_bytes(serialization.Encoding.PEM)),
           (*_OIDS, b"-----BEGIN CERTIFICATE REQUEST-----", b"-----END CERTIFICATE REQUEST-----", b"\n", b"=")),
)
