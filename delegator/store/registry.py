"""The small tables: customers, delegates, policies with their approved lists, rules. Transactions, no driver.

The invariant: every change of a small table raises `revision`, so that a running server sees it at its next
handshake.
Must not live here: devices (store.devices), claims (store.claims).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from delegator.errors import DelegatorError, Kind, Missing
from delegator.model import Customer, Delegate, Policy, Rule
from delegator.sealing import SealingKey
from delegator.store import rows
from delegator.store.transaction import Query, Transaction

ALL_CUSTOMERS = Query("SELECT name, title, enabled, policy FROM customers ORDER BY name")
ALL_POLICIES = Query("SELECT name, body FROM policies ORDER BY name")
ALL_RULES = Query("SELECT name, delegate, priority, conditions, delegator FROM rules ORDER BY name")
ALL_DELEGATES = Query("SELECT name, customer, kind, settings, sealed, url, trust_anchor, policy, enabled, "
                      "priority, weight FROM delegates ORDER BY name")
REVISION = Query("SELECT number FROM revision")
_TABLES = {"customer": "customers", "delegate": "delegates", "rule": "rules", "policy": "policies"}


class Health(msgspec.Struct, frozen=True):
    """The state of a delegate's circuit breaker, the failure that led there ("" for none), and since when."""

    state: str
    why: str
    since: datetime


def _raise_revision() -> Transaction[None]:
    yield Query("UPDATE revision SET number = number + 1")


def must_exist(noun: str, name: str | None) -> Transaction[None]:
    if name is None:
        return
    found = yield Query(f"SELECT 1 FROM {_TABLES[noun]} WHERE name = $1", (name,))
    if not found:
        raise Missing(noun, name, f"there is no {noun} named {name}",
                      hint=f"see: delegator {_TABLES[noun]} list")


def _must_be_new(noun: str, name: str) -> Transaction[None]:
    found = yield Query(f"SELECT 1 FROM {_TABLES[noun]} WHERE name = $1", (name,))
    if found:
        raise DelegatorError(Kind.CONFLICT, f"there is a {noun} named {name} already",
                             hint=f"change it with: delegator {_TABLES[noun]} change {name}")


def add_customer(customer: Customer, replace: bool) -> Transaction[None]:
    if not replace:
        yield from _must_be_new("customer", customer.name)
    yield from must_exist("policy", customer.policy)
    yield Query("INSERT INTO customers (name, title, enabled, policy) VALUES ($1, $2, $3, $4) ON CONFLICT (name) "
                "DO UPDATE SET title = $2, enabled = $3, policy = $4",
                (customer.name, customer.title, int(customer.enabled), customer.policy))
    yield from _raise_revision()


def add_delegate(delegate: Delegate, key: SealingKey, replace: bool) -> Transaction[None]:
    """Add or, with `replace`, change a delegate. It never changes its customer: claims stand in between."""
    if not replace:
        yield from _must_be_new("delegate", delegate.name)
    yield from must_exist("customer", delegate.customer)
    yield from must_exist("policy", delegate.policy)
    settings, sealed = rows.callback_columns(delegate.name, delegate.callback, key)
    changed = yield Query(
        "INSERT INTO delegates (name, customer, kind, settings, sealed, url, trust_anchor, policy, enabled, priority, "
        "weight) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (name) DO UPDATE SET kind = $3, "
        "settings = $4, sealed = $5, url = $6, trust_anchor = $7, policy = $8, enabled = $9, priority = $10, "
        "weight = $11 WHERE delegates.customer = $2 RETURNING name",
        (delegate.name, delegate.customer, delegate.way.value, settings, sealed, delegate.url,
         delegate.trust_anchor, delegate.policy, int(delegate.enabled), delegate.priority, delegate.weight))
    if not changed:
        raise DelegatorError(Kind.CONFLICT, f"delegate {delegate.name} belongs to another customer")
    yield from _raise_revision()


def add_policy(policy: Policy, replace: bool) -> Transaction[None]:
    if not replace:
        yield from _must_be_new("policy", policy.name)
    yield Query("INSERT INTO policies (name, body) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET body = $2",
                (policy.name, rows.policy_body(policy)))
    yield from _raise_revision()


def approve(policy: str, service_tags: Iterable[str]) -> Transaction[int]:
    """Put tags on a policy's approved list; the number of new ones."""
    yield from must_exist("policy", policy)
    added = 0
    for tag in service_tags:
        added += len((yield Query("INSERT INTO approvals (policy, service_tag) VALUES ($1, $2) "
                                  "ON CONFLICT DO NOTHING RETURNING service_tag", (policy, tag))))
    return added


def disapprove(policy: str, service_tags: Iterable[str]) -> Transaction[int]:
    removed = 0
    for tag in service_tags:
        removed += len((yield Query("DELETE FROM approvals WHERE policy = $1 AND service_tag = $2 "
                                    "RETURNING service_tag", (policy, tag))))
    return removed


def add_rule(rule: Rule, replace: bool) -> Transaction[None]:
    if not replace:
        yield from _must_be_new("rule", rule.name)
    yield from must_exist("delegate", rule.delegate)
    yield Query("INSERT INTO rules (name, delegate, priority, conditions, delegator) VALUES ($1, $2, $3, $4, $5) "
                "ON CONFLICT (name) DO UPDATE SET delegate = $2, priority = $3, conditions = $4, delegator = $5",
                (rule.name, rule.delegate, rule.priority, rows.rule_conditions(rule), rule.delegator))
    yield from _raise_revision()


def note_health(delegate: str, state: str, why: str, now: int) -> Transaction[None]:
    """What became of a delegate's circuit breaker."""
    yield Query("INSERT INTO delegate_health (delegate, state, why, changed_at) VALUES ($1, $2, $3, $4) ON CONFLICT "
                "(delegate) DO UPDATE SET state = $2, why = $3, changed_at = $4", (delegate, state, why, now))


def check() -> Transaction[None]:
    """A change that means nothing: whether the store takes one. A value set to what it is would not be written."""
    yield Query("UPDATE pulse SET beat = 1 - beat WHERE only_row = 1")


_REFERRING = {
    "customer": (("delegates", "name", "delegate"), ("orders", "order_number", "order"),
                 ("devices", "COALESCE(service_tag, serial_number, mac_addresses)", "device"),
                 ("device_changes", "COALESCE(service_tag, serial_number, mac_addresses)", "imported device")),
    "delegate": (("rules", "name", "rule"), ("orders", "order_number", "order"),
                 ("devices", "COALESCE(service_tag, serial_number, mac_addresses)", "device"),
                 ("device_changes", "COALESCE(service_tag, serial_number, mac_addresses)", "imported device")),
    "policy": (("customers", "name", "customer"), ("delegates", "name", "delegate")),
    "rule": (),
}
"""What may name each noun in a column called like it, the expression that names the row, and what to call it."""
_SHOWN = 3


def _must_be_free(noun: str, name: str) -> Transaction[None]:
    """Raises DelegatorError (CONFLICT) with what refers to it, which the database would not tell."""
    found: list[str] = []
    for table, naming, word in _REFERRING[noun]:
        # Some of them, in no order: of a customer's million devices all would have to be read for the first three.
        rows = yield Query(f"SELECT {naming} FROM {table} WHERE {noun} = $1 LIMIT {_SHOWN + 1}", (name,))
        names, more = sorted(str(row[0]) for row in rows[:_SHOWN]), ", ..." if len(rows) > _SHOWN else ""
        found += [f"{word} {', '.join(names)}{more}"] if rows else []
    if found:
        raise DelegatorError(Kind.CONFLICT, f"{noun} {name} is still referred to by {'; '.join(found)}",
                             hint="change or remove these first")


def remove(noun: str, name: str) -> Transaction[None]:
    """Remove a customer, delegate, rule or policy that nothing refers to any more."""
    yield from must_exist(noun, name)
    yield from _must_be_free(noun, name)
    yield Query(f"DELETE FROM {_TABLES[noun]} WHERE name = $1", (name,))
    yield from _raise_revision()
