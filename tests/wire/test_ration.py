"""What one call may make a library digest: so many bytes and pieces, whatever they are. T-B10, T-B11, T-B12."""

from __future__ import annotations

from delegator.callbacks import ssh_session
from delegator.net import submission, turnstile
from delegator.wire.ration import AROUND, LOOKS, Bounds, Ration

BOUNDS = Bounds(1000, "bytes that are no answer", 10, "pieces of output", packets=6, quick=4)
LINES = Bounds(1000, "bytes of replies", 10, "lines of replies", b"\n")


def test_bytes_are_counted_to_the_last_and_not_beyond() -> None:
    one = Ration(BOUNDS)
    assert [one.took(b"x" * 500), one.took(b"x" * 500)] == ["", ""]
    assert one.took(b"x") == "it sent more than 1000 bytes that are no answer"


def test_what_was_of_use_is_not_counted_as_useless_and_neither_is_what_stands_around_it() -> None:
    one = Ration(BOUNDS)
    for _ in range(9):
        assert one.took(b"x" * (900 + AROUND)) == ""
        assert one.of_use(900) == ""
    assert one.took(b"x" * 1001)


def test_a_byte_of_use_in_each_packet_buys_a_bounded_number_of_them() -> None:
    one = Ration(BOUNDS)
    assert [one.took(b"x" * 53) or one.of_use(1) for _ in range(10)] == [""] * 10
    assert one.of_use(1) == "it sent more than 10 pieces of output"


def test_packets_are_counted_to_the_last_and_each_piece_of_use_takes_back_its_own_and_one_beside_it() -> None:
    one = Ration(BOUNDS)
    assert [one.packet() for _ in range(6)] == [""] * 6
    assert one.of_use(1) == ""
    assert [one.packet() for _ in range(2)] == [""] * 2
    assert one.packet() == "it sent more than 6 packets that are no answer"


def test_pieces_are_taken_quickly_up_to_a_number() -> None:
    one, slow = Ration(BOUNDS), []
    for _ in range(5):
        one.of_use(1)
        slow.append(one.is_slow)
    assert slow == [False, False, False, True, True]


def test_lines_are_counted_on_their_way_in_however_they_are_cut() -> None:
    one = Ration(LINES)
    assert one.took(b"250-x\r\n" * 9 + b"250-x\r") == ""
    assert one.took(b"\n") == ""
    assert one.took(b"\n") == "it sent more than 10 lines of replies"


def test_bytes_that_trickle_are_looked_at_so_often_and_no_more() -> None:
    """Under TLS a look may find no byte of plaintext at all."""
    one = Ration(BOUNDS)
    assert not any(one.took(b"") for _ in range(LOOKS))
    assert one.took(b"") == f"it sent what it sent in more than {LOOKS} small pieces"


def test_what_is_counted_is_what_the_pages_say() -> None:
    assert (ssh_session.BOUNDS.most, ssh_session.BOUNDS.pieces) == (16384, 512)
    assert (ssh_session.BOUNDS.packets, ssh_session.BOUNDS.quick) == (48, 24)
    assert (submission.BOUNDS.most, submission.BOUNDS.pieces) == (16384, 256)
    assert (turnstile.TURN, turnstile.OWN_TURN, turnstile.LOOK, LOOKS) == (2048, 32768, 256, 1024)
