"""Claims by the minute, of holders whose policy limits claims per hour. Transactions, no driver.

The window slides by whole minutes, so a holder needs 61 rows at most, whatever the limit. It is read and written in
the transaction that opens the claim. Where no policy that applies limits claims per hour, nothing here is touched.
The invariants: within any hour no more claims are opened than were judged to be allowed; minutes that count no
longer are removed by the first claim of a later one.
Must not live here: how long a minute counts, and what is too many (delegator.policy).
"""

from __future__ import annotations

from collections.abc import Sequence

from delegator.policy import WINDOW, Applied, Pace, Reason, over_pace, paced
from delegator.store.moments import moment
from delegator.store.transaction import Query, Row, Transaction

MINUTE = 60_000
"""Milliseconds."""
_WITHIN = "minute BETWEEN $2 AND $3"
"""A minute ahead counts as one behind: a clock may be set back, and servers' clocks differ. One further ahead than an
hour was written by a clock that was wrong, and is removed with those that are over."""


def window(holder: str, now: int) -> Query:
    """A holder's minutes that count at a time (ms), the earliest first."""
    minute = now // MINUTE
    return Query(f"SELECT minute, opened FROM paces WHERE holder = $1 AND {_WITHIN} AND opened > 0 ORDER BY minute",
                 (holder, minute - WINDOW, minute + WINDOW))


def pace_of(rows: Sequence[Row]) -> Pace:
    """The rows of `window` as a value."""
    return tuple((int(str(row[0])), int(str(row[1]))) for row in rows)


def obstacles(policies: Sequence[Applied], now: int) -> Transaction[tuple[Reason, ...]]:
    """Why no further claim may be opened in this hour, or ()."""
    paces = {}
    for holder in paced(policies):
        paces[holder] = pace_of((yield window(holder, now)))
    return over_pace(policies, paces, moment(now)) if paces else ()


def note(holders: Sequence[str], now: int) -> Transaction[None]:
    """A claim was opened. The first one of a minute removes those minutes that count no more."""
    minute = now // MINUTE
    for holder in holders:
        rows = yield Query("INSERT INTO paces (holder, minute, opened) VALUES ($1, $2, 1) ON CONFLICT (holder, minute) "
                           "DO UPDATE SET opened = paces.opened + 1 RETURNING opened", (holder, minute))
        if rows[0][0] == 1:
            yield Query(f"DELETE FROM paces WHERE holder = $1 AND NOT ({_WITHIN})",
                        (holder, minute - WINDOW, minute + WINDOW))


def take_back(holder: str, opened_at: int) -> Transaction[None]:
    """A claim opened at that time (ms) is another holder's now. Nothing where it was not counted."""
    yield Query("UPDATE paces SET opened = opened - 1 WHERE holder = $1 AND minute = $2 AND opened > 0",
                (holder, opened_at // MINUTE))
