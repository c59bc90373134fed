"""PostgreSQL: what the role that customers read by may learn, decided column by column (T-B2).

The catalogue says what there is and what is granted; SHOWN and WITHHELD say what was decided. A table or column that is
new is in neither, and the first test fails until somebody decides.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from delegator import config
from delegator.model import Customer, Registration
from delegator.store import open_named
from delegator.store.importing import How
from delegator.store.migrate import MADE_FIRST, schema_files
from delegator.store.spool import Said, Spool

from ..clock import today
from ..postgres import OWNER, Cluster
from .filling import EARLIER, VERBS, Filling
from .readers import make_reader, psql, readable, reading

pytestmark = [pytest.mark.counterpart("initdb"), pytest.mark.slow]
REGISTRATION = "device_id service_tag serial_number mac_addresses model order_number"
SHOWN = {
    "approvals": "service_tag policy",
    "audit": "at until_at act actor outcome service_tag customer delegate claim_id peer repeated reasons",
    "claims": "claim_id service_tag customer delegate state identity attempt peer asked_at busy_until lease_until "
              "issued_at ended_at failed_at result detail notified callback",
    "contested": "service_tag day identity claim_id customer delegate peer times first_at last_at",
    "current_devices": f"{REGISTRATION} customer delegate",
    "customer_plans": "customer since plan",
    "customers": "name title enabled policy",
    "delegate_health": "delegate state why changed_at",
    "delegates": "name customer kind settings url trust_anchor policy enabled priority weight",
    "device_changes": f"{REGISTRATION} customer delegate",
    "device_names": "name device_id",
    "devices": f"{REGISTRATION} customer delegate",
    "enrolled": "serial service_tag claim_id issued_at not_after used_at revoked_at reason forgotten_at",
    "import_hides": "first_id past_id",
    "import_hides_own": "device_id",
    "import_shown": "only_row",
    "message_queues": "carrier recipient due_at failures",
    "messages": "message_id event recipient carrier subject body customer created_at give_up_at attempts state "
                "last_error ended_at",
    "orders": "order_number customer delegate",
    "outbox": "claim_id kind customer delegate delegator service_tag peer claimed_address created_at give_up_at "
              "attempts state last_error ended_at notice day identity",
    "outbox_queues": "kind delegate due_at failures",
    "paces": "holder minute opened",
    "places": "holder lane taken",
    "plans": "name version since currency included price prices base_fee",
    "policies": "name body",
    "registrations": f"{REGISTRATION} customer owner delegate",
    "rules": "name delegate delegator priority conditions",
    "statement_lines": "month customer item title quantity confirmed included billable unit_price amount currency plan "
                       "plan_version",
    "statements": "month zone from_at until_at closed_at",
    "transfers": "transfer_id device_id device service_tag order_number offered_by offered_to state offered_at until "
                 "ended_at because",
}
"""What a customer reads, of its own rows. `import_hides` has none for it. `device_id` is the one number that counts for
all customers and is shown, as rows are joined by it: who registers often can reckon how many all do together."""
WITHHELD: dict[str, dict[str, str]] = {
    "what operators work with": {
        "audit": "detail", "audit_checkpoints": "chain number hash seal", "audit_keys": "number sealed",
        "audit_marks": "chain number hash seal", "pulse": "only_row beat", "revision": "only_row number",
        "schema_files": "number name checksum oldest"},
    "it counts for all customers, so it tells how much the others do": {
        "audit": "chain number hash", "device_numbers": "only_row next_id", "messages": "number",
        "outbox": "number", "statements": "digest",
        "imports": "only_row import_id state first_id past_id alive_until"},
    "who of the maker did it": {"statements": "closed_by"},
    "it is sealed, or a claim is bound to it": {
        "boards": "service_tag binding standing since until", "claims": "binding sealed", "delegates": "sealed",
        "enrolled": "key_fingerprint binding certificate"},
    "nobody asked for it yet": {"customer_keys": "customer public_key since"},
}
ALL_COLUMNS = (
    "SELECT c.relname, a.attname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a "
    "ON a.attrelid = c.oid WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 "
    "AND NOT a.attisdropped")


def decided() -> dict[tuple[str, str], bool]:
    """Each column with whether it is shown."""
    found = {(table, column): True for table, columns in SHOWN.items() for column in columns.split()}
    for tables in WITHHELD.values():
        for table, columns in tables.items():
            for column in columns.split():
                assert (table, column) not in found, "decided twice"
                found[table, column] = False
    return found


@pytest.fixture
def cluster(postgres_quick: Cluster) -> Cluster:
    return postgres_quick


@pytest.fixture
def database(cluster: Cluster) -> str:
    name = cluster.database()
    make_reader(cluster, name)
    return name


# --- what is decided ----------------------------------------------------------------------------------------------


async def test_TB2_every_column_of_every_table_is_shown_or_withheld_and_the_grants_say_the_same(cluster, database):
    async with reading(cluster, database, "acme") as connection:
        there = {(str(table), str(column)) for table, column in await connection.fetch(ALL_COLUMNS)}
        granted = {(table, column.strip('"')) for table, columns in (await readable(connection)).items()
                   for column in columns}
    assert there == set(decided()), "decide whether customers may read what is new, and say so in SHOWN or WITHHELD"
    assert granted == {which for which, shown in decided().items() if shown}


async def test_TB2_a_table_that_nobody_decided_on_is_found(cluster, database):
    cluster.sql("CREATE TABLE novel (secret TEXT)", database)
    async with reading(cluster, database, "acme") as connection:
        there = {(str(table), str(column)) for table, column in await connection.fetch(ALL_COLUMNS)}
    assert there - set(decided()) == {("novel", "secret")}


async def test_A10_who_sits_in_a_transaction_is_sent_away_before_an_upgrade_gives_up(cluster, database):
    async with reading(cluster, database, "acme") as connection:
        assert await connection.fetchval("SHOW idle_in_transaction_session_timeout") == "5s"


async def test_TB2_it_may_do_nothing_but_read(cluster, database):
    async with reading(cluster, database, "acme") as connection:
        for right in ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"):
            assert await connection.fetch(
                "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE "
                "n.nspname = 'public' AND c.relkind = ANY ('{r,p,v,m,f}') AND has_table_privilege(c.oid, $1)",
                right) == []
        assert await connection.fetch(
            "SELECT proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'public' "
            "AND (prosecdef OR prorettype <> 'trigger'::regtype)") == [], "a function that it may call"
        assert not await connection.fetchval("SELECT has_schema_privilege('public', 'CREATE')")


async def test_TB2_a_reader_that_was_made_before_becomes_what_it_is_today(cluster):
    """By the schema file alone; whoever runs reader.sql again gets the same."""
    name = cluster.database(template="template0")
    psql(cluster, name, MADE_FIRST, OWNER)
    for file in schema_files("postgres"):
        if file.number == 12:
            make_reader_of_before(cluster, name)
        psql(cluster, name, file.sql, OWNER)
    async with reading(cluster, name, "acme") as connection:
        assert {(table, column.strip('"')) for table, columns in (await readable(connection)).items()
                for column in columns} == {which for which, shown in decided().items() if shown}


async def test_TB2_where_nobody_made_it_it_reads_nothing(cluster):
    """Roles are of the whole server: that there is one for another database gives it no right in this one."""
    make_reader(cluster, cluster.database())
    name = cluster.database(template="template0")
    psql(cluster, name, MADE_FIRST, OWNER)
    for file in schema_files("postgres"):
        psql(cluster, name, file.sql, OWNER)
    async with reading(cluster, name, "acme") as connection:
        assert await readable(connection) == {}


def make_reader_of_before(cluster: Cluster, name: str) -> None:
    with contextlib.suppress(Exception):
        cluster.sql("CREATE ROLE delegator_reader")
    same = [table for table in SHOWN if not table.startswith(("import_", "message")) and table not in PARTLY]
    psql(cluster, name, f"GRANT SELECT ON {', '.join((*same, *CHANGED))} TO delegator_reader; " + "".join(
        f"GRANT SELECT ({', '.join(SHOWN[table].split())}) ON {table} TO delegator_reader;" for table in PARTLY))


PARTLY = ("claims", "delegates", "enrolled")
CHANGED = ("audit", "imports", "outbox", "statements")


# --- what follows from it -----------------------------------------------------------------------------------------


@pytest.fixture
async def world(cluster: Cluster, database: str, key: Any, ask: Any, at: Any) -> Any:
    """A store of an operator whose name is on everything, and two customers that have something."""
    store = await open_named(config.Store(url=cluster.url(database), connections=4), key, actor="operator olivia",
                             peer="olivias-desk")
    await store.add_customer(Customer("acme", "Acme"), today())
    await store.add_devices(
        [Registration("acme", f"ACME{number}", f"SN-ACME-{number}") for number in range(3)], today())
    yield Filling(store, ask, at)
    await store.close()


async def seen_by(cluster: Cluster, database: str, customer: str) -> dict[str, list[str]]:
    async with reading(cluster, database, customer) as connection:
        return {table: sorted(str(tuple(row)) for row in await connection.fetch(
            f"SELECT {', '.join(columns)} FROM {table}")) for table, columns in (await readable(connection)).items()}


async def test_TB2_whatever_is_done_for_others_a_customer_sees_what_it_saw_and_no_operator(cluster, database, world):
    """Everything that can be done to any table is done for others: nothing changes for acme. It does for them."""
    before = await seen_by(cluster, database, "acme")
    assert before["devices"]
    assert before["registrations"]
    for table, verb in VERBS.items():
        if table not in ("statements", "audit_checkpoints"):  # a month is closed for all, the audit is pruned for all
            await verb(world)
            assert await seen_by(cluster, database, "acme") == before, table
    others = await seen_by(cluster, database, "filled")
    assert {table for table, rows in others.items() if not rows} <= {
        "import_hides", "import_hides_own", "import_shown", "statements", "statement_lines", "contested", *EARLIER}
    for customer in ("filled", "filled-too", "acme"):
        said = str(await seen_by(cluster, database, customer)).lower()
        assert "olivia" not in said
        assert customer == "acme" or "acme" not in said
    await VERBS["statements"](world)
    rows = await seen_by(cluster, database, "filled")
    assert rows["statements"]
    assert "olivia" not in str(rows).lower()


async def test_TB2_an_import_under_way_is_seen_by_nobody_and_its_size_is_told_to_nobody(cluster, database, world):
    """Neither of others nor of its own customer, whose devices it brings; once shown, whoever gets a device sees it."""
    await world.store.add_customer(Customer("umbra", "Umbra"), today())
    before = {customer: await seen_by(cluster, database, customer) for customer in ("acme", "umbra")}
    cluster.sql("INSERT INTO imports VALUES (1, 'i', 'open', 500, 530, 0);"
                "INSERT INTO devices (device_id, customer, service_tag) SELECT n, 'umbra', 'U' || n FROM "
                "generate_series(500, 529) n; INSERT INTO device_names SELECT 'T' || service_tag, device_id FROM "
                "devices WHERE customer = 'umbra';"
                "INSERT INTO device_changes (device_id, customer, service_tag, model) SELECT device_id, 'acme', "
                "service_tag, 'NEW' FROM devices WHERE service_tag = 'ACME1'", database)
    for customer in ("acme", "umbra"):
        now = await seen_by(cluster, database, customer)
        differing = {table for table in now if now[table] != before[customer][table]}
        assert differing == ({"device_changes"} if customer == "acme" else {"import_hides_own"})
    assert cluster.sql("SELECT count(*) FROM registrations", database) == "3", "nor by the owner of all tables"
    cluster.sql("UPDATE imports SET state = 'done'", database)
    umbra, acme = await seen_by(cluster, database, "umbra"), await seen_by(cluster, database, "acme")
    assert len(umbra["registrations"]) == len(umbra["device_names"]) == 30
    assert umbra["import_shown"] == []
    assert [row for row in acme["registrations"] if "NEW" in row]
    assert cluster.sql("SELECT count(*) FROM registrations", database) == "33"


async def test_TB2_a_real_import_of_another_customer_changes_nothing(cluster, database, world):
    await world.store.add_customer(Customer("umbra", "Umbra"), today())
    before = await seen_by(cluster, database, "acme")
    seen = []

    def stage(name: str, pieces: int) -> Any:
        seen.append(name)
        return lambda more: None
    with Spool() as spool:
        spool.fill([Said(number, "umbra", f"U{number}", None, None, None, None, None) for number in range(300)])
        await world.store.fleet.import_all(spool, How(), stage, lambda: world.at(3))
    assert seen
    assert await seen_by(cluster, database, "acme") == before
    assert len((await seen_by(cluster, database, "umbra"))["registrations"]) == 300
