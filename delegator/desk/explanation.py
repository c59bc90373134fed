"""Why a device is, or is not, given a credential: worked out with the very code that serves devices.

`judge` routes and decides, `over_limits` and `over_pace` judge the counts, `refusal` says what a device is told. What
is left to do here is to look at the claim that stands, which the server does inside a transaction that changes things.
The invariant: explaining changes nothing, and its verdict is the one the server would give at that moment.
Must not live here: layout (explain), rules of any kind that a device is served by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import msgspec

from delegator.errors import DelegatorError, Kind
from delegator.model import Claim, ClaimState, Device, IdentityKind, Location, Registration
from delegator.model.enrolled import Enrolled
from delegator.model.lifecycle import freeing
from delegator.model.owned import Board, Standing
from delegator.net.reverse import Domains
from delegator.policy import Decision, Pace, Reason, over_limits, over_pace, paced
from delegator.provisioning.handshake import OBSTACLES
from delegator.provisioning.judgement import Judgement, judge, refusal
from delegator.provisioning.shared_door import veiled
from delegator.routing import Facts, registered
from delegator.store import Outcome, Store
from delegator.store.boards import against
from delegator.store.surveys import History
from delegator.trail import Trail


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
    """What limits look at: places taken by holder, this tag's claims that expired, and by holder what was opened in
    the last hour, where a policy limits that."""

    places: Mapping[str, int]
    attempts: int
    paces: Mapping[str, Pace] = field(default_factory=dict)


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
    tag = question.device.service_tag
    history = (await store.surveys.histories((tag,), with_lists=False)).get(tag, History())
    attempts = expired(history, question.at)
    owned = registered(question.device, (await store.find(question.device, lists=False)).registrations)
    registration = None if owned is None else owned[0]
    try:
        judgement = await judge(store, facts, question.identity, question.at, Trail("explain", question.peer_address),
                                domains)
    except DelegatorError as error:
        return Explanation(question, registration, None, Counts({}, attempts), history.standing,
                           unrouted(error, question))
    counts = Counts(await store.surveys.places(question.at), attempts,
                    await store.surveys.paces(paced(judgement.policies), question.at))
    said = verdict(judgement, counts, history.standing, question)
    if history.standing is None or lapsed(history.standing, question.at):
        said = repaired(said, await store.ownership.boards(tag), question)
    enrolled = next((one for one in await store.enrolments.of_tag(tag) if one.forgotten_at is None), None)
    return Explanation(question, registration, judgement, counts, history.standing,
                       said if enrolled is None else _enrolled(said, enrolled, history.standing, question))


async def as_registered(store: Store, device: Device) -> Device:
    """A device that says what it is registered with, where the question does not say otherwise."""
    found = registered(device, (await store.find(device)).registrations)
    if found is None or found[0].service_tag is None:
        return device
    known = found[0]
    return msgspec.structs.replace(device, serial_number=device.serial_number or known.serial_number,
                                   mac_addresses=device.mac_addresses or known.mac_addresses,
                                   model=device.model or known.model)


def repaired(said: Verdict, known: list[Board], question: Question) -> Verdict:
    """What a main board that was replaced changes: keys are not part of the question, so it is said which may come."""
    expected = next((one for one in known if one.standing is not Standing.REFUSED), None)
    if not known or said.error is not None:
        return said
    if expected is not None and (over := against([expected], expected.binding, question.at)):
        hint = f"delegator devices repair {question.device.service_tag} --because TEXT"
        error = refusal(Decision(over))
        return Verdict(DelegatorError(error.kind, error.detail, hint=hint),
                       reasons=((over[0].why.value, error.detail),))
    which = "that is not of a board that was replaced" if expected is None or not expected.binding else (
        f"{expected.binding.removeprefix('key:')}, approved with its repair")
    return replace(said, given=f"{said.given}, if it comes with a key {which}")


def _enrolled(said: Verdict, enrolled: Enrolled, standing: Claim | None, question: Question) -> Verdict:
    """What a certificate that was issued here changes: the shared one is refused once it was used, or is wanted by
    another than whom it was issued to; its key may have what was claimed with the shared one."""
    tag = question.device.service_tag
    if question.identity is IdentityKind.OWN:
        passes = (standing is not None and standing.claim_id == enrolled.claim_id and enrolled.revoked_at is None
                  and standing.state is ClaimState.ISSUED and [why for why, _ in said.reasons] == ["claim"])
        return Verdict(None, f"the same credential again, if it shows certificate {enrolled.serial}, which came with "
                             "it; any other is refused") if passes else said
    if said.error is not None:
        return said
    detail = f"{tag} has a certificate of its own, serial {enrolled.serial}: the shared one is refused"
    if not enrolled.used and enrolled.revoked_at is None:
        return replace(said, given=f"{said.given}, if it is the device that certificate {enrolled.serial} was issued "
                                   "to; any other is refused")
    hint = f"if that is lost: delegator enrolments forget {tag}"
    return Verdict(DelegatorError(Kind.NOT_ENTITLED, detail, hint=hint), reasons=(("enrolled", detail),))


def expired(history: History, at: datetime) -> int:
    """The attempts of a tag, the one included that ends with the next request."""
    return history.expired + (history.standing is not None and lapsed(history.standing, at))


def unrouted(error: DelegatorError, question: Question) -> Verdict:
    """What a device is told that leads to nobody."""
    return _as_told(Verdict(error, reasons=(("no route", error.detail),)), question)


def _as_told(found: Verdict, question: Question) -> Verdict:
    """With a shared certificate every refusal is told as the same one."""
    if found.error is None or question.identity is not IdentityKind.SHARED:
        return found
    return replace(found, error=veiled(found.error))


def lapsed(claim: Claim, at: datetime) -> bool:
    """Over, although nobody has written that down yet: the next request will."""
    return claim.state in (ClaimState.ASKING, ClaimState.ISSUED) and claim.lease_until <= at


def verdict(judgement: Judgement, counts: Counts, standing: Claim | None, question: Question) -> Verdict:
    """What the server would answer, from everything it would look at, with the limits that are in the way too where
    the server would not come as far as them."""
    return _as_told(_found(judgement, counts, standing, question), question)


def _found(judgement: Judgement, counts: Counts, standing: Claim | None, question: Question) -> Verdict:
    holds = standing is not None and not lapsed(standing, question.at)
    over = () if holds else _over(judgement, counts, question.at)
    if not judgement.decision.allowed:
        return _refused(judgement.decision, over)
    if standing is not None and holds:
        return _standing(standing, judgement, question)
    if over:
        return _refused(Decision(over))
    delegate = judgement.route.delegate
    return Verdict(None, f"a new credential of delegate {delegate.name}, by callback {delegate.way.value}")


def _over(judgement: Judgement, counts: Counts, at: datetime) -> tuple[Reason, ...]:
    return (*over_limits(judgement.policies, counts.places, counts.attempts),
            *over_pace(judgement.policies, counts.paces, at))


def _refused(decision: Decision, more: tuple[Reason, ...] = ()) -> Verdict:
    return Verdict(refusal(decision),
                   reasons=tuple((reason.why.value, reason.text) for reason in (*decision.reasons, *more)))


def _standing(claim: Claim, judgement: Judgement, question: Question) -> Verdict:
    """A claim stands in the way of everybody but the device that opened it."""
    said = f"claim {claim.claim_id} of {claim.service_tag}"
    if claim.identity is not question.identity:
        kind, detail = OBSTACLES[Outcome.TAKEN], f"{said} was opened with a {claim.identity.value} certificate"
    elif claim.state is ClaimState.CONFIRMED:
        kind, detail = OBSTACLES[Outcome.DONE], f"{said}: {Outcome.DONE.value}"
    elif claim.customer != judgement.customer.name:
        kind, detail = Kind.NOT_ENTITLED, f"{said} is of customer {claim.customer}"
    else:
        return Verdict(None, _AGAIN[claim.state])
    return Verdict(DelegatorError(kind, detail, hint=freeing(claim.service_tag)), reasons=(("claim", detail),))


_AGAIN = {
    ClaimState.ISSUED: "the same credential again, if it is the device that opened the claim; any other is refused",
    ClaimState.ASKING: "its credential once the delegate has answered, TryLater until then, if it is the device that "
                       "opened the claim; any other is refused",
}
