"""Devices that came with the shared certificate and got one of their own, and others who asked for the same tag.

The invariant: nothing here is a secret; a binding is a hash.
Must not live here: how it is kept (store.enrolled, store.contested), signing (provisioning.certifying).
"""

from __future__ import annotations

import hmac
from datetime import datetime

import msgspec

from delegator.model.identified import IdentityKind


class Enrolled(msgspec.Struct, frozen=True):
    """One certificate that was issued online, and to whom: `binding` is the secret of the claim it was asked with.
    `used` once the device has shown it or has confirmed with it at hand. `certificate` is PEM, `serial` and
    `key_fingerprint` (SHA-256) are lower-case hexadecimal; times are aware UTC."""

    serial: str
    service_tag: str
    key_fingerprint: str
    claim_id: str
    binding: str
    certificate: str
    issued_at: datetime
    not_after: datetime
    used_at: datetime | None = None
    revoked_at: datetime | None = None
    reason: str | None = None
    forgotten_at: datetime | None = None
    used: bool = False

    def is_of(self, binding: str, key_fingerprint: str | None) -> bool:
        """Whether this is the device that was enrolled, as far as a shared certificate can tell: the same secret, and
        where a key is to be certified, the same key."""
        return (hmac.compare_digest(self.binding, binding)
                and key_fingerprint in (None, self.key_fingerprint))

    def admits(self, binding: str, key_fingerprint: str | None) -> bool:
        """Whether the shared certificate may still speak for this tag: until the own one is known to have arrived."""
        return not self.used and self.revoked_at is None and self.is_of(binding, key_fingerprint)


class Contest(msgspec.Struct, frozen=True):
    """Somebody asked for a tag that another holds. `claim_id`, `customer` and `delegate` are the holder's; `identity`
    is how the one who asked came, from `peer`; `times` of them since they were last noted."""

    service_tag: str
    identity: IdentityKind
    claim_id: str
    customer: str | None
    delegate: str | None
    peer: str
    at: datetime
    times: int = 1
