"""Why a TLS handshake failed: one value, from where it is found out to where it is told.

The invariant: its words are harmless wherever they stand, whatever the peer's certificate says.
Must not live here: finding it out (tls).
"""

from __future__ import annotations

import msgspec
from msgspec.structs import force_setattr

from pki.said import said
from pki.trust import Refusal


class Refused(msgspec.Struct, frozen=True):
    """`subject` and `serial` name the refused certificate where there was one, `genuine` says that an authority that we
    believe signed it; else `leaf` is what the peer showed, which anybody may have made."""

    refusal: Refusal | None
    detail: str
    subject: str = ""
    serial: str = ""
    depth: int = 0
    genuine: bool = False
    leaf: bytes = b""

    def __post_init__(self) -> None:
        force_setattr(self, "detail", said(self.detail))

    def __str__(self) -> str:
        whom = f": certificate {self.subject} serial {self.serial} depth {self.depth}" if self.serial else ""
        return f"{self.refusal.value if self.refusal else 'connection failed'} ({self.detail}){whom}"
