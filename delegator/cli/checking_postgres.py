"""What `delegator config check` looks at in a PostgreSQL: can we work there, and will it keep what it was given.

The invariant: looking changes nothing.
Must not live here: connecting (store.engines.postgres.connecting), what is looked at elsewhere (checking).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from delegator import config
from delegator.errors import DelegatorError, Kind
from delegator.model import Policy
from delegator.sealing import SealingKey
from delegator.store.registry import ALL_POLICIES
from delegator.store.rows import policy_of
from delegator.store.transaction import Query, Row

_ASKED = """
SELECT current_setting('server_version_num')::integer AS version, current_setting('server_encoding') AS encoding,
       current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
       current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer AS room,
       (SELECT datcollate FROM pg_database WHERE datname = current_database()) AS collate,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
       has_schema_privilege(current_schema(), 'CREATE') AS creates,
       (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS tls,
       (SELECT tableowner = current_user FROM pg_tables
        WHERE schemaname = current_schema() AND tablename = 'schema_files') AS owns
"""
_OLDEST = 150000
"""Views that look with the rights of whoever asks, which customers' rows rest on, begin with version 15."""

_WRONG: tuple[tuple[Callable[[Any, config.Store], bool], str, str], ...] = (
    (lambda found, _: found["version"] < _OLDEST, "is older than PostgreSQL 15", "use that or a newer one"),
    (lambda found, _: found["encoding"] != "UTF8", "its encoding is not UTF8",
     "CREATE DATABASE delegator ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0"),
    (lambda found, _: found["fsync"] != "on", "fsync is off: a crash would lose or change credentials",
     "ALTER SYSTEM SET fsync = on"),
    (lambda found, _: found["full_page_writes"] != "on", "full_page_writes is off: a crash would tear pages",
     "ALTER SYSTEM SET full_page_writes = on"),
    (lambda found, _: found["owns"] is False, "its tables belong to another user", "use the user that made them"),
    (lambda found, _: found["owns"] is None and not found["creates"], "its user may not make tables",
     "ALTER DATABASE delegator OWNER TO delegator; GRANT CREATE ON SCHEMA public TO delegator"),
    (lambda found, where: found["room"] <= where.connections,
     "it has no room for all connections of even one delegator", "raise its max_connections or lower [store] "
     "connections"),
)
_REMARKS: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (lambda found: bool(found["superuser"]), "its user is a superuser, which it need not be"),
    (lambda found: found["collate"] not in ("C", "POSIX"), "its order of text depends on the system's locale"),
)


def rehearsed(where: config.Store, key: SealingKey | None) -> str:
    """What a start would make of it. Raises DelegatorError as it would."""
    from delegator.store.engines.sqlite.rehearsal import rehearse

    def question(connection: Any) -> Awaitable[Any]:
        async def read(query: Query) -> Sequence[Row]:
            return [tuple(row) for row in await connection.fetch(query.sql, *query.parameters)]
        return rehearse(read, "postgres", key)
    words: str = _asked(where, question).words
    return words


def examine(where: config.Store, key: SealingKey | None) -> str:
    """What is to be said of it. Raises DelegatorError (CONFIGURATION, UNREACHABLE) with what to do."""
    found = _asked(where, lambda connection: connection.fetchrow(_ASKED))
    for wrong, words, hint in _WRONG:
        if wrong(found, where):
            raise DelegatorError(Kind.CONFIGURATION, words, hint=hint)
    standing = rehearsed(where, key)
    version = f"PostgreSQL {found['version'] // 10000}"
    return "; ".join([f"{version}, {'with TLS' if found['tls'] else 'without TLS'}",
                      *(words for applies, words in _REMARKS if applies(found)), standing])


def names(where: config.Store, question: str, *values: str) -> str:
    """The names that a question finds; none from a database that does not answer, which is told on its own."""
    try:
        rows = _asked(where, lambda connection: connection.fetch(question, *values))
    except DelegatorError:
        return ""
    return ", ".join(str(row[0]) for row in rows)


def policies(where: config.Store) -> list[Policy]:
    """All policies; none from a database that does not answer, which is told on its own."""
    try:
        rows = _asked(where, lambda connection: connection.fetch(ALL_POLICIES.sql))
    except DelegatorError:
        return []
    return [policy_of((row[0], row[1])) for row in rows]


def _asked(where: config.Store, question: Callable[[Any], Awaitable[Any]]) -> Any:
    from delegator.store.engines.postgres.connecting import connect, server_of
    from delegator.store.engines.postgres.troubles import told

    server = server_of(where.url, where.password_file, where.timeout)

    async def ask() -> Any:
        connection = await connect(server)
        try:
            return await question(connection)
        finally:
            connection.terminate()
    try:
        return asyncio.run(ask())
    except DelegatorError:
        raise
    except Exception as error:
        raise told(error, server.name) from error
