"""Numbered, forward-only schema files: each applied once, in order, in one transaction, with its checksum kept.

A file says with which programs it can be lived: "-- Programs from schema 11 on work with this." is written beside its
checksum, so that a delegator of the release before finds out that it may start on a schema that it has no files of.
Without that line a file is for programs that know it.
The invariants: a database is at a known number, and a file that was applied never changes afterwards; no file in the
folder is passed over without a word.
Must not live here: the schema itself (schema/NNNN_name.<dialect>.sql, one file for each dialect).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Protocol

import msgspec

from delegator.errors import DelegatorError, Kind
from delegator.store.transaction import Query, Row

MADE_FIRST = "CREATE TABLE IF NOT EXISTS schema_files (number INTEGER PRIMARY KEY, name TEXT, checksum TEXT)"
"""What a database has before any file is applied."""
APPLIED = Query("SELECT * FROM schema_files ORDER BY number")
"""Which files a database was made from: number, name, checksum, and since the eleventh `oldest`, the schema that
a program must know at least. All columns, as this is asked before anybody knows whether the last one is there."""
_NAME = re.compile(r"(?P<number>\d{4})_(?P<name>[a-z0-9_]+)\.(?P<dialect>sqlite|postgres)\.sql")
_OLDEST = re.compile(r"^-- Programs from schema (\d+) on work with this\.$", re.MULTILINE)


class Migrating(Protocol):
    """What a driver must offer to be migrated."""

    dialect: str

    async def read(self, query: Query) -> list[Row]: ...
    async def script(self, sql: str) -> None: ...


class SchemaFile(msgspec.Struct, frozen=True):
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def oldest(self) -> int | None:
        """The schema that a program must know to work with what this file makes; None where the file does not say."""
        said = _OLDEST.search(self.sql)
        return None if said is None else int(said[1])


def schema_files(dialect: str, package: str = "delegator.store") -> list[SchemaFile]:
    """The files of a package's own schema for a dialect, by number."""
    return files_in(resources.files(package) / "schema", dialect)


def files_in(folder: Traversable, dialect: str) -> list[SchemaFile]:
    """The files of a folder for a dialect, by number. Raises DelegatorError (CONFIGURATION) when there is anything
    else in it, such as a file that was meant for all dialects: it would be applied to none."""
    files: dict[int, SchemaFile] = {}
    for entry in folder.iterdir():
        said = _NAME.fullmatch(entry.name)
        if said is None:
            raise _unfit(entry.name, "its name is not NNNN_name.sqlite.sql or NNNN_name.postgres.sql")
        if said["dialect"] == dialect:
            number = int(said["number"])
            if number in files:
                raise _unfit(entry.name, f"there is another file {number:04}")
            files[number] = SchemaFile(number, f"{said['number']}_{said['name']}", entry.read_text(encoding="utf-8"))
    return [files[number] for number in sorted(files)]


def _unfit(name: str, why: str) -> DelegatorError:
    return DelegatorError(Kind.CONFIGURATION, f"schema file {name} would never be applied: {why}",
                          hint="this installation is not as it was released: install it anew")


async def bring_up_to_date(driver: Migrating, package: str = "delegator.store") -> int:
    """Apply what a database lacks; the number of files applied. Raises DelegatorError (CONFIGURATION) when the
    database is too new for this program, or a file it was made from has changed since."""
    try:
        applied = await driver.read(APPLIED)
    except DelegatorError:  # most likely nothing is there yet; what else is the matter shows at once again
        await driver.script(MADE_FIRST)
        applied = await driver.read(APPLIED)
    missing = still_missing(applied, driver.dialect, package)
    for file in missing:
        try:
            await driver.script(_in_one_transaction(file))
        except DelegatorError:
            if not await driver.read(Query("SELECT 1 FROM schema_files WHERE checksum = $1", (file.checksum,))):
                raise  # otherwise another process, started at the same moment, was faster
    return len(missing)


def still_missing(applied: Sequence[Row], dialect: str, package: str = "delegator.store") -> list[SchemaFile]:
    """The files that a database lacks, by the rows of APPLIED; whoever only looks asks here too. Raises DelegatorError
    (CONFIGURATION) for a database that this program must leave alone."""
    files = {file.number: file for file in schema_files(dialect, package)}
    newest = max(files, default=0)
    for row in applied:
        number, checksum = int(str(row[0])), str(row[2])
        if number not in files:
            _require_lived_with(number, row, newest)
        elif files[number].checksum != checksum:
            raise DelegatorError(Kind.CONFIGURATION, f"schema file {files[number].name} was changed after use",
                                 hint="run the release that the database was made with, or restore a backup")
    known = {int(str(row[0])) for row in applied}
    return [file for number, file in files.items() if number not in known]


def _require_lived_with(number: int, row: Row, newest: int) -> None:
    """A file of a newer release is on the database: it must say that programs like this one work with it."""
    oldest = row[3] if len(row) > 3 else None
    if oldest is None or int(str(oldest)) > newest:
        raise DelegatorError(Kind.CONFIGURATION, f"the database is at schema {number}, newer than this program",
                             hint="run the newer release, or restore a backup")


def _in_one_transaction(file: SchemaFile) -> str:
    """Name and checksum are ours, not a user's: a digit string, a file name and hexadecimal digits. A file that says
    whom it suits finds the column for it, as the first of these made it."""
    row = f"{file.number}, '{file.name}', '{file.checksum}'"
    record = (f"INSERT INTO schema_files (number, name, checksum) VALUES ({row});" if file.oldest is None else
              f"INSERT INTO schema_files (number, name, checksum, oldest) VALUES ({row}, {file.oldest});")
    return f"BEGIN;\n{file.sql}\n{record}\nCOMMIT;"
