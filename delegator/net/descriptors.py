"""Who may have how many of the files that a process can hold open (RLIMIT_NOFILE): each port its own share.

Sockets are files, and one that cannot be opened is an answer that is not given: without shares whoever connects most
takes them all, from the database and from delegates too. What a share is made of is known at the start, so it is
decided there: the operators' port and the program's own files take a fixed number, the calls that we make an eighth,
the store what its settings say, and devices have the rest.
The invariant: all shares together fit into the limit, and the devices' share never grows beyond its settings.
Must not live here: accepting (net.serve, net.lobby), what is pushed out (net.crowds).
"""

from __future__ import annotations

import contextlib
import resource
from dataclasses import replace

from delegator.net.crowds import Caps

OURS = 96
"""The program itself: its standard streams, the loop's own, the database's files, keys that are read, what listens,
pipes to workers (measured: 23 at rest, embedded database)."""
OPS = 96
"""The operators' port: `net.lobby.MOST`, and what one turn of the loop takes beyond it."""
ENOUGH = 1 << 20
"""Nobody needs more, and what goes through all of them, as some libraries do, would take its time."""
CALLS = 8
"""One part of so many is for calls that we make: delegates, relays, name servers, programs."""
CALLS_LEAST, CALLS_MOST = 64, 2048
LEAST = 64
"""Connections of devices that there are in any case: a limit that leaves no room for them is a mistake to be told."""
STRANGERS = 0.75
"""Share of the devices' connections that may be before the end of their handshake, where there are fewer than the
settings say: silent peers must leave room for those that are served."""
ONE_SOURCE = 0.5
"""The same for one address: it cannot have them all."""


def raised() -> int:
    """The limit from here on: as high as this process may set it. The lower one is for programs that use select(2)."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now != resource.RLIM_INFINITY:
        with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, highest()), most))
    return limit()


def highest() -> int:
    """What `raised` makes of the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ENOUGH if most == resource.RLIM_INFINITY else min(most, ENOUGH)


def limit() -> int:
    now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if now == resource.RLIM_INFINITY else now


def calls(limit: int) -> int:
    """Sockets of calls that we make, at most (net.calls)."""
    return max(CALLS_LEAST, min(CALLS_MOST, limit // CALLS))


def others(limit: int, store: int) -> int:
    """What is not for devices, where the store has so many connections."""
    return OURS + OPS + store + calls(limit)


def room(limit: int, store: int) -> int:
    """Connections that devices can have."""
    return max(LEAST, limit - others(limit, store))


def needed(wanted: int, store: int) -> int:
    """The limit at which devices can have as many connections as wanted."""
    guess = wanted + others(0, store)
    while guess - others(guess, store) < wanted:
        guess = wanted + others(guess, store)
    return guess


def fitted(caps: Caps, limit: int, store: int) -> Caps:
    """The same as far as there is room."""
    most = min(caps.connections, room(limit, store))
    if most == caps.connections:
        return caps
    return replace(caps, connections=most, half_open=min(caps.half_open, max(1, int(most * STRANGERS))),
                   per_source=min(caps.per_source, max(1, int(most * ONE_SOURCE))))


def shortage(wanted: int, limit: int, store: int) -> str:
    """What there is to say of a limit that is too low for the settings; "" where it is not."""
    most = room(limit, store)
    if most >= wanted:
        return ""
    return (f"this process may hold {limit} files open, which leaves {most} connections for devices where [limits] "
            f"connections says {wanted}: raise the limit to {needed(wanted, store)} (LimitNOFILE in the unit, "
            "ulimit -Hn in a shell), or set connections lower")
