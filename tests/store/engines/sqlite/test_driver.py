"""SQLite: commits are shared, returned means on disk, the file is private, wiped means gone (R-grouped, R-durable,
R-sealed)."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.model import ClaimState, Customer, Registration, Result
from delegator.store import Outcome, open_store
from delegator.store.engines.sqlite.driver import GROUP
from delegator.store.transaction import Query

from ....clock import today

ROOT, PROCESS = Path(__file__).parents[4], Path(__file__).parents[2] / "claiming.py"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "delegator.db"


@pytest.fixture
async def store(path, key):
    store = await open_store(path, key)
    yield store
    await store.close()


@pytest.fixture
def driver(store):
    return store._driver.driver


@pytest.fixture
def traced(driver) -> list[str]:
    """Every statement of the writing connection from here on."""
    statements: list[str] = []
    driver._writer._connection.set_trace_callback(statements.append)
    return statements


def add(name: str):
    def work():
        yield Query("INSERT INTO customers (name, title) VALUES ($1, $1)", (name,))
        return name
    return work


# --- one commit for many ------------------------------------------------------------------------------------------


async def test_R_grouped_many_at_once_share_commits(store, ask, traced):
    opened = await asyncio.gather(*(store.open_claim(ask(f"TAG{n:04}")) for n in range(64)))
    assert {one.outcome for one in opened} == {Outcome.OPENED}
    assert 1 <= traced.count("COMMIT") <= 4
    assert len(await store.claims()) == 64


async def test_R_grouped_a_lone_one_waits_for_nobody(store, ask, traced):
    for number in range(3):
        await store.open_claim(ask(f"TAG{number:04}"))
    assert traced.count("BEGIN IMMEDIATE") == traced.count("COMMIT") == 3


async def test_R_grouped_a_group_has_an_upper_bound(store, driver, traced):
    await asyncio.gather(*(driver.run(add(f"c{n}")) for n in range(3 * GROUP)))
    groups = " ".join(traced).split("COMMIT")
    assert max(group.count("SAVEPOINT one") - group.count("TO one") for group in groups) <= 2 * GROUP
    assert 3 <= traced.count("COMMIT") <= 6
    assert len(await store.customers()) == 3 * GROUP


FAILURES = {
    "conflict": (Query("INSERT INTO customers (name, title) VALUES ('bad', NULL)"), DelegatorError),
    "reference": (Query("INSERT INTO delegates (name, customer, kind, settings) VALUES ('d', 'x', 'soap', '')"),
                  DelegatorError),
    "type": (Query("SELECT $1", ([],)), sqlite3.ProgrammingError),  # type: ignore[arg-type]
    "too large": (Query("SELECT $1", (2**64,)), OverflowError),
    "not a text": (Query("SELECT $1", ("\ud800",)), UnicodeEncodeError),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_R_grouped_one_that_fails_in_a_group_fails_alone(store, driver, traced, failure):
    statement, kind = FAILURES[failure]

    def failing():
        yield Query("INSERT INTO customers (name, title) VALUES ('half', 'done')")
        yield statement

    work = [*(add(f"before-{n}") for n in range(5)), failing, *(add(f"after-{n}") for n in range(5))]
    outcomes = await asyncio.wait_for(
        asyncio.gather(*(driver.run(one) for one in work), return_exceptions=True), 5)
    assert isinstance(outcomes.pop(5), kind)
    assert traced.count("COMMIT") == 1
    assert sorted(outcomes) == [one.name for one in await store.customers()]


async def test_R_grouped_who_gives_up_waiting_does_not_harm_the_others(store, driver):
    tasks = [asyncio.create_task(driver.run(add(f"c{n}"))) for n in range(5)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert [one for one in outcomes if isinstance(one, str)] == ["c0", "c1", "c3", "c4"]
    assert await driver.run(add("c9")) == "c9"


async def test_R_drained_closing_finishes_what_waits_and_later_calls_are_told(store, driver, path, key):
    tasks = [asyncio.create_task(driver.run(add(f"c{n}"))) for n in range(GROUP + 5)]
    await asyncio.sleep(0)
    await store.close()
    assert len(await asyncio.gather(*tasks)) == GROUP + 5
    for late in (store.add_customer(Customer("late", "Late"), today()), store.customers()):
        with pytest.raises(DelegatorError) as refusal:
            await asyncio.wait_for(late, 5)
        assert refusal.value.kind is Kind.UNAVAILABLE
    await store.close()


# --- on disk ------------------------------------------------------------------------------------------------------


async def test_R_durable_a_killed_process_loses_nothing_that_it_was_told(tmp_path, opening_sqlite):
    """kill -9 in the midst of claims: every claim it had printed is there, whole, and can be opened."""
    process = subprocess.Popen([sys.executable, str(PROCESS), str(tmp_path / "delegator.db")], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    told = [process.stdout.readline().strip() for _ in range(100)]
    process.kill()
    told += process.communicate()[0].split()
    store = await opening_sqlite()
    claims = {one.claim_id: one for one in await store.claims(most=100_000)}
    assert [one for one in told if one not in claims] == []
    assert {one.state for one in claims.values()} == {ClaimState.ISSUED}
    assert all(store.reveal(one) == f"secret of {one.service_tag}" for one in claims.values())
    assert (await store.taken("acme", "acme-1"))["customer/acme"] == len(claims)


@pytest.mark.parametrize("umask", [0, 0o022])
async def test_R_sealed_the_database_is_private_whatever_the_umask(tmp_path, key, umask):
    before = os.umask(umask)
    try:
        store = await open_store(tmp_path / "new" / "delegator.db", key)
        await store.add_customer(Customer("acme", "Acme"), today())
        modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in (tmp_path / "new").iterdir()}
        await store.close()
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["delegator.db", "delegator.db-wal", "delegator.db-shm"], 0o600)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


@pytest.mark.parametrize("connection", ["writing", "reading"])
@pytest.mark.parametrize(("pragma", "value"), [
    ("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("secure_delete", 1)])
async def test_R_sealed_the_settings_that_durability_and_wiping_rest_on_are_in_force(driver, connection, pragma, value):
    used = driver._writer._connection if connection == "writing" else driver._reader
    assert used.execute(f"PRAGMA {pragma}").fetchone()[0] == value


def on_disk(path: Path) -> bytes:
    with sqlite3.connect(path) as connection:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    connection.close()
    assert not busy
    return b"".join(one.read_bytes() for one in path.parent.iterdir())


@pytest.mark.parametrize("end", ["confirmed", "expired", "released"])
async def test_R_sealed_a_wiped_credential_is_gone_from_the_files(store, ask, at, path, end):
    """Looked for byte by byte in the database and its log; enough claims that pages split and move."""
    opened = await asyncio.gather(*(
        store.open_and_issue(ask(f"TAG{n:04}"), lambda claim_id: "x" * 100 + claim_id) for n in range(120)))
    claims = [one.claim for one in opened]
    before = on_disk(path)
    assert all(one.sealed in before for one in claims)
    for one in claims:
        if end == "confirmed":
            await store.confirm(one.claim_id, "key:one", Result.DEPLOYED, None, at(1))
        elif end == "released":
            await store.ownership.release(one.service_tag, at(1))
    assert await store.expire_lapsed(at(60)) == (120 if end == "expired" else 0)
    after = on_disk(path)
    assert [one.service_tag for one in claims if one.sealed in after or one.sealed[16:48] in after] == []


async def test_R_sealed_no_secret_stands_in_the_files_in_plain_text(shop, ask, tmp_path):
    await shop.open_and_issue(ask(), lambda claim: "correct-horse-battery")
    await shop.add_devices([Registration("acme", "ABC1234")], today())
    found = b"".join(one.read_bytes() for one in tmp_path.rglob("delegator.db*"))
    assert b"ABC1234" in found
    assert b"correct-horse-battery" not in found
    assert b"{random}" not in found, "a hosted password is sealed too"


async def test_R_once_the_database_itself_refuses_what_claims_must_never_be(store, driver, ask):
    """Whatever the code above believes: one live claim per tag, nothing sealed but in state issued."""
    claim = (await store.open_claim(ask())).claim
    columns = "service_tag, customer, delegate, state, identity, binding, attempt, asked_at, busy_until, lease_until"
    for statement in (
            f"INSERT INTO claims (claim_id, {columns}) SELECT 'second', {columns} FROM claims",
            "UPDATE claims SET sealed = x'00'", "UPDATE claims SET state = 'lost'",
            "UPDATE claims SET attempt = 'x'"):
        def broken(statement=statement):
            yield Query(statement)
        with pytest.raises(DelegatorError) as refusal:
            await driver.run(broken)
        assert refusal.value.kind is Kind.CONFLICT
    assert await store.claims() == [claim]


async def test_R_scans_no_statement_of_a_handshake_scans_a_table(store, driver, ask):
    """Flat to ten million rows: each look-up goes by an index, the partial ones too."""
    asked: list[str] = []
    driver._connection.set_trace_callback(asked.append)
    await store.open_and_issue(ask(), lambda claim: "x")
    driver._connection.set_trace_callback(None)
    statements = [sql for sql in asked if sql.startswith(("SELECT", "INSERT", "UPDATE"))]
    plans = [row[3] for sql in statements for row in driver._reader.execute("EXPLAIN QUERY PLAN " + sql)]
    assert len(statements) >= 4
    assert not [plan for plan in plans if plan.startswith("SCAN") and "CONSTANT ROW" not in plan]
