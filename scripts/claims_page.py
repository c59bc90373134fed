"""Draws the life of a claim into docs/claims.md from the table that the store works by: `make docs`.

The invariant: only what stands between the two marks is written; the words around it are people's.
"""

from __future__ import annotations

from pathlib import Path

from delegator.model.lifecycle import TABLE, Move, edges

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "claims.md"
BEGIN, END = "<!-- from delegator/model/lifecycle.py: make docs -->\n", "<!-- end -->\n"
_HEADINGS = ("from", "event", "to", "who", "command", "audit row", "what it means")


def diagram() -> str:
    """The table as a state diagram in Mermaid. Several ways between two states share an arrow."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for before, move in edges():
        start = "[*]" if before is None else before.value
        arrows.setdefault((start, move.after.value), []).append(move.event.value)
    lines = [f"    {start} --> {end} : {', '.join(events)}" for (start, end), events in arrows.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "    released --> [*]", "```"])


def table() -> str:
    """The table as it stands in the code, a line an event."""
    lines = [_HEADINGS, tuple("---" for _ in _HEADINGS), *map(_row, TABLE.values())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(move: Move) -> tuple[str, ...]:
    before = ", ".join("(none)" if state is None else f"`{state.value}`" for state in move.before)
    return (before, move.event.value, f"`{move.after.value}`", move.who, move.command, f"`{move.act.value}`", move.why)


def drawn(page: str) -> str:
    """A page with its drawn part made anew. Raises ValueError when it has no place for it."""
    before, found, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise ValueError(f"{PAGE} has no lines {BEGIN.strip()!a} and {END.strip()!a}")
    return f"{before}{BEGIN}\n{diagram()}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
