"""Which name server is asked, how often, and what is said when none helps. T-B4. No network, but for one closed
port."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from pathlib import Path

import pytest

from delegator.domains import DnsTrouble
from delegator.net import dns
from delegator.net.dns import Answer, Place, Resolver
from delegator.wire.dns_message import AAAA, PTR, A, Question, Said

FIRST, SECOND = ("192.0.2.53", 53), ("2001:db8::53", 5353)
SERVERS = ("192.0.2.53", "[2001:db8::53]:5353")
FOUND = Said((bytes((192, 0, 2, 1)),), 60)


class Servers:
    """Each answers what stands for it, one after the other, the last again and again; None is silence."""

    def __init__(self, **answers: list[Said | Exception | None]) -> None:
        self._answers = {FIRST: answers["first"], SECOND: answers["second"]}
        self.asked: list[tuple[Place, Question]] = []

    async def exchange(self, server: Place, question: Question) -> Said:
        self.asked.append((server, question))
        answers = self._answers[server]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Said)
        return answer

    @property
    def order(self) -> list[int]:
        return [(FIRST, SECOND).index(server) + 1 for server, _ in self.asked]

    async def ask(self) -> Answer[dns.Address]:
        return await Resolver(SERVERS, 0.01, 0.2, self.exchange).addresses("rack1.customer.test", 4)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "REST", 0.001)


async def test_the_first_server_is_asked_and_the_others_are_told_nothing() -> None:
    servers = Servers(first=[FOUND], second=[FOUND])
    assert await servers.ask() == Answer((ipaddress.ip_address("192.0.2.1"),), 60)
    assert servers.order == [1]


@pytest.mark.parametrize("wrong", [ValueError("an answer with the code SERVFAIL"), OSError(111, "refused"), EOFError()])
async def test_a_server_that_errs_is_not_asked_again_and_the_next_one_is(wrong: Exception) -> None:
    servers = Servers(first=[wrong], second=[None, None, FOUND])
    assert (await servers.ask()).ttl == 60
    assert servers.order == [1, 2, 2, 2]


async def test_a_silent_server_is_asked_again_after_the_others() -> None:
    servers = Servers(first=[None, FOUND], second=[None])
    assert (await servers.ask()).ttl == 60
    assert servers.order == [1, 2, 1]


async def test_where_none_is_left_each_says_why() -> None:
    servers = Servers(first=[ValueError("an answer with the code REFUSED")], second=[OSError(111, "refused")])
    with pytest.raises(DnsTrouble) as trouble:
        await servers.ask()
    assert str(trouble.value) == ("rack1.customer.test A: 192.0.2.53:53: an answer with the code REFUSED; "
                                  "[2001:db8::53]:5353: refused")
    assert servers.order == [1, 2]


async def test_silence_ends_with_the_time_for_all_tries() -> None:
    servers = Servers(first=[None], second=[ValueError("nonsense")])
    with pytest.raises(DnsTrouble, match=r"nonsense; no answer within 0\.2 s"):
        await servers.ask()
    assert len(servers.order) > 3


async def test_TB4_each_question_has_a_number_of_its_own_that_nobody_can_guess() -> None:
    servers = Servers(first=[FOUND], second=[FOUND])
    for _ in range(64):
        await servers.ask()
    numbers = [question.number for _, question in servers.asked]
    assert len(set(numbers)) > 60
    assert min(numbers) < 2**15 <= max(numbers) < 2**16


async def test_what_is_asked_for_an_address_and_for_a_name() -> None:
    servers = Servers(first=[Said()], second=[Said()])
    resolver = Resolver(SERVERS, 1, 1, servers.exchange)
    await resolver.names(ipaddress.ip_address("192.0.2.1"))
    await resolver.names(ipaddress.ip_address("2001:db8::1"))
    await resolver.addresses("Rack1.customer.test.", 6)
    assert [(b".".join(question.name), question.kind) for _, question in servers.asked] == [
        (b"1.2.0.192.in-addr.arpa", PTR), (b"1.0.0.0" + b".0" * 20 + b".8.b.d.0.1.0.0.2.ip6.arpa", PTR),
        (b"Rack1.customer.test", AAAA)]
    await resolver.addresses("rack1.customer.test", 4)
    assert servers.asked[-1][1].kind == A


async def test_TB4_what_is_no_name_of_the_dns_is_trouble() -> None:
    servers = Servers(first=[FOUND], second=[FOUND])
    for name in ("a..b", "x" * 64, "r\N{LATIN SMALL LETTER U WITH DIAERESIS}ck.test"):
        with pytest.raises(DnsTrouble):
            await Resolver(SERVERS, 0.1, 0.1).addresses(name, 4)
    assert servers.asked == []


def test_servers_of_the_system_are_those_of_resolv_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "RESOLV", tmp_path / "resolv.conf")
    with pytest.raises(ValueError, match="names no name server"):
        Resolver((), 1, 1)
    dns.RESOLV.write_text("# nameserver 192.0.2.9\nsearch test\nnameserver 192.0.2.53\n nameserver\t2001:db8::53 \n")
    assert Resolver((), 1, 1)._servers == [("192.0.2.53", 53), ("2001:db8::53", 53)]


async def test_over_ipv6_too() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        try:
            server.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        server.setblocking(False)
        asking = asyncio.create_task(
            Resolver((f"[::1]:{server.getsockname()[1]}",), 3, 3).addresses("rack1.customer.test", 4))
        question, peer = await asyncio.get_running_loop().sock_recvfrom(server, 512)
        server.sendto(question[:2] + b"\x81\x83" + question[4:10] + b"\0\0" + question[12:-11], peer)
        assert (await asking).values == ()
