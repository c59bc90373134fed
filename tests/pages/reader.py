"""Someone who reads one page in a scene: block after block, each found by how it begins.

The invariants: at the end each block that the plan gives to this test was taken, a device was activated after the last
of them, and one after everything had been started anew; so a page cannot grow an example that nobody runs, and a
command that ended with 0 proves nothing yet.
Must not live here: what is done between blocks (the tests), what the plan says (plans).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .plans import Ran, place
from .reading import Block, blocks_of
from .scene import Scene


@dataclass
class Reader:
    """One page in one scene, for the test of that name."""

    scene: Scene
    page: str
    test: str
    taken: set[str] = field(default_factory=set)
    before: int = 0
    """Devices that were activated before the last block was taken."""

    def take(self, start: str) -> str:
        """The block that begins so, word for word."""
        (block,) = (one for one in blocks_of(self.page) if one.text.startswith(start))
        self.taken.add(block.name)
        self.before = self.scene.activations
        return block.text

    def run(self, start: str, *, ends: int = 0) -> str:
        """What the block of shell commands prints."""
        return self.scene.run(self.take(start), ends=ends)

    def settings(self, start: str) -> None:
        self.scene.settings(self.take(start))

    def serve(self, name: str, start: str, port: int, **environment: str) -> None:
        self.scene.serve(name, self.take(start), port, **environment)

    @property
    def wanted(self) -> set[str]:
        return {block.name for block in blocks_of(self.page)
                if isinstance(how := place(block), Ran) and how.test == self.test}


@contextmanager
def reading(scene: Scene, page: str, test: object) -> Iterator[Reader]:
    """Read that page to its end."""
    reader = Reader(scene, page, getattr(test, "__name__", str(test)))
    yield reader
    left = reader.wanted - reader.taken
    assert not left, f"never run: {sorted(left)}"
    assert scene.activations > reader.before, "no device was activated after the last block"
    assert scene.served_after_restart or not scene.servers, "no device was activated after a restart of everything"


def borrowed(scene: Scene, page: str, start: str) -> str:
    """Run a block of another page, which comes before this one for a reader."""
    (block,) = (one for one in blocks_of(page) if one.text.startswith(start))
    return scene.run(block.text)


__all__ = ["Block", "Reader", "borrowed", "reading"]
