"""Domain association: what an address and its names in the DNS may lead to. The patent's column 7; A5, T-B4.

Pure: which addresses are asked about, which names count, which domains a host can stand in, and the customer and
delegate that stand for a domain nobody registered. RFC 1912 2.1 asks that PTR and address agree; RFC 8601 3 says how
little that proves. So a domain found here is a hint that selects: the delegate's own certificate decides.
The invariant: no name leads to a public suffix, and labels are never cut: `evil-customer.example` is not inside
`customer.example`.
Must not live here: asking the DNS (net.dns, net.reverse), policy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from delegator.model import HOST_NAME, Customer, Delegate, SoapCallback
from delegator.model.places import Address, Network, normal_name, reached
from delegator.model.places import address as address_of
from delegator.outbound import DENIED

PREFIX = "domain:"
"""Begins the name of a customer or delegate that stands for a domain. No registered name can hold a colon."""
MOST_NAMES = 8
"""PTR names looked at; a host has one (RFC 1912 2.1), and each costs a question."""
MOST_LABELS = 12
"""Labels of a host name looked at; each label can cost a question, and real names have six at most."""
MOST_DOMAINS = 6
"""Domains of one address that are asked for a delegate, two questions each. Eight names of twelve labels stand in
eighty: that were 160 questions, a millisecond of everybody's time each (measured), for every new address."""
Registrable = Callable[[str], str | None]
"""From a name to the domain that somebody registered: its public suffix and one label more; None for a suffix."""
_LABEL = re.compile(rb"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


class DnsTrouble(Exception):
    """The DNS did not answer: silence, SERVFAIL, nonsense. Says nothing about what was asked."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What reverse DNS came to: a domain with an address of its delegate, or neither. `late` means that the DNS gave
    no answer this time, which says nothing about the device; `hosts` are the forward-confirmed names of the address."""

    because: str
    domain: str | None = None
    delegate_address: str | None = None
    late: bool = False
    hosts: tuple[str, ...] = ()


def asked_about(peer: str, private: Sequence[Network]) -> tuple[Address | None, str]:
    """The address to ask the DNS about, or None and why not. What it wraps (6to4, NAT64) is judged too: a private
    address has no owner that the DNS could name."""
    try:
        address, judged = address_of(peer), reached(peer)
    except ValueError:
        return None, "a peer without an address has no reverse DNS"
    if not any(address in network for network in private):
        for why, network in DENIED:
            if any(one in network for one in judged):
                return None, f"{address} is {why}: not asked about, unless [domains] private_networks has its network"
    return address, ""


def host_names(found: Iterable[tuple[bytes, ...]]) -> tuple[str, ...]:
    """The host names among PTR answers (each a sequence of raw labels), at most MOST_NAMES, in a fixed order."""
    return tuple(sorted({name for labels in found if (name := host_name(labels)) is not None}))[:MOST_NAMES]


def host_name(labels: Sequence[bytes]) -> str | None:
    """Raw labels as a host name in lower case; None for anything else that the DNS can carry (RFC 2181 11). A name
    whose last label is a number would be read as an address."""
    if not 0 < len(labels) <= MOST_LABELS or labels[-1].isdigit():
        return None
    if not all(_LABEL.fullmatch(label) for label in labels):
        return None
    name = normal_name(b".".join(labels).decode("ascii"))
    return name if HOST_NAME.fullmatch(name) else None


def candidates(host: str, registrable: str | None) -> tuple[str, ...]:
    """The domains a host stands in, the longest first, down to the registrable one. Its own name is none."""
    if registrable is None:
        return ()
    labels, shortest = host.split("."), registrable.count(".") + 1
    return tuple(".".join(labels[start:]) for start in range(1, len(labels) - shortest + 1))


def domain_of(name: str) -> str | None:
    """The domain that a customer or delegate of this name stands for; None for one that is registered."""
    return name.removeprefix(PREFIX) if name.startswith(PREFIX) else None


@dataclass(frozen=True, slots=True)
class Naming:
    """What stands for a domain: a delegate at `<label>.<domain>`, whose certificate must be for that very name and
    come from `anchor` (None: the factory's), and a customer under the policy named (None: the safe default)."""

    label: str
    port: int = 443
    anchor: str | None = None
    policy: str | None = None

    def host(self, domain: str) -> str | None:
        """The delegate's host name; None where a domain leaves no room for it."""
        name = f"{self.label}.{domain}"
        return name if HOST_NAME.fullmatch(name) else None

    def customer(self, domain: str) -> Customer:
        return Customer(PREFIX + domain, f"{domain} (by reverse DNS)", policy=self.policy)

    def delegate(self, domain: str, address: str | None = None) -> Delegate:
        """`address` is where to connect; the name in the certificate stays the host's."""
        return Delegate(PREFIX + domain, PREFIX + domain,
                        SoapCallback(f"{self.label}.{domain}", self.port, trust_anchor=self.anchor, address=address))
