"""How much of what is many the slow tests take: a part that is the same in every run, or all of it, with THOROUGH in
the environment.

The invariant: where two lists are crossed, each member of either is in the part, so that nothing is left to those who
have the hours.
Must not live here: how long a test may take (its mark), which parts there are (CONTRIBUTING.md).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

THOROUGH = os.environ.get("THOROUGH", "") not in ("", "0")
First, Second = TypeVar("First"), TypeVar("Second")


def crossed(first: Sequence[First], second: Sequence[Second], share: int) -> list[tuple[First, Second]]:
    """Every `share`-th pair along each row and each column of the table of both; or all of them."""
    assert share <= min(len(first), len(second)), "a row or a column would be left out"
    return [(one, other) for at, one in enumerate(first) for number, other in enumerate(second)
            if THOROUGH or (at + number) % share == 0]
