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
from delegator.errors import DelegatorError, Missing, Owned

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
    from delegator import config, validation

    return validation.judge(config.load(path), config.Source(path, os.environ))


def source() -> Source:
    """Where this command's settings come from."""
    from delegator.config import Source

    return Source(settings_file(), os.environ)


async def open_named(settings: Settings) -> Store:
    """The store that the settings name. Raises DelegatorError (CONFIGURATION)."""
    from delegator.sealing import SealingKey, read_key_file
    from delegator.store import open_named

    files = (settings.sealing.key_file, *settings.sealing.older_key_files)
    return await open_named(settings.store, SealingKey(*(read_key_file(Path(name)) for name in files)),
                            actor=operator.actor(), peer=operator.place())


def stored(function: Callable[..., Awaitable[Output | None]]) -> Callable[..., Output | None]:
    """Gives the function an open store as its first argument, and runs it to its end."""
    @functools.wraps(function)
    def run(**arguments: Any) -> Output | None:
        return asyncio.run(_with_store(function, settings(), arguments))
    return run


async def _with_store(function: Callable[..., Awaitable[Output | None]], settings: Settings,
                      arguments: dict[str, Any]) -> Output | None:
    store = await open_named(settings)
    try:
        return await function(store, **arguments)
    except Missing as error:
        from delegator.cli import nearest

        raise await nearest.suggested(store, error) from error
    except Owned as error:
        raise DelegatorError(error.kind, error.told, hint=error.hint) from error
    finally:
        await store.close()
