"""Telling administrators: a worker that empties the outbox, a few queues at a time, each on its own. Block 215.

It only ever reads the outbox; devices are answered before it looks. One task for each queue (a kind and a delegate):
a target that is down, slow or silent delays its own queue and nobody else's.
The invariants: a notification stays in the outbox until its target has accepted it or its time is over; no queue is
worked on by two tasks; a failure is one line in the log with its reason, never a secret.
Must not live here: wording (words), sending (carriers), SQL (store.outbox).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from delegator.clockwork.rounds import guarded
from delegator.errors import DelegatorError, Kind, words_of
from delegator.model import Customer, Notification, NotificationKind, Target
from delegator.model.notified import MAIL_TO
from delegator.store import Store, Tables
from delegator.store.outbox import Queue, Taken
from pki.said import said

__all__ = ["Carrier", "Notifier", "pause"]
log = logging.getLogger(__name__)
ROUND = 5.0
"""Seconds between looks at the outbox, for what is due again and what other processes left."""
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=30), timedelta(hours=1)
HOLD = timedelta(minutes=2)
"""How long a queue is held for one notification: longer than any carrier takes, so that only a crash lets go."""
AT_ONCE = {NotificationKind.MAIL: 4, NotificationKind.WEBHOOK: 32}
"""Queues of a kind under way at once. All mail goes to one relay; webhooks go to as many hosts."""
UPKEEP = timedelta(minutes=1)
"""Between two removals of old notifications; a look that finds nothing to do writes nothing."""
KEPT = timedelta(days=30)
"""How long it can be seen who was told what."""
LONGEST_WHY = 600
"""Characters of a reason that are kept: a relay's words with all that we say around them."""
GRACE = 3.0
"""Seconds at the end for what is under way, so that it need not be sent again at the next start."""


class Carrier(Protocol):
    """One way to tell somebody."""

    async def deliver(self, notification: Notification, customer: Customer | None, target: Target) -> str:
        """Deliver; what the other side said. `customer` is whose it is, None for nobody's. Raises DelegatorError."""


def target_of(recipient: str, tables: Tables) -> Target | None:
    """Where a recipient is told: an address of its own, or what the delegate of that name says now."""
    if recipient.startswith(MAIL_TO):
        return Target(mail_to=recipient.removeprefix(MAIL_TO))
    delegate = tables.directory.delegates.get(recipient)
    return None if delegate is None else delegate.callback.target


def pause(failures: int, chance: float) -> timedelta:
    """How long a queue rests after so many failures in a row; `chance` (0 to 1) spreads those that fail together
    over the second half of it."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * (1 << min(failures, 10)))
    return max(FIRST_PAUSE, longest * (1 + chance) / 2)


class Notifier:
    """The worker. A kind without a carrier waits in the outbox, and the log says so once. `told` counts what became
    of each try, by kind and outcome: sent, failed, given up. Nothing is given up or forgotten before `settled` says
    that two looks at the clock agree."""

    def __init__(self, store: Store, carriers: Mapping[NotificationKind, Carrier], now: Callable[[], datetime],
                 chance: Callable[[], float] = random.random, settled: Callable[[], bool] = lambda: True) -> None:
        self._store = store
        self._carriers = carriers
        self._now = now
        self._chance = chance
        self._settled = settled
        self._wake = asyncio.Event()
        self._working: dict[tuple[NotificationKind, str], asyncio.Task[None]] = {}
        self._warned: set[NotificationKind] = set()
        self._upkeep_at = now()
        self.told: Counter[tuple[str, str]] = Counter()

    def use(self, carriers: Mapping[NotificationKind, Carrier]) -> None:
        """Tell in other ways from the next notification on."""
        self._carriers = carriers
        self._warned.clear()
        self.wake()

    def wake(self) -> None:
        """There is something new to tell."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                self._wake.clear()
                await guarded(self._look, "notifications")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ROUND):  # wait_for may swallow a cancellation (gh-86296)
                        await self._wake.wait()
        finally:
            await self._let_go()

    async def _look(self) -> None:
        await self.look()
        now = self._now()
        if not now < self._upkeep_at <= now + UPKEEP and self._settled():
            self._upkeep_at = now + UPKEEP
            await self._store.outbox.forget(now - KEPT)

    async def look(self) -> None:
        """Start work on every queue that is due, as far as there is room."""
        await self._store.outbox.adopt(self._now())
        for kind in NotificationKind:
            room = AT_ONCE[kind] - sum(one is kind for one, _ in self._working)
            if kind not in self._carriers:
                await self._warn(kind)
            elif room > 0:
                for queue in await self._store.outbox.due(kind, self._now(), room):
                    self._start(queue)

    async def _warn(self, kind: NotificationKind) -> None:
        if kind not in self._warned and await self._store.outbox.due(kind, self._now(), 1):
            self._warned.add(kind)
            log.warning("notifications by %s wait: [%s] is not configured; see: delegator config check", kind.value,
                        kind.value)

    def _start(self, queue: Queue) -> None:
        which = (queue.carrier, queue.recipient)
        if which in self._working:
            return
        self._working[which] = task = asyncio.get_running_loop().create_task(
            guarded(lambda: self._work(queue), f"notifications to {queue.recipient}"))
        task.add_done_callback(lambda _: self._done(which))

    def _done(self, which: tuple[NotificationKind, str]) -> None:
        """Look again: there is room now, and something may have come for this very queue at its last moment."""
        del self._working[which]
        self._wake.set()

    async def settled(self) -> None:
        """Wait until nothing is under way."""
        while self._working:
            await asyncio.wait(self._working.values())
            await asyncio.sleep(0)

    async def _let_go(self) -> None:
        if self._working:
            _, late = await asyncio.wait(self._working.values(), timeout=GRACE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _work(self, queue: Queue) -> None:
        """Send what is in a queue, one after the other, until it is empty or its target fails."""
        left: Queue | None = queue
        while left is not None:
            taken = await self._store.outbox.take(left, self._now() + HOLD)
            left = None if taken is None else await self._one(taken)

    async def _one(self, taken: Taken) -> Queue | None:
        """Deliver one; the queue if it is still held and worth going on with."""
        told = taken.notification
        tables = await self._store.tables()
        target, customer = target_of(told.recipient, tables), tables.customers.get(told.customer or "")
        gone = customer is None and told.customer is not None
        if gone or target is None or told.carrier not in target.told_by:
            log.warning("notification of %s by %s is given up: %s tells nobody that way any more", _about(told),
                        told.carrier.value, _whom(told))
            self.told[told.carrier.value, "given up"] += 1
            return await self._store.outbox.given_up(taken, "nobody to tell any more", self._now())
        try:
            said = await self._carriers[told.carrier].deliver(told, customer, target)
        except Exception as error:
            await self._failed(taken, error)
            return None
        log.info("notification of %s by %s was sent, attempt %d: %s", _about(told), told.carrier.value, told.attempts,
                 said)
        self.told[told.carrier.value, "sent"] += 1
        return await self._store.outbox.sent(taken, self._now())

    async def _failed(self, taken: Taken, error: Exception) -> None:
        """The whole queue rests: what this target refuses or does not hear, it will not hear a moment later."""
        told, why = taken.notification, _why(error)
        hint = error.hint if isinstance(error, DelegatorError) and error.kind is Kind.CONFIGURATION else ""
        rest = pause(taken.queue.failures, self._chance())
        self.told[told.carrier.value, "failed"] += 1
        log.warning("notification of %s by %s failed, attempt %d, again in %d s: %s%s", _about(told),
                    told.carrier.value, told.attempts, rest.total_seconds(), why, hint and f"; next: {hint}")
        now = self._now()
        for lost in await self._store.outbox.failed(taken, why, now, now + rest, give_up=self._settled()):
            self.told[lost.carrier.value, "given up"] += 1
            log.error("notification of %s by %s to %s is given up after %d attempts: %s; again with: "
                      "delegator notifications retry%s", _about(lost), lost.carrier.value, _whom(lost), lost.attempts,
                      why, f" --claim {lost.claim_id}" if lost.claim_id else "")


def _about(told: Notification) -> str:
    return f"claim {told.claim_id}" if told.claim_id else f"{told.event} {told.subject}"


def _whom(told: Notification) -> str:
    return told.recipient if told.recipient.startswith(MAIL_TO) else f"delegate {told.recipient}"


def _why(error: Exception) -> str:
    """What may be shown and kept, also to the customer: no hint, which is for operators and stands in the log. A fault
    of ours may hold anything in its words, so its type is told and where it was: it fails like any other, which may be
    a hundred times, and no log needs its traceback as often."""
    if isinstance(error, DelegatorError):
        return said(error.detail, LONGEST_WHY)
    bare = words_of(type(error)()) if isinstance(error, TimeoutError | ConnectionError) else type(error).__name__
    at = [f" at {Path(one.filename).name}:{one.lineno}" for one in traceback.extract_tb(error.__traceback__)[-1:]]
    return f"a fault of ours, {bare}{''.join(at)}"
