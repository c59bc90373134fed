"""Whose a device is, and how that changes: a transfer offered and accepted, a main board replaced.

Must not live here: how it is kept (store.ownership, store.transfers), signatures (signing).
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from delegator.model.audited import Act
from delegator.model.word import Word


class TransferState(Word):
    """offered -> accepted, declined, withdrawn or lapsed."""

    OFFERED = "offered"
    ACCEPTED = "accepted"
    DECLINED = "declined"
    WITHDRAWN = "withdrawn"
    LAPSED = "lapsed"


STEPS: dict[TransferState, Act] = {
    TransferState.OFFERED: Act.TRANSFER_OFFERED, TransferState.ACCEPTED: Act.TRANSFER_ACCEPTED,
    TransferState.DECLINED: Act.TRANSFER_DECLINED, TransferState.WITHDRAWN: Act.TRANSFER_WITHDRAWN,
    TransferState.LAPSED: Act.TRANSFER_LAPSED}
"""What each step is noted as."""


class Transfer(msgspec.Struct, frozen=True):
    """A device offered by one customer to another. `device` is how it was known then: its tag, else its serial
    number, else a MAC address; `device_id` is None once that registration is gone. Times are aware UTC."""

    transfer_id: str
    device: str
    device_id: int | None
    service_tag: str | None
    order: str | None
    offered_by: str
    offered_to: str
    state: TransferState
    offered_at: datetime
    until: datetime
    ended_at: datetime | None = None
    because: str | None = None

    def whose(self, step: TransferState) -> str:
        """The customer whose step this is."""
        return self.offered_by if step in (TransferState.OFFERED, TransferState.WITHDRAWN) else self.offered_to


class Standing(Word):
    """What a key of a repaired device counts for. Refused: the old board's. Approved: the one key that may claim.
    Open: any key that is not refused, once."""

    REFUSED = "refused"
    APPROVED = "approved"
    OPEN = "open"


class Board(msgspec.Struct, frozen=True):
    """One key of a repaired device, as claims are bound to it ("key:HEX"; "" where any will do)."""

    binding: str
    standing: Standing
    since: datetime
    until: datetime | None = None
