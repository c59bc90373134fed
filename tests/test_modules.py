"""A module's name leads to the module: no room has a function or class of its own by that name beside it.
And no module needs, by whatever way, a module that needs it; late imports and those for types alone count too.

`import delegator.store.migrate` gave everybody a function once, because the room imported one of that name from there.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType

import grimp
import pytest

ROOT = Path(__file__).parents[1]
ROOMS = sorted(path for top in ("delegator", "pki") for path in (ROOT / top).rglob("__init__.py"))


def names_in(text: str) -> set[str]:
    """What a room's own file makes its names: what it imports, defines and assigns at its top."""
    found: set[str] = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom):
            found |= {one.asname or one.name for one in node.names if not _is_module(node, one.name)}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {one.id for one in node.targets if isinstance(one, ast.Name)}
    return found


def _is_module(node: ast.ImportFrom, name: str) -> bool:
    folder = ROOT.joinpath(*(node.module or "").split("."))
    return (folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists()


def modules_in(room: Path) -> set[str]:
    return {path.stem for path in room.parent.glob("*.py")} | {path.parent.name for path in
                                                              room.parent.glob("*/__init__.py")}


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_no_module_is_hidden_by_a_name_of_its_room(room: Path) -> None:
    assert not names_in(room.read_text(encoding="utf-8")) & modules_in(room)


def test_no_module_that_is_loaded_is_hidden() -> None:
    """As the interpreter has it, for all that these tests have loaded so far."""
    import delegator.store.footing
    import delegator.store.migrate  # noqa: F401

    hidden = [name for name, module in list(sys.modules.items())
              if name.startswith(("delegator.", "pki.")) and isinstance(module, ModuleType)
              and getattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], module) is not module]
    assert hidden == []


def test_a_hidden_module_would_be_found() -> None:
    assert names_in("from delegator.store.migrate import migrate\nfrom delegator.store import claims\n") == {"migrate"}


def circle(needs: Mapping[str, set[str]]) -> list[str]:
    """One circle of them, from a module to itself again; empty where there is none."""
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_no_module_is_in_a_circle() -> None:
    """import-linter looks at neighbours; a room's own file and a module in it are none, and this looks at them too."""
    graph = grimp.build_graph("delegator", "pki", cache_dir=None)
    assert len(graph.modules) > 100
    assert circle({module: graph.find_modules_directly_imported_by(module) for module in graph.modules}) == []


def test_a_circle_would_be_found() -> None:
    assert circle({"room": {"room.lazy"}, "room.lazy": {"room.low"}, "room.low": set()}) == []
    assert set(circle({"room": {"room.lazy"}, "room.lazy": {"room.low"}, "room.low": {"room"}})) == {
        "room", "room.lazy", "room.low"}
