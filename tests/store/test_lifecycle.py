"""Contract: a claim changes its state as the table says and in no other way, and each change leaves one row (A4)."""

from __future__ import annotations

import ast
import itertools
import re
from collections import Counter
from pathlib import Path

import pytest

from delegator.errors import DelegatorError
from delegator.model import ClaimState, Result
from delegator.model.lifecycle import LIVE, TABLE, Event, changes
from delegator.store import boards, claims, confirming
from delegator.store.audit.inspection import Wanted
from delegator.store.transaction import Query
from scripts import claims_page

ROOT = Path(claims.__file__).parents[2]
SQL = {path: path.read_text() for path in sorted((ROOT / "delegator" / "store" / "schema").glob("0005_*.sql"))}


async def rows_of(store, tag: str) -> list[tuple[str, str]]:
    """(act, event) of a tag's claims, oldest first."""
    found = await store.audit.list(Wanted(service_tag=tag), 100)
    return [(one.entry.act.value, str(one.entry.detail["event"])) for one in reversed(found)
            if one.entry.claim_id is not None]


def test_A4_the_table_is_a_life_each_event_in_it_once_and_nothing_after_the_end() -> None:
    assert set(TABLE) == set(Event)
    assert {state for pair in changes() for state in pair} == set(ClaimState)
    assert not [pair for pair in changes() if pair[0] is ClaimState.RELEASED], "released is the end"
    assert not [pair for pair in changes() if pair[0] is ClaimState.EXPIRED and pair[1] in LIVE]
    commands = Counter((before, move.after, move.event) for move in TABLE.values() for before in move.before)
    assert set(commands.values()) == {1}


@pytest.mark.parametrize("path", SQL, ids=lambda path: path.name)
def test_A4_the_database_knows_the_same_changes_as_the_table(path: Path) -> None:
    named = re.findall(r"'(\w+) to (\w+)'", SQL[path])
    assert Counter(named) == Counter((before.value, after.value) for before, after in changes())


@pytest.mark.parametrize(("before", "after"), [
    pair for pair in itertools.permutations(ClaimState, 2) if pair not in changes()])
async def test_A4_a_change_that_is_not_in_the_table_is_refused_by_the_database(store, ask, at, before, after) -> None:
    """Whatever statement asks for it, also one that nobody has written yet."""
    claim = (await store.open_claim(ask())).claim
    if before in (ClaimState.ISSUED, ClaimState.CONFIRMED):
        await store.issue(claim.claim_id, "x", at(0))
    if before is ClaimState.CONFIRMED:
        await store.confirm(claim.claim_id, "key:one", Result.DEPLOYED, None, at(1))
    if before is ClaimState.EXPIRED:
        await store.expire_lapsed(at(60))
    if before is ClaimState.RELEASED:
        await store.ownership.release("ABC1234", at(1))

    def forced():
        yield Query("UPDATE claims SET state = $2, sealed = NULL WHERE claim_id = $1", (claim.claim_id, after.value))
    with pytest.raises(DelegatorError):
        await store._driver.run(forced)
    assert (await store.claim(claim.claim_id)).state is before


def test_A4_no_statement_of_the_store_sets_a_state_by_itself() -> None:
    """Each UPDATE that sets one takes it from the table: no literal stands in any of them."""
    for path in sorted((ROOT / "delegator" / "store").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.search(r"UPDATE claims\b.*\bSET\b[^W]*\bstate\s*=", node.value), path
    text = Path(claims.__file__).read_text() + Path(confirming.__file__).read_text()
    used = {Event[name] for name in re.findall(r"Event\.([A-Z]+)", text)}
    ownership = "".join((ROOT / f"delegator/store/{name}.py").read_text() for name in ("ownership", "transfers"))
    assert used | {Event[name] for name in re.findall(r"Event\.([A-Z]+)", ownership)} == set(Event)
    assert "Event" not in Path(boards.__file__).read_text()


async def test_A4_every_change_of_a_claim_leaves_exactly_one_row(store, ask, at) -> None:
    claim = (await store.open_claim(ask())).claim
    assert await rows_of(store, "ABC1234") == [("claim.asked", "asked")]
    await store.issue(claim.claim_id, "x", at(0.5))
    await store.issue(claim.claim_id, "late", at(0.6))
    await store.confirm(claim.claim_id, "key:one", Result.FAILED, "no disk", at(1))
    await store.confirm(claim.claim_id, "key:one", Result.FAILED, "no disk", at(1))
    await store.confirm(claim.claim_id, "key:two", Result.DEPLOYED, None, at(1))
    await store.confirm(claim.claim_id, "key:one", Result.DEPLOYED, None, at(2))
    await store.confirm(claim.claim_id, "key:one", Result.DEPLOYED, None, at(3))
    await store.ownership.release("ABC1234", at(4), "factory reset")
    await store.ownership.release("ABC1234", at(5))
    assert await rows_of(store, "ABC1234") == [
        ("claim.asked", "asked"), ("claim.issued", "delegate answered"), ("claim.failed", "failed"),
        ("claim.confirmed", "deployed"), ("claim.released", "released")]
    (last,) = await store.audit.list(Wanted(act="claim.released"), 9)
    assert (last.entry.reasons, last.entry.claim_id, last.entry.at) == (("factory reset",), claim.claim_id, at(4))


async def test_A4_what_is_opened_and_issued_in_one_commit_leaves_one_row_with_its_trail(store, ask) -> None:
    from msgspec.structs import replace

    asked = replace(ask(), trail=lambda: {"connection": "c1", "steps": [["connected", 0.0, ""]]})
    for _ in range(3):
        await store.open_and_issue(asked, lambda claim: "x")
    (row,) = await store.audit.list(Wanted(service_tag="ABC1234"), 9)
    assert (row.entry.act.value, row.entry.actor, row.entry.peer, row.entry.customer, row.entry.delegate) == (
        "claim.issued", "device", "192.0.2.7", "acme", "acme-1")
    assert row.entry.detail["trail"] == {"connection": "c1", "steps": [["connected", 0.0, ""]]}


async def test_A4_claims_that_lapse_leave_a_row_each_of_the_delegators_own(store, ask, at) -> None:
    for number in range(3):
        await store.open_claim(ask(f"TAG000{number}"))
    assert await store.expire_lapsed(at(60)) == 3
    found = await store.audit.list(Wanted(act="claim.expired"), 9)
    assert {one.entry.service_tag for one in found} == {"TAG0000", "TAG0001", "TAG0002"}
    assert {one.entry.actor for one in found} == {"delegator"}
    await store.open_claim(ask("TAG0000", minute=60, delegate="acme-2"))
    await store.pause_all()
    await store.open_claim(ask("TAG0000", minute=62, delegate="acme-1"))
    assert (await rows_of(store, "TAG0000"))[-2:] == [("claim.expired", "route changed"), ("claim.asked", "asked")]


async def test_A4_a_change_that_is_taken_back_takes_its_row_along(store, ask) -> None:
    def broken(claim):
        raise LookupError("no password")
    with pytest.raises(LookupError):
        await store.open_and_issue(ask(), broken)
    assert await rows_of(store, "ABC1234") == []


def test_A4_the_page_of_claims_is_drawn_from_the_table() -> None:
    """`make docs` draws it anew."""
    page = claims_page.PAGE.read_text(encoding="utf-8")
    assert claims_page.drawn(page) == page
    for before, after in changes():
        assert f"    {before.value} --> {after.value} : " in page
    with pytest.raises(ValueError, match="no lines"):
        claims_page.drawn("# no place\n")
