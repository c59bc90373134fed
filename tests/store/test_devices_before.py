"""Databases from before devices could be in stock come along, with everything that was registered (A4, A9)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from delegator.model import Customer, Device, Registration
from delegator.store.transaction import Query

from ..clock import today

pytestmark = pytest.mark.slow

MACS = ("00:1A:2B:00:00:01", "00:1A:2B:00:00:02")
BEFORE = [
    "INSERT INTO customers (name, title) VALUES ('acme', 'Acme')",
    "INSERT INTO customers (name, title) VALUES ('umbra', 'Umbra')",
    "INSERT INTO devices (device_id, customer, service_tag, serial_number, model, order_number, delegate) VALUES "
    "(1, 'acme', 'ABC1234', 'S-1', 'R740', 'O-1', NULL), (7, 'umbra', NULL, 'S-2', NULL, NULL, NULL), "
    "(9, 'acme', NULL, NULL, NULL, NULL, NULL)",
    f"INSERT INTO device_macs (mac, device_id) VALUES ('{MACS[1]}', 1), ('{MACS[0]}', 1), ('00:1A:2B:00:00:09', 9)",
    "INSERT INTO transfers (transfer_id, device_id, device, offered_by, offered_to, state, offered_at, until) VALUES "
    "('t1', 1, 'ABC1234', 'acme', 'umbra', 'offered', 1, 2)"]


async def test_A9_devices_their_addresses_and_their_transfers_come_along(opening_empty, as_of):
    with as_of(7):
        old = await opening_empty()

        def fill():
            for sql in BEFORE:
                yield Query(sql)
        await old._driver.run(fill)
    store = await opening_empty()
    assert [replace(one, device_id=0) async for one in store.devices()] == [
        Registration("acme", "ABC1234", "S-1", MACS, "R740", "O-1"), Registration("umbra", serial_number="S-2"),
        Registration("acme", mac_addresses=("00:1A:2B:00:00:09",))]
    for said, number in ((Device("ABC1234"), 1), (Device("ZZZ9999", "S-2"), 7), (Device("ZZZ9999", None, MACS[1:]), 1)):
        assert [one.device_id for one in (await store.find(said)).registrations] == [number]
    rows = await store._driver.read(Query("SELECT device_id FROM transfers"))
    assert [row[0] for row in rows] == [1]
    await store.add_customer(Customer("zeta", "Zeta"), today())
    assert await store.add_devices([Registration("zeta", "NEW0001")], today()) == 1
    assert [one.device_id async for one in store.devices("zeta")] == [10]
    await store.fleet.remove(next(iter((await store.find(Device("ABC1234"))).registrations)), datetime.now(UTC))
    assert [row[0] for row in await store._driver.read(Query("SELECT device_id FROM transfers"))] == [None]
