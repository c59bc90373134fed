"""What a way of calling delegates is made of, and the table of them: a module here for each, named as the way is.

A way whose module does not load, or whose extra is not installed, refuses itself: for its delegates it is told what
is missing when they are called, whoever registers one is warned, and everybody else is served.
The invariant: making callers calls nobody.
Must not live here: fields of a callback (model.ways), limits per delegate (guard).
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, cast

from delegator.callbacks import hosted
from delegator.errors import DelegatorError, Kind
from delegator.model import CallbackWay, Credential, Delegate, DelegateRequest, Deployment

if TYPE_CHECKING:
    from delegator.config import CallbackSettings as Settings
    from delegator.outbound import Outbound
    from pki.pair import Pair
    from pki.trust import TrustStore

log = logging.getLogger(__name__)
AT_HAND = {CallbackWay.HOSTED: hosted.compose}
"""Ways that need nobody else: their credential is made here, from the request, the settings and when it ends."""


class Caller(Protocol):
    """One way to reach a delegate. `until` is when the claim's lease ends."""

    async def obtain(self, request: DelegateRequest, delegate: Delegate, until: datetime) -> Credential:
        """The delegate's credential for a claim. Raises DelegatorError: NOT_ENTITLED where it answers no, UNREACHABLE
        where it gives no answer or nonsense."""

    async def notify(self, deployment: Deployment, delegate: Delegate) -> None:
        """Tell the delegate how provisioning ended, if it can be told. Raises DelegatorError as `obtain` does."""

    def close(self) -> None:
        """Let go of connections."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What callers are made with; each way takes what it needs, and nothing else is read for it. `shows` is the pair
    that delegates are shown, or what is wrong with it."""

    settings: Settings
    shows: Callable[[], Pair | DelegatorError]
    trust: Callable[[], TrustStore]
    outbound: Callable[[], Outbound]
    now: Callable[[], datetime]


class Way(Protocol):
    """What the module of a way offers."""

    def caller(self, needs: Needs) -> Caller:
        """Raises DelegatorError (CONFIGURATION) for settings that are not in order."""

    async def reach(self, delegate: Delegate, needs: Needs) -> str:
        """Whether a delegate is there, in words; nothing is asked of it. Raises DelegatorError: UNREACHABLE, or
        CONFIGURATION for what is wrong here."""

    def check(self, callback: Any) -> None:
        """What can be known of a callback on this machine, when it is registered. Raises ValueError, DelegatorError
        (CONFIGURATION) for one that cannot work."""

    def remarks(self, callback: Any) -> tuple[str, ...]:
        """What whoever registers it should know."""

    def lacking(self) -> DelegatorError | None:
        """What this installation lacks to call anybody this way, and what to do about it."""


def way(which: CallbackWay) -> Way:
    """The module of a way. Raises DelegatorError (UNREACHABLE) where it does not load."""
    try:
        return cast(Way, importlib.import_module(f"delegator.callbacks.{which.value}"))
    except ImportError as error:
        raise DelegatorError(Kind.UNREACHABLE, f"callback {which.value} does not load here: {error}",
                             hint="install what is missing, see Install in docs/operators.md") from None


def lacking(which: CallbackWay) -> DelegatorError | None:
    """What this installation lacks to call anybody this way; None for nothing."""
    try:
        return way(which).lacking()
    except DelegatorError as error:
        return error


def callers(needs: Needs) -> dict[CallbackWay, Caller]:
    """A caller for each way that calls somebody. Raises DelegatorError (CONFIGURATION)."""
    found: dict[CallbackWay, Caller] = {}
    for which in CallbackWay:
        if which in AT_HAND:
            continue
        try:
            module = way(which)
        except DelegatorError as error:
            log.error("%s; delegates that are reached this way are refused until then; next: %s", error.detail,
                      error.hint)
            found[which] = Refusing(error)
        else:
            found[which] = module.caller(needs)
    return found


class Refusing:
    """Stands where a way does not load."""

    def __init__(self, why: DelegatorError) -> None:
        self._why = why

    async def obtain(self, request: DelegateRequest, delegate: Delegate, until: datetime) -> Credential:
        raise DelegatorError(self._why.kind, self._why.detail, hint=self._why.hint)

    async def notify(self, deployment: Deployment, delegate: Delegate) -> None:
        raise DelegatorError(self._why.kind, self._why.detail, hint=self._why.hint)

    def close(self) -> None:
        """There is nothing to let go of."""
