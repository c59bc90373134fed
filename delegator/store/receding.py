"""What a copy lets in that the database whose place it takes does not: a restore goes behind what was closed since.

Small tables are compared by the pure functions that every change asks (widening), everything else by what is in one
of the two and not in the other. The invariants: both files are only read; what cannot be compared, because one is
damaged or of an older schema, is said to be so and never taken to be the same.
Must not live here: copies themselves (store.engines.sqlite.backup), words for who restores (cli).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from delegator import widening
from delegator.errors import DelegatorError
from delegator.routing import directory
from delegator.sealing import SealingKey
from delegator.store import registry, rows
from delegator.store.copies import Tables
from delegator.store.transaction import Query

_OWNED = ("(SELECT d.device_id, coalesce(d.customer, o.customer) AS customer, coalesce(d.delegate, "
          "CASE WHEN d.customer IS NULL THEN o.delegate END) AS delegate "
          "FROM {0}.devices AS d LEFT JOIN {0}.orders AS o ON o.order_number = d.order_number)")
"""Devices with their owner, by their own row or by their order."""
_COMPARED = ("SELECT c.customer, count(DISTINCT c.device_id), substr(max(a.name), 2) "
             f"FROM {_OWNED.format('copy')} AS c JOIN copy.device_names AS a ON a.device_id = c.device_id "
             f"JOIN now.device_names AS b ON b.name = a.name JOIN {_OWNED.format('now')} AS n "
             "ON n.device_id = b.device_id WHERE c.customer IS NOT NULL AND ")
_MORE = (
    ("policy {0}: {1} more devices are on its list",
     "SELECT policy, count(*) FROM copy.approvals AS a WHERE NOT EXISTS (SELECT 1 FROM now.approvals AS b WHERE "
     "b.policy = a.policy AND b.service_tag = a.service_tag) GROUP BY policy ORDER BY policy"),
    ("transfers: what customer {0} does had to be signed with its key, now it needs none or another",
     "SELECT k.customer FROM now.customer_keys AS k JOIN copy.customers AS o ON o.name = k.customer WHERE NOT EXISTS "
     "(SELECT 1 FROM copy.customer_keys AS c WHERE c.customer = k.customer AND c.public_key = k.public_key) "
     "ORDER BY 1"),
    ("device {0}: its certificate {1} was revoked, now it is not",
     "SELECT e.service_tag, e.serial FROM now.enrolled AS e WHERE e.revoked_at IS NOT NULL AND NOT EXISTS (SELECT 1 "
     "FROM copy.enrolled AS c WHERE c.serial = e.serial AND c.revoked_at IS NOT NULL) ORDER BY 1, 2"),
    ("device {0}: the shared certificate was refused for it, now it is not",
     "SELECT e.service_tag FROM now.enrolled AS e WHERE e.forgotten_at IS NULL AND NOT EXISTS (SELECT 1 FROM "
     "copy.enrolled AS c WHERE c.service_tag = e.service_tag AND c.forgotten_at IS NULL) ORDER BY 1"),
    ("device {0}: the key of a main board was refused, now it is not",
     "SELECT DISTINCT b.service_tag FROM now.boards AS b WHERE b.standing = 'refused' AND NOT EXISTS (SELECT 1 FROM "
     "copy.boards AS c WHERE c.service_tag = b.service_tag AND c.binding = b.binding AND c.standing = 'refused') "
     "ORDER BY 1"),
    ("device {0}: one key alone may claim it, now others too",
     "SELECT b.service_tag FROM now.boards AS b WHERE b.standing = 'approved' AND NOT EXISTS (SELECT 1 FROM "
     "copy.boards AS c WHERE c.service_tag = b.service_tag AND c.binding = b.binding AND c.standing = 'approved') "
     "ORDER BY 1"),
    ("{0} identifiers of devices are registered that are not now",
     "SELECT count(*) FROM copy.device_names AS c WHERE NOT EXISTS (SELECT 1 FROM now.device_names AS n WHERE "
     "n.name = c.name) HAVING count(*) > 0"),
    ("customer {0} owns {1} devices that it does not own now (returned, transferred, or another's by order), such as "
     "{2}", _COMPARED + "c.customer IS NOT n.customer GROUP BY c.customer ORDER BY 1"),
    ("customer {0}: {1} devices go to another delegate than now", _COMPARED + "c.customer IS n.customer AND "
     "c.delegate IS NOT n.delegate GROUP BY c.customer ORDER BY 1"),
    ("{0} devices that are deployed now, and are refused a second credential, may ask again", "SELECT count(*) FROM "
     "now.claims AS n WHERE n.state = 'confirmed' AND NOT EXISTS (SELECT 1 FROM copy.claims AS c WHERE c.service_tag = "
     "n.service_tag AND c.state = 'confirmed') HAVING count(*) > 0"),
    ("order {0} belongs to customer {1}, whose it is not now",
     "SELECT c.order_number, c.customer FROM copy.orders AS c WHERE NOT EXISTS (SELECT 1 FROM now.orders AS n WHERE "
     "n.order_number = c.order_number AND n.customer = c.customer) ORDER BY 1"),
)
"""Words, and the rows of which they are told. `now` is what is there, `copy` what comes."""


def let_in(now: Path, copy: Path, key: SealingKey, *, by_domain: bool) -> tuple[str, ...]:
    """What is refused as the database is `now` and would not be with the copy in its place."""
    found = _small(now, copy, key, by_domain)
    with contextlib.closing(sqlite3.connect(":memory:", uri=True, isolation_level=None)) as both:
        try:
            for name, path in (("now", now), ("copy", copy)):
                both.execute(f"ATTACH '{path.absolute().as_uri().replace(chr(39), '%27')}?mode=ro' AS {name}")
        except sqlite3.Error as error:
            return (*found, _unknown(error))
        for words, query in _MORE:
            try:
                found += [words.format(*row) for row in both.execute(query)]
            except sqlite3.Error as error:
                found.append(_unknown(error))
    return tuple(dict.fromkeys(found))


def _unknown(error: Exception) -> str:
    return f"what cannot be compared, so take it that more is let in: {error}"


def _small(now: Path, copy: Path, key: SealingKey, by_domain: bool) -> list[str]:
    try:
        before, after = _tables(now, key), _tables(copy, key)
    except (sqlite3.Error, DelegatorError, msgspec.MsgspecError, ValueError) as error:
        return [_unknown(error)]
    again = [*(f"customer {name}" for name in sorted(after.customers.keys() - before.customers.keys())),
             *(f"delegate {name}" for name in sorted(after.directory.delegates.keys()
                                                     - before.directory.delegates.keys()))]
    return [*(f"{one} is there again, which was removed since" for one in again),
            *widening.let_in(before, after, by_domain=by_domain)]


def _tables(path: Path, key: SealingKey) -> Tables:
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        def every(query: Query) -> Iterator[Sequence[str | int | bytes | None]]:
            return iter(connection.execute(query.sql).fetchall())
        return Tables(
            0, {one.name: one for one in map(rows.customer_of, every(registry.ALL_CUSTOMERS))},
            {one.name: one for one in map(rows.policy_of, every(registry.ALL_POLICIES))},
            directory([rows.delegate_of(row, key) for row in every(registry.ALL_DELEGATES)],
                      [rows.rule_of(row) for row in every(registry.ALL_RULES)]))
