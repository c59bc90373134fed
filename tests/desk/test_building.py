"""Every value from every form, every field wrong in turn, by the desk alone: no rule about values is left above it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from delegator.desk import shapes

from . import building

ROOT = Path(__file__).parents[2]
CASES = list(building.cases())


@pytest.mark.parametrize("case", [case for _, case in CASES], ids=[name for name, _ in CASES])
def test_every_value_from_every_form_with_every_field_wrong_in_turn(case: Callable[[], None]) -> None:
    case()


def test_every_sheet_of_the_desk_has_its_cases() -> None:
    assert set(building.sheets()) == set(building.GOOD) == set(building.WRONG)


def test_every_form_of_the_desk_has_its_cases() -> None:
    assert set(building.words()) == set(building.WORDS)


def test_all_of_it_is_so_where_nobody_can_import_click() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "tests" / "desk" / "building.py")], cwd=ROOT, check=False,
                          capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) == len(CASES) > 500


def test_a_form_that_nobody_covers_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from delegator.desk import forms
    from delegator.desk.sheets import Sheet

    def new(text: str) -> str:
        return text
    monkeypatch.setattr(new, "__module__", forms.__name__)
    monkeypatch.setattr(new, "__annotations__", {"text": "str", "return": "str"})
    monkeypatch.setattr(forms, "new", new, raising=False)
    monkeypatch.setattr(forms, "NEW", Sheet("new", {}, dict), raising=False)
    assert set(building.words()) - set(building.WORDS) == {"forms.new"}
    assert set(building.sheets()) - set(building.GOOD) == {"new"}


# --- nothing above ------------------------------------------------------------------------------------------------

JUDGES = re.compile(r"IntRange\(|FloatRange\(|BadParameter|re\.compile\(|\.fullmatch\(|raise ValueError")
"""By what a module of the command line judges a value by itself."""
ALLOWED = {
    "parameters.py": "a range of the desk as click has it", "listing.py": "how many lines are shown",
    "delegate_server.py": "flags of the customer's server: a port, how many lines are shown",
    "demo.py": "flags of the demonstration", "serve.py": "a port to listen at, judged again with all settings",
    "operator.py": "who gives a command, of the machine and not of a person",
    "checking.py": "words of reports, told apart", "trying.py": "a name told apart from a file's",
}


def test_the_command_line_judges_no_value_by_itself() -> None:
    """Whoever writes a rule into a command finds it here; a browser would not meet it."""
    cli = ROOT / "delegator" / "cli"
    found = {path.name for path in cli.glob("*.py") if JUDGES.search(path.read_text())}
    assert found == set(ALLOWED)


# --- what is shown can be said ------------------------------------------------------------------------------------

SHOWN: dict[str, tuple[Callable[[Any], Mapping[str, object]], tuple[str, ...]]] = {
    "customer": (shapes.customer, ()), "device": (shapes.registration, ()), "order": (shapes.order, ()),
    "rule": (shapes.rule, ()), "policy": (shapes.policy, ()), "plan": (shapes.plan, ("version",))}
"""By the sheet: what shows its value, and what that says besides which nobody fills in."""


@pytest.mark.parametrize("noun", SHOWN)
def test_what_is_shown_of_a_value_can_be_said_of_it_again(noun: str) -> None:
    """One vocabulary for --json, for files and for requests: a page that shows a value can send it back."""
    sheet = building.sheets()[noun]
    shape, besides = SHOWN[noun]
    value = sheet.read(building.GOOD[noun])
    shown = {name: told for name, told in shape(value).items() if name not in besides}
    assert sheet.read(json.loads(json.dumps(shown))) == value
