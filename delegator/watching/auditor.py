"""What a running delegator does for the audit: its own acts, the recorder, and every hour marks and pruning.

The invariant: the row that says we stopped comes after the last device's row.
Must not live here: chaining and pruning (store), which trails get rows (recorder).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec

from delegator import __version__
from delegator.config import Settings
from delegator.model.audited import Act, Entry
from delegator.net.aside import aside
from delegator.store import Store
from delegator.trail import Trail
from delegator.watching.recorder import Recorder
from pki.disk import read_regular
from pki.revocation import LIST_LIMIT

log = logging.getLogger(__name__)
EVERY = timedelta(hours=1)
"""Time between marks. Rows that were cut off the end are missed up to the last mark, so at most an hour of them can go
unnoticed."""


class Auditor:
    """One delegator's part of the audit; `now` gives aware UTC, `named` says which of several processes this is, and
    `settled` whether two looks at the clock agree: what was removed does not come back."""

    def __init__(self, store: Store, now: Callable[[], datetime], named: Mapping[str, object] | None = None,
                 settled: Callable[[], bool] = lambda: True) -> None:
        self._store, self._now, self._named, self._settled = store, now, named or {}, settled
        self._recorder = Recorder(store.audit.append, now)
        self._next: datetime | None = None
        self._to_prune = False
        self._keep_days = 0

    def record(self, trail: Trail) -> None:
        """Note a finished handshake."""
        self._recorder.record(trail)

    async def started(self, settings: Settings) -> None:
        """Raises DelegatorError where the store takes no row."""
        await self._append(Act.SERVER_STARTED, {"version": __version__, **await _in_use(settings)})
        self._keep_days = settings.audit.keep_days

    async def reloaded(self, settings: Settings, changed: tuple[str, ...]) -> None:
        self._keep_days = settings.audit.keep_days
        await self._append(Act.SERVER_RELOADED, {"changed": list(changed), **await _in_use(settings)})

    async def stopped(self) -> None:
        """The last row of this delegator, and its heads in the log."""
        await self._recorder.close()
        await self._append(Act.SERVER_STOPPED, {})
        await self._mark()

    async def _append(self, act: Act, detail: dict[str, object]) -> None:
        await self._store.audit.append([Entry(act, self._now(), self._store.by.actor,
                                               detail={**self._named, **detail})])

    async def upkeep(self) -> None:
        """Once an hour: marks, and rows that are older than wanted go."""
        now = self._now()
        if self._next is None or not now < self._next <= now + EVERY:  # if it is further off, a wrong clock set it
            self._next, self._to_prune = now + EVERY, True
            await self._mark()
        if self._to_prune and self._settled():
            self._to_prune = False
            await self._prune(now)

    async def _prune(self, now: datetime) -> None:
        if self._keep_days:
            before = now - timedelta(days=self._keep_days)
            await self._store.audit.prune(await self._store.audit.prunable(before), before, now)

    async def _mark(self) -> None:
        marked = await self._store.audit.mark(self._now())
        for chain, head in marked.heads.items():
            log.info("audit head %s:%d:%s", chain, head.number, head.hash.hex())
        for chain in marked.broken:
            log.error("audit chain %s is not what it was when it was last marked: run delegator audit verify", chain)


async def _in_use(settings: Settings) -> dict[str, object]:
    """Read beside the loop."""
    return await aside(partial(_hashes, settings), "reading the files that devices are judged by")


def _hashes(settings: Settings) -> dict[str, object]:
    """SHA-256 of the settings, which hold no secret, and of the files that devices are judged by."""
    server = settings.server
    files = {"certificate": server.certificate, "ca": server.ca, "crl": server.crl,
             "issuers": server.issuers}
    return {"settings": hashlib.sha256(msgspec.json.encode(settings)).hexdigest(),
            **{name: _hash_of(Path(path)) for name, path in files.items() if path}}


def _hash_of(path: Path) -> str | None:
    return hashlib.sha256(read_regular(path, LIST_LIMIT)).hexdigest() if path.exists() else None
