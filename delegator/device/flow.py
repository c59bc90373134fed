"""The way of one device, from power-on to ready: step after step, and what a failure leads to.

The invariants: a phase is saved after the step that reached it and before the next one begins, so a power cut
anywhere resumes with the same transaction id; every error of every class becomes a reason of the table, uses the
window, and leads back to where this device can help itself; waiting writes nothing.
Must not live here: the steps (steps), words for the terminal (command).
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from delegator.device import enrolling, hook, reasons, retry, status, tls
from delegator.device.addresses import MOST
from delegator.device.exchange import Line
from delegator.device.reasons import Busy, Failure, Misconfigured, Reason, shown
from delegator.device.settings import Own, Settings
from delegator.device.state import Folder, Phase, State, new_state
from delegator.device.steps import STEPS, tell

log = logging.getLogger("delegator.device")

ANEW = 6 * 3600.0
"""Seconds after which the maker is asked again for what is on the disk already, while the owner's server or the hook
fails: the owner may have moved. Each time costs some ten fsyncs of flash, and all of them have fifty a day."""


class World(NamedTuple):
    """Time and chance, so that tests can have their own. `monotonic` counts the window: a clock that is set later
    must not shorten it."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    uniform: retry.Uniform = random.SystemRandom().uniform
    now: Callable[[], float] = time.time


class Result(NamedTuple):
    """How it ended. `reason` is None exactly when the device is ready; `state` is None where not even one could be
    saved."""

    state: State | None
    attempts: int
    reason: Reason | None = None
    detail: str = ""


def resume(folder: Folder, service_tag: str, again: bool, now: float, own: Own | None = None) -> State:
    """The activation to go on with: the saved one, or a new one that is on the disk before it is returned. It shows
    this device's own certificate where there is one that can be used."""
    saved = folder.load()
    ours = saved is not None and saved.service_tag == service_tag and not again
    if saved is not None and ours and saved.phase is Phase.CONFIRMED:
        return saved
    if own is not None:
        enrolling.drop_foreign(own, service_tag)
    usable = own is not None and enrolling.is_usable(own, service_tag)
    if saved is not None and ours:
        return saved._replace(own=saved.own and usable)
    if saved is not None and saved.service_tag != service_tag:
        log.warning("the state in %s was that of %s, not of %s: it is begun anew", folder.path,
                    shown(saved.service_tag), service_tag)
    state = new_state(service_tag, now, own=usable)
    folder.save(state)
    return state


def activate(settings: Settings, folder: Folder, world: World) -> Result:
    """Attempts until the device is ready or the window is over. Raises Misconfigured for what a person must mend."""
    return _Activation(settings, folder, world).run()


def phase_after_failure(phase: Phase, reason: Reason, asked_ago: float | None, patience: float = 0.0) -> Phase:
    """Where the next attempt begins: at the start (block 202), but for what this device has already.

    An applied device whose confirmation got lost only confirms again, unless the delegator says that the claim is no
    longer this device's. One that has its credential fetches again, where it is not the credential that was found
    wanting, until it is time to ask anew: then `patience` says how long the maker is not asked for what it answered
    before. `asked_ago` is in seconds, None for an answer of an earlier run.
    """
    if phase is Phase.APPLIED:
        return Phase.ASKING if reason in _CLAIM_ENDED else Phase.APPLIED
    long = 0.0 if reason is reasons.NO_CREDENTIAL else patience if reason in _WANTING else ANEW
    fresh = asked_ago is not None and asked_ago < long
    return Phase.ISSUED if phase in _HAS_CREDENTIAL and fresh else Phase.ASKING


_CLAIM_ENDED = (reasons.IDENTITY_REJECTED, reasons.NOT_ENTITLED)
_HAS_CREDENTIAL = (Phase.ISSUED, Phase.FETCHED)
_WANTING = (reasons.UNUSABLE_CREDENTIAL, reasons.DELEGATE_NOT_TRUSTED)


class _Activation:
    """One run: what it knows beside what is on the disk."""

    def __init__(self, settings: Settings, folder: Folder, world: World) -> None:
        self._settings, self._folder, self._world = settings, folder, world
        self._started, self._attempts = world.monotonic(), 0
        self._state: State | None = None
        self._asked_at: float | None = None
        self._told = self._withdrawn = False
        self._patience = 0.0
        self._line = Line()

    def run(self) -> Result:
        try:
            return self._run()
        finally:
            self._line.close()

    def _run(self) -> Result:
        while True:
            try:
                with _every_error_a_reason():
                    return self._attempt()
            except Failure as failure:
                self._back(failure)
                self._line.close()
                wait = retry.pause(self._settings.interval, failure.retry_after, self._world.uniform)
                if self._settings.once or not retry.worth_waiting(self._elapsed(), wait, self._settings.window):
                    return self._given_up(failure)
                log.warning("%s [%s]; next attempt in %.0f s", failure, failure.reason.name, wait)
                self._say_waiting(failure, self._world.now() + wait)
                self._world.sleep(wait)

    def _attempt(self) -> Result:
        """Step by step from wherever the device stands; each step's end is saved before the next begins."""
        if self._state is None:
            hook.end_left_over(self._folder.lock)
            self._state = resume(self._folder, self._settings.identity.service_tag, self._settings.again,
                                 self._world.now(), self._settings.own)
            if self._state.phase is not Phase.CONFIRMED:
                _require_commands(self._settings)
        state = self._state
        self._attempts += state.phase is not Phase.CONFIRMED
        ends = self._world.monotonic() + self._budget()
        while state.phase is not Phase.CONFIRMED:
            before, left = state.phase, max(ends - self._world.monotonic(), 1.0)
            state = STEPS[before](self._settings._replace(budget=left), self._folder, state, self._line)
            self._folder.save(state)
            self._state = state
            if before is Phase.ASKING:
                self._asked_at, self._told = self._world.monotonic(), False
            if before is Phase.FETCHED:  # a hook takes its own time, and what it did is still to be told
                ends = self._world.monotonic() + self._budget()
        return Result(state, self._attempts)

    def _budget(self) -> float:
        """Seconds for the servers of one attempt: the time-out for each of some, and none of it after the window."""
        timeout, rest = self._settings.timeout, self._settings.window - self._elapsed()
        return max(timeout, min(timeout * MOST, rest))

    def _elapsed(self) -> float:
        return self._world.monotonic() - self._started

    def _back(self, failure: Failure) -> None:
        """Where the next attempt begins. Nothing is written: what is on the disk is still true, and a device that
        waits for a day must not wear its flash."""
        if self._state is None:
            return
        if failure.reason is reasons.HOOK_FAILED and not self._told:
            self._told = True
            with contextlib.suppress(Failure), _every_error_a_reason():
                tell(self._settings._replace(budget=self._budget()), self._state, failure, self._line)
        self._withdrawn |= self._state.own and failure.proven and tls.withdrawn(failure)
        asked_ago = None if self._asked_at is None else self._world.monotonic() - self._asked_at
        phase = phase_after_failure(self._state.phase, failure.reason, asked_ago, self._patience)
        if failure.reason in _WANTING and phase is Phase.ASKING:  # at once first, and then less and less often
            self._patience = min(max(self._settings.interval, 2 * self._patience), ANEW)
        self._state = self._state._replace(
            phase=Phase.ASKING if failure.unforeseen else phase,
            own=_shows_own(self._settings, self._state, failure))

    def _say_waiting(self, failure: Failure, until: float) -> None:
        reason, phase = failure.reason, self._state.phase.value if self._state else None
        status.write(self._folder.path, {
            "outcome": status.WAITING, "reason": reason.name, "exit_code": reason.exit_code, "detail": failure.detail,
            "attempts": self._attempts, "phase": phase, "next_attempt": status.moment(until)})

    def _given_up(self, failure: Failure) -> Result:
        """The next power-on asks, unless it has only to confirm."""
        if self._state is not None:
            phase = self._state.phase if self._state.phase is Phase.APPLIED else Phase.ASKING
            self._state = self._state._replace(phase=phase)
            try:
                with _every_error_a_reason():
                    self._folder.save(self._state._replace(own=self._state.own or self._stored_own()))
            except Failure as trouble:
                log.warning("the state could not be saved: %s", trouble)
        return Result(self._state, self._attempts, failure.reason, failure.detail)

    def _stored_own(self) -> bool:
        """A certificate that somebody on the way called withdrawn is shown again by the next run."""
        saved = self._folder.load()
        return saved is not None and saved.own and not self._withdrawn


@contextlib.contextmanager
def _every_error_a_reason() -> Iterator[None]:
    """Below everything that knows its errors: whatever else happens on a device may not happen on it for ever."""
    try:
        yield
    except (Failure, Misconfigured, Busy):
        raise
    except OSError as error:
        raise Failure(reasons.OWN_TROUBLE, reasons.system_words(error)) from None
    except Exception as error:
        failure = Failure(reasons.OWN_TROUBLE, f"{type(error).__name__}: {error}")
        failure.unforeseen = True
        raise failure from None


def _require_commands(settings: Settings) -> None:
    """Before anything is asked for; a device that is ready needs none of them. Raises Misconfigured."""
    if settings.hook and shutil.which(settings.hook[0]) is None:
        name = settings.hook[0]
        raise Misconfigured(f"the hook {name} is not a command that can be run: {_why_not(name)}")
    if settings.own is not None and settings.own.command and shutil.which(settings.own.command[0]) is None:
        raise Misconfigured(f"{settings.own.command[0]} is not a command that can be run: name one that makes a "
                            "certificate request with --request-command")


def _why_not(command: str) -> str:
    """Of a command that is none, what a person would look at first."""
    if not os.path.lexists(command):
        return "there is no such file" if "/" in command else "no such program is in PATH; name it with its whole path"
    return f"`chmod +x {command}` first" if Path(command).is_file() else "it is no file"


def _shows_own(settings: Settings, state: State, failure: Failure) -> bool:
    """Which certificate the next attempt shows. An own one may have been withdrawn so that this device can begin anew
    with the shared one; and where the shared one is refused, the own one, if there is one, is what is wanted."""
    if state.own:
        return not tls.withdrawn(failure)
    wanted = failure.reason in _CLAIM_ENDED
    return wanted and settings.own is not None and enrolling.is_usable(settings.own, state.service_tag)
