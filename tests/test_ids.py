"""Ids: of the mission, of threats and of rules. Whatever names one means one that there is, and no two kinds meet.

The rules stand in docs/architecture.md, which must stay true in other things too: its walk names functions that exist,
and its floors every module.
"""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
from pathlib import Path

import pytest

from scripts import security_page

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
RULES = dict(re.findall(r"^\| (R-[a-z]+) \| (.*) \|$", PAGE, re.MULTILINE))
THREATS = {one["id"] for group in security_page.groups() for one in group["threat"]}
MISSION = set(re.findall(r"^\| ([A-Z]\d+[a-z]?) \|", (ROOT / "docs" / "mission.md").read_text(encoding="utf-8"),
                         re.MULTILINE))
_NAMED = re.compile(r"test_((?:(?:R_[a-z]+|T?[A-Za-z]\d+[a-d]?)_)+)")
_ONE = re.compile(r"R_[a-z]+|[^_]+")
_NUMBER = re.compile(r"test_\d")
_SAID = re.compile(r"(?<![\w-])(?:R-[a-z]+|T-[A-Z]\d+)(?![\w-])")
_FORMER = re.compile("DES" + r"IGN(?: section)? \d|\bDES" + r"IGN\.md|\bDES" + "IGN\\b")
NO_ID = {"p99": "a percentile"}
"""What begins a test's name as an id would, and what it is."""


def tracked() -> dict[str, str]:
    """Every text of the project, as it is now. What was already published in the list of changes stays as it was."""
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
                           check=False).stdout.splitlines()
    paths = [ROOT / name for name in names] or [path for path in ROOT.rglob("*") if path.suffix in (".py", ".md")]
    return {str(path.relative_to(ROOT)): path.read_bytes().decode("utf-8", "replace") for path in paths
            if path.is_file() and path.suffix in (".py", ".md", ".toml", ".cfg", ".sql", ".yml", ".json", ".sh", "")
            and path.name != "CHANGELOG.md"}


TEXTS = tracked()
TESTS = [(file, name) for file, text in TEXTS.items() if file.startswith("tests/")
         for name in re.findall(r"^ *(?:async )?def (test_\w+)\(", text, re.MULTILINE)]
"""Each test by its file and name."""


def ids_of(name: str) -> list[str]:
    """What a test's name says that it proves, as the pages write it."""
    found = _NAMED.match(name)
    return [] if found is None else [as_written(one) for one in _ONE.findall(found[1])]


def as_written(one: str) -> str:
    if one.startswith("R_"):
        return one.replace("_", "-")
    return f"T-{one[1:]}" if re.fullmatch(r"T[A-Z]\d+", one) else f"{one[0].upper()}{one[1:]}"


def is_known(one: str) -> bool:
    """`A7` is all of A7a, A7b, ..."""
    return one in RULES or one in THREATS or one in MISSION or any(row.rstrip("abcd") == one for row in MISSION)


@pytest.mark.parametrize(("name", "ids"), [
    ("test_R_once_of_64_one_is_answered", ["R-once"]), ("test_A1_TA4_TA5_who_is_refused", ["A1", "T-A4", "T-A5"]),
    ("test_a7b_a7d_xml", ["A7b", "A7d"]), ("test_a_device", []), ("test_TC19_a_lock", ["T-C19"])])
def test_the_ids_in_a_name_are_found(name: str, ids: list[str]) -> None:
    assert ids_of(name) == ids


def test_every_id_in_the_name_of_a_test_is_one_that_there_is() -> None:
    unknown = [(file, name) for file, name in TESTS for one in ids_of(name)
               if not is_known(one) and one.lower() not in NO_ID]
    assert unknown == [], "ids of the mission, of threats (T in front) or of rules (R_word), see docs/architecture.md"
    assert [(file, name) for file, name in TESTS if _NUMBER.match(name)] == [], "a number alone is no id"


def test_every_id_that_is_said_anywhere_is_one_that_there_is() -> None:
    assert sorted({(name, one) for name, text in TEXTS.items() for one in _SAID.findall(text)
                   if one not in RULES and one not in THREATS}) == []


def test_the_three_kinds_of_id_never_meet() -> None:
    assert len(RULES) > 30
    assert len(THREATS) > 40
    assert len(MISSION) > 30
    assert not MISSION & THREATS
    assert all(one.startswith("T-") for one in THREATS)
    in_names = [{one.replace("-", "").lower() for one in ids} for ids in (MISSION, THREATS)]
    assert not in_names[0] & in_names[1], "nor in the names of tests"


def test_each_rule_is_named_by_a_test_and_is_one_full_sentence() -> None:
    proven = {one for _, name in TESTS for one in ids_of(name)}
    proven |= {one for file, text in TEXTS.items() if file.startswith("tests/") and ROOT / file != Path(__file__)
               for one in _SAID.findall(text)}
    assert sorted(set(RULES) - proven) == []
    for name, words in RULES.items():
        assert re.fullmatch(r"[A-Z`][^.]*(?:\.\w[^.]*)*\.", words), f"{name} is one sentence"
        assert len(words.split()) > 8, name


def test_nothing_refers_to_a_document_that_is_not_here() -> None:
    assert [(name, found[0]) for name, text in TEXTS.items() for found in _FORMER.finditer(text)] == []


# --- the page is true in other things too -------------------------------------------------------------------------


def defined(path: Path) -> set[str]:
    """Functions, classes and `Class.method` of a module."""
    tree, found = ast.parse(path.read_text(encoding="utf-8")), set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{one.name}" for one in node.body
                      if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
    return found


def test_the_walk_names_functions_that_there_are() -> None:
    walk = PAGE.split("\n## The walk of a request\n")[1].split("\n## ")[0]
    named = re.findall(r"`((?:delegator|pki)/[\w/]+\.py)`\s`([\w.]+)`", walk)
    assert len(named) > 20
    for path, name in named:
        assert name in defined(ROOT / path), f"{path} {name}"
    known = {name for path, _ in named for name in defined(ROOT / path)}
    for name in re.findall(r"`([A-Z]\w+\.\w+)`", walk):
        assert name in known, name


def rooms() -> set[str]:
    """Modules and folders right under `delegator`, and `pki`."""
    there = (ROOT / "delegator").iterdir()
    return {"pki/"} | {f"delegator/{one.name}{'/' if one.is_dir() else ''}" for one in there
                       if (one / "__init__.py").exists() or one.suffix == ".py"} - {"delegator/__init__.py"}


def test_R_floors_the_page_names_every_room_and_no_other() -> None:
    floors = PAGE.split("\n## Floors\n")[1].split("\n## ")[0]
    assert [room for room in sorted(rooms()) if room not in floors] == []
    for path in re.findall(r"`((?:delegator|pki)/[\w/.]*)`", PAGE):
        assert (ROOT / path).exists(), path


def test_R_floors_every_room_stands_on_a_floor() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    floors = set(re.split(r"[\s|:]+", setup["importlinter:contract:floors"]["layers"]))
    named = {room.removesuffix("/").removesuffix(".py").replace("/", ".") for room in rooms()}
    assert sorted(named - floors - {"delegator.__main__", "delegator.device"}) == [], "give it a line in setup.cfg"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/adding.md"])
def test_every_file_that_these_pages_name_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for path in re.findall(r"`((?:delegator|pki|tests|scripts|docs|deploy)/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), f"{page}: {path}"
