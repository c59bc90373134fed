"""What is done once for all processes, and by what it is driven: chores by the clock, telling by whoever wakes us.

Each chore is seen in metrics, by the name that the page for operators has.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from delegator.config import Settings
from delegator.errors import DelegatorError, Kind
from delegator.serving import app as module
from delegator.serving.app import App
from delegator.serving.duties import Duties

CHORES = ["lapsed claims", "offers", "imports", "audit"]


class Pretended:
    """A store and an auditor that note their chores, and workers that note their wakes."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.woken = 0
        self.ownership = self.fleet = self

    async def expire_lapsed(self, *_: object) -> None:
        self.done.append("lapsed claims")

    async def lapse(self, *_: object) -> None:
        self.done.append("offers")

    async def tidy(self, *_: object) -> bool:
        self.done.append("imports")
        return False

    async def upkeep(self) -> None:
        self.done.append("audit")

    async def run(self) -> None:
        """Telling: whoever wakes it."""

    def wake(self) -> None:
        self.woken += 1


def furnished(duties: Duties | None = None) -> tuple[Any, Pretended]:
    app: Any = App(Settings(), duties=duties)
    there = Pretended()
    app._store = app._auditor = app._teller = app._notifier = app.watching = there
    return app, there


@pytest.fixture
async def begun() -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks: list[asyncio.Task[None]] = []
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def some_turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_confirmations_drive_no_chores_however_many(begun: list[asyncio.Task[None]]) -> None:
    app, there = furnished()
    begun.append(asyncio.ensure_future(app._upkeep()["housekeeping"]()))
    await some_turns()
    first = [*there.done]
    assert first[0] == CHORES[0]
    for _ in range(50):
        app._to_tell()
        await some_turns()
    assert (there.done, there.woken) == (first, 100), "who tells delegates and who tells administrators"


async def test_the_clock_drives_every_chore(begun: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOUSEKEEPING", 0.01)
    app, there = furnished()
    begun.append(asyncio.ensure_future(app._upkeep()["housekeeping"]()))
    async with asyncio.timeout(5):
        while there.done.count("audit") < 3:
            await asyncio.sleep(0.01)
    assert set(there.done) <= set(CHORES)
    assert there.done.count("lapsed claims") >= 3


async def test_a_worker_that_is_appointed_begins_at_once(begun: list[asyncio.Task[None]]) -> None:
    app, there = furnished(Duties(2))
    begun.append(asyncio.ensure_future(app._upkeep()["housekeeping"]()))
    await some_turns()
    assert not there.done
    app.keep_house()
    await some_turns()
    assert there.done[:1] == ["lapsed claims"]


PAGE = Path(__file__).parents[2] / "docs" / "watching.md"


def shown(app: App) -> dict[str, float]:
    return {f"{sample.name}/{sample.labels['chore']}": sample.value for family in app.metrics.registry.collect()
            for sample in family.samples if "chore" in sample.labels and not sample.name.endswith("_created")}


async def test_every_chore_is_seen_when_it_was_done_how_long_it_took_and_how_often_it_failed(
        monkeypatch: pytest.MonkeyPatch) -> None:
    app, there = furnished()

    async def away(*_: object) -> None:
        raise DelegatorError(Kind.UNAVAILABLE, "the database is away")
    monkeypatch.setattr(there, "lapse", away)
    app._clock = type("Settled", (), {"settled": True, "since": staticmethod(lambda: 0)})()
    assert shown(app) == {}, "what was never done has no time at which it was"
    before = app._now().timestamp()
    await app.rotas()["housekeeping"].round()
    found = shown(app)
    assert {name: found[f"delegator_chore_failures_total/{name}"] for name in CHORES} == {
        "lapsed claims": 0, "offers": 1, "imports": 0, "audit": 0}
    for name in CHORES:
        assert before <= found[f"delegator_chore_last_run_timestamp_seconds/{name}"] <= app._now().timestamp()
        assert 0 <= found[f"delegator_chore_last_run_duration_seconds/{name}"] < 30


async def test_a_chore_that_hangs_the_first_time_is_missed_by_the_alert_where_it_is_to_be_done(
        begun: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only who keeps house shows its chores: another worker's would stand still for ever."""
    app, there = furnished(Duties(2))
    monkeypatch.setattr(there, "expire_lapsed", lambda *_: asyncio.Event().wait())
    before = app._now().timestamp()
    begun.append(asyncio.ensure_future(app._upkeep()["housekeeping"]()))
    await some_turns()
    assert shown(app) == {}
    app.keep_house()
    await some_turns()
    found = shown(app)
    assert set(found) == {f"delegator_chore_last_run_timestamp_seconds/{name}" for name in CHORES}
    assert min(found.values()) >= before


def test_the_page_for_operators_names_every_chore_and_its_interval() -> None:
    app, _ = furnished()
    chores = {chore.name: chore for rota in app.rotas().values() for chore in rota.chores}
    said = dict(re.findall(r"^\| `([a-z ]+)` \| (\d+) s \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert said == {name: f"{one.every:g}" for name, one in chores.items()}
    assert len(chores) == sum(len(rota.chores) for rota in app.rotas().values()), "a name is one chore's"
