"""How commands speak: results as text or JSON on standard output, words and problems on standard error.

The invariants: with `--json` exactly one JSON document goes to standard output, also on failure; nothing that a
device or a customer wrote can move the cursor of the operator's terminal.
Must not live here: what a command does, how a value is spelled as data (desk.shapes).
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from delegator.errors import APPEARANCES, DelegatorError, Kind, Missing
from pki.errors import EXIT_CODES, PkiError, system_words
from pki.said import visible
from pki.streams import FAILED, INTERRUPTED, Unwritten, unheard

JSON_HELP = "Print one JSON document on standard output."


@dataclass(frozen=True, slots=True)
class Output:
    """What a command has to say: `data` for --json, `lines` for people, `words` about it for standard error.

    Lines that are `exact` are read back by programs: they are UTF-8 whatever the terminal can show. Words that are
    `grave` tell what lets devices in: where nobody could hear them, the command does not end with 0."""

    data: object
    lines: Iterable[str] = ()
    words: tuple[str, ...] = ()
    exit_code: int = 0
    exact: bool = False
    grave: bool = False

    def saying(self, *words: str) -> Output:
        """The same, and these words."""
        return dataclasses.replace(self, words=(*self.words, *words))


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, its next useful action, and how the process ends."""

    kind: str
    detail: str
    hint: str
    exit_code: int
    reasons: tuple[str, ...] = ()


# --- commands -----------------------------------------------------------------------------------------------------


_MEANT = {"revoke": "disapprove", "unapprove": "disapprove", "reject": "disapprove", "deny": "disapprove",
          "create": "add", "new": "add", "register": "add", "edit": "change", "modify": "change", "set": "change",
          "update": "change", "get": "show", "info": "show", "ls": "list"}
"""Words that people say for a verb, where a group has that one."""
_GONE = frozenset(("forget", "prune", "remove", "restore", "revoke"))
"""Verbs that are never guessed: what they take away does not come back, and the word meant something else."""


class Verbs(click.Group):
    """A noun's group: a verb that it does not have is answered with what may have been meant, and with those it has."""

    def resolve_command(self, ctx: click.Context,
                        args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if word not in self.commands and not word.startswith("-") and not ctx.resilient_parsing:
            meant = _MEANT.get(word.lower())
            near = [meant] if meant in self.commands else difflib.get_close_matches(
                word.lower(), [each for each in self.commands if each not in _GONE], 1, 0.6)
            guess = f"; did you mean {near[0]}?" if near else ""
            ctx.fail(f"there is no command {word[:64]!a} among {', '.join(self.commands)}{guess}")
        return super().resolve_command(ctx, args)


def verb(group: click.Group, name: str, example: str) -> Callable[[Callable[..., Output | None]], click.Command]:
    """Makes a command of a function that returns its Output, or None when it has shown everything itself."""
    def made(function: Callable[..., Output | None]) -> click.Command:
        made = command(name, example)(function)
        group.add_command(made)
        return made
    return made


def command(name: str, example: str) -> Callable[[Callable[..., Output | None]], click.Command]:
    """A command with --json and an example in its help."""
    def made(function: Callable[..., Output | None]) -> click.Command:
        @click.option("--json", "as_json", is_flag=True, help=JSON_HELP)
        @functools.wraps(function)
        def run(as_json: bool, **arguments: Any) -> None:
            output = function(**arguments)
            if output is not None:
                show(output, as_json)
        return click.command(name, epilog=as_example(example))(run)
    return made


def as_example(text: str) -> str:
    """An epilog that is not wrapped."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in text.splitlines())


def wants_json() -> bool:
    """For commands that show a long result as they read it."""
    return bool(click.get_current_context().params.get("as_json"))


def show(output: Output, as_json: bool) -> None:
    """Shows a result; ends the command with its exit code. What was done is said also where the result is lost."""
    lost: Unwritten | None = None
    try:
        for line in [json.dumps(output.data)] if as_json else output.lines:
            click.echo(line.encode() if output.exact else line)
    except Unwritten as error:
        lost = error
    before = unheard()
    for word in output.words:
        click.echo(word, err=True)
    if lost is not None:
        raise lost
    exit_code = output.exit_code or (FAILED if output.grave and unheard() > before else 0)
    if exit_code:
        click.get_current_context().exit(exit_code)


# --- text ---------------------------------------------------------------------------------------------------------


def plain(value: object) -> str:
    """A value in a cell: "-" for nothing, and no control characters, whoever wrote it."""
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return visible(text)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Rows in columns that fit, under headings; no rows, no lines."""
    cells = [[plain(cell) for cell in row] for row in rows]
    if not cells:
        return []
    all_rows = [[heading.upper() for heading in headings], *cells]
    fitting = [max(map(len, column)) for column in zip(*all_rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, fitting, strict=True)).rstrip()
            for row in all_rows]


def pairs(values: Mapping[str, object]) -> list[str]:
    """Names and values, one a line; a mapping inside becomes `outer.inner`."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        inner = value if isinstance(value, Mapping) else {"": value}
        flat |= {f"{name}.{key}".rstrip("."): each for key, each in inner.items()}
    width = max(map(len, flat), default=0)
    return [f"{name.replace('_', ' ').ljust(width)}  {short(value)}" for name, value in flat.items()]


def short(value: object) -> str:
    """Certificates are told by their number; --json has them in full."""
    if isinstance(value, str) and value.startswith("-----BEGIN CERTIFICATE"):
        return f"{value.count('-----BEGIN CERTIFICATE')} certificate(s), in full with --json"
    return plain(value)


class Progress:
    """A bar on standard error for long work, only where somebody looks."""

    def __init__(self, total: int, label: str) -> None:
        self._bar = click.progressbar(length=total, label=label, file=sys.stderr, show_pos=True,
                                      hidden=not sys.stderr.isatty(), update_min_steps=max(1, total // 200))

    def step(self, number: int = 1) -> None:
        self._bar.update(number)

    def finish(self) -> None:
        self._bar.render_finish()


# --- problems -----------------------------------------------------------------------------------------------------


_OS_ERRORS: dict[int, tuple[Kind, str]] = {
    errno.EADDRINUSE: (Kind.CONFLICT, "another program has that port: stop it, or choose another port"),
    errno.EADDRNOTAVAIL: (Kind.CONFIGURATION, "this machine does not have that address: see [server] host"),
    errno.EACCES: (Kind.CONFIGURATION, "check who owns it and its mode; ports below 1024 need a privilege"),
    errno.EPERM: (Kind.CONFIGURATION, "check who owns it and its mode"),
    errno.ENOENT: (Kind.CONFIGURATION, "check the path; see: delegator config check"),
    errno.ECONNREFUSED: (Kind.UNREACHABLE, "check that the other side runs and listens there"),
    errno.ENOSPC: (Kind.UNAVAILABLE, "free some space, then run it again"),
}
_NEXT: dict[Kind, str] = {
    Kind.MALFORMED: "mend it, then run it again",
    Kind.IDENTITY: "show the certificate that stands for that device",
    Kind.NOT_ENTITLED: "ask why with: delegator explain TAG",
    Kind.TRY_LATER: "run it again later",
    Kind.UNAVAILABLE: "look at the log; see: delegator config check",
    Kind.CONFIGURATION: "see: delegator config check",
    Kind.UNREACHABLE: "check that the other side runs and can be reached from here",
    Kind.CONFLICT: "look at what is there with `list` and `show`, then decide which of the two is right",
    Kind.NOT_FOUND: "see what there is with `list`",
}
"""For errors that know of nothing better."""
_ANY_OS_ERROR = (Kind.UNAVAILABLE, "mend that, then run it again")


_UNFIT: dict[type[Exception], tuple[str, str, str]] = {
    UnicodeEncodeError: ("surrogates not allowed", "a word of the command line is not text in UTF-8",
                         "write it on a terminal whose encoding is UTF-8"),
    OverflowError: ("too large", "a number is too large", "write a smaller one"),
}
"""What the system or a database refuses of a value that no form looked at: words, sentence, what to do next."""


def problem_of(error: Exception) -> Problem | None:
    """What is expected to go wrong, as a Problem; None for a fault of ours."""
    if isinstance(error, DelegatorError):
        return Problem(error.kind.value, error.detail, error.hint or _NEXT[error.kind], error.appearance.exit_code,
                       error.reasons)
    if isinstance(error, click.ClickException):
        return _usage(error)
    if isinstance(error, click.Abort):
        return Problem("stopped", "stopped", "", INTERRUPTED)
    wrong = _UNFIT.get(type(error))
    if wrong is not None and wrong[0] in str(error):
        return Problem("usage", wrong[1], wrong[2], 2)
    if isinstance(error, Unwritten):  # told by whoever made the stream, once for all commands
        return None
    if isinstance(error, OSError):
        kind, hint = _OS_ERRORS.get(error.errno or 0, _ANY_OS_ERROR)
        return Problem(kind.value, system_words(error), hint, APPEARANCES[kind].exit_code)
    return _pki(error)


def _usage(error: click.ClickException) -> Problem:
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "delegator"
    return Problem("usage", error.format_message(), f"see: {path} --help", 2)


def _pki(error: Exception) -> Problem | None:
    if not isinstance(error, PkiError):
        return None
    return Problem(error.kind.value, error.detail, error.hint, EXIT_CODES[error.kind])


def blamed(problem: Problem) -> Problem:
    """With the variables that set what the problem is about: it is looked for in the file otherwise."""
    from delegator.config import PREFIX, Source

    variables = [name for prefix in (PREFIX, "DELEGATE_")
                 for name in Source(None, os.environ, prefix).behind(problem.detail)]
    if not variables:
        return problem
    return dataclasses.replace(problem, hint=f"{problem.hint} (it was set by {' and '.join(variables)})".lstrip())


def missing(noun: str, name: str, group: str) -> DelegatorError:
    """Something was named that is not there."""
    return Missing(noun, name, f"there is no {noun} named {name}", hint=f"see: delegator {group} list")


def complain(problem: Problem, as_json: bool) -> int:
    """Shows a problem; returns the exit code."""
    if as_json:
        with contextlib.suppress(Unwritten):  # the problem is said in words all the same
            click.echo(json.dumps({"error": {
                "kind": problem.kind, "detail": problem.detail, "reasons": list(problem.reasons) or [problem.detail],
                "hint": problem.hint, "exit_code": problem.exit_code}}))
    lines = [f"error: {problem.detail}", *([f"  next: {problem.hint}"] if problem.hint else [])]
    click.echo("\n".join(lines), err=True)
    return problem.exit_code
