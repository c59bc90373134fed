"""Contract: a database with a row in every table is closed, found in order, and opened again with every row (A4, A8).

What `serve` does at its start, and what `config check` does, is done here by the very functions they call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from delegator import config
from delegator.cli import checking
from delegator.errors import DelegatorError
from delegator.model.audited import Act
from delegator.sealing import SealingKey, create_key_file
from delegator.serving.parts import open_store_to_serve
from delegator.store import Ask, Store, keyring, open_named
from delegator.store.migrate import schema_files
from delegator.store.transaction import Query

from ..clock import today
from .filling import EARLIER, FILLED_BESIDE, OPENED, VERBS, Filling, contents, fill

NEWEST = schema_files("sqlite")[-1].number
FILLED_SINCE = 9
"""The first schema that today's verbs can fill, but for these tables, which they can fill since another one."""
MESSAGES, TOLD = 13, ("messages", "message_queues")
Filler = Callable[[Store], Filling]


def settings_for(where: config.Store, folder: Path) -> config.Settings:
    create_key_file(folder / "sealing.key")
    return config.Settings(store=where, sealing=config.Sealing(key_file=str(folder / "sealing.key")))


@pytest.fixture
def settings(somewhere: config.Store, tmp_path: Path) -> config.Settings:
    return settings_for(somewhere, tmp_path)


@pytest.fixture
def filler(ask: Callable[..., Ask], at) -> Filler:
    return lambda store: Filling(store, ask, at)


def key_of(settings: config.Settings) -> SealingKey:
    return keyring.load(settings.sealing, settings.store)


@asynccontextmanager
async def opened(settings: config.Settings) -> AsyncIterator[Store]:
    """As any command opens it."""
    async with closing(await open_named(settings.store, key_of(settings))) as store:
        yield store


@asynccontextmanager
async def closing(store: Store) -> AsyncIterator[Store]:
    try:
        yield store
    finally:
        await store.close()


def test_every_table_has_a_verb_and_nothing_else_has() -> None:
    """`contents` of a database must find these tables and no others: see the next test."""
    assert not set(VERBS) & set(FILLED_BESIDE)
    assert not (set(VERBS) | set(FILLED_BESIDE)) & (OPENED | EARLIER)
    assert set(FILLED_BESIDE.values()) <= set(VERBS)


async def test_R_kept_every_table_of_a_database_is_filled_by_a_public_verb(settings, filler) -> None:
    async with opened(settings) as store:
        before = await contents(store)
        known = set(VERBS) | set(FILLED_BESIDE) | OPENED | EARLIER
        assert set(before) == known, "a table has no verb, or a verb no table"
        assert all(before[table] for table in OPENED)
        filling = filler(store)
        for table, verb in VERBS.items():
            await verb(filling)
            after = await contents(store)
            changed = {one for one in after if after[one] != before[one]}
            assert table in changed, f"the verb that is said to fill {table} does not"
            assert {one for one, beside in FILLED_BESIDE.items() if beside == table} <= changed
            before = after
        assert {table for table, rows in before.items() if not rows} == EARLIER


@pytest.mark.parametrize("schema", [
    file.number for file in schema_files("sqlite") if file.number >= FILLED_SINCE])
async def test_R_kept_what_every_table_held_is_there_after_a_stop_and_a_start(
        nowhere, tmp_path, filler, as_of, schema) -> None:
    """Also of a database that an earlier release filled."""
    settings = settings_for(nowhere, tmp_path)
    with as_of(schema):
        async with opened(settings) as store:
            await fill(filler(store), TOLD if schema < MESSAGES else ())
            before, approved = await contents(store), await store.approved("filled")
    assert (await in_order(settings)).startswith(f"schema {schema}")
    async with closing(await open_store_to_serve(settings)) as store:
        after = await contents(store)
        assert await store.approved("filled") == approved == ["ABC1234", "FILL001", "FILL002"]
        assert len(after["schema_files"]) == len(schema_files("sqlite"))
    changed = {name for name in before if after[name] != before[name]} - {"approvals"}  # whose columns changed places
    assert changed == ({"schema_files"} if schema < NEWEST else set())
    assert await in_order(settings) == f"schema {NEWEST}"


async def in_order(settings: config.Settings) -> str:
    """What `config check` says of the database where all is well."""
    return await asyncio.to_thread(checking.rehearsed, settings.store, key_of(settings))


# --- refused by both, in the same words ---------------------------------------------------------------------------


def statement(sql: str):
    async def done(store: Store, settings: config.Settings) -> None:
        def work():
            yield Query(sql)
        await store._driver.driver.run(work)
    return done


async def with_another_key(store: Store, settings: config.Settings) -> None:
    Path(settings.sealing.key_file).unlink()
    create_key_file(Path(settings.sealing.key_file))


HARMS = {
    "it is of a newer release": (
        statement("INSERT INTO schema_files (number, name, checksum) VALUES (9999, 'later', 'x')"),
        "at schema 9999, newer than this program"),
    "it was made from another file": (
        statement("UPDATE schema_files SET checksum = 'another' WHERE number = 1"), "0001_start was changed after use"),
    "the sealing key is another one": (with_another_key, "audit_keys/1 is sealed with an unknown key"),
    "the key of the audit is gone": (statement("DELETE FROM audit_keys"), "the key of its hashes is gone"),
    "what is sealed is of another row": (
        statement("UPDATE audit_keys SET sealed = (SELECT sealed FROM delegates WHERE sealed IS NOT NULL)"),
        "audit_keys/1 does not open"),
}


@pytest.mark.parametrize("harm", HARMS)
async def test_R_kept_what_a_start_refuses_the_check_refuses_in_the_same_words(settings, filler, harm) -> None:
    done, words = HARMS[harm]
    async with opened(settings) as store:
        await fill(filler(store))
        await done(store, settings)
    refusals = []
    for work in (in_order, started):
        with pytest.raises(DelegatorError) as refused:
            await work(settings)
        refusals.append((refused.value.detail, refused.value.hint))
    assert refusals[0] == refusals[1]
    assert words in refusals[0][0]
    assert refusals[0][1] or "does not open" in words


async def started(settings: config.Settings) -> None:
    """As far as a start goes with its database: the last is the row of audit that says so."""
    async with closing(await open_store_to_serve(settings)) as store:
        await store.audit.note(Act.SERVER_STARTED, {}, today())
