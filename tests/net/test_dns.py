"""Reverse DNS against BIND, and against a server that stays silent, lies, floods and breaks off (A5, T-B4)."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import pytest
from publicsuffixlist import PublicSuffixList

from delegator import config
from delegator.domains import DnsTrouble, Naming
from delegator.errors import DelegatorError, Kind
from delegator.net import reverse
from delegator.net.dns import LOOKS, Resolver, _message, place
from delegator.net.reverse import Domains, load_domains

from .name_servers import LABEL, PretendDns, bind, pretend

pytestmark = pytest.mark.slow

SUFFIXES = PublicSuffixList().privatesuffix
CONFIRMED = "forward-confirmed"


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with bind(tmp_path_factory.mktemp("named")) as address:
        yield address


@pytest.fixture
def server() -> Iterator[PretendDns]:
    made = pretend()
    yield made
    made.close()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def domains(address: str, *, budget: float = 5.0, most: int = 100, clock: Clock | None = None) -> Domains:
    resolver = Resolver((address,), budget / 4, budget)
    return Domains(resolver, SUFFIXES, Naming(LABEL), budget=budget, most=most, clock=clock or Clock())


# --- the walk, by BIND --------------------------------------------------------------------------------------------

FOUND = {
    "192.0.2.1": ("customer.test", "127.0.0.1"),
    "::ffff:192.0.2.1": ("customer.test", "127.0.0.1"),
    "2001:db8::7": ("customer.test", "127.0.0.1"),
    "192.0.2.2": ("lab.customer.test", "203.0.113.9"),
    "192.0.2.5": ("customer.test", "127.0.0.1"),
    "192.0.2.6": ("customer.test", "127.0.0.1"),
    "192.0.2.14": ("customer.test", "127.0.0.1"),
}
"""Plain; mapped; IPv6; the longest domain, its delegate behind a CNAME, in mixed case; PTR and address behind CNAMEs
(RFC 2317); many names with many addresses each; a name of 219 characters."""
REFUSED = {
    "192.0.2.3": "host www.customer.test, whose own address it is not",
    "192.0.2.4": "host ghost.customer.test, whose own address it is not",
    "192.0.2.7": "ambiguous: in several domains",
    "192.0.2.8": f"no domain of it has a host {LABEL}",
    "192.0.2.9": "in no domain",
    "192.0.2.10": f"no domain of it has a host {LABEL}",
    "192.0.2.11": "no host name",
    "192.0.2.13": "ambiguous: domains customer.test, lab.customer.test have a delegate each",
    "192.0.2.16": f"no domain of it has a host {LABEL}",
    "192.0.2.99": "no host name",
    "2001:db8::99": "no host name",
}
"""Spoofed PTR; no forward record; two owners; a look-alike; a public suffix that has a delegate's name beside it; a
domain itself; hostile characters; two domains of one owner; a domain right below a suffix; nothing."""


@pytest.mark.counterpart("named")
@pytest.mark.parametrize("peer", FOUND)
async def test_a5_an_address_leads_to_the_longest_domain_with_a_delegate(named: str, peer: str) -> None:
    finding = await domains(named).find(peer)
    assert (finding.domain, finding.delegate_address) == FOUND[peer], finding.because
    assert finding.because.startswith(f"reverse DNS of {peer.removeprefix('::ffff:')}: host ")
    assert finding.because.endswith(f"{CONFIRMED}, domain {FOUND[peer][0]}")
    assert not finding.late


@pytest.mark.counterpart("named")
@pytest.mark.parametrize("peer", REFUSED)
async def test_TB4_names_that_prove_nothing_lead_nowhere_and_say_why(named: str, peer: str) -> None:
    finding = await domains(named).find(peer)
    assert (finding.domain, finding.late) == (None, False)
    assert finding.because.endswith(REFUSED[peer])
    assert finding.because.isprintable()


@pytest.mark.counterpart("named")
async def test_TB4_a_loop_of_cnames_ends(named: str) -> None:
    assert (await domains(named).find("192.0.2.12")).domain is None


# --- a server that misbehaves -------------------------------------------------------------------------------------


async def test_TB4_a_private_address_is_not_asked_about_unless_its_network_is_allowed(server: PretendDns) -> None:
    nobody = domains(server.address)
    for peer in ("127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.9.9", "100.64.0.1", "169.254.1.1", "::1",
                 "fe80::1%eth0", "fd00::1", "::ffff:10.1.2.3", "64:ff9b::a00:1", "2002:a00:1::1", "0.0.0.0", "",
                 "/run/socket"):
        finding = await nobody.find(peer)
        assert finding.domain is None
        assert not finding.late
    assert server.asked == []
    settings = config.Domains(enabled=True, nameservers=(server.address,), private_networks=("127.0.0.0/30",))
    allowed = load_domains(settings)
    assert allowed is not None
    assert (await allowed.find("127.0.0.2")).domain == "customer.test"
    assert "[domains] private_networks" in (await allowed.find("127.0.0.9")).because


@pytest.mark.parametrize("way", ["servfail", "garbage", "silent", "another question"])
@pytest.mark.parametrize("name", ["1.2.0.192.in-addr.arpa.", "rack1.customer.test.", f"{LABEL}.customer.test."])
async def test_TB4_a_dns_in_trouble_is_no_verdict_on_the_device(server: PretendDns, way: str, name: str) -> None:
    server.ways[name] = way
    finding = await domains(server.address, budget=0.25).find("192.0.2.1")
    assert finding.late
    assert finding.domain is None
    assert finding.because.isprintable()


async def test_TB4_trouble_with_the_longer_domain_does_not_lead_to_the_shorter(server: PretendDns) -> None:
    server.ways[f"{LABEL}.lab.customer.test."] = "servfail"
    assert (await domains(server.address).find("192.0.2.2")).late


@pytest.mark.parametrize("way", ["forged before", "truncated"])
async def test_TB4_wrong_ids_are_ignored_and_cut_answers_asked_for_again_by_tcp(server: PretendDns, way: str) -> None:
    server.ways[""] = way
    finding = await domains(server.address).find("192.0.2.1")
    assert finding.domain == "customer.test"
    assert finding.delegate_address == "127.0.0.1"
    transports = {transport for _, _, transport in server.asked}
    assert transports == ({"udp", "tcp"} if way == "truncated" else {"udp"})


async def test_TB4_many_names_and_addresses_come_by_tcp_and_eight_names_are_looked_at(server: PretendDns) -> None:
    names = [f"f{n:03}.customer.test." for n in range(68)]
    server.records["20.2.0.192.in-addr.arpa.", "PTR"] = names
    for name in names:
        server.records[name, "A"] = [f"10.0.0.{n}" for n in range(90 if name == names[0] else 1)] + ["192.0.2.20"]
    assert (await domains(server.address).find("192.0.2.20")).domain == "customer.test"
    assert {kind for _, kind, transport in server.asked if transport == "tcp"} == {"PTR", "A"}
    assert len({name for name, _, _ in server.asked if name.startswith("f")}) == 8


async def test_TB4_a_flood_of_answers_is_not_even_read(server: PretendDns) -> None:
    """64 KiB of them would hold up the loop, and with it every device that has a route."""
    server.records["rack1.customer.test.", "A"] = [f"10.0.{n // 250}.{n % 250}" for n in range(3900)] + ["192.0.2.1"]
    finding = await domains(server.address).find("192.0.2.1")
    assert (finding.domain, finding.late) == (None, True)
    assert re.search(r"an answer of 6\d{4} bytes", finding.because)


def compressed(question: dns.message.Message, names: int) -> bytes:
    """An answer whose names are 126 labels each, and nearly all of that behind pointers: two bytes on the wire."""
    head = dns.message.make_response(question).to_wire()
    message = head[:6] + names.to_bytes(2, "big") + b"\0\0\0\0" + question.to_wire()[12:].split(b"\0\0\x29")[0]
    longest, first = b"".join(b"\1" + bytes([97 + n % 26]) for n in range(126)) + b"\0", 0
    for number in range(names):
        data = b"\1%c" % (65 + number % 26) + (0xC000 | first + 2).to_bytes(2, "big") if first else longest
        message += b"\xc0\x0c\0\x0c\0\1\0\0\0\x3c" + len(data).to_bytes(2, "big")
        first = first or len(message)
        message += data
    return message


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_TB4_names_behind_pointers_are_not_expanded(
        server: PretendDns, monkeypatch: pytest.MonkeyPatch, transport: str) -> None:
    """1 223 bytes of them took 90 ms of the loop that serves devices."""
    def heavy(query: bytes, over: str) -> list[bytes]:
        question = dns.message.from_wire(query)
        if over != transport:
            response = dns.message.make_response(question)
            response.flags |= dns.flags.TC
            return [response.to_wire()]
        return [compressed(question, 52)]
    monkeypatch.setattr(server, "replies", heavy)
    finding = await domains(server.address).find("192.0.2.1")
    assert (finding.domain, finding.late) == (None, True)
    assert "an answer with a name of more than 40 labels" in finding.because


async def test_TB4_a_datagram_is_as_long_as_was_asked_for_at_most(
        server: PretendDns, monkeypatch: pytest.MonkeyPatch) -> None:
    """57 KB by UDP left 545 of 551 devices unanswered."""
    good = server.replies
    monkeypatch.setattr(server, "replies", lambda query, over: [one + b"x" * 57_000 for one in good(query, over)])
    finding = await domains(server.address).find("192.0.2.1")
    assert (finding.domain, finding.late) == (None, True)
    assert "an answer of more than 1232 bytes" in finding.because


@pytest.mark.parametrize(("many", "is_found"), [(20, True), (LOOKS + 1, False)])
async def test_TB4_datagrams_that_answer_nothing_are_looked_at_so_often_and_no_more(
        server: PretendDns, monkeypatch: pytest.MonkeyPatch, many: int, is_found: bool) -> None:
    """Some may be forged; a flood of them is a turn of the loop each."""
    good = server.replies

    def flooded(query: bytes, over: str) -> list[bytes]:
        return [b"\0\0" + query[2:] if query[:2] != b"\0\0" else b"\0\1" + query[2:]] * many + good(query, over)
    monkeypatch.setattr(server, "replies", flooded)
    finding = await domains(server.address).find("192.0.2.1")
    assert (finding.domain == "customer.test") is is_found
    assert is_found or "none among as many" in finding.because


async def test_TB4_an_answer_by_tcp_that_trickles_is_looked_at_so_often_and_no_more() -> None:
    near, far = socket.socketpair()
    looks = 0
    with near, far:
        near.setblocking(False)
        far.sendall(b"\x0f\xff")
        reading = asyncio.create_task(_message(near))
        while not reading.done():
            far.send(b"\x00")
            looks += 1
            await asyncio.sleep(0.001)
            assert looks < 1000
        with pytest.raises(ValueError, match=f"more than {LOOKS} pieces"):
            await reading
    assert looks <= LOOKS


async def test_TB4_no_name_server_at_all_is_trouble_not_a_crash() -> None:
    gone = pretend()
    gone.close()
    assert (await domains(gone.address, budget=0.4).find("192.0.2.1")).late
    with pytest.raises(DnsTrouble):
        await Resolver((gone.address,), 0.1, 0.2).addresses("rack1.customer.test", 4)


# --- remembered, shared, bounded ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("ttl", "peer", "kept"), [
    (60, "192.0.2.1", 30), (1, "192.0.2.1", 5), (0, "192.0.2.99", 5), (100_000, "192.0.2.99", 30),
    (100_000, "192.0.2.3", 3600)])
async def test_a5_a_finding_is_remembered_as_long_as_its_records_say_within_bounds(
        ttl: int, peer: str, kept: int) -> None:
    """Positive and negative; that a longer domain has no delegate, or no IPv6, holds for the SOA's 30 s (RFC 2308)."""
    server, clock = pretend(ttl), Clock()
    try:
        found = domains(server.address, clock=clock)
        first, asked = await found.find(peer), len(server.asked)
        clock.now += kept - 0.5
        assert await found.find(peer) is first
        assert len(server.asked) == asked
        clock.now += 1
        assert await found.find(peer) == first
        assert len(server.asked) == 2 * asked
    finally:
        server.close()


async def test_TB4_failures_are_remembered_for_the_shortest_time(server: PretendDns) -> None:
    clock = Clock()
    found = domains(server.address, clock=clock, budget=0.3)
    server.ways[""] = "servfail"
    assert (await found.find("192.0.2.1")).late
    server.ways.clear()
    assert (await found.find("192.0.2.1")).late
    clock.now += reverse.SHORTEST
    assert (await found.find("192.0.2.1")).domain == "customer.test"


async def test_TB4_the_least_recently_used_of_too_many_addresses_is_forgotten(server: PretendDns) -> None:
    found = domains(server.address, most=2)
    first = await found.find("192.0.2.1")
    await found.find("192.0.2.2")
    assert await found.find("192.0.2.1") is first
    await found.find("192.0.2.3")
    assert await found.find("192.0.2.1") is first
    asked = len(server.asked)
    await found.find("192.0.2.2")
    assert len(server.asked) > asked


async def test_TB4_devices_behind_one_address_share_one_look_up(server: PretendDns) -> None:
    """Who gives up waiting ends it for nobody else."""
    server.delay = 0.05
    found = domains(server.address)
    waiting = [asyncio.create_task(found.find("192.0.2.1")) for _ in range(20)]
    await asyncio.sleep(0.02)
    waiting.pop(0).cancel()
    assert {finding.domain for finding in await asyncio.gather(*waiting)} == {"customer.test"}
    assert [kind for _, kind, _ in server.asked].count("PTR") == 1


async def test_TB4_look_ups_are_bounded_in_number_and_time(server: PretendDns, monkeypatch: pytest.MonkeyPatch) -> None:
    """All silent: all are told to try later within the budget; at most 32 questions at once; beyond those that may
    wait, at once; and no thread was ever used."""
    monkeypatch.setattr(reverse, "WAITING", 40)
    server.ways[""] = "silent"
    found, loop, threads = domains(server.address, budget=2.0), asyncio.get_running_loop(), threading.active_count()
    began = loop.time()
    flights = [asyncio.create_task(found.find(f"198.51.100.{n}")) for n in range(1, 73)]
    await asyncio.sleep(0.5)
    more = await found.find("198.51.100.200")
    assert loop.time() - began < 1.8
    assert (more.late, "wait already" in more.because) == (True, True)
    assert len({name for name, _, _ in server.asked}) == reverse.RUNNING
    findings = await asyncio.gather(*flights)
    assert all(finding.late and "no answer within 2 s" in finding.because for finding in findings)
    assert loop.time() - began < 3.2
    assert threading.active_count() <= threads + reverse.RUNNING, "the server's own, one a question"
    assert getattr(loop, "_default_executor", None) is None


async def test_TB4_closing_lets_go_of_look_ups(server: PretendDns) -> None:
    server.ways[""] = "silent"
    found = domains(server.address)
    flight = asyncio.create_task(found.find("192.0.2.1"))
    await asyncio.sleep(0.05)
    found.close()
    finding = await asyncio.wait_for(flight, 3)
    assert (finding.late, finding.domain) == (True, None), "who waits for it still gets an answer"


# --- the delegate that was found ----------------------------------------------------------------------------------


async def test_a5_a_delegate_is_found_again_by_its_name_alone(server: PretendDns) -> None:
    found = domains(server.address)
    delegate = found.delegate("domain:lab.customer.test")
    assert delegate is not None
    reached = await found.reach(delegate)
    assert reached == found.found(await found.find("192.0.2.2"))
    assert await found.reach(reached) is reached
    assert found.delegate("acme-server") is found.customer("acme") is None
    for domain, way in (("gone.test", ""), ("customer.test", "servfail"), ("customer.test", "silent")):
        server.ways[f"{LABEL}.{domain}."] = way or "good"
        unreached = found.delegate(f"domain:{domain}")
        assert unreached is not None
        with pytest.raises(DelegatorError) as error:
            await domains(server.address, budget=0.3).reach(unreached)
        assert error.value.kind is Kind.UNREACHABLE


# --- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "found"), [
    ("192.0.2.53", ("192.0.2.53", 53)), ("127.0.0.1:5353", ("127.0.0.1", 5353)), ("2001:db8::53", ("2001:db8::53", 53)),
    ("[2001:db8::53]:5353", ("2001:db8::53", 5353)), ("[2001:db8::53]", ("2001:db8::53", 53))])
def test_R_settings_a_name_server_is_an_address_with_or_without_a_port(text: str, found: tuple[str, int]) -> None:
    assert place(text) == found


@pytest.mark.parametrize("said", [
    {"nameservers": ("dns.example",)}, {"nameservers": ("1.2.3.4:0",)}, {"nameservers": ("1.2.3.4:x",)},
    {"label": "a.b"}, {"label": "-"}, {"label": ""}, {"private_networks": ("10.0.0.1/8",)},
    {"trust_anchor": "/nowhere/ca.crt"}, {"trust_anchor": __file__}], ids=str)
def test_R_settings_a_setting_that_does_not_fit_is_told_before_anything_listens(said: dict[str, Any]) -> None:
    with pytest.raises(DelegatorError, match=r"\[domains\]") as error:
        load_domains(config.Domains(enabled=True, **said))
    assert error.value.kind is Kind.CONFIGURATION


def test_a5_off_by_default_and_no_package_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "publicsuffixlist", None)
    assert load_domains(config.Domains()) is None
    with pytest.raises(DelegatorError, match="publicsuffixlist is not installed") as error:
        load_domains(config.Domains(enabled=True, nameservers=("127.0.0.1",)))
    assert "dns" in error.value.hint


def test_a5_delegates_are_signed_by_the_factory_a_file_or_the_systems_authorities(
        tmp_path: Path, customer_ca: object) -> None:
    pem = (customer_ca.ca_path).read_text()  # type: ignore[attr-defined]
    (tmp_path / "ca.pem").write_text("words that are not sent to devices\n" + pem)
    anchors = []
    for setting in ("", str(tmp_path / "ca.pem")):
        found = load_domains(config.Domains(enabled=True, nameservers=("127.0.0.1",), trust_anchor=setting))
        assert found is not None
        delegate = found.delegate("domain:customer.test")
        assert delegate is not None
        anchors.append(delegate.callback.trust_anchor)  # type: ignore[union-attr]
    assert anchors == [None, pem]
