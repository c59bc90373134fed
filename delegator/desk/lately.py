"""What happened of late to a device, as the audit tells it: how its callback last failed, how TLS last refused it.

`explain` answers with the code that judges a request. A certificate is judged before there is one, by TLS, and a
delegate's answer is known only once it is asked: for both the audit says how it went the last time.
The invariant: nothing is concluded here; what is told stands in a row, which is named.
Must not live here: verdicts (explanation), layout (explain, claims).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from delegator.model.audited import Act, Record
from delegator.store import Store
from delegator.store.audit.inspection import Wanted
from delegator.trail import CALLBACK_FAILED, Step

_ROWS = 50
"""Rows of a device that are looked through, the newest first: what is older than so many tells nothing of today."""
_CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Event:
    """What happened, when, and the row of the audit that holds it ("" where none does). `serial` is that of the
    certificate which was refused."""

    at: datetime
    words: str
    row: str = ""
    serial: str = ""


@dataclass(frozen=True, slots=True)
class Lately:
    """How a callback for a device last failed, unless one went well since; how TLS last refused a certificate with
    its name, unless a device with its name was let in since."""

    callback: Event | None = None
    refused: Event | None = None


async def lately(store: Store, tag: str, delegate: str | None) -> Lately:
    """What the audit has of the device `tag`, and of the delegate that it would be sent to."""
    rows = await store.audit.list(Wanted(service_tag=tag), _ROWS)
    failed = _failure(rows) or (None if delegate is None else await _health(store, delegate))
    refused = await store.audit.last_refused(tag)
    return Lately(failed, None if refused is None else _refused(refused, rows))


def passed_over(record: Record) -> tuple[str, ...]:
    """Why delegates gave nothing although a credential was given, as the row of a claim that was issued tells it."""
    kept = record.entry.detail.get("trail")
    steps = kept.get("steps") if isinstance(kept, dict) else None
    return tuple(str(note) for name, _, note in steps or () if name == Step.PASSED_OVER.called)


def _failure(rows: Iterable[Record]) -> Event | None:
    """The newest failure, as long as no credential was given without one since."""
    for record in rows:
        failures = passed_over(record) if record.entry.act is Act.CLAIM_ISSUED else tuple(
            one.removeprefix(CALLBACK_FAILED) for one in record.entry.reasons if one.startswith(CALLBACK_FAILED))
        if failures:
            return Event(_when(record), f"{CALLBACK_FAILED}{'; '.join(failures)}", record.name)
        if record.entry.act is Act.CLAIM_ISSUED:
            return None
    return None


async def _health(store: Store, delegate: str) -> Event | None:
    """What other devices made servers leave the delegate alone for."""
    health = await store.health(delegate)
    if health is None or health.state == _CLOSED or not health.why:
        return None
    return Event(health.since, f"{CALLBACK_FAILED}{health.why} (of another device's)")


def _refused(record: Record, rows: Sequence[Record]) -> Event | None:
    let_in = next((one for one in rows
                   if one.entry.actor == "device" and one.entry.detail.get("identity") == "own"), None)
    if let_in is not None and _when(let_in) > _when(record):
        return None
    return Event(_when(record), "; ".join(record.entry.reasons), record.name,
                 str(record.entry.detail.get("serial", "")))


def _when(record: Record) -> datetime:
    return record.entry.until or record.entry.at
