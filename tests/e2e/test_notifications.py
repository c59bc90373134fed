"""A7c: a hosted claim is told to the customer's administrator: by signed mail over Exim, by a signed call to the
example receiver. A running delegator, killed and restarted; relays that are down or silent."""

from __future__ import annotations

import email
import email.policy
import json
import signal
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from delegator import config
from delegator.model import Delegate, HostedCallback, Notification, NotificationKind, NotificationState, Secret
from pki import Folder

from ..clock import today
from ..mailserver import PASSWORD, USER, MailServer, Receiver, free_port, mail_server, webhook_receiver
from .conftest import World

pytestmark = pytest.mark.counterpart("exim4", "openssl")
SENDER = "delegator@factory.example"
TO = "admin@globex.example"
CANARY, SECRET = "Canary-Passw0rd", "Canary-Secret-0000"
MAIL, WEBHOOK = NotificationKind.MAIL, NotificationKind.WEBHOOK


@dataclass
class Telling:
    """A world whose hosted customer wants to be told."""

    world: World
    relay: MailServer
    receiver: Receiver
    authority: Folder

    def configure(self, port: int, **more: object) -> None:
        password = self.world.root / "relay.password"
        mail = {"host": "localhost", "port": port, "user": USER, "password_file": str(password), "sender": SENDER,
                "ca": str(self.authority.ca_path), "timeout": 5.0, **more}
        server = msgspec.structs.replace(self.world.settings.server, name="delegator.factory.example")
        self.world.settings = msgspec.structs.replace(self.world.settings, server=server,
                                                      mail=config.MailSettings(**mail))  # type: ignore[arg-type]
        (self.world.root / "delegator.toml").write_text(config.as_toml(self.world.settings))

    def wish(self, *, mail: bool = True, webhook: bool = True) -> None:
        callback = HostedCallback("root", Secret(CANARY), TO if mail else None)
        if webhook:
            callback = replace(callback, webhook_url=f"https://localhost:{self.receiver.port}/hook",
                               webhook_secret=Secret(SECRET), webhook_anchor=self.authority.ca_path.read_text())
        self.world.store(lambda store: store.add_delegate(Delegate("globex-hosted", "globex", callback), today(),
                                                          replace=True))

    def outbox(self) -> list[Notification]:
        async def listed(store: object) -> list[Notification]:
            return await store.outbox.list()  # type: ignore[attr-defined,no-any-return]
        found: list[Notification] = self.world.store(listed)
        return found

    def until(self, true: Callable[[list[Notification]], bool], seconds: float = 15) -> list[Notification]:
        end = time.monotonic() + seconds
        while not true(found := self.outbox()) and time.monotonic() < end:
            time.sleep(0.05)
        assert true(found), (found, self.world.log)
        return found


@pytest.fixture
def telling(world: World, factory: Folder, delegate_authority: Folder, tmp_path: Path) -> Iterator[Telling]:
    if not (factory.path / "mail" / f"{SENDER}.crt").exists():
        factory.issue("mail-signer", SENDER)
    (world.root / "relay.password").touch(mode=0o600)
    (world.root / "relay.password").write_text(PASSWORD + "\n")
    with mail_server(delegate_authority) as relay, webhook_receiver(delegate_authority, tmp_path, SECRET) as receiver:
        made = Telling(world, relay, receiver, delegate_authority)
        made.configure(relay.port)
        made.wish()
        yield made


def verified(mail: bytes, ca: Path) -> bool:
    return subprocess.run(["openssl", "cms", "-verify", "-CAfile", str(ca), "-purpose", "smimesign"], input=mail,
                          capture_output=True, check=False).returncode == 0


def all_sent(found: list[Notification]) -> bool:
    return bool(found) and all(one.state is NotificationState.SENT for one in found)


def test_A7c_the_administrator_is_told_by_signed_mail_and_by_webhook(telling: Telling, factory: Folder) -> None:
    world = telling.world
    telling.relay.start()
    world.host("TELL001")
    world.start()
    first = world.ask("TELL001")
    assert first.status == 200
    assert world.ask("TELL001").credential == first.credential

    (mail,), (hook,) = telling.relay.mails(), telling.receiver.told()
    assert verified(mail, factory.ca_path)
    at = mail.index(b"TELL001", mail.index(b"multipart/signed"))
    assert not verified(mail[:at] + b"B" + mail[at + 1:], factory.ca_path), "a changed byte"
    read = email.message_from_bytes(mail, policy=email.policy.default)
    claim = first.text("ClaimId")
    assert (read["To"], read["From"]) == (TO, SENDER)
    assert read["Message-ID"] == f"<{claim}.provisioned.mail@delegator.factory.example>"
    text = next(read.iter_parts()).get_content()
    for said in ("TELL001", "127.0.0.1", " UTC", "Globex (globex)", "delegator.factory.example", claim):
        assert said in text
    told = json.loads(hook)
    assert (told["type"], told["claim_id"], told["service_tag"], told["peer_address"], told["delegator"]) == (
        "provisioned", claim, "TELL001", "127.0.0.1", "delegator.factory.example")
    telling.until(all_sent)
    world.stop()
    assert len(telling.relay.mails()) == len(telling.receiver.told()) == 1


def test_A7c_TB8_killed_after_the_issue_it_is_told_after_the_restart(telling: Telling) -> None:
    """kill -9 right after the commit, before anything was sent: one mail, one Message-ID."""
    world = telling.world
    world.host("TELL002")
    world.start(kill_at="after-open_and_issue")
    with pytest.raises(OSError):
        world.ask("TELL002")
    assert world.process is not None
    assert world.process.wait(10) == -signal.SIGKILL
    world.stop()
    assert [one.attempts for one in telling.outbox()] == [0, 0]

    telling.relay.start()
    world.start()
    assert world.ask("TELL002").status == 200
    telling.until(all_sent)
    assert len(telling.relay.mails()) == 1
    assert len(telling.receiver.told()) == 1


def test_A7c_a_relay_that_is_down_and_comes_up_again(telling: Telling) -> None:
    """The webhook is not held up; `notifications retry` does not wait for the pause to end."""
    world = telling.world
    world.host("TELL003", "TELL004")
    world.start()
    for tag in ("TELL003", "TELL004"):
        assert world.ask(tag).status == 200
    assert len(telling.receiver.told(2)) == 2
    telling.until(lambda found: any(one.last_error for one in found))
    telling.relay.start()

    async def retried(store: object) -> int:
        from datetime import UTC, datetime
        return await store.outbox.retry(datetime.now(UTC))  # type: ignore[attr-defined,no-any-return]
    assert world.store(retried) == 2
    mails = telling.relay.mails(2)
    assert len({email.message_from_bytes(mail)["Message-ID"] for mail in mails}) == len(mails) == 2


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A relay that accepts and never says a word."""
    server = socket.create_server(("127.0.0.1", 0))
    kept: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                kept.append(server.accept()[0])
            except OSError:
                return
    thread = threading.Thread(target=accept)
    thread.start()
    yield int(server.getsockname()[1])
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()
    for sock in kept:
        sock.close()


def test_A7c_no_device_waits_for_a_silent_relay(telling: Telling, silent_port: int) -> None:
    """The same devices with nobody to tell and with a relay that hangs: the answers take as long."""
    world = telling.world
    telling.configure(silent_port)
    took: dict[bool, list[float]] = {False: [], True: []}
    tags = {mail: [f"{'HANG' if mail else 'FREE'}{number:03}" for number in range(15)] for mail in took}
    for batch in tags.values():
        world.host(*batch)
        for tag in batch:
            world.paths(tag)
    world.start()
    for mail, batch in tags.items():
        telling.wish(mail=mail, webhook=False)
        for tag in batch:
            begun = time.monotonic()
            assert world.ask(tag).status == 200
            took[mail].append(time.monotonic() - begun)
    assert len(telling.outbox()) == 15
    free, hanging = (statistics.median(took[mail]) for mail in (False, True))
    assert hanging < 1.5 * free + 0.02, took
    assert max(took[True]) < 4, "the relay's time limit is five"
    begun = time.monotonic()
    assert world.stop() == 0
    assert time.monotonic() - begun < 10


def test_A7c_mail_that_is_not_configured_waits_and_devices_are_served(telling: Telling) -> None:
    world = telling.world
    telling.configure(free_port(), host="")
    world.host("TELL005", "TELL006")
    world.start()
    for tag in ("TELL005", "TELL006"):
        assert world.ask(tag).status == 200
    telling.until(lambda found: sum(one.state is NotificationState.SENT for one in found) == 2)
    assert {one.carrier for one in telling.outbox() if one.state is NotificationState.WAITING} == {MAIL}
    assert world.log.count("[mail] is not configured") == 1


def test_TC11_no_secret_is_in_mail_outbox_or_log(telling: Telling) -> None:
    """Canaries: the hosted password, the webhook's secret, the relay's password."""
    world = telling.world
    telling.relay.start()
    world.host("TELL007")
    world.start()
    assert world.ask("TELL007").credential == ("root", CANARY)
    telling.until(all_sent)
    world.stop()
    seen = b"".join(telling.relay.mails()) + telling.receiver.lines.read_bytes() + world.log.encode()
    seen += repr(telling.outbox()).encode()
    seen += b"".join(path.read_bytes() for path in world.root.glob("delegator.db*"))
    for canary in (CANARY, SECRET, PASSWORD):
        assert canary.encode() not in seen
