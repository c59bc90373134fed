"""What was meant by a name that nobody has: the nearest one that somebody has.

The invariant: it is asked only when something was not found, reads a bounded number of rows, and what it suggests is
there.
Must not live here: forms of words (forms, which guesses where a word does not fit at all).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Awaitable, Callable, Iterable

from delegator.errors import DelegatorError, Missing
from delegator.store import Store

_ORDERS = 2000
"""Order numbers looked through, the lowest first."""
_ALIKE = str.maketrans("OI", "01")
"""Letters that are read off a label for digits; no maker prints both."""


async def suggested(store: Store, error: Missing) -> DelegatorError:
    """The error, with what may have been meant where there is something."""
    found = await _NEAR[error.noun](store, error.name) if error.noun in _NEAR else None
    if found is None:
        return error
    return Missing(error.noun, error.name, f"{error.detail}; did you mean {found}?", hint=error.hint)


def spellings(text: str) -> list[str]:
    """Ways in which an identifier may be kept that was typed like this: another case, no blanks, no dashes, digits."""
    bare, solid = "".join(text.split()), re.sub(r"[\s-]+", "", text)
    found = [each for one in (bare, solid) for each in (one, one.upper(), one.lower(), one.upper().translate(_ALIKE))]
    return [one for one in dict.fromkeys(found) if one != text and one]


async def _device(store: Store, name: str) -> str | None:
    for one in spellings(name):
        if await store.fleet.called(one) or await store.claims(service_tag=one, most=1):
            return one
    return None


def near(names: Iterable[str], name: str) -> str | None:
    """By letters, whatever their case; one that begins so where none is near."""
    known = {each.lower(): each for each in names}
    alike = difflib.get_close_matches(name.lower(), known, 1, 0.6)
    begun = sorted(each for each in known if each.startswith(name.lower()))
    return known[(alike or begun)[0]] if alike or begun else None


async def _customer(store: Store, name: str) -> str | None:
    return near((await store.tables()).customers, name)


async def _delegate(store: Store, name: str) -> str | None:
    return near((await store.tables()).directory.delegates, name)


async def _policy(store: Store, name: str) -> str | None:
    return near((await store.tables()).policies, name)


async def _rule(store: Store, name: str) -> str | None:
    return near((one.name for one in await store.rules()), name)


async def _plan(store: Store, name: str) -> str | None:
    return near((one.name for one in await store.plans.all()), name)


async def _order(store: Store, number: str) -> str | None:
    for one in spellings(number):
        if await store.orders.get(one) is not None:
            return one
    return near((one.number for one in await store.orders.page(None, "", _ORDERS)), number)


_NEAR: dict[str, Callable[[Store, str], Awaitable[str | None]]] = {
    "customer": _customer, "delegate": _delegate, "policy": _policy, "rule": _rule, "plan": _plan, "order": _order,
    "device": _device}
