"""Callbacks: one verb, `obtain(request, delegate) -> Credential`, however a delegate is reached. Block 215.

The invariant: a failure of a delegate is an UNREACHABLE of that delegate and of nobody else.
Must not live here: claims, policy, what the device is told.
"""

from __future__ import annotations

from datetime import datetime

from delegator.callbacks import hosted
from delegator.callbacks.soap import SoapCaller
from delegator.model import Credential, Delegate, DelegateRequest, Deployment, HostedCallback

__all__ = ["Callbacks", "SoapCaller"]


class Callbacks:
    """Every way to reach a delegate, behind one verb."""

    def __init__(self, soap: SoapCaller) -> None:
        self._soap = soap

    def at_hand(self, delegate: Delegate, request: DelegateRequest, until: datetime) -> Credential | None:
        """The credential when it needs nobody else, so that its claim can be opened and issued in one commit."""
        if isinstance(delegate.callback, HostedCallback):
            return hosted.compose(request, delegate.callback, until)
        return None

    async def obtain(self, request: DelegateRequest, delegate: Delegate, until: datetime) -> Credential:
        """The delegate's credential for a claim; `until` bounds what we compose ourselves. Raises DelegatorError
        (UNREACHABLE) for anything that goes wrong at the delegate."""
        return (self.at_hand(delegate, request, until)
                or await self._soap.obtain(request, delegate))

    async def notify(self, deployment: Deployment, delegate: Delegate) -> None:
        """Tell the delegate how provisioning ended, where there is one to tell."""
        if not isinstance(delegate.callback, HostedCallback):
            await self._soap.notify(deployment, delegate)

    def close(self) -> None:
        self._soap.close()
