"""Contract: no road renames a device with a service tag, takes an identifier of it for another device, or gives a
device that has an owner to another customer (A4, A9).

The law goes over what rows can say (which tag, serial number, address, whose), by each road that registers: what stood
before is compared with what stands after. Transfers and returns have tests of their own.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from delegator.errors import DelegatorError, Kind, Owned
from delegator.model import Order, Registration
from delegator.store import Store
from delegator.store.devices import names_of
from delegator.store.importing import How
from delegator.store.spool import Refused, Said, Spool

from ..clock import today

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MAC, OTHER_MAC = "00:1A:2B:00:00:01", "00:1A:2B:00:00:05"
OWN = Registration("acme", "REP0001", "SR-1", (MAC,), delegate="acme-soap")
BY_ORDER = Registration(None, "FAC0003", "SF-3", order="7001")
UNTAGGED = Registration("acme", None, "SR-5", (OTHER_MAC,))
STOCK = Registration(None, "FAC0004", "SF-4", order="9001")
ALL = (OWN, BY_ORDER, UNTAGGED, STOCK)
Owner = tuple[str | None, str | None]
OWNERS: tuple[Owner, ...] = (("acme", None), ("umbra", None), (None, "7001"), (None, "8001"), (None, "9001"))
"""By a row's customer or its order: 7001 is acme's, 8001 umbra's, 9001 nobody's."""
ROWS = [Registration(customer, tag, serial, (mac,) if mac else (), "R2", order)
        for tag, serial, mac, (customer, order) in itertools.product(
            (None, "REP0001", "REP0002", "FAC0003", "FAC0004"), (None, "SR-1", "SR-2", "SF-3", "SR-5"),
            (None, MAC, OTHER_MAC), OWNERS) if tag or serial or mac]


async def imported(store: Store, row: Registration, how: How) -> list[Refused]:
    with Spool() as spool:
        spool.fill([Said(2, row.customer, row.service_tag, row.serial_number, ",".join(row.mac_addresses) or None,
                         row.model, row.order, row.delegate)])
        await store.fleet.import_all(spool, how, lambda *_: lambda _: None, lambda: NOW)
        return spool.refused(9)


async def by_import(store: Store, row: Registration) -> object:
    return await imported(store, row, How(replace=True))


async def by_import_of_some_columns(store: Store, row: Registration) -> object:
    return await imported(store, row, How(
        replace=True, unnamed=lambda line: frozenset({"customer", "order", "delegate"})))


async def by_add(store: Store, row: Registration) -> object:
    return await store.add_devices([row], today(), replace=True)


async def by_change(store: Store, row: Registration) -> object:
    """Each registered device is told to be what the row says, but its tag, which stays where there is one."""
    for one in ALL:
        said = {name: getattr(row, name) for name in ("customer", "serial_number", "mac_addresses", "order")
                if getattr(row, name)}
        with contextlib.suppress(DelegatorError):
            await store.fleet.change(one.service_tag or str(one.serial_number), lambda was, said=said, one=one: replace(
                was, **said, service_tag=one.service_tag or row.service_tag), today())


ROADS: tuple[Callable[[Store, Registration], Awaitable[object]], ...] = (
    by_add, by_import, by_import_of_some_columns, by_change)


@pytest.fixture
async def sold(shop: Store) -> Store:
    await shop.orders.add(Order("7001", "acme", "acme-soap"), NOW)
    await shop.orders.add(Order("8001", "umbra"), NOW)
    await shop.add_devices(ALL, today())
    return shop


async def standing(store: Store) -> dict[int, Registration]:
    return {one.device_id: one async for one in store.devices()}


def wrongs(before: dict[int, Registration], after: dict[int, Registration]) -> list[str]:
    """What became of what stood there that must not."""
    found = []
    for number, one in before.items():
        now = after.get(number)
        if now is None:
            found.append(f"{one} is gone")
            continue
        if one.customer not in (None, now.customer):
            found.append(f"{one} is {now.customer}'s now")
        if one.service_tag is None:
            continue
        if now.service_tag != one.service_tag:
            found.append(f"{one} is called {now.service_tag} now")
        if any(set(names_of(one)) & set(names_of(other)) for at, other in after.items() if at != number):
            found.append(f"another device has an identifier of {one}")
    return found


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("part", range(4))
async def test_a9_whatever_a_row_says_nobodys_device_is_renamed_or_moved(
        sold: Store, road: Callable[[Store, Registration], Awaitable[object]], part: int) -> None:
    fresh = True
    for row in ROWS[part::4 if not sold._driver.shared else 28]:
        before = await standing(sold)
        if not fresh:
            for one in before.values():
                await sold.fleet.remove(one, NOW)
            await sold.add_devices(ALL, today())
            before = await standing(sold)
        with contextlib.suppress(DelegatorError):
            await road(sold, row)
        after = await standing(sold)
        assert wrongs(before, after) == [], row
        fresh = after == before


async def refused(sold: Store, row: Registration) -> str:
    """By an import and by an addition alike: the words of the import."""
    before = await standing(sold)
    with pytest.raises(DelegatorError) as refusal:
        await sold.add_devices([row], today(), replace=True)
    assert refusal.value.kind is Kind.CONFLICT
    told = {dry: await imported(sold, row, How(replace=True, dry_run=dry)) for dry in (True, False)}
    assert told[True] == told[False] == [Refused(2, refusal.value.detail)]
    assert await standing(sold) == before
    return refusal.value.detail


@pytest.mark.parametrize(("row", "said"), [
    (Registration("acme", "REP0002", "SR-1"), "serial number SR-1 belongs to REP0001"),
    (Registration("acme", "REP0002", None, (MAC,)), f"MAC address {MAC} belongs to REP0001"),
    (Registration("acme", "REP0002", "SR-2", (MAC,)), f"MAC address {MAC} belongs to REP0001"),
    (Registration("acme", None, "SR-2", (MAC,)), f"MAC address {MAC} belongs to REP0001"),
    (Registration("acme", "FAC0003", "SR-1"), "serial number SR-1 belongs to REP0001"),
    (Registration("acme", "REP0001", "SR-5"), "serial number SR-5 belongs to SR-5")])
async def test_a9_the_identifier_is_named_and_whose_it_is(sold: Store, row: Registration, said: str) -> None:
    assert said in await refused(sold, row)


async def test_a9_a_registration_without_a_tag_is_completed_by_a_row_with_one(sold: Store) -> None:
    row = Registration("acme", "REP0005", "SR-5", (OTHER_MAC,))
    assert "differently" in (await imported(sold, row, How()))[0].error
    assert await imported(sold, row, How(replace=True)) == []
    assert replace(row, device_id=0) in [replace(one, device_id=0) for one in (await standing(sold)).values()]


async def test_a9_a_row_finds_its_device_by_the_tag_whatever_else_it_says(sold: Store) -> None:
    row = replace(OWN, serial_number="SR-9", mac_addresses=())
    assert await imported(sold, row, How(replace=True)) == []
    assert row in [replace(one, device_id=0) for one in (await standing(sold)).values()]


@pytest.mark.parametrize("row", [
    replace(BY_ORDER, customer="umbra"), replace(BY_ORDER, order="8001"), replace(BY_ORDER, order="9001"),
    Registration("umbra", None, "SF-3"), Registration("umbra", "REP0001"), Registration(None, "REP0001", order="8001")])
async def test_a9_what_has_an_owner_by_its_row_or_its_order_stays_the_owners(sold: Store, row: Registration) -> None:
    assert "acme" not in await refused(sold, row), "whoever asks may be a customer"
    with pytest.raises(Owned) as refusal:
        await sold.add_devices([row], today(), replace=True)
    assert "is acme's" in refusal.value.told
    assert refusal.value.hint.count("delegator devices return") == 1
    assert ("transfers offer" in refusal.value.hint) is (row.order != "9001")


@pytest.mark.parametrize("row", [replace(BY_ORDER, customer="acme"), replace(OWN, customer=None, delegate=None,
                                                                             order="7001")])
async def test_a9_by_its_row_or_by_its_order_is_the_same_owner(sold: Store, row: Registration) -> None:
    assert await imported(sold, row, How(replace=True)) == []
    assert {one.customer for one in (await standing(sold)).values()} == {"acme", None}


async def test_a9_what_is_in_stock_is_sold_by_any_road(sold: Store) -> None:
    assert await imported(sold, replace(STOCK, customer="umbra"), How(replace=True)) == []
    found = [one.customer for one in (await standing(sold)).values() if one.service_tag == "FAC0004"]
    assert found == ["umbra"]
