"""One deadline for all that a request asks of the store (T-C19). The clock is pretended, see pretending."""

from __future__ import annotations

import asyncio

import pytest

from delegator.clockwork.deadline import Elsewhere, Within, deadline
from delegator.clockwork.rounds import guarded

from ..pretending import loop, pretend


def test_there_is_none_where_nobody_asked_for_one() -> None:
    assert deadline() is None


def test_it_is_one_for_all_steps_and_ends_with_the_request() -> None:
    async def request() -> None:
        began = loop().time()
        with loop().pretending(), Within(5):
            first = deadline()
            await asyncio.sleep(3)
            assert deadline() == first == pytest.approx(began + 5, abs=0.5)
        assert deadline() is None
    pretend(request())


def test_it_stands_still_while_somebody_else_is_asked_who_has_a_budget_of_his_own() -> None:
    async def request() -> None:
        with loop().pretending(), Within(5):
            began = loop().time()
            with pytest.raises(RuntimeError), Elsewhere():
                await asyncio.sleep(9)
                raise RuntimeError
            await asyncio.sleep(3)
            assert deadline() == pytest.approx(began + 14, abs=0.5)
    pretend(request())


def test_work_that_a_request_only_begins_is_not_bound_by_it() -> None:
    async def request() -> None:
        seen: list[float | None] = []

        async def work() -> None:
            seen.append(deadline())
        with Within(5):
            await asyncio.get_running_loop().create_task(guarded(work))
            assert seen == [None]
            assert deadline() is not None
    pretend(request())


def test_requests_side_by_side_have_each_their_own() -> None:
    async def one(seconds: float) -> float:
        with Within(seconds):
            await asyncio.sleep(0)
            until = deadline()
            assert until is not None
            return until

    async def both() -> None:
        first, second = await asyncio.gather(one(1), one(100))
        assert second - first > 90
    pretend(both())
