"""A11 at the command line: plans, a month as text, CSV and JSON, closing, the proof; the page says the truth."""

from __future__ import annotations

import csv
import io
import re
import shlex
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from delegator.cli.usage import COLUMNS
from delegator.model import Answer, Result
from delegator.model.billed import Month
from delegator.store import Store
from delegator.store.transaction import Query

from .conftest import ROOT, Console

PAGE = (ROOT / "docs" / "billing.md").read_text(encoding="utf-8")
THEN = datetime(2025, 11, 12, 8, tzinfo=UTC)
THIS = Month.at(datetime.now(UTC), "UTC")


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


@pytest.fixture
def sold(acme: Console) -> Console:
    """Five devices of acme were served in November 2025, one of them twice, and one confirmed."""
    for number in range(5):
        if number:
            acme.ok("devices", "add", f"ABC123{number + 4}", "--customer", "acme")
        for again in range(2 if number == 1 else 1):
            answer = acme.serve(f"ABC123{number + 4}", at=THEN + timedelta(minutes=number, seconds=90 * again))
            assert isinstance(answer, Answer)

    async def confirmed(store: Store) -> None:
        claim = (await store.claims())[0]
        await store.confirm(claim.claim_id, claim.binding, Result.DEPLOYED, None, THEN + timedelta(minutes=20))
    acme.store(confirmed)
    return acme


@pytest.fixture
def billed(sold: Console) -> Console:
    """The same, with the plan of the page."""
    for line in "".join(blocks("sh")).splitlines():
        done = sold.run(*shlex.split(line)[1:])
        assert done.code == 0, (line, done.err)
    return sold


def forced(console: Console, *statements: str) -> None:
    """What somebody does to the database who owns its file."""
    async def work(store: Store) -> None:
        def all_of():  # type: ignore[no-untyped-def]
            for statement in statements:
                yield Query(statement)
        await store._driver.run(all_of)
    console.store(work)


# --- the page -----------------------------------------------------------------------------------------------------


def test_A11_the_page_shows_what_the_commands_print(billed: Console) -> None:
    (table,), (lines,) = blocks("text"), blocks("csv")
    asking, closing, proving = (shlex.split(block)[1:] for block in blocks(""))
    assert billed.run(*asking).out == table
    assert billed.run(*asking, "--csv").out == lines
    assert billed.run(*closing).code == 0
    assert billed.run(*asking).out == table
    done = billed.run(*proving)
    assert (done.code, done.out) == (0, "")
    assert done.err == "month 2025-11: proven; 5 events, 5 rows of audit, 0 differences, 0 not provable\n"


def test_A11_the_csv_reads_back_and_adds_up(billed: Console) -> None:
    """Also where a title has commas and quotes in it."""
    billed.ok("customers", "change", "acme", "--title", 'Acme, "Sons" & Co')
    rows = list(csv.DictReader(io.StringIO(billed.run("usage", "--month", "2025-11", "--csv").out)))
    assert tuple(rows[0]) == COLUMNS
    assert {row["title"] for row in rows} == {'Acme, "Sons" & Co'}
    data = billed.ok("usage", "--month", "2025-11")
    assert sum(Decimal(row["amount"]) for row in rows) == Decimal(data["totals"][0]["amount"]) == Decimal("10.65")
    for row, line in zip(rows, data["lines"], strict=True):
        assert {name: str(line[name] if line[name] is not None else "") for name in COLUMNS[:-1]} == {
            name: row[name] for name in COLUMNS[:-1]}


# --- a month ------------------------------------------------------------------------------------------------------


def test_A11_what_is_not_over_not_closed_or_without_a_plan_is_said_so(sold: Console) -> None:
    now = sold.run("usage")
    assert (now.code, now.out) == (0, "")
    assert f"month {THIS} is not over" in now.err
    then = sold.run("usage", "--month", "2025-11")
    assert "is not closed" in then.err
    assert "without a plan: acme; see: delegator plans assign" in then.err
    (line,) = sold.ok("usage", "--month", "2025-11")["lines"]
    assert (line["quantity"], line["confirmed"], line["amount"], line["plan"]) == (5, 1, None, None)


def test_A11_one_customer_is_shown_alone(billed: Console) -> None:
    billed.ok("customers", "add", "globex", "--title", "Globex")
    billed.ok("plans", "assign", "globex", "standard", "--from", "2025-11")
    both = billed.ok("usage", "--month", "2025-11")["lines"]
    assert {line["customer"] for line in both} == {"acme", "globex"}
    assert billed.ok("usage", "--month", "2025-11", "--customer", "globex")["lines"] == [
        line for line in both if line["customer"] == "globex"]


def test_A11_months_are_those_of_the_billing_zone(sold: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    sold.ok("devices", "add", "LATE001", "--customer", "acme")
    sold.serve("LATE001", at=datetime(2025, 11, 30, 23, 30, tzinfo=UTC))
    assert sold.ok("usage", "--month", "2025-11")["lines"][0]["quantity"] == 6
    monkeypatch.setenv("DELEGATOR_BILLING__ZONE", "Europe/Berlin")
    found = sold.ok("usage", "--month", "2025-11")
    assert (found["lines"][0]["quantity"], found["zone"]) == (5, "Europe/Berlin")
    assert found["until"] == "2025-11-30T23:00:00Z"
    assert sold.ok("usage", "--month", "2025-12")["lines"][0]["quantity"] == 1
    for wrong in ("Europe/Nowhere", "../etc/passwd"):
        monkeypatch.setenv("DELEGATOR_BILLING__ZONE", wrong)
        assert "[billing] zone" in sold.refused(3, "usage")


@pytest.mark.parametrize("words", [
    ("usage", "--month", "2025-13"), ("usage", "--csv", "--json"), ("usage", "--csv", "reconcile"),
    ("usage", "--month", "2025-11", "close"), ("plans", "add", "p", "--currency", "EUR"),
    ("plans", "add", "p", "--price", "1"), ("plans", "add", "none", "--currency", "EUR", "--price", "1"),
    ("plans", "add", "p", "--currency", "euro", "--price", "1"),
    ("plans", "add", "p", "--currency", "EUR", "--price", "-1"),
    ("plans", "add", "p", "--currency", "EUR", "--price", "1e3"),
    ("plans", "add", "p", "--currency", "EUR", "--price", "1", "--price", "fax=1"),
    ("plans", "add", "p", "--currency", "EUR", "--price", "1", "--price", "ssh=1", "--price", "ssh=2"),
    ("plans", "add", "p", "--currency", "JPY", "--price", "1", "--base-fee", "0.5"), ("plans", "change", "standard")])
def test_A11_what_does_not_fit_is_refused_at_the_door(billed: Console, words: tuple[str, ...]) -> None:
    done = billed.run(*words)
    assert done.code == 2
    assert "\n  next: see: delegator" in done.err or done.out.startswith('{"error"')


# --- plans --------------------------------------------------------------------------------------------------------


def test_A11_a_plan_begins_this_month_and_a_change_the_next(acme: Console) -> None:
    given = acme.ok("plans", "add", "p", "--currency", "EUR", "--price", "0.10", "--price", "ssh=0.5")
    assert given == {"name": "p", "version": 1, "since": str(THIS), "currency": "EUR", "included": 0, "price": "0.10",
                     "prices": {"ssh": "0.5"}, "base_fee": "0"}
    changed = acme.ok("plans", "change", "p", "--price", "soap=0.2", "--included", "7")
    assert changed == {**given, "version": 2, "since": str(THIS.after(1)), "included": 7,
                       "prices": {"ssh": "0.5", "soap": "0.2"}}
    assert acme.ok("plans", "list") == [given, changed]
    assert acme.ok("plans", "assign", "acme", "p")["since"] == str(THIS)
    assert acme.ok("plans", "assign", "acme", "none") == {"customer": "acme", "plan": None,
                                                          "since": str(THIS.after(1))}
    assert acme.ok("plans", "show", "p") == {**given, "versions": [given, changed], "customers": [
        {"customer": "acme", "since": str(THIS), "until": str(THIS)}]}
    shown = acme.run("plans", "show", "p").out
    assert "soap=0.2, ssh=0.5" in shown
    assert "one has or had" not in acme.refused(6, "plans", "remove", "p")
    acme.ok("plans", "add", "q", "--currency", "EUR", "--price", "1")
    acme.refused(6, "plans", "add", "q", "--currency", "EUR", "--price", "1")
    assert acme.ok("plans", "remove", "q") == {"removed": "q"}
    acme.refused(1, "plans", "show", "q")


# --- closing and the proof ----------------------------------------------------------------------------------------


def test_A11_what_is_counted_otherwise_after_closing_is_a_correction(billed: Console) -> None:
    assert "is closed: 2 lines" in billed.run("usage", "close", "--month", "2025-11").err
    billed.ok("devices", "add", "LATE001", "--customer", "acme")
    billed.serve("LATE001", at=THEN)
    found = billed.ok("usage", "--month", "2025-11")
    assert [line["quantity"] for line in found["lines"]] == [5, 1]
    assert found["corrections"] == [{
        "month": "2025-11", "customer": "acme", "item": "hosted", "stated": 5, "counted": 6, "quantity": 1,
        "amount": "0.25", "currency": "EUR", "correction": True}]
    shown = billed.run("usage", "--month", "2025-11")
    assert "CORRECTION OF" in shown.out
    assert "delegator usage reconcile --month 2025-11" in shown.err
    last = billed.run("usage", "--month", "2025-11", "--csv").out.splitlines()[-1]
    assert last == "2025-11,acme,,hosted,1,,,,,0.25,EUR,,,yes"
    assert "--from 2025-12" in billed.refused(6, "plans", "change", "standard", "--price", "9", "--from", "2025-11")
    billed.refused(6, "usage", "close", "--month", "2025-11")


def test_A11_a_month_that_is_not_over_is_not_closed(acme: Console) -> None:
    assert "can be closed from" in acme.refused(75, "usage", "close", "--month", str(THIS))
    assert acme.ok("usage", "close")["month"] == str(THIS.after(-1))


def test_A11_reconcile_tells_what_differs_and_what_it_means(billed: Console) -> None:
    forced(billed, "DROP TRIGGER claims_stay", "DROP TRIGGER claims_billable",
           "DELETE FROM claims WHERE service_tag = 'ABC1235'",
           "UPDATE claims SET customer = 'globex' WHERE service_tag = 'ABC1236'")
    done = billed.run("usage", "reconcile", "--month", "2025-11")
    assert done.code == 5
    assert "differs; 4 events, 5 rows of audit, 2 differences" in done.err
    assert "was not checked; add --verify" in done.err
    assert "a credential was issued and is not billed" in done.err
    assert "customer is globex, in the audit acme" in done.out
    data = billed.run("usage", "reconcile", "--month", "2025-11", "--verify", "--json").json
    assert (data["verdict"], data["audit_verified"], data["not_provable"]) == ("differs", True, 0)
    assert {one["what"] for one in data["differences"]} == {"row of audit without an event",
                                                            "event and row of audit differ"}


def test_A11_an_audit_that_is_not_as_it_was_written_proves_nothing(billed: Console) -> None:
    forced(billed, "UPDATE audit SET customer = 'globex' WHERE act = 'claim.confirmed'")
    assert billed.run("usage", "reconcile", "--month", "2025-11").code == 0
    done = billed.run("usage", "reconcile", "--month", "2025-11", "--verify")
    assert done.code == 5
    assert "so it proves nothing; see: delegator audit verify" in done.err
    assert "chain main, row " in done.out


def test_A11_months_whose_audit_was_pruned_are_told_as_not_provable(billed: Console) -> None:
    async def pruned(store: Store) -> None:
        before = datetime.now(UTC) + timedelta(days=1)
        await store.audit.prune(await store.audit.prunable(before), before, before)
    billed.store(pruned)
    done = billed.run("usage", "reconcile", "--month", "2025-11", "--verify")
    assert (done.code, done.out) == (5, "")
    assert re.search(r"not provable; 5 events, 0 rows of audit, 0 differences, [1-5] not provable", done.err), done.err
    assert "the audit is complete from" in done.err


def test_A11_the_handshake_notes_how_the_delegate_was_reached(sold: Console) -> None:
    async def read(store: Store) -> set[str | None]:
        return {claim.callback and claim.callback.value for claim in await store.claims()}
    assert sold.store(read) == {"hosted"}
    assert Path("var/delegator.db").exists()
