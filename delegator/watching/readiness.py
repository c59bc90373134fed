"""Whether this delegator can serve devices now, and if not, why, in words with what to do.

The invariants: asking costs one durable write, never more than two seconds, and changes nothing; the hint of an error
goes to the log, once, and not to whoever asks at the port.
Must not live here: the port it is asked at (ops), how it is counted (metrics).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from delegator.errors import DelegatorError
from delegator.store import Store

log = logging.getLogger(__name__)
PATIENCE = 2.0
"""Seconds for the store's write. Whoever asks gives up after five or so."""
SOON = {"revocation list": timedelta(days=7)}
_SOON = timedelta(days=30)
"""How long before its end something is to be renewed: a list is made daily and lives for 30 days."""
AGAIN = timedelta(days=1)
"""How often the log says what is to be renewed, so that somebody who watches only the log reads it in time."""
STORE, DRAINING, SERVING = "store", "draining", "serving"
NAMES = {"server": "the server's certificate", "factory": "an anchor of the factory",
         "revocation list": "the revocation list", "callbacks": "the certificate shown to delegates"}
RENEW = {"server": "python -m pki server NAME --renew", "factory": "see CA rollover in docs/operators.md",
         "revocation list": "python -m pki crl", "callbacks": "python -m pki delegate --client NAME --renew"}
NEEDED = ("server", "factory", "revocation list")
"""Without these no device is served. Without the certificate for delegates, devices of hosted delegates still are."""
PARTS = (STORE, *NEEDED, DRAINING, SERVING)


@dataclass(slots=True)
class Readiness:
    """What readiness depends on. `ends` is exchanged by a reload, `draining` set once at the end."""

    store: Store
    now: Callable[[], datetime]
    ends: dict[str, datetime] = field(default_factory=dict)
    draining: bool = False
    told_at: datetime | None = None
    trouble: str = ""
    """What the store had last, so that the log tells it once and not whenever somebody asks."""

    async def wrong(self) -> dict[str, str]:
        """What keeps devices from being served, by part of PARTS; empty when nothing does."""
        now = self.now()
        wrong = {part: f"{NAMES[part]} ended at {moment:%Y-%m-%d %H:%M}Z; next: {RENEW[part]}"
                 for part, moment in self.ends.items() if part in NEEDED and moment <= now}
        trouble = await self._store_trouble()
        if trouble:
            wrong[STORE] = trouble
        if self.draining:
            wrong[DRAINING] = "stopping: requests under way are answered, new connections are not taken"
        return wrong

    async def _store_trouble(self) -> str:
        try:
            async with asyncio.timeout(PATIENCE):
                await self.store.check()
        except TimeoutError:
            return f"no durable write within {PATIENCE:g} s; next: look for a full or slow disk, or a long import"
        except DelegatorError as error:
            trouble = f"{error.detail}; next: {error.hint or 'look at the disk and at who owns the database'}"
            if trouble != self.trouble:
                log.error("the store: %s", trouble)
            self.trouble = trouble
            return f"{error.detail}; next: read the log, which says what to do"
        self.trouble = ""
        return ""

    def reminders(self) -> tuple[str, ...]:
        """What is to be renewed, for the log: once a day, and at once when other files were loaded."""
        now = self.now()
        if self.told_at is not None and timedelta() <= now - self.told_at < AGAIN:
            return ()
        self.told_at = now
        return tuple(self.soon().values())

    def soon(self) -> dict[str, str]:
        """What is to be renewed before it ends, by part."""
        now = self.now()
        return {part: f"{NAMES[part]} {'ends' if moment > now else 'ended'} at {moment:%Y-%m-%d %H:%M}Z; "
                      f"next: {RENEW[part]}"
                for part, moment in self.ends.items()
                if moment <= now + SOON.get(part, _SOON) and (moment > now or part not in NEEDED)}
