"""What stands in the small tables is changed a field at a time: read, changed and written in one transaction.

So two operators at once never undo each other: the second changes what the first has left. `how` makes the new value
of the one that stands there; it may be asked more than once, and raises where the change makes no sense.
The invariants: a change and its row of audit are one transaction; a change that changes nothing leaves no row.
Must not live here: the tables themselves (store.registry), their audit (store.administration), devices (store.fleet).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from delegator.errors import Missing
from delegator.model import Customer, Delegate, Policy, Rule
from delegator.model.audited import Act, By
from delegator.sealing import SealingKey
from delegator.store import administration, registry, rows
from delegator.store.driver import Running
from delegator.store.transaction import Query, Row, Transaction, Work

T = TypeVar("T", Customer, Delegate, Policy, Rule)
How = Callable[[T], T]


class Noun(msgspec.Struct, Generic[T], frozen=True):
    """One small table: all its rows, a row as a value, a value written."""

    name: str
    table: str
    all: Query
    value: Callable[[Row, SealingKey], T]
    write: Callable[[T, SealingKey], Transaction[None]]

    def one(self, name: str) -> Query:
        return Query(self.all.sql.replace(" ORDER BY name", " WHERE name = $1"), (name,))


CUSTOMER: Noun[Customer] = Noun("customer", "customers", registry.ALL_CUSTOMERS, lambda row, _: rows.customer_of(row),
                                lambda one, _: registry.add_customer(one, True))
DELEGATE: Noun[Delegate] = Noun("delegate", "delegates", registry.ALL_DELEGATES, rows.delegate_of,
                                lambda one, key: registry.add_delegate(one, key, True))
POLICY: Noun[Policy] = Noun("policy", "policies", registry.ALL_POLICIES, lambda row, _: rows.policy_of(row),
                            lambda one, _: registry.add_policy(one, True))
RULE: Noun[Rule] = Noun("rule", "rules", registry.ALL_RULES, lambda row, _: rows.rule_of(row),
                        lambda one, _: registry.add_rule(one, True))
NOUNS: tuple[Noun[Any], ...] = (CUSTOMER, DELEGATE, POLICY, RULE)


def _standing(noun: Noun[T], name: str, key: SealingKey) -> Transaction[T]:
    found = yield noun.one(name)
    if not found:
        raise Missing(noun.name, name, f"there is no {noun.name} named {name}",
                      hint=f"see: delegator {noun.table} list")
    return noun.value(found[0], key)


def change(noun: Noun[T], name: str, how: How[T], key: SealingKey, by: By, now: datetime,
           besides: Work[object] | None = None) -> Transaction[tuple[T, T]]:
    """The value as it stood and as it is now. `besides` is what is kept elsewhere of the same, changed with it."""
    before = yield from _standing(noun, name, key)
    after = how(before)
    if after != before:
        yield from administration.saved(noun.name, name, noun.write(after, key), key, by, now)
    if besides is not None:
        yield from besides()
    return before, after


def remove(noun: Noun[T], name: str, key: SealingKey, by: By, now: datetime,
           seen: Callable[[T], None] = lambda before: None) -> Transaction[T]:
    """The value as it stood, which `seen` is told before it goes: where that raises, it stays."""
    before = yield from _standing(noun, name, key)
    seen(before)
    yield from administration.removed(noun.name, name, registry.remove(noun.name, name), by, now)
    return before


def relist(policy: str, wanted: Collection[str], by: By, now: datetime) -> Transaction[tuple[int, int]]:
    """A policy's approved list becomes this one: how many tags came to it, and how many went."""
    standing = {str(row[0]) for row in (yield Query("SELECT service_tag FROM approvals WHERE policy = $1", (policy,)))}
    added, removed = sorted({*wanted} - standing), sorted(standing - {*wanted})
    yield from administration.listed(Act.APPROVALS_ADDED, policy, added, registry.approve(policy, added), by, now)
    yield from administration.listed(Act.APPROVALS_REMOVED, policy, removed, registry.disapprove(policy, removed), by,
                                     now)
    return len(added), len(removed)


class Changing:
    """The verbs of a Store that change and remove what it has of a noun. `key` is the one that seals now."""

    def __init__(self, driver: Running, by: By, key: Callable[[], SealingKey]) -> None:
        self._driver, self._by, self._key = driver, by, key

    async def change(self, noun: Noun[T], name: str, how: How[T], now: datetime,
                     besides: Work[object] | None = None) -> tuple[T, T]:
        """Before and after. Raises DelegatorError: NOT_FOUND, and whatever `how` raises."""
        return await self._driver.run(lambda: change(noun, name, how, self._key(), self._by, now, besides))

    async def remove(self, noun: Noun[T], name: str, now: datetime,
                     seen: Callable[[T], None] = lambda before: None) -> T:
        """What was removed. Raises DelegatorError: NOT_FOUND, CONFLICT while it is referred to."""
        return await self._driver.run(lambda: remove(noun, name, self._key(), self._by, now, seen))
