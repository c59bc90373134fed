"""Relays that flood: what TLS, STARTTLS and aiosmtplib are made to digest is bounded, and the reason is told. T-B12.

No clock: bytes are counted where the library gets them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tlslite.api import TLSConnection

from delegator.errors import DelegatorError, Kind
from delegator.model import Secret
from delegator.net.mail import Relay, Security, send
from delegator.net.submission import BOUNDS
from delegator.net.turnstile import TURN
from delegator.wire.records import AT_ONCE, BARREN
from pki import Folder

from ..wire.test_records import KEY_UPDATE, flooding, own, settings

aiosmtplib = pytest.importorskip("aiosmtplib")
EHLO = b"250-relay\r\n250 STARTTLS\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folder = Folder.create(tmp_path_factory.mktemp("relay") / "pki", common_name="Test Relay CA")
    folder.issue("delegate-server", "localhost", names=("127.0.0.1",))
    return folder


@pytest.fixture
def digested(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What aiosmtplib was given, piece by piece."""
    pieces: list[bytes] = []
    theirs = aiosmtplib.protocol.SMTPProtocol.data_received

    def data_received(self: Any, data: bytes) -> None:
        pieces.append(data)
        theirs(self, data)
    monkeypatch.setattr(aiosmtplib.protocol.SMTPProtocol, "data_received", data_received)
    return pieces


@asynccontextmanager
async def relay(talk: Callable[[socket.socket], None], security: Security, ca: Path | str = "") -> AsyncIterator[Relay]:
    """One whose server talks to one caller, in a thread of its own."""
    def serve() -> None:
        with contextlib.suppress(OSError):
            sock, _ = listening.accept()
            sock.settimeout(10)
            with sock, contextlib.suppress(OSError):
                talk(sock)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield Relay("127.0.0.1", listening.getsockname()[1], security, "delegator.example", 20, "u", Secret("p-1anted"),
                    str(ca))
        await asyncio.to_thread(thread.join)


async def refused(to: Relay) -> str:
    with pytest.raises(DelegatorError) as error:
        await send(to, "relay-test@factory.example", "admin@acme.example", b"Subject: x\r\n\r\nx\r\n")
    assert error.value.kind is Kind.UNREACHABLE
    assert "no answer within" not in error.value.detail, "the reason is known"
    assert "p-1anted" not in error.value.detail
    return error.value.detail


def heard(sock: socket.socket, line: bytes) -> None:
    said = b""
    while not said.endswith(b"\r\n"):
        said += sock.recv(1000)
    assert said.startswith(line)


def until_cut(sock: socket.socket, data: bytes) -> None:
    """Say it for as long as anybody listens, 8 MiB at most."""
    for _ in range(max(1, 8 * 1024 * 1024 // len(data))):
        sock.sendall(data)


def starts_tls(sock: socket.socket) -> None:
    sock.sendall(b"220 relay\r\n")
    heard(sock, b"EHLO delegator.example")
    sock.sendall(EHLO)
    heard(sock, b"STARTTLS")
    sock.sendall(b"220 go ahead\r\n")


def under_tls(sock: socket.socket, authority: Folder) -> TLSConnection:
    server = TLSConnection(sock)
    certificate, key = own(authority.certificate_path("delegate-server", "localhost"))
    server.handshakeServer(certChain=certificate, privateKey=key, settings=settings())
    return server


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS])
async def test_TB12_a_relay_that_only_changes_its_keys_is_cut_off(
        authority: Folder, digested: list[bytes], security: Security) -> None:
    answered = 0

    def talk(sock: socket.socket) -> None:
        nonlocal answered
        if security is Security.STARTTLS:
            starts_tls(sock)
        flooding(under_tls(sock, authority), 10 * BARREN)
        with contextlib.suppress(OSError):
            while data := sock.recv(1 << 16):
                answered += len(data)

    async with relay(talk, security, authority.ca_path) as to:
        assert f"TLS: connection failed (more than {BARREN} TLS records without data)" in await refused(to)
    assert answered <= (BARREN + AT_ONCE) * KEY_UPDATE + 2 * 300, "our answers are bounded too, and what EHLO took"
    assert len(digested) <= 1, "the library's greeting"


@pytest.mark.parametrize("flood", [b"250-x\r\n", b"2", b"220-" + b"x" * 8000 + b"\r\n", b"\n"])
@pytest.mark.parametrize("security", [Security.NONE, Security.STARTTLS])
async def test_TB12_replies_without_end_are_cut_off_before_tls_and_without_it(
        digested: list[bytes], security: Security, flood: bytes) -> None:
    async with relay(lambda sock: until_cut(sock, flood * (60_000 // len(flood))), security) as to:
        if security is Security.NONE:
            to = Relay(to.host, to.port, security, to.name, to.timeout)
        detail = await refused(to)
    assert "replies and was cut off" in detail or "SMTP" in detail or "too long" in detail, detail
    assert sum(map(len, digested)) <= BOUNDS.most
    assert b"".join(digested).count(b"\n") <= BOUNDS.pieces


async def test_TB12_lines_that_trickle_under_tls_are_counted_where_the_library_gets_them(
        authority: Folder, digested: list[bytes]) -> None:
    def talk(sock: socket.socket) -> None:
        starts_tls(sock)
        server = under_tls(sock, authority)
        for _ in range(4 * BOUNDS.pieces):
            server.send(b"250-x\r\n")

    async with relay(talk, Security.STARTTLS, authority.ca_path) as to:
        assert f"it sent more than {BOUNDS.pieces} lines of replies and was cut off" in await refused(to)
    assert b"".join(digested).count(b"\n") <= BOUNDS.pieces


@pytest.mark.parametrize(("greeting", "ehlo", "start", "why"), [
    (b"220 relay\r\n", b"250 relay\r\n", b"", "it does not offer STARTTLS"),
    (b"554 go away\r\n", b"", b"", "554 go away"),
    (b"220 relay\r\n", EHLO, b"454 not now\r\n", "454 not now"),
    (b"220 relay\r\n", EHLO, b"220 go ahead\r\n250 injected\r\n", "said more than it was asked for before TLS"),
    (b"220 relay\r\n", EHLO, b"", "it closed the connection"),
    (b"HTTP/1.1 400 Bad Request\r\n", b"", b"", "it does not speak SMTP")])
async def test_TB8_what_is_no_good_before_tls_ends_the_call_and_sends_neither_mail_nor_password(
        greeting: bytes, ehlo: bytes, start: bytes, why: str) -> None:
    said = b""

    def talk(sock: socket.socket) -> None:
        nonlocal said
        for reply in filter(None, (greeting, ehlo, start)):
            sock.sendall(reply)
            said += sock.recv(1000)

    async with relay(talk, Security.STARTTLS) as to:
        assert why in await refused(to)
    assert said in (b"", b"EHLO delegator.example\r\n", b"EHLO delegator.example\r\nSTARTTLS\r\n")


def test_what_is_given_in_a_turn_is_less_than_the_whole() -> None:
    assert BOUNDS.most / 4 > TURN
