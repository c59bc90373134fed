"""How provisioning ended: the device says it, the credential is wiped, the delegate is told (blocks 217 and 218)."""

from __future__ import annotations

import logging

import pytest

from delegator.model import ClaimState, Result

from ..clock import today
from .lab import OTHER_SECRET, PEER, SECRET, SHARED, START, Lab, Wire, certificate, envelope, key_of

TAG = "ABC1234"


@pytest.fixture
async def claim(lab: Lab) -> str:
    """A device was given its credential."""
    await lab.own(TAG)
    return (await lab.ask(TAG)).claim


async def test_a_device_confirms_and_its_credential_is_wiped(lab: Lab, claim: str) -> None:
    lab.clock.forward(minutes=5)
    reply = await lab.confirm(TAG, claim, peer="192.0.2.8")
    assert (reply.status, reply.level) == (200, logging.INFO)
    assert b"ConfirmProvisioningResponse" in reply.response.body
    there = await lab.claim(TAG)
    assert (there.state, there.sealed, there.result, there.detail, there.ended_at) == (
        ClaimState.CONFIRMED, None, Result.DEPLOYED, None, lab.clock.now())
    assert reply.steps == ["connected", "authenticated", "asked", "confirmed", "answered"]
    assert reply.note("confirmed") == f"{TAG}: Deployed"
    assert reply.trail.facts == {"operation": "ConfirmProvisioning", "tag": TAG, "customer": "acme",
                                 "delegate": "acme-1", "identity": "own", "outcome": "Answered"}
    assert lab.woken == ["deployed"]
    row = (await lab.audit(service_tag=TAG))[-1]
    assert (row.act.value, row.actor, row.peer, row.at, row.outcome) == (
        "claim.confirmed", "device", "192.0.2.8", lab.clock.now(), "done")
    assert (row.detail["event"], row.detail["result"], row.detail["words"]) == ("deployed", "Deployed", None)
    trail = row.detail["trail"]
    assert isinstance(trail, dict)
    assert [step[0] for step in trail["steps"]] == ["connected", "authenticated", "asked"]
    assert await lab.acts(TAG) == ["claim.asked", "claim.issued", "claim.confirmed"]


async def test_confirming_again_changes_nothing(lab: Lab, claim: str) -> None:
    await lab.confirm(TAG, claim)
    there = await lab.claim(TAG)
    lab.clock.forward(minutes=5)
    assert (await lab.confirm(TAG, claim)).status == 200
    assert (await lab.confirm(TAG, claim, "Failed", detail="too late")).status == 200
    assert await lab.claim(TAG) == there
    assert (await lab.acts(TAG)).count("claim.confirmed") == 1
    assert "claim.failed" not in await lab.acts(TAG)


async def test_a_failure_is_kept_and_the_device_may_ask_again(lab: Lab, claim: str) -> None:
    lab.clock.forward(minutes=5)
    reply = await lab.confirm(TAG, claim, "Failed", detail="no route to host")
    assert (reply.status, reply.note("confirmed")) == (200, f"{TAG}: Failed")
    there = await lab.claim(TAG)
    assert (there.state, there.result, there.detail, there.ended_at) == (
        ClaimState.ISSUED, Result.FAILED, "no route to host", None)
    (row,) = await lab.audit(act="claim.failed")
    assert (row.detail["result"], row.detail["words"], row.detail["event"]) == ("Failed", "no route to host", "failed")
    again = await lab.ask(TAG)
    assert again.claim == claim
    assert (await lab.confirm(TAG, claim, "Failed", detail="no route to host")).status == 200
    assert len(await lab.audit(act="claim.failed")) == 1, "said twice it is one"
    assert (await lab.confirm(TAG, claim, "Failed", detail="something else")).status == 200
    assert len(await lab.audit(act="claim.failed")) == 2
    assert (await lab.confirm(TAG, claim)).status == 200
    assert (await lab.claim(TAG)).state is ClaimState.CONFIRMED


async def test_only_who_was_given_it_confirms(lab: Lab, claim: str) -> None:
    for who in ({"key": key_of("thief")}, {"shown": SHARED}, {"shown": SHARED, "secret": SECRET},
                {"shown": SHARED, "secret": OTHER_SECRET}):
        reply = await lab.confirm(TAG, claim, **who)  # type: ignore[arg-type]
        assert (reply.fault, reply.retry_after, reply.level) == ("NotEntitled", None, logging.INFO)
        assert reply.trail.reasons == (f"claim {claim} is not open for this device",)
    assert (await lab.claim(TAG)).state is ClaimState.ISSUED
    assert not lab.woken


async def test_whoever_shows_no_certificate_confirms_nothing(lab: Lab, claim: str) -> None:
    from .lab import confirming
    reply = await lab.post(confirming(claim), Wire(None))
    assert (reply.fault, reply.trail.reasons) == ("IdentityRejected", ("no certificate was shown",))


@pytest.mark.parametrize("state", ["no such claim", "released", "expired", "asking"])
async def test_what_is_not_open_is_not_confirmed(lab: Lab, claim: str, state: str) -> None:
    if state == "released":
        await lab.store.ownership.release(TAG, lab.clock.now())
    elif state == "expired":
        lab.clock.forward(hours=24)
        await lab.store.expire_lapsed(lab.clock.now())
    elif state == "asking":
        await lab.own("ABC9999")
        lab.servers.broken["acme-1"] = "down"
        await lab.ask("ABC9999")
        claim = (await lab.claim("ABC9999")).claim_id
    tag = "ABC9999" if state == "asking" else TAG
    reply = await lab.confirm(tag, "0" * 32 if state == "no such claim" else claim)
    assert reply.fault == "NotEntitled"
    assert lab.woken == []
    assert (await lab.claim(tag)).result is None


async def test_a_shared_certificate_confirms_with_the_secret_it_asked_with(lab: Lab) -> None:
    from delegator.model import IdentityRule
    await lab.policy("acme", replace=True, identity=IdentityRule.EITHER)
    await lab.own(TAG)
    claim = (await lab.ask(TAG, shown=SHARED)).claim
    for secret in (None, OTHER_SECRET):
        assert (await lab.confirm(TAG, claim, shown=SHARED, secret=secret)).fault == "NotEntitled"
    reply = await lab.confirm(TAG, claim, shown=SHARED, secret=SECRET)
    assert (reply.status, reply.trail.facts["identity"]) == (200, "shared")
    assert (await lab.claim(TAG)).state is ClaimState.CONFIRMED


# --- delegates are told -------------------------------------------------------------------------------------------


async def test_the_delegate_is_told_once_how_it_ended(lab: Lab, claim: str) -> None:
    await lab.tell()
    assert not lab.servers.told, "nothing has ended yet"
    await lab.confirm(TAG, claim)
    await lab.tell()
    await lab.tell()
    ((name, told),) = lab.servers.told
    assert (name, told.claim_id, told.result, told.detail) == ("acme-1", claim, Result.DEPLOYED, None)


async def test_the_delegate_is_told_of_a_failure_and_then_of_the_end(lab: Lab, claim: str) -> None:
    await lab.confirm(TAG, claim, "Failed", detail="no route to host")
    await lab.tell()
    await lab.confirm(TAG, claim)
    await lab.tell()
    assert [(told.result, told.detail) for _, told in lab.servers.told] == [
        (Result.FAILED, "no route to host"), (Result.DEPLOYED, None)]


async def test_who_cannot_be_told_is_told_later_and_holds_up_nobody(
        lab: Lab, claim: str, caplog: pytest.LogCaptureFixture) -> None:
    await lab.own("UMB1234", customer="umbra")
    other = (await lab.ask("UMB1234")).claim
    await lab.confirm(TAG, claim)
    await lab.confirm("UMB1234", other)
    lab.servers.deaf.add("acme-1")
    await lab.tell()
    assert [name for name, _ in lab.servers.told] == ["umbra-1"]
    assert f"delegate acme-1 was not told of claim {claim}: delegate acme-1: deaf" in caplog.text
    lab.servers.deaf.clear()
    await lab.tell()
    assert [name for name, _ in lab.servers.told] == ["umbra-1", "acme-1"]


async def test_a_delegate_that_is_gone_waits_for_nobody(lab: Lab, claim: str) -> None:
    await lab.own("UMB1234", customer="umbra")
    other = (await lab.ask("UMB1234")).claim
    await lab.confirm("UMB1234", other)
    await lab.store.remove_device("UMB1234", today())
    await lab.store.remove("delegate", "umbra-1", today())
    await lab.tell()
    assert not lab.servers.told
    assert not await lab.untold()


@pytest.mark.parametrize("by", ["ssh", "local", "hosted"])
async def test_a_delegate_with_nobody_in_it_is_told_nothing_and_waits_for_nothing(lab: Lab, by: str) -> None:
    await lab.delegate("acme-9", by=by)
    await lab.own(TAG, delegate="acme-9")
    claim = (await lab.ask(TAG)).claim
    await lab.confirm(TAG, claim)
    await lab.tell()
    assert not lab.servers.told
    assert not await lab.untold()


async def test_a_delegate_that_stood_in_is_the_one_that_is_told(lab: Lab) -> None:
    await lab.delegate("acme-1", priority=1, replace=True)
    await lab.delegate("acme-2", priority=2)
    await lab.own(TAG)
    lab.servers.broken["acme-1"] = "down"
    claim = (await lab.ask(TAG)).claim
    await lab.confirm(TAG, claim)
    await lab.tell()
    assert [name for name, _ in lab.servers.told] == ["acme-2"]


# --- addresses ----------------------------------------------------------------------------------------------------


def moving(tag: str, new: str = "10.0.0.2", old: str | None = "10.0.0.1") -> bytes:
    said = "" if old is None else f"<OldAddress>{old}</OldAddress>"
    return envelope("NotifyAddressChange", f"<Device><ServiceTag>{tag}</ServiceTag></Device>{said}"
                                           f"<NewAddress>{new}</NewAddress>")


async def test_a_device_tells_its_new_address(lab: Lab) -> None:
    reply = await lab.post(moving(TAG), Wire(certificate(TAG)))
    assert reply.status == 200
    assert b"NotifyAddressChangeResponse" in reply.response.body
    assert reply.trail.facts == {"operation": "NotifyAddressChange", "tag": TAG, "identity": "own",
                                 "new_address": "10.0.0.2", "old_address": "10.0.0.1", "outcome": "Answered"}
    assert reply.note("identified") == f"{TAG} is at 10.0.0.2 now"
    (row,) = await lab.audit(service_tag=TAG)
    assert (row.outcome, row.detail["new_address"], row.detail["old_address"], row.at, row.peer) == (
        "Answered", "10.0.0.2", "10.0.0.1", START, PEER)


async def test_an_old_address_need_not_be_said(lab: Lab) -> None:
    reply = await lab.post(moving(TAG, old=None), Wire(certificate(TAG)))
    assert reply.trail.facts["old_address"] == ""


@pytest.mark.parametrize("shown", [SHARED, "XYZ9999"])
async def test_nobody_else_tells_a_devices_address(lab: Lab, shown: str) -> None:
    reply = await lab.post(moving(TAG), Wire(certificate(shown)))
    assert (reply.fault, reply.trail.reasons) == (
        "IdentityRejected", (f"an address change of {TAG} needs its own certificate",))
    assert "new_address" not in reply.trail.facts
