"""Contract: registered devices, found by any identifier, one owner each, all or none (A4, A9; R-whole)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from delegator.errors import DelegatorError, Kind
from delegator.model import Customer, Device, Policy, Registration

from ..clock import today

MACS = ("00:1A:2B:00:00:01", "00:1A:2B:00:00:02")
FULL = Registration("acme", "ABC1234", "S-1", MACS, "R740", "O-1", "acme-soap")


def bare(found) -> list[Registration]:
    return [replace(one, device_id=0) for one in found]


async def registered(store) -> list[Registration]:
    return bare([one async for one in store.devices()])


async def refused(work, kind: Kind) -> DelegatorError:
    with pytest.raises(DelegatorError) as refusal:
        await work
    assert refusal.value.kind is kind
    return refusal.value


@pytest.mark.parametrize("said", [
    Device("ABC1234"), Device("ZZZ9999", "S-1"), Device("ZZZ9999", mac_addresses=("00-1a-2b-00-00-02",)),
    Device("ABC1234", "S-1", MACS)], ids=["tag", "serial", "mac", "all"])
async def test_A9_a_device_is_found_by_any_of_its_identifiers_and_once(shop, said):
    await shop.add_devices([FULL, Registration("umbra", "ABC1235", "S-2", ("00:1A:2B:00:00:03",))], today())
    assert bare((await shop.find(said)).registrations) == [FULL]


async def test_A9_several_registrations_can_be_candidates(shop):
    others = [Registration("acme", serial_number="S-9"), Registration("umbra", mac_addresses=MACS[:1])]
    await shop.add_devices([replace(FULL, mac_addresses=MACS[1:]), *others], today())
    found = await shop.find(Device("ABC1239", "S-9", MACS))
    assert {one.customer for one in found.registrations} == {"acme", "umbra"}
    assert len(found.registrations) == 3


async def test_A9_where_the_tag_is_registered_nothing_else_a_device_says_is_looked_for(shop):
    """Routing would take it before the others; see `tests/test_routing.py`."""
    own = replace(FULL, mac_addresses=MACS[1:])
    await shop.add_devices([own, Registration("umbra", serial_number="S-9")], today())
    assert bare((await shop.find(Device("ABC1234", "S-9", MACS))).registrations) == [own]


async def test_A4_a_stranger_is_found_nowhere(shop):
    await shop.add_devices([FULL, Registration("acme", mac_addresses=("00:1A:2B:00:00:09",))], today())
    assert (await shop.find(Device("ABC12345", "S-11"))).registrations == ()


async def test_A6_the_policies_that_approve_a_tag_come_along(shop):
    for name in ("p", "q", "r"):
        await shop.add_policy(Policy(name), today())
    await shop.approve("p", ["ABC1234"], today())
    await shop.approve("q", ["ABC1234", "ABC1235"], today())
    assert (await shop.find(Device("ABC1234"))).approved == {"p", "q"}
    assert (await shop.find(Device("ABC1299"))).approved == frozenset()


@pytest.mark.parametrize("listed", [False, True], ids=["without lists", "with lists"])
@pytest.mark.parametrize("said", [
    Device("ABC1234"), Device("ABC1234", "S-9", MACS), Device("ZZZ9999", "S-9"), Device("ZZZ9999", mac_addresses=MACS),
    Device("ZZZ9999")], ids=["tag", "tag and more", "serial", "mac", "stranger"])
async def test_R_seen_a_handshake_reads_at_once_what_can_be_asked_one_by_one(shop, said, listed):
    await shop.add_devices([FULL, Registration("umbra", serial_number="S-9")], today())
    await shop.add_policy(Policy("p", approved_only=listed), today())
    await shop.approve("p", ["ABC1234", "ZZZ9999"], today())
    for _ in range(2):  # with no copy of the small tables yet, and with one
        tables, found = await shop.about(said)
        assert tables == await shop.tables()
        assert found == await shop.find(said, lists=listed)
        assert found.approved == (frozenset({"p"}) if listed else frozenset())


async def test_A4_what_another_process_changed_is_in_the_very_next_handshake(shop, opening):
    """Whether the small tables changed, the device, or both at once; registered or not."""
    other, device = await opening(), Device("ABC1234", "S-1")
    await shop.about(device)
    await other.add_policy(Policy("later"), today())
    assert "later" in (await shop.about(device))[0].policies
    await other.add_customer(Customer("globex", "Globex"), today())
    await other.add_devices([Registration("globex", "ABC1234")], today())
    tables, found = await shop.about(device)
    assert "globex" in tables.customers
    assert [one.customer for one in found.registrations] == ["globex"]
    await other.add_policy(Policy("latest"), today())
    await other.fleet.remove(found.registrations[0], today())
    tables, found = await shop.about(device)
    assert "latest" in tables.policies
    assert found.registrations == ()


async def test_R_seen_where_nothing_changed_one_read_tells_all(opening_sqlite):
    store = await opening_sqlite()
    await store.add_customer(Customer("acme", "Acme"), today())
    await store.add_devices([Registration("acme", "ABC1234", "S-1")], today())
    await store.about(Device("ABC1234", "S-1"))
    asked: list[str] = []
    store._driver.driver._reader.connection.set_trace_callback(asked.append)
    await store.about(Device("ABC1234", "S-1"))
    assert len(asked) == 1


async def test_R_whole_the_very_same_again_is_no_news_and_no_conflict(shop):
    assert await shop.add_devices([FULL], today()) == 1
    assert await shop.add_devices([FULL, replace(FULL, mac_addresses=MACS[::-1]), FULL], today()) == 0
    assert await registered(shop) == [FULL]


async def test_R_whole_something_different_needs_replace_and_replace_changes_everything(shop):
    await shop.add_devices([FULL], today())
    changed = Registration("acme", "ABC1234", "S-7", (MACS[1], "00:1A:2B:00:00:07"), order="O-2")
    error = await refused(shop.add_devices([changed], today()), Kind.CONFLICT)
    assert "replace" in error.hint
    await shop.add_devices([changed], today(), replace=True)
    assert await registered(shop) == [changed]
    assert await shop.add_devices([Registration("umbra", serial_number="S-1", mac_addresses=MACS[:1])], today()) == 1, \
        "identifiers that were given up are free"


@pytest.mark.parametrize("replacing", [False, True])
@pytest.mark.parametrize("clash", [{"service_tag": "ABC1234"}, {"serial_number": "S-1"}, {"mac_addresses": MACS[1:]}])
async def test_A9_an_identifier_of_another_customer_is_refused_without_telling_whose_it_is(shop, clash, replacing):
    await shop.add_devices([FULL], today())
    error = await refused(shop.add_devices([Registration("umbra", **clash)], today(), replace=replacing), Kind.CONFLICT)
    assert "another customer" in error.detail
    assert "acme" not in error.detail + error.hint + "".join(error.reasons)
    assert await registered(shop) == [FULL]


async def test_A9_identifiers_of_two_devices_do_not_make_a_third(shop):
    await shop.add_devices([FULL, Registration("acme", "ABC1235")], today())
    error = await refused(shop.add_devices([Registration("acme", "ABC1235", "S-1")], today(), replace=True),
                          Kind.CONFLICT)
    assert "several registered devices" in error.detail


async def test_R_whole_all_or_none(shop):
    good = [Registration("umbra", f"NEW{n:04}") for n in range(5)]
    await shop.add_devices([FULL], today())
    await refused(shop.add_devices([*good, Registration("umbra", "ABC1234")], today()), Kind.CONFLICT)
    await refused(shop.add_devices([*good, Registration("nobody", "ABC1299")], today()), Kind.NOT_FOUND)
    await refused(shop.add_devices([*good, Registration("umbra", "ABC1299", delegate="acme-soap")], today()),
                  Kind.NOT_FOUND)
    assert await registered(shop) == [FULL]


async def test_R_whole_a_source_of_devices_that_breaks_leaves_nothing_and_nobody_waiting(shop):
    def broken():
        yield FULL
        raise LookupError("row 2")
    with pytest.raises(LookupError, match="row 2"):
        await shop.add_devices(broken(), today())
    assert await registered(shop) == []
    assert await shop.add_devices([FULL], today()) == 1


async def test_A9_a_device_without_any_identifier_is_none(shop):
    await refused(shop.add_devices([Registration("acme", model="R740")], today()), Kind.MALFORMED)
    assert await registered(shop) == []


async def test_R_whole_devices_come_in_pages_and_none_is_missed(shop):
    many = [Registration("acme" if n % 3 else "umbra", f"TAG{n:04}", mac_addresses=(f"00:00:00:00:00:{n:02X}",))
            for n in range(25)]
    assert await shop.add_devices(many, today()) == 25
    assert bare([one async for one in shop.devices(page=4)]) == many
    assert bare([one async for one in shop.devices("umbra", page=4)]) == many[::3]


async def test_R_whole_a_removed_device_is_gone_with_its_addresses(shop):
    await shop.add_devices([FULL], today())
    await shop.remove_device("ABC1234", today())
    assert (await shop.find(Device("ABC1234", "S-1", MACS))).registrations == ()
    await refused(shop.remove_device("ABC1234", today()), Kind.NOT_FOUND)
    assert await shop.add_devices([replace(FULL, customer="umbra", delegate=None)], today()) == 1


async def test_R_whole_a_customer_or_delegate_with_devices_is_not_removed(shop):
    await shop.add_devices([FULL], today())
    await refused(shop.remove("delegate", "acme-soap", today()), Kind.CONFLICT)
    await refused(shop.remove("customer", "acme", today()), Kind.CONFLICT)
