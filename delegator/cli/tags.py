"""Lists of devices: one a line, or a table with a column service_tag.

The invariant: all rows are right, or every row that is wrong is told and none is used.
Must not live here: how such a file is read (pki.tables), files of devices with all that is known of them (desk.rows).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from delegator.desk import forms
from delegator.desk.records import Table, source
from delegator.errors import DelegatorError, Kind
from pki.tables import Values

COLUMN = "service_tag"


def tags_in(path: Path) -> list[str]:
    """Each tag of a file once, in order; # begins a comment, `-` is standard input. Raises DelegatorError
    (MALFORMED) naming the lines that are wrong."""
    return devices_in(path, forms.tag)


def devices_in(path: Path, form: Callable[[str], str]) -> list[str]:
    """The same of devices that are called otherwise too; `form` makes a name of text, or raises BadParameter."""
    found: dict[str, None] = {}
    wrong: list[str] = []
    with source(path) as opened:
        table = Table(opened, (COLUMN,), (COLUMN,), others=True, alone=True)
        for line, values in table:
            try:
                found[_named(values, form)] = None
            except click.BadParameter as error:
                wrong.append(f"line {line}: {error.message}")
    if wrong:
        detail = f"{len(wrong)} lines are wrong, nothing was changed: " + "; ".join(wrong[:5])
        raise DelegatorError(Kind.MALFORMED, detail, reasons=tuple(wrong), hint="mend them and run it again")
    if table.headless is not None:
        click.echo(f"{table.taken}; {len(found)} in all", err=True)
    return list(found)


def _named(values: Values | str, form: Callable[[str], str]) -> str:
    if isinstance(values, str):
        raise click.BadParameter(values)
    (value,) = values
    if not isinstance(value, str):
        raise click.BadParameter(f"{COLUMN} must be a string")
    return form(value.strip(" \t"))
