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
    of = "provisioned" if notice is Notice.PROVISIONED else f"contested-{at:%Y%m%d}"
    body = {"service_tag": "ABC1234", "peer": "203.0.113.9", "delegator": "delegator.example",
            **({} if identity is None else {"identity": identity.value})}
    return Notification(f"{'c' * 32}.{of}.{kind.value}", notice.value, "acme-small", kind, "c" * 32, body, at, "acme",
                        number=7, give_up_at=at + timedelta(days=3), attempts=1, state=NotificationState.WAITING)


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


def test_what_is_sent_anew_is_the_same_to_the_byte() -> None:
    assert words.body(told(Notice.SECOND_CLAIMANT)) == words.body(told(Notice.SECOND_CLAIMANT))


def test_TB8_what_was_told_before_reads_as_before() -> None:
    body = json.loads(words.body(told(Notice.PROVISIONED)))
    assert body["type"] == "provisioned"
    assert "identity" not in body


def test_a_webhook_says_of_a_claim_what_it_always_said() -> None:
    """Names, values and order: receivers were written for them."""
    assert words.body(told(Notice.PROVISIONED, kind=NotificationKind.WEBHOOK)).decode() == (
        '{"claim_id":"cccccccccccccccccccccccccccccccc","claimed_address":null,"customer":"acme",'
        '"delegate":"acme-small","delegator":"delegator.example",'
        '"id":"cccccccccccccccccccccccccccccccc.provisioned.webhook","peer_address":"203.0.113.9",'
        '"service_tag":"ABC1234","time":"2026-03-01T08:00:00Z","type":"provisioned"}')


def invited(**body: str) -> Notification:
    said = {"title": "Your device\r\nBcc: all@acme.example", "text": "It waits.\n",
            "delegator": "delegator.example", **body}
    return Notification("i1.invited.mail", "invited", "mailto:ann@acme.example", NotificationKind.MAIL, "i1", said, AT,
                        number=1, give_up_at=AT, attempts=1, state=NotificationState.WAITING)


def test_an_event_without_words_here_brings_its_own_along() -> None:
    letter = words.letter(invited(), None, "d@example.com", "ann@acme.example")
    assert (letter.subject, letter.text) == ("Your device  Bcc: all@acme.example", "It waits.\n")
    assert (letter.message_id, letter.delegator) == ("i1.invited.mail", "delegator.example")
    body = json.loads(words.body(invited()))
    assert (body["type"], body["id"], body["subject"], body["customer"]) == ("invited", "i1.invited.mail", "i1", None)
    assert body["text"] == "It waits.\n"


def test_words_that_come_along_fill_no_gap_and_forge_no_fact() -> None:
    letter = words.letter(invited(title="{claim}", text="{delegator}"), None, "d@example.com", "ann@acme.example")
    assert (letter.subject, letter.text) == ("{claim}", "{delegator}")
    body = json.loads(words.body(invited(type="provisioned", id="other")))
    assert (body["type"], body["id"]) == ("invited", "i1.invited.mail")
