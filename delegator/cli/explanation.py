"""Why a device is, or is not, given a credential: worked out with the very code that serves devices.

`handshake.judge` routes and decides, `over_limits` judges the counts, `refusal` says what a device is told. What is
left to do here is to look at the claim that stands, which the server does inside a transaction that changes things.
The invariant: explaining changes nothing, and its verdict is the one the server would give at that moment.
Must not live here: layout (explain), rules of any kind that a device is served by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from delegator.errors import DelegatorError, Kind
from delegator.handshake import OBSTACLES, Judgement, judge, refusal
from delegator.model import Claim, ClaimState, Device, IdentityKind, Location, Registration
from delegator.net.reverse import Domains
from delegator.policy import Decision, over_limits
from delegator.routing import Facts, registered
from delegator.store import Outcome, Store
from delegator.trail import Trail

_LIVE = (ClaimState.ASKING, ClaimState.ISSUED, ClaimState.CONFIRMED)
_EVERY = 2**31


@dataclass(frozen=True, slots=True)
class Question:
    """What if: this device, standing there, calling from that address, with such a certificate, at that time."""

    device: Device
    location: Location
    peer_address: str
    identity: IdentityKind
    at: datetime


@dataclass(frozen=True, slots=True)
class Counts:
    """What limits look at: places taken by holder, and this tag's claims that expired."""

    places: Mapping[str, int]
    attempts: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the device would be told: `error` as the server would raise it, with all reasons (kind, text), or None
    and what it is given."""

    error: DelegatorError | None
    given: str = ""
    reasons: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything there is to say. Without a judgement nobody is known to own the device."""

    question: Question
    registration: Registration | None
    judgement: Judgement | None
    counts: Counts
    claim: Claim | None
    verdict: Verdict


async def explain(store: Store, question: Question, domains: Domains | None = None) -> Explanation:
    """Answer a question, with a look-up in the DNS where the server would make one. Changes nothing."""
    facts = Facts(question.device, question.location, question.peer_address)
    history = await store.claims(service_tag=question.device.service_tag, most=_EVERY)
    standing = next((claim for claim in history if claim.state in _LIVE), None)
    attempts = sum(claim.state is ClaimState.EXPIRED for claim in history)
    owned = registered(question.device, (await store.find(question.device)).registrations)
    registration = None if owned is None else owned[0]
    try:
        judgement = await judge(store, facts, question.identity, question.at, Trail("explain", question.peer_address),
                                domains)
    except DelegatorError as error:
        return Explanation(question, registration, None, Counts({}, attempts), standing,
                           Verdict(error, reasons=(("no route", error.detail),)))
    counts = await _counts(store, judgement, standing, attempts, question.at)
    verdict = _verdict(judgement, counts, standing, question)
    return Explanation(question, registration, judgement, counts, standing, verdict)


def lapsed(claim: Claim, at: datetime) -> bool:
    """Over, although nobody has written that down yet: the next request will."""
    return claim.state in (ClaimState.ASKING, ClaimState.ISSUED) and claim.lease_until <= at


async def _counts(store: Store, judgement: Judgement, standing: Claim | None, attempts: int, at: datetime) -> Counts:
    """As they will be when the server judges them: claims whose lease is over give their places back first."""
    customer, delegate = judgement.customer.name, judgement.route.delegate.name
    places = Counter(await store.taken(customer, delegate))
    attempts += standing is not None and lapsed(standing, at)
    if over_limits(judgement.policies, places, attempts):
        for claim in await store.claims(customer=customer, most=_EVERY):
            if lapsed(claim, at):
                places.subtract((f"customer/{claim.customer}", f"delegate/{claim.delegate}"))
    return Counts(places, attempts)


def _verdict(judgement: Judgement, counts: Counts, standing: Claim | None, question: Question) -> Verdict:
    if not judgement.decision.allowed:
        return _refused(judgement.decision)
    if standing is not None and not lapsed(standing, question.at):
        return _standing(standing, judgement, question)
    reasons = over_limits(judgement.policies, counts.places, counts.attempts)
    if reasons:
        return _refused(Decision(reasons))
    delegate = judgement.route.delegate
    return Verdict(None, f"a new credential of delegate {delegate.name}, by callback {delegate.kind.value}")


def _refused(decision: Decision) -> Verdict:
    return Verdict(refusal(decision), reasons=tuple((reason.why.value, reason.text) for reason in decision.reasons))


def _standing(claim: Claim, judgement: Judgement, question: Question) -> Verdict:
    """A claim stands in the way of everybody but the device that opened it."""
    said = f"claim {claim.claim_id} of {claim.service_tag}"
    release = f"if it is back in stock: delegator claims release {claim.service_tag}"
    if claim.identity is not question.identity:
        kind, detail = OBSTACLES[Outcome.TAKEN], f"{said} was opened with a {claim.identity.value} certificate"
    elif claim.state is ClaimState.CONFIRMED:
        kind, detail = OBSTACLES[Outcome.DONE], f"{said}: {Outcome.DONE.value}"
    elif claim.customer != judgement.customer.name:
        kind, detail = Kind.NOT_ENTITLED, f"{said} is of customer {claim.customer}"
    else:
        return Verdict(None, _AGAIN[claim.state])
    return Verdict(DelegatorError(kind, detail, hint=release), reasons=(("claim", detail),))


_AGAIN = {
    ClaimState.ISSUED: "the same credential again, if it is the device that opened the claim; any other is refused",
    ClaimState.ASKING: "its credential once the delegate has answered, TryLater until then, if it is the device that "
                       "opened the claim; any other is refused",
}
