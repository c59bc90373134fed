"""One Store for everything that must last: plain verbs in, model values out, any driver behind it.

Time comes in as aware UTC and is kept as milliseconds. The small tables are read once and kept until `revision`
says that somebody, in whatever process, has changed them.
The invariant: a verb that changes something returns when the change is durable, or raises and nothing changed.
Must not live here: SQL (claims, devices, registry), decisions, callbacks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from delegator.errors import DelegatorError, Kind
from delegator.model import Claim, Customer, Delegate, Device, Policy, Registration, Result, Rule, Telling
from delegator.routing import Directory, directory
from delegator.sealing import SealingKey
from delegator.store import claims, devices, outbox, registry, rows
from delegator.store.claims import Ask, Opened, Outcome, claim_of, milliseconds
from delegator.store.devices import Imported, Undone
from delegator.store.migrate import migrate
from delegator.store.outbox import Outbox
from delegator.store.sqlite import open_sqlite
from delegator.store.transaction import Query, Row, Transaction

__all__ = ["Ask", "Candidates", "Opened", "Outcome", "Store", "Tables", "milliseconds", "open_store"]
T = TypeVar("T")


class Driver(Protocol):
    """What a database engine must offer; the contract suite in tests/store says it in full."""

    dialect: str

    async def run(self, work: Transaction[T]) -> T: ...
    async def read(self, query: Query) -> list[Row]: ...
    async def script(self, sql: str) -> None: ...
    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Tables:
    """The small tables as one consistent copy."""

    revision: int
    customers: dict[str, Customer]
    policies: dict[str, Policy]
    directory: Directory


@dataclass(frozen=True, slots=True)
class Health:
    """The state of a delegate's circuit breaker, the failure that led there ("" for none), and since when."""

    state: str
    why: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the store knows of a device that asks: registrations to choose from, policies that approve its tag."""

    registrations: tuple[Registration, ...]
    approved: frozenset[str]


class Store:
    """See the module. Make it with `open_store`."""

    def __init__(self, driver: Driver, key: SealingKey) -> None:
        self._driver = driver
        self._key = key
        self._tables: Tables | None = None
        self.outbox = Outbox(driver)

    async def close(self) -> None:
        await self._driver.close()

    # --- for handshakes ---

    async def tables(self) -> Tables:
        """The small tables, as fresh as this moment."""
        revision = await self._revision()
        while self._tables is None or self._tables.revision != revision:
            self._tables = await self._read_tables(revision)
            revision = await self._revision()  # changed while they were read: the copy may be of two minds
        return self._tables

    async def _revision(self) -> int:
        return int(str((await self._driver.read(registry.REVISION))[0][0]))

    async def _read_tables(self, revision: int) -> Tables:
        return Tables(
            revision,
            {one.name: one for one in await self.customers()},
            {one.name: one for one in await self.policies()},
            directory(await self.delegates(), await self.rules()))

    async def find(self, device: Device) -> Candidates:
        """The registrations and approvals that concern a device; lists are read only where a policy has one."""
        found = await self._driver.read(devices.candidates_for(device))
        listed = self._tables is None or any(one.approved_only for one in self._tables.policies.values())
        approved = await self._driver.read(devices.approving(device.service_tag)) if listed else []
        return Candidates(tuple(rows.registration_of(row) for row in found),
                          frozenset(str(row[0]) for row in approved))

    async def open_claim(self, ask: Ask) -> Opened:
        return await self._driver.run(claims.open_claim(ask))

    async def open_and_issue(self, ask: Ask, secret: Callable[[Claim], str], telling: Telling | None = None) -> Opened:
        """Open a claim, issue it and note who is to be told, in one commit; `secret` makes the text to seal from the
        claim."""
        def seal(claim: Claim) -> bytes:
            return self._key.seal(secret(claim), f"claims/{claim.claim_id}")
        return await self._driver.run(outbox.open_issue_and_tell(ask, seal, telling))

    async def issue(self, claim_id: str, secret: str, now: datetime, delegate: str | None = None,
                    telling: Telling | None = None) -> Claim | None:
        """Seal what `delegate` answered (None: the one the claim was opened for) and make it durable, with who is to
        be told of it."""
        sealed = self._key.seal(secret, f"claims/{claim_id}")
        return await self._driver.run(outbox.issue_and_tell(claim_id, sealed, milliseconds(now), delegate, telling))

    def reveal(self, claim: Claim) -> str:
        """The text that was sealed for a claim in state `issued`."""
        if claim.sealed is None:
            raise DelegatorError(Kind.UNAVAILABLE, f"claim {claim.claim_id} holds no credential any more")
        return self._key.open(claim.sealed, f"claims/{claim.claim_id}")

    async def pause(self, claim_id: str) -> None:
        await self._driver.run(claims.pause(claim_id))

    async def pause_all(self) -> None:
        await self._driver.run(claims.pause_all())

    async def confirm(self, claim_id: str, binding: str | None, result: Result, detail: str | None,
                      now: datetime) -> Claim | None:
        return await self._driver.run(claims.confirm(claim_id, binding, result, detail, milliseconds(now)))

    async def expire_lapsed(self, now: datetime) -> int:
        return await self._driver.run(claims.expire_lapsed(milliseconds(now)))

    async def unnotified(self) -> list[Claim]:
        return await self._driver.run(claims.unnotified())

    async def notified(self, claim_id: str, result: Result) -> None:
        await self._driver.run(claims.notified(claim_id, result))

    async def note_health(self, delegate: str, state: str, why: str, now: datetime) -> None:
        """Keep what became of a delegate's circuit breaker, for whoever asks from another process."""
        await self._driver.run(registry.note_health(delegate, state, why, milliseconds(now)))

    async def check(self) -> None:
        """Make a durable write that changes nothing. Raises DelegatorError (UNAVAILABLE)."""
        await self._driver.run(registry.check())

    # --- for operators ---

    async def health(self, delegate: str) -> Health | None:
        """What servers last saw of a delegate's circuit breaker; None when it never failed."""
        found = await self._driver.read(
            Query("SELECT state, why, changed_at FROM delegate_health WHERE delegate = $1", (delegate,)))
        return Health(str(found[0][0]), str(found[0][1]), claims.moment(found[0][2])) if found else None

    async def release(self, service_tag: str, now: datetime) -> int:
        return await self._driver.run(claims.release(service_tag, milliseconds(now)))

    async def claims(self, *, customer: str | None = None, service_tag: str | None = None,
                     most: int = 1000) -> list[Claim]:
        """Claims, newest first."""
        wanted = {"customer = {0}": customer, claims.OF_TAG: service_tag}
        said = [(condition, value) for condition, value in wanted.items() if value is not None]
        where = " AND ".join(condition.format(f"${number}") for number, (condition, _) in enumerate(said, 2)) or "1 = 1"
        query = f"SELECT {claims.COLUMNS} FROM claims WHERE {where} ORDER BY claim_id DESC LIMIT $1"
        return [claim_of(row) for row in
                await self._driver.read(Query(query, (most, *(value for _, value in said))))]

    async def claim(self, claim_id: str) -> Claim | None:
        found = await self._driver.read(
            Query(f"SELECT {claims.COLUMNS} FROM claims WHERE claim_id = $1", (claim_id,)))
        return claim_of(found[0]) if found else None

    async def taken(self, customer: str, delegate: str) -> dict[str, int]:
        """Places taken now, for `explain`; what counts is judged inside the claim's own transaction."""
        found = await self._driver.read(Query("SELECT holder, taken FROM places WHERE holder IN ($1, $2)",
                                              (f"customer/{customer}", f"delegate/{delegate}")))
        return {str(row[0]): int(str(row[1])) for row in found}

    async def customers(self) -> list[Customer]:
        return [rows.customer_of(row) for row in await self._driver.read(registry.ALL_CUSTOMERS)]

    async def policies(self) -> list[Policy]:
        return [rows.policy_of(row) for row in await self._driver.read(registry.ALL_POLICIES)]

    async def rules(self) -> list[Rule]:
        return [rows.rule_of(row) for row in await self._driver.read(registry.ALL_RULES)]

    async def delegates(self) -> list[Delegate]:
        return [rows.delegate_of(row, self._key) for row in await self._driver.read(registry.ALL_DELEGATES)]

    async def devices(self, customer: str | None = None, page: int = 1000) -> AsyncIterator[Registration]:
        """Every registered device, a page at a time, so that ten million need no more memory than a thousand."""
        after = 0
        while found := await self._driver.read(devices.page(customer, after, page)):
            for row in found:
                yield rows.registration_of(row)
            after = int(str(found[-1][0]))

    async def approved(self, policy: str) -> list[str]:
        found = await self._driver.read(
            Query("SELECT service_tag FROM approvals WHERE policy = $1 ORDER BY service_tag", (policy,)))
        return [str(row[0]) for row in found]

    async def add_customer(self, customer: Customer, *, replace: bool = False) -> None:
        await self._driver.run(registry.add_customer(customer, replace))

    async def add_delegate(self, delegate: Delegate, *, replace: bool = False) -> None:
        await self._driver.run(registry.add_delegate(delegate, self._key, replace))

    async def add_policy(self, policy: Policy, *, replace: bool = False) -> None:
        await self._driver.run(registry.add_policy(policy, replace))

    async def add_rule(self, rule: Rule, *, replace: bool = False) -> None:
        await self._driver.run(registry.add_rule(rule, replace))

    async def add_devices(self, registrations: Iterable[Registration], *, replace: bool = False) -> int:
        """Register devices in one transaction, all or none; the number of new ones."""
        def all_of() -> Transaction[int]:
            new = 0
            for one in registrations:
                new += yield from devices.add_device(one, replace)
            return new
        return await self._driver.run(all_of())

    async def import_devices(self, registrations: Iterable[Registration], *, replace: bool = False,
                             keep: Callable[[Imported], bool]) -> Imported:
        """Register devices in one transaction and tell of every one that was refused; `keep` says, from that,
        whether any of it shall stay."""
        try:
            return await self._driver.run(devices.import_devices(registrations, replace, keep))
        except Undone as undone:
            return undone.imported

    async def approve(self, policy: str, tags: Iterable[str]) -> int:
        return await self._driver.run(registry.approve(policy, tags))

    async def disapprove(self, policy: str, tags: Iterable[str]) -> int:
        return await self._driver.run(registry.disapprove(policy, tags))

    async def remove(self, noun: str, name: str) -> None:
        """Remove a customer, delegate, rule or policy. Raises DelegatorError (CONFLICT) while it is referred to."""
        await self._driver.run(registry.remove(noun, name))

    async def remove_device(self, service_tag: str) -> None:
        await self._driver.run(devices.remove_device(service_tag))


async def open_store(path: Path, key: SealingKey) -> Store:
    """Open the embedded store, its schema brought up to date. Raises DelegatorError (CONFIGURATION)."""
    driver = await open_sqlite(path)
    try:
        await migrate(driver)
    except BaseException:
        await driver.close()
        raise
    return Store(driver, key)
