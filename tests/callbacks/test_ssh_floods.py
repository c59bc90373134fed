"""Callback `ssh` and servers that flood: what asyncssh is given is bounded for a call and for a turn of the loop.
T-B11.

No clock: bytes are counted where asyncssh gets them, packets where it has dealt with them.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import asyncssh
import pytest
from asyncssh.packet import String, UInt32

from delegator.callbacks import ssh_packets
from delegator.callbacks.ssh import SshCaller
from delegator.callbacks.ssh_packets import BATCH
from delegator.callbacks.ssh_session import BOUNDS, PACKET
from delegator.errors import DelegatorError, Kind
from delegator.model import Credential, Delegate, SshCallback
from delegator.net.turnstile import TURN
from delegator.outbound import Outbound, networks
from delegator.wire.ration import AROUND

from .conftest import asked
from .hostile_sshd import MANY, PACKETS, answers, connection_of, flooding, raw, sshd

LOOPBACK = Outbound(networks(("127.0.0.0/8",)))
USELESS = BOUNDS.most + TURN
"""Bytes of no use that asyncssh may be given in one call, the last look included."""
PIECES = BOUNDS.pieces * (AROUND + 1)
"""What stands around pieces of a byte."""


class Digested:
    """What asyncssh was given: in all, and in each turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.turns: dict[int, int] = collections.Counter()
        self.packets = 0
        self._loop, self._now, self.over = loop, 0, False
        self._next()

    def _next(self) -> None:
        self._now += 1
        if not self.over:
            self._loop.call_soon(self._next)

    def add(self, size: int) -> None:
        self.turns[self._now] += size

    @property
    def bytes(self) -> int:
        return sum(self.turns.values())


@pytest.fixture
async def digested(monkeypatch: pytest.MonkeyPatch) -> Any:
    seen = Digested(asyncio.get_running_loop())
    ours = asyncssh.SSHClientConnection.data_received

    def data_received(self: Any, data: bytes, datatype: Any = None) -> None:
        seen.add(len(data))
        ours(self, data, datatype)
    monkeypatch.setattr(asyncssh.SSHClientConnection, "data_received", data_received)
    done = asyncssh.SSHClientConnection._finish_recv_packet

    def finished(self: Any, *arguments: Any, **named: Any) -> None:
        seen.packets += 1
        done(self, *arguments, **named)
    monkeypatch.setattr(asyncssh.SSHClientConnection, "_finish_recv_packet", finished)
    yield seen
    seen.over = True


async def ask(callback: SshCallback) -> Credential:
    async with asyncio.timeout(30):
        return await SshCaller(LOOPBACK).obtain(asked(), Delegate("acme-ssh", "acme", callback), datetime.now(UTC))


async def refused(callback: SshCallback) -> str:
    with pytest.raises(DelegatorError) as error:
        await ask(callback)
    assert error.value.kind is Kind.UNREACHABLE, "the device is told to try later"
    return error.value.detail


async def test_TB11_a_server_that_answers_is_far_from_its_bounds(digested: Digested) -> None:
    async with sshd(answers) as callback:
        assert (await ask(callback)).password.reveal() == "p"
    assert digested.bytes < BOUNDS.most / 3
    assert digested.packets < BOUNDS.packets / 2, "its own ones before each of another kind among them"


@pytest.mark.parametrize("kind", PACKETS)
async def test_TB11_a_flood_of_packets_ends_the_call_and_most_of_it_is_never_digested(
        kind: str, digested: Digested, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some asyncssh ends by itself."""
    monkeypatch.setattr(ssh_packets, "PAUSE", 0.0)
    async with sshd(flooding(kind)) as callback:
        detail = await refused(callback)
    assert "and was cut off" in detail or kind in ("extensions", "a channel of its own"), detail
    assert detail.startswith("delegate acme-ssh: ")
    assert "byte" not in kind or "packets" not in detail, "output is of use from the first piece on"
    assert digested.packets <= BOUNDS.packets + (2 * BOUNDS.pieces if "byte" in kind else 0)
    assert digested.bytes <= USELESS + (PIECES if "byte" in kind else 0) < MANY * 36
    assert max(digested.turns.values()) <= 2 * TURN


async def test_TB11_sixteen_floods_are_given_no_more_in_a_turn_than_one_and_a_good_server_is_served_meanwhile(
        digested: Digested) -> None:
    async with sshd(flooding("ignore")) as hostile, sshd(answers) as good:
        floods = [asyncio.create_task(refused(hostile)) for _ in range(16)]
        assert (await ask(good)).user_name == "u"
        assert {await flood for flood in floods} == {
            f"delegate acme-ssh: it sent more than {BOUNDS.packets} packets that are no answer and was cut off"}
    assert max(digested.turns.values()) <= 2 * TURN
    assert digested.packets <= 17 * BOUNDS.packets
    assert digested.bytes <= 17 * USELESS


async def test_TB11_packets_without_an_answer_may_be_few_and_long_up_to_a_number_of_bytes(digested: Digested) -> None:
    def command(process: asyncssh.SSHServerProcess[str]) -> None:
        for _ in range(5):
            connection_of(process).send_packet(2, String(bytes(10_000)))

    async with sshd(command) as callback:
        assert await refused(callback) == (
            f"delegate acme-ssh: it sent more than {BOUNDS.most} {BOUNDS.most_of} and was cut off")
    assert digested.bytes <= USELESS


async def test_TB11_output_in_scraps_is_taken_in_batches_once_it_has_had_its_quick_pieces(
        digested: Digested, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause that does not end shows what is taken at once; each that ends, one batch."""
    def command(process: asyncssh.SSHServerProcess[str]) -> None:
        for _ in range(BOUNDS.pieces):
            process.stderr.write("x" * 200)
        answers(process)

    loop = asyncio.get_running_loop()
    pauses: list[Callable[[], None]] = []
    later = loop.call_later

    def noted(seconds: float, what: Callable[..., None], *arguments: Any) -> Any:
        return pauses.append(what) if seconds == ssh_packets.PAUSE else later(seconds, what, *arguments)
    monkeypatch.setattr(loop, "call_later", noted)
    async with sshd(command) as callback:
        asking = asyncio.create_task(ask(callback))
        for batch in range(3):
            async with asyncio.timeout(3):
                while len(pauses) == batch:
                    await asyncio.sleep(0.001)
            await asyncio.sleep(0.005)
            assert len(pauses) == batch + 1
            assert digested.packets <= BOUNDS.packets / 2 + 2 * BOUNDS.quick + batch * BATCH
            assert digested.packets >= BOUNDS.quick + batch * BATCH
            pauses[-1]()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_TB11_much_output_in_scraps_is_taken_whole_as_what_waits_stays_with_the_peer(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is not yet opened would count as useless."""
    monkeypatch.setattr(ssh_packets, "PAUSE", 0.005)

    def command(process: asyncssh.SSHServerProcess[str]) -> None:
        for _ in range(100):
            process.stderr.write("x" * 600)
        answers(process)

    async with sshd(command) as callback:
        assert (await ask(callback)).password.reveal() == "p"


async def test_TB11_keys_are_exchanged_once_in_a_call(digested: Digested) -> None:
    def command(process: asyncssh.SSHServerProcess[str]) -> None:
        connection = connection_of(process)
        connection._send_kexinit()
        connection._kexinit_sent = True

    async with sshd(command) as callback:
        assert await refused(callback) == (
            "delegate acme-ssh: it asked for new keys in the middle of a call and was cut off")


async def test_TB11_banners_before_the_login_are_bounded(digested: Digested) -> None:
    def banners(connection: Any) -> None:
        for _ in range(MANY):
            connection.send_packet(53, String(b""), String(b""))

    async with sshd(answers, before=banners) as callback:
        assert "packets that are no answer and was cut off" in await refused(callback)
    assert digested.packets <= BOUNDS.packets


@pytest.mark.parametrize("says", [b"x" * 8000 + b"\r\n", b"\r\n", b"SSH-2.0-x\r\n" + b"\0\0\0\x0c\x0a\x02" + b"\0" * 10,
                                  b"SSH-2.0-x\r\n\0\0\x80\0\x04\x14" + b"," * 32_000])
async def test_TB11_what_is_said_before_there_are_keys_is_bounded(says: bytes, digested: Digested) -> None:
    """Lines before the version (RFC 4253 section 4.2), packets without data, lists of algorithms."""
    head, line, body = says.rpartition(b"SSH-2.0-x\r\n")
    async with raw(lambda writer: writer.write(head + line + body * (200_000 // len(body)))) as callback:
        assert "no SSH connection: " in await refused(callback)
    assert digested.bytes <= USELESS


async def test_TB11_a_reason_of_the_servers_is_one_short_line_without_controls() -> None:
    def before(connection: Any) -> None:
        connection.send_packet(1, UInt32(2), String("\x1b[2Jboo\u202e" + "x" * 9000 + "\nsecond"), String(b""))

    async with sshd(answers, before=before) as callback:
        detail = await refused(callback)
    assert "\\x1b[2Jboo\\u202ex" in detail
    assert detail.isprintable()
    assert len(detail) < 400


@pytest.mark.parametrize("option", [
    {"kex_algs": ["diffie-hellman-group18-sha512", "diffie-hellman-group-exchange-sha256", "rsa2048-sha256"]},
    {"encryption_algs": ["chacha20-poly1305@openssh.com"]},
    {"compression_algs": ["zlib@openssh.com"]}])
async def test_TB11_what_would_be_dear_is_not_offered(option: dict[str, list[str]]) -> None:
    """A group as large as the peer likes, packets at three times the price, bytes that grow as they are read."""
    async with sshd(answers, **option) as callback:
        assert "no SSH connection: No matching " in await refused(callback)


async def test_TB11_output_in_small_pieces_is_taken_up_to_a_number_that_no_script_reaches(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_packets, "PAUSE", 0.001)

    def command(process: asyncssh.SSHServerProcess[str]) -> None:
        for letter in "<Credential><UserName>u</UserName><Password>p</Password></Credential>":
            process.stdout.write(letter)
        process.stderr.write("+ set -x\n" * 100)
        process.exit(0)

    async with sshd(command) as callback:
        assert (await ask(callback)).password.reveal() == "p"


async def test_TB11_long_output_comes_in_packets_that_are_never_mistaken_for_useless(digested: Digested) -> None:
    def command(process: asyncssh.SSHServerProcess[str]) -> None:
        process.stderr.write("x" * 60_000)
        answers(process)

    async with sshd(command) as callback:
        assert (await ask(callback)).password.reveal() == "p"
    assert BOUNDS.most / 2 > PACKET
    assert digested.bytes > 60_000
