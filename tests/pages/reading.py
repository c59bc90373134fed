"""The pages' code blocks: which page, below which headings, in which language, what.

The invariant: every fenced block of every page is found, those inside lists and those without a language, too.
Must not live here: what is done with them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^[ ]*```(\S*)\s*$")


@dataclass(frozen=True)
class Block:
    """One fenced block. `number` counts within the page, from 1."""

    page: str
    number: int
    section: str
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page}#{self.number}"

    @property
    def first_line(self) -> str:
        return self.text.split("\n", 1)[0]


def blocks_of(page: str) -> list[Block]:
    """All blocks of a page, in order. Raises ValueError for a fence that is never closed."""
    found: list[Block] = []
    section, language, lines = "", None, []
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        fence = _FENCE.match(line)
        if language is None:
            if fence:
                language, lines = fence[1], []
            elif line.startswith("#"):
                section = line.lstrip("# ")
        elif fence and not fence[1]:
            found.append(Block(page, len(found) + 1, section, language, "\n".join(lines) + "\n"))
            language = None
        else:
            lines.append(line)
    if language is not None:
        raise ValueError(f"{page}: a block below {section!r} is never closed")
    return found
