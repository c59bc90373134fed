"""Whoever starts a part of this with a Python that is too old is told so in one sentence, and which one is needed.

Tried with every older interpreter that the machine has; where it has none, the files that are read first are held to
the grammar that all of them know.
"""

from __future__ import annotations

import ast
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import build_device

ROOT = Path(__file__).parents[1]
FIRST = {"pki/__init__.py": (3, 11), "delegator/__init__.py": None, "delegator/__main__.py": (3, 11),
         "delegator/device/__init__.py": (3, 9), "scripts/__init__.py": (3, 11)}
"""What any Python reads before it can be told; None where it is not the file that tells."""
STARTED = {"-m pki show ca": (3, 11), "-m delegator --version": (3, 11), "-m delegator.device reasons": (3, 9),
           "-m scripts.build_device": (3, 11), "scripts/soap_call.py --help": (3, 9),
           "examples/delegate_minimal.py --help": (3, 11), "examples/webhook_receiver.py --help": (3, 10)}
SINGLE = "examples/", "scripts/soap_call.py"
"""Files that stand alone cannot be read by a Python before 3.6."""
VERSIONS = ((2, 7), (3, 6), (3, 7), (3, 8), (3, 9), (3, 10))


def _interpreter(version: tuple[int, int]) -> str | None:
    """From the path or from a pyenv; None where the machine has none that starts."""
    name = ".".join(map(str, version))
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python{name}"), *map(str, sorted(pyenv.glob(f"{name}.*/bin/python")))]
    return next((path for path in found if path and not subprocess.run([path, "-c", ""], capture_output=True,
                                                                        check=False).returncode), None)


def _too_old(words: str, needed: tuple[int, int], version: tuple[int, int]) -> bool:
    return version < needed and (version >= (3, 6) or not words.startswith(SINGLE))


@pytest.mark.parametrize("version", VERSIONS, ids=lambda one: ".".join(map(str, one)))
def test_an_old_python_is_told_in_one_sentence(tmp_path: Path, version: tuple[int, int]) -> None:
    python = _interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version[0]}.{version[1]} on this machine")
    packed = tmp_path / "delegator-device.pyz"
    build_device.pack(packed, build_device.contents(ROOT, 1_000_000_000), 1_000_000_000)
    for words, needed in {**STARTED, f"{packed} reasons": (3, 9)}.items():
        if _too_old(words, needed, version):
            done = subprocess.run([python, "-B", *words.split()], cwd=ROOT, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stdout) == (3, ""), (words, done.stderr)
            assert f"Python {needed[0]}.{needed[1]} or " in done.stderr
            assert f"{version[0]}.{version[1]}" in done.stderr
            assert "Traceback" not in done.stderr
            assert len(done.stderr.splitlines()) <= 2


@pytest.mark.parametrize(("name", "needed"), FIRST.items())
def test_what_is_read_first_is_in_words_that_every_python_knows(name: str, needed: tuple[int, int] | None) -> None:
    """No annotation, no f-string, no import from the future: a file is read whole before any of it runs."""
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        assert not isinstance(node, ast.JoinedStr | ast.AnnAssign | ast.NamedExpr | ast.AsyncFunctionDef | ast.Match)
        assert not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
        assert not (isinstance(node, ast.arg) and node.annotation)
        assert not (isinstance(node, ast.FunctionDef) and (node.returns or node.args.kwonlyargs))
    before = [node for node in tree.body if isinstance(node, ast.If)][:1]
    assert (needed is None) == (not before)


@pytest.mark.parametrize(("name", "needed"), [one for one in FIRST.items() if one[1]])
def test_the_sentence_comes_before_anything_else(name: str, needed: tuple[int, int], monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 5, 0, "final", 0))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / name))
    assert end.value.code == 3
    assert f"Python {needed[0]}.{needed[1]} or " in capsys.readouterr().err
