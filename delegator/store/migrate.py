"""Numbered, forward-only schema files: each applied once, in order, in one transaction, with its checksum kept.

The invariant: a database is at a known number, and a file that was applied never changes afterwards.
Must not live here: the schema itself (schema/NNNN_name.<dialect>.sql, or .sql where all dialects agree).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Protocol

import msgspec

from delegator.errors import DelegatorError, Kind
from delegator.store.transaction import Query, Row

_TABLE = "CREATE TABLE IF NOT EXISTS schema_files (number INTEGER PRIMARY KEY, name TEXT, checksum TEXT)"
APPLIED = Query("SELECT number, checksum FROM schema_files ORDER BY number")
"""Which files a database was made from."""


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


def schema_files(dialect: str, package: str = "delegator.store") -> list[SchemaFile]:
    """The files of a package's own schema for a dialect, by number."""
    folder = resources.files(package) / "schema"
    files = [SchemaFile(int(entry.name[:4]), entry.name.split(".")[0], entry.read_text(encoding="utf-8"))
             for entry in folder.iterdir() if entry.name.endswith(f".{dialect}.sql")]
    return sorted(files, key=lambda file: file.number)


async def migrate(driver: Migrating, package: str = "delegator.store") -> int:
    """Bring a database up to date; the number of files applied. Raises DelegatorError (CONFIGURATION) when the
    database is newer than this program, or a file it was made from has changed since."""
    await driver.script(_TABLE)
    missing = still_missing(await driver.read(APPLIED), driver.dialect, package)
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
    checksums = {int(str(row[0])): str(row[1]) for row in applied}
    files = {file.number: file for file in schema_files(dialect, package)}
    for number, checksum in checksums.items():
        if number not in files:
            raise DelegatorError(Kind.CONFIGURATION, f"the database is at schema {number}, newer than this program",
                                 hint="run the newer release, or restore a backup")
        if files[number].checksum != checksum:
            raise DelegatorError(Kind.CONFIGURATION, f"schema file {files[number].name} was changed after use",
                                 hint="run the release that the database was made with, or restore a backup")
    return [file for number, file in files.items() if number not in checksums]


def _in_one_transaction(file: SchemaFile) -> str:
    """Name and checksum are ours, not a user's: a digit string, a file name and hexadecimal digits."""
    record = f"INSERT INTO schema_files VALUES ({file.number}, '{file.name}', '{file.checksum}');"
    return f"BEGIN;\n{file.sql}\n{record}\nCOMMIT;"
