"""A7c: mail over a real relay, Exim: STARTTLS, authentication, and what is refused. Time limits on silent ones."""

from __future__ import annotations

import asyncio
import dataclasses
import email
import email.policy
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.model import Secret
from delegator.net.mail import Relay, Security, send, smtp_library
from delegator.wire.mail import Letter, signed, signer_of
from delegator.wire.presented import presented
from pki import Folder

from ..mailserver import PASSWORD, USER, MailServer, mail_server

pytestmark = pytest.mark.counterpart("exim4", "openssl")
SENDER = "relay-test@factory.example"
TO = "admin@acme.example"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Who signed the relay's certificate; the factory did not."""
    folder = Folder.create(tmp_path_factory.mktemp("stranger") / "pki", common_name="Test Stranger CA")
    folder.issue("delegate-server", "localhost", names=("127.0.0.1",))
    return folder


@pytest.fixture
def server(authority: Folder) -> Iterator[MailServer]:
    with mail_server(authority) as server:
        server.start()
        yield server


@pytest.fixture
def relay(server: MailServer, authority: Folder) -> Relay:
    return Relay("localhost", server.port, Security.STARTTLS, "delegator.example", 5, USER, Secret(PASSWORD),
                 str(authority.ca_path))


@pytest.fixture(scope="module")
def mail(factory: Folder) -> bytes:
    issued = factory.issue("mail-signer", SENDER)
    assert issued.key_path is not None
    signer = signer_of(presented(issued.certificate_path, issued.key_path), SENDER, datetime.now(UTC))
    text = "Grüße.\n.\n..\nFrom here  \n" + "long " * 300 + "\n"
    return signed(Letter(SENDER, TO, "Device ABC1234 was provisioned", text, datetime.now(UTC), "0f.provisioned.mail",
                         "delegator.example"), signer)


async def refused(relay: Relay, mail: bytes = b"Subject: x\r\n\r\nx\r\n", to: str = TO) -> DelegatorError:
    with pytest.raises(DelegatorError) as refusal:
        await send(relay, SENDER, to, mail)
    assert PASSWORD not in refusal.value.detail
    return refusal.value


def verified(mail: bytes, ca: Path) -> bool:
    return subprocess.run(["openssl", "cms", "-verify", "-CAfile", str(ca), "-purpose", "smimesign"], input=mail,
                          capture_output=True, check=False).returncode == 0


async def test_A7c_a_signed_mail_survives_a_real_relay_and_a_changed_byte_does_not(
        relay: Relay, server: MailServer, mail: bytes, factory: Folder, authority: Folder) -> None:
    await send(relay, SENDER, TO, mail)
    (arrived,) = server.mails()
    assert verified(arrived, factory.ca_path)
    assert not verified(arrived, authority.ca_path)
    assert not verified(arrived.replace(b"From here", b"From hers"), factory.ca_path)
    read = email.message_from_bytes(arrived, policy=email.policy.default)
    assert (read["To"], read["From"], read["Message-ID"]) == (TO, SENDER, "<0f.provisioned.mail@delegator.example>")
    assert "P=esmtpsa" in server.log, "over TLS, authenticated"
    assert f"A=plain:{USER}" in server.log


async def test_TB8_a_relay_that_does_not_offer_tls_gets_neither_mail_nor_password(
        relay: Relay, server: MailServer, mail: bytes) -> None:
    """RFC 3207 section 6: somebody in between may have taken the offer out."""
    server.stop()
    server.start(tls=False)
    assert (await refused(relay, mail)).kind is Kind.UNREACHABLE
    assert server.mails(seconds=0.2) == []
    assert "plain" not in server.log


async def test_TB8_a_relay_with_a_strange_certificate_gets_nothing(relay: Relay, server: MailServer, mail: bytes,
                                                                   factory: Folder) -> None:
    for wrong in (dataclasses.replace(relay, ca=str(factory.ca_path)), dataclasses.replace(relay, ca="")):
        assert "certificate" in (await refused(wrong, mail)).detail
    assert server.mails(seconds=0.2) == []


async def test_A7c_what_the_relay_refuses_is_told_in_its_own_words(relay: Relay) -> None:
    assert "535" in (await refused(dataclasses.replace(relay, password=Secret("wrong")))).detail
    assert "authentication is required" in (await refused(dataclasses.replace(relay, user="", password=None))).detail
    assert "550 no such mailbox" in (await refused(relay, to="nobody@acme.example")).detail
    assert "Errno 111" in (await refused(dataclasses.replace(relay, port=1))).detail


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS])
async def test_A7c_a_silent_relay_costs_its_time_limit(security: Security) -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
    silent = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    begun = time.monotonic()
    detail = (await refused(Relay("127.0.0.1", port, security, "d.example", 0.3))).detail
    assert "no answer within 0.3 s" in detail
    assert time.monotonic() - begun < 3
    await asyncio.sleep(0.05)
    silent.close()


async def test_A7c_a_mail_that_was_taken_is_not_sent_again_because_of_a_silent_goodbye() -> None:
    """The relay says 250 to the data and never answers QUIT."""
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 x\r\n")
        while line := await reader.readline():
            word = line.strip().upper()
            if word == b"DATA":
                writer.write(b"354 go\r\n")
                while await reader.readline() != b".\r\n":
                    pass
                writer.write(b"250 taken\r\n")
            elif word != b"QUIT":
                writer.write(b"250 ok\r\n")
        writer.close()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    relay = Relay("127.0.0.1", server.sockets[0].getsockname()[1], Security.NONE, "d.example", 5)
    assert await send(relay, SENDER, TO, b"Subject: x\r\n\r\nx\r\n") == "taken"
    await asyncio.sleep(0.05)
    server.close()


@pytest.mark.parametrize(("host", "user"), [("192.0.2.1", ""), ("relay.example", ""), ("127.0.0.1", "somebody")])
async def test_TB8_without_tls_only_to_this_machine_and_without_password(host: str, user: str) -> None:
    relay = Relay(host, 25, Security.NONE, "d.example", 1, user, Secret("x"))
    assert (await refused(relay)).kind is Kind.CONFIGURATION


def test_A7c_without_the_extra_the_words_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiosmtplib", None)
    with pytest.raises(DelegatorError) as refusal:
        smtp_library()
    assert "[mail]" in refusal.value.hint
