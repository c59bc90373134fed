"""The files of an embedded database taken away, replaced, cut or written over while it is served: no credential is
given from then on, it is told why and what to do, and nothing that was promised is promised again (R-lasting, R-later).
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.store import Outcome, open_store
from delegator.store.audit.chain import Head
from delegator.store.engines.sqlite import backup
from delegator.store.engines.sqlite import keeping as keeping_room
from delegator.store.engines.sqlite.whereabouts import NOTHING, End, File, Files, elsewhere, meddled, receded, torn

LOG, INDEX = "-wal", "-shm"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "var"


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "delegator.db"


@pytest.fixture
async def store(path, key, ask):
    """One that serves, with three claims, the first of which is in the main file and in the old copies beside it."""
    store = await open_store(path, key)
    store.listen(lambda: None)
    keeping(store)._task.cancel()  # these tests say when it looks
    await opened(store, ask("FIRST01"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    for ending in ("", LOG, INDEX):
        shutil.copyfile(beside(path, ending), old(path, ending))
    await asyncio.to_thread(backup.make, path, old(path, ".made"), lambda done, pages: None)
    await opened(store, ask("SECOND1"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    await opened(store, ask("SECOND2"))
    yield store
    await store.close()


def beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def old(path: Path, ending: str) -> Path:
    return path.parent.with_name(f"old{ending}")


async def opened(store, ask):
    return await store.open_and_issue(ask, lambda claim_id: f"secret of {claim_id}")


def keeping(store):
    return store._driver.driver._keeping


def over(source: Path, target: Path) -> None:
    """`cp` onto a file that is there, as is: the same inode with other contents; an index is not cut, which ends
    whoever has it open (SIGBUS)."""
    with source.open("rb") as read, target.open("r+b") as write:
        if not target.name.endswith(INDEX):
            write.truncate(0)
        shutil.copyfileobj(read, write)
        write.flush()
        os.utime(target)


def replaced(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copyfile(path, copy)
    copy.replace(path)


def linked(path: Path) -> None:
    """As a tool does that writes a new file and gives it the old one's name."""
    os.link(path, path.with_name("other-name"))
    replaced(path)


FAULTS: dict[str, Callable[[Path], object]] = {
    "the database deleted": lambda path: path.unlink(),
    "the database moved": lambda path: path.rename(path.with_name("elsewhere")),
    "another file in its place": replaced,
    "another hard link in its place": linked,
    "an older copy moved over it": lambda path: old(path, "").replace(path),
    "an older file copied over it": lambda path: over(old(path, ""), path),
    "a backup copied over it": lambda path: over(old(path, ".made"), path),
    "another database copied over it": lambda path: over(stranger(path), path),
    "the database emptied": lambda path: os.truncate(path, 0),
    "the database cut": lambda path: os.truncate(path, path.stat().st_size - 4096),
    "the database zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "its log deleted": lambda path: beside(path, LOG).unlink(),
    "its log replaced": lambda path: replaced(beside(path, LOG)),
    "its log emptied": lambda path: os.truncate(beside(path, LOG), 0),
    "its log cut": lambda path: os.truncate(beside(path, LOG), 5000),
    "an older log copied over it": lambda path: over(old(path, LOG), beside(path, LOG)),
    "its index deleted": lambda path: beside(path, INDEX).unlink(),
    "its index replaced": lambda path: replaced(beside(path, INDEX)),
    "an older index copied over it": lambda path: over(old(path, INDEX), beside(path, INDEX)),
    "its folder moved": lambda path: path.parent.rename(path.parent.with_name("moved")),
    "another folder in its place": lambda path: moved_folder(path),
}


def stranger(path: Path) -> Path:
    """A database of the same shape and as long an audit, but not ours."""
    made = path.parent.with_name("stranger")
    shutil.copyfile(path, made)
    with closing(sqlite3.connect(made)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("UPDATE audit SET hash = zeroblob(32)")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return made


def moved_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))
    shutil.copytree(path.parent.with_name("moved"), path.parent)


@pytest.mark.parametrize("fault", FAULTS)
async def test_R_lasting_from_then_on_no_credential_is_given_not_even_by_the_next_commit(
        store, ask, path, fault, caplog):
    FAULTS[fault](path)
    for tag in ("THIRD01", "FIRST01", "THIRD01"):
        with pytest.raises(DelegatorError) as told:
            await opened(store, ask(tag))
        assert told.value.kind is Kind.TRY_LATER, "a device asks again"
        assert str(path) in told.value.detail
        assert told.value.hint
    with pytest.raises(DelegatorError) as readiness:
        await store.check()
    assert readiness.value.hint, "the way back"
    assert [one.levelno for one in caplog.records
            if one.name == "delegator.store.engines.sqlite.keeping"][:1] == [logging.ERROR]


@pytest.mark.parametrize("fault", FAULTS)
async def test_R_lasting_it_is_noticed_while_nobody_asks(store, path, fault, caplog):
    FAULTS[fault](path)
    await keeping(store)._round()
    with pytest.raises(DelegatorError) as told:
        store._driver.driver._keeping.require()
    assert told.value.hint
    assert any(str(path) in one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR)


BACK: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "the database": (FAULTS["the database moved"], lambda path: path.with_name("elsewhere").rename(path)),
    "all three": (lambda path: [beside(path, one).rename(beside(path, one + ".away")) for one in ("", LOG, INDEX)],
                  lambda path: [beside(path, one + ".away").rename(beside(path, one)) for one in ("", LOG, INDEX)]),
    "its log": (lambda path: beside(path, LOG).rename(path.with_name("away")),
                lambda path: path.with_name("away").rename(beside(path, LOG))),
    "its folder": (FAULTS["its folder moved"], lambda path: path.parent.with_name("moved").rename(path.parent)),
    "over another one": (lambda path: (path.rename(path.with_name("elsewhere")), path.write_bytes(b"")),
                         lambda path: path.with_name("elsewhere").replace(path)),
}


@pytest.mark.parametrize("what", BACK)
async def test_R_lasting_put_back_as_it_was_it_is_served_again_without_a_start(store, ask, path, what):
    away, back = BACK[what]
    first = await opened(store, ask("FIRST01"))
    away(path)
    await keeping(store)._round()
    with pytest.raises(DelegatorError):
        await opened(store, ask("THIRD01"))
    back(path)
    await keeping(store)._round()
    again = await opened(store, ask("FIRST01"))
    assert (again.outcome, again.claim) == (Outcome.SAME_AGAIN, first.claim)
    assert (await opened(store, ask("THIRD01"))).outcome is Outcome.ISSUED


async def test_R_lasting_a_worker_that_went_on_first_and_is_within_a_commit_is_no_stranger(store, ask, path):
    """Its frames are in the log before the index tells of them: with two workers one in five returns was told final."""
    away, back = BACK["the database"]
    away(path)
    await keeping(store)._round()
    back(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA cache_size = 1")
        before = beside(path, LOG).stat()
        other.execute("BEGIN IMMEDIATE")
        other.execute("CREATE TABLE wide (text TEXT)")
        for _ in range(20):
            other.execute("INSERT INTO wide VALUES (hex(zeroblob(9000)))")
        assert beside(path, LOG).stat().st_size > before.st_size
        await keeping(store)._round()
        lost = keeping(store)._where.lost
        assert lost is not None
        assert not lost.final
        other.execute("COMMIT")
        await keeping(store)._round()
    assert (await opened(store, ask("THIRD01"))).outcome is Outcome.ISSUED


async def test_R_lasting_what_somebody_wrote_to_meanwhile_is_not_served_without_a_start(store, ask, path):
    away, back = BACK["the database"]
    away(path)
    await keeping(store)._round()
    with closing(sqlite3.connect(path.with_name("elsewhere"))) as other:
        other.execute("UPDATE pulse SET beat = 7")
        other.commit()
    back(path)
    await keeping(store)._round()
    with pytest.raises(DelegatorError) as told:
        await opened(store, ask("FIRST01"))
    assert "start the delegator again" in told.value.hint


@pytest.mark.parametrize("fault", ["the database deleted", "an older copy moved over it"])
async def test_R_lasting_a_database_that_was_deleted_is_saved_whole_and_can_be_restored(
        path, key, ask, store, fault, caplog):
    promised = [(await opened(store, ask(f"MORE{number:03}"))).claim for number in range(20)]
    FAULTS[fault](path)
    await keeping(store)._round()
    with pytest.raises(DelegatorError) as told:
        await store.check()
    saved, = path.parent.glob("delegator.db.saved-*")
    assert f"delegator restore {saved} --replace" in told.value.hint
    assert saved.stat().st_mode & 0o777 == 0o600
    await store.close()
    await asyncio.to_thread(backup.restore, saved, path, datetime.now(UTC), replace=True,
                            progress=lambda done, pages: None)
    store = await open_store(path, key)
    assert [await store.claim(one.claim_id) for one in promised] == promised
    await store.close()


async def test_R_lasting_of_a_log_that_was_deleted_nothing_is_lost(store, path, key, ask):
    """It goes into the main file while we still have it."""
    promised = (await opened(store, ask("FIRST01"))).claim
    beside(path, LOG).unlink()
    await keeping(store)._round()
    taken = path.with_name("taken")
    shutil.copyfile(path, taken)
    await store.close()
    for one in (taken, path):
        store = await open_store(one, key)
        assert await store.claim(promised.claim_id) == promised
        await store.close()


async def test_R_lasting_a_copy_put_back_by_the_databases_own_means_tells_nobody_what_it_has(store, ask, path):
    """`.restore` of the shell: no file changes its place, only the audit ends sooner. It is not read from either, where
    the claim of a tag may be one that was ended since."""
    await store.ownership.release("FIRST01", datetime(2026, 1, 2, tzinfo=UTC))
    await store.open_and_issue(ask("FIRST01", minute=2), lambda claim: "newer")
    with closing(sqlite3.connect(old(path, ".made"))) as copy, closing(sqlite3.connect(path)) as there:
        copy.backup(there)
    await store._driver.witness.look()
    for verb in (lambda: opened(store, ask("FIRST01", minute=3)), store.tables, lambda: store.standing("FIRST01")):
        with pytest.raises(DelegatorError, match="not the one it was") as told:
            await verb()
        assert told.value.kind is Kind.TRY_LATER


async def test_R_lasting_what_no_look_found_in_order_is_not_told_by_reading_either(store, ask, path, monkeypatch):
    """Somebody goes on writing to the main file: a commit is on the disk, and whether it lasts nobody knows yet."""
    where, touched = keeping(store)._where, type(keeping(store)._where).touched
    monkeypatch.setattr(keeping_room, "PAUSE", 0.0)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(type(where), "touched", lambda _: True)
        meanwhile.setattr(type(where), "weigh", lambda *_: False)
        for _ in range(2):
            with pytest.raises(DelegatorError, match="goes on writing") as told:
                await opened(store, ask("NEW0001"))
            assert told.value.kind is Kind.TRY_LATER
    assert type(where).touched is touched
    await keeping(store)._round()
    again = await store.open_and_issue(ask("NEW0001", minute=1), lambda claim: "another")
    assert again.outcome is Outcome.SAME_AGAIN
    assert len(await store.claims(service_tag="NEW0001")) == 1


async def test_R_lasting_what_others_do_to_the_database_by_its_means_is_no_fault(store, ask, path, caplog):
    """A command, a copy, a shell that brings in the log, cuts it, or makes the file smaller."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        for number, act in enumerate(("UPDATE pulse SET beat = 5", "PRAGMA wal_checkpoint(PASSIVE)",
                                      "PRAGMA wal_checkpoint(TRUNCATE)", "UPDATE pulse SET beat = 6", "VACUUM",
                                      "PRAGMA wal_checkpoint(RESTART)", "PRAGMA wal_checkpoint(TRUNCATE)")):
            other.execute(act).fetchall()
            await keeping(store)._round()
            assert (await opened(store, ask(f"MORE{number:03}"))).outcome is Outcome.ISSUED, act
    await asyncio.to_thread(backup.make, path, path.with_name("copy"), lambda done, pages: None)
    await keeping(store)._round()
    assert (await opened(store, ask("FIRST01"))).outcome is Outcome.SAME_AGAIN
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


# --- what is decided ----------------------------------------------------------------------------------------------

ONE, OTHER = File(1, 10, 4096, 5), File(1, 11, 4096, 5)


@pytest.mark.parametrize(("found", "words"), [
    (Files(ONE, ONE, ONE), ""), (Files(ONE._replace(size=1, changed=9), ONE, ONE), ""),
    (Files(None, ONE, ONE), "not at its path"), (Files(OTHER, None, None), "another file"),
    (Files(ONE._replace(device=2), ONE, ONE), "another file"), (Files(ONE, None, ONE), "(-wal) was removed"),
    (Files(ONE, OTHER, ONE), "(-wal) was replaced"), (Files(ONE, ONE, OTHER), "(-shm) was replaced")],
    ids=["all ours", "written to", "gone", "all gone", "mounted over", "log gone", "log another", "index another"])
def test_R_lasting_which_file_is_another_one(found, words):
    lost = elsewhere(Files(ONE, ONE, ONE), found)
    assert words in ("" if lost is None else lost.why)
    assert (lost is None) is (not words)


def end(frames: int, generation: int = 7) -> End:
    return End(frames, generation.to_bytes(4) + b"rand", (1, 2), 0, 4096)


@pytest.mark.parametrize(("before", "now", "sound"), [
    (None, end(3), True), (end(3), end(3), True), (end(3), end(4), True), (end(3), end(2), False),
    (end(3), end(0, 8), True), (end(3), end(1, 9), True), (end(3), end(9, 6), False),
    (end(3, 0xFFFFFFFF), end(1, 0), True), (end(0, 0), end(1, 0x9ABCDEF0), True)],
    ids=["first", "same", "more", "fewer", "cut", "anew", "earlier", "counts round", "begun"])
def test_R_lasting_a_log_grows_or_begins_anew(before, now, sound):
    assert (torn(before, now) == "") is sound


LEFT = Files(ONE, ONE, None)
WRITTEN = Files(ONE._replace(changed=9), ONE, None)
LONGER = Files(ONE, ONE._replace(changed=9), None)


@pytest.mark.parametrize(("found", "now", "another", "wrong"), [
    (LEFT, end(3), False, False), (LEFT, end(3), True, False), (LONGER, end(5), False, False),
    (LONGER, end(5), True, True), (WRITTEN, end(3), False, True), (LONGER, end(3), False, True),
    (WRITTEN, end(5), False, True), (WRITTEN, end(5)._replace(done=5), False, False),
    (WRITTEN, end(1, 8), False, False)],
    ids=["untouched", "untouched beside another", "another worker wrote", "who opened another wrote",
         "the database alone", "the log alone", "both, nothing brought in", "another worker brought in", "begun anew"])
def test_R_lasting_who_wrote_to_files_that_were_away(found, now, another, wrong):
    assert meddled(LEFT, end(3), found, now, another=another) is wrong


A, B, C = Head(4, b"a"), Head(9, b"b"), Head(12, b"c")


@pytest.mark.parametrize(("before", "found", "newest", "there", "sound"), [
    (A, A, C, b"a", True), (A, B, C, b"b", True), (A, C, C, b"c", True), (B, A, C, b"a", False),
    (A, B, C, b"x", False), (A, Head(4, b"x"), C, b"a", False), (A, B, C, None, True), (A, C, B, None, False),
    (NOTHING, NOTHING, C, None, True), (NOTHING, B, C, b"b", True), (A, NOTHING, C, None, False)],
    ids=["untouched", "brought in", "to the end", "older", "another", "another end", "pruned", "later than ours", "new",
         "first", "emptied"])
def test_R_lasting_a_main_file_that_is_ours_ends_later_and_with_a_row_of_ours(before, found, newest, there, sound):
    assert (receded(before, found, newest, there) == "") is sound


async def test_R_lasting_another_processs_checkpoint_that_is_under_way_is_no_damage(store, path, ask):
    """An import brings the log in while devices are served; meanwhile, and for as long as one stays halfway that was
    killed, the main file alone is in no order, and nobody who asks is to feel it."""
    where = keeping(store)._where
    whole = path.read_bytes()
    page = whole[100:4096]
    with path.open("r+b") as main, beside(path, INDEX).open("r+b") as index:
        os.pwrite(index.fileno(), (where.brought()[0] + 1).to_bytes(4, sys.byteorder), 128)
        assert where.halfway
        os.pwrite(main.fileno(), b"\xff" * 3996, 100)
        os.utime(path, ns=(1, 1))
        where.found()
        assert where.weigh(keeping(store)._reader) is False
        assert await keeping(store)._touched() is None
        os.pwrite(main.fileno(), page, 100)
        assert (await opened(store, ask("HALFWAY"))).outcome is Outcome.ISSUED
        os.pwrite(index.fileno(), where.brought()[0].to_bytes(4, sys.byteorder), 128)
        assert not where.halfway
        os.pwrite(main.fileno(), b"\xff" * 3996, 100)
        os.utime(path, ns=(2, 2))
        where.found()
        assert await keeping(store)._touched() is not None, "damage that no checkpoint explains is found as before"
        os.pwrite(main.fileno(), page, 100)
