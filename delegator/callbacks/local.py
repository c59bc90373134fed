"""Callback `local`: the customer's own logic on this machine, an executable or a Python function, one process a call.

`launch.py` stands between the program and us; see there for what holds the program in. Whoever may register such a
delegate may run programs here: that is the operator, with the command line, and nobody over the network.
The invariant: whatever the program does, this call ends within its time, its processes and its folder are gone after
it, and no other call noticed. (They are gone a little later where it stopped its launcher, which is reminded. Not
promised where the program runs as the delegator's own user: that it does not do what that user may, such as reading its
files or killing its own launcher. `[callbacks] local_user` is for that.)
Must not live here: how an answer is written (answers), limits per delegate (guard).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import cast

import msgspec

from delegator.callbacks.answers import MAX_OUTPUT, NotAnAnswer, SaysNo, credential_in, first_line, says_no
from delegator.callbacks.calling import Needs
from delegator.callbacks.launch import ASK, OURS
from delegator.clockwork.rounds import kept
from delegator.errors import DelegatorError, Kind, words_of
from delegator.model import Credential, Delegate, DelegateRequest, Deployment, LocalCallback

log = logging.getLogger(__name__)
_late: set[asyncio.Task[None]] = set()
"""Whoever reminds a launcher."""
LAUNCHER = Path(__file__).with_name("launch.py")
GRACE = 6.0
"""Seconds for the launcher to end everything, a little more than it allows itself."""
REMIND = 0.5
"""Seconds between two reminders of a launcher that has not ended in that time."""
PIPES = 0.5
"""Seconds to read what is left in the pipes of a launcher that has ended."""
_ENDINGS = {signal.SIGXCPU: "its CPU time was over", signal.SIGXFSZ: "it wrote too large a file"}


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one call may take: seconds of time and of CPU, MiB of address space for each process; and as whom it
    runs (user and group number), None for the delegator's own user."""

    seconds: float = 10.0
    cpu: int = 5
    memory: int = 512
    user: tuple[int, int] | None = None


def user_named(name: str) -> tuple[int, int] | None:
    """The numbers of `[callbacks] local_user`; None for "". Raises DelegatorError (CONFIGURATION)."""
    if not name:
        return None
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise DelegatorError(Kind.CONFIGURATION, f"[callbacks] local_user: there is no user {name!r}",
                             hint=f"useradd --system --shell /usr/sbin/nologin {name}") from None
    if os.geteuid() not in (0, found.pw_uid):
        raise DelegatorError(Kind.CONFIGURATION, "[callbacks] local_user: only root can become another user",
                             hint="leave it empty, or start the delegator as root")
    return (found.pw_uid, found.pw_gid) if os.geteuid() == 0 else None


class LocalCaller:
    """Runs delegates' programs."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance

    async def obtain(self, request: DelegateRequest, delegate: Delegate, until: datetime) -> Credential:
        """Run a delegate's program for a claim. Raises DelegatorError: NOT_ENTITLED where the program ends with an exit
        code of its own, UNREACHABLE for anything else that is no credential."""
        assert isinstance(delegate.callback, LocalCallback)
        try:
            folder = Path(tempfile.mkdtemp(prefix="delegator-local-"))
        except OSError as error:
            raise _failed(delegate.name, str(error) or words_of(error)) from None
        try:
            if self._allowance.user is not None:
                os.chown(folder, *self._allowance.user)
            run = await self._run(delegate.callback, request, folder)
            _check(run)
            return credential_in(bytes(run.output), request.device.service_tag)
        except NotAnAnswer as error:
            raise _failed(delegate.name, f"exit 0, but {error}") from None
        except SaysNo as error:
            raise DelegatorError(Kind.NOT_ENTITLED, f"delegate {delegate.name} says no: {error}") from None
        except (OSError, ValueError) as error:
            raise _failed(delegate.name, str(error) or words_of(error)) from None
        finally:
            await asyncio.to_thread(_removed, folder)

    async def _run(self, settings: LocalCallback, request: DelegateRequest, folder: Path) -> _Run:
        _, run = await asyncio.get_running_loop().subprocess_exec(
            _Run, sys.executable, "-I", "-S", str(LAUNCHER), *self._order(settings), cwd=folder, env={},
            start_new_session=True, stdin=-1, stdout=-1, stderr=-1)  # -1: a pipe
        try:
            run.tell(said(request))
            async with asyncio.timeout(self._allowance.seconds):
                await run.ended.wait()
        except TimeoutError:
            raise ValueError(f"no answer within {self._allowance.seconds:g} s") from None
        finally:
            await run.end()
        return run

    def _order(self, settings: LocalCallback) -> tuple[str, ...]:
        """The words of `launch.Order`. Its own time limit is for the case that nobody is there to stop it."""
        allowed = self._allowance
        user = "" if allowed.user is None else "{}:{}".format(*allowed.user)
        words = (os.getpid(), allowed.seconds + 1, allowed.cpu, allowed.memory, user, settings.python or "",
                 settings.program, *settings.arguments)
        return tuple(map(str, words))

    async def notify(self, deployment: Deployment, delegate: Delegate) -> None:
        """There is nothing to tell."""

    def close(self) -> None:
        """There is nothing to let go of."""


def said(request: DelegateRequest) -> bytes:
    """What a program reads on standard input: one JSON object with all of these names, null for what is not known."""
    device, location = request.device, request.location
    return msgspec.json.encode({
        "claim_id": request.claim_id, "service_tag": device.service_tag, "serial_number": device.serial_number,
        "mac_addresses": device.mac_addresses, "model": device.model, "ip_address": location.ip_address,
        "host_name": location.host_name, "domain": location.domain, "peer_address": request.peer_address or None})


class _Run(asyncio.SubprocessProtocol):
    """One launcher and what it wrote, up to the limit; beyond that it is stopped."""

    def __init__(self) -> None:
        self.output, self.errors = bytearray(), bytearray()
        self.too_much = False
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)  # uvloop's is one without saying so

    def tell(self, request: bytes) -> None:
        stdin = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))
        stdin.write(request)
        stdin.write_eof()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        kept = self.errors if fd == 2 else self.output
        if len(kept) + len(data) <= MAX_OUTPUT:
            kept += data
        elif not self.too_much:
            self.too_much = True
            self._signal(ASK)

    def process_exited(self) -> None:
        """Pipes are read to their ends, which have come, unless the program killed its launcher and left children."""
        asyncio.get_running_loop().call_later(PIPES, self.ended.set)

    def connection_lost(self, exc: Exception | None) -> None:
        """The launcher has ended and nobody holds a pipe any more."""
        self.ended.set()

    @property
    def code(self) -> int | None:
        return self._transport.get_returncode()

    async def end(self) -> None:
        """Have the launcher end everything, if it has not. It is never killed: with it would go the only one that can
        tell what the program left. Where its program stopped it, or has the machine so busy that it never gets to it,
        the call is over all the same, and it is reminded until it is done."""
        try:
            if self.code is None:
                self._signal(ASK)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.ended.wait(), GRACE)
        finally:
            if self.code is None:
                late = asyncio.get_running_loop().create_task(kept(self._outlast, "ending a program"))
                _late.add(late)
                late.add_done_callback(_late.discard)
            else:
                self._transport.close()

    async def _outlast(self) -> None:
        while self.code is None:
            self._signal(signal.SIGCONT)
            self._signal(ASK)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), REMIND)
        self._transport.close()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._transport.send_signal(number)


def _check(run: _Run) -> None:
    """Only exit code 0 is a credential. Raises SaysNo for the program's own code, ValueError for any other end."""
    if run.too_much:
        raise ValueError(f"it wrote more than {MAX_OUTPUT} bytes and was stopped")
    if run.code == 0:
        return
    errors = bytes(run.errors)
    ours = errors.rpartition(f"\n{OURS}".encode())
    words = first_line(ours[2] if ours[1] else errors)
    why = SaysNo if says_no(run.code) and not ours[1] else ValueError
    raise why(f"{_ending(run.code or 0)}: {words}".removesuffix(": "))


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit {code}"
    number = signal.Signals(-code)
    return f"killed by {number.name}" + (f", {_ENDINGS[number]}" if number in _ENDINGS else "")


def _failed(name: str, why: str) -> DelegatorError:
    return DelegatorError(Kind.UNREACHABLE, f"delegate {name}: {why}",
                          hint="try the program by hand with a request as in docs/callbacks.md on standard input")


def _removed(folder: Path) -> None:
    """As far as it goes: folders nested a thousand deep are left, and told."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except RecursionError:
        log.warning("%s could not be removed", folder)


def caller(needs: Needs) -> LocalCaller:
    """Raises DelegatorError (CONFIGURATION) for a user that we cannot become."""
    said = needs.settings
    return LocalCaller(Allowance(said.budget, said.local_cpu, said.local_memory, user_named(said.local_user)))


async def reach(delegate: Delegate, needs: Needs) -> str:
    assert isinstance(delegate.callback, LocalCallback)
    try:
        check(delegate.callback)
    except ValueError as error:
        raise DelegatorError(Kind.CONFIGURATION, str(error)) from None
    return f"{delegate.callback.program} is there; it is run only for a device"


def check(callback: LocalCallback) -> None:
    """It runs as we do, so nobody else may be able to change it. Raises ValueError, DelegatorError (CONFIGURATION)."""
    path = Path(callback.program)
    if callback.python is not None:
        if not path.is_dir():
            raise ValueError(f"{path} is not a folder")
        return
    if not path.is_file() or not os.access(path, os.X_OK):
        raise DelegatorError(Kind.CONFIGURATION, f"{path} is not a program that can be run", hint=f"chmod +x {path}")
    if path.stat().st_mode & 0o022:
        raise DelegatorError(Kind.CONFIGURATION, f"{path} can be changed by others", hint=f"chmod go-w {path}")


def remarks(callback: LocalCallback) -> tuple[str, ...]:
    return ()


def lacking() -> DelegatorError | None:
    return None
