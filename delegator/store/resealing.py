"""Everything that is sealed, in one table; and sealing it again under another key, on a live database.

A rotation has three steps: the new key is put before the old one in the settings and read by every delegator, all
rows are sealed again (this page), the old key is forgotten. Each row changes only from what it was seen as, so a
claim that is wiped meanwhile stays wiped; a rotation that is cut off is begun again and finds what is left.
The invariants: no column holds anything sealed that the table does not name (a test reads the schema); text is in
memory only, one row at a time.
Must not live here: keys (sealing), when to rotate.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Sequence

import msgspec

from delegator.errors import DelegatorError
from delegator.sealing import ID_BYTES, SealingKey, id_of
from delegator.store.driver import Running
from delegator.store.transaction import Query, Row, Transaction, Value, rows_alone

PAGE = 200
"""Rows in one transaction: 9 ms of the writer (measured), and a device waits for no longer than that."""


class Column(msgspec.Struct, frozen=True):
    """A column of sealed values: where, by which key column a row is found, and what it is sealed for."""

    table: str
    key: str
    row: str
    column: str = "sealed"
    only: str = ""
    """A condition that all rows with a value meet, in the words of an index: without it a scan reads all rows."""

    @property
    def holds(self) -> str:
        """The condition of rows that have a value."""
        return " AND ".join(filter(None, (f"{self.column} IS NOT NULL", self.only)))

    def name(self, key: Value) -> str:
        """The row's name, which a sealed value is bound to."""
        return self.row.format(key)


SEALED = (
    Column("claims", "claim_id", "claims/{}", only="state IN ('asking', 'issued')"),
    Column("delegates", "name", "delegates/{}"),
    Column("audit_keys", "number", "audit_keys/{}"),
)


class Held(msgspec.Struct, frozen=True):
    """How many values of a table are sealed with a key, by its id."""

    table: str
    key: str
    values: int


def counts(column: Column) -> Query:
    """How many values are sealed with which key."""
    start = f"substr({column.column}, 1, {ID_BYTES})"
    return Query(f"SELECT {start}, count(*) FROM {column.table} WHERE {column.holds} GROUP BY {start}")


def page(column: Column, after: Value, current: bytes, most: int) -> Query:
    """Values that are sealed with another key than the current one, in the order of their rows."""
    rows = f"{column.holds} AND substr({column.column}, 1, {ID_BYTES}) <> $1"
    begin = "" if after is None else f" AND {column.key} > $3"
    return Query(f"SELECT {column.key}, {column.column} FROM {column.table} WHERE {rows}{begin} "
                 f"ORDER BY {column.key} LIMIT $2",
                 (current, most) if after is None else (current, most, after))


def reseal(column: Column, values: Sequence[tuple[Value, bytes, bytes]]) -> Transaction[int]:
    """Put new values in the place of old ones, row by row, where they are still the old ones."""
    changed = 0
    for key, old, new in values:
        rows = yield Query(f"UPDATE {column.table} SET {column.column} = $3 WHERE {column.key} = $1 AND "
                           f"{column.column} = $2 RETURNING {column.key}", (key, old, new))
        changed += len(rows)
    return changed


class Resealing:
    """The verbs on a database."""

    def __init__(self, driver: Running, key: SealingKey) -> None:
        self._driver, self._key = driver, key

    @property
    def known(self) -> tuple[str, ...]:
        """The ids of the keys that we have, the one that seals first."""
        return self._key.known

    async def held(self) -> list[Held]:
        """What is sealed with which key, by table."""
        return [Held(column.table, id_of(_bytes(row[0])), int(str(row[1])))
                for column in SEALED for row in await self._driver.read(counts(column))]

    async def check(self) -> list[DelegatorError]:
        """Open one value of each table and key; what did not open."""
        wrong = []
        for column in SEALED:
            for (first,) in await self._driver.read(_one_of_each(column)):
                (row,) = await self._driver.read(_value(column, first))
                try:
                    self._key.open(_bytes(row[0]), column.name(first))
                except DelegatorError as error:
                    wrong.append(error)
        return wrong

    async def rotate(self) -> AsyncIterator[int]:
        """Seal everything again that is not sealed with the current key; yields how many at a time. Raises
        DelegatorError (UNAVAILABLE) for a value that no key opens: all before it are done, and stay so."""
        for column in SEALED:
            after: Value = None
            while rows := await self._driver.read(page(column, after, self._key.current, PAGE)):
                values = [(row[0], _bytes(row[1]), self._again(column, row)) for row in rows]
                yield await self._driver.run(functools.partial(reseal, column, values), rows_alone)
                after = rows[-1][0]

    def _again(self, column: Column, row: Row) -> bytes:
        name = column.name(row[0])
        return self._key.seal(self._key.open(_bytes(row[1]), name), name)


def _one_of_each(column: Column) -> Query:
    return Query(f"SELECT min({column.key}) FROM {column.table} WHERE {column.holds} "
                 f"GROUP BY substr({column.column}, 1, {ID_BYTES})")


def _value(column: Column, key: Value) -> Query:
    return Query(f"SELECT {column.column} FROM {column.table} WHERE {column.key} = $1", (key,))


def _bytes(value: Value) -> bytes:
    assert isinstance(value, bytes)
    return value
