"""One file, one secret: every option, setting, variable and prompt that takes one reads it by the same rule.

The readers are found in the code: a new option or setting that names such a file fails here until it is in the table.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import msgspec
import pytest

from delegator import config
from delegator.cli import files, main, reaching
from delegator.delegate import settings as delegate_settings
from delegator.errors import DelegatorError
from delegator.notify.carriers import MailCarrier
from delegator.provisioning import certifying
from delegator.sealing import read_key_file
from delegator.store.engines.postgres import connecting
from pki.__main__ import main as pki_main
from pki.console import PASSPHRASE_VARIABLE, Passphrase
from pki.errors import PkiError
from pki.text import LONGEST_SECRET, MARK

ROOT = Path(__file__).parents[1]
SECRET = base64.b64encode(hashlib.sha256(b"for all of them").digest()).decode()
"""A sealing key, so that it is one for every reader."""
Read = Callable[[Path], str]


def _mail(path: Path) -> str:
    carrier = MailCarrier(config.MailSettings(host="relay.example", password_file=str(path)), path, path, "us",
                          lambda: datetime.now(UTC))
    password = carrier.relay().password
    assert password is not None
    return password.reveal()


def _passphrase(path: Path) -> str:
    return (Passphrase(path, prompt=False).read() or b"").decode()


def _enrolment(path: Path) -> str:
    return (certifying._passphrase(str(path)) or b"").decode()


def _database(path: Path) -> str:
    return connecting._password(connecting.server_of("postgresql://a@localhost/b", str(path))) or ""


def _sealing(path: Path) -> str:
    return base64.b64encode(read_key_file(path)).decode()


def _setting(name: str) -> Read:
    return lambda path: reaching._FORMS[reaching.SETTINGS[name].form].read(path).reveal()  # type: ignore[attr-defined]


SETTINGS: dict[str, Read] = {
    "store.password_file": _database, "sealing.key_file": _sealing, "sealing.older_key_files": _sealing,
    "enrolment.passphrase_file": _enrolment, "mail.password_file": _mail, "delegate.sealing_key": _sealing}
OPTIONS: dict[str, Read] = {
    "--password-file": _setting("password_file"), "--webhook-secret-file": _setting("webhook_secret_file"),
    "--passphrase-file": _passphrase, "--sealing-key": _sealing}
PROMPTS = ("--password-prompt", "--passphrase-prompt")
READERS = {**SETTINGS, **OPTIONS}

WELL = {"no line end": "{}", "LF": "{}\n", "CRLF": "{}\r\n", "mark": "\ufeff{}", "Notepad": "\ufeff{}\r\n"}
ILL = {
    "second line": (b"{}\nkept by ops\n", "has a second line"), "blank second line": (b"{}\n\n", "has a second line"),
    "second line of Windows": (b"\xef\xbb\xbf{}\r\nkept by ops", "has a second line"),
    "a line above": (b"\n{}\n", "has a second line"),
    "two marks": (MARK + MARK + b"{}\n", "nobody sees"), "unseen": (b"{}\xe2\x80\x8b\n", "nobody sees"),
    "empty": (b"", "is empty"), "mark alone": (MARK, "is empty"),
    "line end alone": (b"\r\n", "is empty"), "blanks": (b"  \n", "is empty"),
    "NUL": (b"{}\0\n", "NUL"), "escape": (b"{}\x1b[D", "control character"), "tab": (b"{}\tx", "control character"),
    "carriage return": (b"{}\r", "carriage return"), "two, old Macintosh": (b"{}\rnote\r", "carriage return"),
    "Latin-1": (b"{}\xfc\n", "not UTF-8"), "long": (b"x" * (LONGEST_SECRET + 1), "longer than"),
    "endless": (b"{}" + b" " * 100_000, "longer than"), "gzip": (b"\x1f\x8b\x08{}", "gzip"),
    "UTF-16": (f"\ufeff{SECRET}\r\n".encode("utf-16-le"), "UTF-16"),
    "UTF-16 without mark": (SECRET.encode("utf-16-be"), "UTF-16"),
    "/dev/zero": (bytes(1 << 16), "nothing but NUL bytes"), "a workbook": (b"PK\x03\x04" + bytes(9000), ".xlsx")}


def private(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def with_secret(content: str | bytes) -> bytes:
    content = content.encode() if isinstance(content, str) else content
    return content.replace(b"{}", SECRET.encode())


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("content", WELL.values(), ids=WELL)
def test_a_secret_is_the_one_line_of_its_file(tmp_path: Path, reader: Read, content: str) -> None:
    assert reader(private(tmp_path / "file", with_secret(content))) == SECRET


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize(("content", "why"), ILL.values(), ids=ILL)
def test_anything_else_is_refused_by_its_name_and_without_showing_it(tmp_path: Path, reader: Read, content: bytes,
                                                                     why: str) -> None:
    path = private(tmp_path / "file", with_secret(content))
    with pytest.raises((DelegatorError, PkiError)) as caught:
        reader(path)
    assert why in caught.value.detail
    assert str(path) in caught.value.detail
    assert caught.value.hint
    assert SECRET not in caught.value.detail + caught.value.hint


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_what_others_can_read_and_what_is_not_there_is_refused(tmp_path: Path, reader: Read) -> None:
    path = private(tmp_path / "file", SECRET.encode())
    path.chmod(0o644)
    for _ in range(2):
        with pytest.raises((DelegatorError, PkiError)) as caught:
            reader(path)
        assert str(path) in caught.value.detail
        assert caught.value.hint
        path.unlink(missing_ok=True)


@pytest.mark.parametrize(("text", "kept"), [(" lead and end ", " lead and end "), ("schlüssel€", "schlüssel€"),
                                            ('"#;=$%"', '"#;=$%"')])
def test_nothing_within_the_line_is_changed(tmp_path: Path, text: str, kept: str) -> None:
    assert _passphrase(private(tmp_path / "file", f"{text}\n".encode())) == kept


@pytest.mark.parametrize("option", ["password_file", "webhook_secret_file"])
def test_standard_input_is_read_by_the_same_rule(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    def given(content: bytes) -> str:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        return _setting(option)(Path("-"))
    for content in WELL.values():
        assert given(with_secret(content)) == SECRET
    for content, why in ILL.values():
        with pytest.raises(DelegatorError, match=re.escape(why)):
            given(with_secret(content))


def test_the_environment_is_read_by_the_same_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    for content in WELL.values():
        monkeypatch.setitem(os.environb, PASSPHRASE_VARIABLE.encode(), with_secret(content))
        assert Passphrase(None, prompt=False).read() == SECRET.encode()
    for name, (content, why) in ILL.items():
        if b"\0" not in with_secret(content):
            monkeypatch.setitem(os.environb, PASSPHRASE_VARIABLE.encode(), with_secret(content))
            with pytest.raises(PkiError, match=re.escape(why)) as caught:
                Passphrase(None, prompt=False).read()
            assert PASSPHRASE_VARIABLE in caught.value.detail, name


@pytest.mark.parametrize("ask", [lambda: files.asked_password(True).reveal(),
                                 lambda: (Passphrase(None, prompt=True).read() or b"").decode()], ids=PROMPTS)
@pytest.mark.parametrize(("typed", "why"), [("\x1b[A", "control character"), (" ", "is empty"), ("\udcfc", "UTF-8")])
def test_what_is_typed_is_read_by_the_same_rule(monkeypatch: pytest.MonkeyPatch, ask: Callable[[], str], typed: str,
                                                why: str) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(click, "prompt", lambda *_, **__: SECRET)
    assert ask() == SECRET
    monkeypatch.setattr(click, "prompt", lambda *_, **__: typed)
    with pytest.raises((DelegatorError, PkiError), match=why):
        ask()


# --- no reader is missing from the table ------------------------------------------------------------------------------


def _named(settings: msgspec.Struct) -> Iterator[str]:
    for section, values in msgspec.to_builtins(settings).items():
        yield from (f"{section}.{key}" for key in values if re.search(r"password|passphrase|secret|sealing|token", key)
                    or section == "sealing")


def test_every_setting_that_names_a_secret_is_in_the_table() -> None:
    assert {*_named(config.Settings()), *_named(delegate_settings.Settings())} == set(SETTINGS)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for one in command.params:
        yield from (name for name in one.opts if name.startswith("--"))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from _options(below, context)


@pytest.mark.parametrize("program", [main, pki_main], ids=["delegator", "pki"])
def test_every_option_that_takes_a_secret_is_in_the_table(program: click.Group) -> None:
    found = {name for name in _options(program, click.Context(program))
             if re.search(r"password|passphrase|secret|sealing|token", name)}
    assert found
    assert found <= {*OPTIONS, *PROMPTS}


# --- those who cannot import it ---------------------------------------------------------------------------------------


def _example(name: str) -> ModuleType:
    path = ROOT / "examples" / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _receiver(path: Path) -> bytes:
    found: bytes = _example("webhook_receiver.py").secret_in(path)
    return found


def _local_python(path: Path) -> str:
    module: Any = _example("local/delegate.py")
    module.SECRET = path
    found: str = module.credential({"claim_id": "0" * 32, "service_tag": "ABC1234"})["password"]
    return found


def _local_program(path: Path) -> str:
    program = path.with_name("credential")
    program.write_bytes((ROOT / "examples" / "local" / "credential").read_bytes())
    done = subprocess.run(["/bin/sh", str(program)], input='{"service_tag":"ABC1234","claim_id":"00ff"}', text=True,
                          capture_output=True, check=False, timeout=10)
    if done.returncode:
        raise ValueError(done.stderr)
    return done.stdout


@pytest.mark.parametrize("reader", [_receiver, _local_python, _local_program])
def test_the_examples_restate_the_rule(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    path = tmp_path / "secret"
    found = {reader(private(path, with_secret(content))) for content in WELL.values()}
    assert len(found) == 1, "the same secret from whatever editor"
    for name in ("second line", "blank second line", "empty", "mark alone", "line end alone"):
        with pytest.raises((SystemExit, ValueError), match="one line"):
            reader(private(path, with_secret(ILL[name][0])))


def test_the_receiver_in_the_examples_and_the_delegator_read_one_secret(tmp_path: Path) -> None:
    path = private(tmp_path / "secret", with_secret(WELL["Notepad"]))
    assert _receiver(path) == OPTIONS["--webhook-secret-file"](path).encode()


def test_a_list_for_the_ssh_example_may_come_from_any_editor(tmp_path: Path) -> None:
    def ours(content: bytes) -> bool:
        (tmp_path / "owned").write_bytes(content)
        done = subprocess.run(
            ["/bin/sh", str(ROOT / "examples/ssh/getCred"), "ABC1234", "192.0.2.7"], capture_output=True, check=False,
            timeout=10, env={**os.environ, "GETCRED_OWNED": str(tmp_path / "owned"), "GETCRED_STATE": str(tmp_path)})
        return done.returncode == 0
    assert ours(b"ABC1234\nABC1235\n")
    assert ours(b"\xef\xbb\xbfABC1234\r\nABC1235\r\n")
    assert not ours(b"\xef\xbb\xbfABC12345\r\n")
