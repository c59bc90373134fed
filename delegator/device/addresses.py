"""Where to go: the grammar of delegator addresses and of a delegate's URL.

The invariant: an address that exists as a value has a host and a port that can be dialled.
Must not live here: looking up names, opening connections (exchange).
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit

DEFAULT_PORT = 4433
"""The port on which a delegator listens (patent figure 2, block 204)."""

LONGEST_URL = 2048
MOST = 8
"""Delegators that are asked in one attempt, however many there are."""

_HOST = (r"(?P<bracketed>\[[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._~-]{1,32})?\])|"
         r"(?P<host>[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9.])?)")
_ADDRESS = re.compile(rf"(?:{_HOST})(?::(?P<port>[0-9]{{1,5}}))?")


class Address(NamedTuple):
    """A host (name or IP address, an IPv6 one without brackets, perhaps with its scope) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return authority(self.host, self.port)

    @property
    def told(self) -> str:
        """As the other side is told whom it was asked for (the Host header)."""
        return authority(proven_name(self.host), self.port)


def authority(host: str, port: int) -> str:
    """A host and its port as everybody writes them: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def proven_name(host: str) -> str:
    """What a certificate must say for a host: a name without the final dot that it has in the DNS alone, an address
    without the scope that it has on this machine alone, an IPv4 address inside IPv6 as what it is."""
    name = host.partition("%")[0].lower()
    name = name[:-1] if name.endswith(".") else name
    return name[7:] if name.startswith("::ffff:") and "." in name else name


class Place(NamedTuple):
    """A delegate's URL, taken apart: whom to dial and what to ask for there."""

    address: Address
    target: str


def parse_address(text: str) -> Address:
    """`host`, `host.domain`, `1.2.3.4`, `[::1]`, each with an optional `:port`. Raises ValueError."""
    match = _ADDRESS.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:80]!a} is not an address: give HOST or HOST:PORT, IPv6 in brackets")
    host = match["host"] or match["bracketed"][1:-1]
    return Address(host, _port(match["port"], text))


def parse_addresses(text: str) -> tuple[Address, ...]:
    """A comma list of addresses, tried in order: the grammar that service processors accept. Raises ValueError."""
    addresses = tuple(parse_address(part) for part in text.split(","))
    if len(addresses) > MOST:
        raise ValueError(f"{len(addresses)} delegators are too many: give {MOST} at most")
    return addresses


def parse_alternate(text: str) -> Address:
    """A delegator as another delegator names it: an address or an https URL. Raises ValueError."""
    return parse_delegate_url(text.strip()).address if "//" in text else parse_address(text)


def parse_delegate_url(url: str) -> Place:
    """Only https, no user in the URL, no redirection later: the credential goes to exactly this server. Raises
    ValueError."""
    if len(url) > LONGEST_URL:
        raise ValueError(f"the delegate's URL is longer than {LONGEST_URL} characters")
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc or not _printable(url):
        raise ValueError("the delegate's URL is not of the form https://host[:port]/path")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.hostname.replace("%25", "%")  # RFC 6874
    return Place(Address(host, _port("443" if parts.port is None else str(parts.port), url)), target)


def _port(text: str | None, whole: str) -> int:
    port = DEFAULT_PORT if text is None else int(text)
    if not 0 < port < 65536:
        raise ValueError(f"{whole[:80]!a}: a port is a number from 1 to 65535")
    return port


def _printable(url: str) -> bool:
    return all("!" <= character <= "~" for character in url)
