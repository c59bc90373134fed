"""Questions to the DNS: each is answered, has no answer (both for a time), or raises DnsTrouble. T-B4.

What is asked goes to the name servers that were set and to nobody else, from a new port each time and with a number
that cannot be guessed; by TCP after an answer that was cut off. No look-up waits for a thread: the loop's default
executor has six on two cores, and six slow names would stall everything.
The invariants: an answer that is used came from the server that was asked, to the question that was asked; no answer,
however it was filled, holds up the loop.
Must not live here: what a message holds (wire.dns_message), what an answer means (domains), caching and deadlines of
look-ups (net.reverse).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from delegator.domains import DnsTrouble
from delegator.errors import words_of
from delegator.model.places import Address, authority, normal_address
from delegator.wire.dns_message import AAAA, PAYLOAD, PTR, A, Labels, Question, Said, labels_of, read

T = TypeVar("T")
PORT = 53
MOST_BYTES = 4096
"""Of an answer by TCP: 250 addresses. Reading the 65,535 that the protocol allows would hold up the loop for 100 ms
and more (measured), and whoever owns the reverse zone may fill them."""
LOOKS = 64
"""Datagrams, or pieces of an answer by TCP, that are looked at for one question. Of a flood that answers nothing each
would be a turn of the loop, for as long as the question is patient."""
REST, LONGEST_REST = 0.1, 2.0
"""Seconds before silent name servers are asked again, each time twice as many."""
RESOLV = Path("/etc/resolv.conf")
"""Names the name servers of the system (resolv.conf(5))."""
_LENGTH = 2
"""Bytes before each message by TCP (RFC 1035 section 4.2.2)."""
_TYPES = {4: A, 6: AAAA}
_NAMES = {A: "A", AAAA: "AAAA", PTR: "PTR"}
_TOO_OFTEN = f"an answer in more than {LOOKS} pieces, or none among as many"
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What there is, possibly nothing, and for how many seconds that may be believed."""

    values: tuple[T, ...]
    ttl: int


class Resolver:
    """Asks the name servers, one after the other, each for at most `patience` seconds, `lifetime` for all tries."""

    def __init__(self, nameservers: Sequence[str], patience: float, lifetime: float,
                 exchange: Callable[[Place, Question], Awaitable[Said]] | None = None) -> None:
        """No name servers: those of the system. `exchange` asks one, by UDP and TCP if nothing else is said. Raises
        ValueError for what is no address of one."""
        self._servers = [place(text) for text in nameservers or _system()]
        if not self._servers:
            raise ValueError("the system names no name server")
        self._patience, self._lifetime = patience, lifetime
        self._exchange = exchange or _exchange

    async def names(self, address: Address) -> Answer[Labels]:
        """The names of an address (PTR), as raw labels: what a label holds is for others to judge."""
        said = await self._ask(address.reverse_pointer, PTR)
        return Answer(tuple(name for name in said.values if isinstance(name, tuple)), said.ttl)

    async def addresses(self, name: str, version: int) -> Answer[Address]:
        """The addresses of a name, of IP version 4 or 6."""
        said = await self._ask(name, _TYPES[version])
        return Answer(tuple(ipaddress.ip_address(data) for data in said.values if isinstance(data, bytes)), said.ttl)

    async def _ask(self, name: str, kind: int) -> Said:
        """Raises DnsTrouble."""
        why: list[str] = []
        try:
            async with asyncio.timeout(self._lifetime):
                said = await self._tried(name, kind, why)
        except TimeoutError:
            why.append(f"no answer within {self._lifetime:g} s")
            said = None
        if said is None:
            raise DnsTrouble(f"{name} {_NAMES[kind]}: {'; '.join(why)}")
        return said

    async def _tried(self, name: str, kind: int, why: list[str]) -> Said | None:
        """From one server after the other, None when none is left: one that is silent is asked again, one that errs is
        not. What went wrong is added to `why`."""
        servers, rest = list(self._servers), REST
        while servers:
            for server in list(servers):
                try:
                    async with asyncio.timeout(self._patience):
                        return await self._exchange(server, Question(secrets.randbits(16), labels_of(name), kind))
                except TimeoutError:
                    continue
                except (OSError, ValueError, EOFError) as error:
                    servers.remove(server)
                    why.append(f"{authority(*server)}: {words_of(error)}")
            if servers:
                await asyncio.sleep(rest)
                rest = min(LONGEST_REST, 2 * rest)
        return None


async def _exchange(server: Place, question: Question) -> Said:
    """Raises OSError, EOFError, ValueError."""
    said = await _by_udp(server, question)
    return await _by_tcp(server, question) if said.truncated else said


@contextlib.contextmanager
def _socket(server: Place, kind: socket.SocketKind) -> Iterator[tuple[socket.socket, tuple[Any, ...]]]:
    """Towards a server, which is an address; one of a link has its zone in it (RFC 4007 section 11): fe80::1%eth0."""
    family, _, _, _, there = socket.getaddrinfo(*server, type=kind, flags=socket.AI_NUMERICHOST)[0]
    with socket.socket(family, kind) as made:
        made.setblocking(False)
        yield made, there


async def _by_udp(server: Place, question: Question) -> Said:
    """A connected socket takes nothing from anybody but the server; what has another number, or answers another
    question, may be forged and is passed over."""
    loop = asyncio.get_running_loop()
    with _socket(server, socket.SOCK_DGRAM) as (sock, there):
        sock.connect(there)
        sock.send(question.wire())
        for _ in range(LOOKS):
            said = read(await loop.sock_recv(sock, PAYLOAD + 1), question, PAYLOAD)
            if said is not None:
                return said
    raise ValueError(_TOO_OFTEN)


async def _by_tcp(server: Place, question: Question) -> Said:
    loop = asyncio.get_running_loop()
    with _socket(server, socket.SOCK_STREAM) as (sock, there):
        await loop.sock_connect(sock, there)
        wire = question.wire()
        await loop.sock_sendall(sock, len(wire).to_bytes(_LENGTH, "big") + wire)
        said = read(await _message(sock), question, MOST_BYTES)
    if said is None or said.truncated:
        raise ValueError("an answer to another question, or cut off by TCP too")
    return said


async def _message(sock: socket.socket) -> bytes:
    """One message by TCP. Raises EOFError, ValueError."""
    loop, data, size = asyncio.get_running_loop(), bytearray(), _LENGTH
    for _ in range(LOOKS):
        piece = await loop.sock_recv(sock, size - len(data))
        if not piece:
            raise EOFError
        data += piece
        if len(data) == size == _LENGTH:
            size += int.from_bytes(data, "big")
            if size > _LENGTH + MOST_BYTES:
                raise ValueError(f"an answer of {size - _LENGTH} bytes")
        if len(data) == size:
            return bytes(data[_LENGTH:])
    raise ValueError(_TOO_OFTEN)


def _system() -> list[str]:
    with contextlib.suppress(OSError):
        lines = [line.split() for line in RESOLV.read_text(encoding="utf-8", errors="replace").splitlines()]
        return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
    return []


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
