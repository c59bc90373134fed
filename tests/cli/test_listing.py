"""Every list is bounded, says when there is more and when there is nothing, and knows a name that nobody has.

The lists are found in the tree of commands, so a new one is held to this. Names that nobody has are answered with those
that are near, and complete in the shell.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete

from delegator.cli import completing, main
from delegator.desk import forms
from delegator.errors import DelegatorError

from ..clock import today
from .conftest import Console
from .test_commands import VERBS, complete

LISTS = [path for path in VERBS if path.split()[-1] in ("list", "contested")]
OF_THE_DELEGATE = "delegate list"
"""It reads the delegate's own ledger and no store."""
NAMING = {"customer": "nobody", "delegate": "nobody", "policy": "nobody", "order": "nobody", "plan": "nobody"}
"""Filters that name what somebody must have registered, each with a name that nobody has."""


def options(path: str) -> dict[str, click.Option]:
    return {str(one.name): one for one in VERBS[path].params if isinstance(one, click.Option)}


def test_the_lists_are_found() -> None:
    assert len(LISTS) >= 13


@pytest.mark.parametrize("path", LISTS)
def test_a_list_has_a_bound_and_a_filter(path: str) -> None:
    found = options(path)
    assert isinstance(found["most"].type, click.IntRange)
    assert set(found) - {"most", "as_json", "path"}, "nothing to choose by"


@pytest.mark.parametrize("path", [path for path in LISTS if path not in ("audit list", OF_THE_DELEGATE)])
@pytest.mark.parametrize("json_", [(), ("--json",)])
def test_nothing_found_is_said_on_standard_error(console: Console, path: str, json_: tuple[str, ...]) -> None:
    done = console.run(*path.split(), *json_)
    assert (done.code, done.out) == (0, "[]\n" if json_ else "")
    assert done.err.startswith("no ")
    assert done.err.rstrip().endswith(" found")


def test_nothing_found_in_the_audit_is_said_too(console: Console) -> None:
    assert console.run("audit", "list", "--actor", "nobody").err == "no rows found\n"


@pytest.mark.parametrize(("path", "option"), [
    (path, option) for path in LISTS for option in options(path) if option in NAMING and path != OF_THE_DELEGATE])
def test_a_name_that_nobody_has_is_an_error_and_no_empty_list(acme: Console, path: str, option: str) -> None:
    words = acme.refused(1, *path.split(), f"--{option}", NAMING[option])
    assert "nobody" in words


@pytest.mark.parametrize("words", [
    ("devices", "export"), ("orders", "export"), ("audit", "export"), ("usage",)])
def test_what_is_told_of_a_customer_is_told_of_none_that_there_is_not(acme: Console, words: tuple[str, ...]) -> None:
    assert "did you mean acme?" in acme.refused(1, *words, "--customer", "acmee")


@pytest.fixture
def many(acme: Console) -> Console:
    """Three of everything that can be listed."""
    for number in range(1, 4):
        acme.ok("customers", "add", f"c{number}", "--title", f"C{number}")
        acme.ok("delegates", "add", f"d{number}", "--customer", "acme", "--hosted", "u", "--mail-to", "a@acme.example")
        acme.ok("devices", "add", f"ABC100{number}", "--customer", "acme", "--order", "1", "--model", "R1",
                "--delegate", f"d{number}")
        acme.ok("orders", "add", f"o{number}", "--customer", "acme")
        acme.ok("rules", "add", f"r{number}", "--delegate", "acme-small", "--model", f"R{number}")
        acme.ok("policies", "add", f"p{number}")
        acme.ok("plans", "add", f"plan{number}", "--currency", "EUR", "--price", "1")
        acme.ok("transfers", "offer", f"ABC100{number}", "--to", "c1")
        assert not isinstance(acme.serve(f"ABC100{number}"), DelegatorError)
    return acme


FULL = [path for path in LISTS if path not in (OF_THE_DELEGATE, "claims contested", "enrolments list")]


def test_a_list_is_cut_and_says_so(many: Console) -> None:
    for path in FULL:
        whole = many.run(*path.split(), "--json")
        assert len(whole.json) >= 3, path
        assert "more" not in whole.err, path
        cut = many.run(*path.split(), "--most", "2", "--json")
        assert cut.json == whole.json[:2], path
        assert "there are more" in cut.err, path
        text = many.run(*path.split(), "--most", "2").out
        assert len(text.splitlines()) == 3, path
        exact = many.run(*path.split(), "--most", str(len(whole.json)))
        assert "more" not in exact.err, path


@pytest.mark.parametrize(("words", "found"), [
    (("customers", "list", "--disabled"), []), (("customers", "list", "--policy", "p1"), ["c1"]),
    (("delegates", "list", "--callback", "hosted", "--enabled"), ["acme-small", "d1", "d2", "d3"]),
    (("delegates", "list", "--callback", "soap"), []),
    (("devices", "list", "--order", "4711"), ["ABC1234"]), (("devices", "list", "--model", "R1"), ["ABC1001", "ABC1002",
                                                                                                 "ABC1003"]),
    (("devices", "list", "--delegate", "d1"), ["ABC1234", "ABC1001"]), (("orders", "list", "--delegate", "d2"), ["o1"]),
    (("rules", "list", "--customer", "c1"), []), (("rules", "list", "--delegate", "acme-small"), ["r1", "r2", "r3"]),
    (("policies", "list", "--customer", "c1"), ["p1"]), (("plans", "list", "--customer", "acme"), ["plan1"]),
    (("claims", "list", "--state", "issued", "--tag", "ABC1001"), ["ABC1001"]),
    (("transfers", "list", "--customer", "c2"), []), (("claims", "list", "--state", "confirmed"), [])])
def test_filters_choose(many: Console, words: tuple[str, ...], found: list[str]) -> None:
    many.ok("customers", "change", "c1", "--policy", "p1")
    many.ok("devices", "change", "ABC1234", "--delegate", "d1")
    many.ok("orders", "change", "o1", "--delegate", "d2")
    many.ok("plans", "assign", "acme", "plan1")
    names = [one.get("name") or one.get("service_tag") or one.get("order") for one in many.ok(*words)]
    assert names == found


# --- what was meant -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "meant"), [
    (("devices", "show", "abc1234"), "ABC1234"), (("devices", "show", "ABC 1234"), "ABC1234"),
    (("devices", "show", " ABC1234"), "ABC1234"), (("devices", "show", "ABC-1234"), "ABC1234"),
    (("devices", "remove", "abc1234"), "ABC1234"), (("devices", "change", "abc1234", "--model", "R1"), "ABC1234"),
    (("devices", "return", "abc1234"), "ABC1234"), (("devices", "repair", "abc1234", "--because", "x"), "ABC1234"),
    (("devices", "show", "sn-0042"), "SN-0042"), (("devices", "show", "ABCI234"), "ABC1234"),
    (("claims", "release", "abc1234"), "ABC1234"), (("claims", "list", "--tag", "abc1234"), "ABC1234"),
    (("enrolments", "show", "abc 1234"), "ABC1234"), (("enrolments", "revoke", "ABCI234"), "ABC1234"),
    (("transfers", "offer", "abc1234", "--to", "acme"), "ABC1234"), (("transfers", "show", "abc1234"), "ABC1234"),
    (("transfers", "accept", "abc1234", "--as", "acme"), "ABC1234"), (("explain", "abc1234"), "ABC1234"),
    (("policies", "approve", "p", "abc1234"), "ABC1234"), (("audit", "list", "--tag", "abc1234"), "ABC1234"),
    (("devices", "add", "--mac", "001a.2b3c.4d5e", "--customer", "acme"), "00:1A:2B:3C:4D:5E"),
    (("customers", "show", "acmee"), "acme"), (("customers", "remove", "akme"), "acme"),
    (("customers", "show", "ACME"), "acme"), (("customers", "enable", "acm"), "acme"),
    (("delegates", "show", "acme-smal"), "acme-small"), (("rules", "show", "berlim"), "berlin"),
    (("rules", "remove", "berln"), "berlin"), (("policies", "show", "rolout"), "rollout"),
    (("policies", "try", "rolout"), "rollout"), (("plans", "show", "standart"), "standard"),
    (("orders", "show", "po-4711"), "PO-4711"), (("orders", "remove", "PO 4711"), "PO-4711"),
    (("devices", "list", "--customer", "acmee"), "acme"), (("plans", "assign", "acmee", "standard"), "acme"),
    (("devices", "add", "ABC1239", "--customer", "acmee"), "acme"),
    (("devices", "add", "ABC1239", "--customer", "acme", "--delegate", "acme-smal"), "acme-small")])
def test_what_is_not_there_is_answered_with_what_was_meant(acme: Console, words: tuple[str, ...], meant: str) -> None:
    acme.ok("devices", "add", "--serial", "SN-0042", "--customer", "acme")
    acme.ok("rules", "add", "berlin", "--delegate", "acme-small", "--model", "R1")
    acme.ok("policies", "add", "rollout")
    acme.ok("plans", "add", "standard", "--currency", "EUR", "--price", "1")
    acme.ok("orders", "add", "PO-4711", "--customer", "acme")
    done = acme.run(*words)
    assert done.code in (1, 2), done.err
    assert f"did you mean {meant}?" in done.err


def test_explain_and_filters_tell_of_a_tag_that_looks_alike(acme: Console) -> None:
    assert "did you mean ABC1234?" in acme.run("explain", "ABCI234").err
    done = acme.run("claims", "list", "--tag", "ABCI234")
    assert (done.code, done.out) == (0, "")
    assert "did you mean ABC1234?" in done.err


def test_what_is_like_nothing_is_not_guessed(acme: Console) -> None:
    assert "did you mean" not in acme.refused(1, "customers", "show", "zzz")
    assert "did you mean" not in acme.refused(1, "devices", "show", "QQQ9999")


# --- completion ---------------------------------------------------------------------------------------------------


def completed(*words: str) -> list[str]:
    """As click completes a line whose last word is begun."""
    found = ShellComplete(main, {}, "delegator", "_DELEGATOR_COMPLETE").get_completions(list(words[:-1]), words[-1])
    return [item.value for item in found]


@pytest.mark.parametrize(("words", "found"), [
    (("customers", "show", ""), ["acme"]), (("customers", "remove", "x"), []), (("customers", "add", ""), []),
    (("delegates", "change", "acme"), ["acme-small"]), (("devices", "list", "--customer", "a"), ["acme"]),
    (("devices", "show", "ABC"), ["ABC1234"]), (("devices", "show", "SN"), ["SN-1"]),
    (("explain", "A"), ["ABC1234"]), (("rules", "add", "x", "--delegate", ""), ["acme-small"]),
    (("rules", "show", ""), ["berlin"]), (("policies", "approve", "r"), ["rollout"]),
    (("policies", "approve", "rollout", "A"), ["ABC1234"]), (("orders", "show", ""), ["4711"]),
    (("plans", "assign", "acme", ""), ["standard"]), (("transfers", "offer", "ABC1234", "--to", ""), ["acme"]),
    (("transfers", "accept", "ABC1234", "--as", ""), ["acme"]), (("usage", "--customer", ""), ["acme"]),
    (("customers", "change", "acme", "--policy", ""), ["rollout"])])
def test_names_complete(acme: Console, words: tuple[str, ...], found: list[str]) -> None:
    acme.ok("devices", "add", "--serial", "SN-1", "--customer", "acme")
    acme.ok("rules", "add", "berlin", "--delegate", "acme-small", "--model", "R1")
    acme.ok("policies", "add", "rollout")
    acme.ok("plans", "add", "standard", "--currency", "EUR", "--price", "1")
    acme.ok("orders", "add", "4711", "--customer", "acme")
    assert completed(*words) == found


def test_every_parameter_that_takes_a_name_completes() -> None:
    """Found by its form, so that a new command is held to it."""
    named = [(path, one) for path, command in VERBS.items() for one in command.params
             if getattr(one.type, "func", None) in (forms.name, forms.owner, forms.tag, forms.identifier)]
    silent = [f"{path} {one.name}" for path, one in named if not isinstance(one.type, completing.Known)
              and not (path.split()[-1] == "add" and isinstance(one, click.Argument))]
    assert silent == []
    assert len(named) > 60


def test_few_names_are_told_and_in_a_blink(acme: Console) -> None:
    rows = "\n".join(f"T{number:06}" for number in range(3000))
    acme.ok("devices", "import", "-", "--customer", "acme", stdin=f"service_tag\n{rows}\n")
    began = time.monotonic()
    assert len(completed("devices", "show", "T")) == 50
    assert time.monotonic() - began < 1


def _files() -> dict[str, Any]:
    return {one.name: one.stat().st_mtime_ns for one in Path("var").iterdir()}


def test_completing_writes_nothing(acme: Console) -> None:
    before = _files()
    assert completed("customers", "show", "") == ["acme"]
    assert _files() == before


@pytest.mark.parametrize("store", ["none", "empty", "text", "folder", "settings", "server"])
def test_where_there_is_no_store_nothing_completes_and_nothing_is_said(
        place: Path, store: str, capfd: pytest.CaptureFixture[str]) -> None:
    if store != "none":
        (place / "var").mkdir()
    if store in ("empty", "text"):
        (place / "var" / "delegator.db").write_text("" if store == "empty" else "no database" * 999)
    if store == "folder":
        (place / "var" / "delegator.db").mkdir()
    if store == "settings":
        (place / "delegator.toml").write_text("[store\n")
    if store == "server":
        (place / "delegator.toml").write_text('[store]\nurl = "postgresql://delegator@127.0.0.1:1/delegator"\n')
    before = sorted(place.iterdir())
    assert completed("customers", "show", "") == []
    assert sorted(place.iterdir()) == before
    assert capfd.readouterr() == ("", "")


def test_a_shell_is_told_the_names_by_the_program_itself(acme: Console, place: Path) -> None:
    assert complete(place, "delegator customers show ", 3)[0] == ["acme"]


def test_a_running_delegator_does_not_hinder_completion(acme: Console) -> None:
    """While the database is open its newest changes stand in a second file."""
    async def work(store: Any) -> list[str]:
        from delegator.model import Customer

        await store.add_customer(Customer("newer", "Newer"), today())
        return completed("customers", "show", "")
    assert acme.store(work) == ["acme", "newer"]


def test_lists_stay_json_when_cut(acme: Console) -> None:
    acme.ok("devices", "add", "ABC1235", "--customer", "acme")
    done = acme.run("devices", "list", "--most", "1", "--json")
    assert [one["service_tag"] for one in json.loads(done.out)] == ["ABC1234"]
