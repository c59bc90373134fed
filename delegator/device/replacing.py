"""New content of a file, given piece by piece, that touches the disk only where it differs from the old.

A device that waits for a day gets the same bytes a thousand times; flash wears by each of them.
The invariant: the file is whole at every moment, the old one or the new one, also after a power cut; nobody but the
owner of the process can read it; equal bytes cost no write.
Must not live here: which files there are (state).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from delegator.device.contents import opened

_PIECE = 64 * 1024


class Replacement:
    """A `with` block that ends well puts the new content in place; any other leaves the old one."""

    def __init__(self, path: Path) -> None:
        self._path, self._new_path = path, path.with_name(f".{path.name}.new")
        self._old = _old(path)
        self._new: BinaryIO | None = None
        self._same = 0

    def __enter__(self) -> Replacement:
        return self

    def write(self, piece: bytes) -> None:
        """Raises OSError."""
        if self._new is None and self._old is not None and self._next(len(piece)) == piece:
            self._same += len(piece)
        else:
            self._begun().write(piece)

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        try:
            if kind is None and (self._old is None or self._new is not None or self._next(1)):
                self._put_in_place(self._begun())
        finally:
            for file in (self._old, self._new):
                if file is not None:
                    with contextlib.suppress(OSError):  # what could not be written was told already
                        file.close()
            if kind is not None and self._new is not None:
                with contextlib.suppress(OSError):
                    self._new_path.unlink()

    def _next(self, size: int) -> bytes:
        """What the old file has at this place. What cannot be read any more is as good as gone."""
        assert self._old is not None
        try:
            return self._old.read(size)
        except OSError:
            clear(self._path)
            raise

    def _begun(self) -> BinaryIO:
        """The new file, with all that was equal so far."""
        if self._new is None:
            clear(self._new_path)
            descriptor = os.open(self._new_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._new = os.fdopen(descriptor, "wb")
            if self._old is not None:
                self._old.seek(0)
                for at in range(0, self._same, _PIECE):
                    self._new.write(self._next(min(_PIECE, self._same - at)))
        return self._new

    def _put_in_place(self, new: BinaryIO) -> None:
        new.flush()
        os.fsync(new.fileno())
        if self._path.is_dir():
            clear(self._path)
        self._new_path.replace(self._path)
        sync(self._path.parent)


def sync(folder: Path) -> None:
    """Makes names durable: what was put in place, or taken away."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _old(path: Path) -> BinaryIO | None:
    """What is there, if it is a file of ours that nobody else can read."""
    with contextlib.suppress(OSError, ValueError):
        if path.is_symlink():
            return None
        file = opened(path)
        found = os.fstat(file.fileno())
        if stat.S_IMODE(found.st_mode) == 0o600 and found.st_uid == os.geteuid():
            return file
        file.close()
    return None


def clear(path: Path) -> None:
    """Nothing is there, whatever was."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
