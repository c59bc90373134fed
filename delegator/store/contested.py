"""Who asked for a tag that another holds: noted once a day for each tag, and told to whoever owns it. Transactions.

It runs after the answer, in batches (see alarm), so a thief who asks a thousand times a second writes one row.
The invariants: for a tag, a day and a kind of identity there is one row, one row of audit and one notice at most; a
delegate is told of MOST_A_DAY tags a day at most, so that nobody can flood a mailbox.
Must not live here: who counts as a second claimant (provisioning.shared_door, provisioning.handshake), wording
(notify.words).
"""

from __future__ import annotations

from collections.abc import Sequence

from delegator.model import IdentityKind, Message, Notice, Telling
from delegator.model.audited import Act, Entry
from delegator.model.enrolled import Contest
from delegator.store.audit import ledger
from delegator.store.driver import Running
from delegator.store.filters import chosen
from delegator.store.moments import milliseconds, moment
from delegator.store.outbox import DAY, put, told_since
from delegator.store.transaction import Query, Row, Transaction

KEPT = 90
"""Days that it can be seen who asked; the audit keeps it for longer."""
MOST_A_DAY = 20
"""Notices a delegate's administrator gets in a day: enough to be alarmed, and to read."""


def note(contests: Sequence[tuple[Contest, Telling | None]], forget: bool = True) -> Transaction[list[Contest]]:
    """Count them, and tell of those that are the first of their day, which are returned. What is older than KEPT goes,
    where `forget` says that their time can be believed."""
    new = []
    for contest, telling in contests:
        if (yield from _count(contest)):
            new.append(contest)
            yield from _note(contest)
            yield from _tell(contest, telling)
    if new and forget:
        yield Query("DELETE FROM contested WHERE day < $1", (_day(new[0]) - KEPT,))
    return new


def _day(contest: Contest) -> int:
    return milliseconds(contest.at) // DAY


def _count(contest: Contest) -> Transaction[bool]:
    """Whether it is the first of its day."""
    at = milliseconds(contest.at)
    rows = yield Query(
        "INSERT INTO contested (service_tag, day, identity, claim_id, customer, delegate, peer, times, first_at, "
        "last_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9) ON CONFLICT (service_tag, day, identity) DO UPDATE "
        "SET times = contested.times + $8, last_at = $9, peer = $7 RETURNING times",
        (contest.service_tag, _day(contest), contest.identity.value, contest.claim_id, contest.customer,
         contest.delegate, contest.peer, contest.times, at))
    return int(str(rows[0][0])) == contest.times


def _note(contest: Contest) -> Transaction[None]:
    return ledger.append(Entry(
        Act.CLAIM_CONTESTED, contest.at, "device", "NotEntitled", contest.service_tag, contest.customer,
        contest.delegate, contest.claim_id, contest.peer,
        (f"somebody else asked for it, showing {contest.identity.value} certificate",),
        {"identity": contest.identity.value, "times": contest.times}))


def _tell(contest: Contest, telling: Telling | None) -> Transaction[None]:
    """Into the outbox, unless that delegate was told of enough tags today."""
    if telling is None or contest.customer is None:
        return
    event, day = Notice.SECOND_CLAIMANT.value, moment(_day(contest) * DAY)
    body = {"service_tag": contest.service_tag, "peer": contest.peer, "identity": contest.identity.value,
            "delegator": telling.delegator}
    for kind in telling.kinds:
        told = yield told_since(event, telling.delegate, kind, milliseconds(day))
        if int(str(told[0][0])) >= MOST_A_DAY:
            continue
        yield from put(Message(f"{contest.claim_id}.contested-{day:%Y%m%d}.{kind.value}", event, telling.delegate,
                               kind, contest.claim_id, body, contest.at, contest.customer))


def contest_of(row: Row) -> Contest:
    """service_tag, identity, claim_id, customer, delegate, peer, last_at, times."""
    customer, delegate = (None if value is None else str(value) for value in row[3:5])
    return Contest(str(row[0]), IdentityKind(row[1]), str(row[2]), customer, delegate, str(row[5]),
                   moment(row[6]), int(str(row[7])))


def _alone() -> tuple[str]:
    """What is counted here nobody else writes."""
    return ("contested",)


class Contests:
    """The verbs above on a driver."""

    def __init__(self, driver: Running) -> None:
        self._driver = driver

    async def note(self, contests: Sequence[tuple[Contest, Telling | None]], *, forget: bool = True) -> list[Contest]:
        return await self._driver.run(lambda: note(contests, forget), _alone)

    async def list(self, *, customer: str | None = None, tag: str | None = None, most: int = 1000) -> list[Contest]:
        """The latest first: one for each tag, day and kind of identity, at the time and address last seen."""
        where, values = chosen({"customer = {0}": customer, "service_tag = {0}": tag}, 2)
        rows = await self._driver.read(Query(
            "SELECT service_tag, identity, claim_id, customer, delegate, peer, last_at, times FROM contested "
            f"WHERE {where} ORDER BY last_at DESC, service_tag, identity LIMIT $1", (most, *values)))
        return [contest_of(row) for row in rows]
