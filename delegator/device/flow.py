"""The way of one device, from power-on to ready: step after step, and what a failure leads to.

The invariant: a phase is saved after the step that reached it and before the next one begins, so a power cut
anywhere resumes with the same transaction id. Must not live here: the steps (steps), words for the terminal.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import NamedTuple

from delegator.device import enrolling, reasons, retry, tls
from delegator.device.reasons import Failure, Reason
from delegator.device.settings import Own, Settings
from delegator.device.state import Folder, Phase, State, new_state
from delegator.device.steps import STEPS

log = logging.getLogger("delegator.device")


class World(NamedTuple):
    """Time and chance, so that tests can have their own. `monotonic` counts the window: a clock that is set later
    must not shorten it."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    uniform: retry.Uniform = random.SystemRandom().uniform
    now: Callable[[], float] = time.time


class Result(NamedTuple):
    """How it ended. `reason` is None exactly when the device is ready."""

    state: State
    attempts: int
    reason: Reason | None = None
    detail: str = ""


def resume(folder: Folder, service_tag: str, again: bool, now: float, own: Own | None = None) -> State:
    """The activation to go on with: the saved one, or a new one that is on the disk before it is returned. It shows
    this device's own certificate where there is one that can be used."""
    if own is not None:
        enrolling.drop_foreign(own, service_tag)
    usable = own is not None and enrolling.is_usable(own, service_tag)
    saved = folder.load()
    if saved is not None and saved.service_tag == service_tag and not again:
        return saved._replace(own=saved.own and usable)
    state = new_state(service_tag, now, own=usable)
    folder.save(state)
    return state


def activate(settings: Settings, folder: Folder, world: World) -> Result:
    """Attempts until the device is ready, a reason forbids more, or the window is over."""
    state = resume(folder, settings.identity.service_tag, settings.again, world.now(), settings.own)
    started, attempts = world.monotonic(), 0
    while state.phase is not Phase.CONFIRMED:
        attempts += 1
        try:
            state = _attempt(settings, folder, state)
        except Failure as failure:
            state = _back(settings, folder, failure)
            wait = retry.pause(settings.interval, failure.retry_after, world.uniform)
            if not _again(settings, failure.reason, world.monotonic() - started, wait):
                return Result(state, attempts, failure.reason, failure.detail)
            log.warning("%s [%s]; next attempt in %.0f s", failure, failure.reason.name, wait)
            world.sleep(wait)
    return Result(state, attempts)


def phase_after_failure(phase: Phase, reason: Reason) -> Phase:
    """Back to the start (block 202), with one exception: an applied device whose confirmation got lost only
    confirms again, unless the delegator says that the claim is no longer this device's."""
    ended = reason in (reasons.IDENTITY_REJECTED, reasons.NOT_ENTITLED)
    return Phase.APPLIED if phase is Phase.APPLIED and not ended else Phase.ASKING


def _again(settings: Settings, reason: Reason, elapsed: float, wait: float) -> bool:
    return not settings.once and not reason.stops and retry.worth_waiting(elapsed, wait, settings.window)


def _attempt(settings: Settings, folder: Folder, state: State) -> State:
    """Step by step from wherever the device stands; each step's end is saved before the next begins."""
    while state.phase is not Phase.CONFIRMED:
        state = STEPS[state.phase](settings, folder, state)
        folder.save(state)
    return state


def _back(settings: Settings, folder: Folder, failure: Failure) -> State:
    """The state after a failure: steps may have got further than the caller saw, so the disk is asked."""
    state = folder.load()
    if state is None:
        raise RuntimeError("the state vanished during an attempt")
    after = state._replace(phase=phase_after_failure(state.phase, failure.reason),
                           own=_shows_own(settings, state, failure))
    if after != state:  # a device that waits for a day must not wear its flash with a thousand equal writes
        folder.save(after)
    return after


def _shows_own(settings: Settings, state: State, failure: Failure) -> bool:
    """Which certificate the next attempt shows. An own one may have been withdrawn so that this device can begin anew
    with the shared one; and where the shared one is refused, the own one, if there is one, is what is wanted."""
    if state.own:
        return not tls.withdrawn(failure)
    wanted = failure.reason in (reasons.IDENTITY_REJECTED, reasons.NOT_ENTITLED)
    return wanted and settings.own is not None and enrolling.is_usable(settings.own, state.service_tag)
