"""What operators watch: metrics, readiness, and the port where both are read.

The invariant: whatever happens here, devices are served on.
Must not live here: formats (ops), what is counted (metrics, vitals), what is ready (readiness).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import datetime

from cryptography import x509

from delegator.errors import DelegatorError
from delegator.model import NotificationKind
from delegator.net.serve import Listener
from delegator.notify import Notifier
from delegator.store import Store
from delegator.watching import ops
from delegator.watching.metrics import Metrics
from delegator.watching.readiness import PARTS, STORE, Readiness
from delegator.watching.served import UNKNOWN, Answers, Teller
from delegator.watching.signers import Signers
from delegator.watching.vitals import Reading
from pki.trust import TrustStore

log = logging.getLogger(__name__)
LOOK = 2.0
"""Seconds between looks at what devices were told."""
LOOKED_UP = 500
"""Devices whose customer is looked up in one look: one statement."""
COUNTED = 10_000
"""Notifications that wait are counted up to here, so that a scrape costs the loop little."""
COUNTING = 0.5
"""Seconds for that. To find out what keeps devices from being served took up to two, and whoever asks waits three."""


class Watching:
    """The view on one delegator, and the port where it is read."""

    def __init__(self, metrics: Metrics, store: Store, listener: Listener, notifier: Notifier,
                 now: Callable[[], datetime], doubt: Callable[[], dict[str, str]] = dict) -> None:
        """`doubt` has words while the clock is not believed."""
        self.metrics = metrics
        self.answers, self.teller = Answers(), Teller()
        self._doubt = doubt
        self._signers = Signers()
        self.ready = Readiness(store, now)
        self._store, self._listener, self._notifier = store, listener, notifier
        self.port = ops.Port(ops.Ops(metrics, self.wrong, self.soon, self.read, self.unserved))

    def ends(self, ends: dict[str, datetime]) -> None:
        """When what we serve with ends, for metrics and readiness."""
        self.ready.ends, self.ready.told_at = ends, None
        self.metrics.ends(ends)

    def signers(self, trust: TrustStore) -> None:
        """Who may sign devices' certificates from now on."""
        self._signers.add((*trust.anchors, *map(x509.load_der_x509_certificate, trust.issuers or ())), time.monotonic())

    def remind(self) -> None:
        """Say what is to be renewed, if it is time to say it again."""
        for words in self.ready.reminders():
            log.warning("%s", words)

    async def wrong(self) -> dict[str, str]:
        """What keeps devices from being served that another instance would serve."""
        return {**await self.ready.wrong(), **self.teller.wrong(time.monotonic())}

    def soon(self) -> dict[str, str]:
        return {**self.ready.soon(), **self._doubt()}

    def unserved(self) -> dict[str, str]:
        return self.teller.unserved(time.monotonic())

    async def look_on(self, alone: bool) -> None:
        """Look at what devices were told, and say what has changed; of several workers the parent says it."""
        await self._look_up()
        if alone:
            now = time.monotonic()
            say(self.teller.look(tuple(self.answers.seen(now).values()), now, self.answers.why()))

    async def _look_up(self) -> None:
        """Whose devices are that were turned away before anybody looked; where that cannot be told either, they count
        as registered."""
        self.answers.wait_no_longer(time.monotonic())
        self.answers.prove(lambda shown, former: self._signers.name_in(shown, time.monotonic(), former))
        tags = self.answers.unknown(LOOKED_UP)
        if not tags:
            return
        try:
            async with asyncio.timeout(LOOK):
                whose = await self._store.fleet.customers_of(tags)
        except (DelegatorError, TimeoutError):
            whose = dict.fromkeys(tags, UNKNOWN)
        else:
            self.answers.ask_again()
        self.answers.learn(whose)

    async def read(self) -> dict[str, str]:
        """Everything that is not counted as it happens, for one scrape; what keeps devices from being served."""
        wrong, commits = await self.wrong(), self._store.commits
        waiting: dict[str, int] = {}
        if STORE not in wrong:
            with contextlib.suppress(DelegatorError, TimeoutError):
                async with asyncio.timeout(COUNTING):
                    waiting = {kind.value: await self._store.outbox.waiting(kind, COUNTED) for kind in NotificationKind}
        self.metrics.vitals.reading = Reading(
            self._listener.phases(), self._listener.most, self._listener.turned_away, commits.done,
            commits.transactions, commits.failed, waiting, dict(self._notifier.told),
            {part: int(part in wrong) for part in PARTS}, int(self.teller.verdict.serving))
        return wrong


def say(lines: list[str]) -> None:
    """Each once, as it begins and as it ends."""
    for line in lines:
        log.log(logging.ERROR if "not being served" in line else logging.WARNING, "%s", line)
