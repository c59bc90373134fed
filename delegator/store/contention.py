"""What claims contend for: holders, customers and delegates, of which a policy lets only so many devices be served.

The invariant: a holder stands in a scope exactly where a policy that applies limits it.
Must not live here: what a policy says (delegator.policy), how holders are counted (claims, paces).
"""

from __future__ import annotations

from collections.abc import Sequence

from delegator.policy import Applied, capped, paced
from delegator.store.holders import taken_by
from delegator.store.transaction import Counted


def contended(policies: Sequence[Applied]) -> list[str | Counted]:
    """What a claim under these policies shares with others: holders with a number of devices, as long as that is far,
    and holders whose claims are counted by the hour."""
    return [*(_counted(holder, most) for holder, most in capped(policies)), *paced(policies)]


def _counted(holder: str, most: int) -> Counted:
    return Counted(holder, taken_by(holder), lambda taken: taken >= most)
