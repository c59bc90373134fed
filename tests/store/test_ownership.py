"""Contract: released, returned to stock, repaired. Whoever owns a device, and which key may speak for it (A4, A8)."""

from __future__ import annotations

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.model import ClaimState, Order, Registration, Result
from delegator.model.owned import Standing
from delegator.policy import Why
from delegator.store import Outcome
from delegator.store.audit.inspection import Wanted

from ..clock import today

TAG, OLD, NEW, THIRD = "ABC1234", "key:" + "0a" * 32, "key:" + "1b" * 32, "key:" + "2c" * 32


@pytest.fixture
async def owned(shop):
    await shop.add_devices([Registration("acme", TAG, "SN-1", ("00:1A:2B:3C:4D:5E",), order="4711",
                                         delegate="acme-hosted")], today())
    return shop


@pytest.fixture
async def confirmed(owned, ask, at):
    """The old board holds the tag, as after a year in the field."""
    claim = (await owned.open_and_issue(ask(by=OLD), lambda claim: "root / secret")).claim
    return await owned.confirm(claim.claim_id, OLD, Result.DEPLOYED, None, at(1))


async def outcome(store, ask, by: str, minute: float):
    return (await store.open_and_issue(ask(by=by, minute=minute), lambda claim: "new")).outcome


async def acts(store, act: str):
    return [one.entry for one in await store.audit.list(Wanted(act=act), 100)]


# --- released -----------------------------------------------------------------------------------------------------


async def test_A8_after_a_factory_reset_a_device_gets_nothing_until_an_operator_releases_it(
        owned, confirmed, ask, at) -> None:
    assert await outcome(owned, ask, OLD, 2) is Outcome.DONE
    (released,) = await owned.ownership.release(TAG, at(3), "factory reset")
    assert (released.claim_id, released.state) == (confirmed.claim_id, ClaimState.RELEASED)
    opened = await owned.open_and_issue(ask(by=OLD, minute=4), lambda claim: "new")
    assert (opened.outcome, opened.claim.attempt, owned.reveal(opened.claim)) == (Outcome.ISSUED, 1, "new")
    assert (await owned.ownership.device(TAG)).customer == "acme"


# --- back to stock ------------------------------------------------------------------------------------------------


async def test_A4_a_returned_device_is_nobodys_and_holds_nothing(owned, ask, at) -> None:
    claim = (await owned.open_and_issue(ask(by=OLD), lambda claim: "root / secret")).claim
    (before,) = await owned.ownership.give_back([TAG], "returned", at(2), "RMA 77")
    assert before.customer == "acme"
    device = await owned.ownership.device(TAG)
    assert (device.customer, device.delegate, device.order) == (None, None, "returned")
    assert (device.serial_number, device.mac_addresses) == ("SN-1", ("00:1A:2B:3C:4D:5E",))
    ended = await owned.claim(claim.claim_id)
    assert (ended.state, ended.sealed) == (ClaimState.RELEASED, None)
    assert set((await owned.taken("acme", "acme-1")).values()) == {0}, "its place is given back"
    (row,) = await acts(owned, "device.returned")
    assert (row.customer, row.reasons, row.detail["order_before"]) == ("acme", ("RMA 77",), "4711")
    (of_claim,) = await acts(owned, "claim.released")
    assert of_claim.detail["event"] == "returned to stock"


async def test_A4_a_returned_device_can_be_sold_to_anybody(owned, at) -> None:
    await owned.ownership.give_back([TAG], "returned", at(2))
    with pytest.raises(DelegatorError, match="in stock already") as refusal:
        await owned.ownership.give_back([TAG], "returned", at(3))
    assert refusal.value.kind is Kind.CONFLICT
    await owned.add_devices([Registration("umbra", TAG, "SN-1", ("00:1A:2B:3C:4D:5E",))], today(), replace=True)
    assert (await owned.ownership.device("SN-1")).customer == "umbra"


async def test_A6_to_look_at_a_device_changes_nothing_and_stops_nobody(owned, monkeypatch):
    monkeypatch.setattr(owned._driver, "run", None)
    assert (await owned.ownership.device("SN-1")).service_tag == TAG
    with pytest.raises(DelegatorError) as refusal:
        await owned.ownership.device("SN-2")
    assert refusal.value.kind is Kind.NOT_FOUND


async def test_A4_a_device_that_an_order_made_its_owners_does_not_stay_so_by_it(shop, at) -> None:
    await shop.orders.add(Order("4711", "acme"), at(0))
    await shop.add_devices([Registration(None, TAG, order="4711")], today())
    assert (await shop.ownership.device(TAG)).customer == "acme"
    with pytest.raises(DelegatorError, match=r"order 4711 is of customer acme") as refusal:
        await shop.ownership.give_back([TAG], "4711", at(1))
    assert refusal.value.kind is Kind.CONFLICT
    await shop.ownership.give_back([TAG], "returned", at(1))
    assert (await shop.ownership.device(TAG)).customer is None


async def test_A4_many_are_returned_or_none(owned, at) -> None:
    await owned.add_devices([Registration("acme", None, "SN-2"), Registration("umbra", "UMB0001")], today())
    with pytest.raises(DelegatorError, match="NOBODY1") as refusal:
        await owned.ownership.give_back([TAG, "SN-2", "NOBODY1"], "returned", at(1))
    assert refusal.value.kind is Kind.NOT_FOUND
    assert (await owned.ownership.device(TAG)).customer == "acme"
    assert await acts(owned, "device.returned") == []
    await owned.ownership.give_back([TAG, "SN-2", "UMB0001"], "returned", at(1))
    assert {row.customer for row in await acts(owned, "device.returned")} == {"acme", "umbra"}


# --- repaired -----------------------------------------------------------------------------------------------------


async def test_A8_without_approval_a_new_board_gets_nothing_under_an_old_tag(owned, confirmed, ask) -> None:
    assert await outcome(owned, ask, NEW, 2) is Outcome.TAKEN


async def test_A8_a_repair_lets_the_named_key_in_and_the_old_one_out_for_good(owned, confirmed, ask, at) -> None:
    known = await owned.ownership.repair(TAG, NEW[4:], at(2), None, "ticket 1")
    assert {(one.binding, one.standing) for one in known} == {(OLD, Standing.REFUSED), (NEW, Standing.APPROVED)}
    for key, why in ((OLD, "that was replaced"), (THIRD, "not the one that was approved")):
        refused = await owned.open_and_issue(ask(by=key, minute=3), lambda claim: "stolen")
        assert (refused.outcome, [reason.why for reason in refused.reasons]) == (Outcome.OVER_LIMIT, [Why.BOARD])
        assert why in str(refused.reasons[0])
    assert await outcome(owned, ask, NEW, 4) is Outcome.ISSUED
    assert await outcome(owned, ask, OLD, 5) is Outcome.TAKEN
    await owned.ownership.release(TAG, at(6))
    assert await outcome(owned, ask, OLD, 7) is Outcome.OVER_LIMIT, "a release does not let the old board in again"
    assert await outcome(owned, ask, NEW, 8) is Outcome.ISSUED


async def test_A8_the_old_board_can_confirm_nothing_after_the_repair(owned, ask, at) -> None:
    claim = (await owned.open_and_issue(ask(by=OLD), lambda claim: "root / secret")).claim
    await owned.ownership.repair(TAG, NEW[4:], at(1), None, "ticket 1")
    assert await owned.confirm(claim.claim_id, OLD, Result.DEPLOYED, None, at(2)) is None
    wiped = await owned.claim(claim.claim_id)
    assert (wiped.state, wiped.sealed) == (ClaimState.RELEASED, None)


async def test_A8_an_unnamed_repair_lets_one_other_key_in_within_its_time(owned, confirmed, ask, at) -> None:
    await owned.ownership.repair(TAG, None, at(2), at(10), "ticket 2")
    assert await outcome(owned, ask, OLD, 3) is Outcome.OVER_LIMIT
    assert await outcome(owned, ask, NEW, 4) is Outcome.ISSUED
    assert [one.standing for one in await owned.ownership.boards(TAG)] == [Standing.REFUSED], "used up"
    assert await outcome(owned, ask, THIRD, 5) is Outcome.TAKEN


async def test_A8_an_approval_that_nobody_used_in_time_lets_nobody_in(owned, confirmed, ask, at) -> None:
    await owned.ownership.repair(TAG, None, at(2), at(10), "ticket 2")
    for key in (OLD, NEW):
        late = await owned.open_and_issue(ask(by=key, minute=10), lambda claim: "late")
        assert late.outcome is Outcome.OVER_LIMIT
    assert "approval of its repair ended" in str(late.reasons[0])
    await owned.ownership.repair(TAG, NEW[4:], at(11), None, "ticket 3")
    assert await outcome(owned, ask, NEW, 12) is Outcome.ISSUED


async def test_A8_a_try_that_a_limit_refused_does_not_use_the_approval_up(owned, confirmed, ask, at) -> None:
    from delegator.model import Policy

    await owned.ownership.repair(TAG, None, at(2), at(10), "ticket 2")
    await owned.open_and_issue(ask("OTHER01", minute=2), lambda claim: "x")
    full = await owned.open_and_issue(ask(by=NEW, minute=3, policy=Policy(max_devices=1)), lambda claim: "x")
    assert [reason.why for reason in full.reasons] == [Why.DEVICES_TAKEN]
    assert await outcome(owned, ask, NEW, 4) is Outcome.ISSUED


async def test_A8_a_second_repair_refuses_both_old_keys_and_can_take_one_back(owned, confirmed, ask, at) -> None:
    await owned.ownership.repair(TAG, NEW[4:], at(2), None, "ticket 1")
    assert await outcome(owned, ask, NEW, 3) is Outcome.ISSUED
    await owned.ownership.repair(TAG, THIRD[4:], at(4), None, "ticket 2")
    for key in (OLD, NEW):
        assert await outcome(owned, ask, key, 5) is Outcome.OVER_LIMIT
    await owned.ownership.repair(TAG, OLD[4:], at(6), None, "the wrong board was taken out")
    assert await outcome(owned, ask, THIRD, 7) is Outcome.OVER_LIMIT
    assert await outcome(owned, ask, OLD, 8) is Outcome.ISSUED


async def test_A8_a_repair_is_of_one_tag_only(owned, confirmed, ask, at) -> None:
    await owned.open_and_issue(ask("ABC1235", by=OLD), lambda claim: "x")
    await owned.ownership.repair(TAG, NEW[4:], at(2), None, "ticket 1")
    assert (await owned.open_and_issue(ask("ABC1235", by=OLD, minute=3), lambda claim: "x")).outcome is (
        Outcome.SAME_AGAIN)


async def test_A8_a_repair_that_makes_no_sense_is_refused(owned, ask, at) -> None:
    with pytest.raises(DelegatorError, match="old key is not known") as unknown:
        await owned.ownership.repair(TAG, None, at(2), at(9), "ticket")
    with pytest.raises(DelegatorError, match="no device is registered") as nobody:
        await owned.ownership.repair("NOBODY1", None, at(2), at(9), "ticket")
    await owned.open_and_issue(ask(by=OLD), lambda claim: "x")
    with pytest.raises(DelegatorError, match="has now") as same:
        await owned.ownership.repair(TAG, OLD[4:], at(2), None, "ticket")
    assert [one.value.kind for one in (unknown, nobody, same)] == [Kind.CONFLICT, Kind.NOT_FOUND, Kind.CONFLICT]
    assert await acts(owned, "device.repaired") == []
    await owned.ownership.repair(TAG, NEW[4:], at(2), None, "dead on arrival")
    (row,) = await acts(owned, "device.repaired")
    assert (row.customer, row.reasons, row.detail) == (
        "acme", ("dead on arrival",), {"refused": [OLD[4:]], "approved": NEW[4:], "until": None})
