"""A JSON object that says a name twice: which name, for everyone who reads JSON that somebody wrote.

RFC 8259 leaves open what such an object means. Every reader at hand takes the last value and says nothing, so that
what a person reads at the top of a file is not what is done: `approved_only` is true there and false further down.
The invariants: a name is compared as it is meant, escapes undone (`service\\u005ftag` is service_tag); objects inside
others are looked at too; what says each name once costs next to nothing more, for a file may have a million lines.
Must not live here: reading JSON, what its names mean.
"""

from __future__ import annotations

import json
from collections import Counter


def said_twice(text: str | bytes, found: object) -> str | None:
    """A name that an object in this text says twice; `found` is what the text was read as, by any reader.

    Each name and each string costs the text two quotes at least. Where it has no more of them than the names and
    strings of what was read, none was lost; only where it has, for quotes within strings too, it is read once more.
    Raises RecursionError for what is nested too deeply, ValueError for what is no JSON."""
    quotes = text.count('"') if isinstance(text, str) else text.count(b'"')
    if quotes == 2 * _at_the_top(found) or quotes == 2 * _strings(found):
        return None
    twice: list[str] = []

    def pairs(said: list[tuple[str, object]]) -> None:
        twice.extend(name for name, count in Counter(name for name, _ in said).items() if count > 1)
    json.loads(text, object_pairs_hook=pairs, parse_int=str, parse_float=str)  # a number may be too long for Python
    return twice[0] if twice else None


def _at_the_top(found: object) -> int:
    """The names and strings of an object whose values are plain, as a row's are, in a third of the time."""
    return len(found) + [*map(type, found.values())].count(str) if type(found) is dict else 0


def _strings(found: object) -> int:
    """The names and strings anywhere in it."""
    count, left = 0, [found]
    while left:
        one = left.pop()
        if isinstance(one, str):
            count += 1
        elif isinstance(one, dict):
            count += len(one)
            left.extend(one.values())
        elif isinstance(one, list):
            left.extend(one)
    return count
