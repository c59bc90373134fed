"""Counts and claims as they stand, read for those who only look: `explain`, and what a changed policy would do.

The invariant: nothing here changes anything, or decides anything: what counts is judged in a claim's transaction.
Must not live here: what follows from a count (policy), layout (cli).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from delegator.model import Claim
from delegator.policy import Pace
from delegator.store.claims import COLUMNS, claim_of
from delegator.store.fleet import View
from delegator.store.holders import ALL
from delegator.store.indexed import LIVE, PAST
from delegator.store.moments import milliseconds
from delegator.store.paces import pace_of, window
from delegator.store.transaction import Query, Row

AT_A_TIME = 500
"""Tags in one statement: its text is always the same, so a driver prepares it once."""
_TAGS = ", ".join(f"${place}" for place in range(1, AT_A_TIME + 1))
_LIVE_OF = f"SELECT {COLUMNS} FROM claims WHERE service_tag IN ({_TAGS}) AND {LIVE}"
_EXPIRED_OF = (f"SELECT service_tag, count(*) FROM claims WHERE service_tag IN ({_TAGS}) AND {PAST} "
               "AND state = 'expired' GROUP BY service_tag")
_APPROVING = f"SELECT service_tag, policy FROM approvals WHERE service_tag IN ({_TAGS})"


class History(msgspec.Struct, frozen=True):
    """What is on record of a tag: its live claim, how many of its claims expired, whose lists hold it."""

    standing: Claim | None = None
    expired: int = 0
    approved: frozenset[str] = frozenset()


class Reading(Protocol):
    """What a driver must offer."""

    async def read(self, query: Query) -> list[Row]: ...


class Surveys:
    """Reads for onlookers, over a driver."""

    def __init__(self, driver: Reading) -> None:
        self._driver = driver

    async def places(self, at: datetime) -> dict[str, int]:
        """Devices that hold a claim, by holder, as a limit judged at that time would find them: without those whose
        lease is over, as far as claims end by themselves."""
        taken = {str(row[0]): int(str(row[1])) for row in await self._driver.read(ALL)}
        for row in await self._driver.read(Query(
                "SELECT customer, delegate, count(*) FROM claims WHERE state IN ('asking', 'issued') "
                "AND lease_until <= $1 GROUP BY customer, delegate", (milliseconds(at),))):
            for holder in (f"customer/{row[0]!s}", f"delegate/{row[1]!s}"):
                taken[holder] = taken.get(holder, 0) - int(str(row[2]))
        return taken

    async def paces(self, holders: Sequence[str], at: datetime) -> dict[str, Pace]:
        """What these holders' claims per hour look like at that time."""
        return {holder: pace_of(await self._driver.read(window(holder, milliseconds(at)))) for holder in holders}

    async def devices(self, customer: str | None = None) -> int:
        """How many devices are registered."""
        return await View(self._driver.read).count(customer)

    async def histories(self, tags: Sequence[str], *, with_lists: bool = True) -> dict[str, History]:
        """What is on record of each of AT_A_TIME tags at most; tags without any record are left out."""
        named = (*tags, *("" for _ in range(AT_A_TIME - len(tags))))
        live = {claim.service_tag: claim
                for claim in map(claim_of, await self._driver.read(Query(_LIVE_OF, named)))}
        expired = {str(row[0]): int(str(row[1])) for row in await self._driver.read(Query(_EXPIRED_OF, named))}
        approved: dict[str, set[str]] = {}
        for tag, policy in await self._driver.read(Query(_APPROVING, named)) if with_lists else ():
            approved.setdefault(str(tag), set()).add(str(policy))
        return {tag: History(live.get(tag), expired.get(tag, 0), frozenset(approved.get(tag, ())))
                for tag in {*live, *expired, *approved}}
