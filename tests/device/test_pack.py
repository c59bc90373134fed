"""The one file that ships (mission A12): small, reproducible, and enough by itself on a bare Python."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from delegator.device import reasons
from scripts import build_device

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    target = tmp_path_factory.mktemp("dist") / "delegator-device.pyz"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1000000000")
        assert build_device.main(["--out", str(target)]) == 0
    return target


def test_it_is_small_and_holds_only_the_device(packed):
    assert packed.stat().st_size <= 60_000
    assert packed.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert packed.stat().st_mode & 0o111
    names = zipfile.ZipFile(packed).namelist()
    assert {name for name in names if not name.startswith("delegator/device/")} == {
        "__main__.py", "delegator/__init__.py"}


def test_the_same_sources_give_the_same_bytes(packed, tmp_path, monkeypatch):
    """And the build's moment is in it: the lower bound of time for a device whose clock is not set."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert build_device.main(["--out", str(tmp_path / "again.pyz")]) == 0
    assert (tmp_path / "again.pyz").read_bytes() == packed.read_bytes()
    assert b"BUILD_TIME = 1000000000" in zipfile.ZipFile(packed).read("delegator/device/built.py")


def interpreter(version):
    """The interpreter of that version, from the path or from a pyenv; None where the machine has none that starts."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python{version}"), *map(str, sorted(pyenv.glob(f"{version}.*/bin/python3")))]
    starts = [path for path in found if path and not subprocess.run([path, "-c", ""], capture_output=True).returncode]
    return starts[0] if starts else None


@pytest.mark.slow
@pytest.mark.parametrize("version", ["own", *VERSIONS])
def test_a12_it_activates_on_a_bare_python(lab, say, packed, version):
    """-I -S: no site-packages, no environment, no current folder; other Pythons where the machine has them."""
    python = sys.executable if version == "own" else interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    delegator = lab.delegator(lab.issued(lab.delegate()), say.CONFIRMED)
    done = subprocess.run([python, "-I", "-S", packed, *lab.words(delegator, "--hook", lab.hook(), "--once")],
                          capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcome"] == "ready"
    refused = lab.delegator(client_ca=lab.pki.owner.file)
    done = subprocess.run([python, "-I", "-S", packed, *lab.words(refused, "--once", "--again")],
                          capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, json.loads(done.stdout)["detail"]) == (29, "TLS alert unknown_ca"), done.stderr
    assert "ignored" not in done.stderr  # Python 3.13 tells of what 3.12 kept to itself


@pytest.mark.slow
@pytest.mark.parametrize("version", ["own", *VERSIONS])
def test_it_looks_and_tells_on_a_bare_python(lab, say, packed, version):
    """`check`, `status`, `reasons`, and what is strange on the way: a chunk that nobody can count, a name in XML."""
    python = sys.executable if version == "own" else interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")

    def runs(*words):
        done = subprocess.run([python, "-I", "-S", packed, *words], capture_output=True, text=True, check=False,
                              timeout=30)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout
    assert runs("check", *lab.words(lab.delegator(say.http("<definitions/>")))[1:])[0] == 0
    assert runs("reasons") == (0, reasons.table() + "\n")
    assert runs("status", "--state", str(lab.folder / "nowhere"))[0] == 3
    chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-" + b"f" * 99 + b"\r\n"
    names = say.http(b'<a xmlns:p="' + b"u" * 60_000 + b'">' + b"<p:b/>" * 2000 + b"</a>")
    own = "--own", str(lab.folder / "own")
    for strange in (chunk, names, b"\x00", say.fault("NotEntitled")):
        code, said = runs(*lab.words(lab.delegator(strange), "--once", *own))
        assert json.loads(said)["reason"] in ("answer-not-understood", "no-answer", "not-entitled")
        assert code in (30, 31, 35)  # Python 3.9 takes such a chunk for one that was cut off
    code, said = runs("status", "--state", str(lab.state), "--json")
    assert (code, json.loads(said)["reason"]) == (35, "not-entitled")


def test_a_packed_program_is_the_same_without_its_texts():
    """Line for line, so that a line has the number that it has in the sources."""
    source = (ROOT / "delegator/device/hook.py").read_text()
    shorter = build_device.without_words(source)
    assert len(shorter.splitlines()) == len(source.splitlines())
    assert '"""' not in shorter
    assert build_device.without_words('def a():\n    """x"""\n') == 'def a():\n    """x"""\n'


def test_it_uses_the_standard_library_only():
    """Every import of every room is either its own or the standard library's."""
    for name, text in build_device.contents(ROOT, 0).items():
        for node in ast.walk(ast.parse(text)):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [])
            for module in modules:
                assert module.startswith("delegator.device") or module.split(".")[0] in sys.stdlib_module_names, name


def test_too_large_a_file_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build_device, "SIZE_LIMIT", 10)
    assert build_device.main(["--out", str(tmp_path / "x.pyz")]) == 1
    assert "larger" in capsys.readouterr().err
    assert not (tmp_path / "x.pyz").exists()
