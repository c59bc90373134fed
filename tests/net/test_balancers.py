"""A10: load balancers in front. Whom a connection is from is what a balancer of ours says, and nobody else."""

from __future__ import annotations

import asyncio
import ssl
import time
from datetime import UTC, datetime

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.net.balancers import PIECES, Balancers, Introduction, balancers_of
from delegator.net.serve import Deadlines, Listener
from delegator.wire.http import Response
from delegator.wire.proxy import ProxyError
from delegator.wire.tls import server_context
from pki.trust import TrustStore

HEADER = b"PROXY TCP4 198.51.100.7 192.0.2.1 51000 4433\r\n"


@pytest.fixture
async def door(factory):
    """A listener that answers with the address of who asks; `refused` are those that were turned away."""
    chain = factory.certificate_path("delegator-server", "delegator")
    context = server_context(chain, chain.with_suffix(".key"), TrustStore.load(factory.ca_path),
                             lambda: datetime.now(UTC))

    async def answer(request, connection):
        return Response(200, {b"Content-Type": b"text/plain"}, connection.peer_address.encode())

    refused = []
    listener = Listener(context, answer, on_refused=lambda connection, why: refused.append(str(why)),
                        deadlines=Deadlines(silent=0.5))
    _, port = listener.listen("127.0.0.1", 0)
    listener.balancers = balancers_of(("127.0.0.0/8",))
    yield listener, port, refused
    await listener.close(1)


@pytest.fixture
def tls(factory, device):
    issued = device("NETS001")
    context = ssl.create_default_context(cafile=str(factory.ca_path))
    context.load_cert_chain(issued.certificate_path, issued.key_path)
    return context


async def told(port: int, tls: ssl.SSLContext, *header: bytes) -> str:
    """Connect, send a header in these pieces, then ask over TLS; what the delegator takes our address to be."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in header:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.001)
    try:
        await writer.start_tls(tls, server_hostname="localhost")
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return (await reader.read()).decode().partition("\r\n\r\n")[2]
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_A10_a_device_is_where_the_balancer_says(door, tls):
    assert await told(door[1], tls, HEADER) == "198.51.100.7"
    assert await told(door[1], tls, *(HEADER[place:place + 1] for place in range(len(HEADER)))) == "198.51.100.7"
    assert await told(door[1], tls, b"PROXY UNKNOWN\r\n") == "127.0.0.1", "the balancer speaks for itself"


async def test_A10_without_a_header_nothing_is_served(door, tls):
    for header in ((), (b"PROXY TCP4 nonsense\r\n",), (b"\x16\x03\x01",)):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await told(door[1], tls, *header)
    assert len(door[2]) == 3
    assert all("PROXY" in why for why in door[2])


async def test_A10_nobody_else_may_say_whom_it_speaks_for(door, tls):
    door[0].balancers = balancers_of(("192.0.2.10/32", "2001:db8::/32"))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await told(door[1], tls, HEADER)
    assert "127.0.0.1 is none of the load balancers" in door[2][0]


async def test_A10_where_none_is_named_a_header_is_not_understood_and_devices_connect_themselves(door, tls):
    door[0].balancers = None
    assert await told(door[1], tls) == "127.0.0.1"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await told(door[1], tls, HEADER)


async def test_TC6_half_a_header_holds_a_connection_no_longer_than_silence(door):
    reader, writer = await asyncio.open_connection("127.0.0.1", door[1])
    writer.write(HEADER[:20])
    began = time.monotonic()
    assert await asyncio.wait_for(reader.read(), 3) == b""
    assert time.monotonic() - began < 2
    writer.close()


@pytest.mark.parametrize(("address", "trusted"), [
    ("192.0.2.10", True), ("192.0.2.11", False), ("::ffff:192.0.2.10", True), ("2001:db8::1", True),
    ("2001:db9::1", False), ("2002:c000:20a::1", False), ("64:ff9b::c000:20a", False), ("", False),
    ("fe80::1%eth0", False)])
def test_A10_only_the_networks_that_are_named_are_trusted(address, trusted):
    """What is written inside a v6 address is the caller's own choice."""
    balancers = balancers_of(("192.0.2.10/32", "2001:db8::/32"))
    assert isinstance(balancers, Balancers)
    assert balancers.trusted(address) is trusted


def test_A10_a_header_comes_in_so_many_pieces_and_no_more():
    introduction = Introduction(balancers_of(("127.0.0.0/8",)), "127.0.0.1")
    begun = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x08\x00" + bytes(2047)
    for at in range(PIECES):
        assert introduction.feed(begun[at:at + 1]) is None
    with pytest.raises(ProxyError, match="in more than 128 pieces"):
        introduction.feed(b"a")


def test_A10_networks_that_are_none_are_told_with_the_path_to_the_setting():
    assert balancers_of(()) is None
    with pytest.raises(DelegatorError) as error:
        balancers_of(("10.0.0.1/8",))
    assert error.value.kind is Kind.CONFIGURATION
    assert "[server] proxy_from" in error.value.detail
