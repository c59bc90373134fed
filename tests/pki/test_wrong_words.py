"""Whatever is wrong on the command line of the authority is told in words, with what to do next.

The law is driven by the commands themselves: each value of each command is set to what cannot be right.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from pki import Folder
from pki.__main__ import main

OURS = re.compile(r"\[Errno|Traceback|NoneType|<class|\b[A-Za-z]+(Error|Exception)\b")
TEXTS = ("nobody", "", " ", "x" * 300, "\udcff", "-1", "9" * 30, "../x", "é", "a,b", "*.x")
FILES = {"none/x": None, "folder": None, "nul": b"\0\0x", "binary": bytes(range(256)), "empty": b"",
         "wide": "service_tag\nABC1234\n".encode("utf-16"), "x" * 300: None,
         "pem": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "list.json": b"[1, {}, null]"}
NAMES = {"tag": "ABC1234", "address": "a@b.example", "target": "ca", "name": "delegator", "source": "empty"}


def _cases() -> list[Any]:
    cases = []
    for verb, command in main.commands.items():
        for wanted in command.params:
            if getattr(wanted, "is_flag", False):
                continue
            words = [verb]
            for one in command.params:
                given = "?" if one is wanted else NAMES.get(str(one.name), "x")
                if one is wanted or one.required:
                    words += [given] if isinstance(one, click.Argument) else [one.opts[0], given]
            values = FILES if isinstance(wanted.type, click.Path | click.File) else TEXTS
            cases.append(pytest.param(words, [*values], id=f"{verb} {wanted.name}"))
    return cases


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Folder.create("var/pki", common_name="Test Factory CA")
    for name, content in FILES.items():
        if content is not None:
            Path(name).write_bytes(content)
            Path(name).chmod(0o600)
    Path("folder").mkdir(mode=0o700)
    return tmp_path


@pytest.mark.parametrize(("words", "wrong"), _cases())
def test_a_wrong_value_is_told_in_words(place: Path, words: list[str], wrong: list[str]) -> None:
    for value in wrong:
        said = [value if word == "?" else word for word in words]
        done = CliRunner().invoke(main, said, input=b"")
        assert done.exception is None or isinstance(done.exception, SystemExit), (said, done.exception)
        assert not OURS.search(done.stderr), (said, done.stderr)
        assert done.exit_code in (0, 1, 2, 3, 5, 6), (said, done.stderr)
        if done.exit_code in (3, 5, 6):
            assert "\n  next: " in done.stderr, (said, done.stderr)
