"""What a command stands on: the settings, and the store they name, opened for one command and always closed.

The invariant: one event loop per command; whatever happens in it, the database is let go of.
Must not live here: what a command does.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from delegator.cli import operator
from delegator.cli.console import Output
from delegator.errors import DelegatorError, Kind, Missing, Owned

if TYPE_CHECKING:
    from delegator.config import Settings, Source
    from delegator.store import Store

_PATH = "delegator.settings"


def remember(context: click.Context, path: Path | None) -> None:
    """Which file the settings come from, for every command below."""
    context.meta[_PATH] = path


def settings_file() -> Path | None:
    path: Path | None = click.get_current_context().meta[_PATH]
    return path


def settings() -> Settings:
    """The settings of this command, read once. Raises DelegatorError (CONFIGURATION)."""
    from delegator import config

    root = click.get_current_context().find_root()
    if root.obj is None:
        root.obj = read(settings_file())
    assert isinstance(root.obj, config.Settings)
    return root.obj


def read(path: Path | None) -> Settings:
    """The settings as they are now, each of them in order. Raises DelegatorError (CONFIGURATION)."""
    from delegator import config
    from delegator.serving import validation

    return validation.judge(config.load(path), config.Source(path, os.environ))


def source() -> Source:
    """Where this command's settings come from."""
    from delegator.config import Source

    return Source(settings_file(), os.environ)


async def open_named(settings: Settings, *, writes: bool = True) -> Store:
    """The store that the settings name. Where there is none yet, who only reads makes none: in a folder that is not the
    delegator's it would be the wrong one. Raises DelegatorError (CONFIGURATION)."""
    from delegator.store import keyring, open_named

    new = keyring.unmade(settings.store)
    if new and not writes:
        raise DelegatorError(Kind.CONFIGURATION, f"there is no database at {new}", hint=_NO_DATABASE)
    store = await open_named(settings.store, keyring.load(settings.sealing, settings.store), actor=operator.actor(),
                             peer=operator.place())
    if new:
        click.echo(f"made a new, empty database at {new}", err=True)
    return store


_NO_DATABASE = ("go to the delegator's folder, or name its settings with --config; delegator serve makes a new "
                "database, and so does the first command that writes, such as delegator customers add")
_Function = Callable[..., Awaitable[Output | None]]


def stored(function: _Function) -> Callable[..., Output | None]:
    """Gives the function an open store as its first argument, and runs it to its end. For verbs that write; one that is
    told `--dry-run` does not."""
    return _with_store(function, writes=True)


def looking(function: _Function) -> Callable[..., Output | None]:
    """The same for verbs that only read, which make no database where there is none."""
    return _with_store(function, writes=False)


def _with_store(function: _Function, *, writes: bool) -> Callable[..., Output | None]:
    @functools.wraps(function)
    def run(**arguments: Any) -> Output | None:
        return asyncio.run(_run(function, settings(), arguments, writes and not arguments.get("dry_run")))
    return run


async def _run(function: _Function, settings: Settings, arguments: dict[str, Any], writes: bool) -> Output | None:
    store = await open_named(settings, writes=writes)
    try:
        return await function(store, **arguments)
    except Missing as error:
        from delegator.desk import nearest

        raise await nearest.suggested(store, error) from error
    except Owned as error:
        raise DelegatorError(error.kind, error.told, hint=error.hint) from error
    finally:
        await store.close()
