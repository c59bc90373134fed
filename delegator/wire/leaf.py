"""Whether a certificate says of itself what a device's must: clientAuth, digitalSignature, no CA, a strong key. T-A4,
T-A5.

A certificate as our own factory writes it is recognised by one expression over its bytes (0.6 µs, measured); any other
is read in full and judged by pki.trust (45 µs).
The invariant: what the expression takes, pki.trust takes too. It has no length that is not written out, so it matches
at the key of a certificate or not at all.
Must not live here: chains, revocation, names.
"""

from __future__ import annotations

import re

from cryptography import x509

from pki.trust import Refusal, leaf_fault


def _bytes(text: str) -> bytes:
    return re.escape(bytes.fromhex(text))


_KEYS = (
    _bytes("3059301306072a8648ce3d020106082a8648ce3d03010703420004") + b".{64}",  # P-256
    _bytes("3076301006072a8648ce3d020106052b8104002203620004") + b".{96}",  # P-384
    _bytes("30820122300d06092a864886f70d01010105000382010f003082010a0282010100")
    + b"[\x80-\xff].{255}" + _bytes("0203010001"),  # RSA of 2048 bits with exponent 65537
)
_EXTENSIONS = (
    _bytes("a3753073"),
    _bytes("300c0603551d130101ff04023000"),  # basicConstraints, critical: no CA
    _bytes("300e0603551d0f0101ff040403020780"),  # keyUsage, critical: digitalSignature
    _bytes("301d0603551d0e04160414") + b".{20}",  # subjectKeyIdentifier
    _bytes("301f0603551d23041830168014") + b".{20}",  # authorityKeyIdentifier
    _bytes("30130603551d25040c300a06082b06010505070302"),  # extendedKeyUsage: clientAuth
)
_USUAL = re.compile(b"(?:" + b"|".join(_KEYS) + b")" + b"".join(_EXTENSIONS), re.DOTALL)


def fault(der: bytes, key_at: int | None) -> tuple[Refusal, str] | None:
    """What is wrong with a verified leaf; None if nothing is. `key_at` is where its key stands, if that is known."""
    if key_at is not None and _USUAL.match(der, key_at) is not None:
        return None
    try:
        return leaf_fault(x509.load_der_x509_certificate(der), "client")
    except (ValueError, x509.InvalidVersion) as error:
        return Refusal.OTHER, str(error)[:200]
