"""Where something is: addresses, networks, host names, a host with its port. One normal form for each, made here alone.

Two things that mean the same must be equal wherever they are compared, so both sides go through these functions: what
an operator types, what stands in a database that an older release wrote, what a peer or a certificate says.
An IPv4 address inside an IPv6 one has two meanings, and each has one function. `address`: the same peer, told in
another way (::ffff:192.0.2.7, from a socket of both families). `reached`: where a packet may go in the end (NAT64,
6to4 and what else `model.wrapped` lists), which is what a list of forbidden places must judge, and nothing else may.
A network of such addresses is the IPv4 network inside. One that is wider than all of them (`::/0`) is of IPv6
addresses alone: it takes `0.0.0.0/0` beside it to mean everybody, so nothing is let in that nobody named.
The invariant: a form is its own normal form. Must not live here: looking anything up.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import re
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import force_setattr

from delegator.model.wrapped import inside

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
                       r"(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*")
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_AUTHORITY = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9.-]{1,254}))"
                        r"(?::(?P<port>[0-9]{1,5}))?")
"""HOST[:PORT] as RFC 3986 section 3.2 has it, without a user and without a scope: nothing in it can be markup."""

# --- addresses and networks -----------------------------------------------------------------------------------------


def address(text: str) -> Address:
    """A peer's address, the same however it was told. A scope (`%eth0`) is this machine's affair. Raises ValueError."""
    found = ipaddress.ip_address(text.partition("%")[0])
    return found if isinstance(found, ipaddress.IPv4Address) else found.ipv4_mapped or found


def reached(text: str) -> tuple[Address, ...]:
    """Every address that a packet to this one may go to in the end. Raises ValueError."""
    found = address(text)
    return (found,) if isinstance(found, ipaddress.IPv4Address) else inside(found)


def seen(peer: str) -> str:
    """A peer's address as the kernel tells it, in its normal form: a text for a text, on every connection (0.1 µs)."""
    return peer[7:] if peer.startswith("::ffff:") and "." in peer else peer


def normal_address(text: str) -> str:
    """An address as it is compared and shown, its scope kept. Raises ValueError."""
    found = ipaddress.ip_address(text)
    return str(getattr(found, "ipv4_mapped", None) or found)


def network(text: str, *, strict: bool = True) -> Network:
    """A network as it is compared; of IPv4 addresses inside IPv6 it is that IPv4 network. Raises ValueError."""
    if "%" in text:
        raise ValueError(f"{text[:64]!a} has a scope, and a network has none")
    found = ipaddress.ip_network(text, strict=strict)
    if isinstance(found, ipaddress.IPv6Network) and found.subnet_of(_MAPPED):
        return ipaddress.IPv4Network((int(found.network_address) & 0xFFFFFFFF, found.prefixlen - 96))
    return found


def normal_network(text: str) -> str:
    """The same as text. Raises ValueError."""
    return str(network(text))


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks as an operator sets them. Raises ValueError that names the one that is none, or that nobody is in."""
    found = tuple(map(network, texts))
    for one in found:
        if is_empty(one):
            raise ValueError(f"{one} holds no address that anybody has; for all of IPv4 write 0.0.0.0/0")
    return found


def is_empty(one: Network) -> bool:
    """Whether nobody can be in it: around the IPv4 addresses inside IPv6 there is nothing, and those are IPv4."""
    return isinstance(one, ipaddress.IPv6Network) and 80 < one.prefixlen < 96 and _MAPPED.subnet_of(one)


def meant(text: str) -> Network | None:
    """The network that was meant by one with bits of a host in it; None where nothing is near. Around IPv4 addresses
    inside IPv6 there is none that holds them: a length of IPv4 is taken for one. Raises ValueError for no network."""
    near = network(text, strict=False)
    inside = address(text.partition("/")[0])
    if near.version == inside.version:
        return near
    return ipaddress.ip_network((inside, near.prefixlen), strict=False) if near.prefixlen <= 32 else None


def is_within(peer: str, texts: Iterable[str]) -> bool:
    """Whether a peer is in one of the networks. What is no address (on a Unix socket) is in none, and nobody is in
    what is no network; nor does that stop a delegator whose database holds it."""
    found = _peer(peer)
    if found is not None:
        for text in texts:
            one = lenient(text)
            if one is not None and found in one:
                return True
    return False


@functools.lru_cache(maxsize=256)
def _peer(text: str) -> Address | None:
    """Read once for all the rules that one device is held against."""
    try:
        return address(text)
    except ValueError:
        return None


@functools.lru_cache(maxsize=4096)
def lenient(text: str) -> Network | None:
    """A network as the database has it, which an older release may have written: bits of a host are passed over, and
    what is none is None. Reading it costs 5 µs, being asked 0.1 µs (measured)."""
    try:
        return network(text, strict=False)
    except ValueError:
        return None


# --- names ----------------------------------------------------------------------------------------------------------


def normal_name(text: str) -> str:
    """A host name or domain as it is compared: in lower case (RFC 4343) and without the final dot, which no
    certificate and no SNI has (RFC 6066 section 3). Whether it is one, HOST_NAME tells."""
    return text.removesuffix(".").lower()


def normal_host(text: str) -> str:
    """A host, which is an address or a name."""
    try:
        return normal_address(text)
    except ValueError:
        return normal_name(text)


def is_beneath(name: str, domain: str) -> bool:
    """Whether a name is the domain or in it, on the boundary of a label: `evil-example.com` is not in `example.com`."""
    said, wanted = normal_name(name), normal_name(domain)
    return said == wanted or said.endswith("." + wanted)


def is_loopback(host: str) -> bool:
    """Whether what is said to this host stays on this machine."""
    try:
        return address(host).is_loopback
    except ValueError:
        return normal_name(host) == "localhost"


# --- a host with its port -------------------------------------------------------------------------------------------


def authority(host: str, port: int | None = None) -> str:
    """A host and its port as everybody writes them: an IPv6 address stands in brackets, so that its end is known."""
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"


def url(host: str, port: int | None = None, path: str = "/") -> str:
    """An https address. The sign before a scope is written as RFC 6874 asks."""
    return f"https://{authority(host.replace('%', '%25'), port)}{path}"


def url_elsewhere(host: str, port: int, path: str) -> str:
    """An https address to tell somebody else, to whom our names of network interfaces mean nothing."""
    return url(host.partition("%")[0], port, path)


def read_authority(text: str) -> tuple[str, int | None] | None:
    """Host and port of HOST[:PORT], the host in its normal form; None for anything else."""
    found = _AUTHORITY.fullmatch(text)
    port = int(found["port"]) if found and found["port"] else None
    if found is None or (port is not None and not 0 < port < 65536):
        return None
    host = normal_host(found["six"] or found["name"])
    fits = ":" in found["six"] and is_address(host) if found["six"] else HOST_NAME.fullmatch(host) is not None
    return (host, port) if fits else None


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def names_user(text: str) -> bool:
    """Whether a URL has a user, or even a password, in front of its host: it is not shown then."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*@", text) is not None


def is_https(text: str) -> bool:
    """Whether it is an https address that may be told to others: a host, no user, no scope, a port that there is. A
    name with underscores is one too, as some have in the DNS; digits with dots that are no address are none."""
    try:
        parts = urlsplit(text)
        host, there = parts.hostname or "", parts.port != 0
    except ValueError:
        return False
    like_an_address = ":" in host or not host.replace(".", "").strip("0123456789")
    return (parts.scheme == "https" and bool(host) and there and "@" not in parts.netloc and "%" not in parts.netloc
            and (is_address(host) if like_an_address else True) and re.fullmatch("[!-~]{1,2000}", text) is not None)


def normal_delegator(text: str) -> str:
    """Another delegator as devices are told it: HOST[:PORT] in its normal form, or an https address. An IPv6 address
    may come without brackets where there is no port. Raises ValueError: a device takes no answer that names one it
    cannot dial."""
    text = text.strip()
    parts = urlsplit(text) if text.startswith("https://") else None
    found = read_authority(parts.netloc if parts else authority(text) if is_address(text) else text)
    if found is None or any(not "!" <= character <= "~" for character in text):
        raise ValueError(f"{text[:80]!a} is no delegator: HOST, HOST:PORT, [IPv6]:PORT or an https address")
    return authority(*found) if parts is None else parts._replace(netloc=authority(*found)).geturl()


def normalise(value: msgspec.Struct, **forms: Callable[[str], str]) -> None:
    """Bring fields of a frozen value into the one form in which they are compared, whoever wrote them: rows of an
    older release too. What is of no form stays as it is; those who compare it find nothing."""
    for field, form in forms.items():
        said = getattr(value, field)
        if said is not None:
            with contextlib.suppress(ValueError):
                force_setattr(value, field, form(said))
