"""The worker that empties the outbox, with a clock that is told the time and carriers that do as they are told."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from delegator import notify
from delegator.config import MailSettings, Server, Settings
from delegator.errors import DelegatorError, Kind
from delegator.model import (
    Customer,
    Delegate,
    HostedCallback,
    Identity,
    IdentityKind,
    Message,
    Notification,
    NotificationKind,
    NotificationState,
    Secret,
    Target,
    Telling,
)
from delegator.notify import Notifier, pause
from delegator.notify.carriers import carriers, delegator_name
from delegator.outbound import Outbound
from delegator.sealing import SealingKey
from delegator.store import Ask, Store, milliseconds, open_store
from delegator.store.outbox import put

from ..clock import today

MAIL, WEBHOOK = NotificationKind.MAIL, NotificationKind.WEBHOOK
HOSTED = HostedCallback("root", Secret("Canary-Passw0rd"), "admin@acme.example", "https://acme.example/hook",
                        Secret("Canary-Secret-0000"))
CUSTOMERS = ("acme", "globex", "umbra")


class Clock:
    """The time, as the test tells it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def later(self, **duration: float) -> None:
        self.now += timedelta(**duration)


class Pretend:
    """A carrier: what it was given, and what it does with each delegate's."""

    def __init__(self) -> None:
        self.tries: list[str] = []
        self.delivered: list[Notification] = []
        self.down: dict[str, Exception] = {}
        self.silent: set[str] = set()

    async def deliver(self, notification: Notification, customer: Customer | None, target: Target) -> str:
        self.tries.append(notification.body.get("service_tag") or notification.subject)
        if notification.recipient in self.silent:
            await asyncio.Event().wait()
        if notification.recipient in self.down:
            raise self.down[notification.recipient]
        self.delivered.append(notification)
        return "taken"


class Bench:
    """A store with three customers, a notifier, and claims that are issued on demand."""

    def __init__(self, store: Store) -> None:
        self.store, self.clock = store, Clock()
        self.mail, self.webhook = Pretend(), Pretend()
        self.notifier = self.another()

    def another(self) -> Notifier:
        return Notifier(self.store, {MAIL: self.mail, WEBHOOK: self.webhook}, self.clock, lambda: 1.0)

    async def issue(self, tag: str, customer: str = "acme", kinds: tuple[NotificationKind, ...] = (MAIL,)) -> None:
        at = milliseconds(self.clock())
        ask = Ask(f"{int.from_bytes(tag.encode(), 'big'):032x}"[-32:], Identity(IdentityKind.OWN, tag, f"key:{tag}"),
                  customer, f"{customer}-1", "192.0.2.7", at, at + 1000, at + 3_600_000)
        await self.store.open_and_issue(ask, lambda _: "Canary-Passw0rd",
                                        Telling(kinds, f"{customer}-1", "delegator.example"))

    async def look(self) -> None:
        await self.notifier.look()
        await asyncio.wait_for(self.notifier.settled(), 5)

    async def states(self) -> Counter[NotificationState]:
        return Counter(one.state for one in await self.store.outbox.list())


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = await open_store(tmp_path / "delegator.db", SealingKey(b"k" * 32))
    for name in CUSTOMERS:
        await store.add_customer(Customer(name, name.title()), today())
        await store.add_delegate(Delegate(f"{name}-1", name, HOSTED), today())
    yield Bench(store)
    await store.close()


def down(detail: str = "relay: no answer") -> DelegatorError:
    return DelegatorError(Kind.UNREACHABLE, detail)


async def test_A7c_each_is_told_once_in_each_way(bench: Bench) -> None:
    for number in range(5):
        await bench.issue(f"TAG000{number}", kinds=(MAIL, WEBHOOK))
    for _ in range(3):
        await bench.look()
    for carrier in (bench.mail, bench.webhook):
        assert sorted(carrier.tries) == [f"TAG000{number}" for number in range(5)]
    assert await bench.states() == {NotificationState.SENT: 10}


async def test_TB8_several_processes_send_each_once(bench: Bench) -> None:
    for number in range(10):
        await bench.issue(f"TAG000{number}", CUSTOMERS[number % 3])
    notifiers = [bench.another() for _ in range(4)]
    await asyncio.gather(*(one.look() for one in notifiers))
    await asyncio.gather(*(one.settled() for one in notifiers))
    assert sorted(bench.mail.tries) == [f"TAG000{number}" for number in range(10)]


async def test_TB9_a_target_that_is_down_or_silent_holds_up_no_other(bench: Bench) -> None:
    bench.mail.down["acme-1"] = down()
    bench.mail.silent.add("globex-1")
    for customer in CUSTOMERS:
        for number in range(3):
            await bench.issue(f"{customer.upper()}{number}", customer, (MAIL, WEBHOOK))
    await bench.notifier.look()
    await asyncio.wait_for(_until(lambda: len(bench.webhook.delivered) == 9 and len(bench.mail.delivered) == 3), 5)
    assert {one.customer for one in bench.mail.delivered} == {"umbra"}
    await bench.issue("UMBRA9", "umbra")
    await bench.notifier.look()
    await asyncio.wait_for(_until(lambda: len(bench.mail.delivered) == 4), 5)
    assert bench.mail.tries.count("GLOBEX0") == 1, "the silent one is under way, once"


async def _until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.005)


async def test_TB8_it_waits_longer_after_each_failure(bench: Bench) -> None:
    bench.mail.down["acme-1"] = down()
    await bench.issue("TAG0001")
    tried: list[datetime] = []
    while len(tried) < 10:
        await bench.look()
        tried += [bench.clock()] * (len(bench.mail.tries) - len(tried))
        bench.clock.later(seconds=30)
    waited = [(later - earlier).total_seconds() for earlier, later in pairwise(tried)]
    assert waited == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]


@pytest.mark.parametrize("failures", range(15))
def test_TB8_the_pause_is_between_half_a_minute_and_an_hour(failures: int) -> None:
    least, most = pause(failures, 0.0), pause(failures, 1.0)
    assert timedelta(seconds=30) <= least <= most <= timedelta(hours=1)
    assert failures == 0 or least < most, "not all that failed together come back together"


async def test_A7c_down_then_up_and_everything_arrives(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.mail.down["acme-1"] = down("relay: connection refused")
    for number in range(3):
        await bench.issue(f"TAG000{number}")
    await bench.look()
    assert len(bench.mail.tries) == 1, "the others of a target that is down are not tried one by one"
    assert "relay: connection refused" in caplog.text
    bench.mail.down.clear()
    bench.clock.later(seconds=30)
    await bench.look()
    assert {one.body["service_tag"] for one in bench.mail.delivered} == {"TAG0000", "TAG0001", "TAG0002"}


async def test_A7c_it_gives_up_after_three_days_and_says_how_to_go_on(bench: Bench,
                                                                      caplog: pytest.LogCaptureFixture) -> None:
    bench.mail.down["acme-1"] = down()
    await bench.issue("TAG0001")
    while (await bench.states())[NotificationState.WAITING]:
        bench.clock.later(hours=1)
        await bench.look()
        assert len(bench.mail.tries) <= 73
    assert len(bench.mail.tries) > 60
    (lost,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "delegator notifications retry --claim" in lost.getMessage()
    bench.mail.down.clear()
    await bench.store.outbox.retry(bench.clock())
    await bench.look()
    assert await bench.states() == {NotificationState.SENT: 1}


async def test_A7c_without_mail_configured_it_waits_and_the_log_says_so_once(
        bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.notifier = Notifier(bench.store, {WEBHOOK: bench.webhook}, bench.clock)
    for number in range(3):
        await bench.issue(f"TAG000{number}", kinds=(MAIL, WEBHOOK))
        bench.clock.later(days=2)
        await bench.look()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
    assert await bench.states() == {NotificationState.WAITING: 3, NotificationState.SENT: 3}
    bench.notifier = bench.another()
    await bench.look()
    assert await bench.states() == {NotificationState.SENT: 6}


async def test_A7c_whom_to_tell_is_looked_up_when_it_is_told(bench: Bench) -> None:
    """A mistyped address can be mended; a delegate that tells nobody any more ends it."""
    await bench.issue("TAG0001", kinds=(MAIL, WEBHOOK))
    mended = HostedCallback("root", Secret("x"), "right@acme.example")
    await bench.store.add_delegate(Delegate("acme-1", "acme", mended), today(), replace=True)
    await bench.look()
    assert {one.carrier: one.state for one in await bench.store.outbox.list()} == {
        MAIL: NotificationState.SENT, WEBHOOK: NotificationState.GIVEN_UP}
    assert bench.webhook.tries == []


async def test_TC11_neither_log_nor_outbox_tells_a_secret(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Not even a fault of ours whose words hold one."""
    caplog.set_level(logging.DEBUG)
    bench.mail.down["acme-1"] = RuntimeError("with Canary-Passw0rd in it")
    await bench.issue("TAG0001", kinds=(MAIL, WEBHOOK))
    await bench.look()
    (failed,) = [one for one in await bench.store.outbox.list() if one.carrier is MAIL]
    assert failed.last_error is not None
    assert failed.last_error.startswith("a fault of ours, RuntimeError at test_notifier.py:")
    assert "Canary" not in "".join(record.getMessage() for record in caplog.records)
    assert "Canary" not in repr(await bench.store.outbox.list())


@pytest.mark.parametrize("error", [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), RuntimeError("x" * 9999),
                                   down("550 \udcff\udcfe\r\n\x1b[2J\u202e" + "y" * 9999)],
                         ids=["not utf-8", "a fault of ours", "words that nothing can write"])
async def test_TC10_whatever_a_carrier_raises_its_queue_rests_longer_each_time_and_is_given_up_in_words(
        bench: Bench, caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    bench.mail.down["acme-1"] = error
    await bench.issue("TAG0001")
    rests = []
    for _ in range(1000):
        tries, begun = len(bench.mail.tries), bench.clock()
        while len(bench.mail.tries) == tries and NotificationState.WAITING in await bench.states():
            await bench.look()
            bench.clock.later(minutes=1)
        rests.append(bench.clock() - begun)
        if NotificationState.WAITING not in await bench.states():
            break
    (lost,) = await bench.store.outbox.list()
    assert lost.state is NotificationState.GIVEN_UP
    assert lost.last_error is not None
    assert lost.last_error.isprintable()
    assert len(lost.last_error) <= notify.LONGEST_WHY
    assert rests[1] < rests[4] < rests[8], "it rests longer each time"
    assert not any(one.exc_info for one in caplog.records), "no traceback"
    assert sum("failed, attempt" in one.getMessage() for one in caplog.records) == len(bench.mail.tries), "once each"


async def test_A7c_the_worker_wakes_for_what_is_new_and_stops_cleanly(bench: Bench) -> None:
    work = asyncio.create_task(bench.notifier.run())
    await asyncio.sleep(0.05)
    for number in range(20):
        await bench.issue(f"TAG00{number:02}", CUSTOMERS[number % 3])
        bench.notifier.wake()
    await asyncio.wait_for(_until(lambda: len(bench.mail.delivered) == 20), notify.ROUND / 2)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert len(bench.mail.tries) == 20


async def test_A7c_the_end_does_not_wait_for_a_silent_target(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "GRACE", 0.05)
    bench.mail.silent.add("acme-1")
    await bench.issue("TAG0001")
    work = asyncio.create_task(bench.notifier.run())
    await asyncio.wait_for(_until(lambda: bool(bench.mail.tries)), 5)
    work.cancel()
    await asyncio.wait_for(asyncio.gather(work, return_exceptions=True), 1)
    assert await bench.states() == {NotificationState.WAITING: 1}


def test_A7c_mail_that_is_not_in_order_is_told_and_keeps_nothing_from_running(
        tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(server=Server(ca=str(tmp_path / "ca.crt")),
                        mail=MailSettings(host="relay.example", sender="delegator@factory.example"))
    assert set(carriers(settings, Outbound(), lambda: datetime.now(UTC))) == {MAIL, WEBHOOK}
    assert "python -m pki mail delegator@factory.example" in caplog.text
    assert set(carriers(Settings(), Outbound(), lambda: datetime.now(UTC))) == {WEBHOOK}


def test_A7c_the_delegators_name_is_a_host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert delegator_name(Settings(server=Server(name="delegator.factory.example"))) == "delegator.factory.example"
    monkeypatch.setattr("socket.gethostname", lambda: "box_1\r\nBcc: x")
    assert delegator_name(Settings()) == "delegator.invalid"


# --- by any room, to anybody --------------------------------------------------------------------------------------


async def told(bench: Bench, recipient: str, carrier: NotificationKind = MAIL, customer: str | None = None) -> None:
    message = Message(f"i1.invited.{recipient}", "invited", recipient, carrier, "i1", {"text": "x"}, bench.clock(),
                      customer)
    await bench.store._driver.run(lambda: put(message))


async def test_somebody_who_is_no_delegate_is_told_by_mail_at_their_address(bench: Bench) -> None:
    await told(bench, "mailto:ann@acme.example")
    await bench.look()
    assert [one.recipient for one in bench.mail.delivered] == ["mailto:ann@acme.example"]
    assert await bench.states() == {NotificationState.SENT: 1}


@pytest.mark.parametrize(("recipient", "carrier", "customer"), [
    ("mailto:ann@acme.example", WEBHOOK, None), ("nobody-1", MAIL, None), ("acme-1", MAIL, "nobody")],
    ids=["no address for it", "no such delegate", "a customer that is gone"])
async def test_what_nobody_can_be_told_any_more_is_given_up(
        bench: Bench, recipient: str, carrier: NotificationKind, customer: str | None) -> None:
    await told(bench, recipient, carrier, customer)
    await bench.look()
    assert bench.mail.tries == bench.webhook.tries == []
    assert await bench.states() == {NotificationState.GIVEN_UP: 1}


async def test_an_address_that_is_down_holds_up_no_other(bench: Bench) -> None:
    bench.mail.down["mailto:ann@acme.example"] = down()
    await told(bench, "mailto:ann@acme.example")
    await told(bench, "mailto:bob@acme.example")
    await bench.look()
    assert [one.recipient for one in bench.mail.delivered] == ["mailto:bob@acme.example"]
