"""What we are made of: known weaknesses are found and told, the bill of materials is one, the wheel is reproducible."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import http.server
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts import audit

from .conftest import REQUIRED

ROOT = Path(__file__).parents[1]
TODAY = datetime.datetime.now(datetime.UTC).date()


def needs(*modules: str) -> None:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        (pytest.fail if REQUIRED else pytest.skip)(f"not installed: {', '.join(missing)} (make tools)")


# --- known weaknesses ---------------------------------------------------------------------------------------------


class Advisories(http.server.BaseHTTPRequestHandler):
    """An advisory service of the OSV kind that knows of one weakness: h11 before 99."""

    asked: int = 0

    def do_POST(self) -> None:
        type(self).asked += 1
        name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
        weak = {"vulns": [{"id": "GHSA-test-0001", "aliases": ["CVE-2099-0001"], "summary": "Takes a line for another.",
                           "affected": [{"package": {"name": "h11", "ecosystem": "PyPI"}, "ranges": [
                               {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}]}]}]}
        body = json.dumps(weak if name == "h11" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Advisories)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


def audited(tmp_path: Path, url: str, packages: str, exceptions: str = "") -> tuple[int, str]:
    needs("pip_audit")
    requirements, accepted = tmp_path / "constraints.txt", tmp_path / "advisories.toml"
    requirements.write_text(packages)
    accepted.write_text(exceptions)
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "audit.py", "--osv-url", url, "--requirements", requirements, "--accepted",
         accepted], capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)})
    assert done.stdout == ""
    return done.returncode, done.stderr


def exception(until: datetime.date, because: str = "We never let it read a line of a stranger's.") -> str:
    return f'[[accepted]]\nid = "CVE-2099-0001"\npackage = "h11"\nbecause = "{because}"\nuntil = {until}\n'


@pytest.mark.slow
def test_a_known_weakness_fails_the_audit_and_is_told_with_its_cure(service: str, tmp_path: Path) -> None:
    code, words = audited(tmp_path, service, "h11==0.16.0\nlxml==6.1.3\n")
    assert code == 1
    assert "WEAK h11 0.16.0 CVE-2099-0001: Takes a line for another.; mended in 99" in words
    code, words = audited(tmp_path, service, "lxml==6.1.3\n")
    assert (code, "1 packages looked at, 0 known weaknesses" in words) == (0, True)


@pytest.mark.slow
def test_an_exception_has_a_reason_and_an_end(service: str, tmp_path: Path) -> None:
    soon = TODAY + datetime.timedelta(days=30)
    code, words = audited(tmp_path, service, "h11==0.16.0\n", exception(soon))
    assert (code, f"accepted until {soon}: h11 CVE-2099-0001: We never" in words) == (0, True)
    code, words = audited(tmp_path, service, "h11==0.16.0\n", exception(TODAY - datetime.timedelta(days=1)))
    assert (code, "its exception has run out" in words) == (1, True)
    code, words = audited(tmp_path, service, "lxml==6.1.3\n", exception(soon))
    assert (code, "not needed any more: CVE-2099-0001" in words) == (0, True)


@pytest.mark.parametrize("exceptions", [
    exception(TODAY + datetime.timedelta(days=400)), exception(TODAY, "because"), exception(TODAY) * 6,
    '[[accepted]]\nid = "CVE-2099-0001"\n'], ids=["for ever", "no reason", "too many", "half said"])
def test_the_list_of_exceptions_is_bounded(tmp_path: Path, exceptions: str) -> None:
    code, words = audited(tmp_path, "http://127.0.0.1:9/", "h11==0.16.0\n", exceptions)
    assert code == 3, words


@pytest.mark.slow
def test_a_service_out_of_reach_says_nothing_about_us(tmp_path: Path) -> None:
    """The build goes on, and nobody can take it for an audit."""
    code, words = audited(tmp_path, "http://127.0.0.1:9/", "h11==0.16.0\n")
    assert code == 75
    assert words.startswith("NOT AUDITED: ")


def test_the_projects_own_exceptions_are_in_order() -> None:
    audit.accepted(ROOT / "scripts" / "advisories.toml", TODAY)


# --- what is in it ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], bytes]:
    path = tmp_path_factory.mktemp("sbom") / "sbom.json"
    for _ in range(2):
        before = path.read_bytes() if path.exists() else None
        subprocess.run([sys.executable, "-m", "scripts.sbom", path], cwd=ROOT, check=True, capture_output=True,
                       timeout=60, env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"})
    assert before == path.read_bytes(), "the same twice"
    found: dict[str, Any] = json.loads(path.read_text())
    return found, path.read_bytes()


def test_the_bill_of_materials_is_valid_cyclonedx(bill: tuple[dict[str, Any], bytes]) -> None:
    """Against the format's own schema, as its maintainers publish it."""
    needs("jsonschema", "cyclonedx", "referencing")
    import cyclonedx.schema
    import jsonschema
    import referencing

    folder = Path(cyclonedx.schema.__file__).parent / "_res"
    schema = {name: json.loads((folder / f"{name}.SNAPSHOT.schema.json").read_text())
              for name in ("bom-1.6", "spdx", "jsf-0.82")}
    known = referencing.Registry().with_resources(
        (place, referencing.Resource.from_contents(one)) for name, one in schema.items()
        for place in (one["$id"], f"http://cyclonedx.org/schema/{name}.SNAPSHOT.schema.json"))
    validator = jsonschema.Draft7Validator(schema["bom-1.6"], registry=known)
    assert [error.message for error in validator.iter_errors(bill[0])] == []
    assert list(validator.iter_errors({**bill[0], "components": [{"type": "teapot"}]})), "it can say no"


def test_the_bill_names_everything_at_the_version_that_is_pinned(bill: tuple[dict[str, Any], bytes]) -> None:
    parts = {one["name"]: one for one in bill[0]["components"]}
    lines = (ROOT / "constraints.txt").read_text().lower().splitlines()
    pins = dict(line.replace("_", "-").split("==") for line in lines if not line.startswith("#"))
    assert {"cryptography", "cffi", "pycparser", "httptools", "asyncpg", "asyncssh", "publicsuffixlist"} <= parts.keys()
    assert not {"pytest", "mypy", "dnspython", "hypothesis", "atheris", "pip-audit"} & parts.keys()
    assert {name: one["version"] for name, one in parts.items()} == {name: pins[name] for name in parts}
    assert all(one["licenses"] for one in parts.values())
    (inside,) = parts["cryptography"]["components"]
    assert inside["name"] == "openssl"
    known = {one["ref"] for one in bill[0]["dependencies"]}
    assert {needed for one in bill[0]["dependencies"] for needed in one["dependsOn"]} <= known
    assert str(ROOT).encode() not in bill[1]


# --- the wheel ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_wheel_is_the_same_bytes_wherever_and_whenever_it_is_built(tmp_path: Path) -> None:
    """Twice: in another folder, under another umask, beside the leftovers of an earlier build."""
    found, sources = [], tmp_path / "sources"
    sources.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        shutil.copy(ROOT / name, sources)
    for name in ("pki", "delegator", "scripts"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, umask, stray in (("one", 0o022, False), ("two", 0o077, True)):
        root = tmp_path / name
        shutil.copytree(sources, root)
        if stray:
            (root / "build" / "lib" / "delegator").mkdir(parents=True)
            (root / "build" / "lib" / "delegator" / "ghost.py").write_text("left over")
            for path in (root / "delegator").rglob("*.py"):
                path.chmod(0o600)
        done = subprocess.run([sys.executable, "-m", "scripts.build_wheel", root / "dist"], check=True,
                              cwd=root, capture_output=True, text=True, umask=umask, timeout=300,
                              env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"})
        (wheel,) = (root / "dist").glob("*.whl")
        found.append(hashlib.sha256(wheel.read_bytes()).hexdigest())
        assert done.stdout.split() == [found[-1], str(wheel)]
    assert found[0] == found[1]
    with contextlib.closing(zipfile.ZipFile(wheel)) as archive:
        names = set(archive.namelist())
    assert "delegator/ghost.py" not in names
    assert {"delegator/openssl.cnf", "delegator/py.typed", "delegator/store/schema/0001_start.sqlite.sql",
            "pki/__main__.py"} <= names
    assert not [name for name in names if name.startswith(("tests", "fuzz", "scripts"))]
