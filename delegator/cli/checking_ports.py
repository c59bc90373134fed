"""Whether the ports that the settings name can be had, and who has one that is taken.

The kernel is asked by binding, without listening, so that whoever serves there and whoever calls is not disturbed. Who
has a port stands in /proc; a delegator lets nobody but root look into it (private), so where none is seen to have the
port, it is the delegator that runs as the user who has it. It is one of these settings when it holds the database that
they name, which the kernel's list of locks tells, or, with PostgreSQL, when it was started with the same file.
The invariant: a port counts as ours only where a delegator of these settings was seen; anybody else is somebody else.
How many connections there may be at those ports is told here too.
Must not live here: what a start says of a port (net.listening), what else is looked at (checking).
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from delegator.config import Settings, Source
from delegator.errors import DelegatorError, Kind
from delegator.model.places import authority
from delegator.net import descriptors
from delegator.net.listening import Hosts, Unlistenable, bound, place_of
from delegator.watching.ops import refused

_PROC = Path("/proc")
_LISTENS = "0A"
"""TCP_LISTEN, as /proc/net/tcp tells it."""


class Taken(Exception):
    """Another program, or one that cannot be seen from here, has the port."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Program:
    """One that runs: its number, and the words it was started with."""

    pid: int
    words: tuple[str, ...]

    @property
    def arguments(self) -> tuple[str, ...] | None:
        """What a delegator that serves was told; None for any other program."""
        at = next((at for at, word in enumerate(self.words[:5]) if Path(word).name == "delegator"), None)
        said = () if at is None else self.words[at + 1:]
        return said if "serve" in said and "delegate" not in said else None

    def __str__(self) -> str:
        name = Path(self.words[0]).name if self.words else "a program"
        return f"{name if self.arguments is None else 'delegator'} (pid {self.pid})"

    def serves(self, settings: Settings, source: Source) -> bool:
        """Whether it is a delegator of these settings."""
        if self.arguments is None:
            return False
        if not settings.store.url:
            return self.pid in _using(Path(settings.store.path))
        return source.path is None or not any(word.startswith("--config") for word in self.arguments) or any(
            Path(word.rpartition("=")[2]).name == source.path.name for word in self.arguments)


def told(settings: Settings, source: Source, hosts: Hosts, port: int) -> str:
    """What there is to say of a port that a start would have, or that a delegator of these settings has. Raises Taken,
    DelegatorError."""
    try:
        made = bound(hosts, port)
    except Unlistenable as error:
        if not error.taken:
            raise
        ours = _ours(settings, source, port)
        if ours is None:
            raise Taken(f"{error.detail}: taken by {_named(port)}") from None
        return f"taken by {ours}, which serves with these settings"
    try:
        return f"{' and '.join(authority(place_of(one)[0]) for one in made)} can be listened on"
    finally:
        for one in made:
            one.close()


def together(settings: Settings, source: Source) -> str:
    """What is to be said where a delegator of these settings runs; "" where none does. Raises DelegatorError, in the
    words of a start, where a port is not to be had."""
    running = ""
    for one in (settings.ops, settings.server) if settings.ops.enabled else (settings.server,):
        try:
            for sock in bound(one.host, one.port):
                sock.close()
        except Unlistenable as error:
            ours = _ours(settings, source, one.port) if error.taken else None
            if ours is None:
                raise (refused(error) if one is settings.ops else error) from None
            running = f"{ours} serves with it already; a second one would be refused its port"
    return running


def by_us(error: Unlistenable, settings: Settings, source: Source) -> DelegatorError:
    """The same refusal; where a delegator of these settings has the port, another port is no advice: what is to be
    served is served already."""
    ours = next((found for one in (settings.ops, settings.server)
                 if error.taken and (found := _ours(settings, source, one.port)) is not None), None)
    if ours is None:
        return error
    return DelegatorError(error.kind, error.detail,
                          hint=f"{ours} serves with these settings already, there is nothing to start; changed "
                               "settings are read with: systemctl reload delegator; for more processes set "
                               "[server] workers")


def _ours(settings: Settings, source: Source, port: int) -> Program | None:
    """The delegator of these settings that has the port. Where somebody is seen to have it, nobody else has."""
    seen = list(_holders(port))
    users = {uid for uid, _ in _sockets(port)}
    unseen = (one for one in _programs() if not seen and _owner(one.pid) in users)
    return next((one for one in (*seen, *unseen) if one.serves(settings, source)), None)


def _named(port: int) -> str:
    """Who has the port, as far as it can be seen."""
    seen = sorted(_holders(port), key=lambda one: one.pid)
    if seen:
        return ", ".join(map(str, seen))
    users = sorted({_user(uid) for uid, _ in _sockets(port)})
    return f"a program of user {', '.join(users)}, which root can see" if users else "a program that cannot be seen"


# --- /proc --------------------------------------------------------------------------------------------------------


def _programs() -> Iterator[Program]:
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            yield Program(int(folder.name), tuple(filter(None, words)))


def _holders(port: int) -> Iterator[Program]:
    """The programs that are seen to have a socket which listens on the port."""
    wanted = {f"socket:[{inode}]" for _, inode in _sockets(port)}
    return (one for one in _programs() if wanted & set(_opened(one.pid)))


def _sockets(port: int) -> Iterator[tuple[int, str]]:
    """The user and the inode of each socket that listens on the port, on whatever address."""
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / "net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    yield int(fields[7]), fields[9]


def _opened(pid: int) -> Iterator[str]:
    """What a program has open; nothing of one that we may not look into."""
    with contextlib.suppress(OSError):
        for one in (_PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                yield str(one.readlink())


def _using(path: Path) -> set[int]:
    """Who holds a lock on a file, as whoever has a database open does, and who started them: workers hold it for their
    parent. No lines, nobody."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        inode = path.stat()
        wanted = f"{os.major(inode.st_dev):02x}:{os.minor(inode.st_dev):02x}:{inode.st_ino}"
        for line in (_PROC / "locks").read_text().splitlines():
            fields = line.split()
            if wanted in fields:
                pid = int(fields[fields.index(wanted) - 1])
                found |= {pid, _parent(pid)}
    return found


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int((_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _owner(pid: int) -> int | None:
    """Whose it is. Its folder belongs to root where nobody may look into it, so that is not asked."""
    with contextlib.suppress(OSError):
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
        return next((int(line.split()[2]) for line in lines if line.startswith("Uid:")), None)
    return None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


# --- how many connections there may be ------------------------------------------------------------------------------


def open_files(settings: Settings) -> str:
    """What the limit of open files leaves for devices, in this shell; a unit has a limit of its own. Raises
    DelegatorError (CONFIGURATION) where it is next to nothing."""
    from delegator.serving.workers import share

    most, store = descriptors.highest(), settings.store.connections
    wanted = share(settings, settings.server.workers).limits.connections
    if most < descriptors.others(most, store) + descriptors.LEAST:
        raise DelegatorError(
            Kind.CONFIGURATION, f"{most} at most in this shell: a delegator would start with {descriptors.LEAST} "
            "connections for devices, and not always have a file for each", hint="raise the hard limit to "
            f"{descriptors.needed(wanted, store)}: LimitNOFILE in the unit, ulimit -Hn in a shell")
    return descriptors.shortage(wanted, most, store) or (
        f"{most} at most in this shell: enough for {wanted} connections of devices and all that we open ourselves")
