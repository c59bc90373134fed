"""SQLite in trouble: locked, full, broken. The caller is told, nothing is half done, and it goes on afterwards."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.model import Customer
from delegator.store import Outcome, open_store
from delegator.store.engines.sqlite import driver as sqlite_driver
from delegator.store.engines.sqlite.soundness import require_sound

from ....clock import today

ROOT, PROCESS = Path(__file__).parents[4], Path(__file__).parents[2] / "claiming.py"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "delegator.db"


@pytest.fixture
async def store(path, key, monkeypatch):
    monkeypatch.setattr(sqlite_driver, "BUSY_TIMEOUT", 0.05)
    store = await open_store(path, key)
    yield store
    await store.close()


async def all_told(works, kind: Kind = Kind.UNAVAILABLE) -> None:
    outcomes = await asyncio.wait_for(asyncio.gather(*works, return_exceptions=True), 5)
    assert {type(one) for one in outcomes} == {DelegatorError}
    assert {one.kind for one in outcomes} == {kind}


async def test_R_later_while_another_process_holds_the_lock_everybody_is_told_and_nothing_is_done(store, ask, path):
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await all_told((store.open_claim(ask(f"TAG{n:04}")) for n in range(10)), Kind.TRY_LATER)
        assert await store.claims() == [], "reading goes on"
        other.execute("ROLLBACK")
    assert (await store.open_claim(ask("TAG0000"))).outcome is Outcome.OPENED
    assert await store.taken("acme", "acme-1") == {"customer/acme": 1, "delegate/acme-1": 1}


@pytest.mark.slow
async def test_R_later_a_short_lock_is_waited_for(store, ask, path, monkeypatch):
    store._driver.driver._writer._connection.execute("PRAGMA busy_timeout = 5000")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(store.open_claim(ask()))
        await asyncio.sleep(0.05)
        other.execute("COMMIT")
    assert (await waiting).outcome is Outcome.OPENED


async def test_R_later_a_lock_that_sqlite_explains_further_is_waited_for_too(store, ask):
    driver = store._driver.driver

    class Recovering:
        """As while another process recovers the log after a crash: SQLITE_BUSY_RECOVERY, once."""

        def __init__(self, connection: sqlite3.Connection) -> None:
            self.connection, self.told = connection, 0

        def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
            if sql == "BEGIN IMMEDIATE" and not self.told:
                self.told += 1
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY_RECOVERY
                raise error
            return self.connection.execute(sql, *parameters)

    driver._connection = Recovering(driver._connection)
    assert (await store.open_claim(ask())).outcome is Outcome.OPENED
    assert driver._connection.told == 1


async def test_R_drained_a_close_that_is_cancelled_is_ended_by_the_next_one(path, key, ask, monkeypatch):
    """Else the writing thread would keep the process alive."""
    monkeypatch.setattr(sqlite_driver, "BUSY_TIMEOUT", 2.0)
    before = threads()
    store = await open_store(path, key)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(store.open_claim(ask()))
        await asyncio.sleep(0.05)
        closing_it = asyncio.create_task(store.close())
        await asyncio.sleep(0.05)
        closing_it.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing_it
        other.execute("ROLLBACK")
    await asyncio.wait_for(store.close(), 5)
    assert (await waiting).outcome is Outcome.OPENED
    for one in threads() - before:
        one.join(0.5)
    assert threads() <= before


async def test_R_later_a_full_database_tells_everybody_and_keeps_only_whole_claims(store, ask):
    """Full in the midst of a group: none of it stays. With room again the same devices are served."""
    writer = store._driver.driver._writer._connection
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages}")
    big = "x" * 5000
    for _ in range(3):
        await all_told(store.open_and_issue(ask(f"TAG{n:04}"), lambda claim: big) for n in range(20))
    assert await store.claims() == []
    assert await store.taken("acme", "acme-1") == {}
    writer.execute("PRAGMA max_page_count = 1000000")
    opened = await asyncio.gather(*(store.open_and_issue(ask(f"TAG{n:04}"), lambda claim: big) for n in range(20)))
    assert {store.reveal(one.claim) for one in opened} == {big}


async def test_R_later_a_full_disk_tells_the_caller_and_keeps_what_it_had_told_before(path, opening_sqlite):
    """The real thing, by the system's limit for the size of files, in a process of its own."""
    done = subprocess.run([sys.executable, str(PROCESS), str(path), "300000"], cwd=ROOT, text=True, timeout=30,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    *told, kind, last = done.stdout.splitlines()
    assert kind == "told unavailable"
    store = await opening_sqlite()
    assert {one.claim_id for one in await store.claims(most=100_000)} == {*told, last}
    assert (await store.taken("acme", "acme-1"))["customer/acme"] == len(told) + 1


# --- files that are no database -----------------------------------------------------------------------------------


def threads() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.is_alive()}


async def refused(path: Path, key) -> DelegatorError:
    """Opening is refused with the path in the message, and leaves no thread behind."""
    before = threads()
    with pytest.raises(DelegatorError) as refusal:
        await (await asyncio.wait_for(open_store(path, key), 5)).close()
    for one in threads() - before:
        one.join(0.2)
    assert threads() == before
    assert refusal.value.kind is Kind.CONFIGURATION
    assert str(path) in refusal.value.detail
    return refusal.value


def emptied(content: bytes) -> bytes:
    """The first page kept but for its rows: the list of tables is broken."""
    return content[:100] + b"\xff" * 3996 + content[4096:]


@pytest.mark.parametrize("damage", [
    lambda content: b"this is not a database at all, but a text" * 100, lambda content: content[:5000],
    lambda content: content[:100] + b"\0" * (len(content) - 100), emptied], ids=["text", "cut", "zeroed", "first"])
async def test_R_kept_a_broken_file_is_a_clear_error_and_no_thread_is_left(path, key, damage):
    await (await open_store(path, key)).close()
    path.write_bytes(damage(path.read_bytes()))
    error = await refused(path, key)
    assert "delegator restore" in error.hint


async def test_R_kept_a_place_where_no_database_can_be_is_a_clear_error(tmp_path, key):
    (tmp_path / "file").write_text("x")
    await refused(tmp_path / "file" / "delegator.db", key)
    await refused(tmp_path, key)


async def test_R_kept_when_the_reading_connection_cannot_be_had_the_writing_one_is_let_go(path, key, monkeypatch):
    connect, made = sqlite_driver._connect, []

    def failing(path: Path, *, check_same_thread: bool = True) -> sqlite3.Connection:
        if check_same_thread and False in made:
            raise sqlite3.OperationalError("unable to open database file")
        made.append(check_same_thread)
        return connect(path, check_same_thread=check_same_thread)

    monkeypatch.setattr(sqlite_driver, "_connect", failing)
    await refused(path, key)


async def test_R_later_a_page_that_breaks_later_makes_the_store_unavailable_not_wrong(path, opening_sqlite, ask):
    store = await opening_sqlite()
    await asyncio.gather(*(store.open_claim(ask(f"TAG{n:04}")) for n in range(200)))
    with closing(sqlite3.connect(path)) as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'claims_live'").fetchone()[0]
    await store.close()
    content = bytearray(path.read_bytes())
    content[(root - 1) * 4096:root * 4096] = b"\xff" * 4096
    path.write_bytes(content)
    with pytest.raises(DelegatorError) as damaged:
        require_sound(path)
    assert damaged.value.kind is Kind.CONFIGURATION
    assert "delegator restore" in damaged.value.hint
    store = await opening_sqlite()
    await all_told([store.open_claim(ask("TAG0001")), store.open_claim(ask("NEW0001"))])
    await store.add_customer(Customer("acme", "Acme"), today())


@pytest.mark.parametrize("small", [True, False])
async def test_R_kept_what_a_start_looks_at_finds_a_file_that_was_cut_and_no_fault_in_a_sound_one(
        path, opening_sqlite, ask, monkeypatch, small):
    """Of a large file not every page is read, but it must have them all."""
    monkeypatch.setattr("delegator.store.engines.sqlite.soundness.SMALL", 10**9 if small else 0)
    store = await opening_sqlite()
    await asyncio.gather(*(store.open_claim(ask(f"TAG{n:04}")) for n in range(200)))
    require_sound(path)
    await store.close()
    require_sound(path)
    require_sound(path.with_name("not-there.db"))
    path.write_bytes(path.read_bytes()[:-8192])
    with pytest.raises(DelegatorError, match="is damaged"):
        require_sound(path)
