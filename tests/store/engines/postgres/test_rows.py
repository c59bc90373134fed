"""PostgreSQL: whoever asks for one customer sees that customer's rows and nobody else's (T-B2, T-C11; R-engines)."""

from __future__ import annotations

import contextlib
import random
from datetime import UTC, datetime

import asyncpg
import pytest

from delegator import config
from delegator.model import (
    Customer,
    Delegate,
    HostedCallback,
    NotificationKind,
    Policy,
    Registration,
    Rule,
    Secret,
    Telling,
)
from delegator.store import open_named

from ....clock import today
from ...readers import make_reader, readable, reading

pytestmark = [pytest.mark.counterpart("initdb"), pytest.mark.slow]
CUSTOMERS = ("acme", "umbra")


@pytest.fixture
async def world(postgres, key, ask):
    """A database with two customers that have something in every table that is theirs, and its reader."""
    with postgres.lent() as name:
        store = await open_named(config.Store(url=postgres.url(name)), key)
        await store.add_policy(Policy("shared", approved_only=False), today())
        for number, customer in enumerate(CUSTOMERS):
            await store.add_policy(Policy(f"of-{customer}"), today())
            await store.add_customer(Customer(customer, customer.title(), policy=f"of-{customer}"), today())
            callback = HostedCallback("root", Secret("the secret word"), mail_to="a@example.com")
            await store.add_delegate(Delegate(f"{customer}-1", customer, callback, policy="shared"), today())
            await store.add_rule(Rule(f"rule-{customer}", f"{customer}-1", model=f"M{number}"), today())
            await store.add_devices([Registration(customer, f"{customer.upper()}{n}", f"SN-{customer}-{n}",
                                                  (f"00:1A:2B:00:0{number}:0{n}",)) for n in range(3)], today())
            await store.approve("shared", [f"{customer.upper()}0"], today())
            await store.open_and_issue(ask(f"{customer.upper()}0", customer=customer, delegate=f"{customer}-1"),
                                       lambda claim: "the secret word",
                                       Telling((NotificationKind.MAIL,), f"{customer}-1", "delegator", None))
            await store.note_health(f"{customer}-1", "open", "no answer", datetime(2026, 1, 1, tzinfo=UTC))
        await store.close()
        make_reader(postgres, name)
        yield postgres, name


async def test_TB2_a_customer_sees_its_own_rows_in_every_table_and_no_others(world):
    seen: dict[str, dict[str, int]] = {}
    for customer in CUSTOMERS:
        other = next(one for one in CUSTOMERS if one != customer)
        async with reading(*world, customer) as connection:
            for table, columns in (await readable(connection)).items():
                rows = await connection.fetch(f"SELECT {', '.join(columns)} FROM {table}")
                text = [str(tuple(row)) for row in rows]
                seen.setdefault(table, {})[customer] = len(text)
                assert not [one for one in text if other.lower() in one.lower()], (table, customer)
    filled = {table for table, rows in seen.items() if all(rows.values())}
    assert filled >= {"customers", "delegates", "devices", "registrations", "device_names", "claims", "policies",
                      "rules", "approvals", "places", "delegate_health", "messages", "audit"}, seen


async def test_TB2_without_a_customer_or_with_one_that_is_none_nothing_is_seen(world):
    for customer in (None, "", "nobody", "acme' OR '1'='1"):
        async with reading(*world, customer) as connection:
            for table in await readable(connection):
                assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0, table


async def test_TC11_what_is_sealed_cannot_be_read_at_all(world):
    async with reading(*world, "acme") as connection:
        for asked in ("sealed FROM claims", "binding FROM claims", "sealed FROM delegates", "sealed FROM audit_keys",
                      "binding FROM boards", "binding FROM enrolled", "* FROM claims", "* FROM schema_files",
                      "seal FROM audit_marks"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(f"SELECT {asked}")


async def test_TB2_random_walks_through_all_tables_find_no_foreign_row_and_change_none(world):
    """Even with every right that can be granted by mistake; joins and changes too."""
    cluster, name = world
    cluster.sql("DROP ROLE IF EXISTS careless; CREATE ROLE careless LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public "
                "TO careless; GRANT ALL ON SCHEMA public TO careless", name)
    try:
        chance = random.Random(7)
        async with reading(*world, "acme", "careless") as connection:
            tables = await readable(connection)
            before = cluster.sql("SELECT count(*), sum(taken) FROM places", name)
            for _ in range(400):
                one, two = chance.sample(sorted(tables), 2)
                rows = await connection.fetch(f"SELECT a.*, b.* FROM {one} a, {two} b LIMIT 50")
                assert not [row for row in rows if "umbra" in str(tuple(row)).lower()], (one, two)
            for table in sorted(tables):
                column = tables[table][0]
                for change in (f"DELETE FROM {table}", f"UPDATE {table} SET {column} = {column}"):
                    with contextlib.suppress(asyncpg.PostgresError):
                        assert (await connection.execute(change)).split()[-1] == "0", change
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("INSERT INTO customers (name, title) VALUES ('acme-2', 'x')")
            assert cluster.sql("SELECT count(*), sum(taken) FROM places", name) == before
    finally:
        cluster.sql("DROP OWNED BY careless; DROP ROLE careless", name)


async def test_TB2_no_table_is_without_row_level_security_and_no_view_without_its_callers_rights(postgres):
    assert postgres.sql("SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = "
                        "'public' AND relkind IN ('r', 'p') AND NOT relrowsecurity", "template_delegator") == ""
    assert postgres.sql("SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = "
                        "'public' AND relkind = 'v' AND NOT coalesce(reloptions @> '{security_invoker=true}', false) "
                        "ORDER BY relname", "template_delegator").split() == [
        "import_hides", "import_hides_own", "import_shown"], "these filter by themselves: see schema 0012"
