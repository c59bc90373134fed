"""PostgreSQL: no table is made without row-level security, read from the schema's own files, so that it is missed at
once and not only where a server runs (T-B2)."""

from __future__ import annotations

import re

from delegator.store.migrate import schema_files


def test_TB2_every_table_that_is_made_is_closed_to_readers_at_once() -> None:
    """What stays open to them afterwards is said by a policy; see engines.postgres.test_rows for what that comes to."""
    sql = "\n".join(re.sub(r"--.*", "", file.sql) for file in schema_files("postgres"))
    made = set(re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)", sql)) - set(re.findall(r"DROP TABLE (\w+)", sql))
    renamed = dict(re.findall(r"ALTER TABLE (\w+) RENAME TO (\w+)", sql))
    closed = set(re.findall(r"ALTER TABLE (\w+) ENABLE ROW LEVEL SECURITY", sql))
    assert len(made) > 20
    assert sorted({renamed.get(one, one) for one in made} - {renamed.get(one, one) for one in closed}) == []
