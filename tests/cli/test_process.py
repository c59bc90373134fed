"""The real thing: `python -m delegator` as scripts and people start it, and the commands that the manuals print."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from delegator.config import Settings
from pki import Folder

from .conftest import ROOT, process

pytestmark = pytest.mark.slow



def test_a_console_session_from_nothing(place: Path) -> None:
    assert process("customers", "list", cwd=place).returncode == 3
    assert process("config", "new-key", "var/sealing.key", cwd=place).stdout == "var/sealing.key\n"
    added = process("customers", "add", "acme", "--title", "Acme", "--json", cwd=place)
    assert json.loads(added.stdout)["name"] == "acme"
    assert (place / "var/delegator.db").stat().st_mode & 0o777 == 0o600


def test_an_error_is_words_and_an_exit_code_and_no_traceback(place: Path) -> None:
    done = process("customers", "add", "ACME", "--title", "x", cwd=place)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean acme?" in done.stderr
    assert done.stderr.splitlines()[-1] == "  next: see: delegator customers add --help"


def test_the_environment_overrides_a_key(place: Path) -> None:
    shown = process("config", "show", "--json", cwd=place, DELEGATOR_SERVER__PORT="5555")
    assert json.loads(shown.stdout)["server"]["port"] == 5555


def test_openssl_is_set_up_before_anything_loads_it(place: Path) -> None:
    code = ("import sys, delegator.engine as e; e.load = lambda: print('cryptography' in sys.modules, "
            "'delegator.cli' in sys.modules); sys.argv = ['delegator', '--version']; "
            "from delegator.__main__ import main; main()")
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
                          capture_output=True, timeout=30, cwd=place, check=False)
    assert done.stdout.splitlines()[0] == "False False"


def test_small_commands_do_not_wait_for_big_ones(place: Path) -> None:
    code = ("import sys; from delegator.__main__ import main\ntry: main()\nexcept SystemExit: pass\n"
            "print([m for m in ('OpenSSL', 'pki.folder', 'delegator.provisioning.handshake', 'delegator.serving.app')"
            " if m in sys.modules])")
    (place / "var").mkdir()
    process("config", "new-key", "var/sealing.key", cwd=place)
    done = subprocess.run([sys.executable, "-c", code, "customers", "list"], text=True, capture_output=True,
                          cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=30, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_reader_that_leaves_early_is_no_disaster(place: Path) -> None:
    process("config", "new-key", "var/sealing.key", cwd=place)
    process("customers", "add", "acme", "--title", "Acme", cwd=place)
    rows = "\n".join(f"T{number:06}" for number in range(3000))
    (place / "rows.csv").write_text(f"service_tag\n{rows}\n")
    assert process("devices", "import", "rows.csv", "--customer", "acme", cwd=place).stderr.startswith("3000 new")
    shell = f"{sys.executable} -m delegator devices list | head -n 1"
    done = subprocess.run(["bash", "-c", shell], cwd=place, text=True, capture_output=True, timeout=30, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout.startswith("SERVICE TAG")
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_said_so(place: Path, factory: Folder) -> None:
    process("config", "new-key", "var/sealing.key", cwd=place)
    certificate = factory.certificate_path("delegator-server", "delegator")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = process("serve", "--port", taken.getsockname()[1], "--host", "127.0.0.1", cwd=place,
                       DELEGATOR_SERVER__CERTIFICATE=str(certificate), DELEGATOR_SERVER__CA=str(factory.ca_path),
                       DELEGATOR_SERVER__KEY=str(certificate.with_suffix(".key")),
                       DELEGATOR_SERVER__CRL=str(factory.crl_path))
    assert done.returncode == 3, done.stderr
    assert "already in use" in done.stderr
    assert "  next: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_is_none_is_words_only(place: Path) -> None:
    process("config", "new-key", "var/sealing.key", cwd=place)
    (place / "var/delegator.db").write_text("nothing that makes sense\n" * 50)
    done = process("customers", "list", cwd=place)
    assert done.returncode == 3
    assert done.stderr.startswith("error: database var/delegator.db: ")
    assert "Traceback" not in done.stderr


def test_the_words_of_device_activate_reach_the_device_client(place: Path) -> None:
    done = process("device", "activate", "--delegator", "127.0.0.1:1", "--tag", "ABC1234", "--ca", "none.crt",
                   "--certificate", "none.crt", "--key", "none.key", "--state", "state", "--once", "--json",
                   cwd=place)
    assert done.returncode == 3
    assert json.loads(done.stdout)["outcome"] == "failed"
    assert process("device", "activate", "--frobnicate", cwd=place).returncode == 2


def test_the_manual_knows_every_setting() -> None:
    text = (ROOT / "docs/operators.md").read_text(encoding="utf-8")
    for section, values in msgspec.to_builtins(Settings()).items():
        assert f"`[{section}]`" in text
        assert all(f"`{key}`" in text for key in values), section
