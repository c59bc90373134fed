"""Replies of a relay before TLS: read whole or byte by byte, and nothing that is none."""

from __future__ import annotations

import pytest

from delegator.wire.smtp import Reply, reply_in

EHLO = b"250-mail.example at your service\r\n250-SIZE 1000\r\n250-starttls\r\n250 HELP\r\n"


def test_a_reply_is_whole_with_its_last_line_and_not_before() -> None:
    assert all(reply_in(EHLO[:size]) is None for size in range(len(EHLO)))
    reply = reply_in(EHLO)
    assert reply == Reply(250, ("mail.example at your service", "SIZE 1000", "starttls", "HELP"), b"")
    assert reply.offers("STARTTLS")


def test_what_came_behind_it_is_told_and_not_heard() -> None:
    reply = reply_in(b"220 go ahead\r\n250 injected\r\n")
    assert reply == Reply(220, ("go ahead",), b"250 injected\r\n")


def test_a_name_of_the_relay_is_no_extension() -> None:
    reply = reply_in(b"250-STARTTLS\r\n250 SIZE 1000\r\n")
    assert reply is not None
    assert not reply.offers("STARTTLS")


@pytest.mark.parametrize("said", [b"\n", b"HTTP/1.1 400 Bad Request\r\n", b"25\r\n", b"2500 x\r\n", b"250_x\r\n",
                                  b"250-fine\r\nnonsense\r\n", b"250 a\rb\n"])
def test_what_is_no_reply_is_refused(said: bytes) -> None:
    with pytest.raises(ValueError, match="does not speak SMTP"):
        reply_in(said)


def test_a_code_alone_and_text_that_is_no_utf8_are_replies() -> None:
    assert reply_in(b"220\n") == Reply(220, ("",), b"")
    assert reply_in(b"220 \xff\n") == Reply(220, ("\\xff",), b"")
