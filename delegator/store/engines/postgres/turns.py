"""Waiting in line by name, inside one process and without a connection.

One customer's crowd, whose claims must be counted one after the other, would else take all connections to the database
while it waits there, and every other customer would wait with it.
The invariants: of those that share a name one is inside; a name that nobody wants any more is forgotten; nobody joins a
line whose first has waited for longer than OLD, so that a crowd is sent away while it can still do something else.
Must not live here: what names mean, locks between processes (driver).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from delegator.errors import CROWDED, DelegatorError, Kind
from delegator.store.driver import OLD


class TooMany(Exception):
    """It did not come to be one's turn for that name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def sent_away(where: str, name: str, is_slow: bool) -> DelegatorError:
    """What a device is told that did not come to be its turn. That is the store's trouble only where the store is slow
    for everybody: else a crowd of one owner's would look as if nobody were served."""
    detail = f"{where}: too many wait for their turn of {name}"
    return DelegatorError(Kind.TRY_LATER, detail, reasons=(detail if is_slow else f"{CROWDED}{detail}",),
                          hint="its claims are counted one after the other: a limit is near, or one hangs")


class _Line:
    """Who is inside, and since when each of the others waits, the longest first."""

    __slots__ = ("lock", "waiting")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting: OrderedDict[object, float] = OrderedDict()

    @property
    def is_free(self) -> bool:
        return not self.waiting and not self.lock.locked()


class Turns:
    """Names with somebody inside or in line."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._now = asyncio.get_running_loop().time

    @asynccontextmanager
    async def of(self, names: Sequence[str], until: float) -> AsyncIterator[None]:
        """Inside, nobody else has any of `names`, which are in order so that no two wait for each other. Raises
        TooMany where that is not so by `until`, or would not be soon."""
        inside: list[str] = []
        try:
            for name in names:
                await self._enter(name, until)
                inside.append(name)
            yield
        finally:
            for name in inside:
                self._lines[name].lock.release()
                self._forget(name)

    async def _enter(self, name: str, until: float) -> None:
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _Line()
        if line.is_free:
            await line.lock.acquire()
            return
        if line.waiting and self._now() - next(iter(line.waiting.values())) > OLD:
            raise TooMany(name)
        me = object()
        line.waiting[me] = self._now()
        try:
            async with asyncio.timeout_at(until):
                await line.lock.acquire()
        except TimeoutError:
            raise TooMany(name) from None
        finally:
            del line.waiting[me]
            self._forget(name)

    def _forget(self, name: str) -> None:
        if self._lines[name].is_free:
            del self._lines[name]
