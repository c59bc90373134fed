"""Delegates that do what they must not: it costs their own customer a TryLater, and nobody else anything (T-B3, T-B9,
T-C10).

Each is a real server behind real TLS, driven through the whole delegator; what one answer may hold is judged in
tests/callbacks/test_answers.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from delegator.model import ClaimState, Delegate, SshCallback

from ..callbacks.hostile_sshd import flooding, sshd
from ..clock import today
from .conftest import SOAP11, PretendDelegate, World

GOOD = ("<RequestCredentialResponse xmlns='urn:delegator:provisioning:1'>{before}<Credential><UserName>temp</UserName>"
        "<Password>{password}</Password></Credential></RequestCredentialResponse>")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n"
Handler = http.server.BaseHTTPRequestHandler


def soap(inner: str, before: str = "") -> bytes:
    return f'{before}<s:Envelope xmlns:s="{SOAP11}"><s:Body>{inner}</s:Body></s:Envelope>'.encode()


def framed(body: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


def good(password: str = "p", before: str = "") -> str:
    return GOOD.format(password=password, before=before)


ENTITY = '<!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
LAUGHS = "<!DOCTYPE s [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY {chr(98 + n)} '&{chr(97 + n)};&{chr(97 + n)};'>" for n in range(20)) + "]>"
ANSWERS: dict[str, bytes] = {
    "another device's": framed(soap(good(before="<ServiceTag>OTHER01</ServiceTag>"))),
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "a redirect that keeps the method": b"HTTP/1.1 308 Permanent Redirect\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
    "an entity": framed(soap(good("&x;"), ENTITY)),
    "a billion laughs": framed(soap(good("&u;"), LAUGHS)),
    "a comment in the password": framed(soap(good("pa<!-- -->ss"))),
    "two credentials": framed(soap(good() + good("q"))),
    "nothing in it": framed(soap("")),
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "half an answer": HEAD + b"Content-Length: 5000\r\n\r\n<s:Envel",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a control character": framed(soap(good("pa&#7;ss"))),
    "UTF-16": framed(soap(good()).decode().encode("utf-16")),
}


def floods(handler: Handler) -> None:
    handler.wfile.write(HEAD + b"Content-Length: 1000000000\r\n\r\n")
    for _ in range(2000):
        handler.wfile.write(b"<" * 100_000)


def floods_with_heads(handler: Handler) -> None:
    handler.wfile.write(HEAD)
    for number in range(100_000):
        handler.wfile.write(b"X-%d: %d\r\n" % (number, number))


def trickles(handler: Handler) -> None:
    for number in range(len(HEAD)):
        handler.wfile.write(HEAD[number:number + 1])
        time.sleep(0.1)


def says_nothing(handler: Handler) -> None:
    time.sleep(2)


class HostileDelegate(PretendDelegate):
    """One that answers with whatever bytes it was told to."""

    says: bytes | Callable[[Handler], None] = b""

    def _hostile(self, handler: Handler, password: str) -> None:
        handler.close_connection = True
        with contextlib.suppress(OSError):
            if isinstance(self.says, bytes):
                handler.wfile.write(self.says)
            else:
                self.says(handler)


@pytest.fixture
def hostile(world: World, delegate_authority, factory) -> HostileDelegate:
    """In place of Acme's own; Globex is hosted and has nothing to do with it."""
    world.delegate.close()
    delegate = HostileDelegate(delegate_authority, factory)
    delegate.mode = "hostile"
    world.delegate = delegate
    world.store(lambda store: store.add_delegate(
        Delegate("acme-server", "acme", world.reach(delegate, delegate_authority)), today(), replace=True))
    return delegate


def memory(world: World) -> int:
    """Resident KiB of the delegator."""
    assert world.process is not None
    status = Path(f"/proc/{world.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def descriptors(world: World) -> int:
    assert world.process is not None
    return len(list(Path(f"/proc/{world.process.pid}/fd").iterdir()))


def test_TC10_whatever_a_delegate_answers_is_try_later_and_the_next_good_answer_is_taken(
        world: World, hostile: HostileDelegate) -> None:
    """One device for each; the breaker rests in between, so each is on a delegator that began anew."""
    tags = {name: f"HOSTIL{number:02}" for number, name in enumerate(ANSWERS)}
    world.own(*tags.values())
    seen = {}
    for group in range(0, len(ANSWERS), 4):
        world.start()
        for name in list(ANSWERS)[group:group + 4]:
            hostile.says = ANSWERS[name]
            seen[name] = world.ask(tags[name]).fault
        world.stop()
    assert seen == dict.fromkeys(ANSWERS, "TryLater")
    assert {claim.state for claim in world.store(lambda store: store.claims())} == {ClaimState.ASKING}
    hostile.mode = "good"
    world.start()
    assert world.ask(tags["an entity"]).status == 200
    assert "root:" not in world.log


@pytest.mark.parametrize("says", [floods, floods_with_heads, trickles, says_nothing])
def test_TB9_floods_and_trickles_cost_one_budget_and_no_memory_and_nobody_else_waits(
        world: World, hostile: HostileDelegate, says: Callable[[Handler], None]) -> None:
    world.own("HOSTIL90")
    world.host("INNOCENT1", "INNOCENT2", "INNOCENT3")
    for tag in ("HOSTIL90", "INNOCENT1", "INNOCENT2", "INNOCENT3"):
        world.paths(tag)
    hostile.says = says
    world.start()
    assert world.ask("INNOCENT1").status == 200
    before, open_before = memory(world), descriptors(world)
    with ThreadPoolExecutor(1) as pool:
        begin = time.monotonic()
        asked = pool.submit(world.ask, "HOSTIL90")
        assert hostile.in_hand.wait(10)
        assert world.ask("INNOCENT2").status == 200
        assert asked.result().fault == "TryLater"
        taken = time.monotonic() - begin
    assert taken < 4, "the budget is one second"
    assert world.ask("INNOCENT3").status == 200
    assert memory(world) - before < 8 * 1024
    until = time.monotonic() + 10
    while descriptors(world) > open_before + 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert descriptors(world) <= open_before + 2


def test_TB11_an_ssh_server_that_floods_costs_its_own_device_a_try_later_and_the_log_says_why(world: World) -> None:
    """Four calls at once; a device of another customer is served meanwhile. (Some may meet their budget first, which is
    a second here: the pretended server is no quick one.)"""
    tags = [f"FLOODS{number:02}" for number in range(4)]
    world.own(*tags)
    world.host("INNOCENT1")
    for tag in (*tags, "INNOCENT1"):
        world.paths(tag)
    with flooding_sshd() as callback:
        world.store(lambda store: store.add_delegate(Delegate("acme-server", "acme", callback), today(), replace=True))
        world.start()
        with ThreadPoolExecutor(len(tags)) as pool:
            asked = list(pool.map(world.ask, tags))
            assert world.ask("INNOCENT1").status == 200
    assert {reply.fault for reply in asked} == {"TryLater"}
    assert "delegate acme-server: it sent more than 48 packets that are no answer and was cut off" in world.log
    assert "socket.send() raised exception" not in world.log


@contextlib.contextmanager
def flooding_sshd() -> Iterator[SshCallback]:
    """In a loop and a thread of its own."""
    async def serve() -> None:
        async with sshd(flooding("unknown")) as callback:
            end = asyncio.Event()
            told.append((asyncio.get_running_loop(), end, callback))
            ready.set()
            await end.wait()

    told: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, SshCallback]] = []
    ready = threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    loop, end, callback = told.pop()
    try:
        yield callback
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()
