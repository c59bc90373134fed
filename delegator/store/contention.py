"""What claims contend for: holders, customers and delegates, of which a policy lets only so many devices be served.

Must not live here: what a policy says (delegator.policy), how holders are counted (claims, paces).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

from delegator.policy import Reason
from delegator.store.holders import taken_by
from delegator.store.transaction import Counted

Limits = Callable[[dict[str, int], int], tuple[Reason, ...]]
"""Says, from places taken by holder and attempts, why no further claim, or ()."""


def contended(holders: Sequence[str], limits: Limits) -> Iterator[Counted]:
    """The holders whose places these limits look at, found by calling the limits with an impossible count and seeing
    who objects."""
    for holder in holders:
        if limits({holder: sys.maxsize}, 0):
            yield Counted(holder, taken_by(holder),
                          lambda taken, holder=holder: bool(limits({holder: taken}, 0)))  # type: ignore[misc]
