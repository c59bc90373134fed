"""Which of several servers is written to, and that what was promised is looked for: the decisions, without a database
(R-lasting)."""

from __future__ import annotations

import asyncio
import json

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.store.audit.chain import Head
from delegator.store.audit.witness import Receded, require_onward
from delegator.store.engines.postgres.fencing import Fence, Seen, Stale, Writer, chosen, refused
from delegator.store.engines.postgres.scouting import Scout, verdict

OLD, NEW = Writer("c", 1, 5, 100), Writer("c", 2, 5, 200)
TWIN, OTHER, MADE_ANEW = NEW._replace(began=300), Writer("d", 9, 5, 400), NEW._replace(database=6)


@pytest.mark.parametrize(("writer", "seen", "words"), [
    (OLD, None, ""), (OLD, Seen("c", 1, 5), ""), (NEW, Seen("c", 1, 5), ""), (OLD, Seen("c", 2, 5), "timeline 1"),
    (OTHER, Seen("c", 2, 5), "another cluster"), (MADE_ANEW, Seen("c", 2, 5), "made anew")],
    ids=["the first", "the same", "promoted", "the old one", "another cluster", "made anew"])
def test_R_lasting_which_server_may_be_written_to(writer, seen, words):
    assert words in refused(writer, seen)
    assert bool(words) is bool(refused(writer, seen))


@pytest.mark.parametrize(("writers", "seen", "place"), [
    ([OLD], None, 0), ([OLD, NEW], None, 1), ([NEW, OLD], None, 0), ([OLD, NEW], Seen("c", 1, 5), 1),
    ([OTHER, NEW], Seen("c", 1, 5), 1), ([NEW, NEW], None, 0)],
    ids=["alone", "newest", "newest first", "newer than ours", "ours among others", "one under two names"])
def test_R_lasting_the_one_promoted_last_is_taken(writers, seen, place):
    assert chosen(writers, seen) == place


@pytest.mark.parametrize(("writers", "seen"), [
    ([OLD], Seen("c", 2, 5)), ([OTHER], Seen("c", 1, 5)), ([NEW, TWIN], None), ([NEW, TWIN], Seen("c", 1, 5)),
    ([MADE_ANEW], Seen("c", 2, 5)), ([OLD, OTHER], Seen("c", 2, 5))],
    ids=["old alone", "another cluster", "two equals", "two equals, both new", "made anew", "none of them"])
def test_R_lasting_where_none_is_right_devices_are_told_to_try_later(writers, seen):
    with pytest.raises(DelegatorError) as told:
        chosen(writers, seen)
    assert told.value.kind is Kind.TRY_LATER
    assert told.value.hint


@pytest.mark.parametrize(("writers", "seen", "newer", "older", "split"), [
    ({}, Seen("c", 1, 5), None, (), False), ({"a": NEW}, Seen("c", 2, 5), None, (), False),
    ({"a": OLD, "b": NEW}, Seen("c", 1, 5), NEW, ("a",), False),
    ({"a": OLD, "b": NEW}, Seen("c", 2, 5), None, ("a",), False), ({"a": OLD}, Seen("c", 2, 5), None, ("a",), False),
    ({"a": NEW, "b": TWIN}, Seen("c", 2, 5), None, (), True), ({"a": NEW, "b": NEW}, Seen("c", 2, 5), None, (), False),
    ({"a": OTHER, "b": NEW}, Seen("c", 2, 5), None, ("a",), False)],
    ids=["nobody", "ours", "promoted beside ours", "an old one is back", "only an old one", "two equals",
         "one under two names", "another cluster"])
def test_R_lasting_what_a_look_at_all_servers_comes_to(writers, seen, newer, older, split):
    found = verdict(writers, seen)
    assert (found.newer, found.older, bool(found.split)) == (newer, older, split)


class Connection:
    ended = False

    def __init__(self, host: object = None) -> None:
        self.host = host

    def terminate(self) -> None:
        self.ended = True


def test_R_lasting_a_connection_to_a_server_that_another_took_over_from_is_not_used_again():
    fence, first, second = Fence(), Connection(), Connection()
    fence.belongs(first, OLD)
    fence.require(first)
    assert fence.note(NEW)
    assert not fence.note(NEW)
    with pytest.raises(Stale):
        fence.require(first)
    fence.belongs(second, NEW)
    fence.require(second)


async def test_R_lasting_what_was_seen_is_known_after_a_start_and_to_all_on_the_machine(tmp_path):
    file = tmp_path / "delegator.db.seen"
    first, second, another = Fence(file, "url"), Fence(file, "url"), Fence(file, "another url")
    first.note(NEW)
    await first.share()
    second.note(OLD)
    for one in (second, another):
        await one.learn()
    assert second.seen == Seen.of(NEW)
    assert another.seen is None
    assert json.loads(file.read_text())["timeline"] == 2


async def test_R_lasting_who_knows_of_an_older_server_writes_over_nobody_who_knows_better_and_hears_of_it(
        tmp_path, caplog):
    """Connections to the old primary that still stand, behind one name that leads to the promoted one by now."""
    file = tmp_path / "delegator.db.seen"
    behind, ahead, after_a_start = (Fence(file, "postgresql://a/b") for _ in range(3))
    connection = Connection()
    behind.belongs(connection, OLD)
    behind.note(OLD)
    await behind.share()
    ahead.note(NEW)
    await ahead.share()
    dropped: list[bool] = []
    scout = Scout([("vip", 5432)], None, None, behind, lambda: dropped.append(True))
    await scout.look()
    await scout.close()
    await after_a_start.learn()
    assert after_a_start.seen == behind.seen == Seen.of(NEW)
    assert not behind.fits(connection)
    assert dropped, "by this look, or by the scout's own"
    assert "took over" in caplog.text


async def test_R_lasting_a_place_where_nothing_can_be_kept_is_told_once(tmp_path, caplog):
    fence = Fence(tmp_path / "nowhere" / "seen", "url")
    fence.note(NEW)
    for _ in range(3):
        await fence.share()
    assert len([one for one in caplog.records if "cannot be kept" in one.getMessage()]) == 1


async def test_R_lasting_a_promotion_beside_a_server_that_works_is_seen_and_said(caplog):
    fence, writers, took_over = Fence(), {("a", 1): OLD, ("b", 2): None}, []
    fence.belongs(ours := Connection(), OLD)

    async def connect(host):
        return Connection(host)

    async def ask(connection):
        return writers[connection.host]

    scout = Scout([*writers], connect, ask, fence, lambda: took_over.append(fence.seen))
    try:
        await scout.look()
        fence.require(ours)
        writers["b", 2] = NEW
        await scout.look()
        with pytest.raises(Stale):
            fence.require(ours)
        assert took_over == [Seen.of(NEW)]
        assert any("a:1 takes writes" in one.getMessage() for one in caplog.records)
        writers["a", 1] = TWIN
        await scout.look()
        with pytest.raises(DelegatorError, match="both take writes"):
            fence.require_whole()
        writers["a", 1] = None
        await scout.look()
        fence.require_whole()
    finally:
        await asyncio.sleep(0)
        await scout.close()


@pytest.mark.parametrize(("known", "newest", "onward"), [
    (None, None, True), (None, Head(3, b"x"), True), (Head(3, b"x"), Head(3, b"x"), True),
    (Head(3, b"x"), Head(4, b"y"), True), (Head(3, b"x"), Head(3, b"y"), False), (Head(3, b"x"), Head(2, b"w"), False),
    (Head(3, b"x"), None, False)], ids=["empty", "others'", "as it was", "longer", "another", "older", "emptied"])
def test_R_lasting_a_chain_that_we_wrote_to_only_grows(known, newest, onward):
    if onward:
        require_onward("main", known, newest)
        return
    with pytest.raises(Receded):
        require_onward("main", known, newest)
