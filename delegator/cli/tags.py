"""Lists of devices in files that a command is given.

The invariant: all rows are right, or every row that is wrong is told and none is used.
Must not live here: what a row is (desk.rows), how such a file is read (pki.tables).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from delegator.cli import files
from delegator.desk import forms, rows
from delegator.desk.records import Table
from delegator.desk.refusals import Wrong
from delegator.errors import DelegatorError, Kind


def tags_in(path: Path) -> list[str]:
    """Each tag of a file once, in order; # begins a comment, `-` is standard input. Raises DelegatorError
    (MALFORMED) naming the lines that are wrong."""
    return devices_in(path, forms.tag)


def devices_in(path: Path, form: Callable[[str], str]) -> list[str]:
    """The same of devices that are called otherwise too; `form` makes a name of text, or raises ValueError."""
    with files.rows(path) as opened:
        table = Table(opened, rows.LISTED, rows.LISTED, others=True, alone=True)
        try:
            found = rows.listed(table, form)
        except Wrong as error:
            detail = f"{len(error.reasons)} lines are wrong, nothing was changed: " + "; ".join(error.reasons[:5])
            raise DelegatorError(Kind.MALFORMED, detail, reasons=error.reasons, hint="mend them and run it again"
                                 ) from None
    if table.headless is not None:
        click.echo(f"{table.taken}; {len(found)} in all", err=True)
    return found
