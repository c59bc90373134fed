"""Every file that a command is given has a kind, and every file of rows is read by the one reader of tables.

The commands are asked which files they take: a new one fails here until it is said what kind of file it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from delegator.cli import main
from pki.__main__ import main as pki_main

from .conftest import Console

SETTINGS, SECRET, PEM, POLICY, ROWS, OTHER = "settings", "secret", "PEM", "policy", "rows", "no text that we read"
KINDS = {
    "--config": SETTINGS, "--password-file": SECRET, "--webhook-secret-file": SECRET, "--passphrase-file": SECRET,
    "--signing-key": PEM, "--callback-ca": PEM, "--private-key-file": PEM, "--host-key-file": PEM,
    "--webhook-anchor": PEM, "--trust-anchor": PEM, "--certificate": PEM, "--sign-with": PEM, "--signature": PEM,
    "--csr": PEM, "--file": POLICY, "policies validate": POLICY, "--from-file": ROWS, "--devices": ROWS, "--from": ROWS,
    "devices import": ROWS, "orders import": ROWS, "adopt": ROWS, "--dir": OTHER, "--out": OTHER, "--output": OTHER,
    "--local": OTHER, "--program": OTHER, "devices export": OTHER, "orders export": OTHER, "audit export": OTHER,
    "config write": OTHER,
    "config new-key": OTHER, "backup": OTHER, "restore": OTHER}
"""By the option, or by the command of an argument."""
COMMANDS = {
    "devices import": ("devices", "import", "-", "--customer", "acme"),
    "orders import": ("orders", "import", "-", "--customer", "acme"),
    "policies approve": ("policies", "approve", "strict", "--from-file", "-"),
    "policies disapprove": ("policies", "disapprove", "strict", "--from-file", "-"),
    "policies try": ("policies", "try", "strict", "--devices", "-"),
    "devices return": ("devices", "return", "--devices", "-"),
    "transfers offer": ("transfers", "offer", "--devices", "-", "--to", "other"),
    "transfers accept": ("transfers", "accept", "--devices", "-", "--as", "other"),
    "transfers decline": ("transfers", "decline", "--devices", "-", "--as", "other"),
    "transfers withdraw": ("transfers", "withdraw", "--devices", "-", "--as", "acme"),
    "device": ("device", "--from", "-"), "adopt": ("adopt", "-")}
"""Of every command that takes rows, how it is given them on standard input."""
FOREIGN = {
    "UTF-16": ("service_tag\r\nABC1234\r\n".encode("utf-16"), "UTF-16"), "xlsx": (b"PK\x03\x04\x14\0\6\0", ".xlsx"),
    "gzip": (b"\x1f\x8b\x08\0\0\0", "gzip"), "Latin-1": (b"# f\xfcr uns\nABC1234\n", "not UTF-8"),
    "bare CR": (b"ABC1234\rABC1235\r", "carriage return"),
    "JSON array": (b'[{"service_tag": "ABC1234"}]', "JSON array"),
    "no header": (b"R7515,ABC1234\nR7515,ABC1235\n", "no header"), "web page": (b"<html><body>Sign in", "HTML"),
    "bars": (b"model|service_tag|order|certificate\nR7|ABC1234|1|x\n", "header"), "NUL": (b"ABC\x001234\n", "NUL")}


def _files(command: click.Command, context: click.Context, words: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Command and option, or the command again for an argument, of each file."""
    for one in command.params:
        if isinstance(one.type, click.Path | click.File):
            option = one.opts[0] if isinstance(one, click.Option) else " ".join(words)
            yield " ".join(words), option
    for name in command.list_commands(context) if isinstance(command, click.Group) else ():
        below = command.get_command(context, name)  # type: ignore[attr-defined]
        if below is not None:
            yield from _files(below, context, (*words, name))


FILES = [pair for program in (main, pki_main) for pair in _files(program, click.Context(program))]


def test_every_file_that_a_command_takes_has_a_kind() -> None:
    assert {option for _, option in FILES} <= set(KINDS)
    assert {command for command, option in FILES if KINDS[option] == ROWS} == set(COMMANDS)


@pytest.fixture
def ask(acme: Console) -> Callable[..., Any]:
    """Gives a command its rows; the words on standard error and the exit code."""
    acme.ok("customers", "add", "other", "--title", "Other")
    acme.ok("policies", "add", "strict", "--approved-only")
    CliRunner().invoke(pki_main, ["init", "--dir", "pki"])

    def asked(command: str, content: bytes) -> tuple[int, str]:
        words = COMMANDS[command]
        if command in ("device", "adopt"):
            done = CliRunner().invoke(pki_main, [*words, "--dir", "pki"], input=content)
            return done.exit_code, done.stderr
        ran = acme.run(*words, stdin=content)
        return ran.code, ran.err
    return asked


def test_whatever_takes_rows_tells_a_file_that_is_something_else_what_it_is(ask: Callable[..., Any]) -> None:
    for command in COMMANDS:
        for name, (content, why) in FOREIGN.items():
            code, said = ask(command, content)
            assert code == 5, (command, name, said)
            assert why in said, (command, name, said)
            assert "\n  next: " in said
    assert not list(Path("pki").glob("devices/*"))


LISTS = {"one a line": b"ABC1234\n", "mark and CRLF": b"\xef\xbb\xbfABC1234\r\n",
         "comment": b"# ours\nABC1234 # first\n",
         "commas": b"model,service_tag\nR7,ABC1234\n", "semicolons": b"\xef\xbb\xbfModel;Service Tag\r\nR7;ABC1234\r\n",
         "tabs": b"order\tservice_tag\n\tABC1234\n", "quoted": b'"Site, rack",service_tag\n"Berlin, 4",ABC1234\n',
         "JSON lines": b'{"model": "R7", "service_tag": "ABC1234"}\n'}


@pytest.mark.parametrize("content", LISTS.values(), ids=LISTS)
def test_a_list_of_devices_may_be_a_table_too(ask: Callable[..., Any], content: bytes) -> None:
    for command in ("policies approve", "policies try", "policies disapprove", "transfers offer", "devices return",
                    "device"):
        code, said = ask(command, content)
        assert code == 0, (command, said)
    assert [path.stem for path in Path("pki/devices").glob("*.crt")] == ["ABC1234"]


@pytest.mark.parametrize("many", [1, 3, 40])
def test_what_a_list_without_a_heading_was_taken_for_is_said_and_how_long_it_is(ask: Callable[..., Any],
                                                                                many: int) -> None:
    """A heading of one column that looks like a tag is no device: whoever sees it named can tell."""
    rows = b"".join(b"ABC%04d\n" % number for number in range(1234, 1234 + many))
    taken = "no heading: the first line, 'ABC1234', is taken as a service tag"
    lists = [command for command in COMMANDS if command not in ("devices import", "orders import", "adopt")]
    for command in lists:
        _, said = ask(command, rows)
        assert (taken if command == "device" else f"{taken}; {many} in all\n") in said, (command, said)
        assert "no heading" not in ask(command, b"service_tag\n" + rows)[1], command


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_shipment_may_be_parted_by_semicolons_or_tabs(acme: Console, separator: str) -> None:
    rows = [["service_tag", "mac_addresses", "model"], ["ABC1235", '"00:1A:2B:3C:4D:60;00:1A:2B:3C:4D:61"', "R750"],
            ["ABC1236", "00:1A:2B:3C:4D:62 00:1A:2B:3C:4D:63", ""]]
    text = "\r\n".join(map(separator.join, rows))
    assert acme.ok("devices", "import", "-", "--customer", "acme", stdin=text)["new"] == 2
    assert acme.ok("devices", "show", "ABC1235")["mac_addresses"] == ["00:1A:2B:3C:4D:60", "00:1A:2B:3C:4D:61"]
    assert acme.ok("devices", "show", "ABC1236")["mac_addresses"] == ["00:1A:2B:3C:4D:62", "00:1A:2B:3C:4D:63"]


@pytest.mark.parametrize("row", ["ABC1235;00:1A:2B:3C:4D:60;00:1A:2B:3C:4D:61;R750",
                                 "ABC1235;00-1A-2B-3C-4D-60;00-1A-2B-3C-4D-61"])
def test_addresses_parted_like_columns_are_not_taken_for_the_next_column(acme: Console, row: str) -> None:
    done = acme.run("devices", "import", "-", "--customer", "acme", "--json",
                    stdin=f"service_tag;mac_addresses;model\n{row}\n")
    assert done.code == 5
    (refused,) = done.json["refused"]
    assert "parted by" in refused["error"]


@pytest.mark.parametrize(("name", "why"), [
    ("none.csv", "No such file or directory"), (".", "is not a file but a folder"),
    ("pipe", "is not a file but a named pipe")])
def test_a_file_that_is_not_there_is_told_by_its_name_and_not_by_a_number(acme: Console, name: str, why: str) -> None:
    os.mkfifo("pipe", 0o600)
    acme.ok("policies", "add", "strict", "--approved-only")
    given = {words: tuple(name if word == "-" else word for word in COMMANDS[words]) for words in COMMANDS
             if words not in ("device", "adopt")}
    given |= {"validate": ("policies", "validate", name), "try": ("policies", "try", f"./{name}"),
              "add": ("policies", "add", "lax", "--file", name)}
    for words in given.values():
        said = acme.refused(3, *words)
        assert why in said, words
        assert "Errno" not in said


@pytest.mark.parametrize("content", ["", "\n\n", "# nothing yet\n", "service_tag,model\n"])
@pytest.mark.parametrize("verb", ["approve", "disapprove"])
def test_a_list_without_a_tag_is_called_that(acme: Console, verb: str, content: str) -> None:
    acme.ok("policies", "add", "strict", "--approved-only")
    Path("tags.csv").write_text(content)
    assert "tags.csv names no device" in acme.refused(5, "policies", verb, "strict", "--from-file", "tags.csv")
