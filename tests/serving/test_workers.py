"""The parent of several workers, by itself: who keeps house, whatever order they die in (A11)."""

from __future__ import annotations

import pytest

from delegator.config import Settings
from delegator.net import systemd
from delegator.serving.crew import NOTHING
from delegator.serving.workers import Workers


class PretendHand:
    """A worker that has died already."""

    number, stopping, last = 1, False, NOTHING

    def __init__(self) -> None:
        self.told: list[str] = []
        self.process = self
        self.pid = 1

    def tell(self, verb: str) -> None:
        self.told.append(verb)

    async def look(self, full: bool) -> None:
        pass

    async def gone(self) -> int:
        return -9


async def test_A11_who_follows_the_last_keeper_under_its_number_keeps_house(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers(Settings(), Settings, systemd.Manager())
    first, second = PretendHand(), PretendHand()

    async def follow(number: int, pause: float) -> None:
        workers._hands[number] = second
        workers._appoint()
        workers._life.stop()
    monkeypatch.setattr(workers, "_follow", follow)
    workers._hands[1] = first
    workers._appoint()
    await workers._watch(1)
    assert (first.told, second.told) == (["keep"], ["keep"])
