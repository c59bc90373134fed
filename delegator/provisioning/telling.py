"""Delegates are told how provisioning ended: each by a walk of its own through what it has still to hear.

A walk tells the oldest first and goes on until nothing is left. It begins with one call, and with each group of calls
that was brisk the next one has twice as many, so that a burst is told in seconds where the delegate is quick. A wake
says that there is something to tell; the clock looks too, for what another process confirmed or a delegate missed.
The invariants: a result is noted as told only after the delegate heard it, so that it is told at least once and never
lost; no walk waits for another's delegate; who failed or said no rests until the clock looks next, whoever wakes us.
Must not live here: SQL (store.notices), how a delegate is called, and when it is left alone (callbacks).
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from delegator.callbacks import Callbacks
from delegator.clockwork.rounds import guarded
from delegator.errors import DelegatorError, Kind
from delegator.model import Claim, Delegate, Deployment, Result
from delegator.net.reverse import Domains
from delegator.provisioning.judgement import delegate_of
from delegator.store import Store

log = logging.getLogger(__name__)
ROUND = 5.0
"""Seconds between two looks of the clock, and so until a delegate that failed is tried again."""
SOON = 0.1
"""Seconds for which wakes are gathered: a look asks the store once for each delegate that has something to hear."""
PAGE = 24
"""Claims that are read at once."""
MOST = 8
"""Calls at once to one delegate: so 1 000 confirmations take 2.5 s where a call and what it costs us take 20 ms."""
ALL = 64
"""Calls at once to all delegates together, beyond the first of each: one costs a connection and a handshake."""
BRISK = 1.0
"""Seconds that a group of calls takes at most before the next one: after a slower one, one call at a time again."""
NOES = 20
"""Times that a delegate says no in one walk; the next walk begins behind them, so that they hide nothing."""
LEFT = 4096
"""Delegates of which it is remembered where a walk ended."""
GRACE = 2.0
"""Seconds that calls under way have when we end: what is heard meanwhile need not be told again."""


class Outcome(enum.Enum):
    """What became of one call."""

    HEARD = "heard"
    REFUSED = "its no to this claim, which says nothing of the next"
    FAILED = "no answer, or one that says nothing"
    UNTRIED = "it is left alone, or we could not call"


_GIVES_UP = frozenset((Outcome.FAILED, Outcome.UNTRIED))
_OUTCOMES = {Kind.NOT_ENTITLED: Outcome.REFUSED, Kind.TRY_LATER: Outcome.UNTRIED, Kind.CONFIGURATION: Outcome.UNTRIED}


@dataclass(slots=True)
class Pace:
    """How many calls a walk makes at once, how often the delegate said no in it, and whether a call failed."""

    width: int = 1
    noes: int = 0
    choked: bool = False

    def took(self, seconds: float) -> None:
        """The last group took so long."""
        self.width = min(2 * self.width, MOST) if seconds <= BRISK else 1


class Teller:
    """The worker. `clock` gives monotonic seconds."""

    def __init__(self, store: Store, callbacks: Callbacks, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._callbacks, self._clock = store, callbacks, clock
        self._domains: Domains | None = None
        self._wake = asyncio.Event()
        self._due = clock()
        self._walks: dict[str, asyncio.Task[None]] = {}
        self._resting: set[str] = set()
        self._left: dict[str, Claim] = {}
        """Where a walk ended that heard too many noes."""
        self._ending = False

    def use(self, domains: Domains | None) -> None:
        """Find delegates that stand for a domain by these from the next call on."""
        self._domains = domains

    def wake(self) -> None:
        """There is something new to tell."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        self._ending = False
        try:
            while True:
                self._wake.clear()
                await guarded(self.look, "telling delegates")
                await asyncio.sleep(SOON)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._due - self._clock()):  # wait_for may swallow a cancellation
                        await self._wake.wait()
        finally:
            await self._let_go()

    async def look(self) -> None:
        """Begin a walk for every delegate that has something to hear, is at none, and does not rest."""
        if self._clock() >= self._due:
            self._due = self._clock() + ROUND
            self._resting.intersection_update(self._walks)
        for name in await self._store.unheard():
            if name not in self._walks and name not in self._resting:
                self._begin(name)

    def _begin(self, name: str) -> None:
        self._walks[name] = task = asyncio.get_running_loop().create_task(
            guarded(lambda: self._walk(name), f"telling delegate {name}"))
        task.add_done_callback(lambda _: self._done(name))

    def _done(self, name: str) -> None:
        """Look again: something may have come for this very delegate at the last moment."""
        del self._walks[name]
        self._wake.set()

    async def settled(self) -> None:
        """Wait until nobody is being told."""
        while self._walks:
            await asyncio.wait(self._walks.values())
            await asyncio.sleep(0)

    async def _let_go(self) -> None:
        self._ending = True
        if self._walks:
            _, late = await asyncio.wait(self._walks.values(), timeout=GRACE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    # --- one delegate ---

    async def _walk(self, name: str) -> None:
        """Until all is told; whatever else ends it, there is no other walk before the clock's next look. One that fails
        at the oldest claim of all is followed by one from behind it, and that by one from the oldest again: a claim
        that its delegate's server chokes on hides nothing."""
        self._resting.add(name)
        begun = after = self._left.pop(name, None)
        pace = Pace()
        while page := await self._store.unnotified(name, after, PAGE):
            if not await self._tell(name, page, pace):
                if begun is None and after is None and pace.choked and len(page) > 1:
                    self._leave(name, page[0])
                return
            after = page[-1]
            if pace.noes >= NOES:
                self._leave(name, after)
                return
        if not pace.noes:
            self._resting.discard(name)

    def _leave(self, name: str, at: Claim) -> None:
        """Go on there next time. Of too many delegates the first is forgotten, whose next walk begins at its oldest."""
        self._left[name] = at
        if len(self._left) > LEFT:
            del self._left[next(iter(self._left))]

    async def _tell(self, name: str, page: Sequence[Claim], pace: Pace) -> bool:
        """Tell all of a page, or note at once that there is nobody; whether to go on."""
        delegate = delegate_of(name, await self._store.tables(), self._domains)
        if delegate is None or not delegate.callback.hears:
            await self._store.notified(page)
            return True
        while page and not self._ending:
            width = min(pace.width, self._callbacks.spare, 1 + ALL // len(self._walks))
            if not await self._tell_some(delegate, page[:width], pace):
                return False
            page = page[width:]
        return not self._ending

    async def _tell_some(self, delegate: Delegate, claims: Sequence[Claim], pace: Pace) -> bool:
        """One group of calls and the one commit that notes what was heard; whether to go on. Where some of it was
        noted already, another process is at this delegate, and one is enough."""
        began = self._clock()
        outcomes = await asyncio.gather(*(self._call(delegate, claim) for claim in claims))
        pace.took(self._clock() - began)
        pace.noes += outcomes.count(Outcome.REFUSED)
        pace.choked = Outcome.FAILED in outcomes
        heard = [claim for claim, outcome in zip(claims, outcomes, strict=True) if outcome is Outcome.HEARD]
        noted = await self._store.notified(heard) if heard else 0
        return not _GIVES_UP.intersection(outcomes) and noted == len(heard)

    async def _call(self, delegate: Delegate, claim: Claim) -> Outcome:
        try:
            there = delegate if self._domains is None else await self._domains.reach(delegate)
            await self._callbacks.notify(
                Deployment(claim.claim_id, claim.result or Result.DEPLOYED, claim.detail), there)
        except DelegatorError as error:
            log.warning("delegate %s was not told of claim %s: %s", claim.delegate, claim.claim_id, error.detail)
            return _OUTCOMES.get(error.kind, Outcome.FAILED)
        except Exception:  # what others heard meanwhile is noted all the same
            log.exception("telling delegate %s of claim %s: a fault of ours", claim.delegate, claim.claim_id)
            return Outcome.FAILED
        return Outcome.HEARD
