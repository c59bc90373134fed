"""A claim is issued, and what goes with that in the same commit: who stands in for whom, who is told.

The invariant: a crash leaves all of it or nothing, and a device that asks again adds nothing.
Must not live here: the life of a claim (claims), limits of a stand-in (stand_ins), how messages wait (outbox).
"""

from __future__ import annotations

import msgspec

from delegator.model import CallbackWay, Claim, Message, Notice, Telling
from delegator.store.claims import Ask, Opened, Outcome, Seal, Tell, issue, open_and_issue
from delegator.store.outbox import put
from delegator.store.stand_ins import StandIn, take_over
from delegator.store.transaction import Transaction


class Answered(msgspec.Struct, frozen=True):
    """Who answered for a claim, and what is kept with the answer: `delegate` (None: the one the claim was opened for)
    and the way it was called, who is to be told, its own limits where it stands in for another, the trail."""

    delegate: str | None = None
    callback: CallbackWay | None = None
    telling: Telling | None = None
    stand_in: StandIn | None = None
    trail: Tell | None = None


def open_issue_and_tell(ask: Ask, seal: Seal, telling: Telling | None) -> Transaction[Opened]:
    opened = yield from open_and_issue(ask, seal)
    if opened.outcome is Outcome.ISSUED and opened.claim is not None:
        yield from tell(opened.claim, telling)
    return opened


def issue_and_tell(claim_id: str, sealed: bytes, now: int, answered: Answered) -> Transaction[Claim | None]:
    """Raises OverLimit where the delegate stands in and may not."""
    if answered.stand_in is not None:
        yield from take_over(claim_id, answered.stand_in, now)
    claim = yield from issue(claim_id, sealed, now, answered.delegate, answered.trail, answered.callback)
    if claim is not None:
        yield from tell(claim, answered.telling)
    return claim


def tell(claim: Claim, telling: Telling | None) -> Transaction[None]:
    """Note what is to be told of a claim that was just issued: once for each claim and carrier."""
    if telling is None:
        return
    body = {"service_tag": claim.service_tag, "peer": claim.peer, "claimed_address": telling.claimed_address,
            "delegator": telling.delegator}
    for kind in telling.kinds:
        yield from put(Message(f"{claim.claim_id}.provisioned.{kind.value}", Notice.PROVISIONED.value, telling.delegate,
                               kind, claim.claim_id, body, claim.issued_at or claim.asked_at, claim.customer))
