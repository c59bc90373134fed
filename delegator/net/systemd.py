"""The service manager's side of life: we tell it how we are, it hands us sockets that listen already.

Both are small protocols, spoken here by hand: sd_notify(3), datagrams of KEY=value lines to a socket named in the
environment, and sd_listen_fds(3), file descriptors from 3 on. What was read leaves the environment, so that no
program we start takes itself for us.
The invariant: a manager that is not there, or does not listen, changes nothing for devices.
Must not live here: what we listen on otherwise (net.listening), when we are ready (serving.app).
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field

from delegator.errors import DelegatorError, Kind

log = logging.getLogger(__name__)
FIRST = 3
"""SD_LISTEN_FDS_START: after standard input, output and error."""
DEVICES, DELEGATE, OPS = "devices", "delegate", "ops"
"""The doors, by the names that their sockets have (FileDescriptorName=): a new door is a name here."""
DOORS = frozenset((DEVICES, DELEGATE, OPS))
Sockets = dict[str, list[socket.socket]]
"""By the door that they are for."""


@dataclass(slots=True)
class Manager:
    """The service manager, or nobody. `watchdog` is in seconds: so often at least it wants to hear from us."""

    address: str = ""
    watchdog: float | None = None
    _socket: socket.socket | None = field(default=None, init=False)
    _said: bool = field(default=False, init=False)

    def ready(self, status: str) -> None:
        self.tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Settings are read again. The time makes it a pair with the READY that follows (Type=notify-reload)."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reading settings again")

    def stopping(self, status: str) -> None:
        self.tell("STOPPING=1", f"STATUS={status}")

    def alive(self) -> None:
        self.tell("WATCHDOG=1")

    def tell(self, *lines: str) -> None:
        """Send some KEY=value lines as one datagram. Failing is said once, and the next word is tried all the same: a
        manager that hears nothing of a watchdog would end us."""
        if not self.address:
            return
        try:
            if self._socket is None:
                self._socket = _connected(self.address)
            self._socket.send("\n".join(lines).encode())
        except BlockingIOError:
            log.debug("the service manager is busy")
        except OSError as error:
            log.log(logging.DEBUG if self._said else logging.WARNING, "the service manager at %s does not listen: %s",
                    self.address, error.strerror)
            self._said = True
            self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _connected(address: str) -> socket.socket:
    """A leading @ is an abstract address, a NUL byte to the kernel."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        made.connect("\0" + address[1:] if address.startswith("@") else address)
    except BaseException:
        made.close()
        raise
    return made


def manager(environment: MutableMapping[str, str] = os.environ) -> Manager:
    """Who started us, taken out of the environment. The watchdog counts only if it is meant for this process."""
    address = environment.pop("NOTIFY_SOCKET", "")
    every, whom = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
    mine = every.isdecimal() and int(every) > 0 and whom in ("", str(os.getpid()))
    return Manager(address if address.startswith(("/", "@")) else "", int(every) / 1e6 if mine else None)


def sockets(doors: Sequence[str], environment: MutableMapping[str, str] = os.environ) -> Sockets:
    """Sockets handed over to this process, by which of its `doors` they are for; none where there is no such manager.
    One that has no door's name is for the first (the manager gives it its unit's name, unless told another).
    Raises DelegatorError (CONFIGURATION) for one of a door that this process has not, which would otherwise show one
    door's answers at another's port, and for one that is no listening stream."""
    count, whom = environment.pop("LISTEN_FDS", ""), environment.pop("LISTEN_PID", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    found: Sockets = {door: [] for door in doors}
    if whom == str(os.getpid()) and count.isdecimal():
        for number in range(int(count)):
            name = names[number] if number < len(names) else ""
            door = name if name in DOORS else doors[0]
            if door not in found:
                raise _unfit(FIRST + number, name, f"this process has no such door, only {' and '.join(doors)}")
            found[door].append(_adopted(FIRST + number, name))
    return found


def _adopted(descriptor: int, name: str) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        made = socket.socket(fileno=descriptor)
    except OSError as error:
        raise _unfit(descriptor, name, error.strerror or str(error)) from None
    inet = made.family in (socket.AF_INET, socket.AF_INET6) and made.type == socket.SOCK_STREAM
    if not inet or not made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        made.detach()
        raise _unfit(descriptor, name, "no TCP socket that listens")
    return made


def _unfit(descriptor: int, name: str, why: str) -> DelegatorError:
    return DelegatorError(Kind.CONFIGURATION, f"descriptor {descriptor} ({name or 'no name'}) of the service manager: "
                          f"{why}", hint="a socket unit for us has ListenStream= and Accept=no, and in "
                                         "FileDescriptorName= the name of one of our doors")
