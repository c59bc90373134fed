"""Who a peer is proven to be, and the durable record of what it was given.

Must not live here: how a claim changes (store.claims).
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from delegator.model.identified import IdentityKind
from delegator.model.messages import Result
from delegator.model.ways import WAYS, CallbackWay
from delegator.model.word import Word


class ClaimState(Word):
    """asking -> issued -> confirmed, or expired, released."""

    ASKING = "asking"
    ISSUED = "issued"
    CONFIRMED = "confirmed"
    EXPIRED = "expired"
    RELEASED = "released"


class Claim(msgspec.Struct, frozen=True):
    """The durable record that a device asked and what it was given. Times are aware UTC."""

    claim_id: str
    service_tag: str
    customer: str
    delegate: str
    state: ClaimState
    identity: IdentityKind
    attempt: int
    asked_at: datetime
    lease_until: datetime
    issued_at: datetime | None = None
    ended_at: datetime | None = None
    result: Result | None = None
    detail: str | None = None
    peer: str | None = None
    binding: str = ""
    sealed: bytes | None = None
    callback: CallbackWay | None = None
    """How the delegate that answers it is reached; None for claims older than this was noted."""

    @property
    def is_heard_of(self) -> bool:
        """Whether somebody may have to be told how it ends."""
        return self.callback is None or WAYS[self.callback].hears

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """What may be shown, by name: neither what it is tied to nor what was given."""
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name not in _HIDDEN]

    def __repr__(self) -> str:
        return f"Claim({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


_HIDDEN = frozenset(("binding", "sealed"))
