"""A process of its own that races for places: `python racing.py FILE-OR-URL FIRST MANY NAME=LIMIT...`

It opens two Stores, says `ready`, waits for a line, then asks with MANY devices at once, half with each Store, under a
policy with those limits. It prints how each ended, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys

from delegator import config
from delegator.errors import DelegatorError, Kind
from delegator.model import Identity, IdentityKind, Policy
from delegator.policy import Applied
from delegator.sealing import SealingKey
from delegator.store import Ask, Store, open_named

NOW = 1_767_225_600_000


def ask(number: int, policy: Policy) -> Ask:
    return Ask(f"{NOW:012x}{secrets.token_hex(10)}", Identity(IdentityKind.OWN, f"RACE{number:04}", "key:one"), "acme",
               "acme-1", "192.0.2.7", NOW, NOW + 60_000, NOW + 3_600_000,
               (Applied(policy, "customer/acme"),))


async def opened(store: Store, asked: Ask) -> str:
    """How it ended; a database that others kept busy for too long is asked again, as a device does."""
    while True:
        try:
            return (await store.open_claim(asked)).outcome.name
        except DelegatorError as error:
            if error.kind is not Kind.UNAVAILABLE:
                raise


async def main() -> None:
    where, first, many, *limits = sys.argv[1:]
    database = config.Store(url=where) if "://" in where else config.Store(path=where)
    policy = Policy("race", **{name: int(limit) for name, limit in (one.split("=") for one in limits)})
    stores: list[Store] = [await open_named(database, SealingKey(b"k" * 32)) for _ in range(2)]
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    ended = await asyncio.gather(*(
        opened(stores[number % 2], ask(int(first) + number, policy)) for number in range(int(many))))
    print(json.dumps(ended))
    for store in stores:
        await store.close()


if __name__ == "__main__":
    asyncio.run(main())
