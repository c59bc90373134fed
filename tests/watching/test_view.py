"""Looking at how we are ends in time, also where the store does not answer: else the parent of several workers would
show what it was told before (T-C15)."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from delegator.serving.crew import Hand
from delegator.serving.workers import GLANCE
from delegator.watching.metrics import Metrics
from delegator.watching.readiness import PATIENCE, STORE
from delegator.watching.view import Watching

from ..pretending import loop, pretend


class Slow:
    """A store of which a write, or a look at the outbox, takes so many seconds."""

    def __init__(self, write: float, look: float) -> None:
        self._write, self._look = write, look
        self.commits = SimpleNamespace(done=0, transactions=0, failed=0)
        self.outbox = self

    async def check(self) -> None:
        await asyncio.sleep(self._write)

    async def waiting(self, kind: object, most: int) -> int:
        await asyncio.sleep(self._look)
        return 7


@pytest.mark.parametrize(("write", "look", "wrong"), [(60, 60, [STORE]), (0, 60, []), (PATIENCE / 2, PATIENCE / 2, [])],
                         ids=["a store that does nothing", "an outbox that is locked", "a slow one"])
def test_TC15_a_full_look_ends_while_somebody_still_waits_for_it(write: float, look: float, wrong: list[str]) -> None:
    async def read() -> None:
        store = Slow(write, look)
        listener, notifier = SimpleNamespace(phases=dict, most=1, turned_away=0), SimpleNamespace(told=Counter())
        watching = Watching(Metrics(), cast(Any, store), cast(Any, listener), cast(Any, notifier),
                            lambda: datetime.now(UTC))
        with loop().pretending():
            began = loop().time()
            assert list(await watching.read()) == wrong
            assert loop().time() - began < GLANCE
    pretend(read())


async def test_TC15_what_a_worker_says_is_wrong_is_not_forgotten_by_a_look_that_does_not_ask_for_it() -> None:
    """Such a look comes every two seconds, and another worker may take two to say how it is."""
    async def call(verb: str, full: bool, *, within: float) -> dict[str, object]:
        return {"families": [], "wrong": {STORE: "slow"} if full else {}, "soon": {}, "answers": [], "why": {}}

    async def run() -> None: ...
    hand = Hand(1, cast(Any, None), cast(Any, SimpleNamespace(call=call, run=run)))
    await hand.look(True)
    await hand.look(False)
    assert hand.last.wrong == {STORE: "slow"}
