"""What every verb that changes something says of it: which fields, old -> new, and what that lets in.

The invariants: no secret is told, only that it is another one; what a change lets in that was not let in before is said
on standard error and in --json, whatever verb did it.
Must not live here: what lets in more (delegator.widening), changing (store.changing, store.fleet).
"""

from __future__ import annotations

import bisect
import dataclasses
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
import msgspec

from delegator import widening
from delegator.cli import console
from delegator.cli.console import Output
from delegator.cli.session import settings
from delegator.desk import shapes
from delegator.model import Customer, Delegate, Policy, Registration, Rule, Secret
from delegator.routing import directory
from delegator.store import Store, Tables
from delegator.store.changing import Noun
from delegator.store.transaction import Work
from pki.tables import Absent, Record

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T", Customer, Delegate, Policy, Rule)
Difference = dict[str, object]
_TOLD = 12
"""Ways in which more is let in that standard error lists; --json has all of them."""
_SECRET = "(secret)"  # noqa: S105 - what stands for one


def unset(*options: str) -> Callable[[F], F]:
    """The option that takes back what another one said."""
    return click.option("--unset", type=click.Choice(options), multiple=True, metavar="OPTION",
                        help=f"Take back what an option said: {', '.join(options)}; may be repeated.")


def taken_back(named: Iterable[str], said: Mapping[str, object]) -> dict[str, None]:
    """The fields to be emptied. Raises UsageError for one that is said as well."""
    fields = {name.replace("-", "_"): None for name in named}
    both = [f"--{name.replace('_', '-')}" for name in fields if said.get(name) not in (None, (), False)]
    if both:
        raise click.UsageError(f"{', '.join(both)} is both said and unset")
    return fields


def must_say(fields: Mapping[str, object] | Sequence[object], example: str) -> None:
    """Raises UsageError where nothing was said."""
    if not fields:
        raise click.UsageError(f"say what to change, such as {example}")


# --- what is told -------------------------------------------------------------------------------------------------


def differences(before: Mapping[str, object], after: Mapping[str, object], within: str = "") -> list[Difference]:
    """Field by field, those of a mapping inside by their own names."""
    found: list[Difference] = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{within}{name}.")
        elif old != new:
            found.append({"field": within + name, "old": old, "new": new})
    return found


def secrets(before: object, after: object) -> list[Difference]:
    """Secrets of two callbacks that are not the same; neither of them is told."""
    def of(one: object) -> dict[str, Secret]:
        names = one.__struct_fields__ if isinstance(one, msgspec.Struct) else ()
        return {name: value for name in names if isinstance(value := getattr(one, name), Secret)}
    old, new = of(before), of(after)
    return [{"field": f"callback.{name}", "old": _SECRET if name in old else None,
             "new": _SECRET if name in new else None}
            for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]


def told(data: Mapping[str, object], what: str, changed: Sequence[Difference], lets_in: Sequence[str],
         words: Sequence[str] = ()) -> Output:
    """A change as output: the fields that changed, and loudly what that lets in."""
    fields = [f"  {one['field']}: {console.short(one['old'])} -> {console.short(one['new'])}" for one in changed]
    said = f"{what} is changed:" if fields else f"{what} stays as it is: it was like that already"
    return Output({**data, "changed": list(changed), "lets_in": list(lets_in)},
                  words=(said, *fields, *words, *loudly(lets_in)), grave=bool(lets_in))


def loudly(lets_in: Sequence[str]) -> tuple[str, ...]:
    """What standard error is told of what is let in."""
    if not lets_in:
        return ()
    more = len(lets_in) - _TOLD
    return ("WARNING: this lets in what was refused before:", *(f"  {console.plain(one)}" for one in lets_in[:_TOLD]),
            *((f"  ... and {more} more; --json tells all",) if more > 0 else ()))


def also(output: Output, lets_in: Sequence[str]) -> Output:
    """The output of a verb that lets something in where nobody would look for it, with what that is."""
    if not lets_in:
        return output
    assert isinstance(output.data, Mapping)
    return dataclasses.replace(output, data={**output.data, "lets_in": list(lets_in)},
                               words=(*output.words, *loudly(lets_in)), grave=True)


def plainly(output: Output, lets_in: Sequence[str]) -> Output:
    """The output of a verb that is there to let something in, which it says without alarm."""
    return dataclasses.replace(output, words=(*output.words, *(f"lets in: {console.plain(one)}" for one in lets_in)),
                               grave=output.grave or bool(lets_in))


def imported(what: str, new: int, changed: int, kept: bool) -> tuple[str, ...]:
    """What an import lets in, by counts: a file may be too long to tell of each row."""
    if not kept or not new + changed:
        return ()
    told = [*([f"{new} new {what}"] if new else []), *([f"{changed} changed ones"] if changed else [])]
    return (f"{' and '.join(told)}: their customers answer these devices, as their policies allow",)


class Unnamed:
    """The columns that each row of a file does not have: what is registered there keeps what its row does not name.
    Of CSV all rows are alike; of JSON one may empty what another does not name. Kept is where they begin to differ
    from the row before, ten bytes for each such row."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = tuple(columns)
        self._kinds: list[frozenset[str]] = [frozenset()]
        self._lines, self._kind = array("q"), array("H")

    def of(self, line: int) -> frozenset[str]:
        """The columns that the row on this line does not have."""
        at = bisect.bisect_right(self._lines, line) - 1
        return self._kinds[self._kind[at]] if at >= 0 else self._kinds[0]

    def noted(self, records: Iterable[Record]) -> Iterator[Record]:
        """The rows as they come."""
        known: dict[tuple[type, ...], int] = {}
        last = 0
        for line, values in records:
            if not isinstance(values, str):
                kinds = tuple(map(type, values))
                kind = known.get(kinds)
                if kind is None:
                    kind = known[kinds] = self._place(kinds)
                if kind != last:
                    self._lines.append(line)
                    self._kind.append(kind)
                    last = kind
            yield line, values

    def _place(self, kinds: tuple[type, ...]) -> int:
        unnamed = frozenset(name for name, kind in zip(self._columns, kinds, strict=True) if kind is Absent)
        if unnamed not in self._kinds:
            self._kinds.append(unnamed)
        return self._kinds.index(unnamed)


# --- the small tables ---------------------------------------------------------------------------------------------


async def change(store: Store, noun: Noun[T], name: str, how: Callable[[T], T],
                 shape: Callable[[T], shapes.Shape], besides: Work[object] | None = None) -> Output:
    """Change what stands under a name, and tell it; `besides` is done in the same transaction. What it lets in is
    worked out within that too: where that fails, nothing has changed that nobody was told of."""
    now, lets_in = await store.tables(), Told()

    def judged(one: T) -> T:
        changed = how(one)
        lets_in.are(let_in(now, noun, name, one, changed))
        return changed
    before, after = await store.changing.change(noun, name, judged, datetime.now(UTC), besides)
    changed = differences(shape(before), shape(after))
    if isinstance(before, Delegate) and isinstance(after, Delegate):
        changed += secrets(before.callback, after.callback)
    return told(shape(after), f"{noun.name} {name}", changed, lets_in.words)


async def remove(store: Store, noun: Noun[T], name: str) -> Output:
    """Remove what stands under a name, and tell what that lets in."""
    now, lets_in = await store.tables(), Told()
    await store.changing.remove(noun, name, datetime.now(UTC),
                                lambda one: lets_in.are(let_in(now, noun, name, one, None)))
    return also(Output({"removed": name}, words=(f"{noun.name} {name} is removed",)), lets_in.words)


class Told:
    """What is worked out within a transaction, which may be run again: the last time counts."""

    def __init__(self) -> None:
        self.words: tuple[str, ...] = ()

    def are(self, words: tuple[str, ...]) -> None:
        self.words = words


def let_in(now: Tables, noun: Noun[T], name: str, before: T | None, after: T | None) -> tuple[str, ...]:
    """What this one change lets in, with everything else as it stands. Ask before it is made."""
    return widening.let_in(would_be(now, noun.name, name, before), would_be(now, noun.name, name, after),
                           by_domain=settings().domains.enabled)


def let_in_device(now: Tables, before: Registration | None, after: Registration | None) -> tuple[str, ...]:
    """What a change of one device's registration lets in; asked within the transaction that makes it."""
    return widening.of_device(before, after, now, by_domain=settings().domains.enabled)


def would_be(tables: Tables, noun: str, name: str, value: Any) -> Tables:
    """The tables, with another value under one name, or with none."""
    kept: dict[str, dict[str, Any]] = {
        "customer": dict(tables.customers), "policy": dict(tables.policies),
        "delegate": dict(tables.directory.delegates), "rule": {one.name: one for one in tables.directory.rules}}
    kept[noun].pop(name, None)
    if value is not None:
        kept[noun][name] = value
    customers, policies = kept["customer"], kept["policy"]
    for one in (*customers.values(), *kept["delegate"].values()):
        if one.policy is not None:  # one that somebody has removed meanwhile counts as one that allows nothing
            policies.setdefault(one.policy, Policy(one.policy, custom_operations=False))
    delegates = [one for one in kept["delegate"].values() if one.customer in customers]
    known = {one.name for one in delegates}
    rules = [one for one in kept["rule"].values() if one.delegate is None or one.delegate in known]
    return Tables(tables.revision, customers, policies, directory(delegates, rules))
