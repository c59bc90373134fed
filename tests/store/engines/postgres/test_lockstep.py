"""Transactions in step on one connection: each gets its own rows, each text is sent once
(store.engines.postgres.lockstep)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.store.transaction import Query, Rows

pytest.importorskip("asyncpg")
from delegator.store.engines.postgres.lockstep import STEPS, Failed, Unfit, answered, for_many, in_step


class Said(list[tuple[str, str, object]]):
    """A connection that remembers what it is asked, and answers with what it was asked with."""

    async def say(self, verb: str, text: str, *values: object) -> Sequence[Sequence[object]]:
        self.append((verb, text, values[0] if verb.endswith("many") else values))
        if verb == "fetch":
            return [("rows of", *values)]
        if verb in ("executemany", "execute"):
            return ()
        rows = []
        for each in values[0]:
            own, whose = tuple(each[:-1]), each[-1]
            rows += [(*own, whose) if " RETURNING " in text else (whose, *own)] * (0 if own == ("none",) else 2)
        return rows


def run(transactions):
    said = Said()
    return asyncio.run(in_step(said.say, transactions)), said


def asking(*queries: Query):
    """A transaction that comes to the rows it was sent."""
    found = []
    for one in queries:
        found.append([tuple(row) for row in (yield one)])
    return found


def test_R_grouped_a_statement_of_many_is_sent_once_and_each_gets_its_own_rows():
    outcomes, said = run([asking(Query("SELECT a FROM b WHERE c = $1", (name,))) for name in ("x", "none", "y")])
    assert outcomes == [[[("x",), ("x",)]], [[]], [[("y",), ("y",)]]]
    assert said == [("fetchmany", "SELECT CAST($2 AS INTEGER), of_one.* FROM (SELECT a FROM b WHERE c = $1) AS of_one",
                     [("x", 0), ("none", 1), ("y", 2)])]


def test_R_grouped_what_is_changed_and_told_is_told_to_whom_it_concerns():
    outcomes, _ = run([asking(Query("UPDATE a SET b = $1 RETURNING b", (name,))) for name in ("x", "none", "y")])
    assert outcomes == [[[("x",), ("x",)]], [[]], [[("y",), ("y",)]]]
    assert for_many("UPDATE a SET b = $1 RETURNING b", 1).text == "UPDATE a SET b = $1 RETURNING b, CAST($2 AS INTEGER)"


def test_R_grouped_who_says_something_else_or_more_is_not_held_up_by_the_rest():
    outcomes, said = run([
        asking(Query("SELECT 1", ("x",)), Query("SELECT 2", ("x",)), Query("INSERT INTO a VALUES ($1)", ("x",))),
        asking(Query("SELECT 1", ("y",))),
        asking(Query("INSERT INTO a VALUES ($1)", ("z",)), Query("SELECT 2", ("z",)))])
    assert [len(one) for one in outcomes] == [3, 1, 2]
    assert [verb for verb, *_ in said] == ["fetchmany", "fetch", "fetchmany", "fetch"]


def test_R_grouped_the_same_look_of_all_is_one_look():
    _, said = run([asking(Query("SELECT 1 WHERE $1 = 'x'", ("x",))) for _ in range(3)])
    assert said == [("fetch", "SELECT 1 WHERE $1 = 'x'", ("x",))]
    _, said = run([asking(Query("UPDATE a SET b = b + $1", (1,))) for _ in range(3)])
    assert said == [("executemany", "UPDATE a SET b = b + $1", [(1,)] * 3)], "but a change is made for each"


def test_R_grouped_rows_that_many_change_are_taken_in_one_order_all_else_as_they_come():
    """So that two groups that open the same queues do not wait for each other in a ring."""
    text = "INSERT INTO message_queues (carrier, recipient) VALUES ($1, $2) ON CONFLICT (carrier, recipient) DO NOTHING"
    _, said = run([asking(Query(text, ("mail", name))) for name in ("c", "a", "b")])
    assert said[0][1] == "SET LOCAL lock_timeout = 0", "whoever has such a row has it until its commit"
    assert said[1][2] == [("mail", "a"), ("mail", "b"), ("mail", "c")]
    _, said = run([asking(Query("INSERT INTO audit (chain) VALUES ($1)", (name,))) for name in ("c", "a", "b")])
    assert said[0][2] == [("c",), ("a",), ("b",)]


def test_R_grouped_what_one_adds_to_several_tables_is_one_statement():
    adding = [Query("INSERT INTO a (b) VALUES ($1)", (1,)), Query("INSERT INTO c (d, e) VALUES ($1, $2)", (2, 3))]
    outcomes, said = run([asking(*adding), asking(*adding)])
    assert said == [("executemany", "WITH added_0 AS (INSERT INTO a (b) VALUES ($1)) "
                     "INSERT INTO c (d, e) VALUES ($2, $3)", [(1, 2, 3), (1, 2, 3)])]
    assert outcomes == [[[], []], [[], []]]


def test_R_grouped_to_one_table_one_statement_adds_once():
    """The halves of one statement do not see each other."""
    one = Query("INSERT INTO a (b) VALUES ($1)", (1,))
    _, said = run([asking(one, one)])
    assert said == [("executemany", one.sql, [(1,), (1,)])]


@pytest.mark.parametrize("asked", [Query("SELECT b FROM a"), Query("UPDATE a SET b = 2"),
                                   Query("INSERT INTO a (b) VALUES (1)\nRETURNING b"),
                                   Query("INSERT INTO a (b) VALUES ((SELECT c FROM d))"),
                                   Query("INSERT INTO a (b) SELECT c FROM d")])
def test_R_grouped_what_was_added_is_there_before_its_transaction_asks_or_changes_anything(asked):
    adding = Query("INSERT INTO a (b) VALUES ($1)", (1,))
    _, said = run([asking(adding, asked)])
    assert [text for _, text, _ in said] == [adding.sql, asked.sql]


@pytest.mark.parametrize("form", ["WITH a AS (SELECT 1) SELECT b FROM c", "VALUES (1)", "TABLE a", " SELECT 1",
                                  "SELECT b FROM a FOR UPDATE SKIP LOCKED", "SELECT b FROM a FOR\nSHARE",
                                  "SELECT pg_try_advisory_xact_lock(1)", "SELECT pg_notify('a', 'b')",
                                  "SELECT set_config('delegator.customer', 'acme', true)",
                                  "SELECT 1; DELETE FROM a", "SAVEPOINT a", "LOCK TABLE a", "MERGE INTO a"])
def test_R_grouped_what_would_mean_another_thing_for_several_goes_by_itself(form):
    """Also where one alone asks for it at that moment: a row that another of the group has locked is free to it."""
    for many in (1, 2):
        with pytest.raises(Unfit):
            asyncio.run(answered(Said().say, {place: Query(form, (place,)) for place in range(many)}))


@pytest.mark.parametrize("told", [" RETURNING b", "\nRETURNING b"])
def test_R_grouped_what_is_told_of_a_change_is_not_lost_however_it_is_written(told):
    assert for_many(f"DELETE FROM a WHERE b = $1{told}", 1).whose == -1


@pytest.mark.parametrize("verb", ["UPDATE a SET c = 1 WHERE b = $1", "DELETE FROM a WHERE b = $1",
                                  "UPDATE a SET c = 1 WHERE b = $1 RETURNING b"])
def test_A10_rows_that_are_changed_are_taken_in_one_order(verb):
    """So that two groups that change the same ones, as when each of two delegators is told of two ends, do not wait
    for each other in a ring. Each still gets its own rows."""
    outcomes, said = run([asking(Query(verb, (name,))) for name in ("c", "a", "b")])
    assert [each[0] for each in said[0][2]] == ["a", "b", "c"]
    assert outcomes == [[[(name,), (name,)] if "RETURNING" in verb else []] for name in ("c", "a", "b")]


def failing(before: Query):
    yield before
    raise DelegatorError(Kind.CONFLICT, "no")


def test_R_grouped_who_only_looked_and_fails_fails_alone():
    outcomes, _ = run([failing(Query("SELECT 1")), asking(Query("INSERT INTO a VALUES (1)"))])
    assert isinstance(outcomes[0], Failed)
    assert outcomes[0].error.detail == "no"
    assert outcomes[1] == [[("rows of",)]]


def test_R_grouped_who_wrote_and_fails_takes_all_along():
    with pytest.raises(DelegatorError, match="no"):
        run([failing(Query("DELETE FROM a")), asking(Query("INSERT INTO a VALUES (1)"))])


def test_R_grouped_who_goes_on_and_on_goes_by_itself():
    with pytest.raises(Unfit):
        run([asking(*[Query("SELECT 1")] * (STEPS + 1)), asking(Query("SELECT 1"))])
    assert run([asking(*[Query("SELECT 1")] * STEPS), asking(Query("SELECT 1"))])


def test_R_grouped_what_is_copied_goes_in_no_group():
    with pytest.raises(Unfit):
        asyncio.run(answered(Said().say, {0: Rows("devices (device_id)", (1,))}))
