"""The guard before each delegate: so many calls at once, a bounded queue, a time budget, a circuit breaker.

The invariant: whatever one delegate does, no call of another waits for it: what is shared (the loop, memory) is
bounded per delegate, and a full queue is an immediate TRY_LATER.
Must not live here: how a delegate is called.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from delegator.callbacks.breaker import Breaker, State
from delegator.errors import DelegatorError, Kind

T = TypeVar("T")
Changed = Callable[[str, State, str], None]
"""Told when a breaker changes: delegate, new state, the failure that did it ("" for a success)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one delegate may take of us."""

    running: int = 16
    """Calls at once: a small customer's server answers a rack of devices one after the other."""
    waiting: int = 64
    """Calls that wait for their turn; the next one is sent away, its device asks again in 30 s."""
    budget: float = 10.0
    """Seconds for one call, waiting included. Devices give up at 30."""


@dataclass(slots=True)
class _Gate:
    turn: asyncio.Semaphore
    breaker: Breaker = field(default_factory=Breaker)
    inside: int = 0


MOST = 4096
"""Delegates remembered that nobody is calling just now, the last ones: reverse DNS can lead to any number of them."""
_OURS = (Kind.CONFIGURATION, Kind.TRY_LATER)
"""Trouble on this side, such as a certificate that is missing here, or no open file left for a call: the delegate was
not asked, and is not left alone because of it."""


class Guard:
    """One gate per delegate, made when it is first called. `clock` gives monotonic seconds."""

    def __init__(self, limits: Limits, changed: Changed = lambda name, state, why: None,
                 clock: Callable[[], float] = lambda: time.monotonic()) -> None:
        self._limits = limits
        self._changed = changed
        self._clock = clock
        self._gates: dict[str, _Gate] = {}
        self._waits: set[str] = set()
        self._full: set[str] = set()
        self.used: Callable[[bool, bool], None] = lambda waits, is_full: None
        """Told when that changes: whether the next call of some delegate would wait, and whether one would be sent off.
        Of several workers each has its share of the calls, and another may have some left."""

    def use(self, limits: Limits) -> None:
        """Other limits from the next call on. Calls under way and what breakers remember stay; a changed number of
        calls at once counts anew, so that for the length of one call both numbers may run."""
        if limits.running != self._limits.running:
            for gate in self._gates.values():
                gate.turn = asyncio.Semaphore(limits.running)
        self._limits = limits
        for name, gate in self._gates.items():
            self._counted(name, gate)

    @property
    def spare(self) -> int:
        """Of the calls to one delegate at once the half that devices which ask do not need."""
        return max(1, self._limits.running // 2)

    def is_open(self, name: str) -> bool:
        """Whether a call would be sent away by the breaker now; takes no trial."""
        gate = self._gates.get(name)
        return gate is not None and gate.breaker.state is State.OPEN and gate.breaker.retry_after(
            self._clock()) > 1

    async def run(self, name: str, whom: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call to the delegate `name` that concerns `whom` (a service tag, a claim). Raises DelegatorError:
        TRY_LATER when it is not even tried, what the call raises, UNREACHABLE when the budget is over. Only no answer,
        nonsense and a budget that is over count against a delegate: a no (NOT_ENTITLED) is an answer."""
        gate = self._gates.setdefault(name, _Gate(asyncio.Semaphore(self._limits.running)))
        self._admit(name, whom, gate)
        gate.inside += 1
        self._counted(name, gate)
        try:
            async with asyncio.timeout(self._limits.budget), gate.turn:
                result = await call()
            self._succeeded(name, gate)
        except TimeoutError:
            detail = f"delegate {name}: no answer within {self._limits.budget:g} s"
            self._failed(name, whom, gate, detail)
            raise DelegatorError(Kind.UNREACHABLE, detail) from None
        except DelegatorError as error:
            if error.kind in _OURS:
                gate.breaker.gave_up(self._clock())
            elif error.kind is Kind.NOT_ENTITLED:
                self._succeeded(name, gate)
            else:
                self._failed(name, whom, gate, error.detail)
            raise
        except BaseException:
            gate.breaker.gave_up(self._clock())
            raise
        finally:
            gate.inside -= 1
            self._counted(name, gate)
            self._forget(name, gate)
        return result

    def _counted(self, name: str, gate: _Gate) -> None:
        before = bool(self._waits), bool(self._full)
        most = self._limits.running
        (self._waits.add if gate.inside >= most else self._waits.discard)(name)
        (self._full.add if gate.inside >= most + self._limits.waiting else self._full.discard)(name)
        after = bool(self._waits), bool(self._full)
        if after != before:
            self.used(*after)

    def _forget(self, name: str, gate: _Gate) -> None:
        """A delegate of which there is nothing to remember; where there are too many, the first that nobody calls."""
        if not gate.inside and gate.breaker.state is State.CLOSED and not gate.breaker.failures:
            self._gates.pop(name, None)
        if len(self._gates) > MOST:
            idle = [one for one, other in self._gates.items() if not other.inside]
            closed = (one for one in idle if self._gates[one].breaker.state is State.CLOSED)
            if idle:
                del self._gates[next(closed, idle[0])]

    def _admit(self, name: str, whom: str, gate: _Gate) -> None:
        now = self._clock()
        if gate.inside >= self._limits.running + self._limits.waiting:
            raise DelegatorError(Kind.TRY_LATER, f"delegate {name}: {gate.inside} calls are under way already")
        before = gate.breaker.state
        if not gate.breaker.admit(now, whom):
            detail = f"delegate {name}: left alone after {gate.breaker.failures} failures"
            raise DelegatorError(Kind.TRY_LATER, detail, retry_after=gate.breaker.retry_after(now))
        self._tell(name, before, gate, "")

    def _failed(self, name: str, whom: str, gate: _Gate, why: str) -> None:
        before = gate.breaker.state
        gate.breaker.failed(self._clock(), whom)
        self._tell(name, before, gate, why)

    def _succeeded(self, name: str, gate: _Gate) -> None:
        before = gate.breaker.state
        gate.breaker.succeeded()
        self._tell(name, before, gate, "")

    def _tell(self, name: str, before: State, gate: _Gate, why: str) -> None:
        if gate.breaker.state is not before:
            self._changed(name, gate.breaker.state, why)
