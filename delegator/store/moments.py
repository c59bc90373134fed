"""Moments as the database keeps them: whole milliseconds since 1970.

The invariant: what is read is aware UTC. Must not live here: which moments there are, clocks.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def moment(value: object) -> datetime:
    """Milliseconds since 1970 as aware UTC."""
    assert isinstance(value, int)
    return datetime.fromtimestamp(value / 1000, UTC)


def moment_if_any(value: object) -> datetime | None:
    """The same of a column that may be empty."""
    return None if value is None else moment(value)


def milliseconds(moment: datetime) -> int:
    """As the database keeps it, rounded to the nearest."""
    return int(moment.timestamp() * 1000 + 0.5)


def milliseconds_of(duration: timedelta) -> int:
    """A duration in whole milliseconds."""
    return duration // timedelta(milliseconds=1)
