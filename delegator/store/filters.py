"""Optional filters of a list: of what was asked for, one condition each; of everything, where nothing was.

A filter that was not given is no part of the statement, so that an index serves those that were.
The invariant: conditions are ours and values are parameters; no value ever becomes a part of a statement.
Must not live here: which filters a list has.
"""

from __future__ import annotations

from collections.abc import Mapping

from delegator.store.transaction import Value


def chosen(wanted: Mapping[str, Value], first: int = 1) -> tuple[str, tuple[Value, ...]]:
    """A condition and the values of its parameters, of which the first is `$first`. Each condition that is wanted says
    `{0}` where its value goes; what is None is not wanted."""
    said = [(condition, value) for condition, value in wanted.items() if value is not None]
    where = " AND ".join(f"({condition.format(f'${number}')})" for number, (condition, _) in enumerate(said, first))
    return where or "1 = 1", tuple(value for _, value in said)
