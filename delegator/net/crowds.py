"""How many connections there may be: from one source address, and of peers that have not shown yet who they are.

A source is an IPv4 address or an IPv6 /64, which is what one subscriber gets (RFC 6177). The cap of a source leaves
room for a data centre behind one NAT; the cap of strangers is a line that pushes out its oldest: a device ends its
handshake within a second, and who is slow on purpose loses the place to the next that comes.
The invariant: what is counted in is counted out once; a source without connections takes no memory.
Must not live here: sockets, deadlines.
"""

from __future__ import annotations

import collections
import socket
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from delegator.model.places import seen

T = TypeVar("T", bound=Hashable)
Source = str | bytes


@dataclass(frozen=True, slots=True)
class Caps:
    """How many connections at most: in all, from one source, and before the end of their TLS handshake."""

    connections: int = 20_000
    per_source: int = 2_000
    """At 400 handshakes a second the last of 2 000 waits five seconds, which is when a device gives up: one address
    cannot have more served in time anyway."""
    half_open: int = 5_000
    """Of about 45 KiB each once they have said something (measured)."""


def source_of(address: str) -> Source:
    """Whom an address is counted for: an IPv4 address itself, the /64 of an IPv6 address."""
    plain = seen(address)
    return socket.inet_pton(socket.AF_INET6, plain.partition("%")[0])[:8] if ":" in plain else plain


class Sources:
    """Connections counted by source."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[Source, int] = {}

    def enter(self, source: Source, most: int) -> bool:
        """Count one more of a source in, unless it has `most` already."""
        standing = self._counts.get(source, 0)
        if standing >= most:
            return False
        self._counts[source] = standing + 1
        return True

    def of(self, source: Source) -> int:
        """How many are counted of it."""
        return self._counts.get(source, 0)

    def leave(self, source: Source) -> None:
        standing = self._counts[source] - 1
        if standing:
            self._counts[source] = standing
        else:
            del self._counts[source]

    def __len__(self) -> int:
        return len(self._counts)


class Strangers(Generic[T]):
    """Connections that have not shown who they are, oldest first: before the end of their handshake, and after it
    where it asked for no certificate."""

    __slots__ = ("_line",)

    def __init__(self) -> None:
        self._line: collections.OrderedDict[T, None] = collections.OrderedDict()

    def enter(self, one: T, most: int) -> T | None:
        """Put a connection at the end of the line. Returns the oldest one if the line is too long now: it has to go."""
        self._line[one] = None
        return self._line.popitem(last=False)[0] if len(self._line) > most else None

    def leave(self, one: T) -> None:
        """Take out a connection that has shown who it is, or is gone. Doing so twice does nothing."""
        self._line.pop(one, None)

    def __len__(self) -> int:
        return len(self._line)
