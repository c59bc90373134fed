"""Who a peer is proven to be.

Must not live here: how that is proven (delegator.identity, pki.trust), what a claim holds (model.claimed).
"""

from __future__ import annotations

import msgspec

from delegator.model.word import Word


class IdentityKind(Word):
    """Own: a handshake certificate whose common name is the tag. Shared: "one of ours", never which one."""

    OWN = "own"
    SHARED = "shared"


class PeerCertificate(msgspec.Struct, frozen=True):
    """What the handshake proved: every common name in the subject, and SHA-256 (hex) of the public key."""

    common_names: tuple[str, ...]
    serial: int
    key_fingerprint: str


class Identity(msgspec.Struct, frozen=True):
    """Who asks, as far as it is proven. `binding` is what the claim is tied to: the device's key or its secret."""

    kind: IdentityKind
    service_tag: str
    binding: str
