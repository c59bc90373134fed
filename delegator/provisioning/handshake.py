"""The use case: identify, route, decide, claim, call back, record, answer. Blocks 212 to 216 in reading order.

Reads top to bottom like the patent's figure. Every refusal is a DelegatorError whose kind is all a device learns;
its reasons stay in the trail.
The invariants: identity comes before any look-up; `asking` is durable before a delegate is called and `issued`
before anything is answered; one claim has one answer.
Must not live here: bytes, sockets, SQL, faults.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from delegator.callbacks import Callbacks
from delegator.clockwork.clocks import STOOD
from delegator.errors import DelegatorError, Kind
from delegator.identity import binding, common_name, identify
from delegator.model import (
    AddressChange,
    Answer,
    Claim,
    Confirmation,
    Credential,
    CredentialRequest,
    Delegate,
    DelegateAddress,
    DelegateRequest,
    Identity,
    IdentityKind,
    PeerCertificate,
    Secret,
    Telling,
)
from delegator.model.enrolled import Contest
from delegator.net.reverse import Domains
from delegator.policy import Decision
from delegator.provisioning.certifying import Enroller
from delegator.provisioning.judgement import Judgement, delegate_of, judge, lent_until, mark, refusal, stand_in
from delegator.provisioning.shared_door import SharedDoor, contest, veiled
from delegator.routing import Facts, Route
from delegator.store import Answered, Ask, Opened, Outcome, OverLimit, Store, Tables, milliseconds
from delegator.store.footing import no_ask
from delegator.store.moments import moment
from delegator.trail import CALLBACK_FAILED, Step, Trail

log = logging.getLogger(__name__)


class Peer(msgspec.Struct, frozen=True):
    """Who is at the other end of the connection."""

    address: str
    certificate: PeerCertificate | None


class Own(msgspec.Struct, frozen=True):
    """What a delegator knows of itself."""

    busy_for: float
    """Seconds that one callback may take."""
    factory_anchor: str
    """Whom a device trusts at a delegate that has no anchor of its own, as PEM."""
    name: str = "localhost"
    """This delegator's, in what administrators are told."""
    alternates: tuple[str, ...] = ()
    """Other delegators that serve the same devices: every answer names them."""
    since: Callable[[], int] = lambda: 0
    """In milliseconds: what began before is not over yet, see clocks."""


class Heard(msgspec.Struct, frozen=True):
    """Who hears what came of a handshake. Each is called in passing and must not wait for anything."""

    confirmed: Callable[[], None] = lambda: None
    """There is something to tell delegates, see telling."""
    issued: Callable[[], None] = lambda: None
    """There is something to tell administrators, see notify."""
    contested: Callable[[Contest], None] = lambda _: None
    """A second device asked for a tag that another one holds, see alarm."""


class Handshake:
    """The use case over a store and callbacks. `now` gives aware UTC; `domains` finds owners by reverse DNS, and
    `enroller` gives devices certificates of their own: each is None where the settings switch it off."""

    def __init__(self, store: Store, callbacks: Callbacks, now: Callable[[], datetime], own: Own, heard: Heard,
                 domains: Domains | None = None, enroller: Enroller | None = None) -> None:
        self._store = store
        self._since = own.since
        self._callbacks = callbacks
        self._now = now
        self._busy_for = timedelta(seconds=own.busy_for)
        self._factory_anchor = own.factory_anchor
        self._confirmed = heard.confirmed
        self._alternates = own.alternates
        self._name, self._issued = own.name, heard.issued
        self._domains = domains
        self._enroller, self._contested = enroller, heard.contested
        self._door = SharedDoor(store, domains, heard.contested)

    async def provision(self, request: CredentialRequest, peer: Peer, trail: Trail) -> Answer:
        """Answer one GetProvisioningCredential. Raises DelegatorError."""
        with self._store.request():
            return await self._provision(request, peer, trail)

    async def _provision(self, request: CredentialRequest, peer: Peer, trail: Trail) -> Answer:
        tag = request.device.service_tag
        trail.facts["tag"] = tag
        identity = identify(peer.certificate, tag, request.transaction_id)
        trail.facts["identity"] = identity.kind.value
        self._must_move(self._store.reads_beside)
        mark(trail, Step.IDENTIFIED, f"{tag}, by its {_CERTIFICATES[identity.kind]}")

        facts = Facts(request.device, request.location, peer.address)
        wanted, footing = None, None
        if identity.kind is IdentityKind.OWN:
            judgement = await self._judged(facts, identity, trail)
        else:  # a shared certificate: every refusal must look and cost the same (R-alike, ADR 11)
            self._must_move()
            wanted = None if self._enroller is None else self._enroller.wanted(request.certificate_request)
            judgement, footing = await self._door.passed(
                identity, facts, None if wanted is None else wanted.fingerprint, self._now(),
                lambda: self._judged(facts, identity, trail), lambda found: self._ask(identity, found, peer))

        opened, given = await self._claim(request, identity, judgement, peer, trail)
        claim = opened.claim
        if claim is None or opened.outcome not in _GOOD:
            raise self._obstacle(opened, identity, peer)
        if claim.customer != judgement.customer.name:
            raise DelegatorError(Kind.NOT_ENTITLED, f"claim {claim.claim_id} is of customer {claim.customer}",
                                 hint=f"delegator claims release {tag}")
        if opened.outcome in _TO_ASK:
            claim = await self._call_back(request, claim, judgement, peer, trail)
        mark(trail, Step.ISSUED, f"claim {claim.claim_id}, attempt {claim.attempt}")
        answer = self._answer(claim, judgement.tables, given)
        if footing is None or self._enroller is None:
            return answer
        certificate = await self._enroller.certificate(wanted, claim, footing.enrolled, judgement.policies)
        return replace(answer, handshake_certificate=certificate)

    def _must_move(self, may_read: bool = False) -> None:
        """Refuse at once while the store's line does not move: otherwise devices queue behind a commit until every one
        of them has timed out. With `may_read` let it pass, since a device that asks again for what it has is answered
        by reading; only a new claim would have to join the line. Raises DelegatorError (TRY_LATER)."""
        if not may_read and self._store.stalled:
            raise self._store.crowded()

    async def _judged(self, facts: Facts, identity: Identity, trail: Trail) -> Judgement:
        """Routed and allowed. Raises DelegatorError."""
        judgement = await judge(self._store, facts, identity.kind, self._now(), trail, self._domains)
        if not judgement.decision.allowed:
            raise refusal(judgement.decision)
        return judgement

    def _ask(self, identity: Identity, judgement: Judgement | None, peer: Peer, trail: Trail | None = None) -> Ask:
        """The request to the store. Where there is no judgement it names no customer and takes no place."""
        now = self._now()
        if judgement is None:
            return no_ask(identity, milliseconds(now), self._since())
        until = now + min(one.policy.lease for one in judgement.policies)
        return Ask(
            claim_id=_claim_id(now), identity=identity, customer=judgement.customer.name,
            delegate=judgement.route.delegate.name, peer=peer.address, now=milliseconds(now),
            busy_until=milliseconds(now + self._busy_for * (1 + len(judgement.route.others))),
            lease_until=milliseconds(until), unnamed=_unnamed(judgement.route),
            policies=judgement.policies, trail=None if trail is None else trail.as_kept,
            callback=judgement.route.delegate.way, since=self._since(), owned=_owned(judgement.route))

    async def _claim(self, request: CredentialRequest, identity: Identity, judgement: Judgement, peer: Peer,
                     trail: Trail) -> tuple[Opened, Credential | None]:
        """What became of the claim, and the credential where it was issued just now without asking anybody."""
        delegate, ask = judgement.route.delegate, self._ask(identity, judgement, peer, trail)
        credential = self._callbacks.at_hand(delegate, _indication(request, ask.claim_id, peer),
                                             moment(ask.lease_until))
        telling = self._telling(request, delegate)
        if credential is None:
            opened = await self._store.open_claim(ask)
        else:
            opened = await self._store.open_and_issue(ask, lambda _: _sealable(credential), telling)
        mark(trail, Step.CLAIMED, opened.outcome.value)
        if opened.outcome is not Outcome.ISSUED:
            return opened, None
        self._wake_for(telling)
        mark(trail, Step.CALLED_BACK, f"callback {delegate.way.value}, set here by the customer")
        return opened, credential

    async def _call_back(self, request: CredentialRequest, claim: Claim, judgement: Judgement, peer: Peer,
                         trail: Trail) -> Claim:
        """Ask the delegate, or who stands in for it, and make the answer durable."""
        failures: list[DelegatorError] = []
        passed: list[str] = []
        candidates = self._candidates(judgement.route)
        for delegate in (judgement.route.delegate, *judgement.route.others):
            if delegate not in candidates:
                passed.append(_passed(trail, delegate, f"delegate {delegate.name}: left alone after its failures"))
                continue
            within = None if delegate.name == claim.delegate else stand_in(
                delegate, judgement, self._now(), self._since())
            telling = self._telling(request, delegate)
            try:
                if within is not None:
                    await self._store.must_fit(claim.claim_id, within, self._now())
                credential = await self._callbacks.obtain(_indication(request, claim.claim_id, peer), delegate,
                                                          lent_until(claim, within))
            except DelegatorError as error:
                failures.append(error)
                passed.append(_passed(trail, delegate, error.detail, isinstance(error, OverLimit)))
                continue
            trail.facts["delegate"] = delegate.name  # who answered, where another was asked first
            mark(trail, Step.CALLED_BACK, f"callback {delegate.way.value} to {delegate.name}")
            try:
                issued = await self._store.issue(
                    claim.claim_id, _sealable(credential), self._now(),
                    Answered(delegate.name, delegate.way, telling, within, trail.as_kept))
            except OverLimit as error:  # another device was faster; what the delegate answered is not used
                failures.append(error)
                passed.append(_passed(trail, delegate, error.detail, ours=True))
                continue
            if issued is None:
                raise DelegatorError(Kind.TRY_LATER, f"claim {claim.claim_id} was ended while its delegate was asked")
            self._wake_for(telling)
            if passed:
                log.warning("delegate %s answered for device %s, as others gave nothing: %s", delegate.name,
                            claim.service_tag, "; ".join(passed))
            return issued
        await self._store.pause(claim.claim_id)
        reasons = tuple(f"{CALLBACK_FAILED}{error.detail}" for error in failures)
        raise DelegatorError(Kind.TRY_LATER, "; ".join(reasons), reasons=reasons,
                             retry_after=max(error.retry_after or 0 for error in failures) or None)

    def _telling(self, request: CredentialRequest, delegate: Delegate) -> Telling | None:
        """What its administrator is to be told, if there is one to be told."""
        told_by = delegate.callback.told_by
        return Telling(told_by, delegate.name, self._name, request.location.ip_address) if told_by else None

    def _wake_for(self, telling: Telling | None) -> None:
        if telling is not None:
            self._issued()

    def _candidates(self, route: Route) -> list[Delegate]:
        """The delegates to ask, in order. One that rests is asked only if all do: that costs no call, and says
        when to come again."""
        delegates = [route.delegate, *route.others]
        return [one for one in delegates if not self._callbacks.is_resting(one)] or delegates[:1]

    def _answer(self, claim: Claim, tables: Tables, given: Credential | None) -> Answer:
        delegate = delegate_of(claim.delegate, tables, self._domains)
        return Answer(given or _credential(self._store.reveal(claim)), claim.claim_id,
                      None if delegate is None else self._address(delegate), alternate_delegators=self._alternates)

    def _address(self, delegate: Delegate) -> DelegateAddress | None:
        """Where the device goes next, and whom it shall trust there."""
        url = delegate.url or delegate.callback.next_url
        anchor = delegate.trust_anchor or delegate.callback.next_anchor
        return None if url is None else DelegateAddress(url, anchor or self._factory_anchor)

    def _obstacle(self, opened: Opened, identity: Identity, peer: Peer) -> DelegatorError:
        """Why a claim could not be had, as an error."""
        if opened.outcome is Outcome.OVER_LIMIT:
            over = refusal(Decision(opened.reasons))
            return over if identity.kind is IdentityKind.OWN else veiled(over)
        assert opened.claim is not None
        if opened.outcome is Outcome.TAKEN:
            self._contested(contest(opened.claim, identity, peer.address, self._now()))
        return DelegatorError(OBSTACLES[opened.outcome],
                              f"claim {opened.claim.claim_id} of {opened.claim.service_tag}: {opened.outcome.value}",
                              retry_after=self._again(opened.outcome))

    def _again(self, outcome: Outcome) -> int | None:
        """When to come again, in seconds."""
        return {Outcome.BUSY: max(1, round(self._busy_for.total_seconds())), Outcome.UNSURE: round(STOOD)}.get(outcome)

    async def confirm(self, confirmation: Confirmation, peer: Peer, trail: Trail) -> None:
        """Record how provisioning ended, wipe the credential, have the delegate told. Repeating it is harmless.
        Raises DelegatorError (NOT_ENTITLED) for a claim that is not this device's."""
        whose = binding(peer.certificate, confirmation.transaction_id)
        with self._store.request():
            self._must_move()
            claim = await self._store.confirm(confirmation.claim_id, whose, confirmation.result, confirmation.detail,
                                              self._now(), peer.address, trail.as_kept)
        if claim is None:
            raise DelegatorError(Kind.NOT_ENTITLED, f"claim {confirmation.claim_id} is not open for this device")
        trail.facts |= {"tag": claim.service_tag, "customer": claim.customer, "delegate": claim.delegate,
                        "identity": claim.identity.value}
        mark(trail, Step.CONFIRMED, f"{claim.service_tag}: {confirmation.result.value}")
        if claim.is_heard_of:
            self._confirmed()

    async def note_address(self, change: AddressChange, peer: Peer, trail: Trail) -> None:
        """A service processor tells its new address: identity as for any call, then a line in the trail. Only an
        own certificate may say it: a shared one proves no tag. Raises DelegatorError (IDENTITY)."""
        tag = change.device.service_tag
        if common_name(peer.certificate) != tag:
            raise DelegatorError(Kind.IDENTITY, f"an address change of {tag} needs its own certificate")
        trail.facts |= {"tag": tag, "identity": IdentityKind.OWN.value, "new_address": change.new_address,
                        "old_address": change.old_address or ""}
        mark(trail, Step.IDENTIFIED, f"{tag} is at {change.new_address} now")


class _Sealed(msgspec.Struct, frozen=True):
    """What is sealed for a claim: the credential as JSON."""

    user_name: str
    password: str
    not_after: datetime | None = None


_CERTIFICATES = {IdentityKind.OWN: "own handshake certificate", IdentityKind.SHARED: "shared certificate"}
_TO_ASK = (Outcome.OPENED, Outcome.RESUMED)
_GOOD = (*_TO_ASK, Outcome.ISSUED, Outcome.SAME_AGAIN)
OBSTACLES = {Outcome.BUSY: Kind.TRY_LATER, Outcome.UNSURE: Kind.TRY_LATER,
             Outcome.TAKEN: Kind.NOT_ENTITLED, Outcome.DONE: Kind.NOT_ENTITLED}


def _passed(trail: Trail, delegate: Delegate, why: str, ours: bool = False) -> str:
    """A delegate gave nothing, for this reason: so it stands in the trail. A limit of ours is no failure of its own."""
    mark(trail, Step.PASSED_OVER, why)
    if not ours:
        trail.unanswered.append(delegate.name)
    return why


def _unnamed(route: Route) -> int | None:
    """The registration that was found by serial number or MAC address alone: the first claim gives it its tag."""
    registration = route.registration
    return None if registration is None or registration.service_tag is not None else registration.device_id


def _owned(route: Route) -> int | None:
    """The registration that led to the customer: a claim is opened only while it still does."""
    return None if route.registration is None else route.registration.device_id


def _claim_id(now: datetime) -> str:
    """128 bits, the first 48 the time in milliseconds, so that new claims stand side by side in the store's index
    (a third less work for a commit of four, measured); 80 random bits are nothing to guess."""
    return f"{milliseconds(now) & 0xFFFFFFFFFFFF:012x}{secrets.token_hex(10)}"


def _credential(sealed: str) -> Credential:
    said = msgspec.json.decode(sealed, type=_Sealed)
    try:
        return Credential(said.user_name, Secret(said.password), said.not_after)
    except ValueError as error:
        raise DelegatorError(Kind.UNAVAILABLE, f"the credential that an older release issued is no good: {error}",
                             hint="make it free: delegator claims release TAG") from None


def _sealable(credential: Credential) -> str:
    return msgspec.json.encode(
        _Sealed(credential.user_name, credential.password.reveal(), credential.not_after)).decode()


def _indication(request: CredentialRequest, claim_id: str, peer: Peer) -> DelegateRequest:
    return DelegateRequest(claim_id, request.device, request.location, peer.address)
