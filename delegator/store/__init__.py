"""One Store for everything that must last: plain verbs in, model values out, any driver behind it.

Time comes in as aware UTC and is kept as milliseconds; no verb looks at a clock, each is told the time. The small
tables are read once and kept until `revision` says that somebody, in whatever process, has changed them.
The invariants: a verb that changes something returns when the change is durable, or raises and nothing changed; its row
of audit says who acts in this store, which `acting` gives to somebody else.
Must not live here: SQL (claims, devices, registry), decisions, callbacks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from delegator import config
from delegator.deadline import Within
from delegator.errors import DelegatorError, Kind
from delegator.model import (
    CallbackKind,
    Claim,
    ClaimState,
    Customer,
    Delegate,
    Device,
    Policy,
    Registration,
    Result,
    Rule,
    Telling,
)
from delegator.model.audited import Act, By
from delegator.model.billed import Period, Statement
from delegator.sealing import SealingKey
from delegator.store import (
    administration,
    claims,
    confirming,
    devices,
    holders,
    notices,
    outbox,
    registry,
    rows,
    stand_ins,
)
from delegator.store.audit import kept
from delegator.store.auditing import Auditing
from delegator.store.changing import Changing
from delegator.store.claims import Ask, Opened, Outcome, Tell, claim_of
from delegator.store.common import Common
from delegator.store.contested import Contests
from delegator.store.copies import Tables
from delegator.store.enrolled import Enrolments
from delegator.store.fleet import Fleet, only, snapshot_of
from delegator.store.footing import Footing, footing_of, look
from delegator.store.migrate import bring_up_to_date
from delegator.store.moments import milliseconds, moment
from delegator.store.opening import opened
from delegator.store.orders import Orders
from delegator.store.outbox import Outbox
from delegator.store.ownership import Ownership
from delegator.store.paces import Pacing
from delegator.store.plans import Plans
from delegator.store.reconciling import Reconciliation
from delegator.store.resealing import Resealing
from delegator.store.running import OLD, Driver
from delegator.store.sqlite import open_sqlite
from delegator.store.stand_ins import OverLimit, StandIn
from delegator.store.statements import Statements
from delegator.store.surveys import Surveys
from delegator.store.transaction import Commits, Query, Row, Transaction, Work, rows_alone
from delegator.store.usage import Usage

__all__ = ["Ask", "Candidates", "Driver", "Opened", "Outcome", "OverLimit", "Pacing", "StandIn", "Store", "Tables",
           "milliseconds", "open_named", "open_store"]


class Candidates(msgspec.Struct, frozen=True):
    """What the store knows of a device that asks: registrations to choose from, policies that approve its tag."""

    registrations: tuple[Registration, ...]
    approved: frozenset[str]


class Store:
    """See the module. Make it with `open_store`, and one for each actor with `acting`."""

    def __init__(self, common: Common, by: By) -> None:
        driver = common.driver
        self._common, self._driver, self._copies = common, driver, common.copies
        self.by = by
        """Whose acts these are, for the audit."""
        self.customers, self.policies = common.customers, common.policies
        self.rules, self.delegates = common.rules, common.delegates
        self.outbox = Outbox(driver, by)
        self.ownership = Ownership(driver, by)
        self.fleet = Fleet(driver, by, snapshot_of(driver.driver))
        self.orders = Orders(driver, by)
        self.changing = Changing(driver, by, lambda: common.key)
        self.surveys = Surveys(driver)
        self.enrolments = Enrolments(driver)
        self.contests = Contests(driver)
        self.audit = Auditing(driver, by)
        self.usage, self.plans, self.statements = Usage(driver), Plans(driver, by), Statements(driver, by)

    def acting(self, by: By) -> Store:
        """The same open store, in which somebody else acts from now on: the audit says who. Everything else is shared,
        the driver, the copy of the small tables and the keys, so each of hundreds may have one at the cost of a few
        objects; to close any of them closes the store for all."""
        return Store(self._common, by)

    @property
    def _key(self) -> SealingKey:
        """The keys that seal now, whoever told us of them."""
        return self._common.key

    @property
    def resealing(self) -> Resealing:
        """Which keys seal what, and sealing it again."""
        return Resealing(self._driver, self._key)

    def reconciliation(self, period: Period, statement: Statement | None) -> Reconciliation:
        """A comparison of usage with the audit, to be run."""
        return Reconciliation(self._driver.read, self.usage, period, statement)

    async def close(self) -> None:
        await self._driver.close()

    def listen(self, changed: Callable[[], None]) -> None:
        """Call this when another process changed something that servers keep a copy of, where the engine tells."""
        self._driver.listen(changed)

    @property
    def shared(self) -> bool:
        """Whether other servers may be at work on the same database."""
        return self._driver.driver.shared

    def request(self) -> Within:
        """In it, everything that is asked here has one deadline together: for what a device asks."""
        return self._driver.driver.request()

    @property
    def stalled(self) -> bool:
        """Whether the line of transactions does not move: whoever joined it now would wait for longer than a device
        should."""
        return self._driver.driver.is_full or self._driver.driver.age > OLD

    def crowded(self) -> DelegatorError:
        """What a device is told instead."""
        return self._driver.driver.crowded()

    @property
    def reads_beside(self) -> bool:
        """Whether reading goes on where that line does not move."""
        return self._driver.driver.reads_beside

    @property
    def commits(self) -> Commits:
        """What the driver has committed so far."""
        return self._driver.driver.commits

    def use(self, key: SealingKey) -> None:
        """Seal and open with another set of keys from now on, for everybody who acts in this store."""
        self._common.key = key

    # --- for handshakes ---

    def tables(self) -> Coroutine[Any, Any, Tables]:
        """The small tables, as fresh as this moment. Not a coroutine of its own: each handshake asks."""
        return self._copies.newest()

    async def find(self, device: Device, *, lists: bool = True) -> Candidates:
        """The registrations that concern a device, and with `lists` its approvals: no need where no policy has one."""
        return await self._candidates(device, await self._driver.read(devices.tagged(device.service_tag)), lists)

    async def about(self, device: Device) -> tuple[Tables, Candidates]:
        """The small tables, and what of everything else concerns a device. Where nothing changed since the copy was
        made, its own row says so: one read for both."""
        found = await self._driver.read(devices.tagged(device.service_tag))
        tables = self._copies.of(int(str(found[0][-1]))) if found else None
        if tables is None:
            tables = await self.tables()
            if found:  # it may be older than they are, and name what they no longer hold
                found = await self._driver.read(devices.tagged(device.service_tag))
        return tables, await self._candidates(device, found, tables.lists)

    async def _candidates(self, device: Device, found: list[Row], lists: bool) -> Candidates:
        if not found or found[0][2] != device.service_tag:
            others = devices.untagged(device)
            found = found if others is None else await self._driver.read(others)
        approved = await self._driver.read(devices.approving(device.service_tag)) if lists else ()
        return Candidates(tuple([rows.registration_of(row) for row in found]),
                          frozenset([str(row[0]) for row in approved]))

    async def footing(self, ask: Ask) -> Footing:
        """What stands between a shared certificate and this ask: always the same reads, whatever they find."""
        return await look(self._driver.read, footing_of(ask))

    async def open_claim(self, ask: Ask) -> Opened:
        return await opened(self._driver, ask, lambda: claims.open_claim(ask))

    async def open_and_issue(self, ask: Ask, secret: Callable[[str], str], telling: Telling | None = None) -> Opened:
        """Open a claim, issue it and note who is to be told, in one commit; `secret` makes the text to seal from the
        claim's id."""
        def seal(claim_id: str) -> bytes:
            return self._key.seal(secret(claim_id), f"claims/{claim_id}")
        return await opened(self._driver, ask, lambda: outbox.open_issue_and_tell(ask, seal, telling))

    async def issue(self, claim_id: str, secret: str, now: datetime, delegate: str | None = None,
                    telling: Telling | None = None, stand_in: StandIn | None = None,
                    trail: Tell | None = None, callback: CallbackKind | None = None) -> Claim | None:
        """Seal what `delegate` answered (None: the one the claim was opened for), reached by `callback`, and make it
        durable, with who is to be told of it. Raises OverLimit when `stand_in`, its own limits, says no: then nothing
        changed."""
        sealed = self._key.seal(secret, f"claims/{claim_id}")
        return await self._driver.run(lambda: outbox.issue_and_tell(
            claim_id, sealed, milliseconds(now), delegate, telling, stand_in, trail, callback),
            rows_alone if stand_in is None else stand_in.scope, repeatable=True)

    async def must_fit(self, claim_id: str, stand_in: StandIn, now: datetime) -> None:
        """Whether a delegate may take an asking claim over, before it is asked. Raises OverLimit."""
        await self._driver.run(lambda: stand_ins.must_fit(claim_id, stand_in, milliseconds(now)), rows_alone)

    def reveal(self, claim: Claim) -> str:
        """The text that was sealed for a claim in state `issued`."""
        if claim.sealed is None:
            raise DelegatorError(Kind.UNAVAILABLE, f"claim {claim.claim_id} holds no credential any more")
        return self._key.open(claim.sealed, f"claims/{claim.claim_id}")

    async def pause(self, claim_id: str) -> None:
        await self._driver.run(lambda: claims.pause(claim_id), rows_alone, repeatable=True)

    async def pause_all(self) -> None:
        """At the start of the only server of a database: nobody is being answered. See `shared`."""
        await self._driver.run(claims.pause_all)

    async def confirm(self, claim_id: str, binding: str | None, result: Result, detail: str | None,
                      now: datetime, peer: str | None = None, trail: Tell | None = None) -> Claim | None:
        """`peer` and `trail` are for the audit."""
        return await self._driver.run(lambda: confirming.confirm(
            claim_id, binding, result, detail, milliseconds(now), peer, trail), rows_alone, repeatable=True)

    async def expire_lapsed(self, now: datetime, since: int = 0) -> int:
        return await self._driver.run(lambda: claims.expire_lapsed(milliseconds(now), since=since), rows_alone)

    async def unheard(self) -> list[str]:
        """Delegates that have something to hear of how provisioning ended."""
        return await look(self._driver.read, notices.unheard())

    async def unnotified(self, delegate: str, after: Claim | None = None, most: int = 20) -> list[Claim]:
        """What it has to hear, oldest first, at most so much, and only what is behind `after`."""
        return [claim_of(row) for row in await self._driver.read(notices.unnotified(delegate, after, most))]

    async def notified(self, claims: Sequence[Claim]) -> int:
        """It was told the results of these claims; of how many nobody else had noted that before."""
        return await self._driver.run(lambda: notices.notified(claims), rows_alone, repeatable=True)

    async def note_health(self, delegate: str, state: str, why: str, now: datetime) -> None:
        """Keep what became of a delegate's circuit breaker, for whoever asks from another process."""
        await self._driver.run(lambda: registry.note_health(delegate, state, why, milliseconds(now)), rows_alone)

    async def check(self) -> None:
        """Make a durable change that means nothing. Raises DelegatorError (UNAVAILABLE)."""
        await self._driver.run(registry.check, rows_alone)  # in no group: it says how the database is, and may wait

    # --- for operators ---

    async def health(self, delegate: str) -> registry.Health | None:
        """What servers last saw of a delegate's circuit breaker; None when it never failed."""
        found = await self._driver.read(
            Query("SELECT state, why, changed_at FROM delegate_health WHERE delegate = $1", (delegate,)))
        return registry.Health(str(found[0][0]), str(found[0][1]), moment(found[0][2])) if found else None

    async def claims(self, *, customer: str | None = None, service_tag: str | None = None,
                     state: ClaimState | None = None, delegate: str | None = None, most: int = 1000) -> list[Claim]:
        """Claims, newest first."""
        wanted = {"customer = {0}": customer, claims.OF_TAG: service_tag, "delegate = {0}": delegate,
                  "state = {0}": None if state is None else state.value}
        said = [(condition, value) for condition, value in wanted.items() if value is not None]
        where = " AND ".join(condition.format(f"${number}") for number, (condition, _) in enumerate(said, 2)) or "1 = 1"
        query = f"SELECT {claims.COLUMNS} FROM claims WHERE {where} ORDER BY claim_id DESC LIMIT $1"
        return [claim_of(row) for row in
                await self._driver.read(Query(query, (most, *(value for _, value in said))))]

    async def standing(self, service_tag: str) -> Claim | None:
        """The claim that holds a tag and its place."""
        found = await self._driver.read(claims.live_of(service_tag))
        return claim_of(found[0]) if found else None

    async def claim(self, claim_id: str) -> Claim | None:
        found = await self._driver.read(Query(f"SELECT {claims.COLUMNS} FROM claims WHERE claim_id = $1", (claim_id,)))
        return claim_of(found[0]) if found else None

    async def taken(self, customer: str, delegate: str) -> dict[str, int]:
        """Places taken now, for `explain`; what counts is judged inside the claim's own transaction."""
        found = await self._driver.read(holders.taken_by_each((f"customer/{customer}", f"delegate/{delegate}")))
        return {str(row[0]): int(str(row[1])) for row in found}

    def devices(self, customer: str | None = None, page: int = 1000) -> AsyncIterator[Registration]:
        """Every registered device, a page at a time, so that ten million need no more memory than a thousand."""
        return self.fleet.view.devices(customer, page)

    async def approved(self, policy: str) -> list[str]:
        found = await self._driver.read(
            Query("SELECT service_tag FROM approvals WHERE policy = $1 ORDER BY service_tag", (policy,)))
        return [str(row[0]) for row in found]

    async def add_customer(self, customer: Customer, now: datetime, *, replace: bool = False,
                           besides: Work[object] | None = None) -> None:
        """`besides` is what is kept elsewhere of the same, added in the same transaction."""
        await self._save("customer", customer.name, lambda: registry.add_customer(customer, replace), now, besides)

    async def add_delegate(self, delegate: Delegate, now: datetime, *, replace: bool = False) -> None:
        await self._save("delegate", delegate.name, lambda: registry.add_delegate(delegate, self._key, replace), now)

    async def add_policy(self, policy: Policy, now: datetime, *, replace: bool = False,
                         besides: Work[object] | None = None) -> None:
        """`besides` as with customers."""
        await self._save("policy", policy.name, lambda: registry.add_policy(policy, replace), now, besides)

    async def add_rule(self, rule: Rule, now: datetime, *, replace: bool = False) -> None:
        await self._save("rule", rule.name, lambda: registry.add_rule(rule, replace), now)

    async def _save(self, noun: str, name: str, work: Work[None], now: datetime,
                    besides: Work[object] | None = None) -> None:
        """Add or change one of the small tables' rows, with its row of audit."""
        def saved() -> Transaction[None]:
            yield from administration.saved(noun, name, work(), self._key, self.by, now)
            if besides is not None:
                yield from besides()
        await self._driver.run(saved)

    async def add_devices(self, registrations: Iterable[Registration], now: datetime, *, replace: bool = False) -> int:
        """Register devices in one transaction, all or none; the number of new or changed ones."""
        return await self.fleet.add(registrations, now, replace=replace)

    async def approve(self, policy: str, tags: Iterable[str], now: datetime) -> int:
        named = list(tags)
        return await self._driver.run(lambda: administration.listed(
            Act.APPROVALS_ADDED, policy, named, registry.approve(policy, named), self.by, now))

    async def disapprove(self, policy: str, tags: Iterable[str], now: datetime) -> int:
        named = list(tags)
        return await self._driver.run(lambda: administration.listed(
            Act.APPROVALS_REMOVED, policy, named, registry.disapprove(policy, named), self.by, now))

    async def remove(self, noun: str, name: str, now: datetime) -> None:
        """Remove a customer, delegate, rule or policy. Raises DelegatorError (CONFLICT) while it is referred to."""
        await self._driver.run(lambda: administration.removed(
            noun, name, registry.remove(noun, name), self.by, now))

    async def remove_device(self, service_tag: str, now: datetime) -> None:
        await self.fleet.remove(only(await self.fleet.called(service_tag), service_tag), now)


async def open_store(path: Path, key: SealingKey, *, actor: str = "delegator", peer: str | None = None,
                     within: float = 5.0) -> Store:
    """Open the embedded store, its schema brought up to date; `actor` and `peer` say for the audit whose acts it
    carries out, and from where; `within` is for all that a request asks. Raises DelegatorError (CONFIGURATION)."""
    return await _opened(await open_sqlite(path, within), key, By(actor, peer))


async def open_named(where: config.Store, key: SealingKey, *, actor: str = "delegator",
                     peer: str | None = None) -> Store:
    """Open the store that settings name, embedded or not, as `open_store` does. Raises DelegatorError: CONFIGURATION,
    UNREACHABLE when the database does not answer."""
    if not where.url:
        return await open_store(Path(where.path), key, actor=actor, peer=peer, within=where.timeout)
    from delegator.store.connecting import server_of  # needs asyncpg, which is optional
    from delegator.store.postgres import open_postgres

    server = server_of(where.url, where.password_file, where.timeout)
    opened = await open_postgres(server, where.connections, Path(f"{where.path}.seen"))
    return await _opened(opened, key, By(actor, peer))


async def _opened(driver: Driver, key: SealingKey, by: By) -> Store:
    try:
        await bring_up_to_date(driver)
        return Store(Common(await kept(driver, key), key), by)
    except BaseException:
        await driver.close()
        raise
