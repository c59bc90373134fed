"""A delegate that answers in another's place: the claim moves to it within its own policy, or not at all.

A claim is opened within the limits of the delegate it is routed to. Who stands in has limits of its own; they are
looked at before it is asked, and judged where the claim takes its place there, in the transaction that issues it.
The invariant: a delegate never has more claims than its own policy allows, whichever way they came.
Must not live here: who stands in for whom (routing), the life of a claim (store.claims).
"""

from __future__ import annotations

import msgspec

from delegator.errors import DelegatorError, Kind
from delegator.policy import Applied, Reason, over_limits, paced
from delegator.store import holders, paces
from delegator.store.claims import expire_lapsed
from delegator.store.contention import contended
from delegator.store.indexed import PAST
from delegator.store.transaction import Counted, Query, Transaction, Twin


class StandIn(msgspec.Struct, frozen=True):
    """The delegate, its own policies, and until when (ms) it lends by them."""

    delegate: str
    policies: tuple[Applied, ...]
    lease_until: int
    since: int = 0
    """As that of an Ask."""

    @property
    def holder(self) -> str:
        return f"delegate/{self.delegate}"

    def scope(self) -> list[str | Counted]:
        """Holders of which only so many may be served, see Ask.scope."""
        return contended(self.policies)


class OverLimit(DelegatorError):
    """The stand-in may not take the claim; raised so that the driver takes the transaction back."""


def must_fit(claim_id: str, stand_in: StandIn, now: int) -> Transaction[None]:
    """Whether the stand-in may take an asking claim, as of now. Raises OverLimit."""
    rows = yield Query("SELECT service_tag, customer FROM claims WHERE claim_id = $1 AND state = 'asking' "
                       "AND delegate <> $2", (claim_id, stand_in.delegate))
    if rows:
        yield from _must_fit(stand_in, str(rows[0][0]), str(rows[0][1]), now)


def take_over(claim_id: str, stand_in: StandIn, now: int) -> Transaction[None]:
    """Judge, and count by the hour there and no longer here; the claim's own row and place move when it is issued.
    Raises OverLimit."""
    rows = yield Query("SELECT service_tag, customer, delegate, asked_at FROM claims WHERE claim_id = $1 "
                       "AND state = 'asking' AND delegate <> $2", (claim_id, stand_in.delegate))
    if not rows:
        return
    tag, customer, before, asked_at = rows[0]
    yield from _must_fit(stand_in, str(tag), str(customer), now)
    yield from paces.take_back(f"delegate/{before!s}", int(str(asked_at)))
    yield from paces.note(paced(stand_in.policies), now)
    yield Query("UPDATE claims SET lease_until = $2 WHERE claim_id = $1 AND lease_until > $2",
                (claim_id, stand_in.lease_until))


def _must_fit(stand_in: StandIn, tag: str, customer: str, now: int) -> Transaction[None]:
    """Before a refusal, claims whose lease is over give their places back."""
    reasons = yield from _obstacles(stand_in, tag, now)
    if reasons and (yield from expire_lapsed(now, customer, since=stand_in.since)):
        reasons = yield from _obstacles(stand_in, tag, now)
    if reasons:
        texts = tuple(map(str, reasons))
        later = [reason.retry_after for reason in reasons if reason.retry_after is not None]
        raise OverLimit(Kind.TRY_LATER, f"delegate {stand_in.delegate} may not stand in: {'; '.join(texts)}",
                        reasons=texts, retry_after=max(later, default=None))


_COUNTS, _COUNTS_OF_LANES = holders.beside(
    f"(SELECT count(*) FROM claims WHERE service_tag = $1 AND {PAST} AND state = 'expired')", 2)


def _obstacles(stand_in: StandIn, tag: str, now: int) -> Transaction[tuple[Reason, ...]]:
    rows = yield Twin(_COUNTS, (tag, stand_in.holder), _COUNTS_OF_LANES)
    attempts, taken = (int(str(value or 0)) for value in rows[0])
    reasons = over_limits(stand_in.policies, {stand_in.holder: taken}, attempts)
    return reasons + (yield from paces.obstacles(stand_in.policies, now))
