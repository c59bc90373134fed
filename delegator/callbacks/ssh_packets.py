"""Each SSH packet is counted at its header, before asyncssh opens or answers it, and output in scraps is taken slowly.

A packet is the work, not its bytes: 52 bytes that want an answer take 35 µs and as much as 4 KiB of output. Where a
sealed packet ends only its reader can tell, so asyncssh's own reader of headers is watched.
The invariants: of no call more packets are opened than its ration has; once it has had its quick pieces of output, a
BATCH in each PAUSE is opened, whatever it holds; meanwhile the valve takes nothing from the peer.
Must not live here: how many (ssh_session), bytes (net.valve), what packets mean.
"""

from __future__ import annotations

import asyncio
from typing import Any

import asyncssh

from delegator.net.valve import Valve

PAUSE = 0.25
"""Seconds between two batches for a call that has had its quick pieces."""
BATCH = 10
"""Packets. A script that prints a hundred lines one by one takes two seconds longer, and one that never ends costs 2 ms
of CPU a second. One packet each 25 ms would cost four times as much: waking for it is more than it is."""


class Packets:
    """Of one connection, from its beginning on. Raises AttributeError where asyncssh names its reader of headers
    otherwise: no call is made then, and a test is red."""

    def __init__(self, connection: Any, valve: Valve) -> None:
        self._valve = valve
        self._loop = asyncio.get_running_loop()
        self._header, self._on = connection._recv_pkthdr, connection._recv_data
        connection._recv_pkthdr = self._begin
        self._left = 0
        self._waits = False

    def _begin(self) -> bool:
        """In place of asyncssh's reader of a header: whether it is to go on reading."""
        if self._waits:
            return False
        if self._valve.is_slow() and not self._left:
            self._waits = True
            self._valve.hold()
            self._loop.call_later(PAUSE, self._go_on)
            return False
        begun: bool = self._header()
        if begun:
            self._left = max(0, self._left - 1)
            if not self._valve.passes():
                raise asyncssh.ProtocolError("more packets than anybody needs")
        return begun

    def _go_on(self) -> None:
        self._waits, self._left = False, BATCH
        self._on()
        if not self._waits:
            self._valve.go_on()
