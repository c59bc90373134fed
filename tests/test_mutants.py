"""The tool that puts faults in: which faults it makes, that one is really put in, and what becomes of it.

A toy project of one module and one file of tests stands for ours: what its tests see is seen, what they do not see is
told, and what never ends is ended. The names that are given to faults by hand are checked here too, as the text they
exchange moves whenever the heart is edited.
"""

from __future__ import annotations

import ast
import enum
import faulthandler
import importlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from scripts.mutants import __main__ as tool
from scripts.mutants import inside, ledger, operators, pool, reaching, sites, sql
from scripts.mutants.ledger import HUNG, KILLED, SURVIVED, UNREACHED, Fault, Ledger, Reason, Result
from scripts.mutants.reaching import Test as Reaching
from scripts.mutants.sites import Mutation, Place


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


def made(source: str, names: Mapping[str, object] = {}) -> list[str]:
    """What may stand in the place of one statement or expression."""
    node = ast.parse(source).body[0]
    found: ast.AST = node.value if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant) else node
    return [ast.unparse(put) for _, put in operators.others(found, names)]


# --- which faults there are ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "others"), [
    ("a < b", ["a <= b", "a >= b"]), ("a == b", ["a != b"]), ("a is b", ["a is not b"]), ("a in b", ["a not in b"]),
    ("a and b", ["a or b", "b", "a"]), ("not a", ["a"]), ("-a", ["a"]), ("a + b", ["a - b"]),
    ("a if b else c", ["a if not b else c", "a", "c"]), ("f(a, b)", ["f(b, a)"]), ("f(a=1, b=2)", ["f(b=2)", "f(a=1)"]),
    ("(a, b)", ["(b,)", "(a,)"]), ("{a: 1, b: 2}", ["{b: 2}", "{a: 1}"]), ("min", ["max"]), ("a.startswith",
    ["a.endswith"]), ("Colour.RED", ["Colour.BLUE"]), ("Colour.BLUE", ["Colour.RED"]), ("Colour.other", []),
    ("a.b = c", ["pass"]), ("a = b", []), ("a += b", ["a -= b", "pass"]), ("raise a", ["pass"])])
def test_each_node_has_its_faults(source: str, others: list[str]) -> None:
    assert made(source, {"Colour": Colour}) == others


@pytest.mark.parametrize(("source", "others"), [
    ("return a", ["return None"]), ("return None", []), ("return", []), ("break", ["pass"]),
    ("for a in b: c", ["for a in ():\n    c"]),
    ("if a: b", ["if not a:\n    b"]), ("while not a: b", ["while a:\n    b"]),
    ("@a\ndef f(): pass", ["def f():\n    pass"])])
def test_each_statement_has_its_faults(source: str, others: list[str]) -> None:
    assert made(source) == others


@pytest.mark.parametrize(("value", "others"), [
    (True, [False]), (3, [4, 2]), (b"a", [b"aXX"]), ("a", ["aXX"]), (None, [])])
def test_each_constant_has_its_faults(value: object, others: list[object]) -> None:
    found = list(operators.others(ast.Constant(value), {}))
    assert [put.value for _, put in found if isinstance(put, ast.Constant)] == others


@pytest.mark.parametrize(("text", "others"), [
    ("SELECT a FROM b WHERE c = $1", {"SELECT a FROM b WHERE c <> $1", "SELECT a FROM b WHERE c = $2"}),
    ("WHERE a <= 3 AND b IS NULL", {"WHERE a < 3 AND b IS NULL", "WHERE a <= 4 AND b IS NULL",
                                    "WHERE a <= 3 OR b IS NULL", "WHERE a <= 3 AND b IS NOT NULL"}),
    ("SELECT DISTINCT a ORDER BY a", {"SELECT a ORDER BY a", "SELECT DISTINCT a ORDER BY a DESC"})])
def test_a_statement_of_sql_is_wrong_by_one_word(text: str, others: set[str]) -> None:
    assert set(sql.slips(text)) == others
    assert {ast.literal_eval(one) for one in (ast.unparse(put) for _, put in operators.others(
        ast.Constant(text), {}))} == others


# --- where they are -----------------------------------------------------------------------------------------------


TOY = '''"""A docstring."""
from __future__ import annotations
import os
__all__ = ["grown"]
LEAST: int = 18
Ages = dict[str, int]


def grown(age: int, seconds: float = 0.5) -> bool:
    """Another."""
    return age >= LEAST


def unseen(age: int) -> int:
    return age + 1


def nobodys() -> int:
    return 7


def slow(count: int) -> int:
    while count > 0:
        count -= 1
    return count
'''
TESTS = '''
import toy

def test_grown():
    assert toy.grown(18) and not toy.grown(17)

def test_unseen():
    toy.unseen(1)

def test_slow():
    assert toy.slow(3) == 0
'''


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one module and one file of tests; the tool takes it for ours."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow: x\n    counterpart: x\n")
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "test_toy.py").write_text(TESTS)
    for module in (sites, ledger, reaching):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(tool, "PLACE", tmp_path)
    monkeypatch.setattr(inside, "LEAST", 1)
    reaching.stamp_of.cache_clear()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def faults_of(function: str) -> list[Mutation]:
    return [one for one in sites.mutations("toy", {}) if one.place.function == function]


@pytest.mark.usefixtures("project")
def test_what_cannot_act_at_run_time_is_left_alone() -> None:
    assert {one.line for one in sites.mutations("toy", {})} == {5, 9, 11, 15, 19, 23, 24, 25}
    assert [(one.place.at_import, one.before, one.after) for one in faults_of("")] == [
        (True, "18", "19"), (True, "18", "17"), (True, "0.5", "1.5"), (True, "0.5", "-0.5")]


def test_the_name_of_a_fault_outlives_an_edit_above_it(project: Path) -> None:
    before = {one.key: one.line for one in sites.mutations("toy", {})}
    (project / "toy.py").write_text(TOY.replace("import os\n", "import os\n\n\nNEW = None\n"))
    after = {one.key: one.line for one in sites.mutations("toy", {})}
    assert after == {key: line + 3 for key, line in before.items()}
    assert len(before) == len(sites.mutations("toy", {})), "no two faults have one name"


@pytest.mark.usefixtures("project")
def test_the_module_with_the_fault_differs_in_that_alone() -> None:
    (fault,) = [one for one in faults_of("grown") if one.after == "age > LEAST"]
    assert ast.unparse(fault.tree()) == ast.unparse(ast.parse(TOY.replace("age >= LEAST", "age > LEAST")))
    assert fault.words == "toy.py:11 comparison: age >= LEAST -> age > LEAST"


# --- what becomes of them -----------------------------------------------------------------------------------------


@pytest.fixture
def runner(project: Path) -> Iterator[tool.Runner]:
    """One warm and one cold process, as in a real run. The clock that ends a run which hangs is a thread; a fork would
    have its lock without it."""
    faulthandler.cancel_dump_traceback_later()
    workers = [pool.cold(), *pool.warm(1)]
    assert [len(one.ready()) for one in workers] == [0, 3]
    yield tool.Runner(workers[1], workers[0], Counter())
    for one in workers:
        one._connection.close()


NAMES = ["test_toy.py::test_grown", "test_toy.py::test_unseen", "test_toy.py::test_slow"]


@pytest.mark.timeout(30)
def test_a_fault_is_put_in_and_seen_not_seen_or_ended(runner: tool.Runner) -> None:
    """Inside a function, at import, where no test looks, where none comes, and one that would never end."""
    reach = tool.recorded([runner], NAMES, ["toy"])
    assert [(one.name, sorted(one.lines["toy"])) for one in reach.tests] == [
        (NAMES[0], [9, 11]), (NAMES[1], [14, 15]), (NAMES[2], [22, 23, 24, 25])]

    def became(function: str, after: str) -> tuple[str, str]:
        (fault,) = [one for one in faults_of(function) if one.after == after]
        result = tool.mutant(runner, fault, reach.reaching("toy", fault.place))
        return result.status, result.by
    assert became("grown", "age > LEAST") == (KILLED, NAMES[0])
    assert became("", "17") == (KILLED, NAMES[0])
    assert became("unseen", "age - 1") == (SURVIVED, "")
    assert became("nobodys", "return None") == (UNREACHED, "")
    assert became("slow", "count += 1") == (HUNG, NAMES[2])
    assert runner.control(reach.tests).by is None


@pytest.mark.usefixtures("project")
def test_code_is_exchanged_where_it_lives_alone() -> None:
    before = compile("def f():\n    return 1\nA = 1\n", "toy.py", "exec")
    after = compile("def f():\n    return 2\nA = 1\n", "toy.py", "exec")
    assert [(one.co_name, other.co_consts) for one, other in inside.exchanges(before, after) or ()] == [
        ("f", (None, 2))]
    assert inside.exchanges(before, compile("def f():\n    return 1\nA = 2\n", "toy.py", "exec")) is None


def test_a_result_holds_until_the_module_or_the_test_changes(project: Path) -> None:
    fault = faults_of("grown")[0]
    tests = [Reaching(NAMES[0], 0.1, {})]
    kept = Ledger(project / "results.jsonl")
    assert kept.of(fault, tests) is None
    for status, by, files in ((KILLED, NAMES[0], ["test_toy.py"]), (SURVIVED, "", ["test_toy.py"])):
        result = Result(status, by, 0.1, 1, ledger.holds("toy", files))
        kept.keep(fault, result)
        assert Ledger(project / "results.jsonl").of(fault, tests) == result
    for name in ("toy.py", "test_toy.py"):
        before = (project / name).read_text()
        (project / name).write_text(before + "\n# changed\n")
        reaching.stamp_of.cache_clear()  # as for another run
        assert Ledger(project / "results.jsonl").of(fault, tests) is None
        (project / name).write_text(before)
        reaching.stamp_of.cache_clear()


def test_what_runs_at_import_is_reached_by_all_that_run_anything_of_the_module(project: Path) -> None:
    reach = reaching.Reach(project / "reach.json", ["toy"])
    (project / "test_other.py").write_text("import os\n")
    reach.tests = [Reaching("a", 0.1, {"toy": frozenset({11})}), Reaching("b", 0.1, {"toy": frozenset({15})}),
                   Reaching("test_other.py::c", 0.1, {"other": frozenset({11})}), Reaching("test_toy.py::d", 0.1, {})]
    assert [one.name for one in reach.reaching("toy", Place("grown", 11, 12, at_import=False))] == ["a"]
    assert [one.name for one in reach.reaching("toy", Place("", 5, 5, at_import=True))] == [
        "a", "b", "test_toy.py::d"], "d looks at what was made without running a line of it"
    assert not reach.reaching("toy", Place("nobodys", 19, 19, at_import=False))


# --- what is said of them -----------------------------------------------------------------------------------------


def told(results: list[tuple[Mutation, Result]], why: dict[str, Reason], monkeypatch: pytest.MonkeyPatch,
         named: Mapping[str, Result] = {}) -> dict[str, Any]:
    monkeypatch.setattr(ledger, "reasons", lambda: why)
    return tool.report(results, dict(named), complete=True)


@pytest.mark.usefixtures("project")
def test_a_survivor_needs_a_reason_and_a_reason_its_survivor(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, hung, left, excused = sites.mutations("toy", {})[:4]
    results = [(seen, Result(KILLED, "t", 0, 1, "")), (hung, Result(HUNG, "t", 0, 1, "")),
               (left, Result(UNREACHED, "", 0, 0, "")), (excused, Result(SURVIVED, "", 0, 1, ""))]
    reasons = {key: Reason(key, "", True, "why") for key in (excused.key, "of nothing")}
    data = told(results, reasons, monkeypatch, {"a": Result(SURVIVED, "", 0, 1, ""), "b": Result(KILLED, "", 0, 1, "")})
    assert (data["faults"], data["seen"], data["rate"], data["equivalent"]) == (4, 2, 0.5, 1)
    assert (data["new_survivors"], data["needless_reasons"]) == ([left.key], ["of nothing"])
    assert data["named_not_seen"] == ["a"]
    assert not tool.is_good(data)


@pytest.mark.parametrize(("survivors", "good"), [(1, True), (2, False)])
@pytest.mark.usefixtures("project")
def test_of_100_faults_95_must_be_seen(survivors: int, good: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = sites.mutations("toy", {})
    results = [(faults[at % 4], Result(SURVIVED if at < survivors else KILLED, "", 0, 1, "")) for at in range(20)]
    reasons = {one.key: Reason(one.key, "", True, "why") for one, result in results if not result.red}
    assert tool.is_good(told(results, reasons, monkeypatch)) is good


# --- what is kept by hand -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ledger.faults(), ids=lambda fault: fault.name)
def test_a_named_fault_still_changes_the_program(fault: Fault) -> None:
    before = sites.path_of(fault.module).read_text(encoding="utf-8")
    assert ast.dump(ast.parse(fault.source())) != ast.dump(ast.parse(before))


def test_the_names_of_faults_are_different() -> None:
    assert [name for name, times in Counter(one.name for one in ledger.faults()).items() if times > 1] == []


def test_each_reason_is_for_a_fault_that_can_be_made_and_says_why() -> None:
    can_be = {one.key: one.words for module in sites.MODULES
              for one in sites.mutations(module, vars(importlib.import_module(module)))}
    assert sorted(set(ledger.reasons()) - set(can_be)) == []
    assert [one.key for one in ledger.reasons().values() if len(one.why) < 20] == []
