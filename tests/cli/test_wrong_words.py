"""Whatever is wrong on a command line is told in words: its cause, and what to do next.

The law is driven by the commands themselves: each value of each command is set to what cannot be right while the others
stand, and nothing that comes of it is a traceback, a number of the system, a constraint of the database, or a class of
Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from .conftest import Console
from .test_console import VERBS

OURS = re.compile(r"\[Errno|FOREIGN KEY|UNIQUE constraint|Traceback|NoneType|<class|\b[A-Za-z]+(Error|Exception)\b")
TEXTS = ("nobody-there", "", " ", "x" * 300, "\udcff", "ABC1234", "-1", "9" * 30, "é", "../x", "[", "{}", "%s")
FILES = {
    "none/x": None, "folder": None, "nul": b"\0\0x", "binary": bytes(range(256)), "empty": b"",
    "wide": "service_tag\nABC1234\n".encode("utf-16"),
    "pem": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "key": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "list.json": b"[1, {}, null]",
    "object.json": b'{"a": 1}', "table": b"service_tag\nnot a tag\n", "x" * 300: None, "folder/../empty/x": None}
GIVEN = {
    "name": "acme", "customer": "acme", "title": "Acme", "tag": "ABC1234", "device": "ABC1234", "order": "4711",
    "which": "ABC1234", "because": "why", "names": "ABC1234", "owner": "acme", "to": "globex", "as_": "acme",
    "claim_id": "0" * 32, "number": "1", "host": "127.0.0.1:1", "plan": "basic", "shell": "bash", "step": "offer",
    "file": "table", "policy": "rollout", "delegate": "acme-small"}
"""What is right for a required value of that name."""
RUNS = ("demo", "device activate", "delegates scan-host-key")
"""Commands that start something else; their words have tests of their own."""


def _values(path: tuple[str, ...], command: click.Command) -> Iterator[tuple[str, list[str]]]:
    """Each value of a command: its name, and the words of the command line before and after it."""
    for wanted in command.params:
        if getattr(wanted, "is_flag", False) or wanted.name in ("help", "as_json"):
            continue
        words: list[str] = [*path]
        for one in command.params:
            if one is wanted:
                words += ["?"] if isinstance(one, click.Argument) else [one.opts[0], "?"]
            elif one.required:
                given = GIVEN.get(str(one.name), "acme")
                words += [given] if isinstance(one, click.Argument) else [one.opts[0], given]
        yield str(wanted.name), words


def _wrong(command: click.Command, name: str) -> Iterator[str]:
    kind: Any = next(one.type for one in command.params if one.name == name)
    yield from FILES if isinstance(kind, click.Path | click.File) else TEXTS


def _cases() -> Iterator[Any]:
    for path, command in VERBS.items():
        if " ".join(path) not in RUNS:
            for name, words in _values(path, command):
                yield pytest.param(words, list(_wrong(command, name)), id=f"{' '.join(path)} {name}")


CASES = list(_cases())


@pytest.fixture
def shop(acme: Console) -> Console:
    """Something of everything that values may name, and files of every wrong kind."""
    acme.ok("policies", "add", "rollout")
    acme.ok("rules", "add", "big", "--delegate", "acme-small", "--model", "R750")
    acme.ok("orders", "add", "4711", "--customer", "acme")
    for name, content in FILES.items():
        if content is not None:
            Path(name).write_bytes(content)
    Path("folder").mkdir()
    return acme


@pytest.mark.slow
@pytest.mark.parametrize(("words", "wrong"), CASES)
def test_a_wrong_value_is_told_in_words(shop: Console, words: list[str], wrong: list[str]) -> None:
    _told(shop, words, wrong)


@pytest.mark.parametrize("noun", sorted({case.values[0][0] for case in CASES}))
def test_a_few_wrong_values_of_each_noun_are_told_in_words(shop: Console, noun: str) -> None:
    for words, wrong in (case.values for case in CASES if case.values[0][0] == noun):
        _told(shop, words, wrong[:5:4])


def _told(shop: Console, words: list[str], wrong: list[str]) -> None:
    for value in wrong:
        said = [value if word == "?" else word for word in words]
        done = shop.run(*said, stdin=b"")
        assert not OURS.search(done.err), (said, done.err)
        assert done.code in (0, 1, 2, 3, 4, 5, 6, 75), (said, done.err)
        if done.code in (2, 3, 6):
            assert "\n  next: " in done.err, (said, done.err)


@pytest.mark.parametrize(("words", "referring"), [
    (("customers", "remove", "acme"), ("delegate acme-small", "order 4711", "device ABC1234")),
    (("delegates", "remove", "acme-small"), ("rule big", "order 4711")),
    (("policies", "remove", "rollout"), ("customer globex", "delegate acme-small"))])
def test_what_still_refers_to_it_is_named(shop: Console, words: tuple[str, ...], referring: tuple[str, ...]) -> None:
    shop.ok("customers", "add", "globex", "--title", "Globex", "--policy", "rollout")
    shop.ok("delegates", "change", "acme-small", "--hosted", "x", "--policy", "rollout")
    shop.ok("orders", "change", "4711", "--delegate", "acme-small")
    said = shop.refused(6, *words)
    assert f"{words[0].removesuffix('s').replace('policie', 'policy')} {words[2]} is still referred to by" in said
    assert [one for one in referring if one not in said] == []
