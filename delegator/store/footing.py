"""What stands between a shared certificate and a claim, found by reading alone. No driver.

Whoever shows a shared certificate must not learn from the time an answer takes whether a tag is registered, claimed or
over a limit. So for every such request the same statements are run, whatever they find and whatever was already
decided, and nothing is written before all of them are content. The claim's own transaction then judges anew.
The invariant: no statement here changes anything.
Must not live here: what follows from it (provisioning.shared_door), limits (store.claims).
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from delegator.model import Claim, Identity
from delegator.model.enrolled import Enrolled
from delegator.policy import Reason
from delegator.store import claims, enrolled, indexed
from delegator.store.claims import Ask, claim_of
from delegator.store.transaction import Query, Transaction

T = TypeVar("T")


class Footing(msgspec.Struct, frozen=True):
    """The live claim of a tag (None where its lease is over), its standing enrolment, what limits say."""

    claim: Claim | None
    enrolled: Enrolled | None
    reasons: tuple[Reason, ...]


def no_ask(identity: Identity, now: int, since: int = 0) -> Ask:
    """The ask in place of one for a request that was refused earlier, so that the same statements are run for it."""
    return Ask(claim_id="", identity=identity, customer="", delegate="", peer="", now=now, busy_until=now,
               lease_until=now, since=since)


def footing_of(ask: Ask) -> Transaction[Footing]:
    """Everything that the claim's transaction will look at."""
    tag = ask.identity.service_tag
    rows = yield Query(f"SELECT {claims.COLUMNS} FROM claims WHERE service_tag = $1 AND {indexed.LIVE}", (tag,))
    live = claim_of(rows[0]) if rows else None
    if live is not None and claims.lapsed(live, ask):
        live = None
    standing = yield from enrolled.standing(tag)
    _, reasons, _ = yield from claims.obstacles(ask, make_room=False)  # housekeeping makes room every few seconds
    if live is not None:  # a claim that stands has its place; limits are for a new one
        reasons = ()
    return Footing(live, standing, reasons)


