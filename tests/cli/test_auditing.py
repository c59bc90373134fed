"""`delegator audit`: every act is told, found again, exported and proved (A4, A11)."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from delegator.cli import operator
from delegator.model.audited import Act, Entry
from delegator.store import Store
from delegator.store.audit import ledger as audit
from delegator.store.transaction import Transaction

from .conftest import Console, process

STEPS = [["connected", 0.0, ""], ["refused", 1.5, "NotEntitled"]]


def tamper(statement: str) -> None:
    with sqlite3.connect("var/delegator.db") as database:
        database.execute(statement)
    database.close()


def write(console: Console, *entries: Entry) -> None:
    async def work(store: Store) -> None:
        await store.audit.append(entries)
    console.store(work)


def refusal(minute: int = 0, **changes: Any) -> Entry:
    return Entry(**{"act": Act.HANDSHAKE, "at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute),
                    "actor": "device", "outcome": "NotEntitled", "service_tag": "ABC1234", "customer": "acme",
                    "peer": "192.0.2.7", "reasons": ("outside its hours",), "detail": {"steps": STEPS}, **changes})


def rows(console: Console, *words: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = console.ok("audit", "list", *words)
    return found


def test_A11_every_command_that_changes_something_leaves_a_row_with_who_and_from_where(
        console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "jo\nroot")
    monkeypatch.setenv("SSH_CLIENT", "2001:db8::7 4711 22")
    console.ok("customers", "add", "acme", "--title", "Acme")
    console.ok("delegates", "add", "small", "--customer", "acme", "--hosted", "admin")
    console.ok("policies", "add", "strict", "--approved-only")
    console.ok("policies", "approve", "strict", "ABC1234")
    console.ok("policies", "change", "strict", "--attempts", "3")
    console.ok("rules", "add", "r", "--delegate", "small", "--model", "M1")
    console.ok("devices", "add", "ABC1234", "--customer", "acme")
    console.ok("policies", "disapprove", "strict", "ABC1234")
    console.ok("devices", "remove", "ABC1234")
    for noun, name in (("rules", "r"), ("delegates", "small"), ("customers", "acme"), ("policies", "strict")):
        console.ok(noun, "remove", name)
    found = rows(console)[::-1]
    assert [one["act"] for one in found] == [
        "audit.began", "customer.added", "delegate.added", "policy.added", "approvals.added", "policy.changed",
        "rule.added", "devices.added", "approvals.removed", "device.removed", "rule.removed", "delegate.removed",
        "customer.removed", "policy.removed"]
    assert {(one["actor"], one["peer"]) for one in found[1:]} == {("operator jo_root", "2001:db8::7")}
    assert next(one for one in found if one["act"] == "policy.changed")["detail"]["fields"] == ["attempts"]


def test_A11_copies_and_new_keys_leave_a_row_too(acme: Console) -> None:
    acme.ok("backup", "copy.db")
    acme.ok("sealing", "rotate")
    assert [one["act"] for one in rows(acme, "--most", "2")] == ["sealing.rotated", "database.backed_up"]
    acme.ok("restore", "copy.db", "--replace")
    assert [one["act"] for one in rows(acme, "--most", "2")] == ["database.restored", "devices.added"]
    acme.ok("audit", "verify")


@pytest.mark.parametrize(("environment", "actor", "place"), [
    ({"SUDO_USER": "jo", "LOGNAME": "root"}, "operator jo", "local"),
    ({"LOGNAME": "ann", "SSH_CONNECTION": "192.0.2.9 1 192.0.2.1 22"}, "operator ann", "192.0.2.9"),
    ({"LOGNAME": "x" * 200, "SSH_CLIENT": "; drop"}, f"operator {'x' * 64}", "local")])
def test_A11_who_gives_a_command_is_what_the_session_says(
        environment: dict[str, str], actor: str, place: str) -> None:
    assert (operator.actor(environment), operator.place(environment)) == (actor, place)


def test_A4_rows_are_listed_by_what_is_asked_for(acme: Console) -> None:
    write(acme, refusal(1), refusal(2, customer="umbra", outcome="TryLater"), refusal(3, service_tag="ABC1235"))
    assert len(rows(acme, "--tag", "ABC1234")) == 3, "the registration is among them"
    assert [one["customer"] for one in rows(acme, "--outcome", "TryLater")] == ["umbra"]
    assert [one["service_tag"] for one in rows(acme, "--from", "2026-01-01T00:03:00Z", "--to", "2026-01-02")] == [
        "ABC1235"]
    assert len(rows(acme, "--act", "handshake.ended", "--most", "2")) == 2
    assert len(rows(acme, "--actor", "device", "--customer", "acme")) == 2
    said = acme.run("audit", "list", "--tag", "ABC1235").out
    assert "outside its hours" in said
    assert said.splitlines()[0].startswith("ROW")
    acme.refused(2, "audit", "list", "--act", "claim.stolen")


def test_A4_one_row_is_shown_with_its_whole_trail(acme: Console) -> None:
    write(acme, refusal())
    acme.serve("ABC1234")
    refused, issued = (rows(acme, "--act", act)[0] for act in ("handshake.ended", "claim.issued"))
    assert "The device was turned away: NotEntitled" in acme.run("audit", "show", refused["row"]).out
    said = acme.run("audit", "show", issued["number"]).out
    assert "The customer's policy was checked" in said
    assert acme.ok("audit", "show", issued["row"]) == issued
    assert "no row main:999" in acme.refused(1, "audit", "show", "999")
    acme.refused(2, "audit", "show", "row-7")


def test_A4_an_export_has_every_row_once_as_csv_and_as_json_lines(acme: Console, place: Path) -> None:
    write(acme, *(refusal(minute, reasons=('said "no",', "=1+1")) for minute in range(5)))
    told = acme.ok("audit", "export", "out.csv")
    as_csv = list(csv.DictReader(io.StringIO((place / "out.csv").read_text())))
    lines = [json.loads(line) for line in acme.run("audit", "export", "--format", "jsonl").out.splitlines()]
    listed = rows(acme)
    assert told["rows"] == len(as_csv) == len(lines) == len(listed)
    assert [one["hash"] for one in as_csv] == [one["hash"] for one in lines]
    assert {one["hash"] for one in lines} == {one["hash"] for one in listed}
    of_device = next(one for one in as_csv if one["act"] == "handshake.ended")
    assert json.loads(of_device["reasons"]) == ['said "no",', "=1+1"]
    assert json.loads(of_device["detail"]) == {"steps": STEPS}
    assert (place / "out.csv").stat().st_mode & 0o077 == 0
    assert len(acme.run("audit", "export", "--format", "jsonl", "--outcome", "NotEntitled").out.splitlines()) == 5


def test_A11_verify_prints_the_heads_and_proves_them_later(acme: Console) -> None:
    (head,) = acme.ok("audit", "verify")["heads"]
    write(acme, refusal())
    done = acme.run("audit", "verify", "--head", head)
    assert done.code == 0
    assert done.out.strip() != head
    assert "are as they were written" in done.err
    chain, number, own = head.split(":")
    other = acme.run("audit", "verify", "--head", f"{chain}:{number}:{'0' * 64}", "--json")
    assert (other.code, other.json["findings"][0]["wrong"]) == (5, "head not in the chain")
    acme.refused(2, "audit", "verify", "--head", own)


@pytest.mark.parametrize(("statement", "wrong", "row"), [
    ("UPDATE audit SET outcome = 'done' WHERE number = 6", "changed", 6),
    ("DELETE FROM audit WHERE number = 6", "removed", 6),
    ("DELETE FROM audit", "removed", 1),
    ("DELETE FROM audit_keys", "key missing", 0)])
def test_A11_verify_says_what_is_wrong_and_where_and_ends_with_5(
        acme: Console, statement: str, wrong: str, row: int) -> None:
    write(acme, *(refusal(minute) for minute in range(5)))
    tamper(statement)
    done = acme.run("audit", "verify", "--json")
    assert done.code == 5
    assert done.json["ok"] is False
    assert [(one["wrong"], one["row"]) for one in done.json["findings"]] == [(wrong, row)]
    told = acme.run("audit", "verify").err
    assert told.startswith(wrong.upper())
    assert "\n  next: " in told


def write_old(console: Console, *entries: Entry) -> None:
    """Into a chain of their own: that of the console begins now, and only the oldest rows of a chain can go."""
    async def work(store: Store) -> None:
        ledger = store._driver.ledger.beside("old")

        def all_of() -> Transaction[None]:
            for entry in entries:
                yield from audit.append(entry)
        await store._driver.driver.run(lambda: ledger.kept(all_of(), store._driver.driver.turn))
    console.store(work)


def test_A11_pruning_keeps_what_stays_verifiable_and_says_what_went(
        acme: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    write_old(acme, *(refusal(minute) for minute in range(5)))
    assert "--older-than" in acme.refused(2, "audit", "prune")
    acme.refused(2, "audit", "prune", "--older-than", "0d")
    monkeypatch.setattr("delegator.cli.auditing.datetime", Clock)
    assert acme.ok("audit", "prune", "--older-than", "400d")["pruned"] == []
    monkeypatch.setenv("DELEGATOR_AUDIT__KEEP_DAYS", "30")
    done = acme.ok("audit", "prune")
    assert done["pruned"] == [{"chain": "old", "up_to": 5, "rows": 5}]
    (row,) = rows(acme, "--act", "audit.pruned")
    assert (row["actor"], row["detail"]["number"]) == (operator.actor(), 5)
    assert acme.ok("audit", "verify")["chains"][-1] == {
        "chain": "old", "rows": 1, "pruned_up_to": 5, "marked_up_to": 1}
    assert "pruned" in acme.refused(1, "audit", "show", "old:3")


class Clock(datetime):
    """Two months after those rows."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime(2026, 3, 1, tzinfo=UTC)


def test_A11_the_rows_of_an_operator_survive_in_a_process_of_its_own(acme: Console, place: Path) -> None:
    done = process("customers", "add", "umbra", "--title", "Umbra", cwd=place, SUDO_USER="kim",
                   SSH_CLIENT="192.0.2.3 1 2")
    assert done.returncode == 0, done.stderr
    (row,) = rows(acme, "--customer", "umbra")
    assert (row["act"], row["actor"], row["peer"]) == ("customer.added", "operator kim", "192.0.2.3")
