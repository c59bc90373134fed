"""Contract: the outbox. Written with the claim, told once in each way, held by one worker at a time (A7c, T-B8)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from delegator.model import NotificationKind, NotificationState, Telling
from delegator.store import Answered
from delegator.store.outbox import PATIENCE

MAIL, WEBHOOK = NotificationKind.MAIL, NotificationKind.WEBHOOK
BOTH = Telling((MAIL, WEBHOOK), "acme-1", "delegator.example", "10.0.0.5")
BY_MAIL = Telling((MAIL,), "acme-1", "delegator.example")


@pytest.fixture
def issued(store, ask):
    """Opens and issues a claim, with something to be told of it."""
    async def issue(tag: str, telling: Telling | None = BY_MAIL, minute: float = 0, by: str = "key:one"):
        return (await store.open_and_issue(ask(tag, by, minute=minute), lambda claim: "x", telling)).claim
    return issue


async def taken(store, at, minute: float = 1, kind: NotificationKind = MAIL, hold: float = 2):
    """The one due queue of a kind, with its next notification; None when there is none."""
    queues = await store.outbox.due(kind, at(minute), 10)
    return await store.outbox.take(queues[0], at(minute + hold)) if queues else None


async def test_A7c_what_is_to_be_told_is_kept_with_the_claim(store, issued, at):
    claim = await issued("TAG0001", BOTH)
    found = await store.outbox.list()
    assert {one.carrier for one in found} == {MAIL, WEBHOOK}
    for one in found:
        assert (one.claim_id, one.body["service_tag"], one.customer, one.recipient, one.body["delegator"]) == (
            claim.claim_id, "TAG0001", "acme", "acme-1", "delegator.example")
        assert (one.body["peer"], one.body["claimed_address"], one.at) == ("192.0.2.7", "10.0.0.5", at(0))
        assert (one.state, one.attempts, one.give_up_at) == (NotificationState.WAITING, 0, at(0) + PATIENCE)


async def test_A7c_a_device_that_asks_again_adds_nothing(store, issued):
    for _ in range(3):
        await issued("TAG0001")
    await issued("TAG0001", by="key:other")
    assert len(await store.outbox.list()) == 1


async def test_A7c_nothing_is_kept_of_a_claim_that_was_not_issued(store, ask):
    def fails(claim):
        raise RuntimeError("sealing failed")
    with pytest.raises(RuntimeError):
        await store.open_and_issue(ask("TAG0001"), fails, BY_MAIL)
    assert await store.outbox.list() == []
    assert await store.claims() == []


async def test_A7c_a_claim_that_was_opened_before_is_told_when_it_is_issued(store, ask, at):
    """A hosted delegate that stands in for another is issued in a transaction of its own."""
    claim = (await store.open_claim(ask("TAG0001"))).claim
    assert await store.outbox.list() == []
    await store.issue(claim.claim_id, "x", at(0), Answered(telling=BY_MAIL))
    await store.issue(claim.claim_id, "x", at(0), Answered(telling=BY_MAIL))
    assert len(await store.outbox.list()) == 1


async def test_A7c_nobody_to_tell_leaves_nothing(store, issued, at):
    await issued("TAG0001", None)
    await issued("TAG0002", Telling((), "acme-1", "d.example"))
    assert await store.outbox.list() == []
    assert await taken(store, at) is None


async def test_TB8_of_two_workers_one_has_the_queue(store, opening, issued, at):
    await issued("TAG0001")
    other = await opening()
    (mine,), (theirs,) = [await one.outbox.due(MAIL, at(1), 10) for one in (store, other)]
    assert await store.outbox.take(mine, at(3)) is not None
    assert await other.outbox.take(theirs, at(3)) is None
    assert await other.outbox.due(MAIL, at(2), 10) == []


async def test_TB8_a_worker_that_died_loses_the_queue_and_nothing_else(store, issued, at):
    claim = await issued("TAG0001")
    first = await taken(store, at, 1)
    again = await taken(store, at, 3)
    assert again.notification.claim_id == first.notification.claim_id == claim.claim_id
    assert again.notification.attempts == 2
    assert await store.outbox.sent(first, at(3)) is None, "too late: another holds the queue"
    assert (await store.outbox.list())[0].state is NotificationState.SENT


async def test_A7c_a_queue_is_gone_when_it_is_empty_and_comes_back(store, issued, at):
    await issued("TAG0001")
    one = await taken(store, at)
    left = await store.outbox.sent(one, at(1))
    assert await store.outbox.take(left, at(3)) is None
    assert await store.outbox.due(MAIL, at(60), 10) == []
    await issued("TAG0002", minute=1)
    assert (await taken(store, at, 1)).notification.body["service_tag"] == "TAG0002"


async def test_TB8_what_comes_while_a_queue_is_held_is_sent_by_its_holder(store, issued, at):
    await issued("TAG0001")
    held = await taken(store, at)
    await issued("TAG0002", minute=1)
    assert await store.outbox.due(MAIL, at(1), 10) == []
    left = await store.outbox.sent(held, at(1))
    assert (await store.outbox.take(left, at(3))).notification.body["service_tag"] == "TAG0002"


async def test_TB8_a_failure_rests_the_whole_queue_and_no_other(store, issued, at):
    await issued("TAG0001", BOTH)
    await issued("TAG0002", BOTH)
    failing = await taken(store, at)
    assert await store.outbox.failed(failing, "no answer", at(1), at(5)) == []
    await issued("TAG0003", BOTH, minute=2)
    assert await taken(store, at, 4) is None, "also what is new waits for a target that is down"
    assert await taken(store, at, 1, WEBHOOK) is not None
    later = await taken(store, at, 5)
    assert later.queue.failures == 1
    assert later.notification.body["service_tag"] == "TAG0002", "one that nobody accepts is not in the way"


async def test_TB8_a_success_forgets_the_failures(store, issued, at):
    for tag in ("TAG0001", "TAG0002"):
        await issued(tag)
    await store.outbox.failed(await taken(store, at, 1), "down", at(1), at(5))
    assert (await store.outbox.sent(await taken(store, at, 5), at(5))).failures == 0


async def test_A7c_after_three_days_it_is_given_up_and_can_be_tried_again(store, issued, at):
    claim = await issued("TAG0001")
    days = PATIENCE / timedelta(minutes=1)
    early = await taken(store, at, days - 1, hold=0.5)
    assert await store.outbox.failed(early, "down", at(days - 1), at(days)) == []
    late = await taken(store, at, days)
    (lost,) = await store.outbox.failed(late, "still down", at(days), at(days + 60))
    assert (lost.claim_id, lost.state, lost.last_error) == (claim.claim_id, NotificationState.GIVEN_UP, "still down")
    assert await store.outbox.retry(at(days + 1), claim_id="f" * 32) == 0
    assert await store.outbox.retry(at(days + 1), delegate="acme-1") == 1
    again = await taken(store, at, days + 1)
    assert (again.notification.claim_id, again.queue.failures) == (claim.claim_id, 0)
    assert again.notification.give_up_at == at(days + 1) + PATIENCE


async def test_A7c_what_was_sent_is_never_tried_again(store, issued, at):
    await issued("TAG0001")
    await store.outbox.sent(await taken(store, at), at(1))
    assert await store.outbox.retry(at(2)) == 0


async def test_A7c_what_is_over_is_forgotten_after_a_while(store, issued, at):
    await issued("TAG0001", BOTH)
    await store.outbox.sent(await taken(store, at), at(1))
    assert await store.outbox.forget(at(1)) == 0
    assert await store.outbox.forget(at(2)) == 1
    assert [one.carrier for one in await store.outbox.list()] == [WEBHOOK], "what waits is kept"


async def test_TC11_no_secret_is_in_the_outbox(store, ask):
    await store.open_and_issue(ask("TAG0001"), lambda claim: "Canary-Passw0rd", BOTH)
    assert "Canary" not in repr(await store.outbox.list())
    assert await store.outbox.list(customer="umbra") == []
    assert await store.outbox.list(state=NotificationState.SENT) == []


@pytest.mark.parametrize(("failures", "ahead"), [(0, 120), (0, 60 * 24 * 3650), (4, 120), (9, 120)])
async def test_TA10_a_queue_that_a_wrong_clock_put_off_is_due_now(store, issued, at, failures, ahead):
    """It failed while the clock was ahead by two hours or ten years: due times are bounded by the longest rest."""
    await issued("TAG0001")
    for minute in range(failures):
        await store.outbox.failed(await taken(store, at, 1 + minute), "down", at(minute), at(minute + 1))
    await store.outbox.failed(await taken(store, at, 10), "down", at(10 + ahead), at(10 + ahead + 1),
                              give_up=False)
    await issued("TAG0002", minute=11)
    now = await taken(store, at, 11)
    assert now is not None
    assert await taken(store, at, 12) is None, "held as any other, by one"
    assert await store.outbox.sent(now, at(12)) is not None
    assert await taken(store, at, 14) is not None, "and the next one joins it"


@pytest.mark.parametrize(("failures", "rest"), [(0, 2), (3, 4), (4, 8), (7, 60), (12, 60)])
async def test_TA10_a_rest_that_is_no_longer_than_it_can_be_is_kept(store, issued, at, failures, rest):
    await issued("TAG0001")
    for minute in range(failures):
        await store.outbox.failed(await taken(store, at, 1 + minute), "down", at(minute), at(minute + 1))
    await store.outbox.failed(await taken(store, at, 20), "down", at(20), at(20 + rest))
    assert await taken(store, at, 20) is None
    assert await taken(store, at, 20 + rest) is not None


async def test_TA10_nothing_is_given_up_by_a_clock_that_is_not_believed(store, issued, at):
    await issued("TAG0001")
    days = 4 * 24 * 60
    assert await store.outbox.failed(await taken(store, at, days), "down", at(days), at(days + 1), give_up=False) == []
    assert [one.state for one in await store.outbox.list()] == [NotificationState.WAITING]
    assert len(await store.outbox.failed(await taken(store, at, days + 1), "down", at(days + 1), at(days + 2))) == 1
