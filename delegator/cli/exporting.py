"""Exports: files that the import of the same noun takes, CSV or JSON lines, written as the rows are read.

The invariants: a value is written as it is kept, byte for byte, and reads back the same, whatever a spreadsheet would
make of it; a file is there when it is whole and not before.
Must not live here: what is read (store.fleet, store.orders), other shapes (list).
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from delegator.cli import console
from delegator.cli.console import Output
from delegator.cli.parameters import typed
from delegator.desk import forms
from delegator.desk.shapes import Shape

F = TypeVar("F", bound=Callable[..., Any])
_TOGETHER = 1000
"""Rows that are written at once."""
_FORMATS = ("csv", "jsonl")


def options(customer_help: str) -> Callable[[F], F]:
    """FILE, --customer and --format."""
    def made(function: F) -> F:
        for option in (
                click.option("--format", "form", type=click.Choice(_FORMATS), default="csv", show_default=True,
                             help="As CSV with a header, or as JSON lines."),
                click.option("--customer", type=typed(forms.name), help=customer_help),
                click.argument("file", type=click.Path(path_type=Path, allow_dash=True, dir_okay=False), default="-")):
            function = option(function)
        return function
    return made


class _Out:
    """Where text goes, counted."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target, self._digest, self._size = target, hashlib.sha256(), 0

    def write(self, text: str) -> None:
        content = text.encode()
        self._target.write(content)
        self._digest.update(content)
        self._size += len(content)

    @property
    def facts(self) -> dict[str, object]:
        return {"bytes": self._size, "sha256": self._digest.hexdigest()}


async def export(file: Path, form: str, columns: Sequence[str], rows: AsyncIterator[Shape], facts: Mapping[str, object],
                 what: str, step: Callable[[int], None] = lambda _: None) -> Output | None:
    """Write rows to a file and tell of it, or to standard output. Raises click.UsageError where --json would mix with
    the rows."""
    to_output = str(file) == "-"
    if console.wants_json() and to_output:
        raise click.UsageError("--json tells of a FILE: name one, or say --format jsonl for JSON lines")
    count = 0
    with _target(file) as out:
        out.write(",".join(columns) + "\n" if form == "csv" else "")
        async for some in _together(rows):
            out.write(_csv(columns, some) if form == "csv" else _json_lines(some))
            count += len(some)
            step(len(some))
    data = {"file": str(file), "format": form, **facts, what: count, **out.facts}
    return None if to_output else Output(data, words=(f"{count} {what} are in {file}",))


@contextlib.contextmanager
def _target(file: Path) -> Iterator[_Out]:
    """Standard output, or a file of mode 0600."""
    if str(file) == "-":
        yield _Out(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as target:
            yield _Out(target)
            target.flush()
            os.fsync(target.fileno())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink()
        raise


async def _together(rows: AsyncIterator[Shape]) -> AsyncIterator[list[Shape]]:
    some: list[Shape] = []
    async for row in rows:
        some.append(row)
        if len(some) == _TOGETHER:
            yield some
            some = []
    if some:
        yield some


class _Lines(list[str]):
    """What csv.writer takes for a file."""

    def write(self, line: str) -> None:
        self.append(line)


def _csv(columns: Sequence[str], some: Sequence[Shape]) -> str:
    """Rows as in RFC 4180; of several values in a cell, as MAC addresses are, each is parted from the next by ;"""
    lines = _Lines()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerows([";".join(cell) if isinstance(cell, list) else cell for cell in map(row.get, columns)]
                     for row in some)
    return "".join(lines)


def _json_lines(some: Sequence[Shape]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some)
