"""`delegator config`: the settings, whether what they name is in order, and a new sealing key.

Must not live here: reading settings (delegator.config), looking at what they name (checking).
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from delegator.cli import console, session
from delegator.cli.console import Output, verb
from delegator.cli.settings_file import CONFIG_FILE
from delegator.errors import APPEARANCES, DelegatorError, Kind

if TYPE_CHECKING:
    from delegator.config import Settings

_CONFIGURATION = APPEARANCES[Kind.CONFIGURATION].exit_code


@click.group("config", cls=console.Verbs, epilog=console.as_example("delegator config check"))
def group() -> None:
    """The settings, and whether what they name is in order."""


@verb(group, "show", "delegator config show")
@click.option("--defaults", is_flag=True, help="What is built in, whatever the file and the environment say.")
def show(defaults: bool) -> Output:
    """Show the settings in effect, as a file that can be read back; `config write` makes such a file."""
    import msgspec

    from delegator.config import Settings, as_toml

    _not_into_what_is_read(session.settings_file())
    settings = Settings() if defaults else session.settings()
    return Output(msgspec.to_builtins(settings), as_toml(settings).splitlines(), exact=True)


def _not_into_what_is_read(path: Path | None) -> None:
    """A shell empties the file behind `>` before anything reads it: what it held is gone then, and to fill it with what
    is built in would hide that. Raises DelegatorError (CONFLICT)."""
    if path is None:
        return
    with contextlib.suppress(OSError, ValueError):  # no such file, or a stream without a number
        read, written = path.stat(), os.fstat(sys.stdout.fileno())
        if os.path.samestat(read, written) and read.st_size == 0:
            raise DelegatorError(Kind.CONFLICT, f"standard output is {path}, the settings file that would be read, and "
                                 "the shell has emptied it: settings that it held are gone from it",
                                 hint="put your copy back, if it held any; else remove it, then: delegator config "
                                 f"write {path}")


@verb(group, "write", "delegator config write")
@click.argument("file", type=click.Path(path_type=Path), default=CONFIG_FILE)
@click.option("--defaults", is_flag=True, help="What is built in, whatever the file and the environment say.")
def write(file: Path, defaults: bool) -> Output:
    """Write the settings in effect to FILE (delegator.toml), which must not exist yet: nothing is ever overwritten."""
    from delegator.config import Settings, as_toml

    if os.path.lexists(file):  # told also where what is in effect cannot be read
        raise _taken(file)
    settings = Settings() if defaults else _in_effect(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as made:
            made.write(as_toml(settings))
    except FileExistsError:
        raise _taken(file) from None
    return Output({"file": str(file)}, [str(file)], ("the settings in effect are written; change what you need, then: "
                                                     "delegator config check",))


def _in_effect(file: Path) -> Settings:
    """The settings, also where the file that is to be written is the very one that is to be read from then on."""
    named = session.settings_file()
    return session.read(None) if named is not None and named.absolute() == file.absolute() else session.settings()


def _taken(file: Path) -> DelegatorError:
    return DelegatorError(Kind.CONFLICT, f"{file} exists, and settings are never overwritten",
                          hint="choose another name, or move it away; see what is in effect: delegator config show")


@verb(group, "check", "delegator --config delegator.toml config check")
def check() -> Output:
    """Look at everything the settings name: files, modes, certificates and their keys, the database.

    Ends with 3 if anything is not in order. The last line tells what serve would do: start, or refuse, and why.
    """
    from delegator.cli.checking import examine

    findings = examine(session.settings(), session.source())
    problems = sum(not one.ok for one in findings)
    rows = [("ok" if one.ok else "PROBLEM", one.what, one.path, one.detail) for one in findings]
    hints = tuple(f"{one.what}: {one.detail}" + (f" ({one.setting})" if one.setting else "") + f"\n  next: {one.hint}"
                  for one in findings if not one.ok)
    data = {"ok": not problems, "problems": problems, "findings": [one.as_data() for one in findings]}
    return Output(data, console.table(("state", "what", "path", "detail"), rows), hints,
                  _CONFIGURATION if problems else 0)


@verb(group, "new-key", "delegator config new-key var/sealing.key")
@click.argument("file", type=click.Path(path_type=Path))
def new_key(file: Path) -> Output:
    """Write a new sealing key to FILE, which must not exist yet.

    It opens everything that is sealed in the database: keep a copy where the database's backups are not.
    """
    from delegator.sealing import create_key_file

    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        create_key_file(file)
    except FileExistsError:
        raise DelegatorError(Kind.CONFLICT, f"{file} exists, and a key is never overwritten",
                             hint="choose another name; to rotate, list the old one in [sealing] older_key_files"
                             ) from None
    return Output({"key_file": str(file)}, [str(file)], ("a new sealing key is written; keep a copy elsewhere",))
