"""What a peer that we call may send in one call, where a library reads it by rules of its own. T-B10, T-B11, T-B12.

asyncssh takes packets without data for as long as they come, 12 to 60 µs of work each; aiosmtplib reads a reply anew
from its first line whenever a piece of it comes. Neither counts. So what comes is counted before they get it: also how
often somebody has to look, for a byte that comes alone costs as much as a thousand, and in how many packets it comes,
for one of a byte costs as much as one of four thousand.
The invariant: what one call makes a library digest is a bounded number of bytes, packets, pieces and looks, whatever
they are.
Must not live here: sockets (net.valve), which peer gets which bounds.
"""

from __future__ import annotations

import msgspec

AROUND = 64
"""Bytes that stand around a piece of use: an SSH packet with a byte of output has 52 (RFC 5647), or 64 with a MAC."""


LOOKS = 1024
"""At what came, in one call: an answer of 64 KiB comes in 50 or so, 512 pieces of output in as many."""
TRICKLES = f"it sent what it sent in more than {LOOKS} small pieces"


class Bounds(msgspec.Struct, frozen=True):
    """Bytes and pieces of one call at most, with what they are called when they were too many. `ends` is what a piece
    ends with, where that is seen on the way in. `packets` are those of no use, where somebody counts packets, without
    one for each piece (some servers send one with everything they say). `quick` pieces are taken as they come, further
    ones slowly."""

    most: int
    most_of: str
    pieces: int
    pieces_of: str
    ends: bytes = b""
    packets: int = 0
    quick: int = 0


class Ration:
    """What is left of the bounds of one call."""

    __slots__ = ("_bounds", "_bytes", "_looks", "_packets", "_pieces")

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._bytes = self._pieces = self._looks = self._packets = 0

    def took(self, data: bytes) -> str:
        """Somebody looked, and this is what the peer had sent, if anything. Says what was too much, "" if nothing
        was."""
        self._looks += 1
        self._bytes += len(data)
        if self._bounds.ends:
            self._pieces += data.count(self._bounds.ends)
        return self._judged()

    def packet(self) -> str:
        """A packet begins; of what use it is can be told only when it was opened."""
        self._packets += 1
        return self._judged()

    def of_use(self, size: int) -> str:
        """So much of what came was what the call is for: one more piece, whose bytes are bounded elsewhere."""
        self._bytes -= size + AROUND
        self._packets -= 2
        self._pieces += 1
        return self._judged()

    @property
    def is_slow(self) -> bool:
        """Whether the quick pieces are used up."""
        return self._pieces >= self._bounds.quick

    def _judged(self) -> str:
        if self._bytes > self._bounds.most:
            return f"it sent more than {self._bounds.most} {self._bounds.most_of}"
        if self._packets > self._bounds.packets:
            return f"it sent more than {self._bounds.packets} packets that are no answer"
        if self._pieces > self._bounds.pieces:
            return f"it sent more than {self._bounds.pieces} {self._bounds.pieces_of}"
        if self._looks > LOOKS:
            return TRICKLES
        return ""
