"""Where the delegator may connect to on a customer's behalf.

A customer names a host; what it resolves to is the customer's choice too, and may change between two look-ups. So
the decision is made on the address that is about to be connected to, each time.
Pure. The invariant: an address is judged in its plainest form: a v4 address inside a v6 one is that v4 address.
Must not live here: resolving, connecting.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_DENIED: tuple[tuple[str, str], ...] = (
    ("this machine", "127.0.0.0/8"), ("this machine", "::1/128"),
    ("this machine", "0.0.0.0/8"), ("this machine", "::/128"),
    ("link-local, cloud metadata", "169.254.0.0/16"), ("link-local", "fe80::/10"),
    ("cloud metadata", "fd00:ec2::/32"), ("cloud metadata", "100.100.100.200/32"),
    ("private", "10.0.0.0/8"), ("private", "172.16.0.0/12"), ("private", "192.168.0.0/16"), ("private", "fc00::/7"),
    ("private, carrier", "100.64.0.0/10"), ("site-local", "fec0::/10"),
    ("protocol assignments", "192.0.0.0/24"), ("benchmarks", "198.18.0.0/15"),
    ("multicast", "224.0.0.0/4"), ("multicast", "ff00::/8"), ("reserved", "240.0.0.0/4"),
)
"""RFC 6890 with RFC 4193, 3879 and 6598, and the addresses where clouds keep their machines' secrets."""
DENIED: tuple[tuple[str, Network], ...] = tuple((why, ipaddress.ip_network(text)) for why, text in _DENIED)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def plain(text: str) -> Address:
    """An address without its v6 wrapping (v4-mapped, 6to4, NAT64, Teredo's server is no wrapping). Raises
    ValueError."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


@dataclass(frozen=True, slots=True)
class Outbound:
    """The rule: `allow` wins over the deny list, `own_ports` of this machine are never connected to."""

    allow: tuple[Network, ...] = ()
    own_ports: frozenset[int] = frozenset()

    def refusal(self, address: str, port: int) -> str | None:
        """Why not to connect there, or None. Raises ValueError for what is no address."""
        where = plain(address)
        denied = next((why for why, network in DENIED if where in network), None)
        if denied == "this machine" and port in self.own_ports:
            return f"{where} port {port} is the delegator itself"
        if denied is None or any(where in network for network in self.allow):
            return None
        return f"{where} is {denied}; [outbound] allow can permit its network"


def networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Networks from settings. Raises ValueError naming the text."""
    return tuple(ipaddress.ip_network(text) for text in texts)
