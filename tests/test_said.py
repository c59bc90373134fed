"""T-C10: what peers say is one line of bounded length without anything that moves or turns it, wherever it comes in.

Each place where a peer's words enter is listed, as what a program on the other side makes of it.
"""

from __future__ import annotations

import asyncio
import io
import logging
import socket
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import asyncssh
import pytest
import service_identity
from hypothesis import given
from hypothesis import strategies as st

from delegator.callbacks import answers, soap, ssh_session
from delegator.callbacks.soap import SoapCaller
from delegator.device import reasons
from delegator.device.reasons import Failure
from delegator.errors import DelegatorError, Kind
from delegator.model import Delegate, DelegateRequest, Device, SoapCallback
from delegator.net import client, mail
from delegator.net.dns import DnsTrouble, Resolver
from delegator.net.mail import Relay, Security
from delegator.outbound import Outbound
from delegator.store.engines.postgres import troubles
from delegator.watching import logs
from delegator.wire.dns_message import Said
from delegator.wire.http import HttpError, Response
from pki.said import MOST, said, visible

EVIL = "no\r\n2026-12-01 info \x1b[2J\x00\u202eevil\u2066\u2028\ufeff" + "x" * 5000
EVIL_BYTES = b"no\r\n\xff\xfe\x1b[2J" + EVIL.encode()
AROUND = 300
"""Characters that we say around a peer's words."""


def harmless(text: str) -> bool:
    return text.isprintable() and len(text) <= MOST + AROUND


@given(st.one_of(st.text(st.characters()), st.binary()), st.integers(10, 300))
def test_TC10_whatever_is_said_is_one_bounded_line_and_stays_it(words: str | bytes, most: int) -> None:
    once = said(words, most)
    assert once.isprintable()
    assert len(once) <= most
    assert said(once, most) == once
    once.encode("utf-8")


def test_TC10_plain_words_stay_as_they_are() -> None:
    assert said("550 no such mailbox: Grüße, 密码") == "550 no such mailbox: Grüße, 密码"
    assert said(b"550\r\n no \xff") == r"550 no \xff"


# --- who may say something, and where it comes in -------------------------------------------------------------------


@asynccontextmanager
async def relay(replies: list[bytes]) -> Any:
    """A relay that says these one after the other, whatever it is told."""
    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for reply in replies:
                writer.write(reply)
                await writer.drain()
                await reader.readline()
                if reply.startswith(b"354"):
                    await reader.readuntil(b".\r\n")
                    writer.write(replies[-1])
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
    server = await asyncio.start_server(met, "127.0.0.1", 0)
    async with server:
        yield Relay("127.0.0.1", server.sockets[0].getsockname()[1], Security.NONE, "d.example", 5)


OK = [b"220 x\r\n", b"250 x\r\n", b"250 x\r\n", b"250 x\r\n", b"354 x\r\n"]
NO = b"550-\xff\xfe\xe4\r\n550 \x1b[2J\xe2\x80\xae" + b"y" * 600 + b"\r\n"


@pytest.mark.parametrize("step", range(5), ids=["greeting", "ehlo", "mail", "rcpt", "data"])
async def test_TC10_a_relay_that_refuses_in_words_that_are_no_utf_8_is_told_of(step: int) -> None:
    async with relay([*OK[:step], *[NO] * 4]) as one:
        with pytest.raises(DelegatorError) as refusal:
            await mail.send(one, "a@d.example", "b@d.example", b"Subject: x\r\n\r\nx\r\n")
    assert refusal.value.kind is Kind.UNREACHABLE
    assert harmless(refusal.value.detail)
    assert r"\xff\xfe\xe4" in refusal.value.detail, "as far as it can be read, it says why"


async def test_TC10_a_relay_that_takes_it_in_such_words_is_quoted_so_too() -> None:
    async with relay([*OK, b"250 \xff\x1b[2J" + b"y" * 500 + b"\r\n"]) as one:
        reply = await mail.send(one, "a@d.example", "b@d.example", b"Subject: x\r\n\r\nx\r\n")
    assert harmless(reply)
    assert r"\xff" in reply


@pytest.mark.parametrize("error", [UnicodeDecodeError("utf-8", b"\xff", 0, 1, EVIL), RuntimeError(EVIL),
                                   KeyError(EVIL), AttributeError(EVIL)], ids=lambda one: type(one).__name__)
async def test_TC10_whatever_the_library_of_mail_raises_the_relay_failed(
        monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    async def send(*_: object) -> str:
        raise error
    monkeypatch.setattr(mail, "_send", send)
    with pytest.raises(DelegatorError) as refusal:
        await mail.send(Relay("127.0.0.1", 1, Security.NONE, "d.example", 5), "a@d.example", "b@d.example", b"")
    assert refusal.value.kind is Kind.UNREACHABLE
    assert harmless(refusal.value.detail)


@pytest.mark.parametrize("error", [asyncssh.DisconnectError(2, EVIL), asyncssh.ProtocolError(EVIL), OSError(EVIL),
                                   IndexError(EVIL), UnicodeDecodeError("utf-8", b"\xff", 0, 1, EVIL)],
                         ids=lambda one: type(one).__name__)
async def test_TC10_ssh_whatever_the_library_raises(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    near, far = socket.socketpair()
    near.setblocking(False)

    async def connected(*_: object) -> socket.socket:
        return near

    async def connect(*_: object, **__: object) -> None:
        raise error
    monkeypatch.setattr(ssh_session, "connected", connected)
    monkeypatch.setattr(asyncssh, "connect", connect)
    login = SimpleNamespace(settings=SimpleNamespace(address=None, host="d.example", port=22), pinned=None,
                            options=SimpleNamespace(username="u"))
    with far, pytest.raises(ssh_session.SshFailure) as refusal:
        await ssh_session.log_in(cast(Any, login), Outbound())
    assert harmless(str(refusal.value))


@pytest.mark.parametrize("answer", [
    Response(200, {}, EVIL_BYTES), Response(500, {}, EVIL_BYTES), Response(599, {b"x": EVIL_BYTES}, b"<a/>"),
    Response(500, {}, ('<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><faultcode>'
                       f"{'no&#13;&#10;'}\u202e{'x' * 3000}</faultcode><faultstring>\u202e</faultstring></s:Fault>"
                       "</s:Body></s:Envelope>").encode()),
    Response(200, {}, ('<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
                       f'<e\u0301{"é" * 300} xmlns="{"u" * 300}\u202e"/></s:Body></s:Envelope>').encode())],
    ids=["no xml", "a page", "odd status", "fault", "another element"])
async def test_TC10_soap_whatever_a_delegate_answers(monkeypatch: pytest.MonkeyPatch, answer: Response) -> None:
    async def called(*_: object) -> Response:
        return answer
    monkeypatch.setattr(soap, "call", called)
    monkeypatch.setattr(SoapCaller, "_endpoint", lambda *_: None)
    caller = SoapCaller(cast(Any, None), cast(Any, None), cast(Any, None), 1, Outbound())
    with pytest.raises(DelegatorError) as refusal:
        await caller.obtain(DelegateRequest("0" * 32, Device("ABC1234")),
                            Delegate("acme-1", "acme", SoapCallback("d.example")), cast(Any, None))
    assert harmless(refusal.value.detail)


@pytest.mark.parametrize("error", [OSError(EVIL), HttpError(502, EVIL), DelegatorError(Kind.UNREACHABLE, EVIL[:90])],
                         ids=["os", "http", "tls"])
async def test_TC10_https_whatever_breaks_a_call(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    async def called(*_: object) -> Response:
        raise error
    monkeypatch.setattr(client, "_call", called)
    with pytest.raises(DelegatorError) as refusal:
        await client.call(client.Endpoint("d.example", 443, cast(Any, None)), "/", {}, b"", 1)
    assert harmless(refusal.value.detail)


def test_TC10_a_certificate_for_others_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from delegator.wire import tls
    def verify(*_: object) -> None:
        raise service_identity.CertificateError(EVIL)
    monkeypatch.setattr(service_identity.pyopenssl, "verify_hostname", verify)
    session = SimpleNamespace(_connection=object(), _leaf=b"")
    with pytest.raises(DelegatorError) as refusal:
        tls.Session.check_name(cast(Any, session), "d.example")
    assert harmless(refusal.value.detail)


async def test_TC10_dns_whatever_a_name_server_makes_of_it() -> None:
    async def exchange(*_: object) -> Said:
        raise ValueError(EVIL)
    with pytest.raises(DnsTrouble) as refusal:
        await Resolver(("192.0.2.53",), 1, 1, exchange).addresses("x.example", 4)
    assert harmless(str(refusal.value))


@pytest.mark.parametrize("error", [asyncpg.PostgresError(EVIL), asyncpg.InterfaceError(EVIL), OSError(EVIL),
                                   asyncpg.InvalidPasswordError(EVIL), asyncpg.UndefinedTableError(EVIL)],
                         ids=lambda one: type(one).__name__)
def test_TC10_postgresql_whatever_it_complains_of(error: Exception) -> None:
    assert harmless(troubles.told(error, "base").detail)


def test_TC10_programs_whatever_they_write() -> None:
    assert harmless(answers.first_line(EVIL_BYTES))
    for output in (EVIL_BYTES, b"{" + EVIL_BYTES, b"<" + EVIL_BYTES):
        with pytest.raises(answers.NotAnAnswer) as refusal:
            answers.credential_in(output, "ABC1234")
        assert harmless(str(refusal.value))


def test_TC10_errors_are_one_line_whoever_forgot_to_look() -> None:
    error = DelegatorError(Kind.UNREACHABLE, EVIL[:90], reasons=(EVIL[:90],))
    assert error.detail == visible(EVIL[:90])
    assert all(one.isprintable() for one in (*error.reasons, str(error)))
    assert str(Failure(reasons.NO_ANSWER, EVIL[:90])).isprintable()


@pytest.mark.parametrize("as_json", [True, False])
def test_TC10_no_words_of_an_error_forge_a_line_of_log(as_json: bool) -> None:
    stream, before = io.StringIO(), logging.getLogger().handlers[:]
    try:
        logs.configure("info", as_json, stream)
        try:
            raise ValueError("x\n2026-12-01T00:00:00.000+00:00 info delegator.handshake forged \x1b[2J\u202e")
        except ValueError:
            logging.getLogger("x").exception("a fault of ours")
    finally:
        logging.getLogger().handlers[:] = before
    lines = stream.getvalue().splitlines()
    assert all(one.isprintable() for one in lines)
    assert sum(not one.startswith(" ") for one in lines) == 1
