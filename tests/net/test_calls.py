"""T-C7: calls have their share of open files too, however many delegates there are, and what is kept idle gives way."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.net import calls, client
from delegator.outbound import Outbound, networks


def test_TC7_no_more_calls_than_their_share_and_each_that_ended_makes_room() -> None:
    counted = calls.Calls(lambda: 3)
    under_way = [socket.socket() for _ in range(3)]
    for one in under_way:
        counted.enter(one)
    late = socket.socket()
    with pytest.raises(DelegatorError) as refusal:
        counted.enter(late)
    assert (refusal.value.kind, late.fileno()) == (Kind.TRY_LATER, -1), "closed at once"
    under_way.pop().close()
    with socket.socket() as next_one:
        counted.enter(next_one)
        assert counted.is_full()
    assert not counted.is_full()
    for one in under_way:
        one.close()


class Stream:
    """A kept connection."""

    def __init__(self, idle_since: float) -> None:
        self.idle_since, self.open = idle_since, True

    def close(self) -> None:
        self.open = False


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(client, "_idle", idle := {})
    monkeypatch.setattr(client.time, "monotonic", lambda: 1000.0)
    made = []
    for number in range(10):
        stream = Stream(1000.0 - client.KEPT_FOR + number - 2.5)
        endpoint = SimpleNamespace(kept=[stream])
        idle[stream] = endpoint
        made.append((stream, endpoint))
    return made


@pytest.mark.parametrize(("most", "left"), [(100, 7), (5, 5), (0, 0)], ids=["old", "too many", "room is needed"])
def test_TC7_what_is_idle_too_long_or_too_much_is_hung_up_the_oldest_first(
        kept: list[Any], most: int, left: int) -> None:
    client._let_go_of_idle(most)
    assert [stream.open for stream, _ in kept] == [False] * (10 - left) + [True] * left
    assert [len(endpoint.kept) for _, endpoint in kept] == [0] * (10 - left) + [1] * left
    assert len(client._idle) == left


async def test_TC7_a_call_without_room_takes_the_place_of_an_idle_one_or_fails(
        kept: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CALLS", counted := calls.Calls(lambda: 1))
    counted.let_go = calls.CALLS.let_go
    here = Outbound(networks(("127.0.0.0/8",)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with await client.connected("127.0.0.1", port, here):
            with pytest.raises(DelegatorError, match="not called: 1 sockets"):
                await client.connected("127.0.0.1", port, here)
            assert not any(cast(Stream, stream).open for stream, _ in kept)
        (await client.connected("127.0.0.1", port, here)).close()
