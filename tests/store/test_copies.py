"""The copy of the small tables that handshakes decide by: whole, as fresh as the question, read by one for all
(R-seen; A6, A8)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from delegator.errors import DelegatorError, Kind
from delegator.model import Policy
from delegator.routing import directory
from delegator.store import Tables
from delegator.store.copies import Copies


@dataclass
class World:
    """A database that others change: its revision, and what happens while its tables are read."""

    heard: int | None = 1
    revision: int = 1
    asked: int = 0
    read: int = 0
    while_read: list = field(default_factory=list)

    async def ask(self) -> int:
        self.asked += 1
        await asyncio.sleep(0)
        return self.revision

    async def tables(self, revision: int) -> Tables:
        self.read += 1
        found = self.revision
        await asyncio.sleep(0)
        for happens in self.while_read[:1]:
            del self.while_read[0]
            happens(self)
            await asyncio.sleep(0)
        return Tables(revision, {}, {f"seen-at-{found}": Policy(f"seen-at-{found}")}, directory([], []))

    @property
    def copies(self) -> Copies:
        return Copies(self, self.ask, self.tables)


def changed(world: World) -> None:
    world.revision += 1
    world.heard = world.revision


def lost(_world: World) -> None:
    raise DelegatorError(Kind.TRY_LATER, "the database is away")


async def test_R_seen_a_copy_that_may_be_of_two_minds_is_shown_to_nobody():
    """Changed while one reads: who asks meanwhile waits for the copy that was read at one revision."""
    world = World(while_read=[changed])
    copies = world.copies
    found = await asyncio.gather(*(copies.newest() for _ in range(5)))
    assert {tuple(one.policies) for one in found} == {("seen-at-2",)}
    assert world.read == 2
    assert found[0].revision == 2


async def test_A6_after_a_change_that_was_heard_one_handshake_reads_for_all():
    world = World()
    copies = world.copies
    await copies.newest()
    changed(world)
    await asyncio.gather(*(copies.newest() for _ in range(50)))
    assert world.read == 2
    asked = world.asked
    await asyncio.gather(*(copies.newest() for _ in range(50)))
    assert world.asked == asked, "nothing new was heard"


async def test_R_seen_what_changes_after_the_copy_is_seen_by_the_next_who_asks_whether_heard_or_not():
    world = World(heard=None)
    copies = world.copies
    assert (await copies.newest()).revision == 1
    world.revision = 2
    assert (await copies.newest()).revision == 2
    assert (world.read, (await copies.newest()).revision) == (2, 2)


async def test_A8_who_waited_for_a_reading_that_failed_is_told_so_at_once():
    """Else each in line would wait for a database that does not answer, one after the other."""
    world = World(while_read=[lost])
    copies = world.copies
    outcomes = await asyncio.gather(*(copies.newest() for _ in range(20)), return_exceptions=True)
    assert {type(one) for one in outcomes} == {DelegatorError}
    assert world.read == 1
    assert (await copies.newest()).revision == 1


async def test_A8_who_goes_away_as_it_reads_leaves_the_reading_to_the_next():
    world = World()
    copies = world.copies
    first, second = (asyncio.create_task(copies.newest()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).revision == 1
    with pytest.raises(asyncio.CancelledError):
        await first


def test_A4_tables_know_whether_a_policy_has_a_list_also_when_one_is_changed():
    without = Tables(1, {}, {"open": Policy("open")}, directory([], []))
    assert not without.lists
    assert replace(without, policies={"few": Policy("few", approved_only=True)}).lists
