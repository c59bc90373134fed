"""Questions to the DNS: each is answered, has no answer (both for a time), or raises DnsTrouble. B4.

dnspython speaks the protocol: random ids and ports, wrong ids ignored, TCP after a truncated answer, CNAME chains
followed (in reverse zones too: RFC 2317) and bounded. Nothing here ever runs on a thread: the loop's default executor
has six on two cores, and six slow names would stall everything.
The invariants: a question goes to the name servers that were set and to nobody else; no answer, however it was
filled, holds up the loop.
Must not live here: what an answer means (domains), caching and deadlines (net.reverse).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import dns.asyncbackend
import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver
import dns.reversename

from delegator.domains import DnsTrouble
from delegator.errors import words_of
from delegator.model.places import Address, normal_address
from delegator.wire.dns_weight import weigh_together

T = TypeVar("T")
PORT = 53
PAYLOAD = 1232
"""Bytes of a UDP answer that no path cuts into pieces (DNS flag day 2020)."""
MOST_BYTES = 4096
"""Of an answer by TCP: 250 addresses. Reading the 65,535 that the protocol allows would hold up the loop for 100 ms
and more (measured), and whoever owns the reverse zone may fill them."""
LOOKS = 64
"""Datagrams, or pieces of an answer by TCP, that are looked at for one question. Of a flood that answers nothing each
would be a turn of the loop, for as long as the question is patient."""
_LENGTH = 2
"""Bytes before each message by TCP (RFC 1035 section 4.2.2)."""
_TYPES = {4: dns.rdatatype.A, 6: dns.rdatatype.AAAA}


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What there is, possibly nothing, and for how many seconds that may be believed."""

    values: tuple[T, ...]
    ttl: int


class Resolver:
    """Asks the name servers, one after the other, each for at most `patience` seconds, `lifetime` for all tries."""

    def __init__(self, nameservers: Sequence[str], patience: float, lifetime: float) -> None:
        """No name servers: those of the system. Raises ValueError for what is no address of one."""
        try:
            self._resolver = dns.asyncresolver.Resolver(configure=not nameservers)
        except dns.resolver.NoResolverConfiguration:
            raise ValueError("the system names no name server") from None
        servers = nameservers or [str(server) for server in self._resolver.nameservers]
        self._resolver.nameservers = [_Server(*place(text)) for text in servers]
        self._resolver.use_edns(0, 0, PAYLOAD)
        self._resolver.timeout, self._resolver.lifetime = patience, lifetime
        self._backend = dns.asyncbackend.get_backend("asyncio")

    async def names(self, address: Address) -> Answer[tuple[bytes, ...]]:
        """The names of an address (PTR), as raw labels: what a label holds is for others to judge."""
        answer = await self._ask(dns.reversename.from_address(str(address)), dns.rdatatype.PTR)
        return Answer(tuple(record.target.labels[:-1] for record in answer.values), answer.ttl)

    async def addresses(self, name: str, version: int) -> Answer[Address]:
        """The addresses of a name, of IP version 4 or 6."""
        answer = await self._ask(dns.name.from_text(name), _TYPES[version])
        return Answer(tuple(ipaddress.ip_address(record.address) for record in answer.values), answer.ttl)

    async def _ask(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> Answer[Any]:
        try:
            found = await self._resolver.resolve(name, kind, raise_on_no_answer=False, search=False,
                                                 backend=self._backend)
        except dns.resolver.NXDOMAIN as error:
            return Answer((), min(_ttl(one) for one in error.responses().values()))
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise DnsTrouble(f"{name} {kind.name}: {words_of(error)}") from None
        return Answer(tuple(found.rrset or ()), found.chaining_result.minimum_ttl)


def _ttl(response: dns.message.Message) -> int:
    """For how long there is nothing, as the SOA record says (RFC 2308 5)."""
    assert isinstance(response, dns.message.QueryMessage)
    return response.resolve_chaining().minimum_ttl


class _Server(dns.nameserver.Do53Nameserver):
    """A name server from which no long and no heavy answer is taken, by UDP or TCP: what it holds is walked before it
    is read."""

    async def async_query(self, request: dns.message.QueryMessage,
                          timeout: float,  # noqa: ASYNC109 - the signature is dnspython's, here and below
                          source: str | None, source_port: int, max_size: bool, backend: Any,
                          one_rr_per_rrset: bool = False, ignore_trailing: bool = False) -> dns.message.Message:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        way = socket.SOCK_STREAM if max_size else socket.SOCK_DGRAM
        made = await backend.make_socket(family, way, 0, None, (self.address, self.port), timeout)
        async with made:
            if max_size:
                stream: Any = _Stream(made)
                return await dns.asyncquery.tcp(request, self.address, timeout, sock=stream)
            datagrams: Any = _Datagrams(made, request.id)
            return await dns.asyncquery.udp(request, self.address, timeout, self.port, sock=datagrams,
                                            raise_on_truncation=True, ignore_errors=True, ignore_unexpected=True)


class _Datagrams:
    """A UDP socket, connected and as dnspython takes it, on which a long or heavy answer ends the exchange. What has
    another id is none of our server's: it is passed on as nothing at all, which dnspython goes on waiting after."""

    def __init__(self, sock: Any, number: int) -> None:
        self._socket, self.family = sock, sock.family
        self._number = number.to_bytes(_LENGTH, "big")
        self._looks = 0

    async def recvfrom(self, size: int, timeout: float | None) -> tuple[bytes, Any]:  # noqa: ASYNC109
        self._looks = _another(self._looks)
        data, source = await self._socket.recvfrom(PAYLOAD + 1, timeout)
        return (_light(data, PAYLOAD) if data.startswith(self._number) else b""), source

    async def sendto(self, what: bytes, destination: Any, timeout: float | None) -> int:  # noqa: ASYNC109
        sent: int = await self._socket.sendto(what, destination, timeout)
        return sent


class _Stream:
    """A connection, as dnspython takes it, on which a long or heavy answer ends the exchange. dnspython asks for two
    bytes, the length, and then for what is still missing of the message."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._message = bytearray()
        self._expected: int | None = None
        self._looks = 0

    async def recv(self, size: int, timeout: float | None) -> bytes:  # noqa: ASYNC109
        if size > MOST_BYTES:
            raise dns.exception.FormError(f"an answer of {size} bytes")
        self._looks = _another(self._looks)
        data: bytes = await self._stream.recv(size, timeout)
        self._message += data
        if self._expected is None and len(self._message) >= _LENGTH:
            self._expected = int.from_bytes(self._message[:_LENGTH], "big")
        if self._expected is not None and len(self._message) == _LENGTH + self._expected:
            _light(bytes(self._message[_LENGTH:]), MOST_BYTES)
        return data

    async def sendall(self, what: bytes, timeout: float | None) -> None:  # noqa: ASYNC109
        await self._stream.sendall(what, timeout)

    async def getpeername(self) -> Any:
        return await self._stream.getpeername()


def _another(looks: int) -> int:
    """One more. Raises FormError where that is too often."""
    if looks == LOOKS:
        raise dns.exception.FormError(f"an answer in more than {LOOKS} pieces, or none among as many")
    return looks + 1


def _light(message: bytes, most: int) -> bytes:
    """The same message. Raises FormError for one that would take long to read."""
    if len(message) > most:
        raise dns.exception.FormError(f"an answer of more than {most} bytes")
    try:
        weigh_together(message)
    except ValueError as error:
        raise dns.exception.FormError(f"an answer with {error}") from None
    return message


def place(text: str) -> tuple[str, int]:
    """Address and port of a name server: `192.0.2.53`, `192.0.2.53:5353`, `2001:db8::53`, `[2001:db8::53]:5353`.
    Raises ValueError."""
    host, port = text, str(PORT)
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":") or str(PORT)
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!a} names no port of a name server")
    return normal_address(host), int(port)
