"""Contract: which delegates still have to hear how provisioning ended. At least once, never lost (A8, A13)."""

from __future__ import annotations

import pytest

from delegator.model import Result


@pytest.fixture
def ended(store, ask, at):
    """Opens, issues and ends a claim; the claim as it is then."""
    async def end(tag: str, delegate: str = "acme-1", result: Result = Result.DEPLOYED, minute: float = 1):
        claim = (await store.open_and_issue(ask(tag, delegate=delegate, minute=minute), lambda claim: "x")).claim
        return await store.confirm(claim.claim_id, "key:one", result, "words", at(minute + 0.5))
    return end


async def test_A13_a_claim_waits_from_its_end_until_its_delegate_was_told(store, ask, ended):
    await store.open_and_issue(ask("TAG0000"), lambda claim: "x")
    assert await store.unnotified() == []
    claim = await ended("TAG0001")
    assert await store.unnotified() == [claim]
    assert await store.unnotified() == [claim], "asking does not count as telling"
    await store.notified(claim.claim_id, Result.DEPLOYED)
    assert await store.unnotified() == []


async def test_A6_asking_who_is_to_be_told_changes_nothing_and_waits_for_nobody_who_does(store, ended, monkeypatch):
    claims = [await ended(f"TAG{number:04}", f"acme-{number}") for number in range(3)]
    monkeypatch.setattr(store._driver, "run", None)
    assert await store.unnotified() == claims


async def test_A13_a_failure_is_told_and_a_repeated_one_is_not_told_again(store, ended, at):
    claim = await ended("TAG0001", result=Result.FAILED)
    await store.notified(claim.claim_id, Result.FAILED)
    assert await store.confirm(claim.claim_id, "key:one", Result.FAILED, "words", at(9)) == claim
    assert await store.unnotified() == []
    other = await store.confirm(claim.claim_id, "key:one", Result.FAILED, "other words", at(9))
    assert await store.unnotified() == [other]


async def test_A13_a_success_after_a_failure_is_told_even_if_it_comes_while_the_failure_is_being_told(
        store, ended, at):
    claim = await ended("TAG0001", result=Result.FAILED)
    assert [one.result for one in await store.unnotified()] == [Result.FAILED]
    await store.confirm(claim.claim_id, "key:one", Result.DEPLOYED, None, at(9))
    await store.notified(claim.claim_id, Result.FAILED)
    (waiting,) = await store.unnotified()
    assert (waiting.claim_id, waiting.result) == (claim.claim_id, Result.DEPLOYED)


async def test_7_the_backlog_of_one_delegate_does_not_hide_another(store, ended):
    for number in range(30):
        await ended(f"TAG{number:04}", "acme-down", minute=number)
    late = await ended("NEW1234", "acme-up", minute=99)
    waiting = await store.unnotified()
    assert late in waiting
    assert [one.service_tag for one in waiting if one.delegate == "acme-down"] == [f"TAG{n:04}" for n in range(20)]
    for one in waiting:
        await store.notified(one.claim_id, one.result)
    assert [one.service_tag for one in await store.unnotified()] == [f"TAG{n:04}" for n in range(20, 30)]


async def test_A13_what_ended_is_told_even_after_release_or_expiry(store, ended, at):
    done, failed = await ended("TAG0001"), await ended("TAG0002", result=Result.FAILED)
    await store.ownership.release("TAG0001", at(5))
    await store.expire_lapsed(at(100))
    assert {one.claim_id for one in await store.unnotified()} == {done.claim_id, failed.claim_id}
