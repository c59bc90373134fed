"""A2: the commands in the operator's page are run as they stand, so the page cannot rot."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "pki.md").read_text()
STAND_INS = {
    "/secure/pki --passphrase-prompt": "secure --passphrase-file secret",
    "/secure/pki": "secure",
    "/run/credentials/pki-passphrase": "secret",
    "get-it-from-your-vault": "cat secret",
    "generate-tags |": "printf 'ABC7777\\nABC8888\\n' |",
    "/mnt/line-7": "line-7",
}  # what an operator has and a test has not


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    text = "".join(blocks)
    for theirs, ours in STAND_INS.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    return text.splitlines()


@pytest.mark.slow
def test_a2_every_command_of_the_page_works_in_order(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl program here")
    (tmp_path / "tags.csv").write_text("service_tag,model\nABC5555,R7\nABC6666,R7\n")
    (tmp_path / "secret").write_text("correct horse\n")
    (tmp_path / "secret").chmod(0o600)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    ran = commands()
    assert len(ran) >= 20
    for command in ran:
        expected = 2 if command.startswith("openssl verify") else 0  # the page revokes that device before
        done = subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert done.returncode == expected, (command, done.stdout, done.stderr)


def test_a2_the_page_names_every_profile() -> None:
    from pki import PROFILES

    assert all(f"| `{name}` |" in TEXT for name in PROFILES)
