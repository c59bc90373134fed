"""Private files: checked before they are read, complete before they are visible.

Lives here: the permission check, atomic replacement, and `Staging`, through which every certificate and key
reaches its folder.
Invariants: a file is either absent or complete, also after a power failure; only the revocation list, and a
renewed certificate whose predecessor was linked aside, ever replace a file; folders are 0700, files 0600.
Must not live here: what the files mean.

Why a staging folder. Files are written under `.staging-*` beside their destination, made durable, and only
then hard-linked to their names: `link` fails if the name exists, `rename` would overwrite. A process holds
a lock on its staging folder, so the next one can tell a dead one (remove it) from a busy one (leave it).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pki.errors import Kind, PkiError

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600

LIMIT: Final = 1 << 20
"""Bytes of a file of certificates, keys or words: the system's hundred and fifty authorities have a quarter of it."""

GROUP_SYNC: Final = 8
"""From this many files on, one `sync` replaces an fsync each: 0.05 against 0.4 ms a file, measured on ext4."""


def exposure(path: Path) -> str | None:
    """What is wrong with the permissions of an existing file or folder, or None."""
    found = path.lstat()
    wanted = FOLDER_MODE if stat.S_ISDIR(found.st_mode) else FILE_MODE
    if stat.S_ISLNK(found.st_mode):
        return "is a symbolic link"
    if os.geteuid() not in (found.st_uid, 0):
        return "belongs to another user"
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        return f"is open to others (mode {mode:04o}, wanted {wanted:04o})"
    if mode & wanted != wanted and not (stat.S_ISREG(found.st_mode) and mode & 0o400):
        return f"cannot be used by its owner (mode {mode:04o}, wanted {wanted:04o})"
    return None


def require_private(path: Path) -> None:
    """CONFIGURATION if `path` can be read or written by others, with the command that mends it."""
    fault = exposure(path)
    if fault:
        mode = FOLDER_MODE if path.is_dir() else FILE_MODE
        raise PkiError(Kind.CONFIGURATION, f"{path} {fault}", f"if nobody copied it: chmod {mode:o} {path}")


def require_folder(path: Path, hint: str) -> None:
    """CONFIGURATION unless `path` is an existing, private folder."""
    try:
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise PkiError(Kind.CONFIGURATION, f"{path} is not a folder", hint)
    except FileNotFoundError as error:
        raise PkiError(Kind.CONFIGURATION, f"{path} does not exist", hint) from error
    except OSError as error:
        raise unusable(path, error) from error
    require_private(path)


def make_folder(path: Path) -> Path:
    """The folder, made 0700 if it was missing (parents too), checked if it was not."""
    try:
        path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(path, error) from error
    require_folder(path, "choose another place")
    return path


def make_parents(path: Path) -> None:
    """The folders above `path`; those that exist are none of our business."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(path.parent, error) from error


def link_new(source: Path, target: Path) -> None:
    """A second name for a file; CONFLICT if the target is another file."""
    try:
        target.hardlink_to(source)
    except FileExistsError as error:
        if not target.samefile(source):
            raise exists(target) from error


def read_regular(path: Path, limit: int = LIMIT) -> bytes:
    """The content of a file that is one. OSError, with words of its own, for a pipe, a device or a folder, which
    might never end or begin, and for more than `limit` bytes. It waits for nobody who would have to write."""
    content = read_start(path, limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"is larger than {limit // 1024} KiB", str(path))
    return content


def read_start(path: Path, most: int) -> bytes:
    """The same, but of a larger one its first `most` bytes."""
    require_regular(path, path.stat())  # before it is opened: to open a device may already do something
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        require_regular(path, os.fstat(descriptor))
        return file.read(most)


def read_given(path: Path, most: int) -> bytes:
    """The same of what a person names: who writes `<(command)` in a shell hands over a pipe that is open already, and
    has somebody write to it. A named pipe is waited for by nobody here either."""
    if not _is_open_already(path):
        return read_start(path, most)
    with path.open("rb") as file:
        return file.read(most)


def require_given(path: Path) -> None:
    """For who reads such a file piece by piece: OSError where it is neither a file nor open already."""
    if not _is_open_already(path):
        require_regular(path, path.stat())


def _is_open_already(path: Path) -> bool:
    return path.parent in _OPEN_ALREADY or path == _INPUT


_OPEN_ALREADY: Final = (Path("/dev/fd"), Path("/proc/self/fd"))
_INPUT: Final = Path("/dev/stdin")


def require_regular(path: Path, found: os.stat_result) -> None:
    """OSError for what is no file."""
    if not stat.S_ISREG(found.st_mode):
        what = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise OSError(errno.EINVAL, f"is not a file but {what}", str(path))


_KINDS: Final = {stat.S_IFIFO: "a named pipe", stat.S_IFDIR: "a folder", stat.S_IFCHR: "a device",
                 stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}  # fmt: skip


def read_private(path: Path, hint: str = "restore it from a backup") -> bytes:
    """The content of a private file; CONFIGURATION if it is missing, for which `hint` is what to do, unreadable or open
    to others."""
    try:
        found = path.lstat()
        if not stat.S_ISLNK(found.st_mode):  # of a link its own words say more
            require_regular(path, found)
        require_private(path)
        return read_regular(path)
    except FileNotFoundError as error:
        raise PkiError(Kind.CONFIGURATION, f"{path} is missing", hint) from error
    except OSError as error:
        raise unusable(path, error) from error


def unusable(path: Path, error: OSError) -> PkiError:
    return PkiError(Kind.CONFIGURATION, f"{path}: {error.strerror}", "check the path, its owner and the free space")


def write_new(path: Path, content: bytes) -> None:
    """A new 0600 file, not yet durable; FileExistsError if the name is taken."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
        file.write(content)


def make_durable(path: Path) -> None:
    """fsync of one file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Atomic replacement: readers see the old content or the new, never a mixture."""
    with Staging(path.parent) as staging:
        staging.write(path.name, content)
        staging.settle()
        staging.replace(path.name)
    make_durable(path.parent)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the folder's lock; other processes wait. Not re-entrant."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class Staging:
    """A hidden folder beside the destination; use as a context manager."""

    def __init__(self, destination: Path) -> None:
        self.destination = destination

    def __enter__(self) -> Self:
        _sweep(self.destination)
        while True:
            try:
                self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self.destination))
                self._descriptor = os.open(self.path, os.O_RDONLY)
            except OSError as error:
                raise unusable(self.destination, error) from error
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            if self.path.exists():  # else another process swept it before it was locked
                return self
            os.close(self._descriptor)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)

    def write(self, name: str, content: bytes) -> None:
        """One complete file, still invisible."""
        write_new(self.path / name, content)

    def settle(self) -> None:
        """Makes every staged file durable."""
        staged: Sequence[Path] = tuple(self.path.iterdir())
        if len(staged) >= GROUP_SYNC:
            os.sync()
            return
        for path in staged:
            make_durable(path)

    def replace(self, name: str) -> Path:
        """Puts a staged file in the place of another, atomically."""
        return (self.path / name).replace(self.destination / name)

    def publish(self, name: str) -> Path:
        """Links a staged file to its name; CONFLICT if that name is taken."""
        target = self.destination / name
        try:
            target.hardlink_to(self.path / name)
        except FileExistsError as error:
            raise exists(target) from error
        except OSError as error:
            raise unusable(target, error) from error
        (self.path / name).unlink()
        return target


def exists(path: Path) -> PkiError:
    return PkiError(
        Kind.CONFLICT,
        f"{path} exists and is never overwritten",
        "use another name, or --renew, which keeps the old one under retired/",
    )


_PREFIX: Final = ".staging-"


def _sweep(folder: Path) -> None:
    """Removes staging folders whose process is gone: the kernel drops the lock of a dead process."""
    for left in folder.glob(_PREFIX + "*"):
        try:
            descriptor = os.open(left, os.O_RDONLY)
        except FileNotFoundError:  # its process has just finished
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)
