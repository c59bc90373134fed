"""Which file the settings come from, for a command and for a shell that completes one.

The invariant: a file that somebody named is taken as named, whether it is there or not.
Must not live here: reading it (config), keeping it for the command (session). Nothing heavy: every start loads this.
"""

from __future__ import annotations

from pathlib import Path

CONFIG_FILE = Path("delegator.toml")
"""Read when neither --config nor DELEGATOR_CONFIG names another file, and it is there."""


def chosen(named: Path | None) -> Path | None:
    """The file to read; None where nothing but what is built in counts."""
    return named or (CONFIG_FILE if CONFIG_FILE.is_file() else None)
