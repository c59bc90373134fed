"""DNS messages, as far as reverse look-ups need them: a question written, an answer read. RFC 1035, 2308, 6891.

Few record types, no names that are expanded before `dns_weight` has counted them, a chain of aliases inside one answer.
A library that reads everything takes 300 µs a question with all around it, this 50, and one new address may lead to 21
questions.
The invariants: what is read was weighed before; an answer is used only if it has the number and the question that were
asked and ends where it says; whatever else came is `None`, none of ours, or a ValueError that says what is wrong.
Must not live here: asking (net.dns), what names mean (domains).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from delegator.wire.dns_weight import weigh_together

A, CNAME, SOA, PTR, AAAA, OPT = 1, 5, 6, 12, 28, 41
IN = 1
NO_ERROR, NO_SUCH_NAME = 0, 3
MOST_ALIASES = 16
"""One after the other, in one answer."""
NEGATIVE = 300
"""Seconds for which "there is nothing" is believed that comes without an SOA record."""
MOST_TTL = 2**31 - 1
PAYLOAD = 1232
"""Bytes of a UDP answer that no path cuts into pieces (DNS flag day 2020)."""
_RESPONSE, _OPERATION, _TRUNCATED, _RECURSIVE = 0x8000, 0x7800, 0x0200, 0x0100
_CODE = 0x000F
_WORDS = {1: "FORMERR", 2: "SERVFAIL", 4: "NOTIMP", 5: "REFUSED"}
Labels = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, with the number that its answer must have."""

    number: int
    name: Labels
    kind: int

    def wire(self) -> bytes:
        """Raises ValueError for a name that is none."""
        name = b"".join(bytes((len(label),)) + label for label in self.name) + b"\0"
        if len(name) > 255 or not all(0 < len(label) < 64 for label in self.name):
            raise ValueError("no name of the DNS")
        return (struct.pack("!6H", self.number, _RECURSIVE, 1, 0, 0, 1) + name + struct.pack("!HH", self.kind, IN)
                + struct.pack("!BHHIH", 0, OPT, PAYLOAD, 0, 0))


@dataclass(frozen=True, slots=True)
class Said:
    """What a name server says: data of the records that were asked for (a name of PTR records as labels, an address as
    its bytes), possibly none, and for how many seconds that may be believed; or that its answer was cut off."""

    values: tuple[Labels | bytes, ...] = ()
    ttl: int = 0
    truncated: bool = False


def labels_of(name: str) -> Labels:
    return tuple(name.rstrip(".").encode("ascii").split(b"."))


def read(message: bytes, question: Question, most: int) -> Said | None:
    """An answer of so many bytes at most; None where it is none to this question: what has another number is not even
    looked at. Raises ValueError for an answer that cannot be used."""
    if message[:2] != question.number.to_bytes(2, "big"):
        return None
    if len(message) > most:
        raise ValueError(f"an answer of more than {most} bytes")
    try:
        weigh_together(message)
        return _read(message, question)
    except (IndexError, struct.error):
        raise ValueError("an answer that ends too early") from None
    except ValueError as error:
        raise ValueError(f"an answer with {error}") from None


def _read(message: bytes, question: Question) -> Said | None:
    _, flags, questions, *counts = struct.unpack_from("!6H", message)
    if not flags & _RESPONSE or flags & _OPERATION:
        return None
    code = flags & _CODE
    if code not in (NO_ERROR, NO_SUCH_NAME):
        raise ValueError(f"the code {_WORDS.get(code, code)}")
    if questions != 1:
        raise ValueError(f"{questions} questions")
    asked, at = _name(message, 12)
    kind, room = struct.unpack_from("!HH", message, at)
    if (_lower(asked), kind, room) != (_lower(question.name), question.kind, IN):
        return None
    if flags & _TRUNCATED:
        return Said(truncated=True)
    records = _Records(message, at + 4, code)
    answer, authority, _ = (list(records.next(count, kinds)) for count, kinds in zip(
        counts, ({question.kind, CNAME}, {SOA}, ()), strict=True))
    if records.at != len(message):
        raise ValueError("more in it than it says")
    return _chained(question, code, answer, authority)


@dataclass(frozen=True, slots=True)
class _Record:
    owner: Labels
    kind: int
    ttl: int
    data: Labels | bytes | int


class _Records:
    """Of one message, section by section."""

    def __init__(self, message: bytes, at: int, code: int) -> None:
        self._message, self.at, self._code = message, at, code

    def next(self, count: int, kinds: Collection[int]) -> Iterator[_Record]:
        """The records of a section that are of these kinds. Of all others, however many, nothing is expanded."""
        for _ in range(count):
            began, at = self.at, _after(self._message, self.at)
            kind, room, ttl, size = struct.unpack_from("!HHIH", self._message, at)
            start, self.at = at + 10, at + 10 + size
            if self.at > len(self._message):
                raise ValueError("a record that ends after it")
            if kind == OPT and ttl >> 24:
                raise ValueError(f"the code {ttl >> 20 & 0xFF0 | self._code}")
            if room == IN and kind in kinds:
                owner, _ = _name(self._message, began)
                yield _Record(_lower(owner), kind, ttl if ttl <= MOST_TTL else 0,
                              _DATA[kind](self._message, start, size))


def _chained(question: Question, code: int, answer: list[_Record], authority: list[_Record]) -> Said:
    """What stands at the end of the aliases."""
    found: dict[tuple[Labels, int], list[_Record]] = {}
    for record in answer:
        found.setdefault((record.owner, record.kind), []).append(record)
    name, ttl = _lower(question.name), MOST_TTL
    for _ in range(MOST_ALIASES):
        records = found.get((name, question.kind), [])
        aliases = found.get((name, CNAME), [])
        ttl = min([ttl, *(record.ttl for record in records or aliases)])
        if records:
            if code == NO_SUCH_NAME:
                raise ValueError("records for a name that it says is none")
            return Said(tuple(record.data for record in records if not isinstance(record.data, int)), ttl)
        if not aliases:
            return Said((), min(ttl, _negative(name, authority)))
        alias = aliases[0].data
        assert isinstance(alias, tuple)
        name = _lower(alias)
    raise ValueError(f"more than {MOST_ALIASES} aliases")


def _negative(name: Labels, authority: list[_Record]) -> int:
    """For how long there is nothing, as the SOA record of a zone above the name says (RFC 2308 section 5)."""
    above = {name[start:] for start in range(len(name) + 1)}
    for record in authority:
        if record.kind == SOA and record.owner in above and isinstance(record.data, int):
            return min(record.ttl, record.data)
    return NEGATIVE


def _lower(name: Labels) -> Labels:
    return tuple(label.lower() for label in name)


def _name(message: bytes, at: int) -> tuple[Labels, int]:
    """A name and where it ends. It was walked before, so its pointers lead back and it is not long."""
    labels, after = [], 0
    while length := message[at]:
        if length >= 0xC0:
            after = after or at + 2
            at = (length & 0x3F) << 8 | message[at + 1]
        elif length >= 0x40:
            raise ValueError("a label of a kind that there is not")
        else:
            labels.append(message[at + 1:at + 1 + length])
            at += 1 + length
    return tuple(labels), after or at + 1


def _after(message: bytes, at: int) -> int:
    """Where a name ends."""
    while length := message[at]:
        if length >= 0xC0:
            return at + 2
        at += 1 + length
    return at + 1


def _named(message: bytes, start: int, size: int) -> Labels:
    name, end = _name(message, start)
    if end != start + size:
        raise ValueError("a name that is not as long as its record")
    return name


def _addressed(length: int, message: bytes, start: int, size: int) -> bytes:
    if size != length:
        raise ValueError(f"an address of {size} bytes")
    return message[start:start + size]


def _minimum(message: bytes, start: int, size: int) -> int:
    """The last number of an SOA record."""
    _, at = _name(message, start)
    _, at = _name(message, at)
    *_, minimum = struct.unpack_from("!5I", message, at)
    if at + 20 != start + size:
        raise ValueError("an SOA record that is not as long as it says")
    return min(int(minimum), MOST_TTL)


_DATA: dict[int, Callable[[bytes, int, int], Labels | bytes | int]] = {
    A: functools.partial(_addressed, 4), AAAA: functools.partial(_addressed, 16), CNAME: _named, PTR: _named,
    SOA: _minimum}
