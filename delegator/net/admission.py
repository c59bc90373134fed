"""How many connections to take in one turn of the loop, and which of those in line have waited too long.

If connections were accepted faster than they can be served, each would be served a little, all would pass their
deadlines together, and nobody would get an answer. So the line stays in the kernel, where it costs nothing, and each
turn accepts only as many as keep the next turn short. A connection that has waited so long that its device may be
gone, or that waits in a line that is nearly full, is refused at once. That costs 1/50 of an answer, and the device
comes again later.
The invariant: an honest load that can be served is accepted whole; the line is looked at only while there is one.
Must not live here: connections, limits of how many may stand (crowds).
"""

from __future__ import annotations

import socket
import struct
import time

TURN = 0.05
"""Seconds that a turn of the loop may take: some 50 steps of handshakes, enough to share a commit among many."""
MOST = 64
"""Connections in one turn at most: those already open get their turn in between."""
PATIENCE = 5.0
"""Seconds in line after which a device has begun to think of giving up (its client waits ten for the connection)."""
FULL = 0.75
"""Share of the kernel's line from which on its oldest are refused: past its end the kernel drops without a word."""
REFUSALS = 256
"""In one turn at most; each takes 30 µs."""
_INFO = struct.Struct("=24xII20xI")
"""linux/tcp.h, tcp_info: unacked and sacked, of a listening socket the length of its line and its end; last_data_recv,
the milliseconds since the peer said something."""
_RESET = struct.pack("ii", 1, 0)


class Admission:
    """One listener's. Ask `room` at the beginning of a turn, and tell `taken` at its end."""

    __slots__ = ("_began", "_quota", "behind")

    def __init__(self) -> None:
        self._quota = MOST
        self._began = 0.0
        self.behind = False
        """Whether the last turn left somebody in line."""

    def room(self) -> int:
        """How many to take now."""
        now = time.monotonic()
        if self.behind:  # then we are called in every turn, so the time since the last call is one turn
            turn = now - self._began
            # Halved at most: one long turn may have had other reasons.
            self._quota = (max(1, self._quota // 2, int(self._quota * TURN / turn)) if turn > TURN
                           else min(MOST, self._quota + 2))
        self._began = now
        return self._quota

    def taken(self, all_of_them: bool) -> None:
        """Whether the line was empty at the end."""
        self.behind = not all_of_them
        if all_of_them:
            self._quota = min(MOST, self._quota + 2)


def crowded(listening: socket.socket) -> bool:
    """Whether the line of a listening socket is nearly full."""
    length, end, _ = _info(listening)
    return length > FULL * end


def stale(sock: socket.socket) -> bool:
    """Whether a connection's last word came so long ago that it has stood in line too long."""
    return _info(sock)[2] > PATIENCE * 1000


def _info(sock: socket.socket) -> tuple[int, int, int]:
    length, end, silent = _INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size))
    return length, end, silent


def refuse(sock: socket.socket) -> None:
    """Close it so that the other end knows at once (a reset)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()
