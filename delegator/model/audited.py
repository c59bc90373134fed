"""What the audit keeps of each act: who (`By`), what, when, from where, how it ended and why.

The invariant: no secret is in an entry; `detail` holds plain JSON values.
Must not live here: the chain that makes a change visible (store.audit.ledger).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from delegator.model.word import Word


class Act(Word):
    """Everything that leaves a row, as "noun.verb"."""

    HANDSHAKE = "handshake.ended"
    CLAIM_ASKED = "claim.asked"
    CLAIM_ISSUED = "claim.issued"
    CLAIM_CONFIRMED = "claim.confirmed"
    CLAIM_FAILED = "claim.failed"
    CLAIM_EXPIRED = "claim.expired"
    CLAIM_RELEASED = "claim.released"
    CLAIM_CONTESTED = "claim.contested"
    ENROLMENT_ISSUED = "enrolment.issued"
    ENROLMENT_REVOKED = "enrolment.revoked"
    ENROLMENT_FORGOTTEN = "enrolment.forgotten"
    DEVICE_RETURNED = "device.returned"
    DEVICE_REPAIRED = "device.repaired"
    TRANSFER_OFFERED = "transfer.offered"
    TRANSFER_ACCEPTED = "transfer.accepted"
    TRANSFER_DECLINED = "transfer.declined"
    TRANSFER_WITHDRAWN = "transfer.withdrawn"
    TRANSFER_LAPSED = "transfer.lapsed"
    CUSTOMER_SIGNING_KEY = "customer.signing_key_set"
    CUSTOMER_ADDED = "customer.added"
    CUSTOMER_CHANGED = "customer.changed"
    CUSTOMER_REMOVED = "customer.removed"
    DELEGATE_ADDED = "delegate.added"
    DELEGATE_CHANGED = "delegate.changed"
    DELEGATE_REMOVED = "delegate.removed"
    POLICY_ADDED = "policy.added"
    POLICY_CHANGED = "policy.changed"
    POLICY_REMOVED = "policy.removed"
    RULE_ADDED = "rule.added"
    RULE_CHANGED = "rule.changed"
    RULE_REMOVED = "rule.removed"
    APPROVALS_ADDED = "approvals.added"
    APPROVALS_REMOVED = "approvals.removed"
    DEVICES_ADDED = "devices.added"
    DEVICE_CHANGED = "device.changed"
    DEVICE_REMOVED = "device.removed"
    DEVICES_IMPORTED = "devices.imported"
    ORDER_ADDED = "order.added"
    ORDER_CHANGED = "order.changed"
    ORDER_REMOVED = "order.removed"
    ORDERS_IMPORTED = "orders.imported"
    SEALING_ROTATED = "sealing.rotated"
    DATABASE_BACKED_UP = "database.backed_up"
    DATABASE_RESTORED = "database.restored"
    NOTIFICATIONS_RETRIED = "notifications.retried"
    PLAN_ADDED = "plan.added"
    PLAN_CHANGED = "plan.changed"
    PLAN_REMOVED = "plan.removed"
    PLAN_ASSIGNED = "plan.assigned"
    USAGE_CLOSED = "usage.closed"
    SERVER_STARTED = "server.started"
    SERVER_STOPPED = "server.stopped"
    SERVER_RELOADED = "server.reloaded"
    HANDSHAKES_COUNTED = "handshakes.counted"
    HANDSHAKES_LOST = "handshakes.lost"
    AUDIT_BEGAN = "audit.began"
    AUDIT_MARKED = "audit.marked"
    AUDIT_PRUNED = "audit.pruned"
    UNKNOWN = "unknown"
    """What a newer release wrote, read by an older one."""

    @classmethod
    def of(cls, text: str) -> Act:
        return cls(text) if text in cls._value2member_map_ else cls.UNKNOWN


class By(msgspec.Struct, frozen=True):
    """Who acts: "device", "delegator" or "operator NAME"; from where; and the reason that was given. Every row of the
    audit that an act leaves says this, so whoever opens a store or acts in it says who that is."""

    actor: str
    peer: str | None = None
    because: str | None = None
    detail: Mapping[str, object] = msgspec.field(default_factory=dict)


class Entry(msgspec.Struct, frozen=True):
    """One act. `actor` is "device", "delegator" or "operator NAME"; `peer` says from where; `outcome` is "done" or
    the fault that was told; `at` is aware UTC. One that was `repeated` went on `until` then."""

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
    detail: Mapping[str, object] = msgspec.field(default_factory=dict)
    until: datetime | None = None
    repeated: int = 1


class Record(msgspec.Struct, frozen=True):
    """One row as it stands in the audit: its place, what it tells, its hash."""

    chain: str
    number: int
    entry: Entry
    hash: bytes

    @property
    def name(self) -> str:
        """How a row is named on the command line."""
        return f"{self.chain}:{self.number}"
