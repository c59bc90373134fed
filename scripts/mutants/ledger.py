"""What is known of faults: results so far, the reasons of survivors, the faults that have a name.

Results are kept as they come, so that a run that is broken off goes on where it was. A result holds while neither the
module nor the tests it was found with have changed. `survivors.toml` says why what survives may; it is written by
hand, and a survivor that it does not name fails the run, as does a reason for one that is there no more.
Must not live here: how a result is found (main, pool).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.mutants.reaching import Test, stamp, stamp_of
from scripts.mutants.sites import ROOT, Mutation, path_of

HERE = Path(__file__).parent
SURVIVORS, FAULTS = HERE / "survivors.toml", HERE / "faults.toml"
KILLED, HUNG, SURVIVED, UNREACHED = "killed", "hung", "survived", "unreached"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one fault; `by` is the test that saw it, `holds` what it depends on."""

    status: str
    by: str
    seconds: float
    tests: int
    holds: str

    @property
    def red(self) -> bool:
        return self.status in (KILLED, HUNG)


class Ledger:
    """Results by the fault's key, a line each in a file that only grows until it is read again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Result] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                key, said = json.loads(line)
                self._known[key] = Result(**said)

    def of(self, mutation: Mutation, tests: Iterable[Test]) -> Result | None:
        """The result, where it still holds."""
        known = self._known.get(mutation.key)
        if known is None:
            return None
        still = holds(mutation.module, [known.by.partition("::")[0]] if known.red else files_of(tests))
        return known if known.holds == still else None

    def keep(self, mutation: Mutation, result: Result) -> None:
        self._known[mutation.key] = result
        with self._path.open("a", encoding="utf-8") as out:
            print(json.dumps([mutation.key, asdict(result)]), file=out)


def files_of(tests: Iterable[Test]) -> list[str]:
    return sorted({one.file for one in tests})


def holds(module: str, files: Iterable[str]) -> str:
    """What a result depends on."""
    there = [file for file in files if (ROOT / file).is_file()]
    return "-".join([stamp([path_of(module)]), *(stamp_of(file)[:6] for file in there)])


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a survivor may survive: `equivalent` ones change nothing that could be seen; others are accepted."""

    key: str
    what: str
    equivalent: bool
    why: str


def reasons() -> dict[str, Reason]:
    if not SURVIVORS.exists():
        return {}
    said = tomllib.loads(SURVIVORS.read_text(encoding="utf-8"))
    return {one["key"]: Reason(**one) for one in said.get("survivor", [])}


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault with a name: this text of a file stands there as that one instead."""

    name: str
    module: str
    before: str
    after: str

    def source(self) -> str:
        """The module with the fault in it. Raises ValueError where the text does not stand there once."""
        text = path_of(self.module).read_text(encoding="utf-8")
        if text.count(self.before) != 1:
            raise ValueError(f"fault {self.name!r}: its text stands {text.count(self.before)} times in {self.module}")
        return text.replace(self.before, self.after)

    @property
    def lines(self) -> tuple[int, int]:
        """Where the text stands, from the first line that differs."""
        text = path_of(self.module).read_text(encoding="utf-8")
        first = text[:text.index(self.before)].count("\n") + 1
        return first, first + self.before.rstrip("\n").count("\n")


def faults() -> list[Fault]:
    said = tomllib.loads(FAULTS.read_text(encoding="utf-8")) if FAULTS.exists() else {}
    return [Fault(**one) for one in said.get("fault", [])]
