"""Contract: the small tables. Added, changed, referred to, seen by every server at once (R-whole, R-seen; A4, A6,
A10)."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from delegator.errors import DelegatorError, Kind
from delegator.model import (
    CallbackWay,
    Customer,
    Delegate,
    Device,
    HostedCallback,
    IdentityRule,
    LocalCallback,
    Opening,
    Policy,
    Rule,
    Secret,
    SoapCallback,
    SshCallback,
)
from delegator.model.hours import opening
from delegator.store.transaction import Query

from ..clock import today

SOAP = Delegate("acme-soap", "acme", SoapCallback("d.acme.example", 8443, "/soap", "PEM", "192.0.2.1"),
                "https://acme.example/next", "ANCHOR", "strict", False, 7, 3)
HOSTED = Delegate("acme-hosted", "acme", HostedCallback("root", Secret("<&>\"' {random}")))
STRICT = Policy("strict", False, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC),
                IdentityRule.EITHER, True, 5, frozenset({CallbackWay.SOAP}), 3, timedelta(hours=1), True,
                (opening("Mon-Fri 08:00-18:00 Europe/Berlin"), opening("Sat 22:00-02:00 UTC")),
                ("192.0.2.0/24", "2001:db8::/32"), ("acme.example",), True, 60)
RULE = Rule("batch", "acme-soap", 7, "R740", "ABC", "00:1A", "10.0.0.0/8", "example.com", "O-1")


async def test_what_comes_while_it_is_closed_is_refused_and_what_came_before_is_done(store) -> None:
    """A statement that meets the closing of its connection in another thread ended the process."""
    before = asyncio.create_task(store.add_customer(Customer("acme", "Acme"), today()))
    await asyncio.sleep(0)
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    for _ in range(20):
        assert "closed" in await refused(store.check(), Kind.UNAVAILABLE)
    await closing
    await before


async def refused(work, kind: Kind) -> str:
    with pytest.raises(DelegatorError) as refusal:
        await work
    assert refusal.value.kind is kind
    return refusal.value.detail


async def fill(store) -> None:
    await store.add_policy(STRICT, today())
    await store.add_customer(Customer("acme", "Acme & Söhne", False, "strict"), today())
    await store.add_delegate(SOAP, today())
    await store.add_delegate(HOSTED, today())
    await store.add_rule(RULE, today())


async def test_A4_what_goes_in_comes_out_equal(store):
    await fill(store)
    assert await store.policies() == [STRICT]
    assert await store.customers() == [Customer("acme", "Acme & Söhne", False, "strict")]
    assert await store.delegates() == [HOSTED, SOAP]
    assert await store.rules() == [RULE]


async def test_A10_a_rule_can_lead_to_another_delegator(store):
    rule = Rule("elsewhere", None, 9, tag_prefix="X", delegator="delegator-2.example:4433")
    await store.add_rule(rule, today())
    assert await store.rules() == [rule]
    assert (await store.tables()).directory.rules == (rule,)


@pytest.mark.parametrize("callback", [
    SoapCallback("d.acme.example"), SshCallback("d.acme.example", "ztp", Secret("KEY\n&\n"), "ssh-ed25519 AAAA", 2222),
    HostedCallback("root", Secret("PASSWORD"), "it@acme.example", "https://acme.example/told", Secret("SHARED"), "PEM"),
    HostedCallback("root", Secret("PASSWORD")), LocalCallback("/opt/acme/credential", ("--tag", "{tag}")),
    LocalCallback("/opt/acme", python="acme:obtain")], ids=lambda one: type(one).__name__)
async def test_A7_every_kind_of_callback_comes_back_equal_with_its_secrets_sealed(shop, callback):
    delegate = Delegate("new", "acme", callback)
    await shop.add_delegate(delegate, today())
    assert delegate in await shop.delegates()
    stored = await shop._driver.read(Query("SELECT kind, settings, sealed FROM delegates WHERE name = 'new'"))
    assert stored[0][0] == delegate.way.value
    secrets = [value.reveal() for value in (getattr(callback, name) for name in callback.__slots__)
               if isinstance(value, Secret)]
    assert (stored[0][2] is not None) == bool(secrets)
    assert not [text for text in secrets if json.dumps(text)[1:-1] in stored[0][1]]


async def test_A6_a_policy_without_a_word_stays_without_a_word(store):
    await store.add_policy(Policy("plain"), today())
    assert await store.policies() == [Policy("plain")]


async def test_A6_a_policy_saved_by_an_earlier_release_is_read_and_says_nothing_new(store):
    """Its words as they were written before hours, networks, domains and claims per hour could be said."""
    old = ('{"name":"old","custom_operations":true,"valid_from":"2026-01-01T00:00:00Z","valid_until":null,"identity":'
           '"either","approved_only":true,"max_devices":5,"callbacks":["soap"],"attempts":3,"lease":"PT1H",'
           '"shared_by_domain":false}')

    def write():
        yield Query("INSERT INTO policies (name, body) VALUES ($1, $2)", ("old", old))
    await store._driver.run(write)
    assert await store.policies() == [
        Policy("old", True, datetime(2026, 1, 1, tzinfo=UTC), None, IdentityRule.EITHER, True, 5,
               frozenset({CallbackWay.SOAP}), 3, timedelta(hours=1))]


async def test_A6_a_policy_for_a_zone_that_this_machine_does_not_know_is_read_all_the_same(store):
    """It opens nothing here; that must not keep other customers' devices from being served."""
    mars = Policy("mars", hours=(Opening((0,), 0, 60, "Mars/Phobos"),))
    await store.add_policy(mars, today())
    assert (await store.tables()).policies["mars"] == mars


async def test_R_whole_adding_twice_is_a_conflict_and_replacing_is_not(store):
    await fill(store)
    changed = {"policy": replace(STRICT, attempts=9), "customer": Customer("acme", "Acme"),
               "delegate": replace(SOAP, url=None, callback=HOSTED.callback), "rule": Rule("batch", "acme-hosted")}
    for noun, value in changed.items():
        add = getattr(store, f"add_{noun}")
        assert f"a {noun} named {value.name} already" in await refused(add(value, today()), Kind.CONFLICT)
        await add(value, today(), replace=True)
    assert await store.policies() == [changed["policy"]]
    assert await store.customers() == [changed["customer"]]
    assert changed["delegate"] in await store.delegates()
    assert await store.rules() == [changed["rule"]]


async def test_R_whole_what_is_referred_to_must_exist_and_nothing_is_half_added(store):
    before = (await store.tables()).revision
    await refused(store.add_customer(Customer("acme", "Acme", policy="nowhere"), today()), Kind.NOT_FOUND)
    await refused(store.add_delegate(HOSTED, today()), Kind.NOT_FOUND)
    await refused(store.add_rule(RULE, today()), Kind.NOT_FOUND)
    await refused(store.approve("nowhere", ["ABC1234"], today()), Kind.NOT_FOUND)
    await refused(store.remove("customer", "acme", today()), Kind.NOT_FOUND)
    await store.add_customer(Customer("acme", "Acme"), today())
    await refused(store.add_delegate(SOAP, today()), Kind.NOT_FOUND)
    tables = await store.tables()
    assert (tables.revision, tables.policies, tables.directory.delegates) == (before + 1, {}, {})


async def test_R_whole_what_is_referred_to_is_not_removed(store):
    await fill(store)
    for noun, name in (("policy", "strict"), ("customer", "acme"), ("delegate", "acme-soap")):
        await refused(store.remove(noun, name, today()), Kind.CONFLICT)
    with pytest.raises(DelegatorError, match="customer acme is still referred to by delegate acme-hosted, acme-soap"):
        await store.remove("customer", "acme", today())
    with pytest.raises(DelegatorError, match="delegate acme-soap is still referred to by rule batch"):
        await store.remove("delegate", "acme-soap", today())
    for noun, name in (("rule", "batch"), ("delegate", "acme-soap"), ("delegate", "acme-hosted"),
                       ("customer", "acme"), ("policy", "strict")):
        await store.remove(noun, name, today())
    assert not await store.customers() + await store.delegates() + await store.policies() + await store.rules()


async def test_A9_a_delegate_never_moves_to_another_customer(shop):
    moved = Delegate("acme-soap", "umbra", SoapCallback("d.umbra.example"))
    assert "another customer" in await refused(shop.add_delegate(moved, today(), replace=True), Kind.CONFLICT)
    assert (await shop.tables()).directory.delegates["acme-soap"].customer == "acme"


async def test_A6_an_approved_list_belongs_to_its_policy(store):
    await store.add_policy(STRICT, today())
    await store.add_policy(Policy("other"), today())
    assert await store.approve("strict", ["ABC1234", "ABC1235", "ABC1234"], today()) == 2
    assert await store.approve("strict", ["ABC1235"], today()) == 0
    assert await store.approved("strict") == ["ABC1234", "ABC1235"]
    assert await store.approved("other") == []
    assert await store.disapprove("strict", ["ABC1234", "ZZZ9999"], today()) == 1
    await store.remove("policy", "strict", today())
    await store.add_policy(STRICT, today())
    assert await store.approved("strict") == [], "a list goes with its policy"


async def test_A6_lists_are_read_where_the_copy_that_decides_has_a_policy_with_one(store):
    await store.add_policy(STRICT, today())
    await store.approve("strict", ["ABC1234"], today())
    tables = await store.tables()
    assert (await store.find(Device("ABC1234"), lists=tables.lists)).approved == {"strict"}
    assert (await store.find(Device("ABC1234"), lists=False)).approved == frozenset()
    await store.add_policy(replace(STRICT, approved_only=False), today(), replace=True)
    await seen(store, lambda tables: not tables.lists)


# --- tables, seen by every server ---------------------------------------------------------------------------------


async def seen(store, wanted) -> None:
    """What the store's tables hold within the second that is promised; an engine that is asked knows it at once."""
    async with asyncio.timeout(1):
        while not wanted(await store.tables()):
            await asyncio.sleep(0.01)


async def test_R_seen_a_change_by_one_server_is_seen_by_another_within_a_second(opening):
    here, there = await opening(), await opening()
    await here.add_customer(Customer("acme", "Acme"), today())
    await seen(there, lambda tables: "acme" in tables.customers)
    await there.add_delegate(HOSTED, today())
    await seen(here, lambda tables: "acme-hosted" in tables.directory.delegates)
    await here.add_customer(Customer("acme", "Acme Limited"), today(), replace=True)
    await seen(there, lambda tables: tables.customers["acme"].title == "Acme Limited")
    await there.remove("delegate", "acme-hosted", today())
    await seen(here, lambda tables: tables.directory.delegates == {})


async def test_R_seen_without_a_change_the_copy_is_kept(opening):
    here, there = await opening(), await opening()
    await fill(here)
    kept = await there.tables()
    await here.approve("strict", ["ABC1234"], today())
    assert await there.tables() is kept
    await here.remove("rule", "batch", today())
    await seen(there, lambda tables: tables is not kept)


@pytest.mark.parametrize("verb", ["add_customer", "add_delegate", "add_policy", "add_rule", "remove"])
async def test_R_seen_every_change_of_a_small_table_raises_the_revision(shop, verb):
    await shop.add_rule(Rule("gone", "acme-soap"), today())
    before = (await shop.tables()).revision
    arguments = {"add_customer": [Customer("new", "New")], "add_policy": [Policy("new")], "remove": ["rule", "gone"],
                 "add_rule": [Rule("new", "acme-soap")], "add_delegate": [Delegate("new", "acme", HOSTED.callback)]}
    await getattr(shop, verb)(*arguments[verb], today())
    await seen(shop, lambda tables: tables.revision == before + 1)


async def test_R_seen_tables_are_one_consistent_copy_even_while_another_server_changes_them(opening, monkeypatch):
    """A policy is taken off its customer and removed between two of the reads: the copy has both or neither."""
    here, there = await opening(), await opening()
    await here.add_policy(STRICT, today())
    await here.add_customer(Customer("acme", "Acme", policy="strict"), today())
    customers = there.customers

    async def overtaken():
        read = await customers()
        monkeypatch.undo()
        await here.add_customer(Customer("acme", "Acme"), today(), replace=True)
        await here.remove("policy", "strict", today())
        return read

    monkeypatch.setattr(there._common, "customers", overtaken)
    tables = await there.tables()
    assert (tables.customers["acme"].policy, tables.policies) == (None, {})
