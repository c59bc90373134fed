"""Contract: which delegates still have to hear how provisioning ended. At least once, never lost (A8, A13)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from delegator.model import CallbackWay, Result
from delegator.store import Answered

ACME = "acme-1"


@pytest.fixture
def ended(store, ask, at):
    """Opens, issues and ends a claim; the claim as it is then."""
    async def end(tag: str, delegate: str = ACME, result: Result = Result.DEPLOYED, minute: float = 1, by=None):
        asked = replace(ask(tag, delegate=delegate, minute=minute), callback=by)
        claim = (await store.open_and_issue(asked, lambda claim: "x")).claim
        return await store.confirm(claim.claim_id, "key:one", result, "words", at(minute + 0.5))
    return end


async def test_A13_a_claim_waits_from_its_end_until_its_delegate_was_told(store, ask, ended):
    await store.open_and_issue(ask("TAG0000"), lambda claim: "x")
    assert await store.unheard() == []
    claim = await ended("TAG0001")
    assert (await store.unheard(), await store.unnotified(ACME)) == ([ACME], [claim])
    assert await store.unnotified(ACME) == [claim], "asking does not count as telling"
    assert await store.notified([claim]) == 1
    assert (await store.unheard(), await store.unnotified(ACME)) == ([], [])


@pytest.mark.parametrize("result", Result)
@pytest.mark.parametrize("by", [None, *CallbackWay])
async def test_A13_what_nobody_can_be_told_waits_for_nobody(store, ended, at, by, result):
    """In the statement that ends it: there is nothing that somebody would have to do for it later. Of a claim that is
    older than that was noted nobody knows, so its delegate is looked at."""
    claim = await ended("TAG0001", result=result, by=by)
    assert claim.is_heard_of == (by in (None, CallbackWay.SOAP))
    assert await store.unnotified(ACME) == ([claim] if claim.is_heard_of else [])


async def test_A13_who_answered_counts_and_not_for_whom_a_claim_was_opened(store, ask, at):
    """A server stood in for settings kept here, and the other way round."""
    for tag, before, after in (("TAG0001", CallbackWay.HOSTED, CallbackWay.SOAP),
                               ("TAG0002", CallbackWay.SOAP, CallbackWay.SSH)):
        claim = (await store.open_claim(replace(ask(tag), callback=before))).claim
        issued = await store.issue(claim.claim_id, "x", at(0.1), Answered("acme-2", after))
        await store.confirm(issued.claim_id, "key:one", Result.DEPLOYED, None, at(1))
    assert [one.service_tag for one in await store.unnotified("acme-2")] == ["TAG0001"]


async def test_A6_asking_who_is_to_be_told_changes_nothing_and_waits_for_nobody_who_does(store, ended, monkeypatch):
    claims = [await ended(f"TAG{number:04}", f"acme-{number}") for number in range(3)]
    monkeypatch.setattr(store._driver, "run", None)
    names = await store.unheard()
    assert [one for name in names for one in await store.unnotified(name)] == claims


async def test_A13_a_failure_is_told_and_a_repeated_one_is_not_told_again(store, ended, at):
    claim = await ended("TAG0001", result=Result.FAILED)
    await store.notified([claim])
    assert await store.confirm(claim.claim_id, "key:one", Result.FAILED, "words", at(9)) == claim
    assert await store.unheard() == []
    other = await store.confirm(claim.claim_id, "key:one", Result.FAILED, "other words", at(9))
    assert await store.unnotified(ACME) == [other]


async def test_A13_a_success_after_a_failure_is_told_even_if_it_comes_while_the_failure_is_being_told(
        store, ended, at):
    claim = await ended("TAG0001", result=Result.FAILED)
    assert [one.result for one in await store.unnotified(ACME)] == [Result.FAILED]
    await store.confirm(claim.claim_id, "key:one", Result.DEPLOYED, None, at(9))
    assert await store.notified([claim]) == 0
    (waiting,) = await store.unnotified(ACME)
    assert (waiting.claim_id, waiting.result) == (claim.claim_id, Result.DEPLOYED)


async def test_A13_other_words_of_a_failure_that_come_while_it_is_being_told_are_told_too(store, ended, at):
    told = await ended("TAG0001", result=Result.FAILED)
    await store.confirm(told.claim_id, "key:one", Result.FAILED, "no disk", at(9))
    assert await store.notified([told]) == 0
    (waiting,) = await store.unnotified(ACME)
    assert waiting.detail == "no disk"
    assert await store.notified([waiting]) == 1


async def test_A13_a_backlog_is_read_piece_by_piece_oldest_first_and_hides_no_other(store, ended):
    tags = [f"TAG{number:04}" for number in range(30)]
    for number, tag in enumerate(tags):
        await ended(tag, "acme-down", minute=number // 2)  # two at the same moment
    late = await ended("NEW1234", "acme-up", minute=99)
    assert await store.unheard() == ["acme-down", "acme-up"]
    assert await store.unnotified("acme-up") == [late]
    first = await store.unnotified("acme-down", None, 7)
    found, after = [], None
    while some := await store.unnotified("acme-down", after, 7):
        found += some
        after = some[-1]
    assert sorted(one.service_tag for one in found) == tags
    assert [one.asked_at for one in found] == sorted(one.asked_at for one in found)
    assert (found[:7], len(first)) == (first, 7)
    assert await store.notified(found) == 30
    assert await store.unheard() == ["acme-up"]


async def test_A13_what_ended_is_told_even_after_release_or_expiry(store, ended, at):
    done, failed = await ended("TAG0001"), await ended("TAG0002", result=Result.FAILED)
    await store.ownership.release("TAG0001", at(5))
    await store.expire_lapsed(at(100))
    assert {one.claim_id for one in await store.unnotified(ACME)} == {done.claim_id, failed.claim_id}
