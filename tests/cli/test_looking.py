"""A verb that only reads makes nothing: in a folder that is not the delegator's it says so, and leaves it as it was.

The law is driven by the tree of commands: which verbs read only stands in one list (test_changing), in which every verb
has its place.
"""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from delegator.sealing import create_key_file

from .conftest import Console
from .test_changing import NEVER
from .test_console import VERBS
from .test_wrong_words import GIVEN, RUNS

READING = [path for path in VERBS if " ".join(path) in NEVER["reads only"] and " ".join(path) not in RUNS]
DRY = [path for path, command in VERBS.items() if any(one.name == "dry_run" for one in command.params)]


def _words(path: tuple[str, ...]) -> list[str]:
    """A command line with whatever the verb cannot do without."""
    words = [*path]
    for one in VERBS[path].params:
        if one.required or (isinstance(one, click.Argument) and one.nargs == -1):
            given = GIVEN.get(str(one.name), "acme")
            words += [given] if isinstance(one, click.Argument) else [one.opts[0], given]
    return words


def _all(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("key", [False, True], ids=["no key", "a key"])
@pytest.mark.parametrize("path", [*READING, *DRY], ids=" ".join)
def test_a_verb_that_only_reads_makes_neither_file_nor_folder(place: Path, path: tuple[str, ...], key: bool) -> None:
    Path("table").write_text("service_tag\nABC1234\n")
    if key:
        Path("var").mkdir()
        create_key_file(Path("var/sealing.key"))
    before = _all(place)
    done = Console().run(*_words(path), *(["--dry-run"] if path in DRY else []))
    assert _all(place) == before, done.err
    if "there is no database" in done.err:
        assert done.code == 3
        assert str(place / "var/delegator.db") in done.err
        assert "name its settings with --config" in done.err


def test_most_of_them_say_that_there_is_no_database(place: Path) -> None:
    """Else the law above would hold for words that do not fit at all."""
    said = [path for path in READING if "there is no database" in Console().run(*_words(path)).err]
    assert len(said) >= 30, said


def test_what_writes_says_what_it_made(place: Path) -> None:
    Path("var").mkdir()
    create_key_file(Path("var/sealing.key"))
    made = f"made a new, empty database at {place / 'var/delegator.db'}"
    console = Console()
    assert made in console.run("customers", "add", "acme", "--title", "Acme").err
    assert made not in console.run("customers", "add", "globex", "--title", "Globex").err
