"""The time, for tests to which it means nothing: verbs of the store are told it and never look themselves.

Must not live here: clocks that a test moves (test_clocks, lab).
"""

from __future__ import annotations

from datetime import UTC, datetime


def today() -> datetime:
    """Now."""
    return datetime.now(UTC)
