"""What the certificate authority's tests share: folders, a way to run the commands, programs that are not ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pki import Folder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A fresh authority."""
    return Folder.create(tmp_path / "pki", common_name="Example Factory CA", organization="Example Manufacturer")


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on standard output."""
        (line,) = self.out.splitlines()
        return dict(json.loads(line))


def pki_process(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """`python -m pki ...` as an operator starts it."""
    command = [sys.executable, "-m", "pki", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Ran]:
    """Runs a command in the test's own process: fast, same code path as `python -m pki`."""
    from click.testing import CliRunner

    from pki.__main__ import main

    def call(*arguments: object, stdin: str | bytes | None = None, env: dict[str, str] | None = None) -> Ran:
        words = [str(word) for word in arguments]
        if "--dir" not in words:
            words += ["--dir", str(tmp_path / "pki")]
        done = CliRunner().invoke(main, words, input=stdin, env=env)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Ran(done.exit_code, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="session")
def openssl() -> Callable[..., str]:
    """The distribution's own `openssl`, a build that shares nothing with the wheels."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no openssl program here")

    def call(*arguments: object, ok: bool = True, stdin: bytes | None = None) -> str:
        done = subprocess.run([program, *map(str, arguments)], input=stdin, capture_output=True, check=False)
        words = (done.stdout + done.stderr).decode()
        assert (done.returncode == 0) is ok, words
        return words

    return call


@pytest.fixture
def request_file(tmp_path: Path, openssl: Callable[..., str]) -> Iterator[Callable[..., Path]]:
    """Writes a PKCS#10 request with openssl; the key stays in the test's folder, never in the PKI folder."""

    def make(*options: str, subject: str = "/CN=whatever") -> Path:
        path = tmp_path / "partner.csr"
        key = options or ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
        openssl("req", "-new", *key, "-nodes", "-subj", subject, "-keyout", tmp_path / "partner.key", "-out", path)
        return path

    return make
