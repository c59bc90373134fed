"""Crowds of devices on PostgreSQL that are set off while another transaction is under way, so that they go together.

Must not live here: what is to become of them (engines.postgres.test_groups, test_groups_undone).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools

from delegator import config
from delegator.store import open_named
from delegator.store.engines.postgres import grouping
from delegator.store.transaction import Query, rows_alone

MANY = 12


@contextlib.asynccontextmanager
async def opening_on(url: str, key):
    """Opens stores of one database."""
    async with contextlib.AsyncExitStack() as stores:
        async def opening(connections: int = 4, timeout: float = 5.0):
            store = await open_named(config.Store(url=url, connections=connections, timeout=timeout), key)
            stores.push_async_callback(store.close)
            return store
        yield opening


_ASKED = itertools.count()


async def begun(opening, ask, **how):
    """A store that has begun its chains, as one that serves for a while."""
    store = await opening(**how)
    tag = f"FIRST{next(_ASKED):03}"
    await store.open_and_issue(ask(tag, customer="umbra", delegate="umbra-1"), lambda claim: "x")
    return store


def driver_of(store):
    return store._driver.driver


async def together(store, works, *, within: bool = True):
    """What each comes to, set off while another is under way; and how many commits that took."""
    def busy():
        yield Query("SELECT pg_sleep(0.01)")
    await asyncio.sleep(2 * grouping.CROWD)  # what gathered before has gone
    first = asyncio.create_task(driver_of(store).run(busy, rows_alone, repeatable=True))
    await asyncio.sleep(0)
    before = driver_of(store).commits.done
    with store.request() if within else contextlib.nullcontext():
        outcomes = await asyncio.gather(*works, return_exceptions=True)
    await first
    return outcomes, driver_of(store).commits.done - before - 1


def asking(store, ask, many: int = MANY, **said):
    return [store.open_and_issue(ask(f"TAG{n:04}", **said), lambda claim: f"secret of {claim}") for n in range(many)]


async def findings(store):
    verification = store.audit.verification()
    async for _ in verification.run():
        pass
    return verification.findings
