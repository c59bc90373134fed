"""Rotation of the sealing key on any engine: everything is sealed again, while somebody else writes, and again if cut
off; R-sealed."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from delegator.errors import DelegatorError
from delegator.model import ClaimState, Delegate, HostedCallback, Result, Secret
from delegator.sealing import SealingKey
from delegator.store import Store
from delegator.store.resealing import PAGE, SEALED, Resealing, _one_of_each, counts
from delegator.store.transaction import Query

from ..clock import today

OLD, NEW = b"k" * 32, b"n" * 32
"""The first is the key of the `key` fixture."""
SCHEMA = Path(__file__).parents[2] / "delegator" / "store" / "schema"
HASHES = {("audit", "hash"), ("audit_marks", "hash"), ("audit_marks", "seal"), ("audit_checkpoints", "hash"),
          ("audit_checkpoints", "seal")}
"""Columns of bytes that seal nothing."""


def rotating(store: Store, *keys: bytes) -> Resealing:
    return Resealing(store._driver, SealingKey(*keys))


async def rotate(resealing: Resealing) -> int:
    return sum([number async for number in resealing.rotate()])


@pytest.fixture
async def sealed(shop: Store, ask, at) -> list[str]:
    """More claims than one page, issued; one of them wiped; a delegate with a password."""
    opened = await asyncio.gather(*(shop.open_and_issue(ask(f"SEAL{number:04}"), lambda claim, number=number:
                                                        f"secret {number}") for number in range(PAGE + 20)))
    issued = [one.claim.claim_id for one in opened]
    await shop.confirm(issued[0], "key:one", Result.DEPLOYED, None, at(1))
    await shop.add_delegate(Delegate("acme-more", "acme", HostedCallback("root", Secret("planted-password"))), today())
    return issued


async def test_R_sealed_after_a_rotation_the_new_key_alone_opens_everything(shop: Store, sealed) -> None:
    audit = [one for one in await shop.resealing.held() if one.table == "audit_keys"]
    assert await rotate(rotating(shop, NEW, OLD)) == PAGE + 19 + 2 + sum(one.values for one in audit)
    assert {one.key for one in await shop.resealing.held()} == {SealingKey(NEW).known[0]}
    shop.use(SealingKey(NEW))
    for number, claim_id in enumerate(sealed[1:], 1):
        assert shop.reveal(await shop.claim(claim_id)) == f"secret {number}"
    passwords = {one.name: one.callback.password.reveal() for one in await shop.delegates()
                 if isinstance(one.callback, HostedCallback)}
    assert passwords == {"acme-hosted": "{random}", "acme-more": "planted-password"}
    assert await shop.resealing.check() == []
    with pytest.raises(DelegatorError, match="unknown key"):
        SealingKey(OLD).open((await shop.claim(sealed[1])).sealed, f"claims/{sealed[1]}")


async def test_A6_what_is_sealed_is_found_without_reading_the_claims_that_are_over(opening_sqlite) -> None:
    """Ten million claims may be on record, and few are open."""
    store = await opening_sqlite()
    for query in (counts(SEALED[0]), _one_of_each(SEALED[0])):
        plan = [str(row[3]) for row in await store._driver.read(Query("EXPLAIN QUERY PLAN " + query.sql))]
        assert "SCAN claims USING INDEX claims_lapsing" in plan


async def test_once_is_enough_and_a_wiped_claim_stays_wiped(shop: Store, sealed) -> None:
    await rotate(rotating(shop, NEW, OLD))
    assert await rotate(rotating(shop, NEW, OLD)) == 0
    wiped = await shop.claim(sealed[0])
    assert (wiped.state, wiped.sealed) == (ClaimState.CONFIRMED, None)


async def test_one_that_is_cut_off_is_begun_again(shop: Store, sealed) -> None:
    resealing = rotating(shop, NEW, OLD)
    begun = resealing.rotate()
    assert await anext(begun) == PAGE
    await begun.aclose()
    held = {(one.table, one.key): one.values for one in await shop.resealing.held()}
    new, old = SealingKey(NEW).known[0], SealingKey(OLD).known[0]
    assert (held["claims", new], held["claims", old]) == (PAGE, 19)
    assert await rotate(resealing) == sum(number for (_, key), number in held.items() if key == old)


async def test_what_changes_meanwhile_is_left_as_it_was_changed(shop: Store, sealed, ask, at, opening) -> None:
    """A server with both keys goes on: between the look at a page and its writing a claim of it is wiped, another one
    is sealed anew."""
    server = await opening()
    server.use(SealingKey(NEW, OLD))
    resealing = rotating(shop, NEW, OLD)
    run, done = resealing._driver.run, []

    class Meddling:
        read = resealing._driver.read

        async def run(self, work, scope=None, **options):
            if not done:
                done.append(await server.confirm(sealed[1], "key:one", Result.DEPLOYED, None, at(1)))
                opened = await server.open_claim(ask("LATE001"))
                await server.issue(opened.claim.claim_id, "late", at(1))
                done.append(opened.claim)
            return await run(work, scope, **options)

    resealing._driver = Meddling()
    assert await rotate(resealing) > PAGE - 2
    assert (await shop.claim(sealed[1])).sealed is None
    shop.use(SealingKey(NEW))
    assert shop.reveal(await shop.claim(done[1].claim_id)) == "late"
    assert {one.key for one in await shop.resealing.held()} == {SealingKey(NEW).known[0]}


async def test_a_key_that_is_missing_stops_it_and_names_it(shop: Store, sealed) -> None:
    with pytest.raises(DelegatorError, match=f"unknown key {SealingKey(OLD).known[0]}"):
        await rotate(rotating(shop, NEW))
    (first, *_) = await rotating(shop, NEW).check()
    assert "unknown key" in first.detail
    assert shop.reveal(await shop.claim(sealed[1])) == "secret 1"


def test_the_table_names_every_column_that_seals() -> None:
    """Whoever adds a column of bytes says here whether it is sealed."""
    found = set()
    for path in SCHEMA.glob("*.sqlite.sql"):
        for table, body in re.findall(r"CREATE TABLE (\w+) \((.*?)\n\)", path.read_text(), re.DOTALL):
            found |= {(table, column) for column in re.findall(r"^\s+(\w+) BLOB", body, re.MULTILINE)}
        found |= set(re.findall(r"ALTER TABLE (\w+) ADD (?:COLUMN )?(\w+) BLOB", path.read_text()))
    assert found - HASHES == {(column.table, column.column) for column in SEALED}


async def test_the_table_names_rows_as_they_were_sealed(shop: Store, sealed) -> None:
    assert await shop.resealing.check() == []
    assert {one.table for one in await shop.resealing.held()} == {column.table for column in SEALED}
