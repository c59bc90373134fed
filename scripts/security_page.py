"""Draws the table of threats into docs/security.md from docs/security.toml: `make docs`.

The invariant: only what stands between the two marks is written; the words around it are people's.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # a sentence, where an older one would show a traceback
    sys.stderr.write("scripts/security_page.py needs Python 3.11 or newer, not %d.%d\n" % sys.version_info[:2])
    sys.exit(3)

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE, DATA = ROOT / "docs" / "security.md", ROOT / "docs" / "security.toml"
BEGIN, END = "<!-- from docs/security.toml: make docs -->\n", "<!-- end -->\n"


def groups() -> list[dict[str, Any]]:
    """The data: groups with their threats."""
    found: list[dict[str, Any]] = tomllib.loads(DATA.read_text(encoding="utf-8"))["group"]
    return found


def table(group: dict[str, Any]) -> str:
    """One group as a heading and its rows."""
    lines = [f"### {group['title']}", "", "| id | threat | defence | shown by |", "|---|---|---|---|"]
    for one in group["threat"]:
        left = f" **Left:** {one['left']}" if "left" in one else ""
        tests = ", ".join(f"`{test}`" for test in one["tests"])
        lines.append(f"| {one['id']} | {one['threat']} | {one['defence']}.{left} | {tests} |")
    return "\n".join(lines)


def drawn(page: str) -> str:
    """A page with its drawn part made anew. Raises ValueError when it has no place for it."""
    before, found, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise ValueError(f"{PAGE} has no lines {BEGIN.strip()!a} and {END.strip()!a}")
    return f"{before}{BEGIN}\n" + "\n\n".join(map(table, groups())) + f"\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
