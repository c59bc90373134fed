"""What the delegates that are registered need of this installation: a relay for mail, the extra of a way.

The invariant: nothing is written, and a database that does not open is told on its own.
Must not live here: what a way lacks (callbacks.calling), opening a database (checking, checking_postgres).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from delegator.callbacks.calling import lacking
from delegator.cli import checking_postgres
from delegator.config import Store
from delegator.errors import DelegatorError
from delegator.model import CallbackWay

_MAILED = ("SELECT name FROM delegates WHERE json_extract(settings, '$.mail_to') IS NOT NULL ORDER BY name LIMIT 5",
           "SELECT name FROM delegates WHERE settings::jsonb->>'mail_to' IS NOT NULL ORDER BY name LIMIT 5")
_REACHED_BY = ("SELECT name FROM delegates WHERE kind = ? ORDER BY name LIMIT 5",
               "SELECT name FROM delegates WHERE kind = $1 ORDER BY name LIMIT 5")
"""For SQLite and for PostgreSQL; five names are enough to know which are meant."""


def mailing(where: Store) -> str:
    """Delegates with an address to mail to."""
    return _named(where, _MAILED)


def ways(where: Store) -> Iterator[tuple[str, str, Callable[[], str]]]:
    """A check that fails for each way that delegates are reached by and that cannot be called from here."""
    for way in CallbackWay:
        why = lacking(way)
        concerned = _named(where, _REACHED_BY, way.value) if why is not None else ""
        if why is not None and concerned:
            yield f"callback {way.value}", concerned, partial(_refuse, why)


def _refuse(why: DelegatorError) -> str:
    raise DelegatorError(why.kind, f"no device will be served by it: {why.detail}", hint=why.hint)


def _named(where: Store, questions: tuple[str, str], *values: str) -> str:
    """The delegates that a question finds, by name."""
    embedded, server = questions
    if where.url:
        return checking_postgres.names(where, server, *values)
    path = Path(where.path)
    if path.is_file():
        with contextlib.suppress(sqlite3.Error), contextlib.closing(read_only(path)) as connection:
            return ", ".join(str(row[0]) for row in connection.execute(embedded, values))
    return ""


def read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
