"""What the audit keeps of each act: who, what, when, from where, how it ended and why.

The invariant: no secret is in an entry; `detail` holds plain JSON values.
Must not live here: the chain that makes a change visible (store.audit).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


class Act(enum.Enum):
    """Everything that leaves a row, as "noun.verb"."""

    HANDSHAKE = "handshake.ended"
    CLAIM_ASKED = "claim.asked"
    CLAIM_ISSUED = "claim.issued"
    CLAIM_CONFIRMED = "claim.confirmed"
    CLAIM_FAILED = "claim.failed"
    CLAIM_EXPIRED = "claim.expired"
    CLAIM_RELEASED = "claim.released"


@dataclass(frozen=True, slots=True)
class Entry:
    """One act. `actor` is "device", "delegator" or "operator NAME"; `peer` says from where; `outcome` is "done" or
    the fault that was told; `at` is aware UTC."""

    act: Act
    at: datetime
    actor: str
    outcome: str = "done"
    service_tag: str | None = None
    customer: str | None = None
    delegate: str | None = None
    claim_id: str | None = None
    peer: str | None = None
    reasons: tuple[str, ...] = ()
    detail: Mapping[str, object] = field(default_factory=dict)
