"""The use case: identify, route, decide, claim, call back, record, answer. Blocks 212 to 216 in reading order.

Reads top to bottom like the patent's figure. Every refusal is a DelegatorError whose kind is all a device learns;
its reasons stay in the trail.
The invariants: identity comes before any look-up; `asking` is durable before a delegate is called and `issued`
before anything is answered; one claim has one answer.
Must not live here: bytes, sockets, SQL, faults.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec

from delegator.callbacks import Callbacks
from delegator.errors import DelegatorError, Kind
from delegator.identity import binding, common_name, identify
from delegator.model import (
    AddressChange,
    Answer,
    Claim,
    Confirmation,
    Credential,
    CredentialRequest,
    Customer,
    Delegate,
    DelegateAddress,
    DelegateRequest,
    Deployment,
    HostedCallback,
    Identity,
    IdentityKind,
    PeerCertificate,
    Result,
    Secret,
    SoapCallback,
    Telling,
)
from delegator.net.reverse import Domains
from delegator.policy import Applied, Case, Decision, Why, applied, decide, over_limits
from delegator.routing import Facts, NoRoute, Route, choose, registered
from delegator.store import Ask, Opened, Outcome, Store, Tables, milliseconds
from delegator.trail import Step, Trail

log = logging.getLogger(__name__)
_KIND_OF = {Why.IDENTITY: Kind.IDENTITY, Why.DEVICES_TAKEN: Kind.TRY_LATER}
"""What a device is told, by reason; any other reason is NOT_ENTITLED, and NOT_ENTITLED wins among several."""
LIMIT_RETRY = 300
"""Seconds until a device asks again when all places are taken: longer than its usual 90, nobody is in a hurry."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of the connection."""

    address: str
    certificate: PeerCertificate | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """Everything that was worked out about a device before a claim: shared by `provision` and `explain`."""

    tables: Tables
    route: Route
    customer: Customer
    policies: tuple[Applied, ...]
    decision: Decision


async def judge(store: Store, facts: Facts, identity: IdentityKind, at: datetime, trail: Trail,
                domains: Domains | None = None) -> Judgement:
    """Route and decide, without any effect. Raises DelegatorError: NOT_ENTITLED when nobody owns the device,
    TRY_LATER when only the DNS could have told, and did not."""
    tables, found = await store.tables(), await store.find(facts.device)
    route = choose(facts, found.registrations, tables.directory)
    if isinstance(route, NoRoute) and domains is not None and registered(facts.device, found.registrations) is None:
        route = await _by_domain(facts, route, domains, trail)
    if isinstance(route, NoRoute):
        raise DelegatorError(Kind.NOT_ENTITLED, f"{facts.device.service_tag}: {route.because}",
                             hint="register it with: delegator devices add", alternates=route.delegators)
    customer = _customer(route.delegate.customer, tables, domains)
    trail.facts |= {"customer": customer.name, "delegate": route.delegate.name}
    _mark(trail, Step.ROUTED, f"customer {customer.title}, delegate {route.delegate.name}, "
                                   f"because {route.because}")
    by_tag = route.registration is not None and route.registration.service_tag is not None
    case = Case(customer, route.delegate, identity, by_tag, found.approved, at, route.by_domain)
    policies = applied(customer, route.delegate, tables.policies)
    decision = decide(policies, case)
    if route.others:
        route = replace(route, others=tuple(other for other in route.others if decide(
            applied(customer, other, tables.policies), replace(case, delegate=other)).allowed))
    names = ", ".join(one.policy.name for one in policies)
    _mark(trail, Step.DECIDED, f"policy {names} " + ("allows it" if decision.allowed else "refuses"))
    return Judgement(tables, route, customer, policies, decision)


async def _by_domain(facts: Facts, route: NoRoute, domains: Domains, trail: Trail) -> Route | NoRoute:
    """For a device that nobody registered and no rule matches: whose domain it calls from."""
    finding = await domains.find(facts.peer_address)
    _mark(trail, Step.LOOKED_UP, finding.because)
    if finding.late:
        raise DelegatorError(Kind.TRY_LATER, f"{facts.device.service_tag}: {route.because}; {finding.because}")
    if finding.domain is None:
        return NoRoute(f"{route.because}; {finding.because}")
    return Route(domains.found(finding), finding.because, by_domain=True)


def _customer(name: str, tables: Tables, domains: Domains | None) -> Customer:
    """The customer of this name, registered or standing for a domain. Raises DelegatorError (CONFIGURATION)."""
    customer = None if domains is None else domains.customer(name)
    if customer is None:
        return tables.customers[name]
    if customer.policy is not None and customer.policy not in tables.policies:
        raise DelegatorError(Kind.CONFIGURATION, f"[domains] policy names {customer.policy}, which there is not",
                             hint=f"delegator policies add {customer.policy}")
    return customer


class Handshake:
    """The use case over a store and callbacks. `now` gives aware UTC; `busy_for` is seconds a callback may take;
    `confirmed` is called when there is something to tell delegates (see `notify_delegates`); `alternates` are other
    delegators that serve the same devices, told with every answer; `domains` finds owners by reverse DNS; `name` is
    this delegator's in what administrators are told, and `issued` is called when there is something to tell them."""

    def __init__(self, store: Store, callbacks: Callbacks, now: Callable[[], datetime], *, busy_for: float,
                 factory_anchor: str, confirmed: Callable[[], None], alternates: tuple[str, ...] = (),
                 domains: Domains | None = None,
                 name: str = "localhost", issued: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._callbacks = callbacks
        self._now = now
        self._busy_for = timedelta(seconds=busy_for)
        self._factory_anchor = factory_anchor
        self._confirmed = confirmed
        self._alternates = alternates
        self._name, self._issued = name, issued
        self._domains = domains

    async def provision(self, request: CredentialRequest, peer: Peer, trail: Trail) -> Answer:
        """Answer one GetProvisioningCredential. Raises DelegatorError."""
        tag = request.device.service_tag
        trail.facts["tag"] = tag
        identity = identify(peer.certificate, tag, request.transaction_id)
        trail.facts["identity"] = identity.kind.value
        _mark(trail, Step.IDENTIFIED, f"{tag}, by its {_CERTIFICATES[identity.kind]}")

        judgement = await judge(self._store, Facts(request.device, request.location, peer.address), identity.kind,
                                self._now(), trail, self._domains)
        if not judgement.decision.allowed:
            raise refusal(judgement.decision)

        opened = await self._claim(request, identity, judgement, peer, trail)
        claim = opened.claim
        if claim is None or opened.outcome not in _GOOD:
            raise self._obstacle(opened)
        if claim.customer != judgement.customer.name:
            raise DelegatorError(Kind.NOT_ENTITLED, f"claim {claim.claim_id} is of customer {claim.customer}",
                                 hint=f"delegator claims release {tag}")
        if opened.outcome in _TO_ASK:
            claim = await self._call_back(request, claim, judgement, peer, trail)
        _mark(trail, Step.ISSUED, f"claim {claim.claim_id}, attempt {claim.attempt}")
        return self._answer(claim, judgement.tables)

    async def _claim(self, request: CredentialRequest, identity: Identity, judgement: Judgement, peer: Peer,
                     trail: Trail) -> Opened:
        now, delegate = self._now(), judgement.route.delegate
        until = now + min(one.policy.lease for one in judgement.policies)
        ask = Ask(
            claim_id=_claim_id(now), identity=identity, customer=judgement.customer.name,
            delegate=delegate.name, peer=peer.address, now=milliseconds(now),
            busy_until=milliseconds(now + self._busy_for), lease_until=milliseconds(until),
            unnamed=_unnamed(judgement.route),
            limits=lambda places, attempts: over_limits(judgement.policies, places, attempts))
        credential = self._callbacks.at_hand(delegate, _indication(request, ask.claim_id, peer), until)
        telling = self._telling(request, delegate)
        if credential is None:
            opened = await self._store.open_claim(ask)
        else:
            opened = await self._store.open_and_issue(ask, lambda _: _sealable(credential), telling)
        _mark(trail, Step.CLAIMED, opened.outcome.value)
        if opened.outcome is Outcome.ISSUED:
            self._wake_for(telling)
            _mark(trail, Step.CALLED_BACK, f"callback {delegate.kind.value}, set here by the customer")
        return opened

    async def _call_back(self, request: CredentialRequest, claim: Claim, judgement: Judgement, peer: Peer,
                         trail: Trail) -> Claim:
        """Ask the delegate, or who stands in for it, and make the answer durable."""
        failures: list[DelegatorError] = []
        for delegate in self._candidates(judgement.route):
            try:
                credential = await self._callbacks.obtain(_indication(request, claim.claim_id, peer), delegate,
                                                          claim.lease_until)
            except DelegatorError as error:
                failures.append(error)
                continue
            _mark(trail, Step.CALLED_BACK, f"callback {delegate.kind.value} to {delegate.name}")
            telling = self._telling(request, delegate)
            issued = await self._store.issue(claim.claim_id, _sealable(credential), self._now(), delegate.name, telling)
            if issued is None:
                raise DelegatorError(Kind.TRY_LATER, f"claim {claim.claim_id} was ended while its delegate was asked")
            self._wake_for(telling)
            return issued
        await self._store.pause(claim.claim_id)
        reasons = tuple(f"callback failed: {error.detail}" for error in failures)
        raise DelegatorError(Kind.TRY_LATER, "; ".join(reasons), reasons=reasons,
                             retry_after=max(error.retry_after or 0 for error in failures) or None)

    def _telling(self, request: CredentialRequest, delegate: Delegate) -> Telling | None:
        """What its administrator is to be told: only of what is kept here, a delegate of its own knows already."""
        if not isinstance(delegate.callback, HostedCallback) or not delegate.callback.told_by:
            return None
        return Telling(delegate.callback.told_by, delegate.name, self._name, request.location.ip_address)

    def _wake_for(self, telling: Telling | None) -> None:
        if telling is not None:
            self._issued()

    def _candidates(self, route: Route) -> list[Delegate]:
        """The delegates to ask, in order. One that rests is asked only if all do: that costs no call, and says
        when to come again."""
        delegates = [route.delegate, *route.others]
        return [one for one in delegates if not self._callbacks.is_resting(one)] or delegates[:1]

    def _answer(self, claim: Claim, tables: Tables) -> Answer:
        credential = msgspec.json.decode(self._store.reveal(claim), type=_Sealed)
        delegate = self._delegate(claim.delegate, tables)
        return Answer(Credential(credential.user_name, Secret(credential.password), credential.not_after),
                      claim.claim_id, None if delegate is None else self._address(delegate),
                      alternate_delegators=self._alternates)

    def _delegate(self, name: str, tables: Tables) -> Delegate | None:
        """The delegate of this name, registered or standing for a domain."""
        by_domain = None if self._domains is None else self._domains.delegate(name)
        return by_domain or tables.directory.delegates.get(name)

    def _address(self, delegate: Delegate) -> DelegateAddress | None:
        """Where the device goes next, and whom it shall trust there."""
        callback, url, anchor = delegate.callback, delegate.url, delegate.trust_anchor
        if isinstance(callback, SoapCallback):
            url = url or f"https://{callback.host}:{callback.port}/provisioning"
            anchor = anchor or callback.trust_anchor
        return None if url is None else DelegateAddress(url, anchor or self._factory_anchor)

    def _obstacle(self, opened: Opened) -> DelegatorError:
        """Why a claim could not be had, as an error."""
        if opened.outcome is Outcome.OVER_LIMIT:
            return refusal(Decision(opened.reasons))
        assert opened.claim is not None
        return DelegatorError(OBSTACLES[opened.outcome],
                              f"claim {opened.claim.claim_id} of {opened.claim.service_tag}: {opened.outcome.value}",
                              retry_after=None if opened.outcome is not Outcome.BUSY else
                              max(1, round(self._busy_for.total_seconds())))

    async def confirm(self, confirmation: Confirmation, peer: Peer, trail: Trail) -> None:
        """Record how provisioning ended, wipe the credential, tell the delegate. Repeating it is harmless.
        Raises DelegatorError (NOT_ENTITLED) for a claim that is not this device's."""
        whose = binding(peer.certificate, confirmation.transaction_id)
        claim = await self._store.confirm(confirmation.claim_id, whose, confirmation.result, confirmation.detail,
                                          self._now())
        if claim is None:
            raise DelegatorError(Kind.NOT_ENTITLED, f"claim {confirmation.claim_id} is not open for this device")
        trail.facts |= {"tag": claim.service_tag, "customer": claim.customer, "delegate": claim.delegate,
                        "identity": claim.identity.value}
        _mark(trail, Step.CONFIRMED, f"{claim.service_tag}: {confirmation.result.value}")
        self._confirmed()

    async def note_address(self, change: AddressChange, peer: Peer, trail: Trail) -> None:
        """A service processor tells its new address: identity as for any call, then a line in the trail. Only an
        own certificate may say it: a shared one proves no tag. Raises DelegatorError (IDENTITY)."""
        tag = change.device.service_tag
        if common_name(peer.certificate) != tag:
            raise DelegatorError(Kind.IDENTITY, f"an address change of {tag} needs its own certificate")
        trail.facts |= {"tag": tag, "identity": IdentityKind.OWN.value, "new_address": change.new_address,
                        "old_address": change.old_address or ""}
        _mark(trail, Step.IDENTIFIED, f"{tag} is at {change.new_address} now")

    async def notify_delegates(self) -> None:
        """Tell delegates how provisioning ended where they have not heard yet. Each delegate on its own: one that
        cannot be reached is asked again at the next call, at least once, never lost, and holds up nobody."""
        waiting: dict[str, list[Claim]] = {}
        for claim in await self._store.unnotified():
            waiting.setdefault(claim.delegate, []).append(claim)
        if waiting:
            tables = await self._store.tables()
            await asyncio.gather(*(self._notify(self._delegate(name, tables), claims)
                                   for name, claims in waiting.items()))

    async def _notify(self, delegate: Delegate | None, claims: list[Claim]) -> None:
        for claim in claims:
            result = claim.result or Result.DEPLOYED
            try:
                if delegate is not None:
                    delegate = delegate if self._domains is None else await self._domains.reach(delegate)
                    await self._callbacks.notify(Deployment(claim.claim_id, result, claim.detail), delegate)
            except DelegatorError as error:
                log.warning("delegate %s was not told of claim %s: %s", claim.delegate, claim.claim_id, error.detail)
                return
            await self._store.notified(claim.claim_id, result)


def _mark(trail: Trail, step: Step, note: str) -> None:
    trail.mark(step, time.monotonic_ns(), note)


class _Sealed(msgspec.Struct):
    """What is sealed for a claim: the credential as JSON."""

    user_name: str
    password: str
    not_after: datetime | None = None


_CERTIFICATES = {IdentityKind.OWN: "own handshake certificate", IdentityKind.SHARED: "shared certificate"}
_TO_ASK = (Outcome.OPENED, Outcome.RESUMED)
_GOOD = (*_TO_ASK, Outcome.ISSUED, Outcome.SAME_AGAIN)
OBSTACLES = {Outcome.BUSY: Kind.TRY_LATER, Outcome.TAKEN: Kind.NOT_ENTITLED, Outcome.DONE: Kind.NOT_ENTITLED}


def _unnamed(route: Route) -> int | None:
    """The registration that was found by serial number or MAC address alone: the first claim gives it its tag."""
    registration = route.registration
    return None if registration is None or registration.service_tag is not None else registration.device_id


def _claim_id(now: datetime) -> str:
    """128 bits, the first 48 the time in milliseconds, so that new claims stand side by side in the store's index
    (a third less work for a commit of four, measured); 80 random bits are nothing to guess."""
    return f"{milliseconds(now) & 0xFFFFFFFFFFFF:012x}{secrets.token_hex(10)}"


def _sealable(credential: Credential) -> str:
    return msgspec.json.encode(
        _Sealed(credential.user_name, credential.password.reveal(), credential.not_after)).decode()


def _indication(request: CredentialRequest, claim_id: str, peer: Peer) -> DelegateRequest:
    return DelegateRequest(claim_id, request.device, request.location, peer.address)


def refusal(decision: Decision) -> DelegatorError:
    kinds = {_KIND_OF.get(reason.why, Kind.NOT_ENTITLED) for reason in decision.reasons}
    kind = next(kind for kind in (Kind.NOT_ENTITLED, Kind.IDENTITY, Kind.TRY_LATER) if kind in kinds)
    texts = tuple(str(reason) for reason in decision.reasons)
    return DelegatorError(kind, "; ".join(texts), reasons=texts,
                          retry_after=LIMIT_RETRY if kind is Kind.TRY_LATER else None)
