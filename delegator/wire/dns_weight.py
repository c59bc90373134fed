"""How much work a DNS message would be to read, told before anything of it is expanded. T-B4.

A name may end in a pointer to an earlier one (RFC 1035 section 4.1.4), so that two bytes stand for 126 labels: 1 223
bytes of such records cost 90 ms to expand, and whoever owns a reverse zone may fill them. Here names are only walked,
label by label, and the walk ends where the bound is reached.
The invariant: a message that passes has few records, all of kinds whose names are walked here, no name of extraordinary
length, and few labels in all, however it is compressed; the walk itself takes LONGEST_NAME steps a name at most.
Must not live here: reading it (wire.dns_message), asking (net.dns), what an answer means (domains).
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from contextvars import ContextVar

MOST_RECORDS = 256
"""A name with 250 addresses has one record for each."""
MOST_LABELS = 1024
"""Of all names together, of one message and of all that are asked for together: 250 times a host name of four labels.
About 10 ms of work."""
LONGEST_NAME = 40
"""Labels of one name, with the pointers on the way: an IPv6 address backwards has 34."""
_HEADER, _QUESTION, _RECORD = 12, 4, 10
_NAME_AT = {2: 0, 5: 0, 12: 0, 15: 2, 33: 6, 39: 0}
"""Where the name is in the data of NS, CNAME, PTR, MX, SRV and DNAME records."""
_SOA, _ADDRESSES = 6, (1, 28)
_NAMELESS = frozenset((1, 13, 16, 28, 41, 99))
"""A, HINFO, TXT, AAAA, OPT, SPF: no name is in their data. Every other kind is refused: in RP, AFSDB, NAPTR and more
are names that are not walked here (a reader that expanded them took a second for 60 RP records in 1 220 bytes), and
nobody asked for them."""
_COUNTED_AS_LABEL = 4
"""Bytes of their data that are taken for the work of one label."""

_STEPS = 4
"""Pointers that are as much work as one label."""


class _Walk:
    """Names and records of one message, one after the other."""

    def __init__(self, message: bytes) -> None:
        self._message, self.at, self.labels = message, _HEADER, 0

    def name(self) -> None:
        """Past one name, its labels counted as if it were expanded. Raises ValueError."""
        message, at, after, labels, steps = self._message, self.at, 0, 0, 0
        while length := message[at]:
            if length >= 0xC0:
                after, target = after or at + 2, (length & 0x3F) << 8 | message[at + 1]
                if target >= at:
                    raise ValueError("a name that points ahead")
                at = target
                steps += 1  # a chain of 900 pointers is no name of four labels
            else:
                at += 1 + length
                labels += 1
            if labels + steps > LONGEST_NAME:
                raise ValueError(f"a name of more than {LONGEST_NAME} labels")
        self.at = after or at + 1
        self._count(labels + steps // _STEPS)

    def record(self) -> None:
        """Past one record. Raises ValueError."""
        self.name()
        kind, _, _, size = struct.unpack_from("!HHIH", self._message, self.at)
        start = self.at + _RECORD
        if kind in _NAME_AT:
            self.at = start + _NAME_AT[kind]
            self.name()
        elif kind == _SOA:
            self.at = start
            self.name()
            self.name()
        elif kind not in _NAMELESS:
            raise ValueError(f"a record of type {kind}, which nobody asked for")
        elif kind not in _ADDRESSES:
            self._count(size // _COUNTED_AS_LABEL)
        self.at = start + size

    def _count(self, labels: int) -> None:
        self.labels += labels
        if self.labels > MOST_LABELS:
            raise ValueError(f"names of more than {MOST_LABELS} labels in all")


def weigh(message: bytes) -> int:
    """The labels of all its names, as if they were expanded. Raises ValueError for a message that would be too much
    work, or whose counts and pointers lead out of it."""
    try:
        questions, *records = struct.unpack_from("!4H", message, 4)
        if questions + sum(records) > MOST_RECORDS:
            raise ValueError(f"more than {MOST_RECORDS} records")
        walk = _Walk(message)
        for _ in range(questions):
            walk.name()
            walk.at += _QUESTION
        for _ in range(sum(records)):
            walk.record()
    except (IndexError, struct.error):
        raise ValueError("a message that ends too early") from None
    return walk.labels


_spent: ContextVar[list[int] | None] = ContextVar("labels of one look-up", default=None)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """All answers to questions asked inside, in tasks begun inside too, share one bound: one address may lead to a
    question for each of its names, and each answer may be filled."""
    before = _spent.set([0])
    try:
        yield
    finally:
        _spent.reset(before)


def weigh_together(message: bytes) -> None:
    """Weigh a message, and what was weighed before it in the same look-up. Raises ValueError as `weigh` does."""
    labels, spent = weigh(message), _spent.get()
    if spent is not None:
        spent[0] += labels
        if spent[0] > MOST_LABELS:
            raise ValueError(f"names of more than {MOST_LABELS} labels, together with those before it")
