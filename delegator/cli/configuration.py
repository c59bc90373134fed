"""`delegator config`: the settings, whether what they name is in order, and a new sealing key.

Must not live here: reading settings (delegator.config), looking at what they name (checking).
"""

from __future__ import annotations

from pathlib import Path

import click

from delegator.cli import console, session
from delegator.cli.console import Output, verb
from delegator.errors import APPEARANCES, DelegatorError, Kind

_CONFIGURATION = APPEARANCES[Kind.CONFIGURATION].exit_code


@click.group("config", cls=console.Verbs, epilog=console.as_example("delegator config check"))
def group() -> None:
    """The settings, and whether what they name is in order."""


@verb(group, "show", "delegator config show > delegator.toml")
@click.option("--defaults", is_flag=True, help="What is built in, whatever the file and the environment say.")
def show(defaults: bool) -> Output:
    """Show the settings in effect, as a file that can be read back."""
    import msgspec

    from delegator.config import Settings, as_toml

    settings = Settings() if defaults else session.settings()
    return Output(msgspec.to_builtins(settings), as_toml(settings).splitlines(), exact=True)


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
