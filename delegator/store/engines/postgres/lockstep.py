"""Several transactions on one connection, a statement of each at a time: one message where they say the same.

What PostgreSQL's driver costs is a round trip and a statement, not what is in them (measured). What each asks next is
sorted by its text, and each text is sent once with the values of all who want it. Rows come back in one list; whose
they are says a column that is added to the statement. Nobody waits for what has no rows: rows that are added are sent
when somebody asks for more, or at the end, those of one transaction as one statement.
The invariants: each transaction is sent the rows of its own statement, in the order in which the statement gives them,
and they know of all that it wrote before; one that fails by a rule of its own before it wrote anything fails alone.
Must not live here: which transactions may go together, beginning and end (grouping).
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from delegator.store.transaction import Query, Row, Rows, Transaction, in_postgres

Say = Callable[..., Awaitable[Any]]
"""Has a method of a connection, by its name, called with these arguments, within the time that there is."""
STEPS = 24
"""Times that one of several asks at most, so that the others do not wait for it: a new claim asks three times, one
that ends hundreds of others more often."""


class Unfit(Exception):
    """A transaction wants what cannot be said for several at once, or goes on and on."""


class Failed(NamedTuple):
    """What a transaction came to that only looked, and then raised this."""

    error: Exception


class Many(NamedTuple):
    """A statement for many: its text, in which column it stands whose a row is, and which are the statement's own.
    Without `whose` it has no rows. What `changes` rows of others, and holds them until it commits, takes them in one
    order, so that two groups that want the same ones do not wait for each other in a ring."""

    text: str
    whose: int | None = None
    own: slice = slice(None)
    changes: bool = True


_FORMS = re.compile(r"(?P<look>SELECT)\b|(?P<changes>INSERT INTO|UPDATE|DELETE FROM)\b"
                    r"(?:(?!\bRETURNING\b).)*(?P<told>RETURNING\b)?", re.DOTALL)
_UNFIT = re.compile(r"\bFOR\s+(NO\s+KEY\s+)?(UPDATE|SHARE|KEY\s+SHARE)\b|\b(set_config|pg_\w*(lock|notify)\w*)\(|;")
"""What means another thing for several at once: a row or name that one has locked is no obstacle to the others, and
what one sets, such as who may see which rows, holds for all."""


@functools.cache
def for_many(text: str, count: int) -> Many:
    """A statement with so many values as one for many, whose number is one value more. Raises Unfit for one whose rows
    or locks would not be each one's own."""
    form = _FORMS.match(text)
    if form is None or _UNFIT.search(text):
        raise Unfit
    mark = f"CAST(${count + 1} AS INTEGER)"
    if form["look"]:
        return Many(f"SELECT {mark}, of_one.* FROM ({text}) AS of_one", 0, slice(1, None), changes=False)
    if form["told"]:
        return Many(f"{text}, {mark}", -1, slice(None, -1))
    return Many(text)


_ADDING = re.compile(r"INSERT INTO (\w+) \((?!.*\b(SELECT|RETURNING)\b)", re.DOTALL)
_PLACE = re.compile(r"\$(\d+)")
_SHARED = "message_queues"
"""Rows of this table many write to, and hold them until they commit: they are taken in one order, by a statement of
their own. Rows of `places` are a lane's own."""


@functools.cache
def added_to(sql: str) -> str:
    """The table that a statement adds a row to and does nothing else, else ""."""
    found = _ADDING.match(sql)
    return found[1] if found else ""


@functools.cache
def as_one(texts: tuple[str, ...], counts: tuple[int, ...]) -> str:
    """Statements that add to different tables as one, with the values of all, one after the other."""
    parts, first = [], 0
    for text, count in zip(texts, counts, strict=True):
        parts.append(_PLACE.sub(functools.partial(_moved, first), text))
        first += count
    *others, last = parts
    names = ", ".join(f"added_{place} AS ({part})" for place, part in enumerate(others))
    return f"WITH {names} {last}" if others else last


def _moved(by: int, found: re.Match[str]) -> str:
    return f"${int(found[1]) + by}"


async def in_step(say: Say, transactions: Sequence[Transaction[Any]]) -> list[object]:
    """What each of them comes to, or Failed. Raises Unfit, and what any of them raises after it wrote: then all are to
    be undone."""
    outcomes: list[object] = [None] * len(transactions)
    answers: Mapping[int, Any] = dict.fromkeys(range(len(transactions)))
    adding: list[list[Query]] = [[] for _ in transactions]
    writing: set[int] = set()
    for _ in range(STEPS + 1):
        asked: dict[int, Query] = {}
        for place in sorted(answers):
            try:
                query = transactions[place].send(answers[place])
                while added_to(query.sql) and type(query) is not Rows:
                    writing.add(place)
                    adding[place].append(query)
                    query = transactions[place].send(())
            except StopIteration as end:
                outcomes[place] = end.value
            except Exception as error:
                if place in writing:
                    raise
                outcomes[place] = Failed(error)
            else:
                asked[place] = query
                if not query.sql.startswith("SELECT "):
                    writing.add(place)
        await _add(say, adding if not asked else [adding[place] for place in asked])
        if not asked:
            return outcomes
        answers = await answered(say, asked)
    raise Unfit


async def answered(say: Say, asked: Mapping[int, Query]) -> dict[int, Sequence[Row]]:
    """The rows of each query."""
    texts: dict[str, list[int]] = {}
    for place, query in asked.items():
        if type(query) is Rows:
            raise Unfit
        texts.setdefault(in_postgres(query), []).append(place)
    found: dict[int, Sequence[Row]] = {}
    for text, places in texts.items():
        found.update(await _of_one_text(say, text, {place: asked[place].parameters for place in places}))
    return found


async def _of_one_text(say: Say, text: str, values: Mapping[int, tuple[Any, ...]]) -> dict[int, Sequence[Row]]:
    first = next(iter(values.values()))
    many = for_many(text, len(first))
    if len(values) == 1 or (text.startswith("SELECT ") and all(each == first for each in values.values())):
        rows: Sequence[Row] = await say("fetch", text, *first)
        return dict.fromkeys(values, rows)
    if many.changes:
        values = dict(sorted(values.items(), key=lambda each: str(each[1][:2])))
    if many.whose is None:
        await say("executemany", text, list(values.values()))
        nothing: Sequence[Row] = ()
        return dict.fromkeys(values, nothing)
    found: dict[int, list[Row]] = {place: [] for place in values}
    for row in await say("fetchmany", many.text, [(*each, place) for place, each in values.items()]):
        found[row[many.whose]].append(row[many.own])
    return {**found}


async def _add(say: Say, adding: Sequence[list[Query]]) -> None:
    """Send what is to be added, and forget it."""
    texts: dict[str, list[tuple[Any, ...]]] = {}
    shared: list[Query] = []
    for queries in adding:
        for some in _apart(queries):
            text = as_one(tuple([in_postgres(one) for one in some]), tuple([len(one.parameters) for one in some]))
            texts.setdefault(text, []).append(tuple(itertools.chain.from_iterable([one.parameters for one in some])))
        shared += [one for one in queries if added_to(one.sql) == _SHARED]
        queries.clear()
    if shared:  # whoever has such a row has it until its commit, which may be slow: the group has its own time
        await say("execute", "SET LOCAL lock_timeout = 0")
    for one in sorted(shared, key=lambda one: str(one.parameters)):
        texts.setdefault(in_postgres(one), []).append(one.parameters)
    for text, values in texts.items():
        await say("executemany", text, values)


def _apart(queries: Sequence[Query]) -> Iterator[list[Query]]:
    """Runs of queries that add to different tables: one statement does not see what the other half of it adds."""
    some: dict[str, Query] = {}
    for one in queries:
        table = added_to(one.sql)
        if table == _SHARED:
            continue
        if table in some:
            yield list(some.values())
            some = {}
        some[table] = one
    if some:
        yield list(some.values())
