"""What a target is: a reader under a law, bytes to start from, and words that its grammar is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
MOST = 4096
"""Bytes of one input: long runs are for tests that know what they look for (tests/wire)."""


@dataclass(frozen=True, slots=True)
class Target:
    """`check` returns for any bytes, or raises: then the law is broken. `words` are pieces of the grammar."""

    name: str
    law: str
    check: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]

    @property
    def corpus(self) -> Path:
        """Where its kept inputs lie."""
        return CORPUS / self.name

    def inputs(self) -> list[bytes]:
        """Seeds and corpus."""
        return [*self.seeds, *(path.read_bytes() for path in sorted(self.corpus.glob("*")))]


def must(holds: bool, what: str) -> None:
    """The law, where it is not told by an exception."""
    if not holds:
        raise AssertionError(what)
