"""What administrators read: each value on its own line, the same bytes at each try, nothing that could be a secret."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from delegator.model import (
    Customer,
    IdentityKind,
    Notice,
    Notification,
    NotificationKind,
    NotificationState,
)
from delegator.notify import words

AT = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
ACME = Customer("acme", "Acme\r\nBcc: all@acme.example")


def told(notice: Notice, identity: IdentityKind | None = None, kind: NotificationKind = NotificationKind.MAIL,
         at: datetime = AT) -> Notification:
    return Notification(7, "c" * 32, kind, "acme", "acme-small", "delegator.example", "ABC1234", "203.0.113.9", None,
                        at, at + timedelta(days=3), 1, NotificationState.WAITING, notice=notice, identity=identity)


@pytest.mark.parametrize(("identity", "shown"), [
    (IdentityKind.SHARED, "the certificate that devices share"),
    (IdentityKind.OWN, "another certificate for this device")])
def test_R_contested_a_second_claimant_is_told_in_plain_words(identity: IdentityKind, shown: str) -> None:
    letter = words.letter(told(Notice.SECOND_CLAIMANT, identity), ACME, "d@example.com", "admin@acme.example")
    assert letter.subject == "Somebody else asked for device ABC1234"
    lines = letter.text.splitlines()
    for line in ("  asked from    203.0.113.9", f"  showing       {shown}", f"  claim         {'c' * 32}",
                 "  time          2026-03-01 08:00:00 UTC"):
        assert line in lines
    assert not any(line.startswith("Bcc") for line in lines)
    body = json.loads(words.body(told(Notice.SECOND_CLAIMANT, identity, NotificationKind.WEBHOOK)))
    assert (body["type"], body["identity"], body["service_tag"]) == ("second claimant", identity.value, "ABC1234")


def test_R_contested_its_id_is_one_for_each_day_and_not_that_of_the_claims_own_notice() -> None:
    ids = {words.message_id(told(Notice.PROVISIONED)), words.message_id(told(Notice.SECOND_CLAIMANT)),
           words.message_id(told(Notice.SECOND_CLAIMANT, at=AT + timedelta(days=1)))}
    assert ids == {f"{'c' * 32}.provisioned.mail", f"{'c' * 32}.contested-20260301.mail",
                   f"{'c' * 32}.contested-20260302.mail"}
    assert words.body(told(Notice.SECOND_CLAIMANT)) == words.body(told(Notice.SECOND_CLAIMANT))


def test_TB8_what_was_told_before_reads_as_before() -> None:
    body = json.loads(words.body(told(Notice.PROVISIONED)))
    assert body["type"] == "provisioned"
    assert "identity" not in body
