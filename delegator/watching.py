"""What operators watch: metrics, readiness, and the port where both are read.

The invariant: whatever happens here, devices are served on.
Must not live here: formats (ops), what is counted (metrics, vitals), what is ready (readiness).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from datetime import datetime

from delegator import ops
from delegator.errors import DelegatorError
from delegator.metrics import Metrics
from delegator.model import NotificationKind
from delegator.net.serve import Listener
from delegator.notify import Notifier
from delegator.readiness import PARTS, Readiness
from delegator.store import Store
from delegator.vitals import Reading

log = logging.getLogger(__name__)
COUNTED = 10_000
"""Notifications that wait are counted up to here, so that a scrape costs the loop little."""


class Watching:
    """The view on one delegator, and the port where it is read."""

    def __init__(self, metrics: Metrics, store: Store, listener: Listener, notifier: Notifier,
                 now: Callable[[], datetime]) -> None:
        self.metrics = metrics
        self.ready = Readiness(store, now)
        self._store, self._listener, self._notifier = store, listener, notifier
        self.port = ops.Port(ops.Ops(metrics, self.ready.wrong, self.ready.soon, self.read))

    def ends(self, ends: dict[str, datetime]) -> None:
        """When what we serve with ends, for metrics and readiness."""
        self.ready.ends, self.ready.told_at = ends, None
        self.metrics.ends(ends)

    def remind(self) -> None:
        """Say what is to be renewed, if it is time to say it again."""
        for words in self.ready.reminders():
            log.warning("%s", words)

    async def read(self) -> dict[str, str]:
        """Everything that is not counted as it happens, for one scrape; what keeps devices from being served."""
        wrong, commits = await self.ready.wrong(), self._store.commits
        waiting = {}
        with contextlib.suppress(DelegatorError):
            waiting = {kind.value: await self._store.outbox.waiting(kind, COUNTED) for kind in NotificationKind}
        self.metrics.vitals.reading = Reading(
            self._listener.phases(), self._listener.most, self._listener.turned_away, commits.done,
            commits.transactions, commits.failed, waiting, dict(self._notifier.told),
            {part: int(part in wrong) for part in PARTS})
        return wrong
