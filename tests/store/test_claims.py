"""Contract: the life of one claim, asking -> issued -> confirmed, or expired, released (R-once and R-durable)."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from delegator.errors import DelegatorError, Kind
from delegator.model import ClaimState, IdentityKind, Policy, Result
from delegator.policy import Why
from delegator.store import Answered, Outcome, claims, milliseconds

TAG, TEXT = "ABC1234", "root / correct horse"


@pytest.fixture
async def asking(store, ask):
    """A claim that was opened at minute 0 by key:one; its callback may take a minute, its lease an hour."""
    return (await store.open_claim(ask())).claim


@pytest.fixture
async def issued(store, asking, at):
    return await store.issue(asking.claim_id, TEXT, at(0.5))


# --- asking -------------------------------------------------------------------------------------------------------


async def test_R_durable_a_claim_is_on_record_as_asking_before_anybody_is_called(store, ask, at):
    opened = await store.open_claim(ask(kind=IdentityKind.SHARED, by="secret:s"))
    claim = await store.claim(opened.claim.claim_id)
    assert opened.outcome is Outcome.OPENED
    assert claim == opened.claim
    assert (claim.state, claim.attempt, claim.identity, claim.binding, claim.peer) == (
        ClaimState.ASKING, 1, IdentityKind.SHARED, "secret:s", "192.0.2.7")
    assert (claim.asked_at, claim.lease_until, claim.issued_at, claim.sealed) == (at(0), at(60), None, None)
    assert await store.taken("acme", "acme-1") == {"customer/acme": 1, "delegate/acme-1": 1}


async def test_R_durable_while_the_delegate_is_asked_the_same_device_is_told_to_wait(store, ask, asking):
    opened = await store.open_claim(ask(minute=0.99))
    assert (opened.outcome, opened.claim.claim_id) == (Outcome.BUSY, asking.claim_id)


@pytest.mark.parametrize("how", ["busy_until passed", "pause", "pause_all"])
async def test_R_durable_after_a_crash_or_a_failed_callback_the_same_claim_is_taken_up_again(store, ask, asking, how):
    """The claim id is the callback's idempotency key: the delegate is asked again for the very same claim."""
    await {"pause": lambda: store.pause(asking.claim_id), "pause_all": store.pause_all}.get(
        how, lambda: asyncio.sleep(0))()
    minute = 1 if how == "busy_until passed" else 0.1
    again, third = await store.open_claim(ask(minute=minute)), await store.open_claim(ask(minute=minute + 0.5))
    assert (again.outcome, again.claim) == (Outcome.RESUMED, asking)
    assert third.outcome is Outcome.BUSY, "one at a time"
    assert await store.taken("acme", "acme-1") == {"customer/acme": 1, "delegate/acme-1": 1}


async def test_R_durable_pausing_one_claim_leaves_others_busy(store, ask, asking):
    await store.open_claim(ask("ABC1235"))
    await store.pause(asking.claim_id)
    assert (await store.open_claim(ask("ABC1235"))).outcome is Outcome.BUSY


async def test_A10_a_route_that_changed_after_a_crash_starts_a_new_claim_at_the_new_delegate(store, ask, asking):
    still_busy = await store.open_claim(ask(delegate="acme-2"))
    assert still_busy.outcome is Outcome.BUSY, "not while the old delegate is being asked"
    await store.pause_all()
    opened = await store.open_claim(ask(delegate="acme-2", minute=2))
    assert (opened.outcome, opened.claim.delegate, opened.claim.attempt) == (Outcome.OPENED, "acme-2", 2)
    assert (await store.claim(asking.claim_id)).state is ClaimState.EXPIRED
    assert await store.issue(asking.claim_id, TEXT, asking.asked_at) is None, "its late answer is not taken"
    assert await store.taken("acme", "acme-1") == {"customer/acme": 1, "delegate/acme-1": 0}
    assert await store.taken("acme", "acme-2") == {"customer/acme": 1, "delegate/acme-2": 1}


async def test_A10_when_another_delegate_stood_in_the_claim_and_its_place_are_that_ones(store, ask, asking, at):
    claim = await store.issue(asking.claim_id, TEXT, at(0.5), Answered("acme-2"))
    assert (claim.state, claim.delegate, store.reveal(claim)) == (ClaimState.ISSUED, "acme-2", TEXT)
    assert await store.taken("acme", "acme-1") == {"customer/acme": 1, "delegate/acme-1": 0}
    assert await store.taken("acme", "acme-2") == {"customer/acme": 1, "delegate/acme-2": 1}
    assert (await store.open_claim(ask(minute=1))).outcome is Outcome.SAME_AGAIN
    assert len(await store.ownership.release(TAG, at(2))) == 1
    assert await store.taken("acme", "acme-2") == {"customer/acme": 0, "delegate/acme-2": 0}


async def test_A10_a_route_that_changed_after_the_answer_changes_nothing(store, ask, issued):
    opened = await store.open_claim(ask(customer="umbra", delegate="umbra-1", minute=2))
    assert (opened.outcome, opened.claim) == (Outcome.SAME_AGAIN, issued)


# --- issued -------------------------------------------------------------------------------------------------------


async def test_R_durable_issued_is_on_record_before_anything_is_answered(store, asking, at):
    claim = await store.issue(asking.claim_id, TEXT, at(0.5))
    assert await store.claim(asking.claim_id) == claim
    assert (claim.state, claim.issued_at, store.reveal(claim)) == (ClaimState.ISSUED, at(0.5), TEXT)
    assert TEXT.encode() not in claim.sealed


async def test_R_durable_the_first_answer_stays_when_two_come(store, asking, issued, at):
    assert await store.issue(asking.claim_id, "another", at(0.6)) is None
    assert store.reveal(await store.claim(asking.claim_id)) == TEXT
    assert await store.issue("f" * 32, TEXT, at(0.6)) is None


async def test_R_durable_whoever_was_slow_with_the_answer_issues_first_and_the_other_tries_again(
        store, ask, asking, at):
    """A crashed try is taken up, and between the look and the answer the one that was held for dead answers."""
    def work():
        taken_up = claims.open_and_issue(ask(minute=2), lambda claim_id: b"second")
        query = next(taken_up)
        while True:
            if "sealed = $3" in query.sql:
                assert (yield from claims.issue(asking.claim_id, b"first", milliseconds(at(2)))) is not None
            try:
                query = taken_up.send((yield query))
            except StopIteration as end:
                return end.value
    opened = await store._driver.run(work)
    assert (opened.outcome, opened.claim.claim_id) == (Outcome.BUSY, asking.claim_id)
    assert (await store.claim(asking.claim_id)).sealed == b"first"


async def test_R_once_the_same_device_gets_the_same_answer_within_its_lease(store, ask, issued):
    for minute in (0.6, 30, 59.99):
        opened = await store.open_claim(ask(minute=minute))
        assert (opened.outcome, opened.claim) == (Outcome.SAME_AGAIN, issued)


async def test_R_sealed_a_sealed_credential_opens_for_its_own_claim_only(store, ask, issued, at):
    other = (await store.open_claim(ask("ABC1235"))).claim
    swapped = await store.issue(other.claim_id, "other", at(1))
    with pytest.raises(DelegatorError) as refusal:
        store.reveal(replace(swapped, sealed=issued.sealed))
    assert refusal.value.kind is Kind.UNAVAILABLE


@pytest.mark.parametrize("state", ["asking", "issued", "confirmed"])
async def test_R_once_anybody_else_gets_nothing_whatever_the_state(store, ask, asking, at, state):
    if state != "asking":
        await store.issue(asking.claim_id, TEXT, at(0.5))
    if state == "confirmed":
        await store.confirm(asking.claim_id, "key:one", Result.DEPLOYED, None, at(1))
    before = await store.claim(asking.claim_id)
    for minute in (0.1, 30):
        opened = await store.open_claim(ask(by="key:two", minute=minute))
        assert opened.outcome is Outcome.TAKEN
    assert await store.claim(asking.claim_id) == before


async def test_R_durable_a_credential_at_hand_is_opened_and_issued_in_one_step(store, ask, at):
    opened = await store.open_and_issue(ask(), lambda claim_id: f"for {claim_id}")
    assert (opened.outcome, opened.claim.state) == (Outcome.ISSUED, ClaimState.ISSUED)
    assert store.reveal(opened.claim) == f"for {opened.claim.claim_id}"
    again = await store.open_and_issue(ask(minute=1), lambda claim: "another")
    assert (again.outcome, again.claim) == (Outcome.SAME_AGAIN, opened.claim)
    assert (await store.open_and_issue(ask(by="key:two"), lambda claim: "stolen")).outcome is Outcome.TAKEN


async def test_R_durable_what_a_crash_left_asking_is_issued_in_one_step_too(store, ask, asking):
    await store.pause_all()
    opened = await store.open_and_issue(ask(minute=1), lambda claim: TEXT)
    assert (opened.claim.claim_id, store.reveal(opened.claim)) == (asking.claim_id, TEXT)


async def test_R_durable_when_the_credential_cannot_be_made_there_is_no_claim(store, ask):
    def broken(claim):
        raise LookupError("no password")
    with pytest.raises(LookupError):
        await store.open_and_issue(ask(), broken)
    assert await store.claims() == []
    assert await store.taken("acme", "acme-1") == {}


# --- the lease ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["asking", "issued"])
@pytest.mark.parametrize("by", ["key:one", "key:two"])
async def test_R_once_a_lapsed_claim_makes_room_for_a_new_one_and_is_wiped(store, ask, asking, at, state, by):
    if state == "issued":
        await store.issue(asking.claim_id, TEXT, at(0.5))
    opened = await store.open_claim(ask(by=by, minute=60))
    assert (opened.outcome, opened.claim.attempt, opened.claim.binding) == (Outcome.OPENED, 2, by)
    old = await store.claim(asking.claim_id)
    assert (old.state, old.sealed, old.ended_at) == (ClaimState.EXPIRED, None, at(60))
    with pytest.raises(DelegatorError, match="no credential any more"):
        store.reveal(old)
    assert await store.taken("acme", "acme-1") == {"customer/acme": 1, "delegate/acme-1": 1}


async def test_R_once_a_confirmed_claim_never_lapses(store, ask, issued, at):
    await store.confirm(issued.claim_id, "key:one", Result.DEPLOYED, None, at(1))
    assert await store.expire_lapsed(at(10_000)) == 0
    assert (await store.open_claim(ask(minute=10_000))).outcome is Outcome.DONE


async def test_R_once_sweeping_expires_what_lapsed_and_nothing_else(store, ask, issued, at):
    young = (await store.open_claim(ask("ABC1235", minute=1))).claim
    assert await store.expire_lapsed(at(59.99)) == 0
    assert await store.expire_lapsed(at(60)) == 1
    assert await store.expire_lapsed(at(60)) == 0
    wiped = await store.claim(issued.claim_id)
    assert (wiped.state, wiped.sealed, wiped.ended_at) == (ClaimState.EXPIRED, None, at(60))
    assert (await store.claim(young.claim_id)).state is ClaimState.ASKING
    assert await store.taken("acme", "acme-1") == {"customer/acme": 1, "delegate/acme-1": 1}
    assert await store.issue(issued.claim_id, TEXT, at(61)) is None


async def test_R_once_attempts_are_used_up_by_claims_that_lapsed(store, ask):
    policy = Policy(attempts=2)
    for attempt in (1, 2):
        opened = await store.open_claim(ask(minute=attempt * 60, policy=policy))
        assert (opened.outcome, opened.claim.attempt) == (Outcome.OPENED, attempt)
    refused = await store.open_claim(ask(minute=180, policy=policy))
    assert (refused.outcome, refused.claim) == (Outcome.OVER_LIMIT, None)
    assert [reason.why for reason in refused.reasons] == [Why.ATTEMPTS_USED]
    assert (await store.open_claim(ask("ABC1235", minute=180, policy=policy))).outcome is Outcome.OPENED


# --- the end ------------------------------------------------------------------------------------------------------


async def test_A13_confirmed_wipes_the_credential_and_repeating_changes_nothing(store, ask, issued, at):
    ended = await store.confirm(issued.claim_id, "key:one", Result.DEPLOYED, "all well", at(5))
    assert (ended.state, ended.sealed, ended.result, ended.detail, ended.ended_at) == (
        ClaimState.CONFIRMED, None, Result.DEPLOYED, "all well", at(5))
    await store.notified([ended])
    for result in Result:
        assert await store.confirm(issued.claim_id, "key:one", result, "again", at(9)) == ended
    assert await store.claim(issued.claim_id) == ended
    assert await store.unheard() == []
    assert (await store.open_claim(ask(minute=6))).outcome is Outcome.DONE


@pytest.mark.parametrize("by", ["key:two", "", None, "KEY:ONE", "key:one "])
async def test_R_bound_only_the_binding_that_opened_a_claim_confirms_it(store, issued, at, by):
    assert await store.confirm(issued.claim_id, by, Result.DEPLOYED, None, at(5)) is None
    assert await store.claim(issued.claim_id) == issued


async def test_A13_failed_is_kept_on_record_and_the_claim_stays_for_the_next_try(store, ask, issued, at):
    claim = await store.confirm(issued.claim_id, "key:one", Result.FAILED, "no disk", at(5))
    assert (claim.state, claim.result, claim.detail, claim.ended_at) == (
        ClaimState.ISSUED, Result.FAILED, "no disk", None)
    assert (await store.open_claim(ask(minute=6))).outcome is Outcome.SAME_AGAIN
    assert store.reveal(claim) == TEXT
    ended = await store.confirm(issued.claim_id, "key:one", Result.DEPLOYED, None, at(7))
    assert (ended.state, ended.result, ended.detail) == (ClaimState.CONFIRMED, Result.DEPLOYED, None)


async def test_R_once_what_was_not_issued_is_not_confirmed(store, asking, at):
    assert await store.confirm("f" * 32, "key:one", Result.DEPLOYED, None, at(1)) is None
    assert await store.confirm(asking.claim_id, "key:one", Result.DEPLOYED, None, at(1)) is None
    await store.expire_lapsed(at(60))
    assert await store.confirm(asking.claim_id, "key:one", Result.DEPLOYED, None, at(61)) is None


@pytest.mark.parametrize("state", ["asking", "issued", "confirmed"])
async def test_A13_a_released_device_starts_from_nothing(store, ask, asking, at, state):
    """Back to stock: whatever was claimed is over, attempts are forgotten, and another device may hold the tag."""
    if state != "asking":
        await store.issue(asking.claim_id, TEXT, at(0.5))
    if state == "confirmed":
        await store.confirm(asking.claim_id, "key:one", Result.DEPLOYED, None, at(1))
    assert len(await store.ownership.release(TAG, at(5))) == 1
    released = await store.claim(asking.claim_id)
    assert (released.state, released.sealed) == (ClaimState.RELEASED, None)
    assert await store.taken("acme", "acme-1") == {"customer/acme": 0, "delegate/acme-1": 0}
    opened = await store.open_claim(ask(by="key:two", minute=6))
    assert (opened.outcome, opened.claim.attempt) == (Outcome.OPENED, 1)


async def test_A13_releasing_forgets_used_attempts_of_that_tag_only(store, ask, at):
    for tag in (TAG, "ABC1235"):
        await store.open_claim(ask(tag))
    await store.expire_lapsed(at(60))
    assert len(await store.ownership.release(TAG, at(61))) == 1
    assert len(await store.ownership.release(TAG, at(61))) == 0
    once = Policy(attempts=1)
    assert (await store.open_claim(ask(minute=62, policy=once))).outcome is Outcome.OPENED
    assert (await store.open_claim(ask("ABC1235", minute=62, policy=once))).outcome is Outcome.OVER_LIMIT
