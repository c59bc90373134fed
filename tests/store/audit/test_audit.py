"""Contract: the audit. Whatever is done to its rows by somebody with the database and without the key is found (A4,
A11): rows changed, removed, added, swapped, moved; ends cut off; checkpoints and marks forged."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegator.errors import DelegatorError, Kind
from delegator.model import Customer, Delegate, HostedCallback, NotificationKind, Policy, Rule, Secret, Telling
from delegator.model.audited import Act, Entry
from delegator.sealing import SealingKey
from delegator.store.audit import ledger as audit
from delegator.store.audit.chain import START, Head, Link, hash_of, link, seal_of
from delegator.store.audit.inspection import Wanted, page_of, rows_of
from delegator.store.audit.verification import Known, Wrong
from delegator.store.transaction import Query

from ...clock import today

KEY = b"a" * 32
OTHER = "another"


async def sql(store, *statements: str) -> None:
    """What somebody with the database's password can do."""
    def work():
        for statement in statements:
            yield Query(statement)
    await store._driver.run(work)


async def put_hash(store, own: bytes, chain: str, number: int) -> None:
    def work():
        yield Query("UPDATE audit SET hash = $1 WHERE chain = $2 AND number = $3", (own, chain, number))
    await store._driver.run(work)


async def read(store, statement: str) -> list[tuple]:
    return [tuple(row) for row in await store._driver.read(Query(statement))]


async def verified(store, *known: Known) -> list[tuple[Wrong, str, int]]:
    verification = store.audit.verification(known)
    async for _ in verification.run():
        pass
    return [(one.wrong, one.chain, one.number) for one in verification.findings]


async def heads(store) -> dict[str, Head]:
    verification = store.audit.verification()
    async for _ in verification.run():
        pass
    assert verification.findings == []
    return {chain: walk.head for chain, walk in verification.walks.items()}


def entry(at, minute: float = 0, **changes) -> Entry:
    return Entry(**{"act": Act.HANDSHAKE, "at": at(minute), "actor": "device", "outcome": "NotEntitled",
                    "service_tag": "ABC1234", "customer": "acme", "peer": "192.0.2.7", "reasons": ("no", "never"),
                    "detail": {"steps": [["connected", 0.0, ""]]}, **changes})


@pytest.fixture
async def kept(store, at):
    """A store with ten rows after those of its beginning, in one transaction: so in one chain."""
    await store.audit.append([entry(at, minute, peer=f"192.0.2.{minute}") for minute in range(10)])
    return store


@pytest.fixture
async def chain(kept) -> str:
    """The chain that those rows are in."""
    found = await read(kept, "SELECT chain FROM audit WHERE peer = '192.0.2.5'")
    return str(found[0][0])


@pytest.fixture
async def number(kept) -> int:
    """The row of minute 5."""
    return int((await read(kept, "SELECT number FROM audit WHERE peer = '192.0.2.5'"))[0][0])


# --- written ------------------------------------------------------------------------------------------------------


async def test_A4_a_row_says_who_what_when_from_where_how_it_ended_and_why(kept, at):
    (found,) = [one for one in await kept.audit.list(Wanted(act=Act.HANDSHAKE.value), 100)
                if one.entry.peer == "192.0.2.5"]
    assert found.entry == entry(at, 5, peer="192.0.2.5")
    assert await kept.audit.record(found.chain, found.number) == found
    assert await verified(kept) == []


async def test_A11_a_row_and_what_it_tells_of_are_one_transaction(kept, at):
    """What fails leaves neither, and the next row follows the last one that is there."""
    def work():
        yield Query("UPDATE revision SET number = 4711")
        yield from audit.append(entry(at, outcome="Lost"))
        raise DelegatorError(Kind.CONFLICT, "no")

    with pytest.raises(DelegatorError, match="no"):
        await kept._driver.run(work)
    assert await kept.audit.list(Wanted(outcome="Lost"), 9) == []
    await kept.audit.append([entry(at, outcome="Next")])
    assert await verified(kept) == []


async def test_A11_a_transaction_of_many_rows_reads_the_end_of_its_chain_once(kept, at):
    def work():
        for minute in range(3):
            yield from audit.append(entry(at, minute))
    asked: list[str] = []

    def listened():
        through = kept._driver.ledger.beside(OTHER).kept(work(), kept._driver.driver.turn)
        query = next(through)
        while True:
            asked.append(query.sql)
            try:
                query = through.send((yield query))
            except StopIteration:
                return
    await beside(kept, at)
    await kept._driver.driver.run(listened)
    assert [sql.split()[0] for sql in asked] == ["SELECT", "INSERT", "INSERT", "INSERT"]
    assert await verified(kept) == []


async def test_A11_transactions_that_share_a_commit_chain_on_whichever_of_them_fail(kept, at):
    """Among them one that fails before it has a row, and one after."""
    def failing(minute: int, after: bool):
        yield from audit.append(entry(at, minute)) if after else ()
        raise DelegatorError(Kind.CONFLICT, "not this one")

    works = [lambda n=n: audit.append(entry(at, n)) for n in range(12)]
    works[3:3], works[7:7] = [lambda: failing(20, after=True)], [lambda: failing(21, after=False)]
    for _ in range(2):
        done = await asyncio.gather(*(kept._driver.run(one) for one in works), return_exceptions=True)
        assert [type(one) for one in done].count(DelegatorError) == 2
    assert await kept.audit.count(Wanted(act=Act.HANDSHAKE.value)) == 10 + 2 * 12
    assert await verified(kept) == []


async def test_A11_a_commit_of_many_reads_the_end_of_the_chain_once(opening_sqlite, at):
    store = await opening_sqlite()
    asked: list[str] = []
    store._driver.driver._writer._connection.set_trace_callback(asked.append)
    await asyncio.gather(*(store.audit.append([entry(at, minute)]) for minute in range(60)))
    commits = asked.count("COMMIT")
    assert 1 <= commits <= 4
    assert sum(one.startswith("SELECT number, hash FROM audit") for one in asked) == commits
    assert await verified(store) == []


async def test_A11_a_transaction_without_a_ledger_writes_no_row_unnoticed(kept, at):
    with pytest.raises(Exception, match=r"row|syntax"):
        await kept._driver.driver.run(lambda: audit.append(entry(at)))


async def test_A11_processes_that_take_turns_keep_one_verifiable_whole(opening, at):
    one, other = await opening(), await opening()
    for minute in range(5):
        await one.audit.append([entry(at, minute)])
        await other.audit.append([entry(at, minute), entry(at, minute)])
    assert await one.audit.count(Wanted(act=Act.HANDSHAKE.value)) == 15
    assert await verified(one) == []


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
_entries = st.builds(
    Entry, act=st.sampled_from(Act), at=st.datetimes(timezones=st.just(UTC)).map(
        lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)), actor=_texts, outcome=_texts,
    service_tag=st.none() | _texts, customer=st.none() | _texts, delegate=st.none() | _texts,
    claim_id=st.none() | _texts, peer=st.none() | _texts, reasons=st.lists(_texts, max_size=2).map(tuple),
    detail=st.dictionaries(_texts, st.none() | st.integers(-9, 9) | _texts, max_size=2), repeated=st.integers(1, 9))


@given(_entries, _entries)
def test_A11_no_two_entries_have_one_hash_unless_they_are_one(one, other):
    same = link("main", 1, one) == link("main", 1, other)
    assert (hash_of(KEY, START, link("main", 1, one)) == hash_of(KEY, START, link("main", 1, other))) is same


@given(_entries)
def test_A11_place_and_predecessor_are_in_the_hash_and_no_seal_is_a_rows(one):
    row = link("main", 1, one)
    hashes = [hash_of(KEY, START, row), hash_of(KEY, START, row._replace(number=2)),
              hash_of(KEY, START, row._replace(chain="other")), hash_of(KEY, b"x" * 32, row),
              hash_of(b"b" * 32, START, row), seal_of(KEY, "mark", "main", Head(1, START)),
              seal_of(KEY, "checkpoint", "main", Head(1, START))]
    assert len(set(hashes)) == len(hashes)


@given(_texts, _texts, _texts, _texts)
def test_A11_text_cannot_slip_from_one_column_into_the_next(actor, outcome, other_actor, other_outcome):
    def row(actor: str, outcome: str) -> Link:
        return Link("main", 1, 0, 0, "x", actor, outcome, None, None, None, None, None, 1, "[]", "{}")
    same = (actor, outcome) == (other_actor, other_outcome)
    assert (hash_of(KEY, START, row(actor, outcome)) == hash_of(KEY, START, row(other_actor, other_outcome))) is same


# --- tampered with ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [
    "outcome = 'Answered'", "service_tag = NULL", "service_tag = 'ABC1235'", "customer = 'umbra'", "at = at + 1",
    "until_at = until_at + 1", "repeated = 2", "actor = 'operator eve'", "peer = '192.0.2.99'", "reasons = '[]'",
    "detail = '{}'", "claim_id = 'x'", "act = 'claim.issued'", "delegate = 'd'"])
async def test_A11_a_change_of_any_column_is_found_where_it_is(kept, chain, number, change):
    await sql(kept, f"UPDATE audit SET {change} WHERE chain = '{chain}' AND number = {number}")
    assert await verified(kept) == [(Wrong.CHANGED, chain, number)]


async def test_A11_a_hash_made_without_the_key_is_found(kept, chain, number, at):
    """The intruder knows everything about chains, but not the key."""
    rows = await read(kept, f"SELECT * FROM audit WHERE chain = '{chain}' AND number >= {number - 1} ORDER BY number")
    before = rows[0][15]
    for row in rows[1:]:
        changed = Link._make(row[:15])._replace(outcome="Answered")
        before = hash_of(b"guess" * 8, before, changed)
        await sql(kept, f"UPDATE audit SET outcome = 'Answered' WHERE chain = '{chain}' AND number = {row[1]}")
        await put_hash(kept, before, chain, row[1])
    assert await verified(kept) == [(Wrong.CHANGED, chain, number)]


async def test_A11_a_removed_row_is_found(kept, chain, number):
    await sql(kept, f"DELETE FROM audit WHERE chain = '{chain}' AND number = {number}")
    assert await verified(kept) == [(Wrong.REMOVED, chain, number)]


async def test_A11_closing_the_gap_does_not_help(kept, chain, number):
    await sql(kept, f"DELETE FROM audit WHERE chain = '{chain}' AND number = {number}")
    for later in range(number + 1, number + 5):
        await sql(kept, f"UPDATE audit SET number = {later - 1} WHERE chain = '{chain}' AND number = {later}")
    assert [one[1:] for one in await verified(kept)] == [(chain, number)]


async def test_A11_swapped_rows_are_told_as_swapped(kept, chain, number):
    await sql(kept, f"UPDATE audit SET number = -1 WHERE chain = '{chain}' AND number = {number}",
              f"UPDATE audit SET number = {number} WHERE chain = '{chain}' AND number = {number + 1}",
              f"UPDATE audit SET number = {number + 1} WHERE chain = '{chain}' AND number = -1")
    assert await verified(kept) == [(Wrong.SWAPPED, chain, number)]


async def test_A11_an_added_row_is_found(kept, chain):
    columns = ", ".join(Link._fields)
    next_one = "(SELECT max(number) + 1 FROM audit AS a WHERE a.chain = audit.chain)"
    await sql(kept, f"INSERT INTO audit ({columns}, hash) SELECT {columns.replace('number', next_one)}, hash "
                    f"FROM audit WHERE chain = '{chain}' AND peer = '192.0.2.5'")
    (found,) = await verified(kept)
    assert found[:2] in ((Wrong.CHANGED, chain), (Wrong.SWAPPED, chain))


async def beside(store, at) -> None:
    """Rows in a second chain, which knows how far the first one was."""
    ledger = store._driver.ledger.beside(OTHER)
    await store._driver.driver.run(lambda: ledger.kept(audit.append(entry(at, 20)), store._driver.driver.turn))
    await store._driver.driver.run(lambda: ledger.kept(audit.append(entry(at, 21)), store._driver.driver.turn))


async def test_A11_a_row_from_another_chain_is_told_as_such(kept, chain, at):
    await beside(kept, at)
    await sql(kept, f"DELETE FROM audit WHERE chain = '{chain}' AND number = 2",
              f"UPDATE audit SET chain = '{chain}' WHERE chain = '{OTHER}' AND number = 2")
    assert (Wrong.MOVED, chain, 2) in await verified(kept)


async def test_A11_a_chain_that_we_never_began_is_found(kept, chain):
    await sql(kept, f"UPDATE audit SET chain = 'foreign' WHERE chain = '{chain}' AND number > 3")
    assert ("foreign",) in {one[1:2] for one in await verified(kept)}
    await sql(kept, "DELETE FROM audit WHERE chain = 'foreign' AND number > 3")
    assert await verified(kept) == []


async def test_A11_an_end_cut_off_is_found_up_to_the_last_mark(kept, chain, at):
    await kept.audit.mark(at(30))
    last = (await heads(kept))[chain].number
    await sql(kept, f"DELETE FROM audit WHERE chain = '{chain}' AND number > {last - 3}")
    assert await verified(kept) == [(Wrong.REMOVED, chain, last - 2)]


async def test_A11_an_end_cut_off_and_grown_again_is_found(kept, chain, at):
    """The evidence outlasts what the delegator writes and marks afterwards."""
    await kept.audit.mark(at(30))
    last = (await heads(kept))[chain].number
    await sql(kept, f"DELETE FROM audit WHERE chain = '{chain}' AND number > {last - 3}")
    driver = kept._driver.driver
    await driver.run(lambda: kept._driver.ledger.beside(chain).kept(grow(at), driver.turn))
    assert (await kept.audit.mark(at(40))).broken == (chain,)
    assert await verified(kept) == [(Wrong.HEAD, chain, last)]


def grow(at):
    for minute in range(6):
        yield from audit.append(entry(at, minute))


async def test_A11_a_head_known_from_elsewhere_shows_what_the_database_alone_cannot(kept, chain, at):
    last = (await heads(kept))[chain]
    known = Known(chain, last, "the log")
    await kept.audit.append([entry(at, 50)])
    assert await verified(kept, known) == []
    await sql(kept, f"DELETE FROM audit WHERE chain = '{chain}' AND number >= {last.number}")
    assert await verified(kept) == [], "nothing in the database remembers the newest rows"
    assert await verified(kept, known) == [(Wrong.HEAD, chain, last.number)]
    assert await verified(kept, Known("nowhere", last, "the log"))


@pytest.mark.parametrize("also", ["", "DELETE FROM audit_marks"])
async def test_A11_an_emptied_table_is_found(kept, also):
    await sql(kept, "DELETE FROM audit", *([also] if also else []))
    found = await verified(kept)
    assert found
    assert {one[0] for one in found} == {Wrong.REMOVED}


async def test_A11_a_whole_chain_gone_is_missed_by_the_one_that_began_after_it(kept, chain, at):
    await beside(kept, at)
    await sql(kept, f"DELETE FROM audit WHERE chain = '{chain}'", f"DELETE FROM audit_marks WHERE chain = '{chain}'")
    assert (Wrong.HEAD, chain) in {one[:2] for one in await verified(kept)}


async def test_A11_chains_vouch_for_each_other_at_every_mark(kept, chain, at):
    await beside(kept, at)
    await kept.audit.append([entry(at, minute) for minute in range(3)])
    last = (await kept.audit.mark(at(60))).heads[OTHER]
    await sql(kept, f"DELETE FROM audit WHERE chain = '{OTHER}'", f"DELETE FROM audit_marks WHERE chain = '{OTHER}'")
    assert await verified(kept) == [(Wrong.HEAD, OTHER, last.number)]


async def test_A11_forged_marks_are_found(kept, chain):
    await sql(kept, f"UPDATE audit_marks SET number = 2 WHERE chain = '{chain}'")
    assert await verified(kept) == [(Wrong.MARK, chain, 0)]


async def test_A11_without_its_key_nothing_is_verified_or_written(opening, at):
    store = await opening()
    await sql(store, "DELETE FROM audit_keys")
    late = await opening()
    with pytest.raises(DelegatorError, match="key of its hashes is gone"):
        late.audit.verification()
    with pytest.raises(DelegatorError, match="key of its hashes is gone"):
        await late.add_customer(Customer("acme", "Acme"), today())
    assert await late.customers() == []


# --- pruned -------------------------------------------------------------------------------------------------------


async def prune(store, before, now) -> list[tuple[str, int]]:
    what = await store.audit.prunable(before)
    await store.audit.prune(what, before, now)
    return [(one.chain, one.rows) for one in what]


async def old_chain(store, at, minutes: int) -> None:
    """A chain whose rows are as old as the test says: one a minute."""
    ledger = store._driver.ledger.beside("old")

    def work():
        for minute in range(minutes):
            yield from audit.append(entry(at, minute))
    await store._driver.driver.run(lambda: ledger.kept(work(), store._driver.driver.turn))


async def test_A11_pruning_removes_the_oldest_rows_and_says_so(store, at):
    await old_chain(store, at, 20)
    assert await prune(store, at(10), at(100)) == [("old", 11)]
    (row,) = await store.audit.list(Wanted(act=Act.AUDIT_PRUNED.value), 9)
    assert row.entry.detail["chain"] == "old"
    assert (row.entry.detail["number"], row.entry.actor) == (11, "delegator")
    assert (await store.audit.chains())["old"] == 10
    assert await verified(store) == []
    assert await prune(store, at(10), at(100)) == []
    assert await prune(store, at(10_000), at(100)) == [("old", 9)], "the newest row of a chain stays"
    assert await verified(store) == []


async def test_A11_a_row_that_went_on_later_is_kept_until_that_is_old(store, at):
    ledger = store._driver.ledger.beside("old")

    def work():
        yield from audit.append(entry(at, 0))
        yield from audit.append(entry(at, 1, until=at(60), repeated=40))
        yield from audit.append(entry(at, 2))
    await store._driver.driver.run(lambda: ledger.kept(work(), store._driver.driver.turn))
    assert await prune(store, at(30), at(100)) == [("old", 2)]


@pytest.mark.parametrize(("forgery", "wrong"), [
    ("UPDATE audit_checkpoints SET number = 12", Wrong.CHECKPOINT),
    ("DELETE FROM audit_checkpoints", Wrong.REMOVED),
    ("DELETE FROM audit WHERE chain = 'old' AND number = 12", Wrong.REMOVED)])
async def test_A11_a_checkpoint_forged_or_removed_is_found(store, at, forgery, wrong):
    await old_chain(store, at, 20)
    await prune(store, at(10), at(100))
    await sql(store, forgery)
    assert [one[:2] for one in await verified(store)] == [(wrong, "old")]


async def test_A11_a_checkpoint_cannot_be_moved_with_the_seal_of_another(store, at):
    """A mark of the same place is sealed too, and does not do for a checkpoint."""
    await old_chain(store, at, 20)
    await store.audit.mark(at(100))
    await sql(store, "INSERT INTO audit_checkpoints (chain, number, hash, seal) SELECT chain, number, hash, seal "
                     "FROM audit_marks WHERE chain = 'old'", "DELETE FROM audit WHERE chain = 'old' AND number < 21")
    assert [one[:2] for one in await verified(store)] == [(Wrong.CHECKPOINT, "old")]


async def test_A11_what_does_not_verify_is_not_pruned(store, at):
    """Else pruning would wipe the traces."""
    await old_chain(store, at, 20)
    await sql(store, "UPDATE audit SET outcome = 'x' WHERE chain = 'old' AND number = 4")
    with pytest.raises(DelegatorError, match="row 4") as refused:
        await store.audit.prunable(at(10))
    assert refused.value.kind is Kind.CONFLICT
    assert (await store.audit.chains())["old"] == 21


async def test_A11_a_head_from_before_the_pruning_is_no_false_alarm(store, at):
    await old_chain(store, at, 20)
    before = (await heads(store))["old"]
    await prune(store, at(10_000), at(100))
    await store.audit.mark(at(100))
    assert await verified(store, Known("old", before, "the log")) == []


# --- asked --------------------------------------------------------------------------------------------------------


async def tags(store, **wanted) -> list[str | None]:
    return [one.entry.service_tag for one in await store.audit.list(Wanted(**wanted), 100)]


async def test_A4_rows_are_found_by_tag_customer_time_outcome_act_and_actor(shop, ask, at):
    await shop.open_and_issue(ask("TAG0001"), lambda claim: "secret")
    await shop.audit.append([
        entry(at, 1, service_tag="TAG0002"), entry(at, 2, service_tag="TAG0001", customer="umbra"),
        entry(at, 3, service_tag="TAG0003", actor="operator jo", act=Act.DEVICE_REPAIRED, outcome="done")])
    assert [row.entry.act for row in await shop.audit.list(Wanted(service_tag="TAG0001"), 9)] == [
        Act.HANDSHAKE, Act.CLAIM_ISSUED], "a claim's rows and the others"
    assert await tags(shop, customer="umbra", act="handshake.ended") == ["TAG0001"]
    assert await tags(shop, since=at(1), until=at(3)) == ["TAG0001", "TAG0002"]
    assert await tags(shop, outcome="NotEntitled") == ["TAG0001", "TAG0002"]
    assert await tags(shop, actor="operator jo") == ["TAG0003"]
    assert await tags(shop, service_tag="TAG0002", customer="umbra") == []
    claimed = await shop.claims(service_tag="TAG0001")
    assert await tags(shop, claim_id=claimed[0].claim_id) == ["TAG0001"]


async def test_A4_a_stream_has_every_row_once_in_the_order_of_time(kept, at):
    await kept.audit.append([entry(at, 3) for _ in range(7)])
    whole = [one async for one in kept.audit.stream(Wanted(act=Act.HANDSHAKE.value), page=3)]
    assert len({(one.chain, one.number) for one in whole}) == len(whole) == 17
    assert all(one.entry.at <= other.entry.at for one, other in itertools.pairwise(whole))


@pytest.mark.parametrize("wanted", [
    {"service_tag": "TAG0001"}, {"claim_id": "0" * 32}, {"outcome": "TryLater"}, {"actor": "operator jo"},
    {"since": datetime(2026, 1, 1, tzinfo=UTC)}, {"outcome": "TryLater", "customer": "acme"}], ids=str)
async def test_A4_no_such_question_reads_the_whole_audit(opening_sqlite, wanted):
    """A customer alone does: an index for it would be written by every handshake."""
    store = await opening_sqlite()
    for query in (rows_of(Wanted(**wanted), 9), page_of(Wanted(**wanted), None, 9)):
        plan = [str(row[3]) for row in await store._driver.read(Query("EXPLAIN QUERY PLAN " + query.sql,
                                                                      query.parameters))]
        assert any("SEARCH audit" in step for step in plan), plan
        assert not any("SCAN audit" in step for step in plan), plan


async def test_A11_a_page_begins_where_the_last_one_ended(kept, at):
    """With `since` beside it, each page would read again what all pages before it did."""
    await kept.audit.append([entry(at, 3)])
    (last,) = await kept.audit.list(Wanted(), 1)
    assert page_of(Wanted(since=at(1)), last, 9) == page_of(Wanted(), last, 9)


def test_A11_rows_are_removed_in_one_place_and_changed_in_none():
    for path in sorted(Path(audit.__file__).parents[2].rglob("*.py")):
        text = path.read_text()
        assert "UPDATE audit " not in text, path
        assert ("DELETE FROM audit " in text) == (path.name == "pruning.py"), path


# --- what operators do --------------------------------------------------------------------------------------------


HOSTED = HostedCallback("root", Secret("canary-password"))
ACTS: list[tuple[str, Callable, str, dict]] = [
    ("customer.added", lambda s: s.add_customer(Customer("new", "New"), today()), "new", {"name": "new"}),
    ("customer.changed", lambda s: s.add_customer(Customer("acme", "Other", enabled=False), today(), replace=True),
     "acme",
     {"name": "acme", "fields": ["title", "enabled"]}),
    ("customer.removed", lambda s: s.remove("customer", "empty", today()), "empty", {"name": "empty"}),
    ("delegate.added", lambda s: s.add_delegate(Delegate("d", "acme", HOSTED), today()), "acme", {"name": "d"}),
    ("delegate.changed", lambda s: s.add_delegate(Delegate("acme-hosted", "acme", HOSTED), today(), replace=True),
     "acme",
     {"name": "acme-hosted", "fields": ["secret"]}),
    ("delegate.changed", lambda s: s.add_delegate(Delegate(
        "acme-hosted", "acme", HostedCallback("admin", Secret("{random}")), priority=7), today(), replace=True), "acme",
     {"name": "acme-hosted", "fields": ["user_name", "priority"]}),
    ("delegate.removed", lambda s: s.remove("delegate", "acme-soap", today()), "acme", {"name": "acme-soap"}),
    ("policy.added", lambda s: s.add_policy(Policy("p"), today()), None, {"name": "p"}),
    ("policy.changed", lambda s: s.add_policy(Policy("strict", attempts=7), today(), replace=True), None,
     {"name": "strict", "fields": ["attempts"]}),
    ("policy.removed", lambda s: s.remove("policy", "strict", today()), None, {"name": "strict"}),
    ("rule.added", lambda s: s.add_rule(Rule("r", "acme-hosted", 10, model="M1"), today()), None, {"name": "r"}),
    ("approvals.added", lambda s: s.approve("strict", ["TAG0001", "TAG0002"], today()), None,
     {"policy": "strict", "count": 2, "tags": ["TAG0001", "TAG0002"]}),
]


@pytest.mark.parametrize(("act", "done", "customer", "detail"), ACTS, ids=lambda value: value if isinstance(
    value, str) else "")
async def test_A11_an_administrative_act_leaves_one_row_with_the_fields_it_changed(shop, act, done, customer, detail):
    await shop.add_customer(Customer("empty", "Empty"), today())
    await shop.add_policy(Policy("strict"), today())
    before = await shop.audit.count(Wanted())
    await done(shop)
    assert await shop.audit.count(Wanted()) == before + 1
    row = (await shop.audit.list(Wanted(act=act), 1))[0].entry
    assert (row.customer, dict(row.detail), row.actor) == (customer, detail, "delegator")
    assert "canary" not in msgspec.json.encode(row.detail).decode()


async def test_A11_trying_notifications_again_is_an_act(shop, ask, at):
    await shop.open_and_issue(ask("TAG0001"), lambda claim: "x", Telling(
        (NotificationKind.MAIL,), "acme-hosted", "delegator.example"))
    assert await shop.outbox.retry(at(1), delegate="acme-soap") == 0
    assert await shop.outbox.retry(at(1)) == 1
    (row,) = await shop.audit.list(Wanted(act="notifications.retried"), 9)
    assert row.entry.detail == {"count": 1}


async def test_A11_an_act_that_is_refused_leaves_no_row(shop):
    before = await shop.audit.count(Wanted())
    with pytest.raises(DelegatorError):
        await shop.add_customer(Customer("acme", "Acme again"), today())
    with pytest.raises(DelegatorError):
        await shop.remove("customer", "acme", today())
    assert await shop.audit.count(Wanted()) == before


async def test_A11_rotating_the_sealing_key_keeps_the_audit_verifiable(opening_sqlite, key, at):
    store = await opening_sqlite()
    await store.audit.append([entry(at)])
    store.use(SealingKey(b"n" * 32, b"k" * 32))
    async for _ in store.resealing.rotate():
        pass
    await store.audit.append([entry(at)])
    assert await verified(store) == []
    sealed = (await read(store, "SELECT sealed FROM audit_keys"))[0][0]
    assert len(SealingKey(b"n" * 32).open(sealed, audit.KEY_ROW)) == 44


async def test_A11_moving_time_does_not_break_the_chain(kept, at):
    await kept.audit.append([entry(at, 5), entry(at, -1_000_000), entry(at, 5, until=at(0) + timedelta(days=9))])
    assert await verified(kept) == []
