"""A window's devices: other customers', at a steady rate, and those that make the hostile peer be called.

One process over epoll, forked for each window. Other customers' devices are an open loop: they do not wait for each
other. Those that provoke are lanes: each asks, waits for its answer, rests, and asks again.
The invariant: every device that began ends as exactly one outcome.
Must not live here: the attacker, limits.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import re
import select
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from OpenSSL import SSL

from benchmarks.fleet import Device
from benchmarks.isolation.attacker import FORK
from benchmarks.isolation.modes import Provoked
from benchmarks.load import Call, client_context

PATIENCE = 10.0
"""Seconds from connecting to the answer; then a device has given up."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to happen in a window. A lane that has come to its end asks with its last device again and again."""

    address: tuple[str, int]
    seconds: float
    rate: float
    victims: Sequence[Device]
    lanes: Sequence[Sequence[Provoked]] = ()
    rest: float = 0.25
    wanted: bytes = b"<Password>"
    first: bytes = b""
    grace: float = 4.0
    """Seconds after the end that answers under way are waited for."""


@dataclass(slots=True)
class Seen:
    """Seconds of each answer to other customers' devices, what else they were told, and seconds of each call that was
    provoked."""

    latencies: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    provoked: list[float] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


class _One:
    """One device on its way."""

    __slots__ = ("_first", "began", "call", "device", "lane", "socket")

    def __init__(self, device: Device, order: Order, source: str, lane: int | None) -> None:
        self.device, self.lane, self._first = device, lane, order.first
        self.began = time.monotonic()
        self.call: Call | None = None
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            self.socket.bind((source, 0))
        if self.socket.connect_ex(order.address) not in (0, errno.EINPROGRESS):
            raise OSError("no connection")

    def connected(self, context: SSL.Context) -> None:
        """Raises OSError."""
        if number := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, errno.errorcode.get(number, "?"))
        if self._first:
            self.socket.sendall(self._first)
        self.call = Call(context, self.socket, self.device)


class _Window:
    def __init__(self, order: Order) -> None:
        self._order, self._context = order, client_context()
        self._epoll = select.epoll()
        self._open: dict[int, _One] = {}
        self._due: list[tuple[float, int, int | None]] = []
        self._numbers = itertools.count()
        self._victims: Iterator[Device] = iter(order.victims)
        self._steps = [0] * len(order.lanes)
        self.seen = Seen()

    def run(self) -> Seen:
        order, start = self._order, time.monotonic()
        end = start + order.seconds
        for number in range(int(order.rate * order.seconds)):
            heapq.heappush(self._due, (start + number / order.rate, next(self._numbers), None))
        for first in range(len(order.lanes)):
            heapq.heappush(self._due, (start + first * order.rest / len(order.lanes), next(self._numbers), first))
        while self._due or self._open:
            now = time.monotonic()
            if now > end + order.grace:
                break
            while self._due and self._due[0][0] <= now:
                moment, _, lane = heapq.heappop(self._due)
                if lane is None or moment < end:
                    self._begin(lane)
            self._turn(max(0.0, min(0.1, self._due[0][0] - now)) if self._due else 0.1)
        for one in list(self._open.values()):
            self._end(one, "no answer yet")
        return self.seen

    def _begin(self, lane: int | None) -> None:
        if lane is None:
            device, source = next(self._victims), ""
        else:
            steps = self._order.lanes[lane]
            device, source = steps[min(self._steps[lane], len(steps) - 1)]
            self._steps[lane] += 1
        try:
            one = _One(device, self._order, source, lane)
        except OSError as error:
            self.seen.failed.append(str(error))
            return
        self._open[one.socket.fileno()] = one
        self._epoll.register(one.socket.fileno(), select.EPOLLOUT)

    def _turn(self, seconds: float) -> None:
        for number, _ in self._epoll.poll(seconds, 64):
            one = self._open[number]
            try:
                if one.call is None:
                    one.connected(self._context)
                    self._epoll.modify(number, select.EPOLLIN)
                elif one.call.received():
                    self._end(one, "")
            except (OSError, SSL.Error) as error:
                self._end(one, f"{type(error).__name__} {error}")
        now = time.monotonic()
        for one in [one for one in self._open.values() if one.began < now - PATIENCE]:
            self._end(one, f"no answer in {PATIENCE:g} s")

    def _end(self, one: _One, why: str) -> None:
        self._epoll.unregister(one.socket.fileno())
        del self._open[one.socket.fileno()]
        one.socket.close()
        taken, order = time.monotonic() - one.began, self._order
        head, body = one.call.answer() if one.call is not None else (b"", b"")
        said = why or f"{head[9:12].decode('latin-1')} {_code(body)}".strip()
        if one.lane is not None:
            self.seen.provoked.append(taken)
            self.seen.told.append(said)
            heapq.heappush(self._due, (time.monotonic() + order.rest, next(self._numbers), one.lane))
        elif head.startswith(b"HTTP/1.1 200 ") and order.wanted in body:
            self.seen.latencies.append(taken)
        else:
            self.seen.failed.append(said)


def _code(body: bytes) -> str:
    found = re.search(rb"Code[^>]*>(\w+)<", body)
    return found[1].decode("latin-1") if found else ""


class Coming:
    """Devices under way in a process of their own. `seen` waits until they are done."""

    def __init__(self, order: Order) -> None:
        self._out, into = FORK.Pipe(duplex=False)
        self._process: Any = FORK.Process(target=_come, args=(order, into), daemon=True)
        self._process.start()
        into.close()
        self._longest = order.seconds + order.grace + 10

    def seen(self) -> Seen | None:
        """None while they are under way."""
        if not self._out.poll(0.05):
            return None
        found: Seen = self._out.recv()
        self._process.join()
        return found

    def stop(self) -> None:
        self._process.kill()
        self._process.join()


def _come(order: Order, into: Any) -> None:
    into.send(_Window(order).run())
