"""Slow and many: caps by source and on half-open handshakes, every deadline, no amplification (T-C6, T-C7, T-C8), and a
client that sends in pieces waits for nothing but us."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from delegator.net.balancers import balancers_of
from delegator.net.connection import Connection, Phase
from delegator.net.crowds import Caps, Sources, Strangers, source_of
from delegator.net.serve import Deadlines, Listener
from delegator.wire.http import LIMITS, Request, Response
from delegator.wire.presented import presented
from delegator.wire.tls import server_context, serving
from pki import Folder, Issued
from pki.trust import TrustStore

QUICK = Deadlines(silent=0.3, handshake=0.4, request=0.4, idle=0.4, writing=0.4, lingering=0.2)
AT_ONCE = 2.0
"""Seconds, of the five after which any peer would be let go by the product's own deadlines."""
ONE = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na"


@pytest.mark.parametrize(("one", "other", "same"), [
    ("192.0.2.1", "192.0.2.2", False), ("192.0.2.1", "::ffff:192.0.2.1", True),
    ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False), ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
    ("2001:db8:1:2::1", "2001:db8:1:3::1", False), ("fe80::1%eth0", "fe80::2%eth1", True)])
def test_TC7_a_source_is_an_ipv4_address_or_an_ipv6_64(one: str, other: str, same: bool) -> None:
    assert (source_of(one) == source_of(other)) is same


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3))))
def test_TC7_counts_are_exact_and_take_no_memory_when_all_are_gone(steps: list[tuple[bool, int]]) -> None:
    sources, standing = Sources(), dict.fromkeys(range(4), 0)
    for enters, number in steps:
        if enters:
            let_in = sources.enter(str(number), 2)
            assert let_in is (standing[number] < 2)
            standing[number] += let_in
        elif standing[number]:
            sources.leave(str(number))
            standing[number] -= 1
    assert len(sources) == sum(count > 0 for count in standing.values())


def test_TC7_the_oldest_stranger_gives_way_and_who_has_shown_itself_never_does() -> None:
    strangers: Strangers[int] = Strangers()
    assert [strangers.enter(number, 3) for number in range(3)] == [None] * 3
    strangers.leave(0)
    assert [strangers.enter(number, 3) for number in range(3, 6)] == [None, 1, 2]


class Door:
    """A listener, and a handler that can be held."""

    def __init__(self, factory: Folder, issued: Issued, caps: Caps, deadlines: Deadlines) -> None:
        chain = factory.certificate_path("delegator-server", "delegator")
        context = server_context(chain, chain.with_suffix(".key"), TrustStore.load(factory.ca_path),
                                 lambda: datetime.now(UTC))
        self.answered = 0
        self.open = asyncio.Event()
        self.open.set()
        self.body = b"done"
        self.vouched = b""
        self.listener = Listener(context, self.answer, caps=caps, deadlines=deadlines)
        _, self.port = self.listener.listen("127.0.0.1", 0)
        self.tls = ssl.create_default_context(cafile=str(factory.ca_path))
        assert issued.key_path is not None
        self.tls.load_cert_chain(issued.certificate_path, issued.key_path)

    async def answer(self, request: Request, connection: Connection) -> Response:
        await self.open.wait()
        if self.vouched and request.headers.get(b"x-vouch") == self.vouched:
            connection.vouch()
        self.answered += 1
        return Response(200, {b"Content-Type": b"text/plain"}, self.body)

    async def connect(self, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, server_hostname="localhost",
                                             local_addr=(source, 0))

    async def raw(self, source: str = "127.0.0.1", said: bytes = b"") -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0))
        writer.write(said)
        self._kept = [*getattr(self, "_kept", []), writer]  # else it is closed when nobody holds it
        return reader

    def let_go(self) -> None:
        for writer in getattr(self, "_kept", []):
            writer.close()


@contextlib.asynccontextmanager
async def door_of(factory: Folder, device: Callable[[str], Issued], deadlines: Deadlines = QUICK, **caps: int):
    door = Door(factory, device("CROWD01"), Caps(**caps), deadlines)
    try:
        yield door
    finally:
        door.open.set()
        door.let_go()
        await door.listener.close(1)
        assert not door.listener._connections
        assert len(door.listener._sources) == len(door.listener._strangers) == 0


async def served(door: Door, source: str = "127.0.0.1") -> bytes:
    reader, writer = await door.connect(source)
    writer.write(ONE.replace(b"Host: x", b"Host: x\r\nConnection: close"))
    said = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return said


async def kept(door: Door) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
    """The head of an answer, and the connection that it came by."""
    reader, writer = await door.connect()
    writer.write(ONE)
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(len(door.body))
    return head, reader, writer


async def test_TC7_where_half_the_places_are_taken_none_is_kept_for_a_request_that_may_come(factory, device) -> None:
    """Devices keep their connection while their hook runs: at a site that powers up they would keep each other out."""
    async with door_of(factory, device, per_source=4) as door:
        found = [await kept(door) for _ in range(6)]
        assert [b"Connection: close" in head for head, _, _ in found] == [False, False, True, True, True, True]
        for _, _, writer in found:
            writer.close()


async def test_R_trail_what_lies_between_two_requests_is_no_time_of_ours(factory, device, monkeypatch) -> None:
    """The trail of a kept connection's second request begins with its first byte, not before a hook of ten seconds."""
    began: list[int] = []
    whole = Door.answer

    async def answer(door: Door, request: Request, connection: Connection) -> Response:
        began.append(connection.connected_at)
        assert connection.connected_at <= connection.authenticated_at
        return await whole(door, request, connection)
    monkeypatch.setattr(Door, "answer", answer)
    async with door_of(factory, device) as door:
        _, reader, writer = await kept(door)
        await asyncio.sleep(0.2)
        writer.write(ONE)
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
    assert began[1] - began[0] >= 200_000_000



async def gone_within(reader: asyncio.StreamReader, seconds: float) -> float:
    """Seconds until the other side closed."""
    begin = time.monotonic()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await asyncio.wait_for(reader.read(), seconds)
    return time.monotonic() - begin


async def test_TC7_one_source_cannot_use_up_the_places_of_others(
        factory: Folder, device: Callable[[str], Issued]) -> None:
    async with door_of(factory, device, Deadlines(), per_source=3) as door:
        for _ in range(3):
            await door.raw()
        assert await gone_within(await door.raw(), AT_ONCE) < AT_ONCE, "its fourth is let go at once"
        assert (await served(door, "127.0.0.2")).endswith(b"done"), "another's first is served"
        assert door.listener.turned_away == 1
        door.let_go()
        async with asyncio.timeout(AT_ONCE):
            while door.listener._connections:
                await asyncio.sleep(0.01)
        assert (await served(door)).endswith(b"done"), "and so is this one, once its slow ones are gone"


async def test_TC7_where_no_certificate_is_needed_who_shows_nothing_gives_way_to_who_does(
        factory: Folder, device: Callable[[str], Issued]) -> None:
    """The reference delegate: devices show a password there, and delegators a certificate."""
    async with door_of(factory, device, Deadlines(), connections=100, half_open=3) as door:
        chain = factory.certificate_path("delegator-server", "delegator")
        door.listener.context = serving(presented(chain, chain.with_suffix(".key")), TrustStore.load(factory.ca_path),
                                        lambda: datetime.now(UTC), require_certificate=False)
        door.vouched = b"by a password"
        nothing = ssl.create_default_context(cafile=str(factory.ca_path))

        async def anonymous(said: bytes = b"") -> asyncio.StreamReader:
            reader, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=nothing,
                                                           server_hostname="localhost")
            writer.write(said)
            door._kept = [*getattr(door, "_kept", []), writer]
            return reader
        known = await anonymous(ONE.replace(b"Host", b"X-Vouch: by a password\r\nHost"))
        assert (await known.readuntil(b"done")).endswith(b"done")
        idle = [await anonymous() for _ in range(3)]
        assert (await served(door)).endswith(b"done"), "a certificate is served beside a full line of strangers"
        assert await gone_within(idle[0], AT_ONCE) < AT_ONCE, "in the place of who was longest there and showed nothing"
        for _ in range(6):
            await anonymous()
        assert not known.at_eof(), "who has shown a password stays"


async def test_TC7_many_silent_peers_give_way_to_one_that_speaks(
        factory: Folder, device: Callable[[str], Issued]) -> None:
    async with door_of(factory, device, Deadlines(), half_open=5) as door:
        silent = [await door.raw() for _ in range(5)]
        assert (await served(door)).endswith(b"done")
        assert await gone_within(silent[0], AT_ONCE) < AT_ONCE, "the one that was silent for longest"
        assert door.listener.turned_away == 1


async def test_TC7_behind_a_balancer_the_device_is_the_source_and_not_the_balancer(
        factory: Folder, device: Callable[[str], Issued]) -> None:
    async with door_of(factory, device, Deadlines(), per_source=1) as door:
        door.listener.balancers = balancers_of(("127.0.0.0/8",))
        header = b"PROXY TCP4 192.0.2.%d 192.0.2.9 4000 4433\r\n"
        readers = [await door.raw(said=header % number + b"\x16") for number in (1, 2, 3)]
        await asyncio.sleep(0.05)
        assert len(door.listener._sources) == 3
        assert await gone_within(await door.raw(said=header % 3), AT_ONCE) < AT_ONCE
        assert not any(reader.at_eof() for reader in readers)


async def held(door: Door, phase: Phase) -> asyncio.StreamReader:
    """The reading end of a connection that stays in a phase for as long as it may."""
    if phase is Phase.SILENT:
        return await door.raw()
    if phase is Phase.HANDSHAKE:
        return await door.raw(said=b"\x16\x03\x01\x02\x00\x01")
    if phase is Phase.LINGERING:
        return await door.raw(said=b"GET / HTTP/1.1\r\n\r\n")
    reader, writer = await door.connect()
    door._kept = [*getattr(door, "_kept", []), writer]  # type: ignore[attr-defined]
    if phase is Phase.REQUEST:
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Le")
    return reader


@pytest.mark.parametrize("phase", [Phase.SILENT, Phase.HANDSHAKE, Phase.IDLE, Phase.REQUEST, Phase.LINGERING])
async def test_TC6_each_phase_has_an_end(factory: Folder, device: Callable[[str], Issued], phase: Phase) -> None:
    async with door_of(factory, device) as door:
        reader = await held(door, phase)
        for _ in range(50):
            if door.listener.phases()[phase.value]:
                break
            await asyncio.sleep(0.005)
        assert door.listener.phases()[phase.value] == 1
        begin = time.monotonic()
        while door.listener._connections and time.monotonic() < begin + 2:
            await asyncio.sleep(0.02)
        assert time.monotonic() - begin < QUICK.by_phase[phase] + 0.6
        await gone_within(reader, 1)


@pytest.mark.parametrize("drips", [b"POST / HTTP/1.1\r\nHost: x\r\nX-Y: " + b"z" * 400,
                                   b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n\r\n" + b"z" * 400])
async def test_TC6_a_byte_now_and_then_buys_no_time(
        factory: Folder, device: Callable[[str], Issued], drips: bytes) -> None:
    """Head and body have one deadline together, from the first byte."""
    async with door_of(factory, device) as door:
        _, writer = await door.connect()
        begin = time.monotonic()
        for number in range(len(drips)):
            writer.write(drips[number:number + 1])
            await asyncio.sleep(0.01)
            if not door.listener._connections:
                break
        assert time.monotonic() - begin < QUICK.request + 0.6
        writer.close()


async def test_TC6_who_does_not_read_its_answer_loses_the_connection(
        factory: Folder, device: Callable[[str], Issued]) -> None:
    async with door_of(factory, device) as door:
        door.listener._sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)  # inherited
        door.body = b"x" * 1_000_000
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", door.port))
        _, writer = await asyncio.open_connection(sock=raw, ssl=door.tls, server_hostname="localhost", limit=16_384)
        writer.transport.pause_reading()
        writer.write(ONE)
        while not door.listener.phases()["writing"]:
            await asyncio.sleep(0.01)
        begin = time.monotonic()
        while door.listener._connections and time.monotonic() < begin + 2:
            await asyncio.sleep(0.02)
        assert 0.1 < time.monotonic() - begin < QUICK.writing + 0.8
        writer.transport.abort()


async def test_TC8_requests_are_read_ahead_by_a_few_whatever_a_peer_pipes(
        factory: Folder, device: Callable[[str], Issued]) -> None:
    """While the first is answered the rest waits in the peer's own buffers; then all are answered, in order."""
    many = 400
    async with door_of(factory, device) as door:
        door.listener.requests_per_connection = many
        door.open.clear()
        reader, writer = await door.connect()
        for _ in range(many):
            writer.write(ONE)
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)
        (connection,) = door.listener._connections
        assert len(connection._requests) <= 2 * LIMITS.ahead
        assert door.answered == 0
        door.open.set()
        said = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        assert said.count(b"HTTP/1.1 200") == door.answered
        assert door.answered == many or b"429" in said


async def test_TC5_nonsense_behind_a_request_in_hand_waits_for_its_answer(
        factory: Folder, device: Callable[[str], Issued]) -> None:
    async with door_of(factory, device) as door:
        door.open.clear()
        reader, writer = await door.connect()
        writer.write(ONE)
        await asyncio.sleep(0.05)
        writer.write(b"\x00\x01 nonsense\r\n\r\n")
        await asyncio.sleep(0.05)
        door.open.set()
        said = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        assert said.startswith(b"HTTP/1.1 200")
        assert said.count(b"HTTP/1.1 501") == 1


async def test_TC7_out_of_descriptors_is_waited_out_without_a_busy_loop(
        factory: Folder, device: Callable[[str], Issued], caplog: pytest.LogCaptureFixture) -> None:
    async with door_of(factory, device) as door:
        (listening,) = door.listener._sockets

        class Exhausted:
            """The listening socket while no descriptor is left."""

            def fileno(self) -> int:
                return listening.fileno()

            def accept(self) -> tuple[socket.socket, object]:
                raise OSError(24, "Too many open files")

        poor = Exhausted()
        door.listener._sockets[0] = poor  # type: ignore[call-overload]
        door.listener.loop.add_reader(listening.fileno(), door.listener._accept, poor)
        waiting = asyncio.create_task(served(door))
        await asyncio.sleep(0.35)
        door.listener._sockets[0] = listening
        assert 1 <= caplog.text.count("Too many open files") <= 6
        door.listener.loop.add_reader(listening.fileno(), door.listener._accept, listening)
        assert (await waiting).endswith(b"done")


async def test_TC7_tls_that_breaks_while_an_answer_is_made_ends_without_a_word_of_an_exception(
        factory: Folder, device: Callable[[str], Issued]) -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with door_of(factory, device) as door:
        door.listener.deadlines = replace(door.listener.deadlines, lingering=30.0)
        door.open.clear()
        _, writer = await door.connect()
        writer.write(ONE)
        while Phase.ANSWERING not in {one.phase for one in door.listener._connections}:
            await asyncio.sleep(0.01)
        writer.transport.pause_reading()  # it hears no alert, and stays
        os.write(writer.get_extra_info("socket").fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))
        while Phase.LINGERING not in {one.phase for one in door.listener._connections}:
            await asyncio.sleep(0.01)
        door.open.set()
        await asyncio.sleep(0.05)
        writer.transport.abort()
        while door.listener._connections:
            await asyncio.sleep(0.01)
    gc.collect()
    assert told == []


async def test_R_drained_after_the_end_nobody_works_on_an_answer(
        factory: Folder, device: Callable[[str], Issued]) -> None:
    """What it would still do, it would do in a store that is closed."""
    async with door_of(factory, device) as door:
        door.open.clear()
        _, writer = await door.connect()
        writer.write(ONE)
        while not door.listener.phases()[Phase.ANSWERING.value]:
            await asyncio.sleep(0.01)
        await door.listener.close(0.05)
        assert [task for task in asyncio.all_tasks() if "Connection._answer" in repr(task)] == []
        writer.transport.abort()


def _unacknowledged(sock: socket.socket) -> int:
    """Segments sent and not acknowledged: tcpi_unacked of Linux's struct tcp_info."""
    return int(struct.unpack_from("I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 24)[0])


def _seconds_to_acknowledgement(sock: socket.socket) -> float:
    began = time.monotonic()
    while _unacknowledged(sock):
        assert time.monotonic() < began + 2
    return time.monotonic() - began


def _in_pieces(port: int, tls: ssl.SSLContext) -> tuple[float, float]:
    """A client with Nagle's algorithm, as TLS libraries leave it: its Finished, a head, and then the rest."""
    with socket.create_connection(("127.0.0.1", port), 5) as raw, tls.wrap_socket(raw, server_hostname="localhost") as (
            secured):
        finished = _seconds_to_acknowledgement(secured)
        secured.sendall(ONE[:-1])
        head = _seconds_to_acknowledgement(secured)
        secured.sendall(ONE[-1:])
        assert secured.recv(100).startswith(b"HTTP/1.1 200 ")
    return finished, head


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="Linux alone can be told")
async def test_A10_who_sends_in_pieces_is_acknowledged_at_once(factory, device):
    """The kernel would wait 40 ms and more for an answer to send the acknowledgement with; the least of five tells."""
    async with door_of(factory, device) as door:
        waited = [await asyncio.to_thread(_in_pieces, door.port, door.tls) for _ in range(5)]
    assert min(finished for finished, _ in waited) < 0.03
    assert min(head for _, head in waited) < 0.03
