"""The sizes that keep the house readable: R-sizes, counted.

Files of about 150 lines and 400 at most; functions of about 6 lines, nine in ten under 30 and none over 60; every
file opens with a docstring that says what lives in it; a function takes eight parameters at most.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for room in ("delegator", "pki") for path in (ROOT / room).rglob("*.py"))
MOST_LINES_IN_A_FILE = 400
MOST_LINES_IN_A_FUNCTION = 60
SHORT = 30
USUAL_FILE, USUAL_FUNCTION = 200, 10
"""Medians; "about" 150 and 6, with room to breathe."""
MOST_PARAMETERS = 8
"""Of a function, without `self`. Whoever needs more has several values that belong together and have no name yet."""
WHOLE_TREE = sorted(path for room in ("delegator", "pki", "benchmarks", "scripts", "fuzz", "examples", "tests")
                    for path in (ROOT / room).rglob("*.py"))
WITH_MORE = {
    "delegator/cli/delegates.py add": 9,
    "tests/forgery.py forged": 10,
    "tests/store/conftest.py _ask": 11,
    "tests/watching/test_served.py trail": 10}
"""Those that had more when the limit came. This list may only shrink."""


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Each function's place and its lines, from `def` to its last one, the docstring included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def median(sizes: list[int]) -> int:
    return sorted(sizes)[len(sizes) // 2]


def length(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_R_sizes_a_file_is_short_and_says_what_it_is(path: Path) -> None:
    assert length(path) <= MOST_LINES_IN_A_FILE
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), "no docstring at the top"


def test_R_sizes_no_function_is_long_and_nine_in_ten_are_short() -> None:
    sizes = [found for path in FILES for found in functions(path)]
    assert len(sizes) > 500
    assert not [place for place, lines in sizes if lines > MOST_LINES_IN_A_FUNCTION]
    short = sum(lines < SHORT for _, lines in sizes)
    assert short >= 0.9 * len(sizes), f"{short} of {len(sizes)} are under {SHORT} lines"


def test_R_sizes_the_usual_file_and_function_are_small() -> None:
    assert median([length(path) for path in FILES]) <= USUAL_FILE
    assert median([lines for path in FILES for _, lines in functions(path)]) <= USUAL_FUNCTION


def parameters(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Each function's name, and how many parameters it has besides `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            said = node.args
            named = [one.arg for one in (*said.posonlyargs, *said.args, *said.kwonlyargs)]
            yield node.name, (len(named) - (named[:1] in (["self"], ["cls"]))
                              + (said.vararg is not None) + (said.kwarg is not None))


def test_R_sizes_nobody_takes_more_parameters_than_one_can_keep_in_mind() -> None:
    found: dict[str, int] = {}
    for path in WHOLE_TREE:
        for name, many in parameters(ast.parse(path.read_text(encoding="utf-8"))):
            if many > MOST_PARAMETERS:
                found[f"{path.relative_to(ROOT)} {name}"] = many
    assert found == WITH_MORE, "group values that belong together; who got rid of one takes it off the list"


def test_R_sizes_the_count_of_parameters_sees_every_kind() -> None:
    code = "class A:\n def a(self, b, /, c, *d, e, **f): pass\nasync def g(h=1): pass"
    assert dict(parameters(ast.parse(code))) == {"a": 5, "g": 1}
