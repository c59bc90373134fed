"""What operators change in the small tables, each act with its row of audit: what it was done to, and which fields.

The invariants: the act and its row are one transaction; a row names the fields that changed and holds no value of
them, so that no secret can be among them.
Must not live here: the changes themselves (store.registry), devices (store.fleet, store.ownership).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar

import msgspec

from delegator.model.audited import Act, By, Entry
from delegator.sealing import SealingKey
from delegator.store.audit.ledger import append
from delegator.store.transaction import Query, Row, Transaction, Value

T = TypeVar("T")
NAMED = 100
"""Tags that one row names; of more it tells how many there were."""


class _Noun(msgspec.Struct, frozen=True):
    """One small table: its columns but the name, those that are JSON, and its acts."""

    table: str
    columns: tuple[str, ...]
    added: Act
    changed: Act
    removed: Act


_NOUNS = {
    "customer": _Noun("customers", ("title", "enabled", "policy"),
                      Act.CUSTOMER_ADDED, Act.CUSTOMER_CHANGED, Act.CUSTOMER_REMOVED),
    "delegate": _Noun("delegates", ("customer", "kind", "settings", "sealed", "url", "trust_anchor", "policy",
                                    "enabled", "priority", "weight"),
                      Act.DELEGATE_ADDED, Act.DELEGATE_CHANGED, Act.DELEGATE_REMOVED),
    "policy": _Noun("policies", ("body",), Act.POLICY_ADDED, Act.POLICY_CHANGED, Act.POLICY_REMOVED),
    "rule": _Noun("rules", ("delegate", "delegator", "priority", "conditions"),
                  Act.RULE_ADDED, Act.RULE_CHANGED, Act.RULE_REMOVED),
}
_JSON = ("settings", "body", "conditions")
_SEALED = "sealed"


def saved(noun: str, name: str, work: Transaction[T], key: SealingKey, by: By, now: datetime) -> Transaction[T]:
    """Add or change one of the small tables' rows by `work`, and note which."""
    kind = _NOUNS[noun]
    before = yield from _standing(kind, name)
    outcome = yield from work
    after = yield from _standing(kind, name)
    fields = _differing(kind, name, before[0], after[0], key) if before else None
    detail: dict[str, object] = {"name": name} if fields is None else {"name": name, "fields": fields}
    yield from append(_entry(kind.changed if before else kind.added, noun, name, after, detail, by, now))
    return outcome


def removed(noun: str, name: str, work: Transaction[T], by: By, now: datetime) -> Transaction[T]:
    """Remove one by `work`, and note it."""
    kind = _NOUNS[noun]
    before = yield from _standing(kind, name)
    outcome = yield from work
    yield from append(_entry(kind.removed, noun, name, before, {"name": name}, by, now))
    return outcome


def listed(act: Act, policy: str, tags: Iterable[str], work: Transaction[int], by: By,
           now: datetime) -> Transaction[int]:
    """Change an approved list by `work`, which tells how many tags it concerned, and note it if there were any."""
    count = yield from work
    if count:
        named = list(tags)
        yield from append(Entry(
            act, now, by.actor, service_tag=named[0] if len(named) == 1 else None, peer=by.peer,
            detail={"policy": policy, "count": count, "tags": named[:NAMED]}))
    return count


def _standing(kind: _Noun, name: str) -> Transaction[list[Row]]:
    return list((yield Query(f"SELECT {', '.join(kind.columns)} FROM {kind.table} WHERE name = $1", (name,))))


def _entry(act: Act, noun: str, name: str, rows: list[Row], detail: dict[str, object], by: By,
           now: datetime) -> Entry:
    """Whose it is: a customer's own row, or that of a delegate's customer."""
    customer = name if noun == "customer" else None
    if noun == "delegate" and rows:
        customer = str(rows[0][0])
    return Entry(act, now, by.actor, customer=customer, delegate=name if noun == "delegate" else None, peer=by.peer,
                 detail=detail)


def _differing(kind: _Noun, name: str, before: Row, after: Row, key: SealingKey) -> list[str]:
    """The names of what differs, those inside a JSON column by their own."""
    fields: list[str] = []
    for column, old, new in zip(kind.columns, before, after, strict=True):
        if column in _JSON:
            fields += _inside(old, new)
        elif column == _SEALED:
            fields += ["secret"] if _opened(old, name, key) != _opened(new, name, key) else []
        elif old != new:
            fields.append(column)
    return fields


def _inside(old: Value, new: Value) -> list[str]:
    one, other = msgspec.json.decode(str(old)), msgspec.json.decode(str(new))
    return sorted(field for field in one.keys() | other.keys() if one.get(field) != other.get(field))


def _opened(sealed: Value, name: str, key: SealingKey) -> str | None:
    """Each seal has its own nonce, so only what is inside can be compared; it goes no further than that."""
    return key.open(sealed, f"delegates/{name}") if isinstance(sealed, bytes) else None
