"""Which quick tests run which lines: recorded once for each file of tests, and again when it or what it runs changed.

The invariant: a test that runs lines here passes without a fault; one that fails is said, and left out.
Must not live here: how lines are noted (inside).
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.mutants.sites import ROOT, Place, path_of


def stamp(paths: Iterable[Path]) -> str:
    """Changes when one of these files does."""
    made = hashlib.sha256()
    for path in paths:
        made.update(path.read_bytes() + b"\0")
    return made.hexdigest()[:16]


@functools.cache
def stamp_of(test_file: str) -> str:
    """Of a file of tests with the helpers beside and above it, as they were when this run began."""
    path = ROOT / test_file
    beside = [one for folder in path.parents if folder.is_relative_to(ROOT / "tests") for one in folder.glob("*.py")
              if not one.name.startswith("test_")]
    return stamp([path, *sorted(beside)])


@dataclass(frozen=True, slots=True)
class Test:
    """One quick test: its seconds, and the lines it runs by module."""

    name: str
    seconds: float
    lines: Mapping[str, frozenset[int]]

    @property
    def file(self) -> str:
        return self.name.partition("::")[0]


class Reach:
    """What is known of all tests, kept in a file."""

    def __init__(self, path: Path, modules: Iterable[str]) -> None:
        """`modules` are those whose lines are wanted."""
        self._path, self._wanted = path, set(modules)
        self._files: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self._stamps: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self.tests: list[Test] = []

    def stale(self, names: Sequence[str]) -> dict[str, list[str]]:
        """The tests to be recorded, by file; what is no longer there is forgotten."""
        there: dict[str, list[str]] = {}
        for name in names:
            there.setdefault(name.partition("::")[0], []).append(name)
        self._stamps = {file: stamp_of(file) for file in there}  # of what was collected, whatever is edited meanwhile
        self._files = {file: kept for file, kept in self._files.items() if file in there}
        return {file: tests for file, tests in there.items() if not self._holds(file, tests)}

    def _holds(self, file: str, tests: list[str]) -> bool:
        kept = self._files.get(file)
        if kept is None or kept["stamp"] != self._stamps[file] or [one[0] for one in kept["tests"]] != tests:
            return False
        if not self._wanted <= set(kept.get("wanted", ())):
            return False
        return all(stamp([path_of(module)]) == seen for module, seen in kept["modules"].items())

    def keep(self, file: str, recorded: str) -> None:
        """The lines that `inside.record` wrote of a file of tests."""
        tests = [json.loads(line) for line in recorded.splitlines()]
        modules = {module: stamp([path_of(module)]) for _, _, lines in tests for module in lines or ()}
        self._files[file] = {"stamp": self._stamps[file], "wanted": sorted(self._wanted), "modules": modules,
                             "tests": tests}
        self._path.write_text(json.dumps(self._files), encoding="utf-8")

    def read(self) -> None:
        """From what is kept."""
        self.tests = [Test(name, seconds, {module: frozenset(those) for module, those in lines.items()})
                      for kept in self._files.values() for name, seconds, lines in kept["tests"] if lines is not None]

    def reaching(self, module: str, place: Place) -> list[Test]:
        """The tests that run a place. What runs at import is reached by all that run a line beneath it, else by all
        that run anything of the module; and by those that look at what was made there without running a line of it,
        whose file names the module."""
        lines = set(range(place.first, place.last + 1))
        found = [one for one in self.tests if not lines.isdisjoint(one.lines.get(module, ()))]
        if not place.at_import:
            return found
        found = found or [one for one in self.tests if module in one.lines]
        return found + [one for one in self.tests if module not in one.lines and self._names(one.file, module)]

    def _names(self, file: str, module: str) -> bool:
        if file not in self._texts:
            self._texts[file] = (ROOT / file).read_text(encoding="utf-8")
        return module in self._texts[file]
