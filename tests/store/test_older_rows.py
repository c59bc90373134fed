"""What an older release wrote in a form that is not the normal one is read, compared and shown in the normal one."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from delegator.model import Customer, Delegate, Device, Location, Policy, Rule, SoapCallback
from delegator.routing import Facts, Route, choose

from ..clock import today

OLDER = (
    ("rules", "conditions", "198.51.100.0/24", "::ffff:198.51.100.0/120"),
    ("rules", "conditions", "example.com", "Example.COM."),
    ("policies", "body", "198.51.100.0/24", "::ffff:198.51.100.0/120"),
    ("policies", "body", "example.com", "Example.COM."),
    ("delegates", "settings", "d.acme.example", "D.Acme.Example."),
    ("delegates", "settings", "192.0.2.1", "::ffff:192.0.2.1"))


async def test_rows_of_an_older_release_count_as_they_were_meant(opening_sqlite, tmp_path: Path) -> None:
    store = await opening_sqlite()
    await store.add_policy(Policy("near", networks=("198.51.100.0/24",), domains=("example.com",)), today())
    await store.add_customer(Customer("acme", "Acme", policy="near"), today())
    await store.add_delegate(Delegate("one", "acme", SoapCallback("d.acme.example", address="192.0.2.1")), today())
    await store.add_rule(Rule("net", "one", network="198.51.100.0/24"), today())
    await store.add_rule(Rule("dom", "one", domain="example.com"), today())
    before = await store.tables()
    await store.close()
    (path,) = tmp_path.glob("**/*.db")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for table, column, normal, older in OLDER:
            done = connection.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?) "
                                      f"WHERE instr({column}, ?) > 0", (normal, older, normal))
            assert done.rowcount == 1, table
    store = await opening_sqlite()
    after = await store.tables()
    assert after.directory.rules == before.directory.rules
    assert after.directory.delegates == before.directory.delegates
    assert after.policies == before.policies
    for peer, location in (("198.51.100.3", Location()), ("192.0.2.9", Location(domain="sub.EXAMPLE.com."))):
        assert isinstance(choose(Facts(Device("ABC1234"), location, peer), (), after.directory), Route)
    await store.close()
