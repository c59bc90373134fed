"""Hostile name servers, or owners of a reverse zone: what they answer to a question, by UDP and by TCP.

The invariant: an answer has the question's id and its question, unless that is the point.
Must not live here: other layers.
"""

from __future__ import annotations

import itertools
import os
import struct
import time
from collections.abc import Callable, Iterator

from benchmarks.isolation.modes import Mode

UDP, TCP = "udp", "tcp"
A, CNAME, PTR = 1, 5, 12
Replies = Callable[[bytes, str], Iterator[bytes]]
"""What is answered to a question that came by one of the two."""


def answer(question: bytes, *records: bytes, code: int = 0, truncated: bool = False) -> bytes:
    """A message (RFC 1035 section 4.1) with these records."""
    flags = 0x8180 | code | (0x0200 if truncated else 0)
    return question[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0) + asked(question) + b"".join(records)


def asked(question: bytes) -> bytes:
    """Its question section: one name, a type and a class."""
    at = 12
    while question[at]:
        at += question[at] + 1
    return question[12:at + 5]


def pointer(at: int) -> bytes:
    return struct.pack("!H", 0xC000 | at)


def record(kind: int, data: bytes, name: bytes = pointer(12)) -> bytes:
    return name + struct.pack("!HHIH", kind, 1, 60, len(data)) + data


LONG = b"\x01a" * 124 + b"\0"
"""124 labels: with one of three letters before them a name is as long as names can be."""


def bomb(question: bytes, many: int) -> bytes:
    """One long name, and records whose names point into it."""
    at = 12 + len(asked(question)) + 12
    return answer(question, record(PTR, LONG), *(record(PTR, b"\x03%03x" % n + pointer(at)) for n in range(many)))


def by_tcp(make: Callable[[bytes], bytes]) -> Replies:
    """A truncated answer by UDP, so that the long one is asked for."""
    return lambda question, way: iter([answer(question, truncated=True) if way == UDP else make(question)])


def always(make: Callable[[bytes], bytes]) -> Replies:
    return lambda question, way: iter([make(question)])


def chain(question: bytes, many: int) -> bytes:
    names = [b"\x04c%03d" % n + b"\0" for n in range(many)]
    return answer(question, record(CNAME, names[0]), *(
        record(CNAME, after, before) for before, after in itertools.pairwise(names)))


def loop(question: bytes) -> bytes:
    there = b"\x04loop\0"
    return answer(question, record(CNAME, there), record(CNAME, pointer(12), there))


def dripping(question: bytes, way: str) -> Iterator[bytes]:
    """By TCP a few bytes at a time, see the attacker: what is empty is a pause."""
    if way == UDP:
        yield answer(question, truncated=True)
        return
    for _ in range(100):
        time.sleep(0.05)
        yield b""


def forged(question: bytes, way: str) -> Iterator[bytes]:
    """Answers with other ids, more than anybody waits for."""
    whole = bomb(question, 40)
    return (os.urandom(2) + whole[2:] for _ in range(100_000))


def nothing(question: bytes) -> bytes:
    return answer(question, code=3)


def labels(name: str) -> bytes:
    return b"".join(bytes([len(one)]) + one.encode() for one in name.split(".")) + b"\0"


def zone(names: Callable[[str], list[str]]) -> Replies:
    """The reverse zone and its names, which lead back: each begins with the address, its dots as dashes."""
    def made(question: bytes) -> bytes:
        section = asked(question)
        said, kind = section[:-4], int.from_bytes(section[-4:-2])
        parts, at = [], 0
        while said[at]:
            parts.append(said[at + 1:at + 1 + said[at]].decode("ascii").lower())
            at += said[at] + 1
        if kind == PTR:
            address = "-".join(reversed(parts[:4]))
            return answer(question, *(record(PTR, labels(name)) for name in names(address)))
        if kind == A and parts[0].count("-") == 3:
            return answer(question, record(A, bytes(map(int, parts[0].split("-")))))
        return nothing(question)
    return always(made)


well = zone(lambda address: [f"{address}.site.honest.test"])
"""An honest network: a name that leads back, and no delegate in its domains."""
MODES = tuple(Mode("dns", *row) for row in (
    ("silence", "answers nothing", lambda question, way: iter(())),
    ("bomb by UDP", "45 names of 125 labels behind pointers, in 1 200 bytes", always(lambda q: bomb(q, 45))),
    ("bomb by TCP", "the same in 4 KB by TCP", by_tcp(lambda q: bomb(q, 180))),
    ("64 KB by TCP", "the same in 64 KB", by_tcp(lambda q: bomb(q, 3000))),
    ("57 KB by UDP", "the same in a datagram that is longer than was asked for", always(lambda q: bomb(q, 2600))),
    ("flood", "the same two thousand times for one question",
     lambda q, way: itertools.repeat(bomb(q, 45), 2000)),
    ("forged", "answers with other ids, as long as somebody waits", forged),
    ("many names", "40 names of its own, each to be looked up",
     always(lambda q: answer(q, *(record(PTR, b"\x03%03d\x04evil\x04test\0" % n) for n in range(40))))),
    ("many domains", "eight names of eleven labels that lead back, each label a domain to be asked", zone(
        lambda address: [f"{address}.{'.'.join(f'{n}{m}' for m in 'abcdefgh')}.evil.test" for n in range(8)])),
    ("cname chain", "40 aliases, one after the other", always(lambda q: chain(q, 40))),
    ("cname loop", "an alias for itself", always(loop)),
    ("servfail", "SERVFAIL each time", always(lambda q: answer(q, code=2))),
    ("truncated", "truncated, and by TCP nothing", lambda q, way: iter(
        [answer(q, truncated=True)] if way == UDP else [])),
    ("tcp drip", "truncated, and by TCP a byte now and then", dripping),
    ("garbage", "random bytes behind the right id", lambda q, way: iter([q[:2] + b"\x81\x80" + os.urandom(1200)])),
    ("pointer loop", "a name that points to itself", always(
        lambda q: answer(q, record(PTR, pointer(12 + len(asked(q)) + 12))))),
))
