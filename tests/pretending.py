"""A loop whose time passes at once where nothing happens: for laws about seconds, in tests that take none.

While `pretending`, a wait that nothing ends but its time is skipped, and the loop's clock goes forward by it. What
comes from outside (threads, sockets) is only waited for while it is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    def __init__(self) -> None:
        super().__init__()
        self.pretending = False
        self.skipped = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if not self.pretending or not timeout:
            return super().select(timeout)
        found = super().select(0)
        if not found:
            self.skipped += timeout
        return found


class PretendLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._world = _Selector()
        super().__init__(self._world)

    def time(self) -> float:
        return super().time() + self._world.skipped

    @contextlib.contextmanager
    def pretending(self) -> Iterator[None]:
        self._world.pretending = True
        try:
            yield
        finally:
            self._world.pretending = False


def pretend(work: Coroutine[Any, Any, T]) -> T:
    """Run it to its end on such a loop, which does not pretend yet."""
    with asyncio.Runner(loop_factory=PretendLoop) as runner:
        return runner.run(work)


def loop() -> PretendLoop:
    """The one at hand."""
    found = asyncio.get_running_loop()
    assert isinstance(found, PretendLoop)
    return found
