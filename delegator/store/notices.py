"""Which delegates have still to hear how provisioning ended.

The invariant: a result waits until its delegate was told that very result.
Must not live here: how they are told (callbacks), when (provisioning.telling), how a claim ends (store.confirming).
"""

from __future__ import annotations

from collections.abc import Sequence

from delegator.model import Claim
from delegator.store.claims import COLUMNS
from delegator.store.moments import milliseconds
from delegator.store.transaction import Query, Transaction

_WAITING = "result IS NOT NULL AND notified = 0"
"""The words of the index `claims_to_notify`, which is by delegate and time."""
_NEXT = f"SELECT min(delegate) FROM claims WHERE {_WAITING} AND delegate > $1"
_OF_ONE = (f"SELECT {COLUMNS} FROM claims WHERE {_WAITING} AND delegate = $1 AND (asked_at, claim_id) > ($2, $3) "
           "ORDER BY asked_at, claim_id LIMIT $4")


def unheard() -> Transaction[list[str]]:
    """Delegates that have something to hear, each looked up by itself: the backlog of one costs the others nothing.
    Only reads."""
    found: list[str] = []
    while True:
        ((following,),) = yield Query(_NEXT, (found[-1] if found else "",))
        if following is None:
            return found
        found.append(str(following))


def unnotified(delegate: str, after: Claim | None, most: int) -> Query:
    """Claims whose end the delegate has not been told, oldest first, those behind `after` alone."""
    begin = (-1, "") if after is None else (milliseconds(after.asked_at), after.claim_id)
    return Query(_OF_ONE, (delegate, *begin, most))


def notified(claims: Sequence[Claim]) -> Transaction[int]:
    """The delegate was told these very results; how many nobody else had noted before. A newer result that came
    meanwhile is still to be told."""
    noted = 0
    for claim in claims:
        assert claim.result is not None
        noted += len((yield Query("UPDATE claims SET notified = 1 WHERE claim_id = $1 AND result = $2 AND notified = 0 "
                                  "AND COALESCE(detail, '') = $3 RETURNING 1",
                                  (claim.claim_id, claim.result.value, claim.detail or ""))))
    return noted
