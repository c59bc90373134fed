"""The recorder: handshakes that changed no claim become rows of audit, a moment later and grouped.

A claim's change has its row in its own transaction. All else (refusals, TLS refusals, the same answer again) is noted
here in memory and written within about a second, many in one transaction: no device waits for it. What is equal
within a window is one row at once and one more at the window's end with how often it came; a crash loses at most that
count. Rows that strangers can cause are limited to so many a minute, past which they are only counted, by outcome.
The invariants: memory is bounded whatever peers do; what could not be kept is itself counted and written.
Must not live here: claims' rows (store.claims), chaining (store.audit.ledger).
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from msgspec.structs import replace

from delegator.clockwork.rounds import kept
from delegator.errors import DelegatorError
from delegator.model.audited import Act, Entry
from delegator.trail import Trail

log = logging.getLogger(__name__)
SOON = 1.0
"""Seconds until what is noted is written: long enough to share a commit, short enough to look at the audit at once."""
ROUND = 10.0
"""Seconds between looks at windows that are over."""
LATER = 5.0
"""Seconds until a store that took nothing is tried again."""
WINDOW = timedelta(minutes=15)
"""How long equal handshakes are one row: ten retries of a device that comes every 90 s."""
GROUPS = 50_000
"""Kinds of handshakes counted at once, about 1 KB each; past them the oldest ones are closed early."""
PENDING = 5_000
"""Rows that wait while the store takes none; further ones are counted as lost."""
BATCH = 200
"""Rows in one transaction: some 8 ms of the loop."""
ADDRESSES = 20
"""Addresses that a summary names, the most frequent first."""
REMEMBERED = 10_000
"""Addresses and devices whose allowance is remembered, or that are counted apart."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many rows at once, and so many a minute ever after."""

    burst: int
    a_minute: int


STRANGERS = Rate(1_000, 60)
"""All peers that have not shown a certificate of their own. The burst is a site that is switched on before it is
registered; the rest comes to 60 MB a day under an attack that never ends."""
OF_ONE_ADDRESS = Rate(300, 20)
"""Each of their addresses, so that one cannot use it up for all."""
DEVICES = Rate(20_000, 1_500)
"""All devices that proved who they are: as many as can be waiting for their owner, each with a row a window."""
OF_ONE_DEVICE = Rate(60, 10)
"""Each of these: one that tells a new address each time is a fault, or an attack."""
Append = Callable[[Sequence[Entry]], Awaitable[None]]


class Allowances:
    """Buckets of rows by name, each filled at its rate."""

    def __init__(self) -> None:
        self._left: dict[Hashable, tuple[float, datetime]] = {}

    def take(self, wanted: Sequence[tuple[Hashable, Rate]], now: datetime) -> bool:
        """Take one row from each bucket, or from none."""
        left = [self._now_left(name, rate, now) for name, rate in wanted]
        if min(left) < 1:
            return False
        for (name, _), each in zip(wanted, left, strict=True):
            self._left.pop(name, None)
            self._left[name] = (each - 1, now)
        while len(self._left) > REMEMBERED:
            del self._left[next(iter(self._left))]
        return True

    def _now_left(self, name: Hashable, rate: Rate, now: datetime) -> float:
        left, at = self._left.get(name, (float(rate.burst), now))
        return min(float(rate.burst), left + abs(now - at) / timedelta(minutes=1) * rate.a_minute)


@dataclass(slots=True)
class Group:
    """Equal handshakes of one window: how often more than was written, from when to when."""

    entry: Entry
    wanted: tuple[tuple[Hashable, Rate], ...]
    closes_at: datetime
    count: int = 0
    since: datetime | None = None
    until: datetime | None = None

    def again(self, now: datetime) -> None:
        self.count += 1
        self.since = self.since or now
        self.until = now

    def row(self) -> Entry:
        """The repetitions. The steps of the first one stand in its own row."""
        return replace(self.entry, at=self.since or self.entry.at, until=self.until, repeated=self.count)

    def next_window(self, now: datetime) -> None:
        self.count, self.since, self.until, self.closes_at = 0, None, None, now + WINDOW


@dataclass(slots=True)
class Counted:
    """Handshakes without a row of their own: how often, by outcome and address, from when to when."""

    since: datetime
    until: datetime
    by: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, outcome: str, peer: str, now: datetime, count: int = 1) -> None:
        known = len(self.by) < REMEMBERED or (outcome, peer) in self.by
        self.by[outcome, peer if known else "others"] += count
        self.until = now

    def rows(self, act: Act) -> list[Entry]:
        """One for each outcome."""
        outcomes: dict[str, Counter[str]] = {}
        for (outcome, peer), count in self.by.items():
            outcomes.setdefault(outcome, Counter())[peer] += count
        return [Entry(act, self.since, "delegator", outcome, until=self.until, repeated=peers.total(),
                      detail={"addresses": len(peers), "most_from": dict(peers.most_common(ADDRESSES))})
                for outcome, peers in outcomes.items()]


class Recorder:
    """Notes finished trails; `append` writes rows in one transaction, `now` gives aware UTC."""

    def __init__(self, append: Append, now: Callable[[], datetime]) -> None:
        self._append, self._now = append, now
        self._allowances = Allowances()
        self._groups: dict[Hashable, Group] = {}
        self._pending: list[Entry] = []
        self._counted: Counted | None = None
        self._lost: Counted | None = None
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    # --- noting ---

    def record(self, trail: Trail) -> None:
        """Note a finished trail. One that a claim's row holds already is done with, if it went well."""
        if trail.on_record and trail.facts.get("outcome") == "Answered":
            return
        if self._task is None:
            # It serves all connections: in an empty context its log lines carry no connection's id.
            self._task = asyncio.get_running_loop().create_task(
                kept(self._run, "audit of handshakes"), context=contextvars.Context())
        now, kind = self._now(), _kind(trail)
        group = self._groups.get(kind)
        if group is not None:
            group.again(now)
        else:
            self._first(kind, trail, now)

    def _first(self, kind: Hashable, trail: Trail, now: datetime) -> None:
        wanted = _wanted(trail)
        if not self._allowances.take(wanted, now):
            self._counted = _added(self._counted, trail.facts.get("outcome", ""), trail.peer, now)
            return
        entry = _entry(trail, now)
        self._queue(entry)
        without = {key: value for key, value in entry.detail.items() if key not in ("steps", "connection")}
        self._groups[kind] = Group(replace(entry, detail=without), wanted, now + WINDOW)
        if len(self._groups) > GROUPS:
            self._close_group(next(iter(self._groups)), now)

    def _queue(self, entry: Entry) -> None:
        if len(self._pending) < PENDING:
            self._pending.append(entry)
            self._wake.set()
        else:
            self._lost = _added(self._lost, entry.outcome, entry.peer or "", self._now(), entry.repeated)

    # --- windows ---

    def _close_windows(self, now: datetime) -> None:
        over = [kind for kind, group in self._groups.items()
                if self._closing or not now < group.closes_at <= now + WINDOW]
        for kind in over:
            self._close_group(kind, now)
        if self._counted is not None and (self._closing or abs(now - self._counted.since) >= timedelta(minutes=1)):
            counted, self._counted = self._counted, None
            for entry in counted.rows(Act.HANDSHAKES_COUNTED):
                self._queue(entry)

    def _close_group(self, kind: Hashable, now: datetime) -> None:
        """Write how often it came again, and go on counting; one that did not come again is forgotten."""
        group = self._groups.pop(kind)
        if not group.count:
            return
        if not self._allowances.take(group.wanted, now):
            self._counted = _added(self._counted, group.entry.outcome, group.entry.peer or "", now, group.count)
            return
        self._queue(group.row())
        group.next_window(now)
        if len(self._groups) < GROUPS:
            self._groups[kind] = group

    # --- writing ---

    async def close(self) -> None:
        """Write everything that is noted, and end. What the store does not take now is lost, and said in the log."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        self._close_windows(self._now())
        if not await self._flush():
            log.error("audit: %d rows of handshakes could not be written and are lost", len(self._pending))

    async def _run(self) -> None:
        while not self._closing:
            try:
                await asyncio.wait_for(self._wake.wait(), ROUND)
                await self._pause(SOON)
            except TimeoutError:
                pass
            self._wake.clear()
            self._close_windows(self._now())
            if not await self._flush():
                await self._pause(LATER)

    async def _pause(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.1)):  # so that an end is not waited for
            if not self._closing:
                await asyncio.sleep(0.1)

    async def _flush(self) -> bool:
        """Write what waits; False where the store takes nothing now."""
        while self._pending or self._lost is not None:
            batch, lost = self._pending[:BATCH], self._lost
            self._lost = None
            try:
                await self._append([*batch, *(lost.rows(Act.HANDSHAKES_LOST) if lost is not None else ())])
            except DelegatorError as error:
                log.error("audit: %d rows of handshakes wait, as the store takes none: %s", len(self._pending),
                          error.detail)
                self._lost = _together(lost, self._lost)
                return False
            except Exception:  # these rows are none that a store takes, and the next ones must not wait for them
                log.exception("audit: %d rows of handshakes are lost by a fault of ours", len(batch))
                self._lost = lost
                for entry in batch:
                    self._lost = _added(self._lost, entry.outcome, entry.peer or "", self._now(), entry.repeated)
                del self._pending[:len(batch)]
                return False
            del self._pending[:len(batch)]
        return True


def _added(counted: Counted | None, outcome: str, peer: str, now: datetime, count: int = 1) -> Counted:
    counted = counted or Counted(now, now)
    counted.add(outcome, peer, now, count)
    return counted


def _together(one: Counted | None, other: Counted | None) -> Counted | None:
    """What was lost before and while the store was tried."""
    if one is None or other is None:
        return one or other
    for (outcome, peer), count in other.by.items():
        one.add(outcome, peer, other.until, count)
    return one


_KIND = ("operation", "tag", "outcome", "identity", "serial", "new_address")


_SECONDS = re.compile(r"\b\d+\.\d+ s\b")
"""How long something took, as reasons have it: another figure each time."""


def _kind(trail: Trail) -> Hashable:
    """What makes two handshakes equal."""
    said = trail.facts.get
    reasons = tuple(_SECONDS.sub("", reason) for reason in trail.reasons)
    return (trail.peer, reasons, *(said(fact) for fact in _KIND))


def _wanted(trail: Trail) -> tuple[tuple[Hashable, Rate], ...]:
    """Whose allowance a row is taken from."""
    if trail.facts.get("identity") == "own":
        return ("devices", DEVICES), (("device", trail.facts.get("tag")), OF_ONE_DEVICE)
    return ("strangers", STRANGERS), (("address", trail.peer), OF_ONE_ADDRESS)


def _entry(trail: Trail, now: datetime) -> Entry:
    said = trail.facts.get
    return Entry(
        Act.HANDSHAKE, now, "device", said("outcome", "Unknown"), said("tag"), said("customer"), said("delegate"),
        peer=trail.peer, reasons=trail.reasons, detail=trail.as_kept())
