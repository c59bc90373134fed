"""Where the delegator may connect to on a customer's behalf.

A customer names a host; what it resolves to is the customer's choice too, and may change between two look-ups. So
the decision is made on the address that is about to be connected to, each time.
Pure. The invariant: an address is judged by where a packet to it may end (places.reached): a v4 address inside a v6
one is that v4 address, and where there are several readings each of them must pass.
Must not live here: resolving, connecting.
"""

from __future__ import annotations

from dataclasses import dataclass

from delegator.model.places import Address, Network, network, networks, reached

__all__ = ["DENIED", "Address", "Network", "Outbound", "networks"]

_DENIED: tuple[tuple[str, str], ...] = (
    ("this machine", "127.0.0.0/8"), ("this machine", "::1/128"),
    ("this machine", "0.0.0.0/8"), ("this machine", "::/128"),
    ("link-local, cloud metadata", "169.254.0.0/16"), ("link-local", "fe80::/10"),
    ("cloud metadata", "fd00:ec2::/32"), ("cloud metadata", "100.100.100.200/32"),
    ("private", "10.0.0.0/8"), ("private", "172.16.0.0/12"), ("private", "192.168.0.0/16"), ("private", "fc00::/7"),
    ("private, carrier", "100.64.0.0/10"), ("site-local", "fec0::/10"),
    ("protocol assignments", "192.0.0.0/24"), ("benchmarks", "198.18.0.0/15"), ("benchmarks", "2001:2::/48"),
    ("a site's own translation to IPv4", "64:ff9b:1::/48"), ("discarded", "100::/64"), ("a segment", "5f00::/16"),
    ("multicast", "224.0.0.0/4"), ("multicast", "ff00::/8"), ("reserved", "240.0.0.0/4"),
)
"""RFC 6890 with RFC 4193, 3879, 6598, 5180, 8215, 6666 and 9602, and the addresses where clouds keep their machines'
secrets."""
DENIED: tuple[tuple[str, Network], ...] = tuple((why, network(text)) for why, text in _DENIED)


@dataclass(frozen=True, slots=True)
class Outbound:
    """The rule: `allow` wins over the deny list, `own_ports` of this machine are never connected to."""

    allow: tuple[Network, ...] = ()
    own_ports: frozenset[int] = frozenset()

    def refusal(self, address: str, port: int) -> str | None:
        """Why not to connect there, or None. Raises ValueError for what is no address."""
        return next((why for where in reached(address) if (why := self._against(where, port)) is not None), None)

    def _against(self, where: Address, port: int) -> str | None:
        denied = next((why for why, one in DENIED if where in one), None)
        if denied == "this machine" and port in self.own_ports:
            return f"{where} port {port} is the delegator itself"
        if denied is None or any(where in one for one in self.allow):
            return None
        return f"{where} is {denied}; [outbound] allow can permit its network"
