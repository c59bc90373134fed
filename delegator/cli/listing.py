"""What every list has in common: a bound, a word where there is more, a word where there is nothing.

The invariants: no list is longer than `--most` says, and one that was cut says so on standard error; a list is empty
only where what its filters name exists: a name that nobody has is an error and not an empty list.
A device alone may be named that nobody registered: it may have asked all the same.
Must not live here: what is listed (the nouns).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click

from delegator.cli import console
from delegator.cli.console import Output
from delegator.desk import shapes
from delegator.desk.nearest import suggested
from delegator.domains import domain_of
from delegator.errors import DelegatorError, Kind, Missing
from delegator.store import Store

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
MOST = 1000


def most(default: int = MOST) -> Callable[[F], F]:
    """The option that bounds a list."""
    return click.option("--most", type=click.IntRange(1), default=default, show_default=True, help="At most so many.")


def filters(**chosen: object) -> Callable[[object], bool]:
    """Whether a value has all of these attributes; what was not said, None or an empty flag, does not count."""
    wanted = {name: value for name, value in chosen.items() if value is not None}
    return lambda one: all(getattr(one, name) == value for name, value in wanted.items())


enabled = click.option("--enabled/--disabled", default=None, help="Only those that are so.")


async def first(found: AsyncIterator[T], most: int) -> list[T]:
    """So many of a stream, and one more if there is one, by which `shown` sees that there is."""
    some: list[T] = []
    async for one in found:
        some.append(one)
        if len(some) > most:
            break
    return some


async def shown(store: Store, what: str, found: Sequence[shapes.Shape], columns: Sequence[str], most: int,
                named: Mapping[str, str | None]) -> Output:
    """The list of shapes with these columns, `found` cut where it is longer than `most`; `named` is what filters name,
    by noun. Raises Missing for a name that nobody has, where nothing was found."""
    lines = console.table([name.replace("_", " ") for name in columns],
                          ([one.get(name) for name in columns] for one in found[:most]))
    return await told(store, what, found, lines, most, named)


async def told(store: Store, what: str, found: Sequence[shapes.Shape], lines: Iterable[str], most: int,
               named: Mapping[str, str | None]) -> Output:
    """As `shown`, for a list with lines of its own."""
    return Output(list(found[:most]), lines, await words(store, what, len(found), most, named))


async def words(store: Store, what: str, count: int, most: int, named: Mapping[str, str | None]) -> tuple[str, ...]:
    """What standard error is told of a list. Raises Missing."""
    if not count:
        await must_know(store, named)
        return (f"no {what} found", *await _unregistered(store, named.get("device")))
    if count > most:
        return (f"there are more {what} than these {most}; say how many with --most",)
    return ()


# --- what a filter names ------------------------------------------------------------------------------------------


async def must_know(store: Store, named: Mapping[str, str | None]) -> None:
    """Raises Missing, or DelegatorError (NOT_FOUND), for the first name that nobody has."""
    for noun, name in named.items():
        if name is not None and noun in _KNOWN and not await _KNOWN[noun](store, name):
            detail, hint = _UNKNOWN.get(noun, (f"there is no {noun} named {{0}}",
                                               f"see: delegator {_plural(noun)} list"))
            if noun == "claim":
                raise DelegatorError(Kind.NOT_FOUND, detail.format(name), hint=hint)
            raise Missing(noun, name, detail.format(name), hint=hint)


def _plural(noun: str) -> str:
    return "policies" if noun == "policy" else f"{noun}s"


async def _customer(store: Store, name: str) -> bool:
    """One that stands for a domain is registered nowhere."""
    return domain_of(name) is not None or name in (await store.tables()).customers


async def _delegate(store: Store, name: str) -> bool:
    return domain_of(name) is not None or name in (await store.tables()).directory.delegates


async def _policy(store: Store, name: str) -> bool:
    return name in (await store.tables()).policies


async def _plan(store: Store, name: str) -> bool:
    return any(one.name == name for one in await store.plans.all())


async def _order(store: Store, number: str) -> bool:
    return await store.orders.get(number) is not None or bool((await store.orders.devices(number))[0])


async def _unregistered(store: Store, device: str | None) -> tuple[str, ...]:
    """A device that nobody knows may have asked all the same, so a filter may name it."""
    if device is None or await store.fleet.called(device) or await store.claims(service_tag=device, most=1):
        return ()
    detail = f"no device is registered under {device}, and none ever claimed it"
    return (f"note: {(await suggested(store, Missing('device', device, detail))).detail}",)


async def _claim(store: Store, claim_id: str) -> bool:
    return await store.claim(claim_id) is not None


_KNOWN: dict[str, Callable[[Store, str], Awaitable[bool]]] = {
    "customer": _customer, "delegate": _delegate, "policy": _policy, "plan": _plan, "order": _order, "claim": _claim}
_UNKNOWN = {
    "order": ("no order and no device has the number {0}", "see: delegator orders list"),
    "claim": ("there is no claim {0}", "see: delegator claims list")}
