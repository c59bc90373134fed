"""docs/security.md says what docs/security.toml says, and every test that it names is there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from scripts import security_page

ROOT = Path(__file__).parents[1]


THREATS = [one for group in security_page.groups() for one in group["threat"]]
LAST = {"A": 12, "B": 12, "C": 19, "S": 2}
WANTED = [f"T-{group}{number}" for group, last in LAST.items() for number in range(1, last + 1)]


def named_in(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")}


def test_the_page_is_drawn_from_the_data() -> None:
    text = security_page.PAGE.read_text(encoding="utf-8")
    assert security_page.drawn(text) == text, "stale: run make docs"


def test_every_threat_stands_there_once_with_a_defence_and_a_proof() -> None:
    assert [one["id"] for one in THREATS] == WANTED
    for one in THREATS:
        assert one["threat"], one["id"]
        assert len(one["defence"].split()) > 5, one["id"]
        assert one["tests"], one["id"]
        assert not any("|" in text for text in (one["threat"], one["defence"], one.get("left", ""))), one["id"]


@pytest.mark.parametrize("threat", THREATS, ids=lambda one: one["id"])
def test_every_test_that_is_named_exists(threat: dict[str, list[str]]) -> None:
    for test in threat["tests"]:
        path, _, name = test.partition("::")
        assert (ROOT / path).exists(), test
        assert name in named_in(ROOT / path), test
