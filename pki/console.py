"""How the command line speaks: options shared by all commands, passphrases, results, errors, progress.

Lives here: decorators and small renderers used by every command.
Invariants: data goes to standard output, words to standard error; with `--json` exactly one JSON object goes to
standard output, also on failure; a passphrase never comes from the command line and is never shown.
Must not live here: what a command does.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from pki import disk
from pki.errors import EXIT_CODES, Kind, PkiError, system_words
from pki.folder import DEFAULT_PATH
from pki.streams import INTERRUPTED, Unwritten
from pki.text import NotText, secret_in

PASSPHRASE_VARIABLE = "PKI_PASSPHRASE"  # noqa: S105 - the name of a variable

_MISSING = "name the file that holds the passphrase, mode 600; or use --passphrase-prompt"

Values = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Passphrase:
    """Where a passphrase may come from: a file, the environment, a prompt, in this order."""

    file: Path | None
    prompt: bool

    def read(self, *, confirm: bool = False) -> bytes | None:
        """None if there is none; CONFIGURATION for an exposed or empty one, USAGE for a prompt without a terminal."""
        if self.file is not None:
            return _passphrase(disk.read_private(self.file, _MISSING), str(self.file))
        if PASSPHRASE_VARIABLE in os.environ:
            return _passphrase(os.environb[PASSPHRASE_VARIABLE.encode()], PASSPHRASE_VARIABLE)
        return self._ask(confirm) if self.prompt else None

    @staticmethod
    def _ask(confirm: bool) -> bytes:
        if not sys.stdin.isatty():
            raise PkiError(Kind.USAGE, "there is no terminal to ask for the passphrase", "use --passphrase-file")
        answer: str = click.prompt("Passphrase of the CA key", hide_input=True, confirmation_prompt=confirm, err=True)
        return _passphrase(answer.encode(errors="surrogateescape"), "what was typed")


def _passphrase(content: bytes, source: str) -> bytes:
    """By the one rule for secrets, so that what made a key here opens it in the delegator too."""
    try:
        return secret_in(content).encode()
    except NotText as error:
        raise PkiError(Kind.CONFIGURATION, error.of(f"the passphrase in {source}"), error.hint) from None


class Commands(click.Group):
    """The outermost group: a word that does not fit is told as every other error is, with what to do next."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, complete_var: str | None = None,
             standalone_mode: bool = True, windows_expand_args: bool = True, **extra: Any) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(words, prog_name, complete_var, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as bare:
            bare.show()
            code = bare.exit_code
        except click.UsageError as error:
            place = error.ctx.command_path if error.ctx else "python -m pki"
            _fail(PkiError(Kind.USAGE, error.format_message(), f"see: {place} --help"), "--json" in words)
        except click.Abort:
            click.echo("error: stopped", err=True)
            sys.exit(INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)


Command = Callable[..., None]


def command(function: Callable[..., Values]) -> Command:
    """Adds `--dir`, `--json`; renders what the function returns; turns a PkiError into words and an exit code.

    The function gets `place` and returns values; "lines" is what a person reads, "exit" the code if not 0, and "acted"
    is false where it only looked.
    """

    @click.option("--dir", "place", type=click.Path(path_type=Path), default=DEFAULT_PATH, show_default=True,
                  help="The PKI folder.")  # fmt: skip
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
    @functools.wraps(function)
    def wrapper(*, as_json: bool, **arguments: Any) -> None:
        try:
            values = dict(function(**arguments))
        except PkiError as error:
            _fail(error, as_json)
        except UnicodeDecodeError:
            _fail(PkiError(Kind.REFUSED, "what was read is not text in UTF-8", "save it as UTF-8, then run it again"),
                  as_json)
        except OSError as error:  # a full disk, a pulled drive
            _fail(PkiError(Kind.FAILED, system_words(error), "free space or mend that, then run it again"), as_json)
        _render(values, as_json)

    return wrapper


def unlocking(function: Command) -> Command:
    """Adds the passphrase options; the function gets `passphrase: Passphrase`."""

    @click.option("--passphrase-file", type=click.Path(path_type=Path), help="File with the CA key's passphrase.")
    @click.option("--passphrase-prompt", is_flag=True, help="Ask for the passphrase on the terminal.")
    @functools.wraps(function)
    def wrapper(*, passphrase_file: Path | None, passphrase_prompt: bool, **arguments: Any) -> None:
        function(passphrase=Passphrase(passphrase_file, passphrase_prompt), **arguments)

    return wrapper


def _render(values: dict[str, object], as_json: bool) -> NoReturn:
    lines, code, acted = values.pop("lines", ()), values.pop("exit", 0), values.pop("acted", True)
    assert isinstance(lines, list | tuple)
    assert isinstance(code, int)
    try:
        for line in [json.dumps({"ok": code == 0, **values})] if as_json else lines:
            click.echo(line)
    except Unwritten:  # what was made must be known all the same
        for line in lines if acted else ():
            click.echo(line, err=True)
        raise
    sys.exit(code)


def _fail(error: PkiError, as_json: bool) -> NoReturn:
    if as_json:
        words = {"kind": error.kind.value, "detail": error.detail, "hint": error.hint}
        with contextlib.suppress(Unwritten):  # the problem is said in words all the same
            click.echo(json.dumps({"ok": False, "error": words}))
    click.echo(f"error: {error.detail}\n  next: {error.hint}", err=True)
    sys.exit(EXIT_CODES[error.kind])


class Given(click.File):
    """A file that a person names, or what is open already: a named pipe, whose end nobody can promise, is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            if isinstance(value, str) and value != "-":
                disk.require_given(Path(value))
        except FileNotFoundError:
            pass  # told by whoever opens it
        except OSError as error:
            self.fail(f"{value!r}: {error.strerror}", param, ctx)
        return super().convert(value, param, ctx)


class Progress:
    """A bar on a terminal, otherwise a line every few seconds; always on standard error."""

    INTERVAL = 5.0

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._bar = None
        if total is not None and sys.stderr.isatty():
            self._bar = click.progressbar(length=total, label="devices", file=sys.stderr, show_pos=True)
        self._next = time.monotonic() + self.INTERVAL

    def advance(self, done: int) -> None:
        """Called once per input line with the number of lines done."""
        if self._bar is not None:
            self._bar.update(1)
        else:
            self._now_and_then(f"{done} of {self._total} lines")

    def read(self, lines: int) -> None:
        """Called while the number of lines is still found out: a pipe may take its time."""
        self._now_and_then(f"{lines} lines read, nothing is minted before the last one")

    def _now_and_then(self, words: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self.INTERVAL
            self.say(words)

    def say(self, words: str) -> None:
        """A line of its own, also while there is a bar."""
        click.echo(words if self._bar is None else f"\n{words}", err=True)

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.render_finish()
