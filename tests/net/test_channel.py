"""Two ends of a channel between processes of ours; here both are in one. A10."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.net.channel import Channel, joined
from delegator.serving.duties import Duties


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Channel, Channel, list[str]]]:
    one, other = socket.socketpair()
    told: list[str] = []

    async def answer(verb: str, argument: Any) -> object:
        told.append(verb)
        if verb == "fail":
            raise DelegatorError(Kind.CONFIGURATION, "no such file", hint="make one")
        if verb == "break":
            raise ValueError("a secret of ours")
        if verb == "wait":
            await asyncio.sleep(argument)
        return [verb, argument]
    here, there = await joined(one, answer), await joined(other, answer)
    running = [asyncio.create_task(end.run()) for end in (here, there)]
    yield here, there, told
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def test_both_ends_may_call_and_answers_find_their_calls(ends: tuple[Channel, Channel, list[str]]) -> None:
    here, there, _ = ends
    slow = asyncio.create_task(here.call("wait", 0.1, within=5))
    assert await here.call("quick", {"a": [1, "ä\n"]}, within=5) == ["quick", {"a": [1, "ä\n"]}]
    assert await there.call("quick", 2, within=5) == ["quick", 2]
    assert not slow.done(), "a slow one holds up nobody"
    assert await slow == ["wait", 0.1]


async def test_an_error_of_the_other_end_comes_back_whole(ends: tuple[Channel, Channel, list[str]],
                                                          caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DelegatorError) as caught:
        await ends[0].call("fail", within=5)
    assert (caught.value.kind, caught.value.detail, caught.value.hint) == (Kind.CONFIGURATION, "no such file",
                                                                           "make one")
    with pytest.raises(DelegatorError) as caught:
        await ends[0].call("break", within=5)
    assert "secret" not in caught.value.detail


async def test_an_end_that_is_silent_or_gone_is_not_waited_for(ends: tuple[Channel, Channel, list[str]]) -> None:
    here, there, _ = ends
    with pytest.raises(DelegatorError, match="no answer to wait within"):
        await here.call("wait", 60, within=0.05)
    waiting = asyncio.create_task(here.call("wait", 60, within=60))
    await asyncio.sleep(0.05)
    there._writer.close()
    with pytest.raises(DelegatorError, match="is gone"):
        await asyncio.wait_for(waiting, 5)
    with pytest.raises(DelegatorError, match="is gone"):
        await here.call("quick", within=5)
    here.tell("quick")


async def test_a_worker_that_does_not_keep_house_tells_who_does_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often there is something to do: a handshake pays for looking at a flag."""
    monkeypatch.setattr("delegator.serving.duties.SOON", 0.02)
    relayed, here = [], []
    duties = Duties(2, lambda: relayed.append(1))
    for _ in range(100):
        duties.wake(lambda: here.append(1))
    await asyncio.sleep(0.1)
    assert (len(relayed), here) == (1, [])
    duties.ours.set()
    duties.wake(lambda: here.append(1))
    assert (len(relayed), here) == (1, [1])
    assert Duties().ours.is_set()
    assert Duties().alone
