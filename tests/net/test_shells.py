"""The shells around wire: our listener and our client, joined over loopback (A1, A7a)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.net.client import Endpoint, call, close, resolved
from delegator.net.connection import Connection
from delegator.net.crowds import Caps
from delegator.net.serve import Deadlines, Listener
from delegator.outbound import Outbound, networks
from delegator.wire.http import Request, Response
from delegator.wire.refused import Refused
from delegator.wire.tls import TlsContext, client_context, server_context
from pki import Folder, Issued
from pki.trust import TrustStore

LOOPBACK = Outbound(networks(("127.0.0.0/8",)))


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Echo:
    """A server that answers what it was sent, and remembers connections and refusals."""

    seen: list[str] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    hold: asyncio.Event | None = None

    async def answer(self, request: Request, connection: Connection) -> Response:
        self.seen.append(connection.id)
        if self.hold is not None:
            await self.hold.wait()
        return Response(200, {b"Content-Type": b"text/plain"}, request.body)

    def note(self, connection: Connection, refused: Refused) -> None:
        self.refused.append(refused)


@pytest.fixture
def context(factory: Folder) -> TlsContext:
    chain = factory.certificate_path("delegator-server", "delegator")
    return server_context(chain, chain.with_suffix(".key"), TrustStore.load(factory.ca_path), now)


@pytest.fixture
async def echo(context: TlsContext) -> AsyncIterator[tuple[Echo, Listener, int]]:
    server = Echo()
    listener = Listener(context, server.answer, on_refused=server.note, caps=Caps(4),
                        deadlines=Deadlines(silent=0.3, lingering=0.3))
    _, port = listener.listen("127.0.0.1", 0)
    yield server, listener, port
    if server.hold is not None:
        server.hold.set()
    await listener.close(1)


@pytest.fixture
def endpoint(factory: Folder, device: Callable[[str], Issued]) -> Callable[[int], Endpoint]:
    issued = device("NETS001")
    made = client_context(issued.certificate_path, issued.key_path, TrustStore.load(factory.ca_path), now)
    return lambda port: Endpoint("localhost", port, made, "127.0.0.1", LOOPBACK)


async def test_a_kept_connection_is_used_again(echo: tuple[Echo, Listener, int],
                                               endpoint: Callable[[int], Endpoint]) -> None:
    server, _, port = echo
    there = endpoint(port)
    for body in (b"one", b"two"):
        assert (await call(there, "/", {}, body, 5)).body == body
    assert len(set(server.seen)) == 1
    close(there)


async def test_a_kept_connection_that_died_is_replaced(echo: tuple[Echo, Listener, int],
                                                       endpoint: Callable[[int], Endpoint]) -> None:
    server, listener, port = echo
    there = endpoint(port)
    await call(there, "/", {}, b"one", 5)
    for connection in list(listener._connections):
        connection.abort()
    assert (await call(there, "/", {}, b"two", 5)).body == b"two"
    assert len(set(server.seen)) == 2
    close(there)


async def test_a_large_body_goes_both_ways(echo: tuple[Echo, Listener, int],
                                           endpoint: Callable[[int], Endpoint]) -> None:
    there, body = endpoint(echo[2]), b"x" * 65_000
    assert (await call(there, "/", {}, body, 5)).body == body
    close(there)


async def test_every_call_ends_within_its_budget(echo: tuple[Echo, Listener, int],
                                                 endpoint: Callable[[int], Endpoint]) -> None:
    echo[0].hold = asyncio.Event()
    with pytest.raises(DelegatorError, match=r"no answer within 0\.2 s") as caught:
        await call(endpoint(echo[2]), "/", {}, b"", 0.2)
    assert caught.value.kind is Kind.UNREACHABLE


async def test_who_refuses_us_is_named(factory: Folder, customer_ca: Folder, echo: tuple[Echo, Listener, int]) -> None:
    """Both ends say why: ours as an error, theirs as a recorded refusal."""
    anonymous = client_context(None, None, TrustStore.load(factory.ca_path), now)
    with pytest.raises(DelegatorError, match="certificate required"):
        await call(Endpoint("localhost", echo[2], anonymous, "127.0.0.1", LOOPBACK), "/", {}, b"", 5)
    assert "did not return a certificate" in echo[0].refused[0].detail
    distrustful = client_context(None, None, TrustStore.load(customer_ca.ca_path), now)
    with pytest.raises(DelegatorError, match="unknown authority"):
        await call(Endpoint("localhost", echo[2], distrustful, "127.0.0.1", LOOPBACK), "/", {}, b"", 5)


async def test_over_the_limit_of_connections_a_peer_is_let_go_at_once(echo: tuple[Echo, Listener, int]) -> None:
    silent = [await asyncio.open_connection("127.0.0.1", echo[2]) for _ in range(4)]
    await asyncio.sleep(0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", echo[2])
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 0.2) == b""
    for _, one in [*silent, (reader, writer)]:
        one.close()


async def test_draining_answers_what_is_in_hand_and_takes_no_more(echo: tuple[Echo, Listener, int],
                                                                  endpoint: Callable[[int], Endpoint]) -> None:
    server, listener, port = echo
    server.hold = asyncio.Event()
    asked = asyncio.create_task(call(endpoint(port), "/", {}, b"last", 5))
    while not server.seen:
        await asyncio.sleep(0.01)
    closing = asyncio.create_task(listener.close(5))
    await asyncio.sleep(0.05)
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", port)
    server.hold.set()
    assert (await asked).body == b"last"
    await asyncio.wait_for(closing, 4)
    assert not listener._connections


async def test_a_port_in_use_is_said_plainly(echo: tuple[Echo, Listener, int], context: TlsContext) -> None:
    other = Listener(context, echo[0].answer)
    with pytest.raises(DelegatorError, match="Address already in use") as caught:
        other.listen("127.0.0.1", echo[2])
    assert caught.value.kind is Kind.CONFIGURATION
    assert "another port" in caught.value.hint


async def test_pipelined_requests_are_answered_in_order_and_nonsense_after_them_is_refused(
        echo: tuple[Echo, Listener, int], factory: Folder, device: Callable[[str], Issued]) -> None:
    """One answer for one request; the bytes after a bad one are never answered."""
    tls = ssl.create_default_context(cafile=str(factory.ca_path))
    issued = device("NETS002")
    assert issued.key_path is not None
    tls.load_cert_chain(issued.certificate_path, issued.key_path)
    reader, writer = await asyncio.open_connection("127.0.0.1", echo[2], ssl=tls, server_hostname="localhost")
    one = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"
    writer.write(one + b"a" + one + b"b" + b"\x00\x01\r\n\r\n")
    said = await asyncio.wait_for(reader.read(), 5)
    assert [said.count(b"HTTP/1.1 200"), said.count(b"HTTP/1.1 4") + said.count(b"HTTP/1.1 5")] == [2, 1]
    assert said.index(b"\r\n\r\na") < said.index(b"\r\n\r\nb")
    writer.close()


async def test_no_socket_is_left_behind(echo: tuple[Echo, Listener, int]) -> None:
    """Peers that come and go in every phase leave no connection in the listener's hands."""
    for data in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello"):
        with socket.create_connection(("127.0.0.1", echo[2])) as peer:
            peer.sendall(data)
            await asyncio.sleep(0.02)
    for _ in range(50):
        if not echo[1]._connections:
            break
        await asyncio.sleep(0.02)
    assert not echo[1]._connections


async def test_a_slow_name_holds_one_thread_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolation: a hundred calls to a customer's host whose name server is silent cost one thread; another
    customer's name is looked up meanwhile."""
    asked, let_go = [], threading.Event()

    def slow(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        if host == "slow.example":
            let_go.wait(5)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    waiting = [asyncio.create_task(resolved("slow.example", 443, Outbound())) for _ in range(100)]
    assert (await asyncio.wait_for(resolved("quick.example", 443, Outbound()), 1)).address[0] == "192.0.2.1"
    waiting[0].cancel()
    let_go.set()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(not isinstance(one, BaseException) for one in done) == 99
    assert sorted(asked) == ["quick.example", "slow.example"]
