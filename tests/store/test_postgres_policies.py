"""PostgreSQL: the conditions by which a customer sees its rows: the same rows as before, found by keys (T-B2).

A condition of the form `x IN (SELECT ...)` makes a table of all that a customer has for each question. What stands
there now must show every role the same rows, whatever NULLs, leftovers and rows of others there are.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping

import asyncpg
import pytest

from delegator.store.migrate import MADE_FIRST, schema_files

from ..postgres import OWNER, Cluster
from .readers import psql, reading

pytestmark = [pytest.mark.counterpart("initdb"), pytest.mark.slow]


@pytest.fixture
def cluster(postgres_quick: Cluster) -> Cluster:
    return postgres_quick


# --- the same rows as by the older, slower conditions --------------------------------------------------------------

POOLS: Mapping[str, tuple[str, ...]] = {
    "customer": ("acme", "umbra", "gone"), "delegate": ("acme-1", "umbra-1", "gone-1"), "policy": ("p1", "p2", "p3"),
    "service_tag": ("T1", "T2", "T3", "T4", "T5", "T6"), "order_number": ("o1", "o2", "o3"), "plan": ("a", "b", "c"),
    "month": ("2026-01", "2026-02", "2026-03"), "since": ("2026-01", "2026-02"), "claim_id": ("c1", "c2", "c3", "c4"),
    "offered_by": ("acme", "umbra"), "offered_to": ("gone", "umbra", "acme"),
    "holder": ("customer/acme", "customer/umbra", "delegate/acme-1", "delegate/umbra-1", "delegate/gone-1", "delegate/",
               "other/acme-1", "acme-1"),
}
"""So few words that rows refer to each other, to nothing, and to what others have."""
NAMES = {"customers": POOLS["customer"], "delegates": POOLS["delegate"], "policies": POOLS["policy"],
         "plans": POOLS["plan"], "device_names": tuple("T" + tag for tag in POOLS["service_tag"]),
         "rules": ("r1", "r2", "r3")}
COLUMNS = ("SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns "
           "WHERE table_schema = 'public' AND table_name IN (SELECT relname FROM pg_class JOIN pg_policy "
           "ON polrelid = pg_class.oid) "
           "ORDER BY table_name, ordinal_position")


def value(chance: random.Random, table: str, column: str, kind: str, nullable: bool) -> str:
    if nullable and chance.random() < 0.3:
        return "NULL"
    if kind == "bytea":
        return "'\\x00'"
    if column == "device_id":
        return str(chance.randint(1, 8))
    if kind in ("bigint", "integer"):
        return str(chance.randint(1, 9))
    pool = NAMES.get(table, POOLS["policy"]) if column == "name" else POOLS.get(column, ("x", "y", "z"))
    return f"'{chance.choice(pool)}'"


def random_rows(columns: list[tuple[str, str, str, bool]], chance: random.Random) -> Iterator[str]:
    tables: dict[str, list[tuple[str, str, bool]]] = {}
    for table, column, kind, nullable in columns:
        tables.setdefault(table, []).append((column, kind, nullable))
    for table, those in tables.items():
        names = ", ".join(f'"{column}"' for column, _, _ in those)
        for _ in range(25):
            values = ", ".join(FIXED.get((table, column)) or value(chance, table, column, kind, nullable)
                               for column, kind, nullable in those)
            yield f"INSERT INTO {table} ({names}) VALUES ({values}) ON CONFLICT DO NOTHING"
    yield "DELETE FROM device_names"
    yield ("INSERT INTO device_names SELECT 'T' || service_tag, device_id FROM devices WHERE service_tag IS NOT NULL "
           "ON CONFLICT DO NOTHING")
    yield ("UPDATE devices SET service_tag = NULL WHERE service_tag IS NOT NULL AND NOT EXISTS "
           "(SELECT 1 FROM device_names n WHERE n.device_id = devices.device_id)")
    for table in tables:
        yield f"DELETE FROM {table} WHERE ctid IN (SELECT ctid FROM {table} LIMIT 1)"
    yield "DELETE FROM device_names n WHERE NOT EXISTS (SELECT 1 FROM devices d WHERE d.device_id = n.device_id)"
    yield "INSERT INTO device_names VALUES ('Sgone', 999)"


FIXED = {("claims", "state"): "'expired'", ("claims", "sealed"): "NULL", ("transfers", "state"): "'lapsed'",
         ("transfers", "ended_at"): "1", ("boards", "standing"): "'refused'", ("enrolled", "revoked_at"): "NULL",
         ("enrolled", "reason"): "NULL", ("enrolled", "forgotten_at"): "NULL", ("outbox", "state"): "'waiting'",
         ("audit", "actor"): "'device'"}
"""What conditions on tables ask for. Of the audit only what no operator did is shown since schema 12."""


@pytest.mark.parametrize("seed", range(3))
async def test_TB2_every_role_sees_the_rows_that_it_saw_before(cluster, seed):
    """A database as it was, one as it is, the same random rows in both: NULLs, rows of nobody, rows that are gone."""
    chance, seen = random.Random(seed), []
    texts: list[str] = []
    for newest in (11, 12):
        name = cluster.database(template="template0")
        psql(cluster, name, MADE_FIRST, OWNER)
        for file in schema_files("postgres")[:newest]:
            psql(cluster, name, file.sql, OWNER)
        cluster.sql("DROP ROLE IF EXISTS all_reader; CREATE ROLE all_reader LOGIN")
        psql(cluster, name, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO all_reader")
        connection = await asyncpg.connect(cluster.url(name, "postgres"))
        await connection.execute("SET session_replication_role = replica")
        if not texts:
            texts = list(random_rows([(row[0], row[1], row[2], row[3] == "YES") for row in
                                      await connection.fetch(COLUMNS) if row[0] != "imports"], chance))
        for text in texts:
            with contextlib.suppress(asyncpg.IntegrityConstraintViolationError):
                await connection.execute(text)
        await connection.close()
        seen.append({customer: await all_rows(cluster, name, customer)
                     for customer in ("acme", "umbra", "gone", "", "nobody", None)})
        cluster.sql("DROP OWNED BY all_reader", name)
    cluster.sql("DROP ROLE all_reader")
    for customer, tables in seen[0].items():
        assert seen[1][customer] == tables, customer
    filled = {table for customer in ("acme", "umbra") for table, rows in seen[0][customer].items() if rows}
    assert len(filled) >= 20, "hardly any table had a row for anybody"
    assert not any(rows for customer in ("", "nobody", None) for rows in seen[0][customer].values())


async def all_rows(cluster: Cluster, name: str, customer: str | None) -> dict[str, list[str]]:
    async with reading(cluster, name, customer, "all_reader") as connection:
        tables = [str(row[0]) for row in await connection.fetch(
            "SELECT relname FROM pg_class WHERE oid IN (SELECT polrelid FROM pg_policy) OR relname IN "
            "('registrations', 'current_devices') ORDER BY relname")]
        return {table: sorted(str(tuple(row)) for row in await connection.fetch(f"SELECT * FROM {table}"))
                for table in tables if table != "imports"}  # which schema 12 shows nobody


# --- found by keys ------------------------------------------------------------------------------------------------

MANY = """
SET session_replication_role = replica;
INSERT INTO customers VALUES ('acme', 'Acme', 1, 'p1'), ('umbra', 'Umbra', 1, NULL);
INSERT INTO policies SELECT 'p' || n, '{}' FROM generate_series(1, 2000) n;
INSERT INTO delegates SELECT 'd' || n, CASE WHEN n % 2 = 0 THEN 'acme' ELSE 'umbra' END, 'hosted', '{}' FROM
    generate_series(1, 2000) n;
INSERT INTO rules SELECT 'r' || n, 'd' || n, NULL, 1, '{}' FROM generate_series(1, 2000) n;
INSERT INTO delegate_health SELECT name, 'open', 'x', 0 FROM delegates;
INSERT INTO outbox_queues SELECT 'mail', name, 0 FROM delegates;
INSERT INTO message_queues SELECT 'mail', name, 0 FROM delegates;
INSERT INTO places SELECT 'delegate/' || name, lane, 1 FROM delegates, generate_series(1, 4) lane;
INSERT INTO paces SELECT 'delegate/' || name, minute, 1 FROM delegates, generate_series(1, 4) minute;
INSERT INTO orders SELECT 'o' || n, 'acme' FROM generate_series(1, 2000) n;
INSERT INTO devices (device_id, customer, service_tag, order_number) SELECT n, CASE n % 4 WHEN 0 THEN NULL WHEN 1 THEN
    'umbra' ELSE 'acme' END, 'T' || n, 'o' || (1 + n % 2000) FROM generate_series(1, 20000) n;
INSERT INTO device_names SELECT 'T' || service_tag, device_id FROM devices;
INSERT INTO approvals (policy, service_tag) SELECT 'p1', service_tag FROM devices;
INSERT INTO boards SELECT service_tag, 'key:1', 'refused', 0 FROM devices;
INSERT INTO claims (claim_id, service_tag, customer, delegate, state, identity, binding, attempt, asked_at, busy_until,
    lease_until) SELECT 'c' || device_id, service_tag, 'acme', 'd2', 'confirmed', 'own', 'k', 1, 0, 0, 0 FROM devices;
INSERT INTO enrolled SELECT 's' || n, 'T' || n, 'k', 'c' || n, 'b', 'c', 0, 0 FROM generate_series(1, 20000) n;
ANALYZE;
"""
LOOK_UPS = {
    "device_names": "name = 'TT102'", "devices": "device_id = 102", "devices of an order": "device_id = 104",
    "registrations": "device_id = (SELECT device_id FROM device_names WHERE name = 'TT102')",
    "approvals": "service_tag = 'T102'", "boards": "service_tag = 'T102'", "enrolled": "service_tag = 'T102'",
    "claims": "claim_id = 'c102'", "rules": "name = 'r102'", "delegate_health": "delegate = 'd102'",
    "outbox_queues": "kind = 'mail' AND delegate = 'd102'",
    "message_queues": "carrier = 'mail' AND recipient = 'd102'", "places": "holder = 'delegate/d102'",
    "paces": "holder = 'delegate/d102'", "policies": "name = 'p1'",
}
"""A policy is whoever's that names it, which a customer and its few delegates may: those are gathered first."""
LARGE = ("devices", "device_names", "claims", "enrolled", "approvals", "boards", "orders", "rules", "delegates",
         "places", "paces", "delegate_health", "outbox_queues", "message_queues")


async def test_TB2_what_a_customer_looks_up_is_found_by_keys_however_many_devices_it_has(cluster):
    """No look-up reads a large table through, nor makes a table of what the customer has."""
    name = cluster.database()
    psql(cluster, name, MANY)
    cluster.sql("DROP ROLE IF EXISTS all_reader; CREATE ROLE all_reader LOGIN")
    psql(cluster, name, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO all_reader")
    async with reading(cluster, name, "acme", "all_reader") as connection:
        for what, where in LOOK_UPS.items():
            asked = f"SELECT * FROM {what.split()[0]} WHERE {where}"
            assert await connection.fetch(asked), what
            plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN (ANALYZE, COSTS OFF) {asked}"))
            done = [line for line in plan.splitlines() if "Seq Scan" in line and "never executed" not in line
                    and any(f" on {table} " in f"{line} " for table in LARGE)]
            assert done == [], f"{what}:\n{plan}"
            assert "hashed SubPlan" not in plan or what == "policies", f"{what}:\n{plan}"
    cluster.sql("DROP OWNED BY all_reader", name)
    cluster.sql("DROP ROLE all_reader")
