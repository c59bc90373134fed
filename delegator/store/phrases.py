"""The few words that PostgreSQL says otherwise. Statements are written once, for SQLite; this is their translation.

The invariant: a phrase means the same in both engines, or is stricter here where transactions run side by side.
Must not live here: statements of their own, anything that depends on a parameter.
"""

from __future__ import annotations

import functools

_PHRASES = (
    # Each connection counts places in rows of its own (see `lane` in 0001_start), so that claims of one customer do
    # not wait for each other; whoever needs the exact number has the holder to itself and adds them up.
    ("ON CONFLICT (holder) DO UPDATE", "ON CONFLICT (holder, lane) DO UPDATE"),
    ("(SELECT taken FROM places WHERE", "(SELECT CAST(sum(taken) AS BIGINT) FROM places WHERE"),
    ("UPDATE places SET taken = taken - 1 WHERE holder IN ($1, $2)",
     "INSERT INTO places (holder, taken) VALUES ($1, -1), ($2, -1) "
     "ON CONFLICT (holder, lane) DO UPDATE SET taken = places.taken - 1"),
    ("UPDATE places SET taken = taken - 1 WHERE holder = $1",
     "INSERT INTO places (holder, taken) VALUES ($1, -1) "
     "ON CONFLICT (holder, lane) DO UPDATE SET taken = places.taken - 1"),
    # Whoever puts something into a queue holds the queue until it is committed: else a worker that finds the queue
    # empty at that moment would remove it.
    ("ON CONFLICT (kind, delegate) DO NOTHING", "ON CONFLICT (kind, delegate) DO UPDATE SET kind = excluded.kind"),
)


@functools.cache
def in_postgres(sql: str) -> str:
    """The statement as PostgreSQL wants it. There are as many as the program has, so each is translated once."""
    for ours, theirs in _PHRASES:
        sql = sql.replace(ours, theirs)
    return sql
