"""Contract: a server's clock that jumps by ten years, either way and back, gives no second credential (T-A10)."""

from __future__ import annotations

import pytest

from delegator.model import ClaimState, Policy
from delegator.store import Outcome, milliseconds
from delegator.store.claims import again
from delegator.store.looking import look

DECADE = 10 * 365 * 24 * 60
"""Minutes."""


@pytest.mark.parametrize("jump", [DECADE, -DECADE])
async def test_TA10_while_the_clock_is_wrong_a_live_claim_is_the_same_or_over(store, ask, at, jump):
    first = await store.open_and_issue(ask(), lambda claim: "first")
    assert first.outcome is Outcome.ISSUED
    thief = await store.open_and_issue(ask(by="key:two", minute=jump), lambda claim: "stolen")
    mine = await store.open_and_issue(ask(minute=jump), lambda claim: "second")
    back = await store.open_and_issue(ask(minute=1), lambda claim: "third")
    claims = await store.claims()
    assert len({one.service_tag for one in claims if one.state is ClaimState.ISSUED}) == 1
    if jump < 0:
        assert (thief.outcome, mine.outcome, back.outcome) == (
            Outcome.TAKEN, Outcome.SAME_AGAIN, Outcome.SAME_AGAIN)
        assert {store.reveal(one.claim) for one in (mine, back)} == {"first"}
    else:
        winner = thief if thief.outcome is Outcome.ISSUED else mine
        assert [one.outcome for one in (thief, mine)].count(Outcome.ISSUED) == 1, "over after its time, and then once"
        assert back.outcome is (Outcome.SAME_AGAIN if winner is mine else Outcome.TAKEN)
    assert sum(one.state is ClaimState.ISSUED for one in claims) == 1


async def test_TA10_what_is_expired_by_a_clock_ahead_stays_so_and_nothing_is_by_a_clock_behind(store, ask, at):
    await store.open_and_issue(ask(), lambda claim: "first")
    assert await store.expire_lapsed(at(-DECADE)) == 0
    assert await store.expire_lapsed(at(DECADE)) == 1
    again = await store.open_and_issue(ask(minute=1), lambda claim: "second")
    assert again.outcome is Outcome.ISSUED
    assert [one.state for one in await store.claims()].count(ClaimState.EXPIRED) == 1


async def test_TA10_a_claim_that_was_busy_by_a_clock_ahead_is_free_again_at_once(store, ask, at):
    """A crash in the very moment of a jump: else it would be busy for ten years."""
    opened = await store.open_claim(ask(minute=DECADE))
    assert (await store.open_claim(ask(minute=1))).outcome is Outcome.RESUMED
    assert (await store.open_claim(ask(minute=1))).outcome is Outcome.BUSY, "as long as answering takes, and no longer"
    await store.pause(opened.claim.claim_id)
    assert (await store.open_claim(ask(minute=1))).outcome is Outcome.RESUMED
    await store.ownership.release("ABC1234", at(2))
    assert (await store.open_claim(ask(minute=3))).outcome is Outcome.OPENED


async def test_TA10_what_was_asked_before_a_clock_could_be_believed_is_not_over_yet(store, ask, at):
    """One look ahead of a start: the claim keeps its credential, its device is told to come again, a thief nothing."""
    await store.open_and_issue(ask(), lambda claim: "first")
    since = milliseconds(at(DECADE - 1))
    assert await store.expire_lapsed(at(DECADE), since) == 0
    early = await store.open_and_issue(ask(minute=DECADE, since=since), lambda claim: "second")
    thief = await store.open_and_issue(ask(by="key:two", minute=DECADE, since=since), lambda claim: "stolen")
    assert (early.outcome, thief.outcome) == (Outcome.UNSURE, Outcome.TAKEN)
    back = await store.open_and_issue(ask(minute=1), lambda claim: "third")
    assert (back.outcome, store.reveal(back.claim)) == (Outcome.SAME_AGAIN, "first")
    assert await store.expire_lapsed(at(DECADE)) == 1, "once two looks agree"


async def test_TA10_reading_tells_nothing_else_than_the_claims_own_transaction(store, ask, at):
    """Where the line does not move a device gets what it has by reading: not where it is told to come again."""
    await store.open_and_issue(ask(), lambda claim: "first")
    for late in (ask(minute=1), ask(minute=DECADE, since=milliseconds(at(DECADE - 1)))):
        read, told = await look(store._driver.read, again(late)), await store.open_claim(late)
        assert (read and read.outcome) == (told.outcome if told.outcome is Outcome.SAME_AGAIN else None)


async def test_TA10_what_was_asked_since_the_clock_stands_is_over_in_time(store, ask, at):
    since = milliseconds(at(0))
    await store.open_and_issue(ask(since=since), lambda claim: "first")
    again = await store.open_and_issue(ask(minute=60, since=since), lambda claim: "second")
    assert again.outcome is Outcome.ISSUED


async def test_TA10_room_is_not_made_by_a_clock_that_is_not_believed(store, ask, at):
    """A claim whose lease is over gives its place to who asks: not before that is sure."""
    full = {"tag": "XYZ0001", "minute": DECADE, "policy": Policy(max_devices=1)}
    await store.open_and_issue(ask(), lambda claim: "first")
    late = await store.open_and_issue(ask(**full, since=milliseconds(at(DECADE))), lambda claim: "second")
    assert late.outcome is Outcome.OVER_LIMIT
    late = await store.open_and_issue(ask(**full), lambda claim: "second")
    assert late.outcome is Outcome.ISSUED
