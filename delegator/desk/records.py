"""Files of rows that a command is given, with what is wrong with one as a whole in the delegator's own kind of error.

Must not live here: how such a file is read (pki.tables, for both programs), what a row means (rows).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from delegator.errors import DelegatorError, Kind
from pki.disk import require_given
from pki.tables import Table as _Table
from pki.tables import detail_of
from pki.text import NotText


@contextlib.contextmanager
def source(path: Path) -> Iterator[IO[bytes]]:
    """A file of rows, or standard input for "-". Raises DelegatorError (CONFIGURATION)."""
    try:
        if str(path) != "-":
            require_given(path)  # nobody is waited for who would have to write into a named pipe
        opened = click.open_file(str(path), "rb")
    except OSError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"{path}: {error.strerror}", hint="check the path") from None
    with opened as found:
        yield found


class Table(_Table):
    """One file of rows."""

    def refused(self, error: NotText) -> Exception:
        """A DelegatorError (MALFORMED)."""
        return DelegatorError(Kind.MALFORMED, detail_of(error), hint=error.hint)
