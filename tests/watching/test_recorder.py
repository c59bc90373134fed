"""The recorder: handshakes that changed no claim become rows, grouped and bounded (A4: refusals in the audit too)."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.model.audited import Act, Entry
from delegator.trail import Step, Trail
from delegator.watching import recorder
from delegator.watching.recorder import OF_ONE_ADDRESS, OF_ONE_DEVICE, PENDING, STRANGERS, Recorder

START = datetime(2026, 1, 1, tzinfo=UTC)


class Desk:
    """A recorder, a clock that is set by hand, and the rows that were written."""

    def __init__(self) -> None:
        self.at, self.rows, self.down = START, list[Entry](), False
        self.recorder = Recorder(self.append, lambda: self.at)

    async def append(self, entries) -> None:
        if self.down:
            raise DelegatorError(Kind.UNAVAILABLE, "no")
        self.rows += entries

    def ends(self, tag: str | None = "ABC1234", outcome: str = "NotEntitled", *, peer: str = "192.0.2.7",
             reasons: tuple[str, ...] = ("no",), identity: str | None = "own", **facts: str) -> Trail:
        """A handshake ends."""
        trail = Trail("c1", peer, reasons=reasons, facts={"outcome": outcome, **facts})
        trail.facts |= {name: value for name, value in (("tag", tag), ("identity", identity)) if value is not None}
        trail.mark(Step.CONNECTED, 0)
        trail.mark(Step.REFUSED, 2_000_000, outcome)
        self.recorder.record(trail)
        return trail

    async def round(self, minutes: float = 0) -> list[Entry]:
        """Time passes, and what is due is written; the new rows."""
        self.at += timedelta(minutes=minutes)
        known = len(self.rows)
        self.recorder._close_windows(self.at)
        await self.recorder._flush()
        return self.rows[known:]


@pytest.fixture
async def desk():
    desk = Desk()
    yield desk
    desk.down = False
    await desk.recorder.close()


async def test_A4_the_first_of_its_kind_is_a_row_within_about_a_second(desk):
    desk.ends()
    await asyncio.sleep(recorder.SOON + 0.5)
    (row,) = desk.rows
    assert (row.act, row.actor, row.outcome, row.service_tag, row.peer, row.reasons, row.repeated) == (
        Act.HANDSHAKE, "device", "NotEntitled", "ABC1234", "192.0.2.7", ("no",), 1)
    assert row.detail["steps"] == [["connected", 0.0, ""], ["refused", 2.0, "NotEntitled"]]


async def test_A4_a_device_that_comes_every_90_seconds_is_two_rows_and_then_one_a_window(desk):
    for _ in range(40):  # an hour
        desk.ends()
        await desk.round(1.5)
    rows = [*desk.rows, *await desk.round(15)]
    assert len(rows) == 1 + 60 / 15
    assert sum(row.repeated for row in rows) == 40
    assert all(one.until <= other.at for one, other in itertools.pairwise(rows[1:]))
    assert rows[1].at == START + timedelta(minutes=1.5)
    assert await desk.round(60) == []
    desk.ends()
    assert len(await desk.round()) == 1, "and when it comes back, that is news"


@pytest.mark.parametrize("other", [{"tag": "ABC1235"}, {"outcome": "TryLater"}, {"peer": "192.0.2.8"},
                                   {"reasons": ("yes",)}, {"identity": "shared"}, {"serial": "12"},
                                   {"operation": "ConfirmProvisioning"}, {"new_address": "192.0.2.9"}])
async def test_A4_what_differs_is_a_row_of_its_own(desk, other):
    desk.ends()
    desk.ends(**other)
    assert len(await desk.round()) == 2


async def test_A4_what_a_claims_row_holds_is_not_told_twice(desk):
    trail = Trail("c1", "192.0.2.7", facts={"outcome": "Answered"})
    trail.as_kept()
    desk.recorder.record(trail)
    assert await desk.round() == []
    desk.ends("ABC1234", "Answered")
    assert len(await desk.round()) == 1, "the same answer again changes no claim"


async def test_A4_a_refusal_after_a_claims_row_is_told_all_the_same(desk):
    trail = Trail("c1", "192.0.2.7", facts={"outcome": "TryLater"})
    trail.as_kept()
    desk.recorder.record(trail)
    assert len(await desk.round()) == 1


async def test_A4_a_flood_of_strangers_costs_so_many_rows_and_the_rest_is_counted(desk):
    """Random tags from many addresses, for half an hour, 20 a second."""
    for second in range(1800):
        for number in range(20):
            desk.ends(f"T{second}{number}", peer=f"198.51.{second % 250}.{number}", identity="shared")
        if second % 10 == 0:
            await desk.round()
        desk.at += timedelta(seconds=1)
    await desk.round(16)
    counted = [row for row in desk.rows if row.act is Act.HANDSHAKES_COUNTED]
    assert len(desk.rows) - len(counted) <= STRANGERS.burst + 31 * STRANGERS.a_minute
    assert len(counted) <= 32
    assert sum(row.repeated for row in desk.rows) == 36_000, "none is forgotten"
    assert all(len(row.detail["most_from"]) <= recorder.ADDRESSES for row in counted)


async def test_A4_one_address_cannot_use_up_the_rows_of_all(desk):
    for number in range(5000):
        desk.ends(f"T{number}", identity=None)
    assert len(await desk.round()) == OF_ONE_ADDRESS.burst
    desk.ends("T1", peer="192.0.2.99", identity=None)
    assert len(await desk.round()) == 1


async def test_A4_a_device_with_its_own_certificate_is_bounded_too_and_disturbs_no_other(desk):
    for number in range(5000):
        desk.ends(new_address=f"n{number}")
    assert len(await desk.round()) == OF_ONE_DEVICE.burst
    desk.ends("ABC1235")
    assert len(await desk.round()) == 1


async def test_A4_windows_that_repeat_are_within_the_allowance_as_well(desk):
    """Who keeps many kinds alive gets no more rows than who always brings new ones."""
    for _ in range(10):
        for number in range(2 * STRANGERS.burst):
            desk.ends(f"T{number}", peer=f"10.0.{number % 250}.1", identity="shared")
        await desk.round(16)
    rows = [row for row in desk.rows if row.act is Act.HANDSHAKE]
    assert len(rows) <= STRANGERS.burst + 10 * 16 * STRANGERS.a_minute
    assert sum(row.repeated for row in desk.rows) + sum(
        group.count for group in desk.recorder._groups.values()) == 10 * 2 * STRANGERS.burst


async def test_A4_memory_is_bounded_and_nothing_is_lost_from_the_count(desk, monkeypatch):
    monkeypatch.setattr(recorder, "GROUPS", 100)
    for _ in range(3):
        for number in range(1000):
            desk.ends(f"T{number}")
        await desk.round()
    assert len(desk.recorder._groups) <= 100
    await desk.round(16)
    assert sum(row.repeated for row in desk.rows) == 3000


async def test_A4_a_store_that_is_down_costs_no_more_than_the_queue_and_the_loss_is_told(desk):
    desk.down = True
    for number in range(PENDING + 70):
        desk.ends(f"T{number}")
    assert await desk.round() == []
    desk.down = False
    rows = await desk.round()
    (lost,) = [row for row in rows if row.act is Act.HANDSHAKES_LOST]
    assert (lost.outcome, lost.repeated, len(rows)) == ("NotEntitled", 70, PENDING + 1)


async def test_A4_at_the_end_everything_noted_is_written_whatever_its_window(desk):
    for _ in range(5):
        desk.ends()
    await desk.recorder.close()
    assert [row.repeated for row in desk.rows] == [1, 4]


async def test_A4_noting_costs_next_to_nothing_where_a_claim_has_its_row(desk):
    trail = Trail("c1", "192.0.2.7", facts={"outcome": "Answered"}, on_record=True)
    for _ in range(1000):
        desk.recorder.record(trail)
    assert desk.recorder._groups == {}
    assert desk.recorder._task is None


async def test_A4_a_clock_set_back_neither_stops_rows_nor_opens_the_flood(desk):
    desk.at -= timedelta(days=3650)
    for number in range(STRANGERS.burst + 500):
        desk.ends(f"T{number}", peer=f"10.0.{number % 250}.1", identity="shared")
    assert len(await desk.round()) == STRANGERS.burst


async def test_TC19_how_long_somebody_waited_makes_no_new_kind(desk):
    """While a store is slow each device is told why in other figures each time: its retries are one row all the same,
    and the store that is slow is not given a row for each of them."""
    for tenths in range(10):
        desk.ends(outcome="TryLater", reasons=(f"others have waited for a commit for 1.{tenths} s: the disk is slow",))
    (row,) = await desk.round()
    assert row.reasons == ("others have waited for a commit for 1.0 s: the disk is slow",)
    desk.ends(outcome="TryLater", reasons=("others have waited for the moon for 1.0 s",))
    assert len(await desk.round()) == 1
    (again,) = [one for one in await desk.round(16) if one.repeated > 1]
    assert again.repeated == 9
