"""Sockets that listen: one for each address that a setting names, all with one port number. For every port we have.

An IPv6 socket here is for IPv6 alone, so that IPv4 has one of its own and a peer's address has one form. Names such as
`localhost` may stand for both families.
The invariants: all of them listen, or none; what a machine without IPv6 cannot have is passed over only where it was
named beside something else that is there.
Must not live here: accepting (net.serve), sockets of the service manager (systemd).
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from delegator.errors import DelegatorError, Kind
from delegator.model.places import authority, is_address, normal_host

log = logging.getLogger(__name__)
Hosts = str | Sequence[str]
Place = tuple[str, int]
Make = Callable[[int, tuple[Any, ...]], socket.socket]
BACKLOG = 4096
"""A rack that powers up connects at once; the kernel caps this at net.core.somaxconn."""
TRIES = 8
"""For a free port: one that is free for IPv4 may be taken for IPv6."""
_ABSENT = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
_EVERYWHERE = ("::", "::1")
"""What a machine without IPv6 lacks, and nobody means as an address of a certain network."""
_HINTS = {
    errno.EADDRINUSE: "see who has it with: ss -ltnp 'sport = :{port}', or choose another port",
    errno.EADDRNOTAVAIL: "name an address that this machine has, see: ip address; or 0.0.0.0 and :: for all",
    errno.EAFNOSUPPORT: "this machine has no IPv6: name IPv4 addresses alone",
    errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE, or a socket of the service manager",
}


class _Wanted(NamedTuple):
    """One socket to be: what was said for it, and whether others may do without it."""

    family: int
    address: tuple[Any, ...]
    said: str
    spare: bool


def each(hosts: Hosts) -> tuple[str, ...]:
    """The hosts that a setting names: one, or a list."""
    return tuple(dict.fromkeys([hosts] if isinstance(hosts, str) else hosts))


def opened(hosts: Hosts, port: int) -> list[socket.socket]:
    """Sockets that listen, in the order of the hosts. Port 0 takes a free one, the same for all. Raises
    DelegatorError (CONFIGURATION)."""
    return _sockets(hosts, port, _listening)


def bound(hosts: Hosts, port: int) -> list[socket.socket]:
    """The same, but that they do not listen: for who only asks whether they could. A device that calls meanwhile finds
    nobody, and who begins to listen there is not kept from it. Raises as `opened` does, in the same words."""
    return _sockets(hosts, port, _bound)


def _sockets(hosts: Hosts, port: int, made: Make) -> list[socket.socket]:
    for _ in range(TRIES if port == 0 else 1):
        try:
            return _all(list(_wanted(each(hosts), port)), made)
        except _Failed as failed:
            last = failed
            if failed.error.errno != errno.EADDRINUSE:
                break
    number = last.error.errno or 0
    place = last.said if number in _ABSENT else f"{last.said} port {port}"  # no port is to blame for its address
    raise Unlistenable(Kind.CONFIGURATION, f"cannot listen on {place}: {os.strerror(number)}",
                       hint=_HINTS.get(number, "see: ip address").format(port=port), taken=number == errno.EADDRINUSE)


class Unlistenable(DelegatorError):
    """An address or a port that is not to be had; `taken` where another program has it."""

    def __init__(self, kind: Kind, detail: str, *, hint: str, taken: bool) -> None:
        super().__init__(kind, detail, hint=hint)
        self.taken = taken


class _Failed(Exception):
    def __init__(self, said: str, error: OSError) -> None:
        super().__init__(said)
        self.said, self.error = said, error


def _wanted(hosts: Sequence[str], port: int) -> Iterator[_Wanted]:
    if not hosts:
        raise DelegatorError(Kind.CONFIGURATION, "no host is named to listen on", hint='such as ["0.0.0.0", "::"]')
    found: dict[tuple[Any, ...], _Wanted] = {}
    for host in hosts:
        name = normal_host(host)
        spare = name in _EVERYWHERE or not is_address(name)
        try:
            known = socket.getaddrinfo(name or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (socket.gaierror, UnicodeError) as error:
            why = getattr(error, "strerror", None) or "no host name"
            raise DelegatorError(Kind.CONFIGURATION, f"cannot listen on {host[:80]!a}: {why}",
                                 hint="name an address or a name of this machine, without a port") from None
        for family, _, _, _, address in known:
            found.setdefault(address, _Wanted(family, address, host, spare or not name))
    yield from found.values()


def _all(wanted: Sequence[_Wanted], make: Make) -> list[socket.socket]:
    made: list[socket.socket] = []
    absent: list[_Failed] = []
    try:
        for one in wanted:
            number = made[0].getsockname()[1] if made else one.address[1]
            try:
                made.append(make(one.family, (one.address[0], number, *one.address[2:])))
            except OSError as error:
                failed = _Failed(one.said, error)
                if not one.spare or error.errno not in _ABSENT:
                    raise failed from None
                absent.append(failed)
        if not made:
            raise absent[0]
    except BaseException:
        for sock in made:
            sock.close()
        raise
    for failed in absent:
        log.info("not listening on %s: %s", failed.said, os.strerror(failed.error.errno or 0))
    return made


def _listening(family: int, address: tuple[Any, ...]) -> socket.socket:
    return socket.create_server(address, family=family, backlog=BACKLOG)


def _bound(family: int, address: tuple[Any, ...]) -> socket.socket:
    """With what `create_server` sets before it binds."""
    sock = socket.socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def place_of(sock: socket.socket) -> Place:
    """Host and port where a socket listens; of a link-local address with its scope."""
    host, _ = socket.getnameinfo(sock.getsockname(), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    return normal_host(host), int(sock.getsockname()[1])


def shown(places: Iterable[Place]) -> list[str]:
    """As everybody writes them."""
    return [authority(*place) for place in places]
