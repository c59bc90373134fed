"""Every command there is: help with an example, --json, an error that ends with what to do next; completion in real
shells."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from delegator.cli import NOUNS, main

from .conftest import ROOT, process

OF_THE_DEVICE = "device activate"
"""Its words go to the device client as they are."""


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command, as it is typed, out of the tree that click walks."""
    def walk(path: str, command: click.Command, above: click.Context) -> Iterator[tuple[str, click.Command]]:
        yield path, command
        if isinstance(command, click.Group):
            context = click.Context(command, above, info_name=command.name)
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None, f"{path} {name}"
                yield from walk(f"{path} {name}", inner, context)

    root = click.Context(main, info_name="delegator")
    for noun in NOUNS:
        command = main.get_command(root, noun)
        assert command is not None
        yield from walk(noun, command, root)


ALL = dict(commands())
VERBS = {path: command for path, command in ALL.items() if not isinstance(command, click.Group)}


def test_there_are_some() -> None:
    assert len(VERBS) > 40


@pytest.mark.parametrize("path", ALL)
def test_help_says_what_it_does_and_ends_with_an_example(path: str) -> None:
    done = CliRunner().invoke(main, [*path.split(), "--help"], prog_name="delegator")
    assert done.exit_code == 0, done.output
    assert (ALL[path].help or "").strip(), "a command without a sentence"
    assert re.search(r"^ *Examples?:", done.stdout, re.MULTILINE), "no example"
    example = re.split(r"^ *Examples?:", done.stdout, flags=re.MULTILINE)[-1]
    assert f"delegator {path}" in re.sub(r"--config \S+ |\s+", lambda found: " " if found[0].isspace() else "",
                                         example), example


@pytest.mark.parametrize("path", VERBS)
def test_knows_json(path: str) -> None:
    assert "--json" in CliRunner().invoke(main, [*path.split(), "--help"], prog_name="delegator").stdout


@pytest.mark.parametrize("path", VERBS)
def test_a_word_that_does_not_fit_ends_with_what_to_do(path: str, place: Path) -> None:
    done = CliRunner().invoke(main, [*path.split(), "--frobnicate"], prog_name="delegator")
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    if path == OF_THE_DEVICE:
        assert done.stderr.startswith("usage: "), "the device client, of the standard library alone, says it all"
    else:
        assert done.stderr.startswith("error: ")
        assert done.stderr.splitlines()[-1] == f"  next: see: delegator {path} --help"


@pytest.mark.parametrize("path", VERBS)
def test_no_option_takes_a_secret(path: str) -> None:
    """Whoever may list processes reads command lines: secrets come from files or prompts."""
    for parameter in VERBS[path].params:
        if isinstance(parameter, click.Option) and not parameter.is_flag:
            names = " ".join(parameter.opts)
            assert not re.search(r"(password|secret|passphrase|private-key)(?!-file|-prompt)", names), names


# --- completion ---------------------------------------------------------------------------------------------------


def complete(place: Path, words: str, cword: int) -> tuple[list[str], float]:
    """What bash is told for a line, and how long that took, in seconds."""
    began = time.monotonic()
    done = process(cwd=place, COMP_WORDS=words, COMP_CWORD=str(cword), _DELEGATOR_COMPLETE="bash_complete")
    assert done.returncode == 0, done.stderr
    return [line.split(",", 1)[1] for line in done.stdout.splitlines()], time.monotonic() - began


def test_nouns_verbs_and_options_are_completed(place: Path) -> None:
    assert complete(place, "delegator cu", 1)[0] == ["customers"]
    assert {"list", "add", "show", "remove"} <= set(complete(place, "delegator customers ", 2)[0])
    assert complete(place, "delegator customers list --js", 3)[0] == ["--json"]


def test_completion_waits_for_no_command(place: Path) -> None:
    """Nouns come out of the table, without importing what they do."""
    code = ("import sys; from delegator.__main__ import main\ntry: main()\nexcept SystemExit: pass\n"
            "print([m for m in sys.modules if m.startswith('delegator.cli.')], file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, cwd=place, timeout=30,
                          check=False, env={**os.environ, "PYTHONPATH": str(ROOT), "COMP_WORDS": "delegator ",
                                            "COMP_CWORD": "1", "_DELEGATOR_COMPLETE": "bash_complete"})
    assert {f"plain,{noun}" for noun in NOUNS} <= set(done.stdout.splitlines())
    assert "delegator.cli.customers" not in done.stderr
    assert "delegator.cli.lazy" in done.stderr


@pytest.fixture
def on_the_path(place: Path) -> str:
    """A folder with `delegator` in it, as an installation makes it."""
    script = place / "bin" / "delegator"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom delegator.__main__ import main\nmain()\n")
    script.chmod(0o755)
    return f"{script.parent}:{os.environ['PATH']}"


SHELLS = {
    "bash": ("source completion; COMP_WORDS=(delegator cust); COMP_CWORD=1; COMP_LINE='delegator cust'; "
             "COMP_POINT=14; _delegator_completion delegator; echo \"${COMPREPLY[@]}\"; complete -p delegator"),
    "zsh": ("autoload -U compinit; compinit -u -d dump; source completion; "
            "print -r -- ${_comps[delegator]}; env COMP_WORDS='delegator cust' COMP_CWORD=1 "
            "_DELEGATOR_COMPLETE=zsh_complete delegator"),
    "fish": "source completion; complete -C 'delegator cust'",
}


@pytest.mark.parametrize("shell", [
    pytest.param(shell, marks=pytest.mark.counterpart(shell)) for shell in SHELLS])
def test_the_script_works_in_the_shell(place: Path, on_the_path: str, shell: str) -> None:
    script = process("completion", shell, cwd=place)
    assert script.returncode == 0, script.stderr
    (place / "completion").write_text(script.stdout)
    program = shutil.which(shell)
    assert program is not None
    done = subprocess.run([program, "-c", SHELLS[shell]], cwd=place, text=True, capture_output=True, timeout=30,
                          check=False, env={**os.environ, "PATH": on_the_path, "PYTHONPATH": str(ROOT),
                                            "HOME": str(place)})
    assert "customers" in done.stdout.split(), (done.stdout, done.stderr)
    assert "delegator" in script.stdout
