"""T-B8: mail that is signed, that stays as it was signed, and into which no value can smuggle a header."""

from __future__ import annotations

import email
import email.policy
import subprocess
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegator.errors import DelegatorError
from delegator.model import Customer, Notification, NotificationKind, NotificationState
from delegator.notify import words
from delegator.wire.mail import Letter, Signer, address, signed, signer_of
from delegator.wire.presented import presented
from pki import Folder

SENDER = "letter-test@factory.example"
AT = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
LETTER = Letter(SENDER, "admin@acme.example", "Device ABC1234 was provisioned", "Grüße.\r\n.\nFrom here  \n", AT,
                "0123456789abcdef.provisioned.mail", "delegator.factory.example")
HOSTILE = ("\r\nBcc: thief@example.com", "\nBcc: thief@example.com", "\r\n\r\nbody", "\x00", "\u2028Bcc: x",
           "x\x0bBcc: y", "\n", "\r\n", " =?utf-8?q?=0aBcc:_thief@example.com?=")


@pytest.fixture(scope="session")
def signer_files(factory: Folder) -> tuple[Path, Path]:
    issued = factory.issue("mail-signer", SENDER)
    assert issued.key_path is not None
    return issued.certificate_path, issued.key_path


@pytest.fixture(scope="session")
def signer(signer_files: tuple[Path, Path]) -> Signer:
    chain, key = signer_files
    return signer_of(presented(chain, key), SENDER, datetime.now(UTC))


def verified(mail: bytes, ca: Path, *more: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["openssl", "cms", "-verify", "-CAfile", str(ca), *more], input=mail, capture_output=True,
                          check=False)


@pytest.mark.counterpart("openssl")
@pytest.mark.parametrize("purpose", ["smimesign", "any"])
def test_A7c_openssl_accepts_the_signature_with_the_factory_ca(signer: Signer, factory: Folder, purpose: str) -> None:
    done = verified(signed(LETTER, signer), factory.ca_path, "-purpose", purpose)
    assert done.returncode == 0, done.stderr
    shown = email.message_from_bytes(done.stdout, policy=email.policy.default).get_content()
    assert shown.splitlines() == ["Grüße.", ".", "From here  "]


@pytest.mark.counterpart("openssl")
def test_A7c_another_authority_or_a_changed_byte_is_refused(signer: Signer, factory: Folder,
                                                            customer_ca: Folder) -> None:
    mail = signed(LETTER, signer)
    assert verified(mail, customer_ca.ca_path).returncode != 0
    at = mail.index(b"From here")
    assert verified(mail[:at] + b"f" + mail[at + 1:], factory.ca_path).returncode != 0


@pytest.mark.counterpart("openssl")
def test_A7c_a_mail_whose_line_ends_a_system_has_rewritten_still_verifies(signer: Signer, factory: Folder) -> None:
    """Mail is kept with bare line feeds on most machines; RFC 8551 section 3.1.1 makes that no change."""
    mail = signed(LETTER, signer)
    assert b"\n" not in mail.replace(b"\r\n", b"")
    assert verified(mail.replace(b"\r\n", b"\n"), factory.ca_path).returncode == 0


def test_A7c_readers_see_plain_text_with_its_signature_beside_it(signer: Signer) -> None:
    mail = signed(LETTER, signer)
    assert mail.isascii(), "no relay has a reason to encode it anew"
    read = email.message_from_bytes(mail, policy=email.policy.default)
    assert read.get_content_type() == "multipart/signed"
    assert (read.get_param("micalg"), read.get_param("protocol")) == ("sha-256", "application/pkcs7-signature")
    assert [part.get_content_type() for part in read.iter_parts()] == ["text/plain", "application/pkcs7-signature"]
    assert not read.defects
    assert parsedate_to_datetime(str(read["Date"])) == AT
    assert read["Message-ID"] == "<0123456789abcdef.provisioned.mail@delegator.factory.example>"
    assert read["Auto-Submitted"] == "auto-generated"


def test_TB8_a_long_name_leaves_the_message_id_in_one_piece(signer: Signer) -> None:
    name = ".".join(["a" * 60] * 4)
    mail = signed(msgspec.structs.replace(LETTER, delegator=name), signer)
    assert f"Message-ID: <{LETTER.message_id}@{name}>\r\n".encode() in mail


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("field", ["sender", "recipient", "message_id", "delegator", "subject"])
def test_TB8_no_field_can_add_a_header(signer: Signer, field: str, hostile: str) -> None:
    """Refused, or harmless: the header keeps one line of its own."""
    letter = msgspec.structs.replace(LETTER, **{field: getattr(LETTER, field) + hostile})
    try:
        mail = signed(letter, signer)
    except ValueError:
        return
    assert field == "subject"
    assert sorted(email.message_from_bytes(mail).keys()) == sorted(
        ["From", "To", "Subject", "Date", "Auto-Submitted", "MIME-Version", "Message-ID", "Content-Type"])
    assert "\r" not in hostile
    assert "\n" not in hostile


@pytest.mark.parametrize("text", [
    "", "a", "a@", "@b", "a b@c.example", "a@b@c", "<a@b.example>", "Name <a@b.example>", '"a"@b.example',
    "a@b.example,c@d", "a@b.example\r\n", "a\r\n@b.example", "a@[192.0.2.1]", "a..b@c.example", ".a@b.example",
    "a@-b.example", "ä@b.example", "a@ö.example",
    f"{'a' * 65}@b.example", f"a@{'b.' * 130}example", "a(comment)@b.example", "=?utf-8?q?a?=@b.example"])
def test_TB8_only_the_plain_form_of_an_address_is_one(text: str) -> None:
    with pytest.raises(ValueError):
        address(text)


@pytest.mark.parametrize("text", ["a@b", "first.last+tag@sub.acme.example", "A_B-c@xn--bcher-kva.example"])
def test_TB8_a_plain_address_is_kept_as_it_is(text: str) -> None:
    assert address(text).addr_spec == text


def provisioned() -> Notification:
    body = {"service_tag": "ABC1234", "peer": "192.0.2.7", "claimed_address": "10.0.0.5",
            "delegator": "delegator.example"}
    return Notification("i1", "provisioned", "acme-small", NotificationKind.MAIL, "0f" * 16, body, AT, "acme", number=7,
                        give_up_at=AT, attempts=3, state=NotificationState.WAITING)


@given(title=st.text(max_size=80))
def test_TB8_whatever_a_customer_is_called_stays_on_its_line(title: str) -> None:
    notification = provisioned()
    lines = words.letter(notification, Customer("acme", title), SENDER, "a@b.example").text.splitlines()
    plain = words.letter(notification, Customer("acme", "Acme"), SENDER, "a@b.example").text.splitlines()
    assert len(lines) == len(plain)


def test_A7c_the_mail_says_which_device_where_when_and_who(signer: Signer) -> None:
    """The patent's column 8: service tag and IP address, here with time and delegator."""
    notification = provisioned()
    letter = words.letter(notification, Customer("acme", "Acme Grüße"), SENDER, "a@b.example")
    for said in ("ABC1234", "192.0.2.7", "10.0.0.5", "2026-01-01 12:30:00 UTC", "Acme Grüße (acme)", "acme-small",
                 "delegator.example", "0f" * 16):
        assert said in letter.text
    again = words.letter(msgspec.structs.replace(notification, attempts=9), Customer("acme", "Acme Grüße"), SENDER,
                         "a@b.example")
    assert again == letter, "a retry is the same mail"


def test_A7c_a_signer_that_is_not_the_senders_is_refused(signer_files: tuple[Path, Path], factory: Folder) -> None:
    pair, now = presented(*signer_files), datetime.now(UTC)
    for sender, at, why in (("other@factory.example", now, f"not for other@factory.example but for {SENDER}"),
                            (SENDER, now.replace(year=now.year + 3), "ended at"),
                            (SENDER, now.replace(year=now.year - 3), "is not valid before")):
        with pytest.raises(ValueError, match=why):
            signer_of(pair, sender, at)
    with pytest.raises(DelegatorError, match="does not belong to the certificate"):
        presented(signer_files[0], factory.certificate_path("delegator-server", "delegator").with_suffix(".key"))
