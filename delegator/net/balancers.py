"""Load balancers in front of us: who may say, by a PROXY header, which device a connection is from.

The invariant: where balancers are named, a connection is served only if it comes from one of them and begins with a
header; otherwise whoever reaches the port could pass for any address.
Must not live here: the header's form (wire.proxy), connections.
"""

from __future__ import annotations

from dataclasses import dataclass

from delegator.errors import DelegatorError, Kind
from delegator.model.places import Network, networks
from delegator.model.places import address as address_of
from delegator.wire.proxy import Header, HeaderReader, ProxyError


@dataclass(frozen=True, slots=True)
class Balancers:
    """The networks of all balancers."""

    networks: tuple[Network, ...]

    def trusted(self, address: str) -> bool:
        """Nothing but a v4-mapped address is taken for another: who has a v6 address may choose what is inside it."""
        try:
            where = address_of(address)
        except ValueError:
            return False
        return any(where in network for network in self.networks)


def balancers_of(texts: tuple[str, ...]) -> Balancers | None:
    """From settings; None where connections come from devices themselves. Raises DelegatorError (CONFIGURATION)."""
    try:
        return Balancers(networks(texts)) if texts else None
    except ValueError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"[server] proxy_from: {error}",
                             hint='networks of your load balancers, such as ["192.0.2.10/32"]') from None


PIECES = 128
"""In which a header may come: the longest of version 1 has 107 bytes, and balancers send theirs in one go. Each piece
is a look at the socket, and 2,048 bytes one by one were more than a handshake's work."""


class Introduction:
    """The beginning of one connection behind balancers, from `address`."""

    __slots__ = ("_address", "_pieces", "_reader", "_trusted")

    def __init__(self, balancers: Balancers, address: str) -> None:
        self._trusted = balancers.trusted(address)
        self._address = address
        self._reader = HeaderReader()
        self._pieces = 0

    def feed(self, data: bytes) -> Header | None:
        """The header once it is whole. Raises ProxyError when it is none, or none that counts."""
        if not self._trusted:
            raise ProxyError(f"{self._address} is none of the load balancers in [server] proxy_from")
        self._pieces += 1
        if self._pieces > PIECES:
            raise ProxyError(f"a PROXY header in more than {PIECES} pieces")
        return self._reader.feed(data)
