"""How a process lives that listens: signals, reloads that are kept or refused, files that change, the end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from delegator.doors import listening
from delegator.doors.listening import Files, Life
from delegator.errors import DelegatorError, Kind
from delegator.net.systemd import Manager


class Told:
    """A service manager that notes what it is told."""

    def __init__(self, watchdog: float | None = None) -> None:
        self.words: list[str] = []
        self.watchdog = watchdog

    def ready(self, status: str) -> None:
        self.words.append("ready")

    def reloading(self) -> None:
        self.words.append("reloading")

    def stopping(self, status: str) -> None:
        self.words.append(f"stopping: {status}")

    def alive(self) -> None:
        self.words.append("alive")


@pytest.fixture
async def told() -> Told:
    return Told()


@pytest.fixture
async def life(told: Told) -> AsyncIterator[Life]:
    yield Life(cast(Manager, told), lambda: told.words.append("SIGHUP"))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().remove_signal_handler(number)


async def until(holds: object) -> None:
    async with asyncio.timeout(5):
        while not holds():  # type: ignore[operator]
            await asyncio.sleep(0.005)


async def well() -> None:
    pass


# --- signals ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_is_the_end_and_it_is_said_how_long_requests_have(
        life: Life, told: Told, number: signal.Signals, caplog: pytest.LogCaptureFixture) -> None:
    life.heed()
    with caplog.at_level(logging.INFO):
        ended = asyncio.ensure_future(life.ended(lambda: 30.0))
        os.kill(os.getpid(), number)
        await asyncio.wait_for(ended, 5)
    assert life.is_stopping
    assert told.words == ["stopping: requests under way have 30 s"]
    assert "stopping: requests under way have 30 s" in caplog.text


async def test_a_hangup_reloads_and_ends_nothing(life: Life, told: Told) -> None:
    life.heed()
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: told.words)
    assert (told.words, life.is_stopping) == (["SIGHUP"], False)


# --- reload or keep ---


async def test_a_reload_that_is_in_order_is_told_the_manager_and_nobody_is_refused(life: Life, told: Told) -> None:
    assert await life.exchanged(well, pytest.fail) == ""
    assert told.words == ["reloading", "ready"]


@pytest.mark.parametrize(("error", "why", "words"), [
    (DelegatorError(Kind.CONFIGURATION, "no key", hint="make one"), "no key", "no key; next: make one"),
    (DelegatorError(Kind.CONFIGURATION, "no key"), "no key", "no key; next: see: delegator config check"),
    (ZeroDivisionError("inside"), "a fault of ours, see the log", "ZeroDivisionError: inside")])
async def test_a_reload_that_is_not_is_kept_out_and_says_why(
        life: Life, told: Told, caplog: pytest.LogCaptureFixture, error: Exception, why: str, words: str) -> None:
    refused: list[bool] = []

    async def wrong() -> None:
        raise error

    async def hear() -> None:
        refused.append(life.exchanging.locked())
    assert await life.exchanged(wrong, hear) == why
    assert refused == [True], "what is salvaged meets no other reload"
    assert "reload refused, serving on with what was loaded" in caplog.text
    assert words in caplog.text
    assert told.words == ["reloading", "ready"]
    assert not life.exchanging.locked()


async def test_reloads_wait_for_each_other(life: Life) -> None:
    order: list[str] = []

    async def slow() -> None:
        order.append("first begins")
        await asyncio.sleep(0.01)
        order.append("first ends")

    async def next_one() -> None:
        order.append("second")
    await asyncio.gather(life.exchanged(slow, well), life.exchanged(next_one, well))
    assert order == ["first begins", "first ends", "second"]


async def test_who_is_ending_reloads_no_more_and_is_not_called_ready_again(life: Life, told: Told) -> None:
    async def ends() -> None:
        life.stop()
    await life.exchanged(ends, well)
    assert told.words == ["reloading"]
    life.begin(lambda: pytest.fail("begun"))
    await asyncio.sleep(0)
    assert not life._reloads


# --- upkeep and the end ---


async def test_at_the_end_neither_work_nor_a_reload_that_hangs_is_left(life: Life) -> None:
    before = asyncio.all_tasks()
    ends: list[str] = []

    async def hangs(what: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append(what)
    async with life.upkeep({"work": lambda: hangs("work")}):
        life.begin(lambda: hangs("reload"))
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) > len(before)
    assert sorted(ends) == ["reload", "work"]
    assert asyncio.all_tasks() == before


async def test_the_watchdog_hears_from_the_loop_three_times_as_often_as_it_wants(
        monkeypatch: pytest.MonkeyPatch) -> None:
    told, slept, sleep = Told(watchdog=60), [], asyncio.sleep

    async def noted(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)
    monkeypatch.setattr(asyncio, "sleep", noted)
    async with Life(cast(Manager, told), lambda: None).upkeep({}):
        while len(slept) < 3:
            await sleep(0)
    assert (told.words[:3], slept[:3]) == (["alive"] * 3, [20] * 3)


async def test_a_pause_ends_with_the_life(life: Life) -> None:
    assert not await life.pause(0.001)
    pause = asyncio.ensure_future(life.pause(60))
    await asyncio.sleep(0)
    life.stop()
    assert await asyncio.wait_for(pause, 5)


# --- files ---


class Reading:
    """Counts how often the files are read, and what that leads to."""

    def __init__(self) -> None:
        self.times = 0
        self.error: Exception | None = None

    async def __call__(self) -> None:
        self.times += 1
        if self.error is not None:
            raise self.error


async def test_a_file_that_changes_is_read_once_and_one_that_does_not_is_not(tmp_path: Path) -> None:
    path, reading = tmp_path / "list.pem", Reading()
    path.write_text("1")
    files = Files(lambda: (str(path),))
    files.stamp = await files.seen()
    await files.look(reading)
    assert reading.times == 0
    path.write_text("22")
    for _ in range(3):
        await files.look(reading)
    assert reading.times == 1


async def test_a_reading_that_breaks_off_is_begun_anew_and_so_is_one_that_somebody_asks_for(tmp_path: Path) -> None:
    path, reading = tmp_path / "list.pem", Reading()
    path.write_text("1")
    files = Files(lambda: (str(path),))
    reading.error = RuntimeError("a race")
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await files.look(reading)
    reading.error = None
    await files.look(reading)
    await files.look(reading)
    assert reading.times == 3
    files.anew()
    await files.look(reading)
    assert reading.times == 4


async def test_a_disk_that_answers_while_it_is_read_again_has_it_read_once_more(tmp_path: Path) -> None:
    files, times = Files(lambda: (str(tmp_path / "gone"),)), 0

    async def late() -> None:
        nonlocal times
        times += 1
        if times == 1:
            files.anew()
    for _ in range(3):
        await files.look(late)
    assert times == 2


def test_there_is_one_place_that_heeds_signals_of_servers_and_speaks_of_the_watchdog() -> None:
    """Three compositions had a copy each."""
    root = Path(listening.__file__).parents[1]
    found = {str(path.relative_to(root)) for path in root.rglob("*.py")
             if any(words in path.read_text(encoding="utf-8") for words in ("add_signal_handler", ".watchdog"))}
    assert found == {"doors/listening.py"}
