"""One claim as the delegate knows it, and how it is read from its row.

The invariant: how far a device has come follows from the entry and the time alone.
Must not live here: SQL statements (ledger), output (cli).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime

from delegator.model import Device, Location, Result
from delegator.store.moments import moment, moment_if_any
from delegator.store.transaction import Row, Value

COLUMNS = ("claim_id, service_tag, serial_number, model, mac_addresses, ip_address, host_name, domain, user_name, "
           "asked_at, not_after, usable_until, voided, fetched_at, result, detail, ended_at, sealed")


class Standing(enum.Enum):
    """How far a device has come, in the words of `delegate list`."""

    LEARNED = "learned"
    FETCHED = "fetched"
    DEPLOYED = "deployed"
    FAILED = "failed"
    VOID = "void"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Entry:
    """One claim as the delegate knows it. Times are aware UTC."""

    claim_id: str
    device: Device
    location: Location
    user_name: str
    asked_at: datetime
    not_after: datetime
    usable_until: datetime
    voided: bool
    fetched_at: datetime | None = None
    result: Result | None = None
    detail: str | None = None
    ended_at: datetime | None = None
    sealed: bytes | None = field(default=None, repr=False)

    def standing(self, now: datetime) -> Standing:
        """The first line that holds."""
        lines = ((self.result is Result.DEPLOYED, Standing.DEPLOYED), (self.voided, Standing.VOID),
                 (self.usable_until <= now, Standing.EXPIRED), (self.result is Result.FAILED, Standing.FAILED),
                 (self.fetched_at is not None, Standing.FETCHED))
        return next((standing for holds, standing in lines if holds), Standing.LEARNED)

    def usable(self, now: datetime) -> bool:
        return self.sealed is not None and now < self.usable_until


def _text(value: Value) -> str | None:
    return None if value is None else str(value)


def entry_of(row: Row) -> Entry:
    """A row of COLUMNS as a value."""
    (claim_id, tag, serial, model, macs, address, host, domain, user_name, asked, not_after, usable, voided, fetched,
     result, detail, ended, sealed) = row
    return Entry(
        str(claim_id), Device(str(tag), _text(serial), tuple(str(macs).split()), _text(model)),
        Location(_text(address), _text(host), _text(domain)), str(user_name), moment(asked), moment(not_after),
        moment(usable), bool(voided), moment_if_any(fetched), None if result is None else Result(result), _text(detail),
        moment_if_any(ended), sealed if isinstance(sealed, bytes) else None)
