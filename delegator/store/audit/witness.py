"""Whether the database still holds what it told us was durable: it was restored from an older copy, emptied or replaced
beneath us where it does not.

Each chain of the audit that we write only grows, and its newest row always stays; a claim is never removed. So the
newest row of each chain and the newest claim that we were told to be durable are looked for: the row whenever another
is appended to it, which costs nothing as it is read for that, and both every two seconds.
Where another server was promoted, that is a decision of its operator: what that one lacks is said, and it goes on.
The invariant: what was found to have receded by itself is not written to again by this process: only a start knows what
is true.
Must not live here: files (store.engines.sqlite.whereabouts), which server is asked (store.engines.postgres.fencing).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from delegator.clockwork.rounds import guarded, kept
from delegator.errors import DelegatorError, Kind
from delegator.model import Claim
from delegator.store.audit.chain import Head, head_of
from delegator.store.transaction import Query

if TYPE_CHECKING:
    from delegator.store.driver import Driver

log = logging.getLogger(__name__)
LOOK = 2.0
"""Seconds between looks."""
HINT = "stop all delegators, bring back the newest state of the database, then start them"
_FROM = "SELECT number, hash FROM audit WHERE chain = $1 AND number >= $2 ORDER BY number LIMIT 1"
_CLAIM = "SELECT 1 FROM claims WHERE claim_id = $1"


class Written(Protocol):
    """A chain that this process writes: its name, and its newest row that we know to be durable."""

    chain: str
    known: Head | None


class Receded(DelegatorError):
    """What was durable is not there any more."""


def require_onward(chain: str, known: Head | None, newest: Head | None) -> None:
    """The newest row of a chain must not come before one that we know of. Raises Receded."""
    if known is None or (newest is not None and newest.number > known.number) or newest == known:
        return
    there = "nothing" if newest is None else f"row {newest.number}"
    raise Receded(Kind.TRY_LATER, f"the audit's chain {chain} ends with {there}, and row {known.number} was written: "
                                  "an older copy took its place, or it was emptied")


class Witness:
    """Of one process. `ledgers` are the chains it writes."""

    def __init__(self, driver: Driver, ledgers: Callable[[], Iterable[Written]]) -> None:
        self._driver, self._ledgers = driver, ledgers
        self._claim: str | None = None
        self._before: tuple[list[tuple[str, Head]], str | None] | None = None
        self._lost = ""
        self.era = driver.era
        """Of the server that told what we know; another era, another truth."""
        self._task: asyncio.Task[None] | None = None

    def told(self, outcome: object) -> None:
        """What a transaction came to, now that it is durable: a claim, or something with one."""
        claim = getattr(outcome, "claim", outcome)
        if isinstance(claim, Claim) and (self._claim is None or self._claim < claim.claim_id):
            self._claim = claim.claim_id

    def require(self) -> None:
        """Take in what server it is that is asked. Raises DelegatorError (TRY_LATER) once something was missing."""
        if self._driver.era != self.era:
            self._promoted()
        if self._lost:
            raise self._error()

    def _promoted(self) -> None:
        """Somebody had another server take over: what it holds is what is true from now on. What it lacks is said."""
        self.era = self._driver.era
        known = [(one.chain, one.known) for one in self._ledgers() if one.known is not None]
        self._before = self._before or (known, self._claim)
        self._claim = None
        for one in self._ledgers():
            one.known = None

    def lose(self, why: str) -> DelegatorError:
        """What whoever asks is told from now on."""
        if not self._lost:
            self._lost = why
            log.error("the database is not the one it was: %s; no credential is given; next: %s", why, HINT)
        return self._error()

    def _error(self) -> DelegatorError:
        return DelegatorError(Kind.TRY_LATER, f"the database is not the one it was: {self._lost}", hint=HINT)

    async def look(self) -> None:
        """Look for the newest rows that we know of."""
        if self._driver.era != self.era:
            self._promoted()
        if self._lost:
            return
        if self._before is not None:
            await self._compare(*self._before)
            self._before = None
        era, known = self.era, [(one.chain, one.known) for one in self._ledgers() if one.known is not None]
        try:
            await self._require(known, self._claim)
        except Receded as error:
            if self._driver.era == era:
                self.lose(error.detail)

    async def _compare(self, known: Sequence[tuple[str, Head]], claim: str | None) -> None:
        try:
            await self._require(known, claim)
        except Receded as error:
            log.error("the server that took over lacks what was promised: %s; devices that were served last may be "
                      "answered anew; next: have commits wait for a standby, see The database in docs/scale.md",
                      error.detail)

    async def _require(self, known: Sequence[tuple[str, Head]], claim: str | None) -> None:
        """Raises Receded."""
        for chain, head in known:
            found = await self._driver.read(Query(_FROM, (chain, head.number)))
            require_onward(chain, head, head_of(found[0]) if found else None)
        if claim is not None and not await self._driver.read(Query(_CLAIM, (claim,))):
            raise Receded(Kind.TRY_LATER, f"claim {claim} was issued, and is not there any more")

    def serve(self) -> None:
        """Look every now and then, from now to `close`."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(kept(self._rounds, "looking for what was promised"))

    async def _rounds(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            await guarded(self.look, "looking for what was promised")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
