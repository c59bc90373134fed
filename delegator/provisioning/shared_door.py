"""The shared certificate: "one of ours", never which one. What it may have, and that it learns nothing. R-shared,
R-alike.

A thief may hold it and know every service tag. So whatever refuses such a request, the answer is the same to the
byte and the same work went before it: the same statements, all of them reads, the same questions to the DNS
(docs/adr/0011). What it may have are the rules' gifts alone, and once a tag has a certificate of its own, nothing.
The invariants: no refusal here depends on what is registered in anything a peer can see; a second claimant is noted.
Must not live here: rules (policy), claims (store), signing (certifying).
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

from delegator.errors import DelegatorError, HeldUp, Kind
from delegator.model import Claim, ClaimState, Identity
from delegator.model.enrolled import Contest
from delegator.model.lifecycle import freeing
from delegator.net.reverse import Domains
from delegator.routing import Facts, elsewhere
from delegator.store import Ask, Store
from delegator.store.footing import Footing

log = logging.getLogger(__name__)
J = TypeVar("J")
SOONEST = 0.005
"""Seconds from a request to its refusal at least. The statements are the same for every tag, but a row that is found
takes up to 200 µs more to read and to judge than one that is not (measured): this hides them, and costs nothing but
the patience of who is refused."""
_VEILED = (Kind.NOT_ENTITLED, Kind.IDENTITY, Kind.TRY_LATER, Kind.CONFIGURATION)
"""Kinds of refusal that can depend on the tag, and so must all look alike. Others may be told as they are: a store that
is down is down for every tag."""


def veiled(error: DelegatorError, alternates: tuple[str, ...] = ()) -> DelegatorError:
    """The one refusal there is for a shared certificate; reasons and hint are for the trail alone."""
    if error.kind is Kind.CONFIGURATION:
        log.error("%s; next: %s", error.detail, error.hint)
    if error.kind not in _VEILED:
        return error
    return DelegatorError(Kind.NOT_ENTITLED, error.detail, reasons=error.reasons, hint=error.hint,
                          alternates=alternates)


class SharedDoor:
    """Where requests with a shared certificate come through, or do not. `contested` hears of second claimants."""

    def __init__(self, store: Store, domains: Domains | None, contested: Callable[[Contest], None]) -> None:
        self._store = store
        self._domains = domains
        self._contested = contested

    async def passed(self, identity: Identity, facts: Facts, key: str | None, at: datetime,
                     judging: Callable[[], Awaitable[J]], ask_of: Callable[[J | None], Ask]) -> tuple[J, Footing]:
        """The judgement and the footing, if nothing stands in the way. `judging` works the judgement out; `ask_of`
        makes the request to the store from it, or from None where judging refused, so that the store is asked in
        either case. `key` is the key to be certified. Raises DelegatorError (NOT_ENTITLED), which looks the same for
        every cause."""
        judgement, refused, began = None, None, time.monotonic()
        try:
            judgement = await judging()
        except DelegatorError as error:
            if error.kind not in _VEILED or isinstance(error, HeldUp):
                raise
            refused = error
        ask = ask_of(judgement)
        footing = await self._store.footing(ask)
        second = contest_in(footing, identity, key, ask, facts.peer_address, at)
        if second is not None:
            self._contested(second)
        refused = refused or obstacle(footing, identity, key)
        if refused is None and judgement is not None:
            return judgement, footing
        assert refused is not None
        raise await self._the_same(refused, facts, began)

    async def _the_same(self, refused: DelegatorError, facts: Facts, began: float) -> DelegatorError:
        """The refusal after everything that any other refusal would have cost, and not sooner than any other."""
        if self._domains is not None:
            await self._domains.find(facts.peer_address)
        tables = await self._store.tables()
        told = veiled(refused, elsewhere(facts, tables.directory))
        await asyncio.sleep(max(0.0, SOONEST - (time.monotonic() - began)))
        return told


def obstacle(footing: Footing, identity: Identity, key: str | None) -> DelegatorError | None:
    """Why a request that the rules would allow is refused all the same, or None."""
    claim, standing, tag = footing.claim, footing.enrolled, identity.service_tag
    if claim is not None and not hmac.compare_digest(claim.binding, identity.binding):
        return _refused(f"claim {claim.claim_id} of {tag}: taken by another",
                        freeing(tag))
    if standing is not None and not standing.admits(identity.binding, key):
        return _refused(f"{tag} has a certificate of its own, serial {standing.serial}: the shared one is refused",
                        f"if that is lost: delegator enrolments forget {tag}")
    if claim is not None and claim.state is ClaimState.CONFIRMED:
        return _refused(f"claim {claim.claim_id} of {tag}: already confirmed", freeing(tag))
    texts = tuple(str(reason) for reason in footing.reasons)
    return DelegatorError(Kind.NOT_ENTITLED, "; ".join(texts), reasons=texts) if texts else None


def _refused(detail: str, hint: str) -> DelegatorError:
    return DelegatorError(Kind.NOT_ENTITLED, detail, hint=hint)


def contest(claim: Claim, identity: Identity, peer: str, at: datetime) -> Contest:
    """Somebody asks for what this claim holds."""
    return Contest(claim.service_tag, identity.kind, claim.claim_id, claim.customer, claim.delegate, peer, at)


def contest_in(footing: Footing, identity: Identity, key: str | None, ask: Ask, peer: str,
               at: datetime) -> Contest | None:
    """Whether somebody else holds the tag: by a claim that stands, or by a certificate it was given."""
    claim, standing = footing.claim, footing.enrolled
    if claim is not None and not hmac.compare_digest(claim.binding, identity.binding):
        return contest(claim, identity, peer, at)
    if standing is not None and not standing.is_of(identity.binding, key):
        return Contest(standing.service_tag, identity.kind, standing.claim_id, ask.customer or None,
                       ask.delegate or None, peer, at)
    return None
