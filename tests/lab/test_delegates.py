"""Who is asked for the credential: the delegate that is right, another of the same customer, nobody who rests (A10).
One customer's trouble is nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from delegator.callbacks.breaker import OPEN_AFTER, REST
from delegator.model import Claim, ClaimState, NotificationKind, Secret
from delegator.store import milliseconds
from delegator.store.stand_ins import StandIn
from delegator.store.transaction import Query, Transaction

from .lab import PEER, START, Lab

TAG = "ABC1234"


async def several(lab: Lab) -> None:
    """Acme has three delegates now, asked in this order."""
    await lab.delegate("acme-1", priority=1, replace=True)
    await lab.delegate("acme-2", priority=2)
    await lab.delegate("acme-3", priority=3)


# --- one stands in for another ------------------------------------------------------------------------------------


async def test_a10_when_a_delegate_fails_the_next_one_is_asked_and_answers_for_it(lab: Lab) -> None:
    await several(lab)
    await lab.own(TAG)
    lab.servers.broken["acme-1"] = "down"
    reply = await lab.ask(TAG)
    assert lab.servers.names == ["acme-1", "acme-2"]
    assert reply.credential == ("user of acme-2", "password 0 of acme-2")
    assert reply.delegate[0] == "https://acme-2.example:443/provisioning"
    assert reply.trail.facts["delegate"] == "acme-2"
    assert reply.note("called_back") == "callback soap to acme-2"
    claim = await lab.claim(TAG)
    assert (claim.delegate, claim.state) == ("acme-2", ClaimState.ISSUED)
    assert [request.claim_id for _, request, _ in lab.servers.asked] == [claim.claim_id] * 2
    assert await lab.store.taken("acme", "acme-1") == {"customer/acme": 1, "delegate/acme-1": 0}
    assert await lab.store.taken("acme", "acme-2") == {"customer/acme": 1, "delegate/acme-2": 1}
    again = await lab.ask(TAG)
    assert again.credential == reply.credential
    assert again.delegate == reply.delegate


async def test_a10_who_was_passed_over_stands_in_log_trail_audit_and_metric(
        lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    await several(lab)
    await lab.own(TAG)
    lab.servers.broken |= {"acme-1": "connection refused", "acme-2": "HTTP 403"}
    reply = await lab.ask(TAG)
    causes = ["delegate acme-1: connection refused", "delegate acme-2: HTTP 403"]
    assert reply.credential[0] == "user of acme-3"
    assert [mark.note for mark in reply.trail.marks if mark.step.called == "passed_over"] == causes
    assert [one.getMessage() for one in caplog.records if one.levelname == "WARNING"] == [
        f"delegate acme-3 answered for device {TAG}, as others gave nothing: {'; '.join(causes)}"]
    (row,) = await lab.audit(service_tag=TAG, act="claim.issued")
    assert [note for name, _,
            note in row.detail["trail"]["steps"] if name == "passed_over"] == causes  # type: ignore[index]
    assert [lab.counted("delegator_delegate_failures_total", delegate=f"acme-{n}") for n in (1, 2, 3)] == [1, 1, 0]
    assert lab.counted("delegator_delegate_call_duration_seconds_count", delegate="acme-3") == 1


async def test_a10_who_rests_is_told_of_as_passed_over_too(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    await several(lab)
    tags = [f"ABC{number}" for number in range(1000, 1000 + OPEN_AFTER + 1)]
    await lab.own(*tags)
    lab.servers.broken["acme-1"] = "down"
    for tag in tags:
        reply = await lab.ask(tag)
    assert lab.servers.names[-2:] == ["acme-2", "acme-2"], "the last one asks acme-1 no more"
    assert reply.note("passed_over") == "delegate acme-1: left alone after its failures"
    assert any("left alone" in one.getMessage() for one in caplog.records)
    assert lab.counted("delegator_delegate_failures_total", delegate="acme-1") == len(tags)


async def test_a10_who_rests_is_told_of_in_its_turn_and_only_where_its_turn_came(
        lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    await several(lab)
    tags = [f"ABC{number}" for number in range(1000, 1000 + OPEN_AFTER)]
    await lab.own(*tags, delegate="acme-2")
    await lab.own(TAG, "ABC9999")
    lab.servers.broken["acme-2"] = "down"
    for tag in tags:
        await lab.ask(tag)
    assert lab.breakers == [("acme-2", "open")]
    reply = await lab.ask("ABC9999")
    assert reply.credential[0] == "user of acme-1"
    assert "passed_over" not in reply.steps, "the first one answered; acme-2 was not wanted"
    assert not [one for one in caplog.records if "gave nothing" in one.getMessage()]
    lab.servers.broken["acme-1"] = "down too"
    reply = await lab.ask(TAG)
    assert reply.credential[0] == "user of acme-3"
    assert [mark.note for mark in reply.trail.marks if mark.step.called == "passed_over"] == [
        "delegate acme-1: down too", "delegate acme-2: left alone after its failures"]


async def test_a10_where_nobody_is_passed_over_nothing_is_said_of_it(
        lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    await several(lab)
    await lab.own(TAG)
    assert "passed_over" not in (await lab.ask(TAG)).steps
    assert not [one for one in caplog.records if one.levelname == "WARNING"]
    assert b"delegator_delegate_failures_total{" not in lab.metrics.text()


async def test_a10_when_all_fail_every_failure_is_told_and_the_device_comes_again(lab: Lab) -> None:
    await several(lab)
    await lab.own(TAG)
    lab.servers.broken |= {"acme-1": "down", "acme-2": "nonsense", "acme-3": "silent"}
    reply = await lab.ask(TAG)
    assert (reply.fault, reply.retry_after) == ("TryLater", 30)
    assert reply.trail.reasons == tuple(f"callback failed: delegate {name}: {why}" for name, why in (
        ("acme-1", "down"), ("acme-2", "nonsense"), ("acme-3", "silent")))
    assert reply.trail.facts["delegate"] == "acme-1"
    assert (await lab.claim(TAG)).state is ClaimState.ASKING


async def test_a10_the_delegate_a_device_is_registered_with_has_no_stand_in(lab: Lab) -> None:
    await several(lab)
    await lab.own(TAG, delegate="acme-2")
    lab.servers.broken["acme-2"] = "down"
    assert (await lab.ask(TAG)).fault == "TryLater"
    assert lab.servers.names == ["acme-2"]


async def test_a10_another_customers_delegate_never_stands_in(lab: Lab) -> None:
    await lab.own(TAG)
    lab.servers.broken["acme-1"] = "down"
    assert (await lab.ask(TAG)).fault == "TryLater"
    assert lab.servers.names == ["acme-1"]


async def test_a10_who_stands_in_does_so_within_its_own_policy(lab: Lab) -> None:
    """Refused by its own policy it is no stand-in at all; over its limit it is not even asked."""
    await lab.policy("closed", valid_until=START)
    await lab.policy("one", max_devices=1)
    await lab.delegate("acme-1", priority=1, replace=True)
    await lab.delegate("acme-2", priority=2, policy="closed")
    await lab.delegate("acme-3", priority=3, policy="one")
    await lab.own(TAG, "ABC9999")
    lab.servers.broken["acme-1"] = "down"
    assert (await lab.ask(TAG)).credential[0] == "user of acme-3"
    reply = await lab.ask("ABC9999")
    assert (reply.fault, reply.retry_after) == ("TryLater", 30)
    assert reply.trail.reasons == (
        "callback failed: delegate acme-1: down",
        "callback failed: delegate acme-3 may not stand in: policy one: all 1 devices are taken")
    assert lab.servers.names == ["acme-1", "acme-3", "acme-1"]


async def test_a10_the_place_that_another_took_while_a_stand_in_was_asked_is_not_given_twice(lab: Lab) -> None:
    await lab.policy("one", max_devices=1)
    await lab.delegate("acme-1", priority=1, replace=True)
    await lab.delegate("acme-2", priority=2, policy="one")
    await lab.own(TAG, "ABC9999")
    lab.servers.broken["acme-1"] = "down"

    async def faster(delegate: object, request: object) -> None:
        if lab.servers.names[-1] == "acme-2":
            lab.servers.meanwhile = None
            assert (await lab.ask("ABC9999")).status == 200
    lab.servers.meanwhile = faster
    reply = await lab.ask(TAG)
    assert (reply.fault, reply.trail.reasons[-1]) == (
        "TryLater", "callback failed: delegate acme-2 may not stand in: policy one: all 1 devices are taken")
    assert b"password" not in reply.response.body
    assert (await lab.claim(TAG)).state is ClaimState.ASKING
    assert reply.note("passed_over") == "delegate acme-1: down"
    assert reply.trail.unanswered == ["acme-1"], "a limit of ours is no failure of acme-2"
    assert lab.counted("delegator_delegate_failures_total", delegate="acme-2") == 0


async def test_a10_only_who_the_claim_was_not_opened_for_must_fit_anew(
        lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The delegate's own policy was judged with the claim; its place is taken already."""
    await lab.policy("one", max_devices=1)
    await lab.delegate("acme-1", priority=1, policy="one", replace=True)
    await lab.delegate("acme-2", priority=2, policy="one")
    await lab.own(TAG)
    fitted, must_fit, issue, within = [], lab.store.must_fit, lab.store.issue, []

    async def fitting(claim_id: str, stand_in: StandIn, now: datetime) -> None:
        fitted.append(stand_in.delegate)
        await must_fit(claim_id, stand_in, now)

    async def issuing(*said: Any) -> Any:
        within.append(said[3].stand_in)
        return await issue(*said)
    monkeypatch.setattr(lab.store, "must_fit", fitting)
    monkeypatch.setattr(lab.store, "issue", issuing)
    assert (await lab.ask(TAG)).credential[0] == "user of acme-1"
    assert (fitted, within) == ([], [None])
    await lab.store.ownership.release(TAG, START)
    lab.servers.broken["acme-1"] = "down"
    assert (await lab.ask(TAG)).credential[0] == "user of acme-2"
    assert fitted == ["acme-2"]


async def test_a10_a_stand_ins_credential_ends_when_its_own_lease_does(lab: Lab) -> None:
    await lab.policy("brief", lease=timedelta(hours=1))
    await lab.delegate("acme-1", priority=1, replace=True)
    await lab.delegate("acme-2", priority=2, policy="brief")
    await lab.own(TAG)
    lab.servers.broken["acme-1"] = "down"
    await lab.ask(TAG)
    assert [until for _, _, until in lab.servers.asked] == [START + timedelta(hours=24), START + timedelta(hours=1)]
    assert (await lab.claim(TAG)).lease_until == START + timedelta(hours=1)


async def test_a10_a_longer_lease_of_a_stand_in_lengthens_nothing(lab: Lab) -> None:
    await lab.policy("long", lease=timedelta(hours=72))
    await lab.delegate("acme-1", priority=1, replace=True)
    await lab.delegate("acme-2", priority=2, policy="long")
    await lab.own(TAG)
    lab.servers.broken["acme-1"] = "down"
    await lab.ask(TAG)
    assert {until for _, _, until in lab.servers.asked} == {START + timedelta(hours=24)}
    assert (await lab.claim(TAG)).lease_until == START + timedelta(hours=24)


async def test_a10_settings_kept_here_can_stand_in_for_a_server(lab: Lab) -> None:
    await lab.delegate("acme-1", priority=1, replace=True)
    await lab.delegate("acme-2", priority=2, by="hosted", hosted={"mail_to": "ops@acme.example"})
    await lab.own(TAG)
    lab.servers.broken["acme-1"] = "down"
    reply = await lab.ask(TAG)
    assert reply.credential == ("root", f"pass of {TAG}")
    claim = await lab.claim(TAG)
    assert claim.callback is not None
    assert (claim.delegate, claim.callback.value) == ("acme-2", "hosted")
    (told,) = await lab.outbox()
    assert (told.recipient, told.claim_id) == ("acme-2", claim.claim_id)
    assert lab.woken == ["issued"]


# --- who failed often rests ---------------------------------------------------------------------------------------


async def tire(lab: Lab, *tags: str) -> None:
    """Acme's delegate fails until it is left alone."""
    lab.servers.broken["acme-1"] = "down"
    for tag in tags[:OPEN_AFTER]:
        await lab.ask(tag)
    assert lab.breakers == [("acme-1", "open")]
    lab.servers.asked.clear()


TAGS = [f"ABC{number:04}" for number in range(OPEN_AFTER + 3)]


async def test_a_delegate_that_rests_is_not_asked_and_devices_are_told_until_when(lab: Lab) -> None:
    await lab.own(*TAGS)
    await tire(lab, *TAGS)
    lab.clock.forward(seconds=10)
    reply = await lab.ask(TAGS[-1])
    assert not lab.servers.asked
    assert (reply.fault, reply.retry_after) == ("TryLater", round(REST) - 10)
    assert reply.trail.reasons == (f"callback failed: delegate acme-1: left alone after {OPEN_AFTER} failures",)


async def test_a_delegate_that_rests_is_passed_over_where_another_can_stand_in(lab: Lab) -> None:
    await lab.own(*TAGS)
    await tire(lab, *TAGS)
    await lab.delegate("acme-1", priority=1, replace=True)
    await lab.delegate("acme-2", priority=2)
    reply = await lab.ask(TAGS[-1])
    assert lab.servers.names == ["acme-2"]
    assert reply.credential[0] == "user of acme-2"
    lab.servers.broken["acme-2"] = "down too"
    reply = await lab.ask(TAGS[-2])
    assert reply.trail.reasons == ("callback failed: delegate acme-2: down too",), "who rests costs not even a word"


async def test_after_its_rest_a_delegate_is_asked_again_and_serves(lab: Lab) -> None:
    await lab.own(*TAGS)
    await tire(lab, *TAGS)
    lab.servers.broken.clear()
    lab.clock.forward(seconds=REST)
    assert (await lab.ask(TAGS[-1])).credential[0] == "user of acme-1"
    assert lab.breakers == [("acme-1", "open"), ("acme-1", "half-open"), ("acme-1", "closed")]


async def test_one_customers_resting_delegate_is_nobody_elses_trouble(lab: Lab) -> None:
    await lab.own(*TAGS)
    await lab.own("UMB1234", customer="umbra")
    await tire(lab, *TAGS)
    assert (await lab.ask("UMB1234")).status == 200


# --- settings kept here -------------------------------------------------------------------------------------------


async def test_settings_kept_here_are_opened_and_issued_in_one_commit(lab: Lab) -> None:
    await lab.own(TAG, customer="globex")
    before = lab.store.commits.transactions
    reply = await lab.ask(TAG)
    assert lab.store.commits.transactions == before + 1
    assert reply.credential == ("root", f"pass of {TAG}")
    assert reply.text("NotAfter") == "2026-01-02T12:00:00Z"
    assert reply.note("claimed") == "opened and issued in one commit"
    assert reply.note("called_back") == "callback hosted, set here by the customer"
    assert await lab.acts(TAG) == ["claim.issued"]
    (issued,) = await lab.audit(service_tag=TAG, act="claim.issued")
    trail = issued.detail["trail"]
    assert isinstance(trail, dict)
    assert [step[0] for step in trail["steps"]][-1] == "decided"
    assert (issued.detail["event"], issued.detail["callback"], issued.peer) == (
        "asked and answered at once", "hosted", PEER)
    assert lab.woken == [], "nobody is to be told"


async def test_what_is_given_at_once_is_not_unsealed_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is at hand in the clear; opening it anew would cost every such device another decryption."""
    await lab.own(TAG, customer="globex")
    opened, reveal = [], lab.store.reveal

    def counted(claim: Claim) -> str:
        opened.append(claim.claim_id)
        return reveal(claim)
    monkeypatch.setattr(lab.store, "reveal", counted)
    first = await lab.ask(TAG)
    assert opened == []
    assert (await lab.ask(TAG)).credential == first.credential
    assert opened == [first.claim]


async def test_only_a_claim_that_waits_for_its_delegate_is_busy(lab: Lab) -> None:
    """Issued at once it never was; else until its delegate answered."""
    busy = "SELECT busy_until FROM claims WHERE service_tag = $1"

    def looked(tag: str) -> Callable[[], Transaction[int]]:
        def look() -> Transaction[int]:
            rows = yield Query(busy, (tag,))
            return int(str(rows[0][0]))
        return look

    async def at(delegate: object, request: object) -> None:
        asked.append(await lab.store._driver.run(looked(TAG)))
    asked: list[int] = []
    lab.servers.meanwhile = at
    await lab.own(TAG)
    await lab.own("GLO1234", customer="globex")
    await lab.ask(TAG)
    await lab.ask("GLO1234")
    assert asked == [milliseconds(START + timedelta(seconds=lab.setup.busy_for))]
    assert [await lab.store._driver.run(looked(tag)) for tag in (TAG, "GLO1234")] == [0, 0]


async def test_an_administrator_is_told_of_what_was_issued_here_and_never_the_credential(lab: Lab) -> None:
    hosted = {"mail_to": "ops@globex.example", "webhook_url": "https://hook.globex.example/",
              "webhook_secret": Secret("s" * 32)}
    await lab.delegate("globex-1", "globex", by="hosted", hosted=hosted, replace=True)
    await lab.own(TAG, customer="globex")
    reply = await lab.ask(TAG, location={"IPAddress": "10.0.0.9"})
    told = await lab.outbox()
    assert {one.carrier for one in told} == {NotificationKind.MAIL, NotificationKind.WEBHOOK}
    for one in told:
        assert (one.claim_id, one.customer, one.recipient, one.body["delegator"], one.body["service_tag"]) == (
            reply.claim, "globex", "globex-1", "delegator.example", TAG)
        assert (one.body["peer"], one.body["claimed_address"], one.at) == (PEER, "10.0.0.9", START)
    assert lab.woken == ["issued"]
    assert "pass of" not in str(told)
    await lab.ask(TAG)
    assert len(await lab.outbox()) == 2, "the same answer again is no news"
    assert lab.woken == ["issued"]


@pytest.mark.parametrize("customer", ["acme", "globex"])
async def test_nobody_is_told_where_nobody_is_named(lab: Lab, customer: str) -> None:
    await lab.own(TAG, customer=customer)
    await lab.ask(TAG)
    assert not await lab.outbox()
    assert not lab.woken
