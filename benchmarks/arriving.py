"""Devices that arrive when they like, not when the last one was answered: an open loop, or a burst of all at once.

Each waits so long and no longer, as a device does. The client is one process; how late it was itself is told, so that
its own limits are not taken for the server's.
The invariant: every device ends as exactly one outcome.
Must not live here: servers, rates.
"""

from __future__ import annotations

import errno
import random
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from OpenSSL import SSL

from benchmarks.fleet import Device
from benchmarks.load import Call, Judge, client_context

PATIENCE = 10.0
"""Seconds from connecting to the answer; the device client gives up on a connection then."""
ANSWERED, LATER, REFUSED, TIMED_OUT, OTHER = "answered", "told to try later", "refused", "timed out", "other"


@dataclass(slots=True)
class Seen:
    """What became of them: seconds of each answer, how many ended how, and how late the client began (99 %)."""

    latencies: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    wall: float = 0.0
    late: list[float] = field(default_factory=list)


class _Device:
    """One device on its way: connecting, shaking hands, asking, reading."""

    __slots__ = ("_call", "began", "device", "socket")

    def __init__(self, device: Device, address: tuple[str, int]) -> None:
        self.device, self.began = device, time.perf_counter()
        self._call: Call | None = None
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.socket.connect_ex(address) not in (0, errno.EINPROGRESS):
            raise OSError("no connection")

    def connected(self, context: SSL.Context) -> bool:
        """The connection stands: say hello. True where there is none after all."""
        if self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return True
        self._call = Call(context, self.socket, self.device)
        return False

    @property
    def speaking(self) -> bool:
        return self._call is not None

    def received(self) -> bool:
        """Take what came; True when it is over. Raises OSError when the server cut it, SSL.Error."""
        assert self._call is not None
        return self._call.received()

    def outcome(self, good: Judge) -> str:
        assert self._call is not None
        head, body = self._call.answer()
        if head.startswith(b"HTTP/1.1 200 ") and good(self.device, body):
            return ANSWERED
        if b"TryLater" in body:
            return LATER
        return OTHER if head else REFUSED


class _Crowd:
    def __init__(self, address: tuple[str, int], good: Judge) -> None:
        self._address, self._good, self._context = address, good, client_context()
        self._epoll = select.epoll()
        self._open: dict[int, _Device] = {}
        self._order: deque[_Device] = deque()
        self.seen = Seen()

    def begin(self, device: Device) -> None:
        try:
            one = _Device(device, self._address)
        except OSError:
            self.seen.outcomes[REFUSED] += 1
            return
        self._open[one.socket.fileno()] = one
        self._order.append(one)
        self._epoll.register(one.socket.fileno(), select.EPOLLOUT)

    def _end(self, one: _Device, outcome: str) -> None:
        number = one.socket.fileno()
        self._epoll.unregister(number)
        del self._open[number]
        one.socket.close()
        self.seen.outcomes[outcome] += 1
        if outcome == ANSWERED:
            self.seen.latencies.append(time.perf_counter() - one.began)

    def turn(self, seconds: float) -> None:
        """What happens within so many seconds, and who gives up."""
        for number, _ in self._epoll.poll(max(0.0, min(seconds, 0.1)), 256):
            one = self._open[number]
            try:
                if not one.speaking:
                    if one.connected(self._context):
                        self._end(one, REFUSED)
                    else:
                        self._epoll.modify(number, select.EPOLLIN)
                elif one.received():
                    self._end(one, one.outcome(self._good))
            except OSError:
                self._end(one, REFUSED)
            except SSL.Error:
                self._end(one, OTHER)
        until = time.perf_counter() - PATIENCE
        while self._order and (self._order[0].began < until or self._order[0].socket.fileno() < 0):
            one = self._order.popleft()
            if one.socket.fileno() >= 0:
                self._end(one, TIMED_OUT)

    @property
    def empty(self) -> bool:
        return not self._open


def run(address: tuple[str, int], devices: Sequence[Device], good: Judge, rate: float | None) -> Seen:
    """All of these, `rate` of them a second at random moments; None for all at once."""
    crowd = _Crowd(address, good)
    start = time.perf_counter()
    for device, moment in zip(devices, _moments(rate), strict=False):
        while (left := start + moment - time.perf_counter()) > 0:
            crowd.turn(left)
        crowd.seen.late.append(-left)
        crowd.begin(device)
    crowd.seen.wall = time.perf_counter() - start
    while not crowd.empty:
        crowd.turn(0.1)
    if rate is None:
        crowd.seen.wall = time.perf_counter() - start
    return crowd.seen


def _moments(rate: float | None) -> Iterator[float]:
    moment = 0.0
    while True:
        yield moment
        moment += random.expovariate(rate) if rate else 0.0
