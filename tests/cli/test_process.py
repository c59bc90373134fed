"""The real thing: `python -m delegator` as scripts and people start it, and the commands that the manuals print."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from delegator.cli import main as delegator
from delegator.config import Settings
from pki import Folder
from pki.__main__ import main as pki

from .conftest import ROOT, process

pytestmark = pytest.mark.slow

MANUALS = ("operators.md", "customers.md")


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
            "print([m for m in ('OpenSSL', 'pki.folder', 'delegator.handshake', 'delegator.app')"
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


def _shell_blocks(manual: str) -> str:
    text = (ROOT / "docs" / manual).read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


PROGRAMS = {("delegator",): delegator, ("python", "-m", "pki"): pki}
OF_THE_SHELL = ("cat", "mkdir", "mv")


def _typed(line: str) -> None:
    """Runs one line of a manual in this process, as a shell would: words, and perhaps a file for the output."""
    words = shlex.split(line)
    target = words[-1] if words[-2:-1] == [">"] else None
    if words[0] in OF_THE_SHELL:
        subprocess.run(["/bin/sh", "-c", line], check=True, timeout=10)
        return
    for start, program in PROGRAMS.items():
        if tuple(words[:len(start)]) == start:
            done = CliRunner().invoke(program, words[len(start):-2 if target else None])
            assert done.exit_code == 0, (line, done.output)
            if target:
                Path(target).write_text(done.stdout)
            return
    pytest.fail(f"what is {line!r}?")


@pytest.mark.parametrize("manual", MANUALS)
def test_the_commands_of_the_manual_work_from_top_to_bottom(place: Path, customer_ca: Folder, manual: str) -> None:
    Path("acme-ca.crt").write_bytes(customer_ca.ca_path.read_bytes())
    if manual != "operators.md":
        _typed("delegator config new-key var/sealing.key")
    lines = iter(_shell_blocks(manual).splitlines())
    for line in filter(None, lines):
        here = re.fullmatch(r"cat > (\S+) <<'END'", line)
        if here:
            Path(here[1]).write_text("\n".join(itertools.takewhile(lambda each: each != "END", lines)) + "\n")
        else:
            _typed(line)


def test_the_manual_knows_every_setting() -> None:
    text = (ROOT / "docs/operators.md").read_text(encoding="utf-8")
    for section, values in msgspec.to_builtins(Settings()).items():
        assert f"`[{section}]`" in text
        assert all(f"`{key}`" in text for key in values), section
