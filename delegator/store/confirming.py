"""The device says how provisioning ended. The same statement notes whether its delegate has still to be told.

The invariants: a claim is confirmed once, by the device that it was given to, and saying it again changes nothing; a
delegate that cannot be told counts as told from the start, so that nobody tries later.
Must not live here: the other ends of a claim (claims), who is told when (notices, provisioning.telling).
"""

from __future__ import annotations

import hmac

from delegator.model import WAYS, Claim, ClaimState, IdentityKind, Result
from delegator.model.audited import By
from delegator.model.lifecycle import Event, as_set, as_where
from delegator.store import enrolled
from delegator.store.claims import COLUMNS, Tell, claim_of, note
from delegator.store.moments import moment
from delegator.store.transaction import Query, Transaction

_HEAR = ", ".join(f"'{way.value}'" for way, reached in WAYS.items() if reached.hears)
_TOLD = f"notified = CASE WHEN callback IS NULL OR callback IN ({_HEAR}) THEN 0 ELSE 1 END"
"""As Claim.is_heard_of says it."""
_ENDS = {Result.DEPLOYED: (Event.DEPLOYED, "sealed = NULL, ended_at = $2"),
         Result.FAILED: (Event.FAILED, "failed_at = $2")}


def confirm(claim_id: str, binding: str | None, result: Result, detail: str | None, now: int,
            peer: str | None = None, trail: Tell | None = None) -> Transaction[Claim | None]:
    """The device tells how provisioning ended. Deployed: issued -> confirmed, the credential is wiped. Failed:
    kept on record, the claim stays as it is for the next try. Repeating it changes nothing. None when there is no
    such claim for this binding."""
    rows = yield Query(f"SELECT {COLUMNS} FROM claims WHERE claim_id = $1", (claim_id,))
    claim = claim_of(rows[0]) if rows else None
    if claim is None or binding is None:
        return None
    if not hmac.compare_digest(claim.binding, binding) and not (yield from enrolled.pass_on(claim_id, binding, now)):
        return None
    if claim.state is ClaimState.CONFIRMED or (claim.result, claim.detail) == (result, detail):
        return claim
    event, change = _ENDS[result]
    rows = yield Query(
        f"UPDATE claims SET {as_set(event)}, {change}, result = $3, detail = $4, {_TOLD} WHERE claim_id = $1 "
        f"AND {as_where(event)} RETURNING {COLUMNS}", (claim_id, now, result.value, detail))
    if not rows:  # unless a concurrent duplicate confirmed it between our read and our update
        rows = yield Query(f"SELECT {COLUMNS} FROM claims WHERE claim_id = $1 AND state = 'confirmed'", (claim_id,))
        return claim_of(rows[0]) if rows else None
    claim = claim_of(rows[0])
    if claim.identity is IdentityKind.SHARED and result is Result.DEPLOYED:
        yield from enrolled.arrived(claim_id, now)
    said = {"result": result.value, "words": detail}
    yield from note(event, claim, moment(now), By("device", peer, detail=said), trail)
    return claim
