"""Waiting in line by name, inside one process and without a connection.

One customer's crowd, whose claims must be counted one after the other, would else take all connections to the database
while it waits there, and every other customer would wait with it.
The invariant: of those that share a name one is inside; a name that nobody wants any more is forgotten.
Must not live here: what names mean, locks between processes (store.postgres).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager


class Turns:
    """Names with somebody inside or in line."""

    def __init__(self) -> None:
        self._lines: dict[str, asyncio.Lock] = {}
        self._wanted: dict[str, int] = {}

    @asynccontextmanager
    async def of(self, names: Sequence[str], patience: float) -> AsyncIterator[None]:
        """Inside, nobody else has any of `names`, which are in order so that no two wait for each other. Raises
        TimeoutError after `patience` seconds in line."""
        for name in names:
            self._wanted[name] = self._wanted.get(name, 0) + 1
        try:
            async with AsyncExitStack() as inside:
                async with asyncio.timeout(patience):
                    for name in names:
                        await inside.enter_async_context(self._lines.setdefault(name, asyncio.Lock()))
                yield
        finally:
            for name in names:
                self._wanted[name] -= 1
                if not self._wanted[name]:
                    del self._wanted[name]
                    self._lines.pop(name, None)
