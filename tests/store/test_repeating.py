"""Contract: what a driver may run again, because the word of its commit was lost, does no harm (R-repeated)."""

from __future__ import annotations

from datetime import timedelta

from delegator.model import ClaimState, Result
from delegator.store import Outcome


async def test_R_repeated_a_claim_opened_twice_by_one_ask_is_one_claim_that_goes_to_its_delegate(store, ask):
    once = ask()
    first, again = await store.open_claim(once), await store.open_claim(once)
    assert (first.outcome, again.outcome) == (Outcome.OPENED, Outcome.OPENED)
    assert first.claim == again.claim
    assert (await store.open_claim(ask(minute=0.1))).outcome is Outcome.BUSY, "another request of the device waits"
    assert await store.taken("acme", "acme-1") == {"customer/acme": 1, "delegate/acme-1": 1}


async def test_R_repeated_a_claim_issued_twice_by_one_ask_has_one_credential(store, ask):
    once, secrets = ask(), iter(["first", "second"])
    first = await store.open_and_issue(once, lambda claim: next(secrets))
    again = await store.open_and_issue(once, lambda claim: next(secrets))
    assert (first.outcome, again.outcome) == (Outcome.ISSUED, Outcome.SAME_AGAIN)
    assert {store.reveal(first.claim), store.reveal(again.claim)} == {"first"}
    assert await store.taken("acme", "acme-1") == {"customer/acme": 1, "delegate/acme-1": 1}


async def test_R_repeated_a_delegates_answer_written_twice_is_the_same_answer_and_another_one_is_none(
        store, ask, at, key,
                                                                                            monkeypatch):
    claim = (await store.open_claim(ask())).claim
    monkeypatch.setattr(type(key), "seal", lambda self, text, row: f"{text} of {row}".encode())
    first = await store.issue(claim.claim_id, "given", at(0.1))
    assert await store.issue(claim.claim_id, "given", at(0.1)) == first
    assert first.state is ClaimState.ISSUED
    assert await store.issue(claim.claim_id, "another", at(0.1)) is None


async def test_R_repeated_ends_that_are_told_twice_are_one_end(store, ask, at):
    claim = (await store.open_and_issue(ask(), lambda claim: "x")).claim
    ended = await store.confirm(claim.claim_id, "key:one", Result.DEPLOYED, "well", at(1))
    assert await store.confirm(claim.claim_id, "key:one", Result.DEPLOYED, "well", at(1)) == ended
    assert await store.notified([ended]) == 1
    assert await store.notified([ended]) == 0, "by whom it was not noted the first time learns so"
    assert await store.unheard() == []
    assert ended.ended_at == at(0) + timedelta(minutes=1)
