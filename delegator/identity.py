"""Identity before anything: what a certificate proves about the device that shows it. R-identity.

A handshake certificate has exactly one common name, byte for byte the claimed service tag. A shared certificate's
common name cannot be a tag, and proves "one of ours", never which one.
The invariant: `identify` returns an Identity or raises; nothing looks anything up before it returned.
Must not live here: chains and revocation (pki.trust), what a policy makes of a shared identity.
"""

from __future__ import annotations

import hashlib
import re

from delegator.errors import DelegatorError, Kind
from delegator.model import Identity, IdentityKind, PeerCertificate, Secret

SHARED_NAME = re.compile(r"shared-device(-[a-z0-9-]{1,32})?")


def identify(certificate: PeerCertificate | None, service_tag: str, transaction_id: Secret) -> Identity:
    """Who asks, as far as it is proven. Raises DelegatorError (IDENTITY)."""
    name = common_name(certificate)
    if name == service_tag and certificate is not None:
        return Identity(IdentityKind.OWN, service_tag, f"key:{certificate.key_fingerprint}")
    if SHARED_NAME.fullmatch(name):
        return Identity(IdentityKind.SHARED, service_tag, secret_binding(transaction_id))
    raise DelegatorError(Kind.IDENTITY, f"the certificate is for {name[:64]!a}, the request for {service_tag}")


def common_name(certificate: PeerCertificate | None) -> str:
    """The one common name. Raises DelegatorError (IDENTITY) for none or several: no guess which is meant."""
    if certificate is None:
        raise DelegatorError(Kind.IDENTITY, "no certificate was shown")
    if len(certificate.common_names) != 1:
        raise DelegatorError(Kind.IDENTITY, f"the certificate has {len(certificate.common_names)} common names")
    return certificate.common_names[0]


def binding(certificate: PeerCertificate | None, transaction_id: Secret | None) -> str | None:
    """What a claim of this peer is bound to; None when a shared certificate comes without its secret."""
    if SHARED_NAME.fullmatch(common_name(certificate)):
        return None if transaction_id is None else secret_binding(transaction_id)
    return None if certificate is None else f"key:{certificate.key_fingerprint}"


def secret_binding(transaction_id: Secret) -> str:
    """A hash is enough: the secret has 16 random characters or more, so there is nothing to guess."""
    return "secret:" + hashlib.sha256(b"claim binding" + transaction_id.reveal().encode()).hexdigest()
