"""Usage on SQLite: killed at any moment, tampered with past its triggers, and never by reading all claims (A11)."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from delegator.model import CallbackWay
from delegator.model.billed import Month, Period, Plan
from delegator.store.billing import usage
from delegator.store.billing.reconciling import Verdict, What
from delegator.store.engines.sqlite.reading import numbered

ROOT, PROCESS = Path(__file__).parents[3], Path(__file__).parents[1] / "claiming.py"
JANUARY = Month(2026, 1)
NOW = datetime(2026, 6, 1, tzinfo=UTC)


async def reconciled(store, period: Period, statement=None):
    reconciliation = store.reconciliation(period, statement)
    async for _ in reconciliation.run():
        pass
    return reconciliation


def tamper(path: Path, *statements: str) -> None:
    """As whoever owns the file can: triggers are no obstacle."""
    with closing(sqlite3.connect(path)) as connection:
        triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for statement in (*(f"DROP TRIGGER {name}" for name, in triggers), *statements):
            connection.execute(statement)
        connection.commit()


async def test_A11_whenever_it_is_killed_credentials_events_and_rows_are_the_same(tmp_path, opening_sqlite) -> None:
    """Each time it begins with the same devices: those that were served before ask again, and are no event."""
    path, epoch = tmp_path / "delegator.db", datetime.fromtimestamp(0, UTC)
    for _ in range(3):
        process = subprocess.Popen([sys.executable, str(PROCESS), str(path)], cwd=ROOT, text=True,
                                   stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert process.stdout is not None
        assert process.stdout.readline()
        time.sleep(0.1)
        process.kill()
        told = 1 + len(process.communicate()[0].splitlines())
        store = await opening_sqlite()
        period = Period(JANUARY, "UTC", epoch, epoch + timedelta(days=1))
        done = await reconciled(store, period)
        assert (done.verdict, done.found.differences) == (Verdict.PROVEN, [])
        assert done.found.events == done.found.rows == len(await store.claims(most=10**6)) >= told


@pytest.fixture
async def sold(tmp_path, opening_sqlite, ask):
    """A store with nine events in January, closed and billed, and its file."""
    store = await opening_sqlite()
    for number in range(9):
        callback = CallbackWay.SSH if number == 4 else CallbackWay.SOAP
        asked = replace(ask(f"TAG000{number}", minute=number), callback=callback)
        await store.open_and_issue(asked, lambda claim: "x")
    await store.plans.add(Plan("standard", "EUR", Decimal("0.25"), JANUARY), NOW)
    await store.plans.assign("domain:acme.example", "standard", JANUARY, NOW)
    period = await store.statements.period(JANUARY, "UTC")
    await store.statements.close(period, await store.usage.counts(period, period.ends), NOW)
    return store, tmp_path / "delegator.db"


@pytest.mark.parametrize(("statement", "what"), [
    ("DELETE FROM claims WHERE service_tag = 'TAG0004'", What.NO_EVENT),
    ("UPDATE claims SET issued_at = NULL, state = 'released', sealed = NULL WHERE service_tag = 'TAG0004'",
     What.NO_EVENT),
    ("UPDATE claims SET customer = 'umbra' WHERE service_tag = 'TAG0004'", What.OTHER),
    ("UPDATE claims SET delegate = 'acme-9' WHERE service_tag = 'TAG0004'", What.OTHER),
    ("UPDATE claims SET callback = 'hosted' WHERE service_tag = 'TAG0004'", What.OTHER),
    ("UPDATE claims SET issued_at = issued_at + 1 WHERE service_tag = 'TAG0004'", What.OTHER),
    ("UPDATE claims SET issued_at = issued_at + 5000000000 WHERE service_tag = 'TAG0004'", What.OTHER),
    ("UPDATE claims SET claim_id = replace(claim_id, '019', '018') WHERE service_tag = 'TAG0004'", What.NO_EVENT),
    ("DELETE FROM audit WHERE service_tag = 'TAG0004'", What.NO_ROW),
    ("UPDATE statement_lines SET quantity = 7 WHERE item = 'soap'", What.STATEMENT),
    ("DELETE FROM statement_lines WHERE item = 'soap'", What.STATEMENT),
    ("UPDATE statements SET digest = 'x'", What.STATEMENT),
    ("UPDATE statements SET closed_at = closed_at + 1", What.STATEMENT),
    ("DELETE FROM audit WHERE act = 'usage.closed'", What.STATEMENT),
])
async def test_A11_whatever_is_changed_past_the_triggers_is_found(sold, statement: str, what: What) -> None:
    store, path = sold
    period, closed = await store.statements.period(JANUARY, "UTC"), await store.statements.statement(JANUARY)
    assert (await reconciled(store, period, closed)).verdict is Verdict.PROVEN
    tamper(path, statement)
    done = await reconciled(store, period, await store.statements.statement(JANUARY))
    assert done.verdict is Verdict.DIFFERS
    assert what in done.found.counted


def plan_of(path: Path, query) -> str:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("EXPLAIN QUERY PLAN " + numbered(query.sql), query.parameters).fetchall()
    return "\n".join(row[3] for row in rows)


async def test_A11_a_month_is_found_by_keys_and_never_by_reading_all_claims(sold) -> None:
    store, path = sold
    begins, ends = NOW, NOW + timedelta(days=1)
    events = [page async for page in store.usage.events(await store.statements.period(JANUARY, "UTC"))]
    after = events[0][0]
    range_of_keys = "claims USING PRIMARY KEY (claim_id>? AND claim_id<?)"
    for query in (usage.counting(begins, ends, "acme"), usage.near(begins, ends, after, 10)):
        assert range_of_keys in plan_of(path, query)
    for query in (usage.counting(begins, ends, None), usage.far(begins, ends, after, 10)):
        assert "INDEX claims_issued_far (issued_at>? AND issued_at<?)" in plan_of(path, query)
        assert "SCAN claims" not in plan_of(path, query)


async def test_A11_claims_that_were_there_before_metering_are_billed_by_their_delegate_as_it_is(tmp_path) -> None:
    from delegator.store.migrate import schema_files

    files = {file.number: file.sql for file in schema_files("sqlite")}
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        for number in (1, 2, 3):
            connection.executescript(files[number])
        connection.execute("INSERT INTO customers VALUES ('acme', 'Acme', 1, NULL)")
        connection.execute("INSERT INTO delegates (name, customer, kind, settings) "
                           "VALUES ('acme-1', 'acme', 'ssh', '{}')")
        for number, delegate in enumerate(("acme-1", "gone", "domain:acme.example")):
            connection.execute(
                "INSERT INTO claims (claim_id, service_tag, customer, delegate, state, identity, binding, attempt, "
                "asked_at, busy_until, lease_until, issued_at) VALUES (?, ?, 'acme', ?, 'confirmed', 'own', 'key:1', "
                "1, 0, 0, 0, 0)", (f"{number:032x}", f"TAG{number}", delegate))
        connection.commit()
        connection.executescript(files[4])
        assert connection.execute("SELECT delegate, callback FROM claims ORDER BY claim_id").fetchall() == [
            ("acme-1", "ssh"), ("gone", None), ("domain:acme.example", "soap")]
