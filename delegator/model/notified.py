"""What is to be told to somebody, and how far the telling has come.

A message is (event, recipient, carrier, subject, body), whoever writes it. `recipient` is the name of a delegate, whose
callback says where its administrator is told, or an address of its own, "mailto:somebody@example.com": no name holds a
colon. `subject` is what it is about, by its id; `body` are the facts, which are worded only when it is sent.
The invariant: nothing here holds a credential or any other secret, so a message can be kept and sent as it is.
Must not live here: how it is kept (store.outbox), worded (notify) and sent (net).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from delegator.model.secret import Secret
from delegator.model.word import Word

MAIL_TO = "mailto:"
"""Begins a recipient that is an address for mail and no name of a delegate."""


class NotificationKind(Word):
    """The carrier: how somebody is told, by signed mail or by a signed HTTPS call."""

    MAIL = "mail"
    WEBHOOK = "webhook"


class Notice(Word):
    """Events of claims, which have words of their own, see notify.words: their subject is the claim. Any other event
    brings its words along in its body, as `title` and `text`."""

    PROVISIONED = "provisioned"
    SECOND_CLAIMANT = "second claimant"


class NotificationState(Word):
    """waiting -> sent, or given up; an operator can put it back to waiting."""

    WAITING = "waiting"
    SENT = "sent"
    GIVEN_UP = "given up"


class Target(msgspec.Struct, frozen=True):
    """Where somebody can be told, looked up when a message is sent: what was mended meanwhile counts."""

    mail_to: str | None = None
    webhook_url: str | None = None
    webhook_secret: Secret | None = None
    webhook_anchor: str | None = None

    @property
    def told_by(self) -> tuple[NotificationKind, ...]:
        """By which carriers."""
        targets = {NotificationKind.MAIL: self.mail_to, NotificationKind.WEBHOOK: self.webhook_url}
        return tuple(kind for kind, target in targets.items() if target is not None)


class Telling(msgspec.Struct, frozen=True):
    """What is to be told once a claim is issued: in which ways, by which delegator, and what the claim itself does
    not know, the address that the device says it has."""

    kinds: tuple[NotificationKind, ...]
    delegate: str
    delegator: str
    claimed_address: str | None = None


class Message(msgspec.Struct, frozen=True):
    """One thing to be told to one recipient by one carrier, as it is written. What has the same `message_id` is the
    same thing: it is told once, and receivers know it again by that. `at` is when the event was; `customer` may see
    it."""

    message_id: str
    event: str
    recipient: str
    carrier: NotificationKind
    subject: str
    body: Mapping[str, str | None]
    at: datetime
    customer: str | None = None


class Notification(Message, frozen=True, kw_only=True):
    """A message in the outbox, and how far it has come. Times are aware UTC."""

    number: int
    give_up_at: datetime
    attempts: int
    state: NotificationState
    last_error: str | None = None
    ended_at: datetime | None = None

    @property
    def claim_id(self) -> str | None:
        """The claim that it is about, where it is about one."""
        return self.subject if self.event in _OF_CLAIMS else None


_OF_CLAIMS = frozenset(notice.value for notice in Notice)
