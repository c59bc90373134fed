"""Moments as the database keeps them: whole milliseconds since 1970.

The invariant: what is read is aware UTC. Must not live here: which moments there are, clocks.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def moment(value: object) -> datetime:
    """Milliseconds since 1970 as aware UTC."""
    assert isinstance(value, int)
    return datetime.fromtimestamp(value / 1000, UTC)


def milliseconds(moment: datetime) -> int:
    """As the database keeps it, rounded to the nearest."""
    return int(moment.timestamp() * 1000 + 0.5)


def milliseconds_of(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)
