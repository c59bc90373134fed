"""Work that goes on for as long as the program does never ends without anybody knowing. B.

The law is looked up in the code: whoever begins a task somewhere new is caught.
"""

from __future__ import annotations

import ast
import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from delegator.clockwork import rounds
from delegator.delegate import app as delegate
from delegator.errors import DelegatorError, Kind
from delegator.net import stamps
from delegator.net.systemd import Manager

ROOT = Path(__file__).parents[2]
BEGIN = {"create_task", "ensure_future"}
KEEP = {"kept", "guarded"}
AWAITED = {
    "delegator/net/client.py": "each call that waits for the look-up gets its outcome",
    "delegator/net/reverse.py": "each request that waits for the look-up gets its outcome",
    "delegator/net/walk.py": "the group waits for all, and the walk for the group",
    "delegator/net/connection.py": "the listener answers for what is raised, and an overdue connection is swept",
    "delegator/net/valve.py": "its end is the end of the library's connection, and whoever leaves it tells of a fault",
    "delegator/net/channel.py": "a call gets its outcome, also a fault of ours",
    "delegator/serving/worker.py": "its end is the end of the process, which the parent sees",
    "delegator/serving/crew.py": "its end is an end of all answers, so the worker is found to hang",
    "delegator/serving/workers.py": "group: a worker that cannot be started fails the start",
    "delegator/store/engines/sqlite/driver.py": "each transaction waits for its outcome",
    "delegator/store/engines/postgres/grouping.py": "each member waits for its outcome, and is told to go alone where "
                                                    "there is none",
    "delegator/store/engines/sqlite/keeping.py": "waited for to its end, by whoever is cancelled too",
    "delegator/store/engines/postgres/connecting.py": "all are waited for on the spot"}
"""Tasks that somebody waits for, or whose end somebody notices: why nobody has to keep them."""


def name_of(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def begun(tree: ast.AST) -> Iterator[tuple[int, bool]]:
    """Lines at which a task is begun, and whether it is kept or guarded."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name_of(node.func) in BEGIN:
            work = node.args[0]
            yield node.lineno, isinstance(work, ast.Call) and name_of(work.func) in KEEP


def alone() -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for path in sorted((ROOT / "delegator").rglob("*.py")):
        lines = [line for line, is_kept in begun(ast.parse(path.read_text(encoding="utf-8"))) if not is_kept]
        if lines:
            found[str(path.relative_to(ROOT))] = lines
    return found


def test_every_task_is_kept_or_somebody_waits_for_it() -> None:
    assert set(alone()) == set(AWAITED)


def test_the_law_sees_what_it_forbids() -> None:
    code = "loop.create_task(self.run())\nloop.create_task(kept(self.run, 'x'))\nasyncio.ensure_future(work)"
    assert list(begun(ast.parse(code))) == [(1, False), (2, True), (3, False)]


@pytest.mark.parametrize(("error", "words"), [
    (DelegatorError(Kind.UNAVAILABLE, "no disk"), "looking: no disk"), (PermissionError(13, "denied"), "denied"),
    (RuntimeError("a race"), "a race")])
async def test_work_that_breaks_off_is_told_of_and_begun_anew(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, words: str) -> None:
    monkeypatch.setattr(rounds, "AGAIN", 0)
    tries: list[int] = []

    async def work() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise error
    with caplog.at_level(logging.ERROR):
        await rounds.kept(work, "looking")
    assert len(tries) == 3
    assert caplog.text.count(words) >= 2


async def test_an_end_that_was_asked_for_is_one() -> None:
    task = asyncio.ensure_future(rounds.kept(asyncio.Event().wait, "waiting"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# --- the reference delegate's files ---


@pytest.fixture
async def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> delegate.Keeper:
    monkeypatch.setattr(delegate, "HOUSEKEEPING", 0.02)
    for name in "ckal":
        (tmp_path / name).write_text("1")
    files: Any = SimpleNamespace(certificate=f"{tmp_path}/c", key=f"{tmp_path}/k", ca=f"{tmp_path}/a",
                                 crl=f"{tmp_path}/l")
    listener: Any = SimpleNamespace(context=None)
    loaded: Any = SimpleNamespace(context="before")
    return delegate.Keeper(listener, files, loaded, await stamps.stamp_of(delegate._watched(files)), Manager())


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("where", ["looking", "reading"])
async def test_a_delegate_reads_again_after_whatever_error(keeper: delegate.Keeper, tmp_path: Path, where: str,
                                                           monkeypatch: pytest.MonkeyPatch,
                                                           caplog: pytest.LogCaptureFixture) -> None:
    wrong = [PermissionError(13, "denied"), RuntimeError("a race")]
    look, read = Path.stat, 0

    def stat(path: Path, **how: bool) -> Any:
        if where == "looking" and path.name == "l" and wrong:
            raise wrong.pop()
        return look(path, **how)

    async def reloaded(*_: object) -> Any:
        nonlocal read
        if where == "reading" and wrong:
            raise wrong.pop()
        read += 1
        return SimpleNamespace(context="after"), ()
    monkeypatch.setattr(delegate, "_reloaded", reloaded)
    life = asyncio.ensure_future(rounds.kept(keeper.rota.run, "reload"))
    if where == "reading":
        await until(lambda: keeper.files.stamp)
        monkeypatch.setattr(Path, "stat", stat)
        (tmp_path / "l").write_text("another")
    else:
        monkeypatch.setattr(Path, "stat", stat)
    await until(lambda: not wrong)
    (tmp_path / "l").write_text("the newest")
    await until(lambda: read > 0 and keeper._listener.context == "after")
    assert not life.done()
    life.cancel()
    assert where == "looking" or "with what was loaded: a fault of ours" in caplog.text


async def test_a_delegate_sees_a_new_list_while_another_file_hangs(keeper: delegate.Keeper, tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "BRIEFLY", 0.1)
    look, read, hangs, free = Path.stat, 0, False, asyncio.Event()

    def stat(path: Path, **how: bool) -> Any:
        import time
        while hangs and path.name == "k" and not free.is_set():
            time.sleep(0.01)
        return look(path, **how)

    async def reloaded(*_: object) -> Any:
        nonlocal read
        read += 1
        return SimpleNamespace(context="after"), ()
    monkeypatch.setattr(delegate, "_reloaded", reloaded)
    monkeypatch.setattr(Path, "stat", stat)
    life = asyncio.ensure_future(keeper.rota.run())
    await until(lambda: keeper.files.stamp)
    hangs = True
    await until(lambda: stamps.HANGS in (keeper.files.stamp or {}).values())
    before = read
    (tmp_path / "l").write_text("another")
    await until(lambda: read > before)
    life.cancel()
    free.set()


async def test_one_trouble_of_several_works_is_told_once_until_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    why = {"first": "the database is away", "second": "the database is away", "third": ""}
    done: list[str] = []

    def work(name: str) -> Callable[[], Awaitable[None]]:
        async def one() -> None:
            done.append(name)
            if why[name]:
                raise DelegatorError(Kind.UNAVAILABLE, why[name])
        return one
    house = rounds.Rota(rounds.Chore(name, 0, work(name)) for name in why)
    for now, told in (("the database is away", 1), ("the database is away", 0), ("the disk is full", 1), ("", 0),
                      ("the disk is full", 1)):
        why["first"] = why["second"] = now
        caplog.clear()
        await house.round()
        assert [record.getMessage() for record in caplog.records] == [f"first: {now}"] * told
    assert done == ["first", "second", "third"] * 5


async def test_two_troubles_are_two_and_a_fault_of_ours_is_told_each_time(caplog: pytest.LogCaptureFixture) -> None:
    async def away() -> None:
        raise DelegatorError(Kind.UNAVAILABLE, "the database is away")

    async def full() -> None:
        raise DelegatorError(Kind.UNAVAILABLE, "the disk is full")

    async def wrong() -> None:
        raise RuntimeError("a bug")
    house = rounds.Rota(rounds.Chore(str(number), 0, work) for number, work in enumerate((away, full, wrong, away)))
    for told in (3, 1):
        caplog.clear()
        await house.round()
        assert len(caplog.records) == told
    assert "a fault of ours" in caplog.text


# --- chores ---


def chore(name: str, every: float, done: list[str]) -> rounds.Chore:
    async def work() -> None:
        done.append(name)
    return rounds.Chore(name, every, work)


async def test_each_chore_of_a_rota_has_an_interval_of_its_own() -> None:
    done: list[str] = []
    life = asyncio.ensure_future(rounds.Rota((chore("often", 0.01, done), chore("seldom", 60, done))).run())
    await until(lambda: done.count("often") > 3)
    life.cancel()
    assert done[:2] == ["often", "seldom"], "each of them is done at the start, in the order of the list"
    assert done.count("seldom") == 1


async def test_an_interval_begins_when_all_that_was_due_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chores with one interval stay together: a database that is gone is told of once and not by each in its turn."""
    clock, done = [100.0], [""]
    monkeypatch.setattr(rounds, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    async def slow() -> None:
        clock[0] += 4
        done.append("slow")
    rota = rounds.Rota((rounds.Chore("slow", 5, slow), chore("quick", 5, done)))
    for moment, more in ((100, ["slow", "quick"]), (108.9, []), (109, ["slow", "quick"])):
        clock[0], before = moment, len(done)
        await rota.round()
        assert done[before:] == more


async def test_whoever_wakes_a_rota_has_all_of_it_done_at_once() -> None:
    done: list[str] = []
    woken = asyncio.Event()
    life = asyncio.ensure_future(rounds.Rota((chore("one", 60, done), chore("other", 90, done)), woken=woken).run())
    await until(lambda: len(done) == 2)
    woken.set()
    await until(lambda: len(done) == 4)
    life.cancel()
    assert (done, woken.is_set()) == (["one", "other"] * 2, False)


async def test_of_each_time_it_is_noted_how_long_it_took_and_whether_it_went_well() -> None:
    noted: list[tuple[str, float, bool]] = []

    async def slow() -> None:
        await asyncio.sleep(0.02)

    async def away() -> None:
        raise DelegatorError(Kind.UNAVAILABLE, "the database is away")

    async def wrong() -> None:
        raise RuntimeError("a bug")

    chores = [rounds.Chore(work.__name__, 0, work) for work in (slow, away, wrong)]
    await rounds.Rota(chores, lambda *said: noted.append(said)).round()
    assert [(name, well) for name, _, well in noted] == [("slow", True), ("away", False), ("wrong", False)]
    assert noted[0][1] >= 0.02
    assert noted[0][1] != noted[1][1]
    ended = asyncio.ensure_future(
        rounds.Rota([rounds.Chore("ended", 0, asyncio.Event().wait)], lambda *said: noted.append(said)).round())
    await asyncio.sleep(0)
    ended.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ended
    assert len(noted) == 3, "who ends a chore on purpose has not made it fail"


async def cancelled() -> None:
    """Awaits what somebody else cancelled, which nobody asked of us."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def test_a_cancellation_that_leaks_out_of_a_chore_is_told_and_the_rota_goes_on(
        caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []
    noted: list[tuple[str, bool]] = []
    rota = rounds.Rota((rounds.Chore("leaking", 0.01, cancelled), chore("next", 0.01, done)),
                       lambda name, _, well: noted.append((name, well)))
    life = asyncio.ensure_future(rota.run())
    await until(lambda: life.done() or len(done) > 1)
    assert not life.done()
    life.cancel()
    with pytest.raises(asyncio.CancelledError):
        await life
    assert noted[:2] == [("leaking", False), ("next", True)]
    assert caplog.text.count("leaking: a fault of ours") >= 2


async def test_a_cancellation_that_leaks_does_not_end_what_is_kept(monkeypatch: pytest.MonkeyPatch,
                                                                   caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(rounds, "AGAIN", 0)
    life = asyncio.ensure_future(rounds.kept(cancelled, "leaking"))
    await until(lambda: life.done() or caplog.text.count("leaking: a fault of ours") > 1)
    assert not life.done()
    life.cancel()
    with pytest.raises(asyncio.CancelledError):
        await life


async def test_a_chore_that_does_not_end_is_named_once_and_one_that_does_is_not(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(rounds, "LONG", 0.01)
    begun: list[str] = []
    done: list[str] = []
    rota = rounds.Rota((chore("quick", 0, done), rounds.Chore("stuck", 0, asyncio.Event().wait),
                        chore("behind", 0, done)), begun=begun.append)
    life = asyncio.ensure_future(rota.run())
    await until(lambda: caplog.messages)
    await asyncio.sleep(0.03)
    life.cancel()
    assert caplog.messages == ["chore stuck has not ended for 0.01 s"]
    assert (begun, done) == (["quick", "stuck", "behind"], ["quick"]), "all are missed that hang the first time"
