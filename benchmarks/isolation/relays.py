"""Hostile mail relays: a server that follows SMTP (RFC 5321, 3207, 4954) up to the step at which it does not.

The invariant: what is not said to be odd is done as a relay does it.
Must not live here: other layers.
"""

from __future__ import annotations

import itertools
import socket
import ssl
from collections.abc import Callable

from benchmarks.isolation.delegates import serving
from benchmarks.isolation.modes import RECEIVE, Act, Mode, Site, drip, hold
from benchmarks.isolation.tls import Wire

GREETED, ENDED = "greeting", "."
USUAL: dict[str, bytes] = {
    GREETED: b"220 relay.test ESMTP\r\n", "STARTTLS": b"220 go ahead\r\n", "AUTH": b"235 welcome\r\n",
    "MAIL": b"250 fine\r\n", "RCPT": b"250 fine\r\n", "DATA": b"354 go on\r\n", ENDED: b"250 taken\r\n",
    "QUIT": b"221 bye\r\n", "RSET": b"250 fine\r\n"}
CLEAR, SEALED = b"250-relay.test\r\n250 STARTTLS\r\n", b"250-relay.test\r\n250 AUTH PLAIN LOGIN\r\n"


class Talk:
    """One conversation."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.wire: Wire | None = None
        self._data = b""

    def write(self, data: bytes) -> None:
        if self.wire is None:
            self.socket.sendall(data)
        else:
            self.wire.write(data)

    def line(self, end: bytes = b"\r\n") -> bytes:
        while end not in self._data:
            more = self.socket.recv(RECEIVE) if self.wire is None else self.wire.read()
            if not more:
                raise ConnectionResetError("hung up")
            self._data += more
        line, _, self._data = self._data.partition(end)
        return line


Odd = Callable[[Talk], None]


def relay(at: str = "", odd: Odd | None = None, *, inside: bool = False) -> Act:
    """A relay that is odd in place of one answer; `inside` for the EHLO after STARTTLS."""
    def answer(talk: Talk, verb: str, usual: bytes) -> None:
        if odd is not None and verb == at and (inside or at != "EHLO" or talk.wire is None) and (
                not inside or talk.wire is not None):
            odd(talk)
        else:
            talk.write(usual)

    def act(sock: socket.socket, site: Site) -> None:
        talk = Talk(sock)
        answer(talk, GREETED, USUAL[GREETED])
        while True:
            verb = talk.line().split(b" ")[0].decode("latin-1").upper()
            answer(talk, verb, (CLEAR if talk.wire is None else SEALED) if verb == "EHLO"
                   else USUAL.get(verb, b"500 what?\r\n"))
            if verb == "STARTTLS":
                talk.wire = Wire(sock, serving(ssl.TLSVersion.TLSv1_3, site.chain), serves=True)
            elif verb == "DATA":
                talk.line(b"\r\n.\r\n")
                answer(talk, ENDED, USUAL[ENDED])
            elif verb == "QUIT":
                sock.shutdown(socket.SHUT_WR)
    return act


def writes(data: bytes, many: int = 1) -> Odd:
    """The same without end; once where `many` is 0."""
    def odd(talk: Talk) -> None:
        for _ in itertools.repeat(None) if many else (None,):
            talk.write(data * max(1, many))
    return odd


def silent(talk: Talk) -> None:
    hold(talk.socket)


def updates(talk: Talk) -> None:
    assert talk.wire is not None
    while True:
        talk.socket.sendall(b"".join(talk.wire.key_update(True) for _ in range(100)))


refuses = relay("MAIL", writes(b"550 no\r\n", 0))
"""The control."""
MODES = tuple(Mode("smtp", *row) for row in (
    ("silence", "takes the connection and says nothing", relay(GREETED, silent)),
    ("endless greeting", "220- without end", relay(GREETED, writes(b"220-welcome\r\n", 1000))),
    ("long line", "a greeting of one line without end", relay(GREETED, writes(b"x" * 10_000))),
    ("greeting drip", "a byte of it twenty times a second",
     relay(GREETED, lambda talk: drip(talk.socket, USUAL[GREETED] * 10))),
    ("endless features", "250- without end in answer to EHLO", relay("EHLO", writes(b"250-FEATURE\r\n", 1000))),
    ("no tls after all", "a refusal of STARTTLS that does not end", relay("STARTTLS", writes(b"454-no\r\n", 1000))),
    ("key updates", "KeyUpdate without end after STARTTLS", relay("EHLO", updates, inside=True)),
    ("not utf-8", "a refusal in no known encoding", relay("MAIL", writes(b"550 \xff\xfe\x80\r\n", 0))),
    ("try later", "421 to every mail", relay("MAIL", writes(b"421 later\r\n", 0))),
    ("endless refusal", "550- without end in answer to MAIL", relay("MAIL", writes(b"550-no\r\n", 1000))),
    ("silence after data", "takes the mail and says nothing", relay(ENDED, silent)),
    ("garbage", "random bytes without end in answer to MAIL", relay("MAIL", writes(bytes(range(256)) * 40))),
))
