"""House rules of every command: --json, an example, one document on standard output, exit codes, no traceback."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from delegator.cli import NOUNS, console, main
from delegator.cli.lazy import LazyGroup, Place
from delegator.errors import APPEARANCES, DelegatorError, Kind
from pki.errors import EXIT_CODES, PkiError
from pki.errors import Kind as PkiKind

from .conftest import Console


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


COMMANDS = dict(_commands(main))
VERBS = {path: command for path, command in COMMANDS.items() if not isinstance(command, click.Group)}


def test_the_nouns_of_the_design_are_all_there() -> None:
    assert {path[0] for path in COMMANDS} == set(NOUNS)
    assert {" ".join(path) for path in VERBS} >= {
        "serve", "demo", "explain", "customers add", "customers remove", "delegates add", "devices import",
        "rules list", "policies approve", "policies disapprove", "claims release", "config check", "config show",
        "config new-key", "delegate serve", "device activate"}


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_every_command_knows_json_and_shows_an_example(place: object, path: tuple[str, ...]) -> None:
    done = Console().run(*path, "--help")
    assert done.code == 0
    assert "Example:\n" in done.out
    assert f"delegator {' '.join(path)}" in done.out.replace(" --config delegator.toml", "")
    assert "--json" in done.out


def test_help_on_nouns_lists_their_commands(place: object) -> None:
    for path, command in COMMANDS.items():
        if isinstance(command, click.Group):
            assert "Commands:" in Console().run(*path, "-h").out


@pytest.mark.parametrize("words", [(), ("customers",)])
def test_without_a_command_the_help_is_shown_as_words_and_it_is_a_usage_error(place: object,
                                                                              words: tuple[str, ...]) -> None:
    done = Console().run(*words)
    assert (done.code, done.out) == (2, "")
    assert "Commands:" in done.err


@pytest.mark.parametrize(("words", "code", "kind"), [
    (("customers", "show", "nobody"), 1, "not-found"), (("customers", "show", "NOBODY"), 2, "usage"),
    (("costumers", "list"), 2, "usage"), (("customers", "frobnicate"), 2, "usage"),
    (("customers", "list", "--frobnicate"), 2, "usage"), (("--config", "none.toml", "customers", "list"), 3,
                                                          "configuration"),
    (("policies", "approve", "p", "--from-file", "-"), 5, "malformed"),
    (("customers", "add", "acme", "--title", "Again"), 6, "conflict")])
def test_a_problem_is_one_json_document_and_words(acme: Console, words: tuple[str, ...], code: int,
                                                  kind: str) -> None:
    done = acme.run(*words, "--json", stdin="!\n")
    assert done.code == code
    problem = done.json["error"]
    assert (problem["kind"], problem["exit_code"]) == (kind, code)
    assert problem["hint"]
    assert problem["reasons"]
    assert done.err.startswith(f"error: {problem['detail']}\n  next: {problem['hint']}")


@pytest.mark.parametrize("verb", ["serve", "list"])
def test_settings_that_a_delegate_would_not_read_are_refused(place: Path, verb: str) -> None:
    """It has settings of its own; those of a delegator say nothing to it."""
    said = Console().refused(2, "--config", "delegate.toml", "delegate", verb)
    assert said.startswith("error: --config goes after `delegate serve` or")
    assert "none.toml" in Console().refused(3, "delegate", verb, "--config", "none.toml")


def test_a_delegates_help_comes_whatever_stands_before_it_and_the_environment_is_no_command_line(
        place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Console().run("--config", "delegate.toml", "delegate", "serve", "--help").code == 0
    monkeypatch.setenv("DELEGATOR_CONFIG", "delegator.toml")
    assert "none.toml" in Console().refused(3, "delegate", "serve", "--config", "none.toml")


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_error_has_its_exit_code_and_a_next_action(kind: Kind) -> None:
    problem = console.problem_of(DelegatorError(kind, "what went wrong"))
    assert problem is not None
    assert problem.exit_code == APPEARANCES[kind].exit_code
    assert problem.hint


@pytest.mark.parametrize("kind", PkiKind)
def test_errors_of_the_authority_are_problems_too(kind: PkiKind) -> None:
    assert console.problem_of(PkiError(kind, "what", "next")) == console.Problem(
        kind.value, "what", "next", EXIT_CODES[kind])


@pytest.mark.parametrize(("number", "code"), [
    (errno.EADDRINUSE, 6), (errno.EACCES, 3), (errno.ECONNREFUSED, 4), (errno.ENOSPC, 1), (errno.EIO, 1)])
def test_errors_of_the_system_are_problems_too(number: int, code: int) -> None:
    problem = console.problem_of(OSError(number, "the system says"))
    assert problem is not None
    assert problem.exit_code == code
    assert problem.hint


def test_a_fault_of_ours_is_not_dressed_up() -> None:
    assert console.problem_of(ValueError("a bug")) is None


def test_ctrl_c_is_not_an_error_of_ours() -> None:
    problem = console.problem_of(click.Abort())
    assert problem is not None
    assert problem.exit_code == 130


def test_a_missing_part_costs_only_its_own_command(capsys: pytest.CaptureFixture[str]) -> None:
    group = LazyGroup("top", places={"gone": Place("delegator.cli.gone:command", "Not there.")})
    assert "Not there." in group.get_help(click.Context(group))
    with pytest.raises(DelegatorError, match="not part of this installation"):
        group.get_command(click.Context(group), "gone")


def test_nothing_that_others_wrote_moves_the_cursor() -> None:
    assert console.plain("a\x1b[2Jb\r\n") == "a\\x1b[2Jb\\x0d\\x0a"


def test_tables_fit_and_say_nothing_as_a_dash() -> None:
    assert console.table(("name", "enabled"), [("a", True), ("bcdef", None), ("c", ["x", "y"])]) == [
        "NAME   ENABLED", "a      yes", "bcdef  -", "c      x, y"]
    assert console.table(("name",), []) == []
    assert console.pairs({"name": "a", "inner": {"x": 1}, "none": []}) == ["name     a", "inner.x  1", "none     -"]


def test_data_and_words_keep_apart(acme: Console) -> None:
    done = acme.run("customers", "add", "other", "--title", "Other")
    assert (done.code, done.out) == (0, "")
    assert "other" in done.err
    assert json.loads(acme.run("customers", "list", "--json").out)
    assert acme.run("customers", "list").err == ""


def test_the_version_is_told(place: object) -> None:
    assert Console().run("--version").out.startswith("delegator 0.")


def _groups(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Group]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield (*path, name), command
            yield from _groups(command, *path, name)


GROUPS = dict(_groups(main))
REMOVING = ("remove", "forget", "prune", "restore", "revoke")


@pytest.mark.parametrize("path", GROUPS, ids=" ".join)
def test_a_verb_that_is_not_there_is_never_taken_for_one_that_removes(console: Console, path: tuple[str, ...]) -> None:
    assert len(GROUPS) > 15
    for word in ("revoke", "unapprove", "remov", "removed", "delete", "forgt", "prun", "rm", "revok", "approv", "lst"):
        if word in GROUPS[path].commands:
            continue
        said = console.refused(2, *path, word, "x")
        assert f"there is no command '{word}' among {', '.join(GROUPS[path].commands)}" in said
        guess = said.partition("did you mean ")[2].partition("?")[0]
        assert guess not in REMOVING
        assert guess in ("", *GROUPS[path].commands)


@pytest.mark.parametrize(("words", "meant"), [
    (("policies", "revoke", "rollout", "ABC1234"), "disapprove"), (("policies", "unapprove", "rollout"), "disapprove"),
    (("devices", "update", "ABC1234"), "change"), (("customers", "lst"), "list")])
def test_a_verb_that_is_not_there_is_answered_with_what_was_meant(console: Console, words: tuple[str, ...],
                                                                  meant: str) -> None:
    assert f"did you mean {meant}?" in console.refused(2, *words)


@pytest.mark.parametrize(("words", "meant"), [
    (("serv",), "did you mean serve?"), (("customer", "add"), "did you mean customers?"),
    (("Devices",), "did you mean devices?"), (("customers", "ad"), "did you mean add?"),
    (("config", "shw"), "did you mean show?")])
def test_a_command_that_is_nearly_one_is_answered_with_it(place: object, words: tuple[str, ...], meant: str) -> None:
    assert meant in Console().refused(2, *words)


def test_a_command_that_is_near_to_none_is_answered_with_all(place: object) -> None:
    said = Console().refused(2, "frobnicate")
    assert "did you mean" not in said
    assert all(noun in said for noun in NOUNS)
