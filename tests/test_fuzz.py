"""The fuzzers: what they kept still holds, they find a bug that is there, and every reader of others' bytes has one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import engines
from fuzz.table import TARGETS
from fuzz.target import MOST, Target

from .conftest import REQUIRED

ROOT = Path(__file__).parents[1]
KEPT = [(name, path) for name, target in TARGETS.items() for path in sorted(target.corpus.glob("*"))]
READERS = {
    "http": "delegator/wire/http.py", "xml": "delegator/wire/xml.py", "soap": "delegator/wire/soap.py",
    "canonical": "delegator/wire/canonical.py", "messages": "delegator/wire/messages.py",
    "proxy": "delegator/wire/proxy.py", "smtp": "delegator/wire/smtp.py",
    "certificate": "delegator/wire/certificate.py", "request": "pki/keys.py",
    "dns": "delegator/net/dns.py", "mail": "delegator/wire/mail.py", "config": "delegator/config.py",
    "rows": "delegator/desk/records.py", "policy": "delegator/desk/policy_file.py",
    "program": "delegator/callbacks/answers.py", "device": "delegator/device/answers.py",
}


def test_TC1_every_reader_of_bytes_that_others_write_has_a_fuzzer_and_a_law() -> None:
    assert TARGETS.keys() == READERS.keys()
    assert all((ROOT / path).exists() for path in READERS.values())
    for target in TARGETS.values():
        assert target.law.endswith(".")
        assert target.seeds


@pytest.mark.parametrize("name", TARGETS)
def test_TC1_the_seeds_keep_the_law(name: str) -> None:
    for data in TARGETS[name].seeds:
        TARGETS[name].check(data)


@pytest.mark.parametrize(("name", "path"), KEPT, ids=[f"{name}-{path.name}" for name, path in KEPT])
def test_TC1_what_once_led_somewhere_new_keeps_the_law(name: str, path: Path) -> None:
    data = path.read_bytes()
    assert len(data) <= MOST
    TARGETS[name].check(data)


def test_the_corpus_is_small() -> None:
    assert {name for name, _ in KEPT} == TARGETS.keys()
    assert sum(path.stat().st_size for _, path in KEPT) < 500_000


def planted(data: bytes) -> None:
    if b"ABC1234" in data and b"&#13;" in data:
        raise ZeroDivisionError("planted")


@pytest.mark.parametrize("engine", [engines.by_hypothesis, engines.by_chance])
def test_a_broken_law_is_found_and_the_bytes_are_kept(engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    xml = TARGETS["xml"]
    with pytest.raises(engines.Broken, match="ZeroDivisionError: planted") as caught:
        engine(Target("planted", "No.", planted, xml.seeds, (b"&#13;",)), 60.0, 1)
    (path,) = (tmp_path / "var" / "fuzz").glob("planted-*")
    assert str(path.relative_to(tmp_path)) in str(caught.value)
    with pytest.raises(ZeroDivisionError):
        planted(path.read_bytes())


@pytest.mark.slow
def test_make_fuzz_looks_at_every_reader_and_follows_the_code_of_one() -> None:
    done = subprocess.run([sys.executable, "-m", "fuzz", "--seconds", "8", "--engine", "hypothesis"], cwd=ROOT,
                          capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stderr.splitlines()] == list(TARGETS)
    if importlib.util.find_spec("atheris") is None:
        (pytest.fail if REQUIRED else pytest.skip)("atheris is not installed: make tools")
    done = subprocess.run([sys.executable, "-m", "fuzz", "--seconds", "4", "--engine", "atheris", "--target", "xml"],
                          cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stderr.split(",")[1].split()[0]) > 100
