"""Contract: an import of any size is seen whole or not at all, whenever it dies, and holds nobody up (A4, A9).

The invariant that is proved here: a reader sees nothing of an import until one commit, and all of it from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from delegator.errors import DelegatorError, Kind
from delegator.model import Device, Order, Registration
from delegator.model.audited import Act, By
from delegator.store import Store, importing, imports
from delegator.store.importing import How, Imported, Importer
from delegator.store.spool import Refused, Said, Spool
from delegator.store.transaction import Query

from ..clock import today

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OLD = Registration("acme", "OLD0001", "S-OLD-1", ("00:00:00:00:AA:01", "00:00:00:00:AA:02"), "R1", "O-1", "acme-soap")
OLDER = Registration("acme", "OLD0002", "S-OLD-2", ("00:00:00:00:AA:03",), "R1", "O-1")


def said(line: int, one: Registration) -> Said:
    return Said(line, one.customer, one.service_tag, one.serial_number, ",".join(one.mac_addresses) or None, one.model,
                one.order, one.delegate)


def spool_of(rows: Iterable[Registration | Refused]) -> Spool:
    spool = Spool()
    spool.fill(row if isinstance(row, Refused) else said(line, row) for line, row in enumerate(rows, 2))
    return spool


def fresh(count: int) -> list[Registration]:
    return [Registration("umbra", f"NEW{n:05}", f"S-{n * 7919 % 10007}", (f"00:1A:2B:00:{n >> 8:02X}:{n & 255:02X}",),
                         "R740", f"O-{n // 100}") for n in range(count)]


def stage(_: str, __: int):
    return lambda _: None


PLAIN = How()


async def imported(store: Store, rows: Iterable[Registration | Refused], how: How = PLAIN,
                   refused: list[Refused] | None = None) -> Imported:
    with spool_of(rows) as spool:
        done = await store.fleet.import_all(spool, how, stage, lambda: NOW)
        if refused is not None:
            refused += spool.refused(1000)
        return done


async def registered(store: Store) -> dict[str | None, Registration]:
    return {one.service_tag or one.serial_number: replace(one, device_id=0) async for one in store.devices()}


def by_name(*some: Registration) -> dict[str | None, Registration]:
    return {one.service_tag or one.serial_number: one for one in some}


def refusals(spool: list[Refused]) -> dict[int, str]:
    return {one.line: one.error for one in spool}


async def names_kept(store: Store) -> int:
    return int(str((await store._driver.read(Query("SELECT count(*) FROM device_names")))[0][0]))


async def nothing_under_way(store: Store) -> bool:
    left = await store._driver.read(Query("SELECT (SELECT count(*) FROM imports) + "
                                          "(SELECT count(*) FROM device_changes)"))
    return int(str(left[0][0])) == 0


class Killed(BaseException):
    """The process is dead."""


class Watched:
    """A driver that looks with other eyes after each commit, and can die before or after any of them."""

    def __init__(self, store: Store, seen=None, die_at: int | None = None, after: bool = False) -> None:
        self._driver, self._seen, self._die_at, self._after = store._driver, seen, die_at, after
        self.read, self.shared = store._driver.read, store._driver.shared
        self.runs = 0

    async def run(self, work, scope=None, *, repeatable=False):
        self.runs += 1
        dead = self._die_at is not None and self.runs >= self._die_at
        if dead and not (self._after and self.runs == self._die_at):
            raise Killed
        outcome = await self._driver.run(work, scope, repeatable=repeatable)
        if dead:
            raise Killed
        if self._seen is not None:
            await self._seen()
        return outcome


CHANGED = [
    replace(OLD, serial_number="S-NEW", mac_addresses=("00:00:00:00:AA:02", "00:00:00:00:AA:09"), model="R2"),
    replace(OLDER, serial_number="S-OLD-9", order="O-2", mac_addresses=())]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits of a few rows, so that there are many."""
    for name, value in (("_FIRST", 40), ("_LEAST", 40), ("_MOST", 40), ("_TIDIED", 20), ("REST", 0.0)):
        monkeypatch.setattr(importing, name, value)
    monkeypatch.setattr(importing.Pace, "took", lambda *_: None)


async def test_a4_a_reader_sees_nothing_or_all(shop: Store, opening, small) -> None:
    """Looked at after every single commit, from another connection: by list, by count, by each kind of key."""
    await shop.add_devices([OLD, OLDER], today())
    other, states = await opening(), []
    before, after = by_name(OLD, OLDER), by_name(*fresh(150), *CHANGED)

    async def seen() -> None:
        now = await registered(other)
        assert now in (before, after)
        states.append(now == after)
        assert await other.fleet.view.count() == len(now)
        keys = (Device("NEW00149"), Device("ZZZ9999", "S-7919"), Device("ZZZ9999", None, ("00:1A:2B:00:00:07",)))
        assert [bool((await other.find(key)).registrations) for key in keys] == [now == after] * 3
        for model in ("S-OLD-1", "S-NEW"):
            found = (await other.find(Device("OLD0001", model))).registrations
            assert [one.model for one in found] == ["R2" if now == after else "R1"]

    driver = Watched(shop, seen)
    with spool_of([*fresh(150), *CHANGED]) as spool:
        done = await Importer(driver, By("test"), lambda: NOW, stage).run(spool, How(replace=True))
    assert (done.counts.new, done.counts.changed) == (150, 2)
    assert driver.runs > 12
    assert states == sorted(states), "once shown, it stays"
    assert True in states[:-1], "tidying up changes nothing that is seen"
    assert await nothing_under_way(shop)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a4_whenever_it_dies_there_is_nothing_or_all_and_it_can_be_run_again(shop: Store, small,
                                                                                   after: bool) -> None:
    """At every commit there is; what is left behind is cleared up by whoever comes later."""
    await shop.add_devices([OLD, OLDER], today())
    nothing, everything = by_name(OLD, OLDER), by_name(*fresh(60), *CHANGED)
    names, number, whole = await names_kept(shop), 0, 0
    while True:
        number += 1
        driver = Watched(shop, die_at=number, after=after)
        with spool_of([*fresh(60), *CHANGED]) as spool, contextlib.suppress(Killed):
            await Importer(driver, By("test"), lambda: NOW, stage).run(spool, How(replace=True))
            break
        assert await registered(shop) in (nothing, everything)
        while await shop.fleet.tidy(NOW + timedelta(minutes=1)):
            assert await registered(shop) in (nothing, everything)
        assert await nothing_under_way(shop)
        if await registered(shop) == everything:
            whole += 1
            for one in [each async for each in shop.devices()]:
                await shop.fleet.remove(one, NOW)
            await shop.add_devices([OLD, OLDER], today())
        assert await names_kept(shop) == names, "nothing keeps an identifier"
    assert number > 8
    assert whole > 0
    assert await registered(shop) == everything


async def test_a9_importing_again_changes_nothing_and_says_so(shop: Store) -> None:
    assert (await imported(shop, fresh(500))).counts.new == 500
    before = await shop._driver.read(Query("SELECT * FROM devices ORDER BY device_id"))
    again = await imported(shop, fresh(500))
    assert (again.counts.new, again.counts.changed, again.counts.unchanged, again.kept) == (0, 0, 500, True)
    assert await shop._driver.read(Query("SELECT * FROM devices ORDER BY device_id")) == before


async def test_a9_a_registration_that_took_its_tag_at_the_first_claim_is_the_same_again(shop: Store, ask) -> None:
    row = Registration("acme", serial_number="S-1", model="R1")
    await imported(shop, [row])
    (one,) = (await shop.find(Device("ABC1234", "S-1"))).registrations
    await shop.open_claim(replace(ask(), unnamed=one.device_id))
    assert (await imported(shop, [row])).counts.unchanged == 1
    changed = await imported(shop, [replace(row, model="R2")], How(replace=True))
    assert changed.counts.changed == 1
    assert await registered(shop) == by_name(replace(row, service_tag="ABC1234", model="R2")), "and keeps it"


async def test_a9_every_wrong_row_is_told_with_its_line_and_nothing_is_written(shop: Store) -> None:
    same = Registration("umbra", "SAME001")
    await shop.add_devices([OLD, OLDER, same], today())
    refused: list[Refused] = []
    rows = [
        Registration("umbra", "GOOD001"), Refused(3, "unreadable"), Registration("nobody", "GOOD002"),
        Registration("umbra", "GOOD003", delegate="acme-soap"), Registration("umbra", "OLD0001"),
        Registration("acme", "OLD0002", "S-OLD-1"), Registration("umbra", "GOOD001"),
        Registration("umbra", "GOOD004", mac_addresses=OLD.mac_addresses[:1]), Registration("umbra", "SAME001", "S-7"),
        same]
    done = await imported(shop, rows, refused=refused)
    assert not done.kept
    told = refusals(refused)
    assert sorted(told) == [3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert told[3] == "unreadable"
    assert "no customer named nobody" in told[4]
    assert "no delegate named acme-soap" in told[5]
    assert "another customer" in told[6]
    assert "several registered devices" in told[7]
    assert told[8] == "service tag GOOD001 stands on line 2 already"
    assert "another customer" in told[9]
    assert "differently" in told[10]
    assert told[11] == "service tag SAME001 stands on line 10 already"
    assert "acme" not in told[6] + told[9]
    assert await registered(shop) == by_name(OLD, OLDER, same)


async def test_a9_the_good_ones_are_kept_if_that_is_wanted(shop: Store) -> None:
    await shop.add_devices([OLD, OLDER], today())
    rows = [*fresh(3), Registration("umbra", "OLD0009", "S-OLD-2"), OLD]
    done = await imported(shop, rows, How(keep_good=True))
    assert (done.kept, done.counts.new, done.counts.refused, done.counts.unchanged) == (True, 3, 1, 1)
    assert await registered(shop) == by_name(OLD, OLDER, *fresh(3))


async def test_a9_a_dry_run_counts_and_writes_nothing(shop: Store) -> None:
    driver = Watched(shop)
    with spool_of(fresh(20)) as spool:
        done = await Importer(driver, By("test"), lambda: NOW, stage).run(spool, How(dry_run=True))
    assert (done.counts.new, done.kept, driver.runs) == (20, False, 0)


async def test_a9_replace_changes_everything_and_frees_what_was_given_up(shop: Store) -> None:
    await shop.add_devices([OLD, OLDER], today())
    assert not (await imported(shop, CHANGED)).kept
    assert (await imported(shop, CHANGED, How(replace=True))).counts.changed == 2
    assert await registered(shop) == by_name(*CHANGED)
    free = Registration("umbra", "NEW0002", "S-OLD-2", ("00:00:00:00:AA:01", "00:00:00:00:AA:03"))
    assert (await imported(shop, [free])).counts.new == 1


async def test_a9_two_lines_about_one_device_are_told(shop: Store) -> None:
    """They share no identifier with each other, only with what is registered."""
    await shop.add_devices([OLD], today())
    refused: list[Refused] = []
    rows = [Registration("acme", "OLD0001", model="R3"), Registration("acme", serial_number="S-OLD-1", model="R4")]
    await imported(shop, rows, How(replace=True), refused)
    assert refusals(refused) == {3: "line 2 is about the same registered device"}


@pytest.mark.parametrize("clash", [
    Registration("acme", "NEW00100"), Registration("acme", serial_number="S-0"),
    Registration("acme", mac_addresses=("00:1A:2B:00:00:63",))])
async def test_a4_who_registers_the_same_meanwhile_wins_or_waits(shop: Store, opening, small,
                                                                 clash: Registration) -> None:
    """In no order of events do two devices hold one identifier, or does half an import stay."""
    other, outcomes = await opening(), []

    async def add() -> None:
        if not outcomes:
            try:
                outcomes.append(await other.add_devices([clash], today()))
            except DelegatorError as error:
                outcomes.append(error.kind)

    with spool_of(fresh(150)) as spool, contextlib.suppress(DelegatorError):
        await Importer(Watched(shop, add), By("test"), lambda: NOW, stage).run(spool, How())
    kept = await registered(shop)
    if outcomes == [1]:
        assert kept == by_name(clash)
        assert await names_kept(shop) == 1
    else:
        assert outcomes == [Kind.TRY_LATER]
        assert kept == by_name(*fresh(150))
    assert await nothing_under_way(shop)


async def test_a4_what_an_import_is_about_is_left_alone_by_others(shop: Store, ask, small) -> None:
    """Neither a claim nor an operator changes a device between its look and its change, or takes a hidden name."""
    unnamed = Registration("acme", serial_number="S-5")
    await shop.add_devices([OLD, unnamed], today())
    tried = []

    async def meddle() -> None:
        under_way = await shop._driver.read(Query("SELECT 1 FROM imports WHERE state = 'open'"))
        pending = await shop._driver.read(Query("SELECT 1 FROM device_changes"))
        if not (under_way and pending) or tried:
            return
        (one,) = (await shop.find(Device("ABC1234", "S-5"))).registrations
        opened = await shop.open_claim(replace(ask(), unnamed=one.device_id))
        tried.append([reason.why.value for reason in opened.reasons])
        for work in (shop.add_devices([replace(OLD, model="R8")], today(), replace=True),
                     shop.remove_device("OLD0001", today()),
                     shop.add_devices([Registration("umbra", "NEW00001")], today())):
            with pytest.raises(DelegatorError) as refusal:
                await work
            tried.append(refusal.value.kind)

    rows = [*fresh(10), replace(OLD, model="R2"), replace(unnamed, model="R2")]
    with spool_of(rows) as spool:
        await Importer(Watched(shop, meddle), By("test"), lambda: NOW, stage).run(spool, How(replace=True))
    assert tried[1:] == [Kind.TRY_LATER] * 3
    assert tried[0]
    assert await registered(shop) == by_name(*fresh(10), replace(OLD, model="R2"), replace(unnamed, model="R2"))
    assert (await shop.find(Device("ABC1234"))).registrations == ()


async def test_a4_one_import_at_a_time(shop: Store, opening, small, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one waits for the first; one that stopped for good is taken back, and can do nothing any more."""
    monkeypatch.setattr(importing, "WAITING", 0.3)
    slot = await shop._driver.run(lambda: imports.begin("dead", 10, imports_ms(NOW)), imports.scope)
    other = await opening()
    with pytest.raises(DelegatorError) as refusal:
        await imported(other, fresh(3))
    assert refusal.value.kind is Kind.TRY_LATER

    later = NOW + timedelta(seconds=16)
    with spool_of(fresh(3)) as spool:
        await other.fleet.import_all(spool, How(), stage, lambda: later)
    assert len(await registered(shop)) == 3
    for work in (lambda: imports.go_on(slot, imports_ms(later)), lambda: imports.show(slot, imports_ms(later))):
        with pytest.raises(DelegatorError) as refusal:
            await shop._driver.run(work, imports.scope)
        assert refusal.value.kind is Kind.TRY_LATER


def imports_ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


async def test_a4_an_import_that_is_stopped_is_taken_back_by_the_next(shop: Store, small) -> None:
    """Ctrl-C: it gives the slot up at once and clears up nothing itself."""
    task: asyncio.Task[None] | None = None

    async def stop() -> None:
        if await shop._driver.read(Query("SELECT 1 FROM devices WHERE service_tag = 'NEW00001'")):
            assert task is not None
            task.cancel()

    async def run() -> None:
        with spool_of(fresh(100)) as spool:
            await Importer(Watched(shop, stop), By("test"), lambda: NOW, stage).run(spool, How())

    task = asyncio.create_task(run())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await registered(shop) == {}
    assert (await imported(shop, fresh(100))).counts.new == 100
    assert await nothing_under_way(shop)


async def test_a4_an_import_is_one_row_of_audit(shop: Store) -> None:
    await imported(shop, fresh(30), How(source={"file": "shipment.csv", "sha256": "00ff"}))
    rows = await shop._driver.read(Query("SELECT detail FROM audit WHERE act = $1", (Act.DEVICES_IMPORTED.value,)))
    assert len(rows) == 1
    for part in ('"new":30', '"sha256":"00ff"', '"file":"shipment.csv"'):
        assert part in str(rows[0][0]).replace(" ", "")


# --- orders -------------------------------------------------------------------------------------------------------


async def owners(store: Store) -> dict[str | None, tuple[str | None, str | None, bool]]:
    return {one.service_tag: (one.customer, one.delegate, one.by_order) async for one in store.devices()}


async def test_a9_one_row_hands_over_an_order_before_or_after_its_devices(shop: Store) -> None:
    await imported(shop, [Registration(None, "FIRST01", order="4711"), Registration(None, "OTHER01", order="4712")])
    assert await owners(shop) == {"FIRST01": (None, None, False), "OTHER01": (None, None, False)}
    devices = await shop._driver.read(Query("SELECT * FROM devices ORDER BY device_id"))
    assert await shop.orders.add(Order("4711", "acme", "acme-soap"), NOW)
    assert await shop._driver.read(Query("SELECT * FROM devices ORDER BY device_id")) == devices, "no device is touched"
    await imported(shop, [Registration(None, "AFTER01", order="4711")])
    assert await owners(shop) == {"FIRST01": ("acme", "acme-soap", True), "OTHER01": (None, None, False),
                                  "AFTER01": ("acme", "acme-soap", True)}
    assert [one.service_tag async for one in shop.devices("acme", page=1)] == ["FIRST01", "AFTER01"]
    assert await shop.fleet.view.count("acme") == 2
    assert await shop.orders.devices("4711") == (2, 2)
    await shop.orders.remove("4711", NOW)
    assert {customer for customer, _, _ in (await owners(shop)).values()} == {None}


async def test_a9_what_a_device_says_itself_goes_before_its_order(shop: Store) -> None:
    await shop.add_devices([Registration("umbra", "OWN0001", order="4711")], today())
    await shop.orders.add(Order("4711", "acme"), NOW)
    assert await owners(shop) == {"OWN0001": ("umbra", None, False)}
    assert [one.service_tag async for one in shop.devices("umbra")] == ["OWN0001"]
    assert [one async for one in shop.devices("acme")] == []
    assert await shop.orders.devices("4711") == (1, 0)


async def test_a9_an_order_is_never_moved_to_another_customer_in_one_step(shop: Store) -> None:
    assert await shop.orders.add(Order("4711", "acme"), NOW)
    assert not await shop.orders.add(Order("4711", "acme"), NOW)
    for order, replacing, kind in ((Order("4711", "umbra"), True, Kind.CONFLICT),
                                   (Order("4711", "acme", "acme-soap"), False, Kind.CONFLICT),
                                   (Order("4712", "nobody"), False, Kind.NOT_FOUND),
                                   (Order("4712", "acme", "umbra-soap"), False, Kind.NOT_FOUND)):
        with pytest.raises(DelegatorError) as refusal:
            await shop.orders.add(order, NOW, replace=replacing)
        assert refusal.value.kind is kind
    assert await shop.orders.add(Order("4711", "acme", "acme-soap"), NOW, replace=True)
    assert await shop.orders.get("4711") == Order("4711", "acme", "acme-soap")
    for noun, name in (("customer", "acme"), ("delegate", "acme-soap")):
        with pytest.raises(DelegatorError) as refusal:
            await shop.remove(noun, name, today())
        assert refusal.value.kind is Kind.CONFLICT


async def test_a4_an_order_is_one_row_of_audit_each_way(shop: Store) -> None:
    await shop.orders.add(Order("4711", "acme"), NOW)
    await shop.orders.add(Order("4711", "acme"), NOW)
    await shop.orders.remove("4711", NOW)
    rows = await shop._driver.read(Query("SELECT act, customer FROM audit WHERE act LIKE 'order.%' ORDER BY number"))
    assert [tuple(row) for row in rows] == [("order.added", "acme"), ("order.removed", "acme")]


async def test_a4_an_export_is_of_one_moment(shop: Store, opening) -> None:
    """Pages are read one after the other while others register, change and remove."""
    await shop.add_devices([OLD, OLDER, *fresh(20)], today())
    other, before = await opening(), await registered(shop)
    read: list[Registration] = []
    async with shop.fleet.moment() as view:
        assert await view.count() == len(before)
        async for one in view.devices(page=5):
            if not read:
                await other.remove_device("OLD0002", today())
                await other.add_devices([replace(OLD, model="R9")], today(), replace=True)
                await imported(other, [Registration("acme", f"LATE{n:03}") for n in range(50)])
            read.append(replace(one, device_id=0))
    assert by_name(*read) == before
    assert len(await registered(shop)) == len(before) + 49


async def test_a4_a_customers_devices_are_all_found_while_an_import_is_being_tidied(shop: Store, small) -> None:
    """Its own, those of its orders, and one that an import has just taken out of stock."""
    stock = Registration(None, "STOCK01", order="4713")
    await shop.add_devices([OLD, stock, Registration(None, "BYORDER", order="4711")], today())
    await shop.orders.add(Order("4711", "acme"), NOW)
    lists: list[list[str | None]] = []

    async def seen() -> None:
        lists.append(sorted(str(one.service_tag) for one in [each async for each in shop.devices("acme", page=2)]))

    with spool_of([replace(stock, customer="acme")]) as spool:
        await Importer(Watched(shop, seen), By("test"), lambda: NOW, stage).run(spool, How(replace=True))
    assert lists[0] == ["BYORDER", "OLD0001"]
    assert lists[-1] == ["BYORDER", "OLD0001", "STOCK01"]
    assert {tuple(one) for one in lists} == {tuple(lists[0]), tuple(lists[-1])}
