"""Looks at every server of a database, so that a second one that takes writes is seen while the first still answers.

Whoever has connections that work makes no new ones, and would go on writing to a primary that another was promoted
beside. So every server that the URL names is asked each second, on a connection of its own.
The invariant: what is seen counts before the next commit (store.engines.postgres.fencing).
Must not live here: how a server is asked (connecting), which one is right (fencing).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from delegator.clockwork.rounds import guarded, kept
from delegator.model.places import authority
from delegator.store.engines.postgres.fencing import Fence, Seen, Writer

log = logging.getLogger(__name__)
LOOK = 1.0
"""Seconds between looks."""
PATIENCE = 0.8
"""Seconds for the answer of one server: one that is silent keeps no look from its end."""
Host = tuple[str, int] | None


class Verdict(msgspec.Struct, frozen=True):
    """What a look came to: a writer that is newer than the one we have, hosts that take writes and must not, and why
    nobody may be written to."""

    newer: Writer | None = None
    older: tuple[str, ...] = ()
    split: str = ""


def verdict(writers: Mapping[str, Writer], seen: Seen | None) -> Verdict:
    """`writers` by their hosts."""
    ours = {host: one for host, one in writers.items() if seen is None or one.system == seen.system}
    if not ours:
        return Verdict(older=tuple(writers))
    newest = max([one.timeline for one in ours.values()] + ([] if seen is None else [seen.timeline]))
    first = {host: one for host, one in ours.items() if one.timeline == newest}
    older = tuple(host for host in writers if host not in first)
    if len({one.began for one in first.values()}) > 1:
        return Verdict(older=older, split=f"{' and '.join(sorted(first))} both take writes, on timeline {newest}")
    newer = next(iter(first.values()), None)
    return Verdict(None if newer is None or (seen is not None and newest <= seen.timeline) else newer, older)


class Scout:
    """Looks in a task of its own until `close`. `connect` reaches one host, `ask` tells of a connection whether its
    server takes writes; `took_over` is called when another server is to be used."""

    def __init__(self, hosts: Sequence[Host], connect: Callable[[Host], Awaitable[Any]],
                 ask: Callable[[Any], Awaitable[Writer | None]], fence: Fence, took_over: Callable[[], None]) -> None:
        self._hosts, self._connect, self._ask = hosts, connect, ask
        self._fence, self._took_over = fence, took_over
        self._connections: dict[Host, Any] = {}
        self._told: Verdict = Verdict()
        self._task = asyncio.get_running_loop().create_task(kept(self._rounds, "looking at the database's servers"))

    async def _rounds(self) -> None:
        while True:
            await guarded(self.look, "looking at the database's servers")
            await asyncio.sleep(LOOK)

    async def look(self) -> None:
        if len(self._hosts) > 1:
            found = await asyncio.gather(*(self._found(host) for host in self._hosts))
            self._judge({authority(*host) if host else "": one
                         for host, one in zip(self._hosts, found, strict=True) if one is not None})
        era = self._fence.era
        await self._fence.share()
        if self._fence.era != era:
            log.warning("database: others on this machine know of a server that took over; the one before is used no "
                        "more")
            self._took_over()

    async def _found(self, host: Host) -> Writer | None:
        """What takes writes there, None where nothing does or nobody answers."""
        try:
            async with asyncio.timeout(PATIENCE):
                if host not in self._connections:
                    self._connections[host] = await self._connect(host)
                return await self._ask(self._connections[host])
        except Exception as error:
            log.debug("looking at %s: %s", host, type(error).__name__)
            connection = self._connections.pop(host, None)
            if connection is not None:
                connection.terminate()
            return None

    def _judge(self, writers: Mapping[str, Writer]) -> None:
        said, before = verdict(writers, self._fence.seen), self._told
        self._told = said
        if said.older != before.older and said.older:
            log.error("database: %s takes writes and is not the one to write to; it is not used here; next: stop it, "
                      "see Fencing in docs/scale.md", ", ".join(said.older))
        if said.split != before.split:
            log.log(logging.ERROR if said.split else logging.WARNING, "database: %s",
                    f"{said.split}; no credential is given; next: stop one of them, see Fencing in docs/scale.md"
                    if said.split else "one server takes writes again")
        self._fence.split = said.split
        if said.newer is not None and self._fence.note(said.newer):
            log.warning("database: another server took over, on timeline %d; it is used from now on",
                        said.newer.timeline)
            self._took_over()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for one in self._connections.values():
            one.terminate()
