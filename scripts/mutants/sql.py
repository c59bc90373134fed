"""What a slip of the pen makes of an SQL statement: a table of (pattern, replacement), one place changed at a time.

Statements are strings to Python, so no other operator would look into them, and they hold half of the rules about
claims. What comes of it is mostly valid SQL that means something else.
Must not live here: Python's own syntax (operators).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

IS_SQL = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|WHERE|ON CONFLICT|ORDER BY|VALUES|UNION|CASE)\b"
                    r"|^\s*(AND|OR)\b|\b(state|[a-z_]+) (IN \(|= (\$|'|NULL))")
_SLIPS: tuple[tuple[str, str], ...] = (
    (r"<>", "="), (r"<=", "<"), (r">=", ">"), (r"(?<![<>=]) = (?!=)", " <> "), (r" < ", " <= "), (r" > ", " >= "),
    (r"\bAND\b", "OR"), (r"\bOR\b", "AND"), (r"\bNOT IN\b", "IN"), (r"(?<!NOT) IN\b", " NOT IN"),
    (r"\bIS NULL\b", "IS NOT NULL"), (r"\bIS NOT NULL\b", "IS NULL"), (r"\bNOT EXISTS\b", "EXISTS"),
    (r" \+ ", " - "), (r" - ", " + "), (r"= NULL\b", "= '0'"), (r"\bNULL,", "'0',"),
    (r"'([a-z ]+)'", r"'not \1'"), (r"(?<![\w$.])(\d+)(?!\w)", "PLUS"), (r"\$(\d+)", "PLACE"),
    (r"\bDESC\b", "ASC"), (r"\bDISTINCT ", ""), (r"\bORDER BY (\w+)(?! DESC)", r"ORDER BY \1 DESC"),
    (r"\bCOALESCE\(([^,]+), ([^)]+)\)", r"COALESCE(\2, \1)"), (r"\bcount\(\*\)", "min(1)"), (r"\bLIMIT \$\d+", ""),
    (r"\bDO NOTHING\b", "DO UPDATE SET rowid = rowid"), (r"\bUNION ALL\b", "INTERSECT"),
)


def _other(kind: str, found: re.Match[str]) -> str:
    """What stands there instead: a number one higher, another place, or the pattern's own replacement."""
    if kind == "PLUS":
        return str(int(found[1]) + 1)
    if kind == "PLACE":
        number = int(found[1])
        return f"${number - 1 if number > 1 else 2}"
    return found.expand(kind)


def slips(text: str) -> Iterator[str]:
    """Each way in which this statement, or this part of one, can be wrong by one word."""
    seen = {text}
    for pattern, kind in _SLIPS:
        for found in re.finditer(pattern, text):
            other = text[:found.start()] + _other(kind, found) + text[found.end():]
            if other not in seen:
                seen.add(other)
                yield other
