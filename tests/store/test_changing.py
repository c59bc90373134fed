"""Rows are changed a field at a time: read, changed and written in one transaction, with one row of audit."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from delegator.errors import DelegatorError, Kind, Missing
from delegator.model import Customer, Order, Policy, Registration, Rule
from delegator.model.audited import Act, Entry
from delegator.routing import NOBODY
from delegator.store.audit.inspection import Wanted
from delegator.store.changing import CUSTOMER, DELEGATE, NOUNS, POLICY, RULE

from ..clock import today

NOW = datetime.now(UTC)


@pytest.mark.parametrize(("noun", "name", "fields", "told"), [
    (CUSTOMER, "acme", {"title": "Other", "enabled": False}, ["title", "enabled"]),
    (DELEGATE, "acme-soap", {"priority": 7}, ["priority"]), (POLICY, "strict", {"attempts": 7}, ["attempts"]),
    (RULE, "batch", {"model": None, "tag_prefix": "AB"}, ["model", "tag_prefix"])], ids=lambda one: str(one)[:12])
async def test_what_is_named_changes_and_nothing_else_does(shop, noun, name, fields, told):
    await shop.add_policy(Policy("strict", max_devices=3), today())
    await shop.add_rule(Rule("batch", "acme-hosted", model="R1"), today())
    rows = await shop.audit.count(Wanted())
    before, after = await shop.changing.change(noun, name, lambda one: replace(one, **fields), today())
    assert after == replace(before, **fields)
    assert after in await getattr(shop, noun.table)()
    assert await shop.audit.count(Wanted()) == rows + 1
    (row,) = await shop.audit.list(Wanted(act=f"{noun.name}.changed"), 9)
    assert row.entry.detail == {"name": name, "fields": told}


async def test_a_change_that_changes_nothing_leaves_no_row(shop):
    rows = await shop.audit.count(Wanted())
    before, after = await shop.changing.change(CUSTOMER, "acme", lambda one: one, today())
    assert before == after
    assert await shop.audit.count(Wanted()) == rows


@pytest.mark.parametrize("noun", NOUNS, ids=lambda one: one.name)
async def test_what_is_not_there_is_neither_changed_nor_removed(shop, noun):
    for verb in (lambda: shop.changing.change(noun, "nobody", lambda one: one, today()),
                 lambda: shop.changing.remove(noun, "nobody", today())):
        with pytest.raises(Missing) as caught:
            await verb()
        assert (caught.value.kind, caught.value.noun, caught.value.name) == (Kind.NOT_FOUND, noun.name, "nobody")


async def test_a_change_that_is_refused_leaves_everything_as_it_was(shop):
    def refuse(one: Customer) -> Customer:
        raise DelegatorError(Kind.CONFLICT, "no")
    rows = await shop.audit.count(Wanted())
    with pytest.raises(DelegatorError):
        await shop.changing.change(CUSTOMER, "acme", refuse, today())
    with pytest.raises(DelegatorError):
        await shop.changing.change(CUSTOMER, "acme", lambda one: replace(one, policy="nobody"), today())
    assert await shop.audit.count(Wanted()) == rows


async def test_two_at_once_do_not_undo_each_other(opening):
    one, two = await opening(), await opening()
    await one.add_customer(Customer("acme", "Acme"), today())
    await one.add_policy(Policy("p"), today())
    for number in range(10):
        await asyncio.gather(
            one.changing.change(CUSTOMER, "acme", lambda was, n=number: replace(was, title=f"T{n}"), today()),
            two.changing.change(CUSTOMER, "acme", lambda was, n=number: replace(was, policy=(None, "p")[n % 2]),
                                today()))
        assert await one.customers() == [Customer("acme", f"T{number}", policy=(None, "p")[number % 2])]


async def test_a_device_is_changed_in_one_step_and_named_in_one_row(shop):
    await shop.add_devices([Registration("acme", "ABC1234", "SN-1", ("00:1A:2B:3C:4D:5E",), "R1", "4711")], today())
    before, after = await shop.fleet.change("SN-1", lambda one: replace(one, serial_number="SN-2", model=None), today())
    assert (before.serial_number, after.serial_number, after.model, after.order) == ("SN-1", "SN-2", None, "4711")
    assert await shop.fleet.called("SN-1") == []
    assert [one.service_tag for one in await shop.fleet.called("SN-2")] == ["ABC1234"]
    (row,) = await shop.audit.list(Wanted(act="device.changed"), 9)
    assert row.entry.detail["fields"] == ["serial_number", "model"]
    await shop.add_devices([Registration("acme", "ABC1235", "SN-5")], today())
    for wrong, kind in (({"serial_number": "SN-5"}, Kind.CONFLICT), ({"delegate": "nobody"}, Kind.NOT_FOUND)):
        with pytest.raises(DelegatorError) as caught:
            await shop.fleet.change("ABC1234", lambda one, wrong=wrong: replace(one, **wrong), today())
        assert caught.value.kind is kind
    assert (await shop.fleet.called("ABC1234"))[0].serial_number == "SN-2"


async def test_a_device_of_an_order_is_shown_with_its_owner(shop):
    await shop.orders.add(Order("815", "acme"), NOW)
    await shop.add_devices([Registration(None, "ABC1234", order="815")], today())
    before, after = await shop.fleet.change("ABC1234", lambda one: replace(one, model="R1"), today())
    assert (before.customer, after.customer, after.by_order) == ("acme", "acme", True)
    _, after = await shop.fleet.change("ABC1234", lambda one: replace(one, customer="acme"), today())
    assert (after.customer, after.by_order) == ("acme", False)
    (row, _) = await shop.audit.list(Wanted(act="device.changed"), 9)
    assert row.entry.detail["fields"] == ["customer"]


async def test_an_order_gets_another_delegate_of_its_customers(shop):
    await shop.orders.add(Order("815", "acme", "acme-soap"), NOW)
    assert await shop.orders.change("815", "acme-hosted", NOW) == (
        Order("815", "acme", "acme-soap"), Order("815", "acme", "acme-hosted"))
    assert (await shop.orders.change("815", None, NOW))[1] == await shop.orders.get("815")
    rows = await shop.audit.list(Wanted(act="order.changed"), 9)
    assert [one.entry.detail["fields"] for one in rows] == [["delegate"], ["delegate"]]
    for number, delegate in (("816", None), ("815", "nobody")):
        with pytest.raises(Missing):
            await shop.orders.change(number, delegate, NOW)


async def test_strangers_are_counted_once_each(shop):
    def asked(tag: str, days: int, identity: str = "own", why: str = NOBODY) -> Entry:
        return Entry(Act.HANDSHAKE, NOW - timedelta(days=days), "device", "NotEntitled", tag, reasons=(why,),
                     detail={"identity": identity, "steps": []})
    await shop.audit.append([asked("AAA1111", 1), asked("AAA1111", 2), asked("AAA2222", 3), asked("AAA3333", 31),
                             asked("AAA4444", 1, "shared"), asked("AAA5555", 1, why="in stock")])
    assert await shop.audit.strangers(NOW - timedelta(days=30)) == 2


async def test_claims_are_chosen_by_state_and_delegate(shop, ask):
    from delegator.model import ClaimState

    await shop.open_and_issue(ask("ABC1234"), lambda _: "x")
    (claim,) = await shop.claims(state=ClaimState.ISSUED)
    assert await shop.claims(state=ClaimState.ISSUED, delegate=claim.delegate) == [claim]
    assert await shop.claims(state=ClaimState.CONFIRMED) == []
    assert await shop.claims(delegate="nobody") == []
