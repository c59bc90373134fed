"""What is in a file, read so that nobody is waited for: a pipe would keep an unattended device for ever.

The invariant: only a file is opened, and no more of it is taken than a device has room for.
Must not live here: which files, what is in them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Union

_LARGEST = 32 * 1024 * 1024
"""Bytes: twice what an owner's server may send."""


def contents(path: Union[str, Path]) -> bytes:  # noqa: UP007 - Python 3.9
    """Raises OSError, ValueError for what is no file or too large."""
    _require_file(path, Path(path).stat())  # before it is opened: to open a device may already do something
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        _require_file(path, os.fstat(descriptor))
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"{path} is larger than {_LARGEST // 2**20} MiB")
    return content


def _require_file(path: Union[str, Path], found: os.stat_result) -> None:  # noqa: UP007 - Python 3.9
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path} is not a file but a pipe, a device or a folder")
