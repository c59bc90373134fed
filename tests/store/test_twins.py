"""What engines count differently is worded for each of them, everywhere in the product (A6, A10).

The statements are collected from the code: every text there is, however it is put together. `places` has a row for each
connection on PostgreSQL, and a queue must be held by whoever fills it; a statement about them that is written somewhere
else, or once for both engines, would count in the wrong lane or lose a notification, and is found here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from delegator.store import outbox
from delegator.store.migrate import schema_files

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "delegator").rglob("*.py"))
HOMES = {"places": "delegator/store/holders.py", "message_queues": "delegator/store/outbox.py"}
"""The one file that may make statements about each of these tables."""
NAMED = {("delegator/store/engines/postgres/lockstep.py", "message_queues")}
"""And who may say a table's name alone: it sorts what others say of it, and makes no statement."""
_BEFORE_A_TABLE = r"\b(?:INTO|UPDATE|FROM|JOIN|TABLE|ONLY)\s+"
_HOLE = "\N{REPLACEMENT CHARACTER}"


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every text that code makes, with its line: plain, with holes, added up, joined. Not what only describes."""
    described = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)
                 and isinstance(node.value, ast.Constant)}
    within: set[int] = set()
    for node in ast.walk(tree):
        if id(node) in described or id(node) in within:
            continue
        text = _text(node)
        if text is not None:
            within |= {id(one) for one in ast.walk(node)}
            yield getattr(node, "lineno", 0), text


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(one) or "" if isinstance(one, ast.Constant) else _HOLE for one in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text(node.left), _text(node.right)
        return None if left is None and right is None else f"{left or _HOLE}{right or _HOLE}"
    return None


def names_table(text: str, table: str) -> bool:
    """Whether it is a statement about a table, or the table's name alone, which some statement has a hole for."""
    return (text.strip() == table or re.match(rf"{table}\s*\(", text) is not None
            or re.search(rf"{_BEFORE_A_TABLE}\"?{table}\b", text, re.IGNORECASE) is not None
            or (re.search(r"\b(SELECT|INSERT|UPDATE|DELETE|MERGE|COPY)\b", text) is not None
            and re.search(rf"\b{table}\b", text) is not None))


def strays(source: str, file: str) -> list[str]:
    if not any(table in source for table in HOMES):
        return []
    tree = ast.parse(source)
    return [f"{file}:{line}: {text}" for line, text in texts(tree) for table, home in HOMES.items()
            if file != home and (file, text) not in NAMED and names_table(text, table) and _is_sql(text, file, table)]


def _is_sql(text: str, file: str, table: str) -> bool:
    """Outside the store a word alone is no table: `places` is also what a page calls a column."""
    return text.strip() != table or file.startswith("delegator/store/")


def test_A6_no_statement_about_these_tables_stands_anywhere_else() -> None:
    found = [one for path in FILES for one in strays(path.read_text("utf-8"), str(path.relative_to(ROOT)))]
    assert found == []


@pytest.mark.parametrize("source", [
    'Query("UPDATE places SET taken = taken - 2 WHERE holder = $1")',
    'Query("update  places set taken = 0")',
    'sql = """\n  INSERT\n  INTO places (holder, taken) VALUES ($1, 1)"""',
    'Query("DELETE FROM " + "places")',
    'Query(f"DELETE FROM {\'x\'} " "RETURNING a" if x else f"SELECT taken FROM places WHERE holder = {where}")',
    'Query(f"SELECT {what} FROM claims JOIN places ON holder = $1")',
    'Query("DELETE FROM %s" % "places")',
    'yield from insert("places (holder, taken)", rows)',
    'TABLES = {"place": "places"}',
    'Query("SELECT taken FROM claims, places")',
    'Query("INSERT INTO message_queues VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")',
], ids=lambda source: source[:40])
def test_A6_one_that_is_worded_otherwise_would_be_found(source: str) -> None:
    assert strays(source, "delegator/store/somewhere.py")


def test_A6_a_table_that_is_filled_into_a_statement_is_named_in_the_store() -> None:
    """There its name alone is a text that is found above; a statement with such a hole elsewhere would not be."""
    asking = [path for path in FILES if re.search(r"SELECT |INSERT |UPDATE |DELETE ", path.read_text("utf-8"))]
    holes = {str(path.relative_to(ROOT)) for path in asking for _, text in texts(ast.parse(path.read_text("utf-8")))
             if re.search(rf"{_BEFORE_A_TABLE}\"?[{_HOLE}{{]", text)}
    assert "delegator/store/registry.py" in holes
    assert [file for file in holes if not file.startswith("delegator/store/")] == []


def twins_in(file: str) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse((ROOT / file).read_text("utf-8"))) if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name) and node.func.id in ("Query", "Twin")]


def test_A6_whatever_writes_places_is_worded_for_both_engines() -> None:
    """And whatever reads them as one row is, too; the sum means the same in both."""
    import delegator.store.holders as home

    for name, text in vars(home).items():
        if isinstance(text, str) and re.match(r"INSERT|UPDATE|DELETE", text):
            lanes = name.endswith("_IN_LANE")
            assert hasattr(home, name.removesuffix("_IN_LANE") if lanes else f"{name}_IN_LANE"), name
            assert ("lane" in text) is lanes
            assert not lanes or re.match(r"INSERT INTO places \(holder, taken\) ", text), "another lane's row"
    for made in (home.take(("a", "b")), home.take_one("a"), home.give_back(("a", "b")), home.give_back_one("a")):
        assert type(made).__name__ == "Twin"
        assert "lane" in made.postgres
        assert "lane" not in made.sql
    for read in (home.ALL, home.taken_by("a"), home.taken_by_each(("a", "b"))):
        assert "sum(taken)" in read.sql
    one_row, all_lanes = home.beside("1", 1, 2)
    assert all_lanes.count("sum(taken)") == one_row.count("taken") == 2
    plain = [node for node in twins_in(HOMES["places"]) if isinstance(node.func, ast.Name) and node.func.id == "Query"]
    assert all("sum(taken)" in (_text(node.args[0]) or "") for node in plain), "one that counts a single row"


def test_A6_whoever_fills_a_queue_holds_it() -> None:
    """Of the statements that put one there the one is worded for both, and the other holds it as it is."""
    filling = [text for _, text in texts(ast.parse((ROOT / HOMES["message_queues"]).read_text("utf-8")))
               if re.search(r"INSERT INTO message_queues", text)]
    assert [text for text in filling if "DO NOTHING" in text] == [outbox._OPEN]
    assert all("DO UPDATE SET" in text for text in filling if text != outbox._OPEN)


def test_A6_these_are_all_tables_whose_key_differs() -> None:
    """A table with a lane in one engine and none in the other must stand in HOMES."""
    tables = {dialect: {found[0]: found[1] for file in schema_files(dialect) for found in re.findall(
        r"CREATE TABLE (\w+) \((.*?)\n\)", file.sql, re.DOTALL)} for dialect in ("sqlite", "postgres")}
    assert len(tables["postgres"]) > 20
    assert [name for name, body in tables["postgres"].items() if re.search(r"\blane\b", body)] == ["places"]
    assert [name for name, body in tables["sqlite"].items() if re.search(r"\blane\b", body)] == []
