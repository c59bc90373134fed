"""Who is told that a hosted claim was issued, and how far the telling has come.

The invariant: nothing here holds a credential or any other secret, so a notification can be kept and sent as it is.
Must not live here: how it is kept (store.outbox), worded (notify) and sent (net).
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from delegator.model.claimed import IdentityKind
from delegator.model.word import Word


class NotificationKind(Word):
    """How somebody is told: by signed mail, or by a signed HTTPS call."""

    MAIL = "mail"
    WEBHOOK = "webhook"


class Notice(Word):
    """Of what somebody is told."""

    PROVISIONED = "provisioned"
    SECOND_CLAIMANT = "second claimant"


class NotificationState(Word):
    """waiting -> sent, or given up; an operator can put it back to waiting."""

    WAITING = "waiting"
    SENT = "sent"
    GIVEN_UP = "given up"


class Telling(msgspec.Struct, frozen=True):
    """What is to be told once a claim is issued: in which ways, by which delegator, and what the claim itself does
    not know, the address that the device says it has."""

    kinds: tuple[NotificationKind, ...]
    delegate: str
    delegator: str
    claimed_address: str | None = None


class Notification(msgspec.Struct, frozen=True):
    """One thing to be told to one administrator. Times are aware UTC; `created_at` is when the claim was issued, or
    the second claimant was seen; `peer` is who asked."""

    number: int
    claim_id: str
    kind: NotificationKind
    customer: str
    delegate: str
    delegator: str
    service_tag: str
    peer: str | None
    claimed_address: str | None
    created_at: datetime
    give_up_at: datetime
    attempts: int
    state: NotificationState
    last_error: str | None = None
    ended_at: datetime | None = None
    notice: Notice = Notice.PROVISIONED
    identity: IdentityKind | None = None
    """Of a second claimant: which certificate was shown."""
