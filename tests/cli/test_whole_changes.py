"""What a command changes is changed whole or not at all, and as the file says that it was given."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import sqlite3
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import force_setattr

from delegator.cli import changing
from delegator.looser import looser
from delegator.model import Policy
from delegator.store import ownership
from delegator.store.engines.sqlite.driver import SqliteDriver
from delegator.store.transaction import Query, Row

from .conftest import Console


def _key(folder: Path, name: str = "acme") -> Path:
    key, public = folder / f"{name}.key", folder / f"{name}.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True, capture_output=True)
    return public


def test_a_customer_is_not_there_without_the_key_that_was_asked_for(console: Console, tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    key = _key(tmp_path)

    def killed(*_: object) -> str:
        raise KeyboardInterrupt
    with monkeypatch.context() as patched:
        patched.setattr(ownership, "fingerprint", killed)
        assert console.run("customers", "add", "acme", "--title", "A", "--signing-key", key).code
    assert console.ok("customers", "list") == []
    added = console.ok("customers", "add", "acme", "--title", "A", "--signing-key", key)
    assert added["signing_key"] == console.ok("customers", "show", "acme")["signing_key"]


def test_a_policy_takes_the_list_of_its_file(acme: Console) -> None:
    file = json.dumps({"approved_only": True, "approved": ["AAA1111", "BBB2222"]})
    made = acme.run("policies", "add", "night", "--file", "-", stdin=file)
    assert "2 new on it" in made.err
    assert acme.ok("policies", "show", "night")["approved"] == ["AAA1111", "BBB2222"]
    file = json.dumps({"approved": ["BBB2222", "CCC3333", "DDD4444"]})
    done = acme.run("policies", "change", "night", "--file", "-", "--json", stdin=file)
    assert done.json["lets_in"] == ["policy night: 2 more devices are on its list"]
    assert {"field": "approved", "old": 2, "new": 3} in done.json["changed"]
    assert "2 new on it, 1 taken off" in done.err
    assert "WARNING" in done.err
    assert acme.ok("policies", "show", "night")["approved"] == ["BBB2222", "CCC3333", "DDD4444"]
    assert acme.ok("policies", "show", "night")["approved_only"] is True
    acme.ok("policies", "change", "night", "--attempts", "3")
    assert len(acme.ok("policies", "show", "night")["approved"]) == 3, "a change without a list leaves it"


def test_what_show_prints_is_the_same_policy_elsewhere(acme: Console) -> None:
    acme.ok("policies", "add", "day", "--approved-only")
    acme.ok("policies", "approve", "day", "AAA1111")
    shown = acme.ok("policies", "show", "day")
    acme.ok("policies", "remove", "day")
    acme.run("policies", "add", "day", "--file", "-", stdin=json.dumps(shown))
    assert acme.ok("policies", "show", "day") == shown


def test_a_network_of_an_older_row_stops_no_change(acme: Console) -> None:
    acme.ok("policies", "add", "old", "--network", "10.0.0.0/8")
    with sqlite3.connect("var/delegator.db") as database:
        database.execute("UPDATE policies SET body = replace(body, '10.0.0.0/8', '10.0.0.1/8') WHERE name = 'old'")
        database.execute("UPDATE revision SET number = number + 1")
    database.close()
    done = acme.ok("policies", "change", "old", "--network", "10.1.0.0/16")
    assert done["lets_in"] == []
    assert acme.ok("policies", "change", "old", "--network", "10.0.0.0/7")["lets_in"]


_WIDENING = [
    ("policies", "change", "rollout", "--attempts", "9"), ("customers", "change", "acme", "--title", "B"),
    ("customers", "disable", "acme"), ("policies", "remove", "rollout"), ("policies", "add", "lax"),
    ("policies", "approve", "rollout", "ABC1234"),
    ("rules", "add", "r", "--model", "R7", "--delegate", "acme-small"),
    ("delegates", "add", "acme-next", "--customer", "acme", "--hosted", "root", "--priority", "1"),
    ("delegates", "change", "acme-small", "--weight", "3"),
    ("devices", "add", "NEW1234", "--customer", "acme"), ("devices", "change", "NOW1234", "--delegate", "acme-small"),
    ("devices", "remove", "NOW1234"), ("orders", "add", "4712", "--customer", "acme"),
    ("orders", "change", "4711", "--delegate", "acme-small")]
"""Verbs that say what they let in."""
_SAID = (("orders", "add"), ("policies", "add"), ("policies", "approve"))
"""What these let in needs no working out."""


@pytest.fixture
def many(acme: Console) -> Console:
    """With something of everything."""
    acme.ok("policies", "add", "rollout")
    acme.ok("devices", "add", "NOW1234", "--customer", "acme")
    acme.ok("orders", "add", "4711", "--customer", "acme")
    return acme


def _state() -> list[object]:
    tables = ("policies", "customers", "delegates", "rules", "current_devices", "orders", "approvals", "audit")
    with contextlib.closing(sqlite3.connect("var/delegator.db")) as database:
        return [sorted(database.execute(f"SELECT * FROM {table}").fetchall(), key=repr) for table in tables]


@pytest.mark.parametrize("words", [one for one in _WIDENING if one[:2] not in _SAID], ids=" ".join)
def test_where_it_cannot_be_told_what_is_let_in_nothing_changes(many: Console, words: tuple[str, ...],
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    before = _state()

    def failing(*_: object, **__: object) -> None:
        raise ValueError("is no network")
    with monkeypatch.context() as patched:
        for name in ("let_in", "of_device", "taken_over"):
            patched.setattr(f"delegator.widening.{name}", failing)
        with contextlib.suppress(ValueError):
            many.run(*words)
    assert _state() == before


@pytest.mark.parametrize("words", _WIDENING, ids=" ".join)
def test_what_a_change_lets_in_is_told_without_asking_anything_once_it_is_made(
        many: Console, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that breaks right after the commit keeps nobody from being told."""
    before, read = _state(), SqliteDriver.read

    async def asked(driver: SqliteDriver, query: Query) -> list[Row]:
        assert not driver.commits.transactions, query.sql
        return await read(driver, query)
    with monkeypatch.context() as patched:
        patched.setattr(SqliteDriver, "read", asked)
        done = many.run(*words)
    assert (done.code, _state() == before) == (0, False)


_ROWS = ({"service_tag": "AAA1111", "model": "R7", "delegate": ""}, {"service_tag": "BBB2222"},
         {"service_tag": "CCC3333", "delegate": None, "model": ""})


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_each_row_keeps_what_it_does_not_name_and_empties_what_it_does(acme: Console, order: tuple[int, ...]) -> None:
    for tag in ("AAA1111", "BBB2222", "CCC3333"):
        acme.ok("devices", "add", tag, "--customer", "acme", "--model", "R5", "--delegate", "acme-small")
    rows = "\n".join(json.dumps(_ROWS[at]) for at in order)
    assert acme.run("devices", "import", "-", "--customer", "acme", "--replace", stdin=rows).code == 0
    assert [(one["model"], one["delegate"]) for one in sorted(
        acme.ok("devices", "list"), key=lambda one: str(one["service_tag"])) if one["service_tag"] != "ABC1234"] == [
        ("R7", None), ("R5", "acme-small"), (None, None)]


@pytest.mark.parametrize("turned", [False, True])
def test_each_order_keeps_what_its_row_does_not_name(acme: Console, turned: bool) -> None:
    for number in ("1", "2"):
        acme.ok("orders", "add", number, "--customer", "acme", "--delegate", "acme-small")
    rows = [json.dumps({"order": "1", "delegate": ""}), json.dumps({"order": "2"})]
    stdin = "\n".join(rows[::-1] if turned else rows)
    assert acme.run("orders", "import", "-", "--customer", "acme", "--replace", stdin=stdin).code == 0
    assert [(one["order"], one["delegate"]) for one in acme.ok("orders", "list")] == [("1", None), ("2", "acme-small")]


@pytest.mark.parametrize(("old", "new", "looser_than"), [
    ("10.0.0.1/8", "10.2.0.0/16", False), ("10.0.0.1/8", "11.2.0.0/16", True), ("nonsense", "10.0.0.0/8", True)])
def test_networks_are_compared_as_devices_are_judged_by_them(old: str, new: str, looser_than: bool) -> None:
    before = Policy("one", networks=("192.0.2.0/24",))
    force_setattr(before, "networks", (old,))
    assert bool(looser(before, Policy("one", networks=(new,)))) is looser_than


_WRITES = re.compile(r"^(store\.(add|approve|disapprove|remove|(\w+\.)(add|set|change|remove|offer|end|repair|release|"
                     r"give|import|forget|revoke|close))|changing\.(change|remove)\()")


def test_no_command_writes_in_two_transactions() -> None:
    """Killed in between, such a command leaves something laxer than was asked."""
    twice = []
    for path in Path(changing.__file__).parent.glob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.AsyncFunctionDef):
                writes = [one for one in ast.walk(function)
                          if isinstance(one, ast.Await) and _WRITES.search(ast.unparse(one.value))]
                twice += [f"{path.name}: {function.name}"] if len(writes) > 1 else []
    assert not twice
