"""Files of rows, with what is wrong with one as a whole in the delegator's own kind of error.

Must not live here: how such a file is read (pki.tables, for both programs), what a row means (rows), opening one (the
door that it comes in by).
"""

from __future__ import annotations

from delegator.errors import DelegatorError, Kind
from pki.tables import Table as _Table
from pki.tables import detail_of
from pki.text import NotText


class Table(_Table):
    """One file of rows."""

    def refused(self, error: NotText) -> Exception:
        """A DelegatorError (MALFORMED)."""
        return DelegatorError(Kind.MALFORMED, detail_of(error), hint=error.hint)
