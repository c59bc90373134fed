"""One claim, one answer, one device: who asks again, who asks too soon, who is somebody else (R-once and R-durable)."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.model import ClaimState

from ..clock import today
from .lab import START, Lab, key_of

TAG = "ABC1234"


# --- the same device again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("customer", ["acme", "globex"])
async def test_a_device_that_asks_again_gets_the_same_answer_and_nobody_is_asked_again(
        lab: Lab, customer: str) -> None:
    await lab.own(TAG, customer=customer)
    first = await lab.ask(TAG)
    lab.clock.forward(hours=23)
    again = await lab.ask(TAG)
    assert (again.credential, again.claim) == (first.credential, first.claim)
    assert again.text("NotAfter") == first.text("NotAfter")
    assert again.note("claimed") == "same answer again"
    assert "called_back" not in again.steps
    assert len(lab.servers.asked) == (customer == "acme")
    assert lab.counted("delegator_claims_total", outcome="same answer again") == 1
    assert "handshake.ended" in await lab.acts(TAG), "no claim changed, so the handshake has a row of its own"


async def test_a_lease_is_the_policys_and_after_it_a_new_claim_begins(lab: Lab) -> None:
    await lab.policy("acme", lease=timedelta(hours=2), replace=True)
    await lab.own(TAG)
    first = await lab.ask(TAG)
    assert (await lab.claim(TAG)).lease_until == START + timedelta(hours=2)
    lab.clock.forward(hours=2)
    second = await lab.ask(TAG)
    assert second.claim != first.claim
    assert second.credential == ("user of acme-1", "password 1 of acme-1")
    new, old = await lab.claims(TAG)
    assert (new.attempt, new.state, old.state, old.sealed) == (2, ClaimState.ISSUED, ClaimState.EXPIRED, None)
    assert second.note("issued") == f"claim {second.claim}, attempt 2"
    assert (await lab.acts(TAG))[2:] == ["claim.expired", "claim.asked", "claim.issued"]


async def test_the_shortest_lease_of_all_policies_counts(lab: Lab) -> None:
    await lab.policy("brief", lease=timedelta(hours=1))
    await lab.delegate("acme-9", policy="brief")
    await lab.own(TAG, delegate="acme-9")
    await lab.ask(TAG)
    assert (await lab.claim(TAG)).lease_until == START + timedelta(hours=1)


async def test_once_confirmed_nothing_is_given_again_until_it_is_released(lab: Lab) -> None:
    await lab.own(TAG)
    first = await lab.ask(TAG)
    await lab.confirm(TAG, first.claim)
    reply = await lab.ask(TAG)
    assert (reply.fault, reply.retry_after) == ("NotEntitled", None)
    assert reply.trail.reasons == (f"claim {first.claim} of {TAG}: already confirmed",)
    await lab.alarmed()
    assert "alarm" not in lab.woken, "it is its own claim"
    await lab.store.ownership.release(TAG, lab.clock.now())
    assert (await lab.ask(TAG)).credential == ("user of acme-1", "password 1 of acme-1")


# --- while a delegate is asked ------------------------------------------------------------------------------------


async def test_while_its_delegate_is_asked_a_device_is_told_to_come_again(lab: Lab) -> None:
    lab.serve(busy_for=11.4)
    await lab.own(TAG)
    replies = []

    async def ask_again(*_: object) -> None:
        lab.servers.meanwhile = None
        replies.append(await lab.ask(TAG))
    lab.servers.meanwhile = ask_again
    assert (await lab.ask(TAG)).status == 200
    (busy,) = replies
    assert (busy.fault, busy.retry_after) == ("TryLater", 11)
    assert busy.trail.reasons == (f"claim {(await lab.claim(TAG)).claim_id} of {TAG}: being answered",)
    assert len(lab.servers.asked) == 1


async def test_a_device_is_never_told_to_come_again_at_once(lab: Lab) -> None:
    lab.serve(busy_for=0.2)
    await lab.own(TAG)
    replies = []

    async def ask_again(*_: object) -> None:
        lab.servers.meanwhile = None
        replies.append(await lab.ask(TAG))
    lab.servers.meanwhile = ask_again
    await lab.ask(TAG)
    assert replies[0].retry_after == 1


async def test_a_failed_callback_leaves_its_claim_free_for_the_next_try(lab: Lab) -> None:
    """The same claim is taken up at once, by the same id: the delegate gives the same credential for it."""
    await lab.own(TAG)
    lab.servers.broken["acme-1"] = "connection refused"
    reply = await lab.ask(TAG)
    assert (reply.fault, reply.retry_after, reply.level) == ("TryLater", 30, 20)
    assert reply.trail.reasons == ("callback failed: delegate acme-1: connection refused",)
    assert reply.steps[-3:] == ["claimed", "passed_over", "refused"]
    claim = await lab.claim(TAG)
    assert (claim.state, claim.sealed) == (ClaimState.ASKING, None)
    lab.servers.broken.clear()
    again = await lab.ask(TAG)
    assert (again.status, again.claim) == (200, claim.claim_id), "not busy any more"
    assert again.note("claimed") == "resumed after a broken try"
    assert [request.claim_id for _, request, _ in lab.servers.asked] == [claim.claim_id] * 2
    assert len(await lab.claims(TAG)) == 1


async def test_a_claim_that_a_crash_left_asking_is_taken_up_when_its_time_is_over(lab: Lab) -> None:
    lab.serve(busy_for=10)
    await lab.own(TAG)

    async def crash(*_: object) -> None:
        raise asyncio.CancelledError
    lab.servers.meanwhile = crash
    with pytest.raises(asyncio.CancelledError):
        await lab.ask(TAG)
    lab.servers.meanwhile = None
    lab.clock.forward(seconds=9.9)
    assert (await lab.ask(TAG)).fault == "TryLater"
    lab.clock.forward(seconds=0.1)
    reply = await lab.ask(TAG)
    assert (reply.status, reply.note("claimed")) == (200, "resumed after a broken try")


async def test_each_delegate_that_may_be_asked_has_its_time(lab: Lab) -> None:
    """A claim is busy for as long as all of them may take, one after the other."""
    lab.serve(busy_for=10)
    await lab.delegate("acme-2")
    await lab.own(TAG)

    async def crash(*_: object) -> None:
        raise asyncio.CancelledError
    lab.servers.meanwhile = crash
    with pytest.raises(asyncio.CancelledError):
        await lab.ask(TAG)
    lab.servers.meanwhile = None
    lab.clock.forward(seconds=19)
    assert (await lab.ask(TAG)).fault == "TryLater"
    lab.clock.forward(seconds=1)
    assert (await lab.ask(TAG)).status == 200


async def test_what_crashed_at_settings_kept_here_is_issued_at_the_next_try(lab: Lab) -> None:
    """Its delegate was a server when it asked, and is kept here now."""
    await lab.own(TAG)
    lab.servers.broken["acme-1"] = "down"
    await lab.ask(TAG)
    await lab.delegate("acme-1", by="hosted", replace=True)
    reply = await lab.ask(TAG)
    assert reply.credential == ("root", f"pass of {TAG}")
    claim = await lab.claim(TAG)
    assert claim.state is ClaimState.ISSUED
    assert claim.callback is not None
    assert claim.callback.value == "hosted"


async def test_a_claim_that_is_released_while_its_delegate_is_asked_is_not_answered(lab: Lab) -> None:
    await lab.own(TAG)

    async def release(*_: object) -> None:
        await lab.store.ownership.release(TAG, lab.clock.now())
    lab.servers.meanwhile = release
    reply = await lab.ask(TAG)
    claim = await lab.claim(TAG)
    assert (reply.fault, reply.retry_after) == ("TryLater", 30)
    assert reply.trail.reasons == (f"claim {claim.claim_id} was ended while its delegate was asked",)
    assert (claim.state, claim.sealed) == (ClaimState.RELEASED, None)


async def test_a_broken_try_at_a_delegate_that_serves_it_no_more_makes_way_for_a_new_claim(lab: Lab) -> None:
    await lab.own(TAG)
    lab.servers.broken["acme-1"] = "down"
    await lab.ask(TAG)
    await lab.store.remove_device(TAG, today())
    await lab.own(TAG, customer="umbra")
    lab.clock.forward(minutes=1)
    reply = await lab.ask(TAG)
    assert reply.credential[0] == "user of umbra-1"
    new, old = await lab.claims(TAG)
    assert (old.customer, old.state, new.customer, new.attempt) == ("acme", ClaimState.EXPIRED, "umbra", 2)


# --- somebody else ------------------------------------------------------------------------------------------------


async def test_another_key_under_the_same_tag_gets_nothing_and_is_reported(lab: Lab) -> None:
    await lab.own(TAG)
    first = await lab.ask(TAG)
    reply = await lab.ask(TAG, key=key_of("thief"), peer="203.0.113.9")
    assert (reply.fault, reply.retry_after, reply.status) == ("NotEntitled", None, 500)
    assert reply.trail.reasons == (f"claim {first.claim} of {TAG}: taken by another",)
    assert reply.note("claimed") == "taken by another"
    assert b"password" not in reply.response.body
    assert lab.counted("delegator_second_claimants_total", identity="own") == 1
    await lab.alarmed()
    (contested,) = await lab.audit(act="claim.contested")
    assert (contested.service_tag, contested.customer, contested.delegate, contested.claim_id, contested.peer) == (
        TAG, "acme", "acme-1", first.claim, "203.0.113.9")
    assert (contested.at, contested.outcome) == (START, "NotEntitled")
    assert lab.woken == ["alarm"]
    assert (await lab.ask(TAG)).credential == first.credential, "who was first keeps it"


async def test_a_tag_stays_taken_after_it_was_confirmed(lab: Lab) -> None:
    await lab.own(TAG)
    first = await lab.ask(TAG)
    await lab.confirm(TAG, first.claim)
    reply = await lab.ask(TAG, key=key_of("thief"))
    assert reply.trail.reasons == (f"claim {first.claim} of {TAG}: taken by another",)


# --- limits -------------------------------------------------------------------------------------------------------


async def test_no_more_devices_are_served_than_the_customer_allows(lab: Lab) -> None:
    await lab.policy("acme", max_devices=2, replace=True)
    await lab.own("ABC0001", "ABC0002", "ABC0003")
    await lab.ask("ABC0001")
    await lab.ask("ABC0002")
    reply = await lab.ask("ABC0003")
    assert (reply.fault, reply.retry_after) == ("TryLater", 300)
    assert reply.trail.reasons == ("policy acme: all 2 devices are taken",)
    assert reply.note("claimed") == "over a limit"
    assert lab.counted("delegator_claims_total", outcome="over a limit") == 1
    assert len(lab.servers.asked) == 2
    assert not await lab.claims("ABC0003")
    await lab.store.ownership.release("ABC0001", lab.clock.now())
    assert (await lab.ask("ABC0003")).status == 200


async def test_the_places_of_claims_whose_lease_is_over_are_free(lab: Lab) -> None:
    await lab.policy("acme", max_devices=1, lease=timedelta(hours=1), replace=True)
    await lab.own("ABC0001", "ABC0002")
    await lab.ask("ABC0001")
    assert (await lab.ask("ABC0002")).fault == "TryLater"
    lab.clock.forward(hours=1)
    assert (await lab.ask("ABC0002")).status == 200
    assert (await lab.claim("ABC0001")).state is ClaimState.EXPIRED


async def test_a_device_has_so_many_attempts_and_no_more(lab: Lab) -> None:
    await lab.policy("acme", attempts=2, lease=timedelta(hours=1), replace=True)
    await lab.own(TAG)
    for _ in range(2):
        assert (await lab.ask(TAG)).status == 200
        lab.clock.forward(hours=1)
    reply = await lab.ask(TAG)
    assert (reply.fault, reply.trail.reasons) == ("NotEntitled", ("policy acme: 2 attempts are used up",))


async def test_claims_per_hour_are_counted_and_when_there_is_room_again_is_said(lab: Lab) -> None:
    await lab.policy("acme", claims_per_hour=2, replace=True)
    await lab.own("ABC0001", "ABC0002", "ABC0003")
    for tag in ("ABC0001", "ABC0002"):
        assert (await lab.ask(tag)).status == 200
    reply = await lab.ask("ABC0003")
    assert (reply.fault, reply.retry_after) == ("TryLater", 61 * 60)
    assert reply.trail.reasons == ("policy acme: 2 of 2 claims an hour are used",)
    assert (await lab.ask("ABC0001")).status == 200, "the same answer again is no claim"
    lab.clock.forward(minutes=61)
    assert (await lab.ask("ABC0003")).status == 200


async def test_limits_hold_however_many_ask_at_once(lab: Lab) -> None:
    await lab.policy("acme", max_devices=3, replace=True)
    tags = [f"ABC{number:04}" for number in range(12)]
    await lab.own(*tags)
    replies = await asyncio.gather(*(lab.ask(tag) for tag in tags))
    assert sorted(reply.fault or "" for reply in replies) == [""] * 3 + ["TryLater"] * 9


# --- a store that fails -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["open_claim", "issue"])
async def test_a_store_that_fails_is_our_own_fault_and_nothing_leaves(
        lab: Lab, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await lab.own(TAG)

    async def fail(*_: object, **__: object) -> None:
        raise DelegatorError(Kind.UNAVAILABLE, "database delegator.db: disk I/O error")
    monkeypatch.setattr(lab.store, step, fail)
    reply = await lab.ask(TAG)
    assert (reply.fault, reply.status, reply.level) == ("Unavailable", 500, 40)
    assert reply.trail.reasons == ("database delegator.db: disk I/O error",)
    assert b"disk" not in reply.response.body
    assert b"password" not in reply.response.body
