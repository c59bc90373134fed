"""Second claimants are noticed without waiting, gathered, written down in one go, and never lost at the end (6.1)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.model import (
    Delegate,
    HostedCallback,
    IdentityKind,
    NotificationKind,
    Secret,
    SoapCallback,
    SshCallback,
    Telling,
)
from delegator.model.enrolled import Contest
from delegator.provisioning import alarm
from delegator.provisioning.alarm import Alarm
from delegator.store import Store
from delegator.trail import CONNECTION
from delegator.watching.metrics import Metrics

AT = datetime(2026, 1, 1, tzinfo=UTC)


def contest(tag: str = "ABC1234", kind: IdentityKind = IdentityKind.SHARED, delegate: str | None = "soap") -> Contest:
    return Contest(tag, kind, "c" * 32, "acme", delegate, "203.0.113.9", AT)


class Pretend:
    """A store that keeps batches, and is down as long as it is told to be."""

    def __init__(self) -> None:
        mailed = HostedCallback("root", Secret("x"), mail_to="ops@acme.example")
        delegates = [Delegate("soap", "acme", SoapCallback("d.acme.example")), Delegate("zeta", "acme", mailed),
                     Delegate("alpha", "acme", mailed), Delegate("first", "globex", mailed),
                     Delegate("ssh", "umbra", SshCallback("h", "u", Secret("k"), "k"))]
        self.directory = SimpleNamespace(delegates={one.name: one for one in delegates})
        self.batches: list[list[tuple[Contest, Telling | None]]] = []
        self.down: bool | Exception = False
        self.connections: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.contests = self

    async def tables(self) -> Any:
        return self

    async def note(self, batch: Sequence[tuple[Contest, Telling | None]], *, forget: bool) -> list[Contest]:
        self.connections.append(CONNECTION.get())
        await self.open.wait()
        if isinstance(self.down, Exception):
            raise self.down
        if self.down:
            raise DelegatorError(Kind.UNAVAILABLE, "disk full")
        self.batches.append(list(batch))
        return [one for one, _ in batch]


@pytest.fixture
def store() -> Pretend:
    return Pretend()


@pytest.fixture
def told() -> list[bool]:
    return []


@pytest.fixture
def sounding(store: Pretend, told: list[bool], monkeypatch: pytest.MonkeyPatch) -> Alarm:
    monkeypatch.setattr(alarm, "PAUSE", 0.02)
    return Alarm(cast(Store, store), Metrics(), lambda: told.append(True), "delegator.example")


async def settled(sounding: Alarm) -> None:
    while sounding._noting is not None:
        await asyncio.sleep(0.005)


async def test_R_contested_a_thousand_requests_are_one_entry_in_one_batch(sounding: Alarm, store: Pretend,
                                                                          told: list[bool]) -> None:
    for _ in range(1000):
        sounding.contested(contest())
    sounding.contested(contest(kind=IdentityKind.OWN))
    assert not store.batches, "noticing does not wait for the store"
    await settled(sounding)
    ((shared, own),) = store.batches
    assert (shared[0].times, own[0].times) == (1000, 1)
    assert told == [True]


async def test_R_contested_what_is_pending_is_bounded(sounding: Alarm, store: Pretend) -> None:
    for number in range(alarm.MOST + 500):
        sounding.contested(contest(f"TAG{number:05}"))
    await sounding.close()
    assert len(store.batches[0]) == alarm.MOST


async def test_R_contested_a_store_that_is_away_loses_none_and_the_end_writes_them_down(
        sounding: Alarm, store: Pretend, caplog: pytest.LogCaptureFixture) -> None:
    store.down = True
    sounding.contested(contest())
    await asyncio.sleep(0.05)
    sounding.contested(contest())
    assert "second claimants: disk full" in caplog.messages
    store.down = False
    await settled(sounding)
    assert store.batches[0][0][0].times == 2
    sounding.contested(contest("ABC9999"))
    await sounding.close()
    assert store.batches[-1][0][0].service_tag == "ABC9999"
    await sounding.close()
    assert len(store.batches) == 2


@pytest.mark.parametrize(("delegate", "customer", "whom"), [
    ("zeta", "acme", "zeta"), ("soap", "acme", "alpha"), (None, "acme", "alpha"), ("gone", "acme", "alpha"),
    ("first", "globex", "first"), ("ssh", "umbra", None), (None, None, None)])
async def test_R_contested_the_owner_is_told_where_it_has_an_address(
        sounding: Alarm, store: Pretend, delegate: str | None,
                                                             customer: str | None, whom: str | None) -> None:
    """At the delegate that serves the device, else at the first of the same customer; never at anybody else's."""
    sounding.contested(Contest("ABC1234", IdentityKind.SHARED, "c" * 32, customer, delegate, "203.0.113.9", AT))
    await sounding.close()
    telling = store.batches[0][0][1]
    assert telling == (None if whom is None else Telling((NotificationKind.MAIL,), whom, "delegator.example"))


async def test_R_contested_the_log_warns_and_the_metric_knows_no_tag(
        sounding: Alarm, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        sounding.contested(contest())
        await settled(sounding)
        sounding.contested(Contest("ABC9999", IdentityKind.OWN, "d" * 32, None, None, "203.0.113.8", AT))
        await settled(sounding)
    assert caplog.messages == [
        f"second claimant: 203.0.113.9 asked for ABC1234 with the shared certificate, which claim {'c' * 32} of "
        "customer acme holds",
        f"second claimant: 203.0.113.8 asked for ABC9999 with another certificate for it, which claim {'d' * 32} of "
        "customer unknown holds"]
    text = sounding._metrics.text().decode()
    assert 'delegator_second_claimants_total{identity="shared"} 1.0' in text
    assert "ABC1234" not in text


async def test_R_contested_a_fault_of_ours_is_logged_and_the_next_one_is_noted_all_the_same(
        sounding: Alarm, store: Pretend, told: list[bool], caplog: pytest.LogCaptureFixture) -> None:
    store.down = ZeroDivisionError("inside")
    sounding.contested(contest())
    await settled(sounding)
    assert caplog.messages == ["second claimants: a fault of ours"]
    assert "ZeroDivisionError: inside" in caplog.text
    assert not told
    store.down = False
    sounding.contested(contest("ABC9999"))
    await settled(sounding)
    assert [one.service_tag for one, _ in store.batches[0]] == ["ABC9999"], "and not what no store takes, again"


async def test_R_contested_noting_is_of_many_connections_and_logs_as_none_of_them(
        sounding: Alarm, store: Pretend) -> None:
    token = CONNECTION.set("1f-7")
    try:
        sounding.contested(contest())
    finally:
        CONNECTION.reset(token)
    await settled(sounding)
    assert store.connections == [CONNECTION.get()]
    assert store.connections != ["1f-7"]


async def test_R_contested_an_end_waits_for_no_pause_and_for_what_is_being_written(
        sounding: Alarm, store: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm, "PAUSE", 3600)
    store.open.clear()
    sounding.contested(contest())
    closing = asyncio.create_task(sounding.close())
    async with asyncio.timeout(2):
        while not store.connections:
            await asyncio.sleep(0.001)
    assert not closing.done()
    store.open.set()
    async with asyncio.timeout(2):
        await closing
    assert len(store.batches) == 1


async def test_R_contested_a_store_that_stays_away_holds_up_no_end(
        sounding: Alarm, store: Pretend, caplog: pytest.LogCaptureFixture) -> None:
    store.down = True
    sounding.contested(contest())
    async with asyncio.timeout(2):
        await sounding.close()
    assert set(caplog.messages) == {"second claimants: disk full"}


async def test_R_contested_a_delegate_that_names_nobody_to_tell_is_passed_over(sounding: Alarm, store: Pretend) -> None:
    store.directory.delegates["acme-0"] = Delegate("acme-0", "acme", HostedCallback("root", Secret("x")))
    sounding.contested(contest(delegate="acme-0"))
    await sounding.close()
    telling = store.batches[0][0][1]
    assert telling is not None
    assert telling.delegate == "alpha"
