"""How files look from outside, so that one which was changed is read again without anybody saying so.

The invariants: each file is looked at by itself, so that one on a disk that does not answer keeps no other from being
seen; nothing that the system says of a file is an error here, it is a way that the file looks.
Must not live here: which files, what is done when one changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from delegator.errors import DelegatorError, Kind
from delegator.net.aside import aside

BRIEFLY = 5.0
"""Seconds: to look at a file takes a thousandth of one, unless its disk does not answer."""
HANGS = "hangs"
Look = tuple[int, int, int] | int | str | None
Stamp = dict[str, Look]
"""By the name of the file. It differs from the one before also where a disk falls silent, or answers again."""


async def stamp_of(names: Iterable[str], within: float | None = None) -> Stamp:
    """Changes when one of the files does. Raises nothing."""
    found = dict.fromkeys(name for name in names if name)
    return dict(zip(found, await asyncio.gather(*(_look(name, within or BRIEFLY) for name in found)), strict=True))


async def _look(name: str, within: float) -> Look:
    try:
        return await aside(partial(_seen, Path(name)), f"looking at {name}", within)
    except DelegatorError:
        return HANGS


def _seen(path: Path) -> Look:
    """A file that is moved into another's place may be older than that, and of the same time. What keeps us from
    looking tells of a change too."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return error.errno
    return found.st_mtime_ns, found.st_ino, found.st_size


def require_answers(stamp: Stamp) -> None:
    """Before all of the files are read together. Raises DelegatorError (UNAVAILABLE) that names those that hang."""
    silent = [name for name, look in stamp.items() if look == HANGS]
    if silent:
        raise DelegatorError(Kind.UNAVAILABLE, f"the disk does not answer about {', '.join(silent)}",
                             hint="look at that disk; what lies on others counts all the same, and all of it is read "
                                  "again as soon as that one answers")
