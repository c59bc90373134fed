"""What is in a file, read so that nobody is waited for: a pipe would keep an unattended device for ever.

The invariant: only a file is opened, and no more of it is taken than a device has room for.
Must not live here: which files, what is in them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO, Union

_LARGEST = 2 * 1024 * 1024
"""Bytes: a bundle with all of the world's authorities has 200 KiB."""


def contents(path: Union[str, Path]) -> bytes:  # noqa: UP007 - Python 3.9
    """Raises OSError, ValueError for what is no file or too large."""
    with opened(path) as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"{path} is larger than {_LARGEST // 2**20} MiB")
    return content


def opened(path: Union[str, Path]) -> BinaryIO:  # noqa: UP007 - Python 3.9
    """The file itself, for what is read piece by piece. Raises OSError, ValueError for what is no file."""
    _require_file(path, Path(path).stat())  # before it is opened: to open a device may already do something
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        _require_file(path, os.fstat(file.fileno()))
    except BaseException:
        file.close()
        raise
    return file


def _require_file(path: Union[str, Path], found: os.stat_result) -> None:  # noqa: UP007 - Python 3.9
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path} is not a file but a pipe, a device or a folder")
