"""Callback `soap`: the customer's own server, over mutually authenticated TLS.

It must show a certificate for its host name, from the anchors registered for it (or the factory's); we show ours.
The claim id is the idempotency key: asking again after a crash or a lost answer brings the same credential.
The invariant: whatever the delegate sends costs this call at most, never more than its budget.
Must not live here: element names (wire.messages), retries over time (the device asks again).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from delegator.callbacks.calling import Needs
from delegator.errors import DelegatorError, Kind
from delegator.model import Credential, Delegate, DelegateRequest, Deployment, SoapCallback
from delegator.net.client import Endpoint, call, close
from delegator.outbound import Outbound
from delegator.wire import messages, soap
from delegator.wire.tls import TlsContext, calling
from pki import pem
from pki.pair import Pair
from pki.said import said
from pki.trust import TrustStore

_CONTENT_TYPE = b"text/xml; charset=utf-8"
_LONGEST_CODE = 64
MOST_ENDPOINTS = 1000
"""Kept at once: reverse DNS can lead to any number of domains. What is let go of is made anew."""


_STATUS = {
    401: "it does not let us in; it wants a password, where [callbacks] certificate is all that is shown",
    403: "it does not let us in; is the name in [callbacks] certificate the one that it expects?",
    404: "there is nothing at that path; see --soap HOST:PORT/path",
    405: "it takes no POST at that path; see --soap HOST:PORT/path",
    429: "it is asked too often",
    502: "its proxy cannot reach the server behind it", 503: "it is there and cannot now",
    504: "its proxy cannot reach the server behind it"}
_CLASSES = {3: "it sends us elsewhere, where a delegate is never followed", 4: "it does not take the request",
            5: "it failed by itself; see its own log"}


def status_words(status: int) -> str:
    """What a status says where no SOAP comes with it."""
    why = _STATUS.get(status) or _CLASSES.get(status // 100)
    return f"HTTP {status}" + (f": {why}" if why else "")


class SoapCaller:
    """Calls delegates' servers. Keeps one endpoint, with its context and connections, per delegate."""

    def __init__(self, shows: Pair | DelegatorError, factory: TrustStore, now: Callable[[], datetime],
                 budget: float, outbound: Outbound) -> None:
        """`shows` is what we show to delegates, or what is wrong with it, which is told at each call; `budget` is
        seconds per call, all included."""
        self._outbound = outbound
        self._shows = shows
        self._factory = factory
        self._now = now
        self._budget = budget
        self._endpoints: dict[str, tuple[SoapCallback, Endpoint]] = {}

    async def obtain(self, request: DelegateRequest, delegate: Delegate, until: datetime) -> Credential:
        """Ask a delegate for a credential. Raises DelegatorError: NOT_ENTITLED for a fault, which is an answer,
        UNREACHABLE for anything else that is no credential."""
        answer = await self._call(delegate, request)
        if not isinstance(answer, Credential):
            raise DelegatorError(Kind.UNREACHABLE, f"delegate {delegate.name} answered {type(answer).__name__}")
        return answer

    async def notify(self, deployment: Deployment, delegate: Delegate) -> None:
        """Tell a delegate how provisioning ended. Raises DelegatorError (UNREACHABLE)."""
        await self._call(delegate, deployment)

    async def reach(self, delegate: Delegate) -> str:
        """Whether it is there, shows the certificate that it must and takes ours, in words; it is asked for nothing but
        a page. Raises DelegatorError as `obtain` does."""
        assert isinstance(delegate.callback, SoapCallback)
        response = await call(self._endpoint(delegate.name, delegate.callback), delegate.callback.path, {}, b"",
                              self._budget, "GET")
        said = f"; to a GET it answers {status_words(response.status)}" if response.status in (401, 403) else ""
        return f"it is there, its certificate is in order, and it took ours{said}"

    async def _call(self, delegate: Delegate, message: DelegateRequest | Deployment) -> object:
        assert isinstance(delegate.callback, SoapCallback)
        asked = messages.write(message)
        body = soap.render(soap.Version.V11, asked)
        headers = {b"Content-Type": _CONTENT_TYPE, b"SOAPAction": messages.action(asked).encode()}
        response = await call(self._endpoint(delegate.name, delegate.callback), delegate.callback.path, headers, body,
                              self._budget)
        try:
            envelope = soap.parse(response.body)
            if envelope.fault is None:
                if response.status != 200:
                    raise DelegatorError(Kind.UNREACHABLE, "no fault, and no success")
                return messages.read_answer(asked, envelope.operation)
        except DelegatorError as error:
            if response.status != 200:  # a proxy's page, or none: that it is no SOAP is not what is wrong
                raise DelegatorError(Kind.UNREACHABLE, f"delegate {delegate.name}: {status_words(response.status)}"
                                     ) from None
            raise DelegatorError(Kind.UNREACHABLE,
                                 f"delegate {delegate.name}, HTTP {response.status}: {error.detail}") from None
        raise DelegatorError(Kind.NOT_ENTITLED,
                             f"delegate {delegate.name} says no: fault {said(envelope.fault.code, _LONGEST_CODE)}")

    def _endpoint(self, name: str, settings: SoapCallback) -> Endpoint:
        known = self._endpoints.get(name)
        if known is not None:
            if known[0] == settings:
                return known[1]
            close(known[1])
        elif len(self._endpoints) >= MOST_ENDPOINTS:
            close(self._endpoints.pop(next(iter(self._endpoints)))[1])
        endpoint = Endpoint(settings.host, settings.port, self._context(name, settings), settings.address,
                            self._outbound)
        self._endpoints[name] = settings, endpoint
        return endpoint

    def _context(self, name: str, settings: SoapCallback) -> TlsContext:
        if isinstance(self._shows, DelegatorError):
            raise DelegatorError(self._shows.kind, self._shows.detail, hint=self._shows.hint)
        trust = self._factory
        if settings.trust_anchor is not None:
            try:
                trust = TrustStore(pem.read(settings.trust_anchor.encode(), pem.CERTIFICATE, twice=True))
            except pem.PemFault as error:
                raise DelegatorError(Kind.UNREACHABLE, f"delegate {name}: its trust anchor: {error}",
                                     hint="give it anew with --callback-ca FILE") from None
        return calling(self._shows, trust, self._now)

    def close(self) -> None:
        for _, endpoint in self._endpoints.values():
            close(endpoint)


def caller(needs: Needs) -> SoapCaller:
    return SoapCaller(needs.shows(), needs.trust(), needs.now, needs.settings.budget, needs.outbound())


async def reach(delegate: Delegate, needs: Needs) -> str:
    """Raises DelegatorError as `obtain` does, CONFIGURATION for our own certificate."""
    soap = caller(needs)
    try:
        return await soap.reach(delegate)
    finally:
        soap.close()


def check(callback: SoapCallback) -> None:
    """Whether it is there is found when it is called."""


def remarks(callback: SoapCallback) -> tuple[str, ...]:
    return ()


def lacking() -> DelegatorError | None:
    return None
