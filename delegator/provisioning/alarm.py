"""Second claimants: noticed on the way, written down and told a moment later, off the way of honest devices.

A thief can ask a thousand times a second. What that comes to is one entry in a bounded table in memory, and once a
second one transaction; the first of a tag in a day is also a row of audit, a line in the log and a notice.
The invariants: noticing never waits and never fails; what is pending is bounded; at the end it is written down.
Must not live here: who is a second claimant (shared_door, handshake), SQL and daily limits (store.contested).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable

import msgspec

from delegator.clockwork.rounds import guarded
from delegator.errors import DelegatorError
from delegator.model import Delegate, IdentityKind, Telling
from delegator.model.enrolled import Contest
from delegator.store import Store
from delegator.watching.metrics import Metrics

log = logging.getLogger(__name__)
PAUSE = 1.0
"""Seconds that contests are gathered for one transaction."""
MOST = 1000
"""Different tags pending at once; further ones are counted, and noted when they ask again."""


class Alarm:
    """`told` is called when there is something to tell administrators, who read there that it comes from `name`, this
    delegator. Nothing is forgotten until `settled` says that two looks at the clock agree."""

    def __init__(self, store: Store, metrics: Metrics, told: Callable[[], None], name: str,
                 settled: Callable[[], bool] = lambda: True) -> None:
        self._store = store
        self._metrics = metrics
        self._told, self._settled = told, settled
        self.name = name
        self._pending: dict[tuple[str, IdentityKind], Contest] = {}
        self._noting: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def contested(self, contest: Contest) -> None:
        """Somebody asked for a tag that another holds."""
        self._metrics.second_claimant(contest.identity.value)
        self._add(contest)
        if self._noting is None:
            # It works for many connections: an empty context, so that its log lines carry no connection's id.
            self._noting = asyncio.get_running_loop().create_task(
                guarded(self._soon, "second claimants"), context=contextvars.Context())

    def _add(self, contest: Contest) -> None:
        which = (contest.service_tag, contest.identity)
        before = self._pending.get(which)
        if before is not None:
            contest = msgspec.structs.replace(contest, times=before.times + contest.times)
        elif len(self._pending) >= MOST:
            return
        self._pending[which] = contest

    async def _soon(self) -> None:
        try:
            while self._pending and not self._closing.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), PAUSE)
                await self._note()
        finally:
            self._noting = None

    async def _note(self) -> None:
        """While the store cannot be reached they wait, and those that come meanwhile are added up."""
        batch, self._pending = self._pending, {}
        try:
            tables = await self._store.tables()
            delegates = tables.directory.delegates
            new = await self._store.contests.note(
                [(one, self._telling(one, delegates)) for one in batch.values()], forget=self._settled())
        except DelegatorError as error:
            log.error("second claimants: %s", error.detail)
            for one in batch.values():
                self._add(one)
            return
        except Exception:
            log.exception("second claimants: a fault of ours")
            return
        for one in new:
            log.warning("second claimant: %s asked for %s with %s, which claim %s of customer %s holds",
                        one.peer, one.service_tag, _ARTICLE[one.identity], one.claim_id, one.customer or "unknown")
        if new:
            self._told()

    def _telling(self, contest: Contest, delegates: dict[str, Delegate]) -> Telling | None:
        """The administrator of the delegate that serves the device; else of the customer's first that has one."""
        first = delegates.get(contest.delegate or "")
        rest = sorted((one for one in delegates.values() if one.customer == contest.customer), key=lambda one: one.name)
        for delegate in ([first] if first is not None else []) + rest:
            told_by = delegate.callback.told_by
            if told_by:
                return Telling(told_by, delegate.name, self.name)
        return None

    async def close(self) -> None:
        """Write down what is pending."""
        self._closing.set()
        if self._noting is not None:
            await self._noting
        if self._pending:
            await self._note()


_ARTICLE = {IdentityKind.OWN: "another certificate for it", IdentityKind.SHARED: "the shared certificate"}
