"""A row in every table, by what anybody may call: VERBS has a line for each table, and says which verb fills it.

The invariant: nothing here names SQL, a driver, or a table's columns; what a table takes, a public verb of the Store
puts there. Tables that a store fills by being opened stand in OPENED.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec.structs import replace

from delegator.model import (
    CallbackWay,
    Claim,
    Customer,
    Delegate,
    HostedCallback,
    IdentityKind,
    NotificationKind,
    Order,
    Policy,
    Registration,
    Rule,
    Secret,
    Telling,
)
from delegator.model.audited import Act
from delegator.model.billed import Month, Plan
from delegator.model.enrolled import Contest, Enrolled
from delegator.store import Ask, Store
from delegator.store.importing import How
from delegator.store.spool import Said, Spool
from delegator.store.transaction import Query

from ..clock import today

SHARED = "secret:mine"
OPENED = frozenset({"schema_files", "audit_keys"})
"""Filled by opening a store for the first time."""
EARLIER = frozenset({"outbox", "outbox_queues"})
"""Written by programs of the release before, and by nobody else."""
JANUARY = Month(2026, 1)
TABLES = {"sqlite": "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
          "postgres": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"}


@dataclass
class Filling:
    """What verbs need: a store, an ask to make and the time of it, as the fixtures of this folder make them."""

    store: Store
    ask: Callable[..., Ask]
    at: Callable[[float], datetime]

    async def issued(self, tag: str, telling: Telling | None = None, **more: Any) -> Claim:
        asked = replace(self.ask(tag, customer="filled", delegate="filled-1", **more), callback=CallbackWay.HOSTED)
        return (await self.store.open_and_issue(asked, lambda claim: "user / password", telling)).claim

    async def enrolled(self) -> None:
        claim = await self.issued("FILL002", by=SHARED, kind=IdentityKind.SHARED)
        await self.store.enrolments.enrol(Enrolled(
            "0a1b", "FILL002", "aa" * 32, claim.claim_id, SHARED, "-----BEGIN CERTIFICATE-----", self.at(1),
            self.at(60 * 24 * 365)))

    async def contested(self) -> None:
        (claim,) = await self.store.claims(service_tag="FILL002")
        await self.store.contests.note([(Contest("FILL002", IdentityKind.SHARED, claim.claim_id, "filled", "filled-1",
                                                 "192.0.2.9", self.at(2)), None)])

    async def cut_off(self) -> None:
        """An import that is ended when it has written what becomes of a device, and before it is shown."""
        def stage(name: str, pieces: int) -> Callable[[int], object]:
            return lambda more: name == "written" and work.cancel()
        with Spool() as spool:
            spool.fill([Said(2, "filled", "FILL001", "S-FILL001", None, "R2", None, None)])
            work = asyncio.create_task(self.store.fleet.import_all(spool, How(replace=True), stage, lambda: self.at(3)))
            await asyncio.wait([work])
        assert work.cancelled()

    async def pruned(self) -> None:
        """All but the newest row of the audit, as a day later."""
        later = datetime.now(UTC) + timedelta(days=1)
        await self.store.audit.prune(await self.store.audit.prunable(later), later, later)

    async def closed(self) -> None:
        period = await self.store.statements.period(JANUARY, "UTC")
        await self.store.statements.close(period, await self.store.usage.counts(period, period.ends),
                                          datetime(2026, 6, 1, tzinfo=UTC))


def _public_key() -> str:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


PLAN = Plan("filled", "EUR", Decimal("0.25"), JANUARY, 2, {CallbackWay.SSH: Decimal("0.40")}, Decimal("9.90"))
BY_MAIL = Telling((NotificationKind.MAIL,), "filled-1", "delegator.example")
Verb = Callable[[Filling], Awaitable[object]]
VERBS: dict[str, Verb] = {
    "policies": lambda f: f.store.add_policy(Policy("filled", approved_only=True, claims_per_hour=9), today()),
    "approvals": lambda f: f.store.approve("filled", ["FILL001", "FILL002", "ABC1234"], today()),
    "customers": lambda f: f.store.add_customer(Customer("filled", "Filled", policy="filled"), today()),
    "revision": lambda f: f.store.add_customer(Customer("filled-too", "Filled too"), today()),
    "customer_keys": lambda f: f.store.ownership.set_key("filled-too", _public_key(), f.at(0)),
    "delegates": lambda f: f.store.add_delegate(Delegate("filled-1", "filled", HostedCallback(
        "root", Secret("{random}")), policy="filled"), today()),
    "delegate_health": lambda f: f.store.note_health("filled-1", "open", "no answer", f.at(0)),
    "rules": lambda f: f.store.add_rule(Rule("filled", "filled-1", model="R1"), today()),
    "orders": lambda f: f.store.orders.add(Order("O-1", "filled", "filled-1"), f.at(0)),
    "device_numbers": lambda f: f.store.add_devices([Registration("filled", "FILL000")], today()),
    "devices": lambda f: f.store.add_devices([Registration("filled", "FILL001", "S-FILL001", ("00:1A:2B:3C:4D:5E",))],
                                             today()),
    "device_names": lambda f: f.store.add_devices([Registration("filled", "FILL003", "S-FILL003")], today()),
    "transfers": lambda f: f.store.ownership.offer([("FILL003", "0123456789abcdef")], "filled-too", f.at(60), f.at(0)),
    "plans": lambda f: f.store.plans.add(PLAN, f.at(0)),
    "customer_plans": lambda f: f.store.plans.assign("filled", "filled", JANUARY, f.at(0)),
    "claims": lambda f: f.issued("FILL000"),
    "places": lambda f: f.issued("FILL001"),
    "paces": lambda f: f.issued("FILL004", policy=Policy("filled", claims_per_hour=9)),
    "messages": lambda f: f.issued("FILL005", BY_MAIL),
    "message_queues": lambda f: f.issued("FILL006", replace(BY_MAIL, kinds=(NotificationKind.WEBHOOK,))),
    "enrolled": Filling.enrolled,
    "contested": Filling.contested,
    "boards": lambda f: f.store.ownership.repair("FILL001", "1b" * 32, f.at(5), None, "ticket 1"),
    "statements": Filling.closed,
    "audit": lambda f: f.store.audit.note(Act.DATABASE_BACKED_UP, {"file": "copy.db"}, today()),
    "audit_marks": lambda f: f.store.audit.mark(f.at(9)),
    "audit_checkpoints": Filling.pruned,
    "pulse": lambda f: f.store.check(),
    "imports": Filling.cut_off,
}
FILLED_BESIDE = {"statement_lines": "statements", "device_changes": "imports"}
"""Tables that are filled together with another one, and in no other way."""


async def fill(filling: Filling, without: Collection[str] = ()) -> None:
    for table, verb in VERBS.items():
        if table not in without:
            await verb(filling)


async def contents(store: Store) -> dict[str, list[str]]:
    """Every table that the database has, with its rows as text."""
    driver = store._driver.driver
    found = {}
    for (table,) in await driver.read(Query(TABLES[driver.dialect])):
        found[str(table)] = sorted(repr(tuple(row)) for row in await driver.read(Query(f'SELECT * FROM "{table}"')))
    return found
