"""Which delegates have still to hear how provisioning ended.

The invariant: a result waits until its delegate was told that very result.
Must not live here: how they are told (callbacks), how a claim ends (store.claims).
"""

from __future__ import annotations

from delegator.model import Claim, Result
from delegator.store.claims import COLUMNS, claim_of
from delegator.store.transaction import Query, Transaction

_WAITING = "result IS NOT NULL AND notified = 0"
"""The words of the index `claims_to_notify`, which is by delegate and time."""
_NEXT = f"SELECT min(delegate) FROM claims WHERE {_WAITING} AND delegate > $1"
_OF_ONE = f"SELECT {COLUMNS} FROM claims WHERE {_WAITING} AND delegate = $1 ORDER BY asked_at LIMIT $2"


def unnotified(most: int = 20) -> Transaction[list[Claim]]:
    """Claims whose end the delegate has not been told, oldest first, at most `most` of each delegate: one that is
    down must not keep the others' from being seen. Only reads."""
    found: list[Claim] = []
    delegate = ""
    while True:
        ((following,),) = yield Query(_NEXT, (delegate,))
        if following is None:
            return found
        delegate = str(following)
        found += map(claim_of, (yield Query(_OF_ONE, (delegate, most))))


def notified(claim_id: str, result: Result) -> Transaction[None]:
    """The delegate was told this result. A newer one that came meanwhile is still to be told."""
    yield Query("UPDATE claims SET notified = 1 WHERE claim_id = $1 AND result = $2", (claim_id, result.value))
