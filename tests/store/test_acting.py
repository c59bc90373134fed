"""Contract: one open store, many who act in it, and the audit says who did what (A4, A11).

A portal has hundreds of people on one open store. Whose act a row of the audit is must be whose it was, however their
acts are interleaved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest
from msgspec.structs import replace

from delegator.model import Customer, Delegate, Order, Policy, Registration, Rule, SoapCallback
from delegator.model.audited import Act, By
from delegator.model.billed import Month, Plan
from delegator.sealing import SealingKey
from delegator.store import Store
from delegator.store.audit.inspection import Wanted
from delegator.store.changing import CUSTOMER
from delegator.store.importing import How
from delegator.store.spool import Said, Spool

from ..clock import today

ANN, BOB = By("account ann", "192.0.2.7"), By("account bob", "2001:db8::7")


async def _import(store: Store, name: str) -> None:
    with Spool() as spool:
        spool.fill(iter([Said(2, "acme", f"IMP{name}01", None, None, None, None, None)]))
        await store.fleet.import_all(spool, How(), lambda *_: lambda _: None, today)


async def _stated(store: Store, name: str) -> None:
    month = {"ANN": 1, "BOB": 2}[name]
    period = await store.statements.period(Month(2025, month), "UTC")
    await store.statements.close(period, [], today())


ACTS: dict[str, Callable[[Store, str], Awaitable[object]]] = {
    "add a customer": lambda store, name: store.add_customer(Customer(f"of-{name.lower()}", name), today()),
    "add a delegate": lambda store, name: store.add_delegate(
        Delegate(f"d-{name.lower()}", "acme", SoapCallback("d.example")), today()),
    "add a policy": lambda store, name: store.add_policy(Policy(f"p-{name.lower()}"), today()),
    "add a rule": lambda store, name: store.add_rule(Rule(f"r-{name.lower()}", "acme-soap"), today()),
    "remove": lambda store, name: store.remove("rule", f"old-{name.lower()}", today()),
    "change": lambda store, name: store.changing.change(
        CUSTOMER, "acme", lambda one: replace(one, title=f"Acme of {name}"), today()),
    "take away": lambda store, name: store.changing.remove(CUSTOMER, f"gone-{name.lower()}", today()),
    "approve": lambda store, name: store.approve("listed", [f"TAG{name}"], today()),
    "disapprove": lambda store, name: store.disapprove("listed", [f"OLD{name}"], today()),
    "register": lambda store, name: store.add_devices([Registration("acme", f"NEW{name}")], today()),
    "change a device": lambda store, name: store.fleet.change(
        f"DEV{name}", lambda one: replace(one, model=f"R{name}"), today()),
    "remove a device": lambda store, name: store.remove_device(f"END{name}", today()),
    "import": _import,
    "add an order": lambda store, name: store.orders.add(Order(f"47-{name}", "acme", None), today()),
    "return": lambda store, name: store.ownership.give_back([f"RMA{name}"], "returned", today(), None),
    "repair": lambda store, name: store.ownership.repair(f"DEV{name}", "ab" * 32, today(), None, "a new board"),
    "add a plan": lambda store, name: store.plans.add(
        Plan(f"plan-{name.lower()}", "EUR", Decimal(1), Month(2026, 1)), today()),
    "close a month": _stated,
    "note": lambda store, name: store.audit.note(Act.DATABASE_BACKED_UP, {"file": name}, today()),
}


@pytest.fixture
async def full(shop: Store) -> Store:
    await shop.add_policy(Policy("listed"), today())
    await shop.approve("listed", ["OLDANN", "OLDBOB"], today())
    for name in ("ann", "bob"):
        await shop.add_rule(Rule(f"old-{name}", "acme-soap"), today())
        await shop.add_customer(Customer(f"gone-{name}", name), today())
    await shop.add_devices([Registration("acme", f"{kind}{name}") for kind in ("DEV", "END", "RMA")
                            for name in ("ANN", "BOB")], today())
    return shop


async def _actors(store: Store) -> list[tuple[str, str | None]]:
    return [(one.entry.actor, one.entry.peer) async for one in store.audit.stream(Wanted())]


@pytest.mark.parametrize("act", ACTS)
async def test_a11_two_who_act_by_turns_in_one_open_store_are_told_apart(full: Store, act: str) -> None:
    before = len(await _actors(full))
    ann, bob = full.acting(ANN), full.acting(BOB)
    await ACTS[act](bob, "BOB")
    await ACTS[act](ann, "ANN")
    rows = (await _actors(full))[before:]
    assert len(rows) % 2 == 0
    half = len(rows) // 2
    assert rows, "an act leaves its row"
    assert rows == [("account bob", "2001:db8::7")] * half + [("account ann", "192.0.2.7")] * half
    assert full.by.actor == "delegator", "who opened the store is who it was"


async def test_a11_two_who_act_at_once_are_told_apart(full: Store) -> None:
    actors = [By(f"account {number}") for number in range(8)]
    await asyncio.gather(*(full.acting(by).add_devices([Registration("acme", f"{by.actor[-1]}AT{turn:03}")], today())
                           for turn in range(5) for by in actors))
    found = [(one.entry.actor, one.entry.service_tag or "")
             async for one in full.audit.stream(Wanted(act=Act.DEVICES_ADDED.value)) if one.entry.actor != "delegator"]
    assert sorted(found) == sorted((by.actor, f"{by.actor[-1]}AT{turn:03}") for turn in range(5) for by in actors)


async def test_a11_who_acts_says_so_in_every_room_of_the_store(full: Store) -> None:
    """Each room that leaves rows in the audit was given who acts, the ones to come too."""
    acting = full.acting(ANN)
    rooms = {name: getattr(room, "_by") for name, room in vars(acting).items() if hasattr(room, "_by")}  # noqa: B009
    assert set(rooms) >= {"outbox", "ownership", "fleet", "orders", "changing", "audit", "plans", "statements"}
    assert all(by == ANN for by in rooms.values())


async def test_a11_what_one_changes_all_see_at_once_as_they_have_one_copy(full: Store) -> None:
    ann, bob = full.acting(ANN), full.acting(BOB)
    before = await bob.tables()
    assert await ann.tables() is before is await full.tables(), "not read once for each who acts"
    await ann.add_customer(Customer("new", "New"), today())
    assert "new" in (await bob.tables()).customers


async def test_TB6_keys_that_are_exchanged_are_exchanged_for_all(full: Store) -> None:
    ann = full.acting(ANN)
    other = SealingKey(b"o" * 32)
    full.use(other)
    assert ann.resealing.known == full.resealing.known == other.known
