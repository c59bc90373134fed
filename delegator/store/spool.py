"""The rows of one import on their way from a file to the store: sorted on disk, so that a million need little memory.

It is a database of its own without a name, which the system removes with the process however that ends. It knows what
stands in the file; what is registered it is told.
The invariant: after `settle` a line stands for a device, or it has a verdict that says why not.
Must not live here: formats of files (desk.rows), what is registered (store.imports).
"""

from __future__ import annotations

import functools
import itertools
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from delegator.store.bulk import TOGETHER
from delegator.store.devices import names, spoken
from delegator.store.transaction import Value

Together = Callable[[], int]
"""How many rows are wanted next."""

_TOGETHER = 8 * 4096
"""Values that wait in memory before they are written."""
_TABLES = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -4096;
CREATE TABLE said (line INTEGER PRIMARY KEY, customer, service_tag, serial_number, mac_addresses, model, order_number,
                   delegate);
CREATE TABLE names (name TEXT, line INTEGER);
CREATE TABLE known (line INTEGER, device_id INTEGER);
CREATE TABLE verdicts (line INTEGER PRIMARY KEY, error TEXT, device_id INTEGER);
"""


class Said(NamedTuple):
    """What one line says of a device, every value in its form; MAC addresses joined by commas."""

    line: int
    customer: str | None
    service_tag: str | None
    serial_number: str | None
    mac_addresses: str | None
    model: str | None
    order: str | None
    delegate: str | None


class Refused(NamedTuple):
    """One line that cannot be registered, and why."""

    line: int
    error: str


_SAID = len(Said._fields)


@functools.cache
def _inserting(table: str, rows: int, width: int) -> str:
    return f"INSERT INTO {table} VALUES " + ", ".join([f"({', '.join('?' * width)})"] * rows)


class Counts(msgspec.Struct, frozen=True):
    """Lines by what becomes of them; those registered already, just so, are `unchanged`."""

    rows: int
    new: int
    changed: int
    unchanged: int
    refused: int


class Spool:
    """See the module. Close it, or use it in `with`."""

    def __init__(self) -> None:
        """A small cache is the quicker one here: everything is read and written in order."""
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(_TABLES)

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def fill(self, rows: Iterable[Said | Refused]) -> None:
        """Take what a file says, line by line."""
        self._database.execute("BEGIN")
        said: list[Value] = []
        named: list[Value] = []
        for row in rows:
            if isinstance(row, Refused):
                self.refuse([row])
                continue
            said += row
            line, macs = row.line, row.mac_addresses
            for name in names(row.service_tag, row.serial_number, macs.split(",") if macs else ()):
                named += (name, line)
            if len(said) >= _TOGETHER:
                self._flush(said, named)
        self._flush(said, named)
        self._database.execute("COMMIT")

    def _flush(self, said: list[Value], named: list[Value]) -> None:
        self._insert("said", _SAID, said)
        self._insert("names", 2, named)
        said.clear()
        named.clear()

    def _insert(self, table: str, width: int, values: Sequence[Value]) -> None:
        """Rows one after the other in one list: 256 in a statement take a quarter of the time of one by one."""
        at, most = 0, TOGETHER * width
        while at < len(values):
            some = values[at:at + most]
            self._database.execute(_inserting(table, len(some) // width, width), some)
            at += most

    def settle(self) -> None:
        """Sort by identifier, and refuse every line that repeats one: which line is meant, nobody knows."""
        self._database.execute("CREATE INDEX IF NOT EXISTS sorted_names ON names (name, line)")
        if self._database.execute("SELECT count(DISTINCT name) = count(*) FROM names INDEXED BY sorted_names"
                                  ).fetchone()[0]:
            return
        found = self._database.execute(
            "SELECT n.line, n.name, f.first FROM (SELECT name, min(line) AS first FROM names INDEXED BY sorted_names "
            "GROUP BY name HAVING count(*) > 1) f CROSS JOIN names n ON n.name = f.name AND n.line > f.first")
        self.refuse(Refused(line, f"{spoken(name)} stands on line {first} already") for line, name, first in found)

    def refuse(self, refused: Iterable[Refused]) -> None:
        """A line that was refused before keeps its first reason."""
        self._database.executemany("INSERT INTO verdicts VALUES (?1, ?2, NULL) ON CONFLICT (line) DO UPDATE SET "
                                   "error = coalesce(error, ?2), device_id = NULL", refused)

    def know(self, known: Iterable[tuple[int, int]]) -> None:
        """Lines, each with the number of a registered device that shares an identifier with it."""
        self._insert("known", 2, list(itertools.chain.from_iterable(known)))

    def match(self, matched: Iterable[tuple[int, int | None]]) -> None:
        """Lines whose device is registered: its number where it becomes another by this line, else None."""
        self._database.executemany("INSERT INTO verdicts VALUES (?1, NULL, ?2) ON CONFLICT (line) DO NOTHING", matched)

    def refuse_twice_changed(self) -> None:
        """Two lines that share no identifier can still be about one registered device: one of them would undo what the
        other says."""
        self._database.execute("CREATE INDEX IF NOT EXISTS lines_known ON known (device_id, line)")
        found = self._database.execute(
            "SELECT v.line, min(k.line) FROM verdicts v CROSS JOIN known k ON k.device_id = v.device_id "
            "AND k.line <> v.line LEFT JOIN verdicts o ON o.line = k.line WHERE v.device_id IS NOT NULL "
            "AND (k.line < v.line OR coalesce(o.error, o.device_id) IS NULL) GROUP BY v.line").fetchall()
        self.refuse(Refused(line, f"line {other} is about the same registered device") for line, other in found)

    # --- what is in it ---

    def counts(self) -> Counts:
        said, = self._database.execute("SELECT count(*) FROM said").fetchone()
        counted = "SELECT count(*), count(error), count(device_id) FROM verdicts"
        judged, refused, changed = self._database.execute(counted).fetchone()
        unread, = self._database.execute(
            "SELECT count(*) FROM verdicts WHERE line NOT IN (SELECT line FROM said)").fetchone()
        return Counts(said + unread, said + unread - judged, changed, judged - refused - changed, refused)

    def last_line(self) -> int:
        return int(self._database.execute("SELECT coalesce(max(line), 0) FROM said").fetchone()[0])

    def owners(self) -> list[tuple[str | None, str | None]]:
        """Each customer and delegate that a line says, once."""
        return self._database.execute("SELECT DISTINCT customer, delegate FROM said").fetchall()

    def of_owner(self, customer: str | None, delegate: str | None) -> Iterator[int]:
        found = self._database.execute("SELECT line FROM said WHERE customer IS ? AND delegate IS ?",
                                       (customer, delegate)).fetchall()
        return (line for line, in found)

    def names(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM names").fetchone()[0])

    def between(self, kind: str) -> tuple[str, str] | None:
        """The first and the last name of a kind."""
        first, = self._database.execute("SELECT min(name) FROM names WHERE name >= ?1 AND name < ?1 || char(127)",
                                        (kind,)).fetchone()
        last, = self._database.execute("SELECT max(name) FROM names WHERE name >= ?1 AND name < ?1 || char(127)",
                                       (kind,)).fetchone()
        return None if first is None else (first, last)

    def named(self, kind: str, together: Together) -> Iterator[list[tuple[str, int]]]:
        """All identifiers of a kind in order, with their lines."""
        return self._pieces("SELECT name, line FROM names WHERE name >= ?1 AND name < ?1 || char(127) "
                            "ORDER BY name, line", together, kind)

    def known(self, together: Together) -> Iterator[list[tuple[Said, set[int]]]]:
        """Lines against which nothing is held so far, with the registered devices that share an identifier."""
        found = self._pieces(
            "SELECT group_concat(DISTINCT k.device_id), s.* FROM (SELECT line, device_id FROM known ORDER BY line) k "
            "CROSS JOIN said s ON s.line = k.line WHERE s.line NOT IN (SELECT line FROM verdicts) GROUP BY s.line",
            together)
        return ([(Said(*row[1:]), set(map(int, str(row[0]).split(",")))) for row in rows] for rows in found)

    def new(self, first_id: int, together: Together) -> Iterator[list[tuple[Value, ...]]]:
        """New devices in the order of their lines: number, then the columns of store.devices."""
        return self._pieces(
            f"SELECT line + {first_id}, customer, service_tag, serial_number, mac_addresses, model, order_number, "
            f"delegate FROM said{self._unless_judged()} ORDER BY line", together)

    def new_names(self, first_id: int, together: Together) -> Iterator[list[tuple[Value, ...]]]:
        """The identifiers of new devices in order, with the devices' numbers."""
        return self._pieces(f"SELECT name, line + {first_id} FROM names{self._unless_judged()} ORDER BY name, line",
                            together)

    def changing(self, together: Together) -> Iterator[list[tuple[int, Said]]]:
        """Lines that change a device: its number, and what it becomes."""
        found = self._pieces("SELECT v.device_id, s.* FROM verdicts v CROSS JOIN said s ON s.line = v.line "
                             "WHERE v.device_id IS NOT NULL ORDER BY v.line", together)
        return ([(row[0], Said(*row[1:])) for row in rows] for rows in found)

    def refused(self, most: int) -> list[Refused]:
        return [Refused(*row) for row in self._database.execute(
            "SELECT line, error FROM verdicts WHERE error IS NOT NULL ORDER BY line LIMIT ?", (most,))]

    def _unless_judged(self) -> str:
        any_judged = self._database.execute("SELECT 1 FROM verdicts LIMIT 1").fetchone()
        return " WHERE line NOT IN (SELECT line FROM verdicts)" if any_judged else ""

    def _pieces(self, query: str, together: Together, *parameters: Value) -> Iterator[list[Any]]:
        cursor = self._database.execute(query, parameters)
        while rows := cursor.fetchmany(together()):
            yield rows
