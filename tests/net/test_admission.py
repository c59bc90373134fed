"""Overload at the door: short turns, a line that stays with the kernel, refusals for who stood in it too long."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from delegator.net import admission
from delegator.net.admission import MOST, TURN, Admission, crowded, refuse, stale


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time as these see it, set by the test."""
    told = [100.0]
    monkeypatch.setattr(admission.time, "monotonic", lambda: told[0])
    return told


def turns(one: Admission, clock: list[float], seconds: float, count: int) -> list[int]:
    """What is taken in turns of this length, none of which empties the line."""
    taken = []
    for _ in range(count):
        taken.append(one.room())
        one.taken(False)
        clock[0] += seconds
    return taken


class TestAdmission:
    def test_long_turns_take_fewer_until_one_by_one(self, clock: list[float]) -> None:
        taken = turns(Admission(), clock, 10 * TURN, 10)
        assert taken[:3] == [MOST, MOST // 2, MOST // 4]
        assert taken[-1] == 1, "never none at all"

    def test_short_turns_take_more_again(self, clock: list[float]) -> None:
        one = Admission()
        turns(one, clock, 10 * TURN, 10)
        assert turns(one, clock, TURN / 2, 50)[-1] == MOST

    def test_a_quiet_night_is_no_long_turn(self, clock: list[float]) -> None:
        """Where the line was empty nobody called us since: that time says nothing."""
        one = Admission()
        for _ in range(10):
            assert one.room() == MOST
            one.taken(True)
            clock[0] += 3600

    def test_turns_settle_where_the_work_of_one_is_short_enough(self, clock: list[float]) -> None:
        """Each connection costs 2 ms in the turn after it is taken: 25 fit."""
        one, taken = Admission(), MOST
        for _ in range(40):
            taken = one.room()
            one.taken(False)
            clock[0] += taken * 0.002
        assert 15 <= taken <= 30


class TestLine:
    @pytest.fixture
    def listening(self) -> Iterator[socket.socket]:
        with socket.create_server(("127.0.0.1", 0), backlog=8) as sock:
            yield sock

    def test_a_line_is_crowded_at_three_quarters_of_its_end(self, listening: socket.socket) -> None:
        """As the kernel tells it."""
        waiting = [socket.create_connection(listening.getsockname()) for _ in range(6)]
        assert not crowded(listening)
        waiting.append(socket.create_connection(listening.getsockname()))
        assert crowded(listening)
        listening.accept()[0].close()
        assert not crowded(listening)
        for one in waiting:
            one.close()

    @pytest.mark.parametrize("speaks", [True, False])
    def test_who_stood_in_line_too_long_is_stale(self, listening: socket.socket, speaks: bool,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
        """Counted from the last word, or from the connection where nothing was said."""
        monkeypatch.setattr(admission, "PATIENCE", 0.3)
        with socket.create_connection(listening.getsockname()) as waiting:
            if speaks:
                waiting.sendall(b"hello")
            time.sleep(0.4)
            late = listening.accept()[0]
            with late, socket.create_connection(listening.getsockname()), listening.accept()[0] as fresh:
                assert stale(late)
                assert not stale(fresh)

    def test_a_refused_one_knows_at_once(self, listening: socket.socket) -> None:
        with socket.create_connection(listening.getsockname()) as waiting:
            waiting.sendall(b"hello")
            refuse(listening.accept()[0])
            with pytest.raises(ConnectionResetError):
                waiting.recv(1)
