"""A store that is slow, in earnest, on both engines: no answer lost, changed or doubled, nobody waits too long.

A crowd of devices asks through the whole use case while somebody holds a lock for long, while the network to
the database takes 200 ms each way, or while a disk does not answer. Each device does what a device does: it keeps what
it was told, and comes again where it was told to try later (T-C19).
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from delegator import config
from delegator.model import ClaimState
from delegator.store import Store, open_named
from delegator.store.engines.postgres.connecting import connect as connected
from delegator.store.engines.postgres.connecting import server_of
from delegator.watching.readiness import Readiness

from ..lab.conftest import furnish
from ..lab.lab import SEALING, Lab
from ..thorough import THOROUGH

pytestmark = pytest.mark.slow
POSTGRES = pytest.mark.counterpart("initdb")
LOCKED = 30.0 if THOROUGH else 12.0
"""Seconds that a lock is held, as by an operator who went for a coffee; at least twice as long as a deadline."""
DEADLINE, SLACK = 5.0, 1.0
"""Seconds: `timeout` of the settings, and what a machine with two cores for all of this may add."""
RECOVERY = 5.0


@dataclass
class Crowd:
    """Devices that ask again and again; what they were told, and how long the longest had to wait."""

    lab: Lab
    told: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    faults: set[str | None] = field(default_factory=set)
    longest: float = 0.0
    at_once: int = 0
    later: int = 0
    pause: float = 0.3
    stopping: bool = False

    async def ask(self, tag: str) -> bool:
        began = time.monotonic()
        reply = await self.lab.ask(tag)
        took = time.monotonic() - began
        self.longest = max(self.longest, took)
        if reply.status != 200:
            self.faults.add(reply.fault)
            self.later += 1
            self.at_once += took < 0.5
            return False
        if self.told.setdefault(tag, reply.credential) != reply.credential:
            self.changed.append(tag)
        return True

    async def device(self, tags: list[str]) -> None:
        """One that asks for its own, and is asked for again and again."""
        while not self.stopping:
            for tag in tags:
                while not await self.ask(tag) and not self.stopping:
                    await asyncio.sleep(self.pause)
                await asyncio.sleep(0.1)

    @contextlib.asynccontextmanager
    async def busy(self, devices: list[list[str]]) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.device(tags)) for tags in devices]
        try:
            yield
        finally:
            self.stopping = True
            async with asyncio.timeout(30):
                await asyncio.gather(*tasks)

    async def served(self, tags: set[str], within: float) -> float:
        """Seconds until all of them have an answer."""
        began = time.monotonic()
        async with asyncio.timeout(within):
            while not tags <= self.told.keys():
                await asyncio.sleep(0.02)
        return time.monotonic() - began

    async def is_right_about(self, store: Store) -> None:
        assert self.faults <= {"TryLater"}
        assert self.changed == []
        claims = await store.claims(most=100_000)
        assert len({one.service_tag for one in claims}) == len(claims), "none was given twice"
        assert {one.state for one in claims if one.service_tag in self.told} == {ClaimState.ISSUED}
        assert self.told.keys() <= {one.service_tag for one in claims}
        for holder in ("acme", "globex"):
            count = len([one for one in claims if one.customer == holder])
            assert (await store.taken(holder, f"{holder}-1")).get(f"customer/{holder}", 0) == count


OLD, NEW = [f"OLD{n:04}" for n in range(12)], [f"NEW{n:04}" for n in range(36)]


@contextlib.asynccontextmanager
async def world(where: config.Store) -> AsyncIterator[tuple[Lab, Crowd]]:
    """Two customers, one whose server is asked and one whose credential is kept here; some devices were served."""
    store = await open_named(where, SEALING)
    lab = Lab(store, Path(where.path))
    lab.clock.now = lambda: datetime.now(UTC)
    lab.serve(busy_for=1.0)
    try:
        await furnish(lab)
        for place, tag in enumerate((*OLD, *NEW)):
            await lab.own(tag, customer="globex" if place % 2 else "acme")
        crowd = Crowd(lab)
        for tag in OLD:
            assert await crowd.ask(tag)
        crowd.longest = 0.0
        yield lab, crowd
    finally:
        await lab.close()


async def told_while(lab: Lab, cause: Awaitable[None]) -> dict[str, str]:
    """What readiness says, asked until it says something, while a cause lasts."""
    said: dict[str, str] = {}
    lasting = asyncio.ensure_future(cause)
    readiness = Readiness(lab.store, lambda: datetime.now(UTC))
    await asyncio.sleep(1)
    while not lasting.done():
        said = said or await readiness.wrong()
        await asyncio.sleep(0.5)
    await lasting
    return said


async def trouble(where: config.Store, cause: Callable[[], Awaitable[None]], caplog: pytest.LogCaptureFixture,
                  tmp_path: Path) -> Crowd:
    """A crowd through a cause that nobody can be served in; what must hold of it afterwards."""
    async with world(where) as (lab, crowd):
        async with crowd.busy([[tag] for tag in NEW[:12]] + [[tag] for tag in OLD]):
            await crowd.served(set(NEW[:12]), 20)
        crowd.stopping, crowd.longest = False, 0.0
        lasting = asyncio.create_task(told_while(lab, cause()))
        await asyncio.sleep(0.5)
        async with crowd.busy([[tag] for tag in NEW[12:]] + [[tag] for tag in OLD]):
            said = await lasting
            again = await crowd.served(set(NEW), RECOVERY)
        await crowd.is_right_about(lab.store)
        assert crowd.longest < DEADLINE + SLACK
        assert crowd.at_once > crowd.later / 2, "most are told at once, and do not wait"
        assert set(said) == {"store"}
        words = [record.getMessage() for record in caplog.records if "is slow, devices are told" in record.getMessage()]
        assert 1 <= len(words) <= 4, "told in the log, and not for each device"
        assert "TimeoutError" not in caplog.text
        print(f"longest {crowd.longest:.1f} s, {crowd.at_once} of {crowd.later} told at once, back in {again:.1f} s")
        return crowd


@pytest.fixture
def url(postgres):
    with postgres.lent() as name:
        yield postgres.url(name)


@POSTGRES
async def test_TC19_a_lock_that_is_held_for_long_on_postgresql(url, tmp_path, caplog):
    async def lock() -> None:
        other = await connected(server_of(url, timeout=60))
        try:
            await other.execute("BEGIN; LOCK TABLE claims IN ACCESS EXCLUSIVE MODE; "
                                "SET idle_in_transaction_session_timeout = 0")
            await asyncio.sleep(LOCKED)
        finally:
            await other.close()
    await trouble(config.Store(url=url), lock, caplog, tmp_path)


HOLDER = """
import sqlite3, sys, time
other = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
other.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


async def test_TC19_another_process_that_holds_the_write_lock_for_long_on_sqlite(tmp_path, caplog):
    """Who only asks again is answered all the while."""
    path = tmp_path / "d.db"

    async def lock() -> None:
        holder = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLDER, str(path), str(LOCKED),
                                                      stdout=subprocess.PIPE)
        await holder.communicate()
    await trouble(config.Store(path=str(path)), lock, caplog, tmp_path)


async def test_TC19_a_disk_that_does_not_answer_on_sqlite(tmp_path, caplog, monkeypatch):
    """Commits hang, and are done all the same when it does."""
    free = asyncio.Event()
    free.set()

    async def hanging(self) -> None:
        await free.wait()
        await commit(self)
    import aiosqlite
    commit = aiosqlite.Connection.commit
    monkeypatch.setattr(aiosqlite.Connection, "commit", hanging)

    async def hang() -> None:
        free.clear()
        await asyncio.sleep(LOCKED)
        free.set()
    await trouble(config.Store(path=str(tmp_path / "d.db")), hang, caplog, tmp_path)


# --- a slow network -----------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def far_away(socket: str, seconds: list[float]) -> AsyncIterator[int]:
    """A port before the server's socket; what passes, either way, takes so many seconds longer."""
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, data = await line.get()
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    writer.close()
                    return
                writer.write(data)
        delivering = asyncio.create_task(deliver())
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                line.put_nowait((time.monotonic() + seconds[0], data))
        line.put_nowait((time.monotonic() + seconds[0], b""))
        await delivering

    async def connected_to(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(f"{socket}/.s.PGSQL.5432")
        writers.extend((writer, far_writer))
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(connected_to, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for one in writers:
            one.close()
        await asyncio.sleep(0.1)


@POSTGRES
async def test_TC19_a_network_that_takes_200_ms_each_way(url, postgres, tmp_path, caplog):
    """Slow is not away: a request takes nearly all of its time for round trips, so in a crowd most are told to try
    later, none waits for longer, and all are served within seconds of the end of it."""
    seconds = [0.0]
    async with far_away(postgres.socket, seconds) as port:
        where = config.Store(url=url.replace(f"host={postgres.socket}&port=5432", f"host=127.0.0.1&port={port}"))
        async with world(where) as (lab, crowd):
            seconds[0], crowd.pause = 0.2, 3.0
            async with crowd.busy([[tag] for tag in NEW[:12]] + [[tag] for tag in OLD[:4]]):
                await asyncio.sleep(LOCKED)
                served = len(crowd.told)
                seconds[0] = 0.0
                again = await crowd.served(set(NEW[:12]), crowd.pause + RECOVERY)
            await crowd.is_right_about(lab.store)
            assert crowd.longest < DEADLINE + SLACK
            assert "TimeoutError" not in caplog.text
            heard = [record for record in caplog.records if "does not tell of changes now" in record.getMessage()]
            assert len(heard) <= 3
            print(f"longest {crowd.longest:.1f} s, {served - len(OLD)} new ones served then, back in {again:.1f} s")
