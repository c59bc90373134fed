"""A process of its own that claims until it is killed, or until its files may not grow any more.

`python claiming.py DATABASE` prints each claim id once it is told that it is durable. With a number of bytes behind
it, files are limited to that; it then prints what it was told, lifts the limit and claims once more.
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import sys
from pathlib import Path

from delegator.errors import DelegatorError
from delegator.model import Identity, IdentityKind
from delegator.sealing import SealingKey
from delegator.store import Ask, Store, open_store


async def claim(store: Store, number: int) -> None:
    identity = Identity(IdentityKind.OWN, f"TAG{number:07}", "key:one")
    ask = Ask(f"{number:032x}", identity, "acme", "acme-1", "192.0.2.7", 0, 1, 10**12)
    opened = await store.open_and_issue(ask, lambda _: "secret of " + identity.service_tag)
    print(opened.claim.claim_id, flush=True)


async def until_killed(store: Store) -> None:
    for group in itertools.count():
        await asyncio.gather(*(claim(store, group * 8 + number) for number in range(8)))


async def until_full(store: Store, most: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        await until_killed(store)
    except DelegatorError as error:
        print("told", error.kind.value, flush=True)
    await asyncio.sleep(0.05)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await claim(store, 10**6)


async def main() -> None:
    store = await open_store(Path(sys.argv[1]), SealingKey(b"k" * 32))
    try:
        await (until_full(store, int(sys.argv[2])) if len(sys.argv) > 2 else until_killed(store))
    finally:
        await store.close()


if __name__ == "__main__":
    asyncio.run(main())
