"""Files of service tags, one a line.

The invariant: all lines are right, or every line that is wrong is told and none is used.
Must not live here: files of devices (importing).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from delegator.cli import forms
from delegator.errors import DelegatorError, Kind


def tags_in(path: Path) -> list[str]:
    """Each tag of a file once, in order; # begins a comment, `-` is standard input. Raises DelegatorError
    (MALFORMED) naming the lines that are wrong."""
    with click.open_file(str(path), encoding="utf-8-sig", errors="replace") as lines:
        return list(dict.fromkeys(_read(lines)))


def _read(lines: Iterable[str]) -> list[str]:
    tags, wrong = [], []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        try:
            tags += [forms.tag(text)] if text else []
        except click.BadParameter as error:
            wrong.append(f"line {number}: {error.message}")
    if wrong:
        detail = f"{len(wrong)} lines are wrong, nothing was changed: " + "; ".join(wrong[:5])
        raise DelegatorError(Kind.MALFORMED, detail, reasons=tuple(wrong), hint="mend them and run it again")
    return tags
