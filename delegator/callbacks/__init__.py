"""Callbacks: one verb, `obtain(request, delegate, until) -> Credential`, however a delegate is reached. Block 215.

Each way of calling is a module here, of the same name as its fields in model.ways; `calling` has the table.
The invariant: a failure of a delegate is an UNREACHABLE or TRY_LATER of that delegate and of nobody else, and its no
for one device is a NOT_ENTITLED of that device and of no other.
Must not live here: claims, policy, what the device is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from delegator.callbacks.calling import AT_HAND, Caller
from delegator.callbacks.guard import Guard, Limits
from delegator.clockwork.deadline import Elsewhere
from delegator.errors import DelegatorError, Kind
from delegator.model import (
    CallbackWay,
    Credential,
    Delegate,
    DelegateRequest,
    Deployment,
)

__all__ = ["Callbacks", "Caller"]


class Callbacks:
    """Every way to reach a delegate, behind one verb and one guard."""

    def __init__(self, callers: Mapping[CallbackWay, Caller], guard: Guard) -> None:
        self._callers = callers
        self._guard = guard

    def at_hand(self, delegate: Delegate, request: DelegateRequest, until: datetime) -> Credential | None:
        """The credential when it needs nobody else, so that its claim can be opened and issued in one commit."""
        compose = AT_HAND.get(delegate.way)
        return None if compose is None else compose(request, delegate.callback, until)

    @property
    def spare(self) -> int:
        """Calls to one delegate at once that who is in no hurry may make."""
        return self._guard.spare

    def is_resting(self, delegate: Delegate) -> bool:
        """Whether the delegate failed so often that it is left alone now."""
        return self._guard.is_open(delegate.name)

    async def obtain(self, request: DelegateRequest, delegate: Delegate, until: datetime) -> Credential:
        """The delegate's credential for a claim. Raises DelegatorError: NOT_ENTITLED where the delegate says no,
        UNREACHABLE for anything that goes wrong there, TRY_LATER when it was not even asked."""
        composed = self.at_hand(delegate, request, until)
        if composed is not None:
            return composed
        caller = self._caller(delegate)
        with Elsewhere():
            return await self._guard.run(delegate.name, request.device.service_tag,
                                         lambda: caller.obtain(request, delegate, until))

    async def notify(self, deployment: Deployment, delegate: Delegate) -> None:
        """Tell the delegate how provisioning ended, where there is one to tell: a call that does nothing would be a
        success to the breaker."""
        if delegate.callback.hears:
            caller = self._caller(delegate)
            await self._guard.run(delegate.name, deployment.claim_id, lambda: caller.notify(deployment, delegate))

    def _caller(self, delegate: Delegate) -> Caller:
        caller = self._callers.get(delegate.way)
        if caller is None:
            raise DelegatorError(Kind.UNREACHABLE, f"callback {delegate.way.value} is not available here",
                                 hint="install the extra that brings it, see docs/operators.md")
        return caller

    def use(self, callers: Mapping[CallbackWay, Caller], limits: Limits) -> None:
        """Call in other ways from the next call on. Who made the old callers closes them once nobody uses them."""
        self._callers = callers
        self._guard.use(limits)

    def close(self) -> None:
        for caller in self._callers.values():
            caller.close()
