"""The door for shared certificates: the same words after the same work, whatever the reason was (6.1, ADR 0011)."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from delegator.errors import DelegatorError, Kind
from delegator.model import Claim, ClaimState, Device, Identity, IdentityKind, Location, Rule
from delegator.model.enrolled import Contest, Enrolled
from delegator.net.reverse import Domains
from delegator.policy import Reason, Why
from delegator.provisioning import shared_door
from delegator.provisioning.judgement import judge
from delegator.provisioning.shared_door import SharedDoor
from delegator.routing import Facts, directory
from delegator.store import Ask, Store
from delegator.store.footing import Footing, no_ask
from delegator.trail import Trail

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ME = Identity(IdentityKind.SHARED, "ABC1234", "secret:me")
FACTS = Facts(Device("ABC1234"), Location(), "192.0.2.7")
CLAIM = Claim("c" * 32, "ABC1234", "acme", "acme-1", ClaimState.ISSUED, IdentityKind.SHARED, 1, NOW, NOW,
              binding="secret:me")
ENROLLED = Enrolled("0a", "ABC1234", "aa", "c" * 32, "secret:me", "PEM", NOW, NOW + timedelta(days=1))
FREE = Footing(None, None, ())
FOOTINGS = {
    "taken by a secret": replace(FREE, claim=replace(CLAIM, binding="secret:other")),
    "taken by a key": replace(FREE, claim=replace(CLAIM, binding="key:aa")),
    "confirmed": replace(FREE, claim=replace(CLAIM, state=ClaimState.CONFIRMED)),
    "enrolled and used": replace(FREE, enrolled=replace(ENROLLED, used=True)),
    "enrolled and revoked": replace(FREE, enrolled=replace(ENROLLED, revoked_at=NOW)),
    "another's": replace(FREE, enrolled=replace(ENROLLED, binding="secret:other")),
    "another key": replace(FREE, enrolled=replace(ENROLLED, key_fingerprint="bb")),
    "over a limit": replace(FREE, reasons=(Reason(Why.DEVICES_TAKEN, "policy p: all 5 devices are taken"),)),
}
SECOND = {"taken by a secret", "taken by a key", "another's", "another key"}


class World:
    """A store, a DNS, and what was asked of each, in order."""

    def __init__(self, footing: Footing = FREE) -> None:
        self.footing_found = footing
        self.asked: list[str] = []
        self.contests: list[Contest] = []
        self.door = SharedDoor(cast(Store, self), cast(Domains, self), self.contests.append)

    async def footing(self, ask: Ask) -> Footing:
        self.asked.append("footing")
        return self.footing_found

    async def find(self, peer: str) -> None:
        self.asked.append(f"dns {peer}")

    async def tables(self) -> Any:
        self.asked.append("tables")
        return SimpleNamespace(directory=directory((), (Rule("r", tag_prefix="ABC", delegator="asia.example:4433"),)))

    async def passed(self, judged: object, key: str | None = "aa") -> object:
        async def judging() -> object:
            self.asked.append("judged")
            if isinstance(judged, Exception):
                raise judged
            return judged
        return await self.door.passed(ME, FACTS, key, NOW, judging, lambda found: no_ask(ME, 0))

    async def refused(self, judged: object = "judged") -> DelegatorError:
        with pytest.raises(DelegatorError) as refused:
            await self.passed(judged)
        return refused.value


def seen(error: DelegatorError) -> tuple[object, ...]:
    """All that becomes bytes."""
    return error.kind, error.retry_after, error.alternates


REFUSED = [DelegatorError(Kind.NOT_ENTITLED, "not registered", alternates=("asia.example:4433",)),
           DelegatorError(Kind.NOT_ENTITLED, "closed"), DelegatorError(Kind.IDENTITY, "own wanted"),
           DelegatorError(Kind.TRY_LATER, "all taken", retry_after=300),
           DelegatorError(Kind.CONFIGURATION, "no such policy")]


async def test_R_alike_every_refusal_is_seen_as_the_same_and_costs_the_same() -> None:
    told, cost = set(), set()
    for error in REFUSED:
        world = World()
        refused = await world.refused(error)
        assert refused.detail == error.detail, "the operator keeps the reason"
        told.add(seen(refused))
        cost.add(tuple(world.asked))
    for footing in FOOTINGS.values():
        world = World(footing)
        told.add(seen(await world.refused()))
        cost.add(tuple(world.asked))
    assert told == {(Kind.NOT_ENTITLED, None, ("asia.example:4433",))}
    assert cost == {("judged", "footing", "dns 192.0.2.7", "tables")}


async def test_R_alike_no_refusal_leaves_sooner_than_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_door, "SOONEST", 0.05)
    for world, judged in ((World(), REFUSED[0]), (World(FOOTINGS["confirmed"]), "judged")):
        began = time.monotonic()
        await world.refused(judged)
        assert time.monotonic() - began >= 0.05


async def test_R_alike_a_store_that_is_down_is_down_for_every_tag() -> None:
    world = World()
    refused = await world.refused(DelegatorError(Kind.UNAVAILABLE, "disk full"))
    assert refused.kind is Kind.UNAVAILABLE


@pytest.mark.parametrize("kind", [Kind.TRY_LATER, Kind.UNAVAILABLE, Kind.CONFIGURATION])
async def test_R_alike_a_store_that_is_slow_is_slow_for_every_tag_and_no_refusal(kind: Kind) -> None:
    """The first look-up came to nothing, the next ones do not: a device that may have it would be told it may not."""
    async def about(device: Device) -> object:
        raise DelegatorError(kind, "the small tables are being read for somebody else", retry_after=7)
    world, store = World(), cast(Store, SimpleNamespace(about=about))
    with pytest.raises(DelegatorError) as told:
        await world.door.passed(ME, FACTS, "aa", NOW, lambda: judge(store, FACTS, IdentityKind.SHARED, NOW, Trail(
            "c1", "192.0.2.7")), lambda found: no_ask(ME, 0))
    assert (told.value.kind, told.value.retry_after) == (kind, 7)


@pytest.mark.parametrize("why", FOOTINGS)
@pytest.mark.parametrize("judged", ["allowed", REFUSED[2]], ids=["allowed", "refused by policy"])
async def test_R_contested_a_second_claimant_is_noted_whatever_the_policy_says(why: str, judged: object) -> None:
    world = World(FOOTINGS[why])
    await world.refused(judged)
    assert bool(world.contests) is (why in SECOND)
    for contest in world.contests:
        assert (contest.service_tag, contest.claim_id, contest.peer) == ("ABC1234", "c" * 32, "192.0.2.7")


@pytest.mark.parametrize("footing", [
    FREE, replace(FREE, claim=CLAIM), replace(FREE, claim=CLAIM, enrolled=ENROLLED), replace(FREE, enrolled=ENROLLED),
    replace(FREE, claim=replace(CLAIM, state=ClaimState.ASKING))])
@pytest.mark.parametrize("key", ["aa", None])
async def test_R_shared_who_is_entitled_comes_through_at_once(footing: Footing, key: str | None) -> None:
    """The first one, and the same device again: by its secret, with or without a request for its key."""
    world = World(footing)
    assert await world.passed("judged", key) == ("judged", footing)
    assert world.asked == ["judged", "footing"]
    assert not world.contests
