"""A store that is slow: each request has one deadline, and nobody joins a line that does not move (T-C19).

Laws about seconds, with a clock that is pretended (see pretending). PostgreSQL is pretended too: what it does about it
in earnest stands in test_slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from delegator.clockwork.deadline import Elsewhere, Within
from delegator.errors import DelegatorError, Kind
from delegator.sealing import SealingKey
from delegator.store import Outcome, Store, open_store
from delegator.store.copies import Copies
from delegator.store.engines.postgres.turns import TooMany, Turns
from delegator.store.engines.sqlite import reading as sqlite_reading
from delegator.store.engines.sqlite.driver import SqliteDriver
from delegator.store.engines.sqlite.reading import Reader
from delegator.store.transaction import Query, rows_alone

from ..pretending import loop, pretend

KEY = SealingKey(b"k" * 32)
SLACK = 0.2
"""Who gives up is looked for ten times a second."""


async def in_a_request(work) -> tuple[object, float]:
    """What it comes to within one request, and after how many seconds of the pretended clock."""
    began = loop().time()
    with Within(5):
        try:
            outcome = await work
        except DelegatorError as error:
            outcome = error
    return outcome, loop().time() - began


# --- a lock that another process holds ----------------------------------------------------------------------------


@contextlib.contextmanager
def held(path: Path) -> Iterator[sqlite3.Connection]:
    """Another connection writes, for as long as this lasts."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[tuple[Store, SqliteDriver]]:
    store = await open_store(path, KEY)
    try:
        yield store, store._driver.driver
    finally:
        await store.close()


async def turns() -> None:
    """What is past a second must be so after a few turns of the loop, too: the law of store.engines.oldness."""
    for _ in range(5):
        await asyncio.sleep(0)


async def moving(store: Store) -> None:
    """That nobody is in the way any more is seen at the next look."""
    async with asyncio.timeout(5):
        while store.stalled:
            await asyncio.sleep(0.01)


def test_TC19_a_device_is_told_to_try_later_at_its_deadline_and_nothing_was_done(tmp_path, ask):
    async def devices() -> None:
        async with opened(tmp_path / "d.db") as (store, _):
            with held(tmp_path / "d.db"), loop().pretending():
                told = await asyncio.gather(*(in_a_request(store.open_claim(ask(f"TAG{n:04}"))) for n in range(300)))
            assert {(outcome.kind, outcome.detail.partition("has held its")[1]) for outcome, _ in told} == {
                (Kind.TRY_LATER, "has held its")}
            assert max(waited for _, waited in told) < 5 + SLACK
            await moving(store)
            assert (await store.open_claim(ask("TAG0000"))).outcome is Outcome.OPENED
            assert len(await store.claims()) == 1, "who gave up was not served behind its back"
    pretend(devices())


def test_TC19_a_wait_of_a_second_sends_everybody_away_who_comes_then_but_who_asks_again(tmp_path, ask):
    async def devices() -> None:
        async with opened(tmp_path / "d.db") as (store, driver):
            before = (await store.open_and_issue(ask("OLD0001"), lambda claim: "x")).claim
            with held(tmp_path / "d.db"), loop().pretending():
                first = asyncio.create_task(in_a_request(store.open_claim(ask("TAG0001"))))
                await asyncio.sleep(0.5)
                assert not store.stalled
                await asyncio.sleep(0.6)
                for _ in range(2):
                    assert store.stalled or (not await turns() and store.stalled)
                    late, waited = await in_a_request(store.open_claim(ask("TAG0002")))
                    assert (late.kind, waited < SLACK) == (Kind.TRY_LATER, True)
                    again, waited = await in_a_request(store.open_and_issue(ask("OLD0001"), lambda claim: "y"))
                    assert (again.outcome, again.claim, waited < SLACK) == (Outcome.SAME_AGAIN, before, True)
                    thief, _ = await in_a_request(store.open_and_issue(ask("OLD0001", "key:two"), lambda claim: "y"))
                    assert thief.kind is Kind.TRY_LATER, "what is another's is looked at as ever, later"
                    await first
                    await asyncio.sleep(20)  # nobody waits any more, and the lock is held all the same
            await moving(store)
            assert (await store.open_claim(ask("TAG0002"))).outcome is Outcome.OPENED
            assert driver.age == 0
    pretend(devices())


def test_TC19_who_joined_the_line_before_it_was_known_gets_what_it_has_at_its_deadline(tmp_path, ask):
    async def devices() -> None:
        async with opened(tmp_path / "d.db") as (store, _):
            before = (await store.open_and_issue(ask("OLD0001"), lambda claim: "x")).claim
            with held(tmp_path / "d.db"), loop().pretending():
                both = [asyncio.create_task(in_a_request(store.open_and_issue(ask(tag), lambda claim: "y")))
                        for tag in ("OLD0001", "NEW0001")]
                (again, waited), (late, _) = await asyncio.gather(*both)
            assert (again.outcome, again.claim, waited < 5 + SLACK) == (Outcome.SAME_AGAIN, before, True)
            assert late.kind is Kind.TRY_LATER
    pretend(devices())


def test_TC19_who_is_no_device_waits_as_long_as_ever_and_is_told_the_same(tmp_path, ask, caplog):
    async def command() -> None:
        async with opened(tmp_path / "d.db") as (store, _):
            with held(tmp_path / "d.db"), loop().pretending():
                began = loop().time()
                with pytest.raises(DelegatorError) as late:
                    await store.open_claim(ask())
                assert late.value.kind is Kind.TRY_LATER
                assert 5 <= loop().time() - began < 5 + SLACK
                assert late.value.hint
    pretend(command())
    assert not caplog.records, "a command says it itself, and speaks of no devices"


def test_TC19_the_log_says_once_why_and_once_that_it_is_over(tmp_path, ask, caplog, monkeypatch):
    monkeypatch.setattr("delegator.store.engines.slowness.WELL", 0)

    async def devices() -> None:
        async with opened(tmp_path / "d.db") as (store, _):
            with held(tmp_path / "d.db"), loop().pretending():
                await asyncio.gather(*(in_a_request(store.open_claim(ask(f"TAG{n:04}"))) for n in range(20)))
            await moving(store)
            await store.open_claim(ask())
    pretend(devices())
    slow, well = (record.getMessage() for record in caplog.records if "delegator.store" in record.name)
    assert "is slow, devices are told to try later: another process has held its write lock for" in slow
    assert "answers in time again" in well


def test_TC19_one_long_turn_of_the_loop_makes_no_old_line(tmp_path, ask):
    """What was done meanwhile, in a thread or elsewhere, is heard of only after it."""
    async def crowd() -> None:
        async with opened(tmp_path / "d.db") as (store, driver):
            asking = asyncio.create_task(store.open_claim(ask()))
            await asyncio.sleep(0)
            loop()._world.skipped += 3.0
            assert driver.age == 1
            assert not store.stalled
            assert (await asking).outcome is Outcome.OPENED
            assert driver.age == 0
    pretend(crowd())


# --- a disk that does not answer ----------------------------------------------------------------------------------


def hang(driver: SqliteDriver, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Every commit waits for this; it is done all the same."""
    free, commit = asyncio.Event(), driver._writer.commit

    async def waiting() -> None:
        await free.wait()
        await commit()
    monkeypatch.setattr(driver._writer, "commit", waiting)
    return free


def test_TC19_a_commit_that_hangs_costs_a_device_its_deadline_and_its_row_is_found_by_asking_again(
        tmp_path, ask, monkeypatch):
    async def devices() -> None:
        async with opened(tmp_path / "d.db") as (store, driver):
            free = hang(driver, monkeypatch)
            with loop().pretending():
                told, waited = await in_a_request(store.open_and_issue(ask(), lambda claim: f"secret of {claim}"))
                assert (told.kind, 5 <= waited < 5 + SLACK) == (Kind.TRY_LATER, True)
                assert "the disk is slow" in told.detail
                assert store.stalled or (not await turns() and store.stalled)
                late, waited = await in_a_request(store.open_claim(ask("TAG0002")))
                assert (late.kind, waited < SLACK) == (Kind.TRY_LATER, True)
            free.set()
            await moving(store)
            again = await store.open_and_issue(ask(), lambda claim: "another")
            assert again.outcome is Outcome.SAME_AGAIN
            assert store.reveal(again.claim) == f"secret of {again.claim.claim_id}"
            assert [one.claim_id for one in await store.claims()] == [again.claim.claim_id]
    pretend(devices())


def test_TC19_a_deadline_that_is_past_begins_nothing(tmp_path, ask):
    async def device() -> None:
        async with opened(tmp_path / "d.db") as (store, _):
            with loop().pretending(), Within(5):
                await asyncio.sleep(6)
                with pytest.raises(DelegatorError) as late:
                    await store.open_claim(ask())
            assert late.value.kind is Kind.TRY_LATER
            assert await store.claims() == []
    pretend(device())


# --- reading ------------------------------------------------------------------------------------------------------


class Busy:
    """A connection before which somebody is in the way for so many statements, each of which takes so long."""

    def __init__(self, times: int, seconds: float = 0.0, code: int = sqlite3.SQLITE_BUSY) -> None:
        self.times, self.seconds, self.code = times, seconds, code
        self.statements: list[str] = []

    def execute(self, sql: str, parameters: object = ()) -> sqlite3.Cursor:
        self.statements.append(sql)
        if "busy_timeout" not in sql and len(self.statements) <= self.times + 1:
            loop()._world.skipped += self.seconds
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = self.code
            raise error
        return sqlite3.connect(":memory:").execute("SELECT 1")


@pytest.mark.parametrize("connection", ["_connection", "_reader"])
def test_TC19_no_connection_of_a_server_sleeps_on_the_loop(tmp_path, connection):
    async def looked_at() -> None:
        async with opened(tmp_path / "d.db") as (store, driver):
            with held(tmp_path / "d.db"), loop().pretending():
                await in_a_request(store.check())  # gave up a lock, which must not leave a patience behind
            assert getattr(driver, connection).execute("PRAGMA busy_timeout").fetchone() == (0,)
    pretend(looked_at())


@pytest.mark.parametrize(("times", "told"), [(7, None), (10**6, Kind.TRY_LATER)], ids=["a moment", "for good"])
def test_TC19_a_read_that_somebody_is_in_the_way_of_waits_beside_the_loop_until_its_deadline(tmp_path, times, told):
    async def device() -> None:
        reader = Reader(tmp_path / "d.db", Busy(times))
        with loop().pretending():
            outcome, waited = await in_a_request(reader.patiently(Query("SELECT 1"), 5))
        assert getattr(outcome, "kind", None) is told
        assert waited < 5 + SLACK
    pretend(device())


def test_TC19_after_a_read_that_slept_nobody_reads_on_the_loop_until_a_look_from_a_thread_was_quick(
        tmp_path, monkeypatch):
    """SQLite sleeps ten seconds where it cannot have a lock of its log's index, whatever the busy timeout."""
    now = [0.0]
    monkeypatch.setattr(sqlite_reading.time, "monotonic", lambda: now[0] + loop()._world.skipped)
    looks: list[object] = []
    monkeypatch.setattr(sqlite_reading.threading, "Thread", lambda target, args, **_: looks.append(target) or Idle())

    class Idle:
        def start(self) -> None:
            pass

    async def devices() -> None:
        connection = Busy(1, 9.98, sqlite3.SQLITE_PROTOCOL)
        reader = Reader(tmp_path / "d.db", connection)
        outcomes = [await in_a_request(reader.patiently(Query("SELECT 1"), 5)) for _ in range(3)]
        assert {outcome.kind for outcome, _ in outcomes} == {Kind.TRY_LATER}
        assert len(connection.statements) == 2, "its pragma, and the one read that slept"
        assert len(looks) == 1
        reader._is_quick()
        with Within(5):
            assert await reader.patiently(Query("SELECT 1"), 5) == [(1,)]
    pretend(devices())


def test_TC19_who_waits_for_another_to_read_the_small_tables_has_his_own_deadline():
    async def devices() -> None:
        async def revision() -> int:
            await asyncio.sleep(60)
            return 1

        class Deaf:
            heard = None
        copies = Copies(Deaf(), revision, lambda _: None)
        with loop().pretending():
            first = asyncio.create_task(copies.newest())  # of somebody who has all the time
            await asyncio.sleep(0.1)
            late, waited = await in_a_request(copies.newest())
            assert (late.kind, waited) == (Kind.TRY_LATER, pytest.approx(5, abs=SLACK))
            first.cancel()
    pretend(devices())


# --- turns by name ------------------------------------------------------------------------------------------------


def test_TC19_a_line_of_one_name_that_does_not_move_sends_away_who_comes_and_no_other_name():
    async def crowd() -> None:
        turns = Turns()

        async def one(name: str, until: float = 5.0) -> float:
            began = loop().time()
            with contextlib.suppress(TooMany):
                async with turns.of([name], began + until):
                    await asyncio.sleep(0 if name == "other" else 60)
            return loop().time() - began
        with loop().pretending():
            inside = asyncio.create_task(one("crowded"))
            await asyncio.sleep(0.1)
            waiting = asyncio.create_task(one("crowded"))
            await asyncio.sleep(1.2)
            assert await one("crowded") < SLACK
            assert await one("other") < SLACK
            assert await waiting < 5 + SLACK
            assert await inside < 60 + SLACK
            assert await one("crowded", 100) == pytest.approx(60, abs=1)
        assert turns._lines == {}
    pretend(crowd())


# --- PostgreSQL ---------------------------------------------------------------------------------------------------


class Server:
    """A pretended PostgreSQL: each statement that holds one of these words takes so many seconds."""

    def __init__(self, **slow: float) -> None:
        self.slow, self.said, self.ended = slow, [], []
        self.made = 0

    async def connect(self) -> Session:
        self.made += 1
        return Session(self)


class Session:
    def __init__(self, server: Server) -> None:
        self.server, self.gone = server, asyncio.Event()

    def is_closed(self) -> bool:
        return self.gone.is_set()

    def terminate(self) -> None:
        self.gone.set()

    async def close(self, timeout: float) -> None:
        self.terminate()

    async def execute(self, sql: str, *parameters: object, timeout: float | None = None) -> list[object]:
        self.server.said.append(sql)
        seconds = max([taken for word, taken in self.server.slow.items() if word in sql], default=0.0)
        try:
            async with asyncio.timeout(timeout):
                ending = asyncio.create_task(self.gone.wait())
                done, _ = await asyncio.wait([ending], timeout=seconds)
                ending.cancel()
        except TimeoutError:
            self.server.ended.append(sql)
            raise
        if done:
            raise ConnectionResetError("closed")
        return [(1,)]

    fetch = execute

    async def fetchval(self, *_: object) -> int:
        return 1


def postgres(server: Server, connections: int = 2):
    """Its driver, whose clock is the pretended one."""
    pytest.importorskip("asyncpg")
    from delegator.store.engines.postgres.connecting import server_of
    from delegator.store.engines.postgres.driver import PostgresDriver
    from delegator.store.engines.postgres.fencing import Fence
    from delegator.store.engines.postgres.pool import Pool

    class Open(Fence):
        """Of a server that nobody took over from."""

        def fits(self, connection: object) -> bool:
            return True
    where = server_of("postgresql://delegator@/pretended")
    driver = PostgresDriver(where, Pool(server.connect, where.name, connections, where.timeout), Open())
    driver._window._clock = loop().time
    return driver


def work(*statements: str):
    def transaction():
        for one in statements:
            yield Query(one)
        return "done"
    return transaction


def test_TC19_all_steps_of_a_request_have_one_deadline_and_what_is_given_up_is_undone():
    """Five steps of two seconds are not ten seconds; none that is asked for then comes to a commit."""
    async def device() -> None:
        server = Server(step=2.0)
        driver = postgres(server)

        async def request() -> object:
            await driver.read(Query("first step"))
            return await driver.run(work(*["another step"] * 4), rows_alone, repeatable=True)
        with loop().pretending():
            told, waited = await in_a_request(request())
            assert (told.kind, waited) == (Kind.TRY_LATER, pytest.approx(5, abs=SLACK))
            assert "not done within the 5 s" in told.detail
            assert "it was undone" in told.detail
            await asyncio.sleep(1)
        assert server.ended == ["another step"], "the server is asked to end what runs"
        assert server.said[-1] == "ROLLBACK"
        assert "COMMIT" not in server.said
        assert server.made == 1, "the connection is lent again"
        assert await driver.run(work("quick"), rows_alone) == "done"
        await driver.close()
    pretend(device())


def test_TC19_a_commit_is_never_ended_by_a_deadline_but_hung_up_and_told_as_what_it_is():
    async def device() -> None:
        server = Server(COMMIT=60.0)
        driver = postgres(server)
        with loop().pretending():
            told, waited = await in_a_request(driver.run(work("quick"), rows_alone, repeatable=True))
        assert (told.kind, waited) == (Kind.TRY_LATER, pytest.approx(5, abs=SLACK))
        assert "asking again" in told.detail
        assert server.ended == []
        await driver.close()
    pretend(device())


def test_TC19_who_waits_for_a_connection_has_the_same_deadline_and_makes_the_line_old():
    async def devices() -> None:
        server = Server(slow=60.0)
        driver = postgres(server)
        with loop().pretending():
            busy = [asyncio.create_task(in_a_request(driver.run(work("slow"), rows_alone))) for _ in range(2)]
            await asyncio.sleep(0.5)
            assert driver.age == 0, "two have a connection each"
            late = asyncio.create_task(in_a_request(driver.read(Query("quick"))))
            await asyncio.sleep(1.1)
            assert driver.age == 1
            await turns()
            assert driver.age > 1
            assert "all 2 connections were busy for 1." in driver.crowded().detail
            told = [await one for one in (*busy, late)]
            assert driver.age == 0
        assert {outcome.kind for outcome, _ in told[:2]} == {Kind.TRY_LATER}
        assert max(waited for _, waited in told) < 5 + SLACK
        await driver.close()
    pretend(devices())


def test_TC19_where_none_is_done_in_time_one_at_a_time_finds_out_when_that_is_over():
    """A crowd that comes all at once makes no old line, and would wait for its deadline again and again."""
    async def devices() -> None:
        server = Server(locked=60.0)
        driver = postgres(server)

        async def device(statement: str = "locked") -> object:
            with driver.request():
                if driver.is_full:
                    raise driver.crowded()
                return await driver.run(work(statement), rows_alone)

        async def crowd() -> list[float]:
            async def one() -> float:
                began = loop().time()
                with contextlib.suppress(DelegatorError):
                    await device()
                return loop().time() - began
            return sorted(await asyncio.gather(*(one() for _ in range(20))))
        with loop().pretending():
            assert min(await crowd()) > 4, "the first ones cannot know"
            for _ in range(2):
                *at_once, probe = await crowd()
                assert max(at_once) < SLACK
                assert probe == pytest.approx(5, abs=SLACK)
            server.slow.clear()
            for wave in (1, 2, 3):
                told = await asyncio.gather(*(device() for _ in range(20)), return_exceptions=True)
                assert told.count("done") >= wave
            for _ in range(80):
                await device()
            assert set(await asyncio.gather(*(device() for _ in range(20)))) == {"done"}
        await driver.close()
    pretend(devices())


def test_TC19_requests_that_wait_for_their_delegates_keep_nobody_from_finding_out_that_it_is_over():
    """A customer's delegate that says nothing would else keep all others out for as long as its budget lasts."""
    async def devices() -> None:
        server = Server(locked=60.0)
        driver = postgres(server, 8)

        async def with_a_silent_delegate() -> None:
            with driver.request(), Elsewhere():
                await asyncio.sleep(30)

        async def unlucky() -> object:
            with driver.request():
                return await driver.run(work("locked"), rows_alone)
        with loop().pretending():
            silent = [asyncio.create_task(with_a_silent_delegate()) for _ in range(10)]
            await asyncio.gather(*(unlucky() for _ in range(20)), return_exceptions=True)
            server.slow.clear()
            with driver.request():
                assert not driver.is_full
                assert await driver.run(work("quick"), rows_alone) == "done"
            assert not any(one.done() for one in silent)
            await asyncio.gather(*silent)
            with driver.request():
                assert not driver.is_full, "who came back is counted once"
        await driver.close()
    pretend(devices())


def test_TC19_while_some_are_done_in_time_nobody_is_kept_out_by_those_who_are_not():
    """A customer whose rows somebody has locked costs no other anything."""
    async def devices() -> None:
        server = Server(locked=60.0)
        driver = postgres(server, 8)

        async def others() -> None:
            while True:
                with driver.request():
                    assert not driver.is_full
                    await driver.run(work("quick"), rows_alone)
                await asyncio.sleep(0.5)

        async def unlucky() -> object:
            with driver.request():
                return await driver.run(work("locked"), rows_alone)
        with loop().pretending():
            going_on = asyncio.create_task(others())
            told = await asyncio.gather(*(unlucky() for _ in range(5)), return_exceptions=True)
            assert {one.kind for one in told} == {Kind.TRY_LATER}
            await asyncio.sleep(1)
            assert not going_on.done()
            going_on.cancel()
        await driver.close()
    pretend(devices())


def test_TC19_a_server_that_does_not_even_end_what_it_is_asked_to_loses_the_connection():
    async def device() -> None:
        server = Server(slow=60.0, ROLLBACK=60.0)
        driver = postgres(server, 1)
        with loop().pretending():
            await in_a_request(driver.run(work("slow"), rows_alone))
            assert (await in_a_request(driver.run(work("quick"), rows_alone)))[0] == "done"
        assert server.made == 2
        await driver.close()
    pretend(device())


def test_TC19_who_is_no_device_has_no_deadline_but_the_servers_own():
    async def command() -> None:
        server = Server(step=4.0)
        driver = postgres(server)
        with loop().pretending():
            assert await driver.run(work(*["a step"] * 5)) == "done"
        await driver.close()
    pretend(command())


def test_an_error_says_why_in_words():
    """T-C15: the name of a class is no reason."""
    pytest.importorskip("asyncpg")
    from delegator.store.engines.postgres.troubles import told
    for error in (TimeoutError(), ConnectionResetError(), OSError()):
        detail = told(error, "db").detail
        assert len(detail.removeprefix("database db: ").split()) > 2, detail
