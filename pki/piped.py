"""A list that is read twice, wherever it comes from: once to its end, before anything is made of it, and once at work.

What comes through a pipe comes once. So it is kept as it is read the first time, in a file without a name, which is
gone with the program however that ends: a list that is wrong on its last line is refused as a whole, as from a file.
The invariant: no more than LONGEST is kept, and none of it in memory.
Must not live here: what the list says (tables, batch).
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any, Final

from pki.errors import Kind, PkiError

LONGEST: Final = 1 << 30
"""Bytes of a pipe: more than a hundred million tags. What never ends must not fill the disk."""


@contextlib.contextmanager
def read_twice(source: IO[bytes]) -> Iterator[tuple[IO[bytes], Callable[[], IO[bytes]]]]:
    """The list for the first time; and once that was read to its end, the same from its beginning."""
    try:
        start = source.tell()
        source.seek(start)
    except (io.UnsupportedOperation, OSError):
        with _kept() as kept:
            yield io.BufferedReader(_Keeping(source, kept)), lambda: _at(kept, 0)
    else:
        yield source, lambda: _at(source, start)


def _at(source: IO[bytes], place: int) -> IO[bytes]:
    source.seek(place)
    return source


def _kept() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise _no_room(error) from error


def _no_room(error: OSError) -> PkiError:
    why = os.strerror(error.errno) if error.errno is not None else str(error)
    return PkiError(Kind.CONFIGURATION, f"the list cannot be kept while it is read: {why}",
                    "name another folder for temporary files in TMPDIR, or write the list to a file")  # fmt: skip


class _Keeping(io.RawIOBase):
    """What is read passes into the file."""

    def __init__(self, source: IO[bytes], kept: IO[bytes]) -> None:
        self._source, self._kept, self._size = source, kept, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        content = self._source.read(len(view))
        self._size += len(content)
        if self._size > LONGEST:
            raise PkiError(Kind.REFUSED, f"the list is longer than {LONGEST} bytes", "mint it in several lists")
        try:
            self._kept.write(content)
            self._kept.flush()
        except OSError as error:
            raise _no_room(error) from error
        view[: len(content)] = content
        return len(content)
