"""Callback `ssh`: the customer's command on the customer's machine, `getCred <service tag> <ip>`; its output is read.

The library behind it is an extra (`ssh`) and loaded at the first call, so the
delegator starts without it. There is nothing to tell such a delegate when provisioning has ended: its command was
told the claim, if it asked for it, and the credential it gave ends by itself.
The invariants: a changed host key is refused, reported and never learned; what goes to the trail is the exit code and
one line of standard error, never standard output.
Must not live here: SSH itself (ssh_session), how an answer is written (answers), limits per delegate (guard).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import logging
import os
from collections.abc import Iterator
from datetime import datetime
from types import ModuleType
from typing import TYPE_CHECKING

from delegator.callbacks.answers import MAX_OUTPUT, NotAnAnswer, SaysNo, credential_in, first_line, says_no
from delegator.callbacks.calling import Needs
from delegator.callbacks.ssh_command import check_command, command_for
from delegator.callbacks.ssh_keys import HostKey, host_key_in
from delegator.errors import DelegatorError, Kind, extra, words_of
from delegator.model import Credential, Delegate, DelegateRequest, Deployment, SshCallback
from delegator.model.places import authority
from delegator.outbound import Outbound

if TYPE_CHECKING:
    from delegator.callbacks.ssh_session import Finished, Login

log = logging.getLogger(__name__)
CONNECTING = 8
"""Connections being opened to one delegate at once: OpenSSH drops some at random from the tenth on (MaxStartups)."""
MISSING = "the extra `ssh` is not installed here"
HINT = extra("ssh")


async def library(kind: Kind = Kind.UNREACHABLE) -> ModuleType:
    """`ssh_session`. The first time it takes half a second, in a thread, so that other devices do not wait for it.
    Raises DelegatorError of that kind where asyncssh is missing."""
    try:
        return await asyncio.to_thread(importlib.import_module, "delegator.callbacks.ssh_session")
    except ModuleNotFoundError:
        raise DelegatorError(kind, f"callback ssh: {MISSING}", hint=HINT) from None


class SshCaller:
    """Runs delegates' commands. Keeps each delegate's keys ready, and no connection."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound
        self._logins: dict[str, Login] = {}
        self._turns: dict[str, asyncio.Semaphore] = {}

    async def obtain(self, request: DelegateRequest, delegate: Delegate, until: datetime) -> Credential:
        """Run a delegate's command for a claim. Raises DelegatorError: NOT_ENTITLED where the command ends with an exit
        code of its own, UNREACHABLE for anything else that is no credential."""
        assert isinstance(delegate.callback, SshCallback)
        name, settings = delegate.name, delegate.callback
        session = await library()
        with _told(session, delegate.name, settings):
            command = command_for(settings.command, request)
            turn = self._turns.setdefault(name, asyncio.Semaphore(CONNECTING))
            done: Finished = await session.run(self._login(session, name, settings), command, self._outbound, turn)
            _check(done)
            return credential_in(done.output, request.device.service_tag)

    async def reach(self, delegate: Delegate) -> str:
        """Whether it is there, with its host key, and lets us in with our key, in words; nothing is run. Raises
        DelegatorError as `obtain` does."""
        assert isinstance(delegate.callback, SshCallback)
        session = await library()
        with _told(session, delegate.name, delegate.callback):
            await session.log_in(self._login(session, delegate.name, delegate.callback), self._outbound)
        return "it is there, its host key is the pinned one, and it lets us in; its command was not run"

    def _login(self, session: ModuleType, name: str, settings: SshCallback) -> Login:
        known = self._logins.get(name)
        if known is None or known.settings != settings:
            known = self._logins[name] = session.Login(settings, host_key_in(settings.host_key))
        return known

    async def notify(self, deployment: Deployment, delegate: Delegate) -> None:
        """There is nothing to tell."""

    def close(self) -> None:
        """There is nothing to let go of."""


@contextlib.contextmanager
def _told(session: ModuleType, name: str, settings: SshCallback) -> Iterator[None]:
    """Whatever goes wrong on the way to a delegate, as an error of this delegate."""
    try:
        yield
    except session.HostKeyChanged as changed:
        raise _changed(name, settings, changed.shown) from None
    except NotAnAnswer as error:
        raise _failed(name, f"exit 0, but {error}") from None
    except SaysNo as error:
        raise DelegatorError(Kind.NOT_ENTITLED, f"delegate {name} says no: {error}") from None
    except (session.SshFailure, ValueError) as error:
        raise _failed(name, str(error) or words_of(error)) from None
    except OSError as error:
        raise _failed(name, f"{authority(settings.host, settings.port)}: {reason(error)}") from None
    except DelegatorError as error:
        if error.kind is Kind.TRY_LATER:  # it was not even tried
            raise
        raise _failed(name, error.detail) from None


def reason(error: OSError) -> str:
    """The system's own words. asyncio's hold the address once more, a failed look-up has none."""
    known = error.errno is not None and error.errno > 0
    return os.strerror(error.errno or 0) if known else words_of(error)


def _failed(name: str, why: str, hint: str = "") -> DelegatorError:
    return DelegatorError(Kind.UNREACHABLE, f"delegate {name}: {why}", hint=hint)


def _check(done: Finished) -> None:
    """Only exit code 0 is a credential. Raises SaysNo for the command's own code, ValueError for any other end."""
    if done.too_much:
        raise ValueError(f"it wrote more than {MAX_OUTPUT} bytes and was stopped")
    if done.status != 0:
        ending = (f"killed by SIG{done.signal}" if done.signal else "the connection ended before the command"
                  if done.status is None else f"exit {done.status}")
        why = SaysNo if not done.signal and says_no(done.status) else ValueError
        raise why(f"{ending}: {first_line(done.errors)}".removesuffix(": "))


def _changed(name: str, settings: SshCallback, shown: HostKey | None) -> DelegatorError:
    """The alarm: somebody stands in between, or the customer's machine is a new one. Only people can tell."""
    pinned = host_key_in(settings.host_key)
    met = "one of another kind" if shown is None else f"{shown.kind} {shown.fingerprint}"
    where = authority(settings.host, settings.port)
    error = _failed(name, f"the host key of {where} has changed: pinned is {pinned.kind} {pinned.fingerprint}, "
                          f"shown was {met}; nothing was sent",
                    f"ask the customer; if it is theirs: delegator delegates scan-host-key {where}")
    log.warning("%s", error.detail)
    return error


def caller(needs: Needs) -> SshCaller:
    return SshCaller(needs.outbound())


async def reach(delegate: Delegate, needs: Needs) -> str:
    """Raises DelegatorError as `obtain` does."""
    budget = needs.settings.budget
    try:
        async with asyncio.timeout(budget):
            return await caller(needs).reach(delegate)
    except TimeoutError:
        raise _failed(delegate.name, f"no answer within {budget:g} s") from None


def check(callback: SshCallback) -> None:
    """Raises ValueError for a command that could not be filled."""
    check_command(callback.command)


def remarks(callback: SshCallback) -> tuple[str, ...]:
    """The fingerprint once more: it is what people compare; and whether it can be called from here."""
    fingerprint = host_key_in(callback.host_key).fingerprint
    pinned = f"only the host key {fingerprint} is accepted from {callback.host}"
    why = lacking()
    return (pinned,) if why is None else (
        pinned, f"WARNING: no device will be served by it from here: {why.detail}\n  next: {why.hint}")


def lacking() -> DelegatorError | None:
    """Whether the library is there, which is looked for and not loaded."""
    if importlib.util.find_spec("asyncssh") is None:
        return DelegatorError(Kind.UNREACHABLE, f"callback ssh: {MISSING}", hint=HINT)
    return None
