"""An import beside a running delegator: killed wherever it hurts, and while devices are being served. A4, A9."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from delegator.model import Customer, Device
from delegator.store import Store
from delegator.store.importing import How, Importer
from delegator.store.spool import Spool
from delegator.store.transaction import Query

from ..clock import today
from .conftest import ROOT, World

ROWS = 1000
LARGE = 200_000


def shipment(path: Path, rows: int) -> Path:
    lines = (f"N{n:07},SN-{n * 7919 % 1000003},00:1A:{n >> 24 & 255:02X}:{n >> 16 & 255:02X}:{n >> 8 & 255:02X}:"
             f"{n & 255:02X},R750,{n // 500}\n" for n in range(rows))
    with path.open("w") as file:
        file.write("service_tag,serial_number,mac_addresses,model,order\n")
        file.writelines(lines)
    return path


def command(world: World, *words: object, script: tuple[str, ...] = ("-m", "delegator")) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *script, "--config", str(world.root / "delegator.toml"), *map(str, words)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


async def state(store: Store) -> tuple[int, bool, bool]:
    """How many devices are seen, and whether two of them are found by their keys."""
    first, last = Device("N0000000"), Device("ZZZ9999", None, ("00:1A:00:00:03:E7",))
    return (await store.fleet.view.count(), bool((await store.find(first)).registrations),
            bool((await store.find(last)).registrations))


async def cleared(store: Store) -> int:
    """What is left of an import whose process died, once somebody has cleared up after it."""
    while await store.fleet.tidy(datetime.now(UTC) + timedelta(minutes=1)):
        pass
    rows = await store._driver.read(Query("SELECT (SELECT count(*) FROM imports) + (SELECT count(*) FROM device_names)"
                                          " + (SELECT count(*) FROM devices)"))
    return int(str(rows[0][0]))


def killed(world: World, moment: str, number: int, file: Path) -> int:
    script = (str(Path(__file__).with_name("dying_import.py")), moment, str(number))
    return ended(command(world, "devices", "import", file, "--customer", "acme", script=script))[0]


def test_a4_killed_at_any_commit_it_leaves_nothing_or_all(world: World) -> None:
    """SIGKILL before and after commits all the way: the database opens, shows none or all, and is cleared up."""
    file, seen, number = shipment(world.root / "shipment.csv", ROWS), set(), 0
    while True:
        number += 1
        moment = ("before", "after")[number % 2]
        code = killed(world, moment, number, file)
        now = world.store(state)
        assert now in ((0, False, False), (ROWS, True, True)), (moment, number)
        seen.add(now)
        if code != -9:
            break
        left = world.store(cleared)
        if now[0]:
            assert left == ROWS * 4
            break
        assert left == 0, (moment, number)
    assert number > 8
    assert (ROWS, True, True) in seen


@pytest.mark.beside
def test_a4_after_a_kill_the_same_command_just_works(world: World) -> None:
    """It waits until the dead import counts as dead, takes it back, and goes on."""
    file = shipment(world.root / "shipment.csv", ROWS)
    assert killed(world, "after", 6, file) == -9
    code, out, err = ended(command(world, "devices", "import", file, "--customer", "acme", "--json"))
    assert code == 0, err
    assert json.loads(out)["new"] == ROWS
    assert world.store(state) == (ROWS, True, True)


@pytest.mark.beside
def test_a4_a_running_delegator_takes_a_dead_import_back(world: World) -> None:
    file = shipment(world.root / "shipment.csv", ROWS)
    assert killed(world, "after", 7, file) == -9
    world.start()

    async def under_way(store: Store) -> int:
        return int(str((await store._driver.read(Query("SELECT count(*) FROM imports")))[0][0]))
    until = time.monotonic() + 60
    while world.store(under_way):
        assert time.monotonic() < until, world.log
        time.sleep(0.5)
    assert world.store(cleared) == 0


@pytest.fixture
def tags(world: World) -> list[str]:
    known = [f"DEV{n:04}" for n in range(40)]
    world.host(*known)
    for tag in known:
        world.paths(tag)
    return known


class Timed:
    """A driver that notes how long each commit kept this thread busy."""

    def __init__(self, driver: Any) -> None:
        self._driver, self.read, self.shared, self.busy = driver, driver.read, driver.shared, list[float]()

    async def run(self, work: Any, scope: Any = None, *, repeatable: bool = False) -> Any:
        began = time.thread_time()
        outcome = await self._driver.run(work, scope, repeatable=repeatable)
        self.busy.append(time.thread_time() - began)
        return outcome


async def imported(store: Store, rows: int) -> tuple[int, list[float]]:
    """An import as the command does it, with its commits timed by their own CPU."""
    from delegator.desk.records import Table
    from delegator.desk.rows import COLUMNS, IDENTIFIERS, Rows

    driver = Timed(store._driver)
    await store.add_customer(Customer("initech", "Initech"), today())
    with Spool() as spool, shipment(Path(store_path(store)), rows).open("rb") as file:
        spool.fill(Rows("initech").read(Table(file, COLUMNS, IDENTIFIERS)))
        done = await Importer(driver, store.by, lambda: datetime.now(UTC), lambda *_: lambda _: None).run(spool, How())
    return done.counts.new, driver.busy


def store_path(store: Store) -> Path:
    return Path(store._driver.driver.path).with_name("large.csv")  # type: ignore[attr-defined]


def test_a4_devices_are_served_while_200_000_are_imported(world: World, tags: list[str]) -> None:
    """One after the other, each from its connection to its credential: all are answered, none is turned away, while
    another process writes. And no commit of the import is long: that is what they wait for."""
    world.start()
    outcome: list[tuple[int, list[float]]] = []
    importing = threading.Thread(target=lambda: outcome.append(world.store(lambda store: imported(store, LARGE))))
    importing.start()
    served = list(_served(world, tags, importing))
    importing.join()
    new, busy = outcome[0]
    assert new == LARGE
    assert len(served) >= 3
    assert [reply for reply in served if reply.status != 200] == [], world.log
    assert sorted(busy)[len(busy) // 2] < 0.05, "the usual commit"
    assert max(busy) < 0.25, "the longest; its first one may be too large for a slow machine"
    assert world.ask(tags[-1]).status == 200
    assert world.store(lambda store: store.fleet.view.count("initech")) == LARGE


def _served(world: World, tags: list[str], importing: threading.Thread) -> Iterator[Any]:
    """Answers that came while the import was writing: new devices, then each again."""
    number = 0
    while importing.is_alive():
        yield world.ask(tags[number % (len(tags) - 1)])
        number += 1
        time.sleep(0.1)
