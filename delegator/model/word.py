"""An enumeration whose members are words, told apart and compared without a call of a function.

The invariant: it behaves as `enum.Enum` does; its `value` and its hash are only found by C, where Enum's own are
functions in Python, called some thirty times a handshake.
Must not live here: any word.
"""

from __future__ import annotations

import enum
import operator
from typing import TYPE_CHECKING


class Word(enum.Enum):
    """A choice of a few words. A member is itself alone, so its identity is its hash."""

    __hash__ = object.__hash__
    if not TYPE_CHECKING:
        value = property(operator.attrgetter("_value_"), doc="The word.")
