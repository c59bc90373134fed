"""What is common to all who act in one open store: the driver, the keys that seal now, one copy of the small tables.

The invariant: there is one of it for each open store, however many act in it, so that a key that was exchanged or a
table that was changed by one of them is so for all.
Must not live here: who acts (Store), SQL (registry), when a copy is fresh (copies).
"""

from __future__ import annotations

from delegator.model import Customer, Delegate, Policy, Rule
from delegator.routing import directory
from delegator.sealing import SealingKey
from delegator.store import registry, rows
from delegator.store.audit.ledger import Kept
from delegator.store.copies import Copies, Tables


class Common:
    """See the module. `key` is exchanged for another one while the store is open."""

    def __init__(self, driver: Kept, key: SealingKey) -> None:
        self.driver, self.key = driver, key
        self.copies = Copies(driver.driver, self._revision, self._read_tables)

    async def _revision(self) -> int:
        return int(str((await self.driver.read(registry.REVISION))[0][0]))

    async def _read_tables(self, revision: int) -> Tables:
        return Tables(
            revision,
            {one.name: one for one in await self.customers()},
            {one.name: one for one in await self.policies()},
            directory(await self.delegates(), await self.rules()))

    async def customers(self) -> list[Customer]:
        return [rows.customer_of(row) for row in await self.driver.read(registry.ALL_CUSTOMERS)]

    async def policies(self) -> list[Policy]:
        return [rows.policy_of(row) for row in await self.driver.read(registry.ALL_POLICIES)]

    async def rules(self) -> list[Rule]:
        return [rows.rule_of(row) for row in await self.driver.read(registry.ALL_RULES)]

    async def delegates(self) -> list[Delegate]:
        return [rows.delegate_of(row, self.key) for row in await self.driver.read(registry.ALL_DELEGATES)]
