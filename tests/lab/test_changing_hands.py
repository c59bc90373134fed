"""Over the years a device is released, returned, sold, repaired: what its old owner gave it ends in the same commit,
and a row of audit says who did it, when and why (A4, A8)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.model import ClaimState, IdentityRule, Order, Registration
from delegator.model.audited import Entry
from delegator.model.owned import Standing, Transfer, TransferState
from delegator.sealing import SealingKey
from delegator.signing import public_key_in
from delegator.store import open_store
from delegator.store.transfers import Side
from pki import Authority

from ..clock import today
from .lab import OPERATOR, SHARED, START, Lab, key_of
from .test_enrolling import REQUEST

TAG = "ABC1234"
NEW, THIRD = key_of("new board"), key_of("third board")


@pytest.fixture
async def owned(lab: Lab) -> Lab:
    """Acme's device was provisioned."""
    await lab.register("acme", service_tag=TAG, serial_number="SN1", order="4711", delegate="acme-1")
    await lab.confirm(TAG, (await lab.ask(TAG)).claim)
    lab.clock.forward(days=300)
    return lab


async def refused(work: Any, kind: Kind, detail: str, hint: str) -> None:
    with pytest.raises(DelegatorError) as error:
        await work
    assert (error.value.kind, error.value.detail, error.value.hint) == (kind, detail, hint)


async def only(lab: Lab, act: str) -> Entry:
    (row,) = await lab.audit(act=act)
    return row


# --- released -----------------------------------------------------------------------------------------------------


async def test_a8_a_released_device_is_provisioned_anew_for_the_same_owner(owned: Lab) -> None:
    assert (await owned.ask(TAG)).fault == "NotEntitled"
    (released,) = await owned.store.ownership.release(TAG, owned.clock.now(), "factory reset")
    assert (released.state, released.ended_at) == (ClaimState.RELEASED, owned.clock.now())
    row = await only(owned, "claim.released")
    assert (row.actor, row.at, row.reasons, row.detail, row.service_tag, row.customer, row.peer) == (
        OPERATOR, owned.clock.now(), ("factory reset",), {"event": "released", "identity": "own", "attempt": 1}, TAG,
        "acme", None)
    assert (await owned.ask(TAG)).credential == ("user of acme-1", "password 1 of acme-1")
    assert await owned.store.ownership.release("NEVER123", owned.clock.now()) == []


async def test_a8_to_release_forgets_the_attempts_of_a_tag(lab: Lab) -> None:
    await lab.policy("acme", attempts=2, lease=timedelta(hours=1), replace=True)
    await lab.own(TAG, "ABC9999")
    for _ in range(2):
        await lab.ask(TAG)
        await lab.ask("ABC9999")
        lab.clock.forward(hours=1)
    assert (await lab.ask(TAG)).fault == "NotEntitled"
    released = await lab.store.ownership.release(TAG, lab.clock.now())
    assert [(one.service_tag, one.attempt, one.state) for one in sorted(released, key=lambda one: one.attempt)] == [
        (TAG, 1, ClaimState.RELEASED), (TAG, 2, ClaimState.RELEASED)]
    assert (await lab.audit(act="claim.released"))[0].reasons == ()
    assert (await lab.ask(TAG)).status == 200
    assert (await lab.claims(TAG))[0].attempt == 1
    assert (await lab.ask("ABC9999")).fault == "NotEntitled", "of that tag alone"


async def test_a8_the_claim_that_lives_is_named_before_those_that_are_over(lab: Lab) -> None:
    await lab.policy("acme", lease=timedelta(hours=1), replace=True)
    await lab.own(TAG)
    await lab.ask(TAG)
    lab.clock.forward(hours=1)
    await lab.ask(TAG)
    assert [one.attempt for one in await lab.store.ownership.release(TAG, lab.clock.now())] == [2, 1]


# --- returned -----------------------------------------------------------------------------------------------------


async def test_a4_a_returned_device_is_nobodys_and_what_it_was_given_is_over(owned: Lab) -> None:
    await owned.store.ownership.release(TAG, owned.clock.now())
    await owned.ask(TAG)
    owned.clock.forward(days=1)
    await owned.store.ownership.offer([(TAG, "t" * 32)], "umbra", owned.clock.now() + timedelta(days=9),
                                      owned.clock.now())
    (before,) = await owned.store.ownership.give_back([TAG], "RMA-7", owned.clock.now(), "did not fit")
    assert (before.customer, before.order, before.delegate) == ("acme", "4711", "acme-1")
    device = await owned.store.ownership.device(TAG)
    assert (device.customer, device.order, device.delegate, device.serial_number) == (None, "RMA-7", None, "SN1")
    assert (await owned.ask(TAG)).fault == "NotEntitled"
    claim = (await owned.claims(TAG))[0]
    assert (claim.state, claim.sealed) == (ClaimState.RELEASED, None)
    assert await owned.store.taken("acme", "acme-1") == {"customer/acme": 0, "delegate/acme-1": 0}
    row = await only(owned, "device.returned")
    assert (row.actor, row.at, row.customer, row.service_tag, row.peer, row.reasons) == (
        OPERATOR, owned.clock.now(), "acme", TAG, None, ("did not fit",))
    assert row.detail == {"device": TAG, "order": "RMA-7", "order_before": "4711", "claims": 1}
    assert (await owned.audit(act="claim.released"))[-1].detail["event"] == "returned to stock"
    (transfer,) = await owned.store.ownership.transfers()
    assert transfer.state is TransferState.WITHDRAWN, "what was offered of it is withdrawn"


async def test_a4_a_device_without_a_tag_is_returned_too_and_no_reason_need_be_given(lab: Lab) -> None:
    await lab.register("acme", serial_number="SN9")
    await lab.store.ownership.give_back(["SN9"], "RMA-7", START)
    row = await only(lab, "device.returned")
    assert (row.service_tag, row.reasons, row.detail) == (
        None, (), {"device": "SN9", "order": "RMA-7", "order_before": None, "claims": 0})


async def test_a4_what_cannot_be_returned_says_why_and_what_to_do(lab: Lab) -> None:
    await lab.own(TAG, customer=None)
    await lab.own("ABC9999")
    await lab.store.orders.add(Order("4711", "umbra"), START)
    give_back = lab.store.ownership.give_back
    await refused(give_back([TAG], "RMA-7", START), Kind.CONFLICT, f"device {TAG} is in stock already",
                  f"see: delegator devices show {TAG}")
    await refused(give_back(["ABC9999"], "4711", START), Kind.CONFLICT,
                  "order 4711 is of customer umbra, so it would own the device",
                  "name an order for returned devices that belongs to nobody: --order NUMBER")
    await refused(give_back(["ABC9999", "NEVER123"], "RMA-7", START), Kind.NOT_FOUND,
                  "no device is registered under NEVER123", "see: delegator devices list")
    assert (await lab.store.ownership.device("ABC9999")).customer == "acme", "all or none"


# --- repaired -----------------------------------------------------------------------------------------------------


async def test_a8_the_old_board_is_refused_from_the_repair_on_and_the_named_one_let_in(owned: Lab) -> None:
    boards = await owned.store.ownership.repair(TAG, NEW, owned.clock.now(), None, "ticket 1")
    assert [(one.binding, one.standing, one.since, one.until) for one in boards] == sorted([
        (f"key:{key_of(TAG)}", Standing.REFUSED, owned.clock.now(), None),
        (f"key:{NEW}", Standing.APPROVED, owned.clock.now(), None)], key=lambda one: one[0])
    assert boards == await owned.store.ownership.boards(TAG)
    row = await only(owned, "device.repaired")
    assert (row.actor, row.at, row.customer, row.service_tag, row.peer, row.reasons) == (
        OPERATOR, owned.clock.now(), "acme", TAG, None, ("ticket 1",))
    assert row.detail == {"refused": [key_of(TAG)], "approved": NEW, "until": None}
    assert (await only(owned, "claim.released")).detail["event"] == "main board replaced"
    for key, why in ((key_of(TAG), "its key is that of a main board that was replaced"),
                     (THIRD, "its key is not the one that was approved with its repair")):
        reply = await owned.ask(TAG, key=key)
        assert (reply.fault, reply.trail.reasons) == ("NotEntitled", (why,))
    assert (await owned.ask(TAG, key=NEW)).status == 200


async def test_a8_without_a_name_one_other_key_may_come_until_then(owned: Lab) -> None:
    until = owned.clock.now() + timedelta(days=7)
    (old, expected) = sorted(await owned.store.ownership.repair(TAG, None, owned.clock.now(), until, "ticket 2"),
                             key=lambda one: one.standing is Standing.OPEN)
    assert (old.standing, expected.standing, expected.binding, expected.until) == (
        Standing.REFUSED, Standing.OPEN, "", until)
    assert (await only(owned, "device.repaired")).detail == {
        "refused": [key_of(TAG)], "approved": None, "until": until.isoformat()}
    assert (await owned.ask(TAG)).fault == "NotEntitled"
    assert (await owned.ask(TAG, key=NEW)).status == 200
    assert [one.standing for one in await owned.store.ownership.boards(TAG)] == [Standing.REFUSED], "used up"


async def test_a8_every_key_that_ever_spoke_for_a_tag_is_refused(lab: Lab, authority: Authority) -> None:
    """Those of claims that are over, those that were enrolled; a secret is refused and is no key in the audit."""
    lab.serve(authority=authority)
    await lab.policy("acme", identity=IdentityRule.EITHER, replace=True)
    await lab.own(TAG, "ABC9999")
    await lab.ask("ABC9999", key=key_of("another device"))
    await lab.ask(TAG, key=key_of("first board"))
    await lab.store.ownership.release(TAG, START)
    lab.clock.forward(minutes=1)
    await lab.ask(TAG, shown=SHARED, request=REQUEST)
    enrolled = (await lab.store.enrolments.of_tag(TAG))[0]
    secret = (await lab.claims(TAG))[0].binding
    boards = await lab.store.ownership.repair(TAG, NEW, lab.clock.now(), None, "ticket 3")
    gone = {one.binding for one in boards if one.standing is Standing.REFUSED}
    assert gone == {f"key:{key_of('first board')}", f"key:{enrolled.key_fingerprint}", secret}
    row = await only(lab, "device.repaired")
    assert row.detail["refused"] == sorted([key_of("first board"), enrolled.key_fingerprint])
    (forgotten,) = await lab.store.enrolments.of_tag(TAG)
    assert (forgotten.reason, forgotten.revoked_at, forgotten.forgotten_at) == (
        "main board replaced", lab.clock.now(), lab.clock.now())
    assert (await only(lab, "enrolment.forgotten")).actor == OPERATOR


async def test_a8_a_board_that_was_taken_out_can_be_put_back(owned: Lab) -> None:
    await owned.store.ownership.repair(TAG, NEW, owned.clock.now(), None, "ticket 1")
    await owned.ask(TAG, key=NEW)
    await owned.store.ownership.repair(TAG, key_of(TAG), owned.clock.now(), None, "the wrong one")
    assert (await owned.audit(act="device.repaired"))[-1].detail["refused"] == [NEW]
    assert (await owned.ask(TAG)).status == 200
    assert (await owned.ask(TAG, key=NEW)).fault == "NotEntitled"


async def test_a8_a_device_is_repaired_under_a_tag_that_was_never_registered(lab: Lab) -> None:
    """A rule led it here; what it claimed is known."""
    await lab.rule("any", "acme-1", tag_prefix="ABC")
    await lab.ask(TAG)
    await lab.store.ownership.repair(TAG, NEW, START, None, "ticket")
    assert (await only(lab, "device.repaired")).customer is None
    assert (await lab.ask(TAG, key=NEW)).status == 200


async def test_a8_what_cannot_be_repaired_says_why_and_what_to_do(lab: Lab) -> None:
    await lab.own(TAG)
    repair, until = lab.store.ownership.repair, START + timedelta(days=1)
    await refused(repair("NEVER123", NEW, START, None, "x"), Kind.NOT_FOUND,
                  "no device is registered under NEVER123, and none ever claimed it", "see: delegator devices list")
    await refused(repair(TAG, None, START, until, "x"), Kind.CONFLICT,
                  f"{TAG} never claimed anything, so its old key is not known",
                  "name the new board's: --certificate FILE")
    await lab.ask(TAG)
    await refused(repair(TAG, key_of(TAG), START, None, "x"), Kind.CONFLICT,
                  f"that is the key that {TAG} has now", "give the certificate of the new main board")
    assert not await lab.audit(act="device.repaired")
    assert not await lab.store.ownership.boards(TAG)


# --- sold ---------------------------------------------------------------------------------------------------------


async def offered(lab: Lab, *tags: str, number: str = "t", days: float = 9, side: Side | None = None,
                  told: Callable[[], None] | None = None) -> list[Transfer]:
    pairs = [(tag, number * 31 + str(at)) for at, tag in enumerate(tags)]
    return await lab.store.ownership.offer(pairs, "umbra", lab.clock.now() + timedelta(days=days), lab.clock.now(),
                                           side or Side(), told=told)


async def test_a4_a_device_changes_hands_when_the_other_customer_takes_it(owned: Lab) -> None:
    steps: list[str] = []
    (offer,) = await offered(owned, TAG, side=Side("acme", because="sold"), told=lambda: steps.append("offered"))
    assert (offer.offered_by, offer.offered_to, offer.state, offer.because, offer.service_tag, offer.order,
            offer.offered_at, offer.until) == ("acme", "umbra", TransferState.OFFERED, "sold", TAG, "4711",
                                               owned.clock.now(), owned.clock.now() + timedelta(days=9))
    assert (await owned.store.ownership.device(TAG)).customer == "acme"
    (taken,) = await owned.store.ownership.end(
        TransferState.ACCEPTED, [TAG], owned.clock.now(), Side("umbra", because="bought"), delegate="umbra-1",
        told=lambda: steps.append("accepted"))
    assert (taken.state, taken.ended_at) == (TransferState.ACCEPTED, owned.clock.now())
    assert steps == ["offered", "accepted"]
    device = await owned.store.ownership.device(TAG)
    assert (device.customer, device.order, device.delegate) == ("umbra", None, "umbra-1")
    assert (await owned.ask(TAG)).credential[0] == "user of umbra-1"
    assert (await owned.audit(act="transfer.accepted"))[0].reasons == ("bought",)
    assert [record.entry.act.value for record in await owned.store.ownership.steps(taken)] == [
        "transfer.offered", "transfer.accepted"]


@pytest.mark.parametrize(("to", "customer"), [(TransferState.DECLINED, "umbra"), (TransferState.WITHDRAWN, "acme")])
async def test_a4_an_offer_that_is_declined_or_withdrawn_leaves_everything_as_it_was(
        owned: Lab, to: TransferState, customer: str) -> None:
    (offer,) = await offered(owned, TAG)
    (ended,) = await owned.store.ownership.end(to, [offer.transfer_id], owned.clock.now(), Side(customer))
    assert ended.state is to
    assert (await owned.store.ownership.device(TAG)).customer == "acme"
    assert (await owned.audit())[-1].act.value == f"transfer.{to.value}"


async def test_a4_an_offer_ends_by_itself(owned: Lab) -> None:
    (offer,) = await offered(owned, TAG, days=1)
    owned.clock.forward(hours=23)
    assert await owned.store.ownership.lapse(owned.clock.now()) == 0
    owned.clock.forward(hours=1)
    assert await owned.store.ownership.lapse(owned.clock.now()) == 1
    assert (await owned.store.ownership.transfer(offer.transfer_id)).state is TransferState.LAPSED
    assert await owned.store.ownership.lapse(owned.clock.now()) == 0


async def test_a4_to_look_for_offers_that_are_over_waits_for_nobody(
        owned: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owned.store.ownership._driver, "run", None)
    assert await owned.store.ownership.lapse(owned.clock.now()) == 0


async def test_a4_many_are_offered_or_none(lab: Lab) -> None:
    await lab.own("ABC0001", "ABC0002")
    with pytest.raises(DelegatorError):
        await offered(lab, "ABC0001", "NEVER123")
    assert await lab.store.ownership.transfers() == []
    assert len(await offered(lab, "ABC0001", "ABC0002")) == 2


async def test_a4_transfers_are_listed_newest_first_by_whom_state_device_and_order(lab: Lab) -> None:
    await lab.own("ABC0001", order="4711")
    await lab.own("ABC0002")
    await lab.own("GLO0001", customer="globex")
    await lab.register("acme", serial_number="SN7")
    for number, tag in enumerate(("ABC0001", "ABC0002", "GLO0001", "SN7")):
        await offered(lab, tag, number=str(number))
        lab.clock.forward(minutes=1)
    ownership = lab.store.ownership
    await ownership.end(TransferState.WITHDRAWN, ["ABC0002"], lab.clock.now(), Side("acme"))

    async def listed(**wanted: Any) -> list[str]:
        return [one.device for one in await ownership.transfers(**wanted)]
    assert await listed() == ["SN7", "GLO0001", "ABC0002", "ABC0001"]
    assert await listed(customer="acme") == ["SN7", "ABC0002", "ABC0001"]
    assert await listed(customer="umbra") == ["SN7", "GLO0001", "ABC0002", "ABC0001"]
    assert await listed(customer="nobody") == []
    assert await listed(state=TransferState.WITHDRAWN) == ["ABC0002"]
    assert await listed(device="ABC0001") == ["ABC0001"]
    assert await listed(device="SN7") == ["SN7"]
    assert await listed(order="4711") == ["ABC0001"]
    assert await listed(most=2) == ["SN7", "GLO0001"]
    assert await ownership.in_order("4711", "acme") == ["ABC0001"]


async def test_a4_offers_of_one_moment_are_listed_by_their_numbers(lab: Lab) -> None:
    await lab.own("ABC0001", "ABC0002", "ABC0003")
    await offered(lab, "ABC0002", "ABC0003", "ABC0001")
    assert [one.device for one in await lab.store.ownership.transfers()] == ["ABC0001", "ABC0003", "ABC0002"]


async def test_a4_a_tag_that_a_device_got_later_finds_its_transfer(lab: Lab) -> None:
    await lab.own(TAG)
    (offer,) = await offered(lab, TAG)
    assert [one.transfer_id for one in await lab.store.ownership.transfers(device=TAG)] == [offer.transfer_id]


async def test_a4_an_offer_as_it_would_be_made_changes_nothing(owned: Lab) -> None:
    until = owned.clock.now() + timedelta(days=1)
    planned = await owned.store.ownership.planned(TAG, "umbra", until)
    assert (planned.device, planned.offered_by, planned.offered_to, planned.until, planned.transfer_id) == (
        TAG, "acme", "umbra", until, "")
    assert await owned.store.ownership.transfers() == []


async def test_a4_the_steps_of_one_transfer_are_those_of_no_other(owned: Lab) -> None:
    (first,) = await offered(owned, TAG, number="1")
    await owned.store.ownership.end(TransferState.WITHDRAWN, [TAG], owned.clock.now(), Side("acme"))
    owned.clock.forward(days=1)
    (second,) = await offered(owned, TAG, number="2")
    for transfer, acts in ((first, ["transfer.offered", "transfer.withdrawn"]), (second, ["transfer.offered"])):
        found = await owned.store.ownership.steps(transfer)
        assert [one.entry.act.value for one in found] == acts


# --- keys that customers sign with --------------------------------------------------------------------------------


async def test_a4_a_customers_key_is_set_replaced_and_removed(lab: Lab, authority: Authority) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = public_key_in(authority.certificate.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    ownership = lab.store.ownership
    assert await ownership.key("acme") is None
    await ownership.set_key("acme", pem, START)
    assert await ownership.key("acme") == pem
    assert await ownership.key("umbra") is None
    (row,) = await lab.audit(act="customer.signing_key_set")
    assert (row.actor, row.at, row.customer, row.peer) == (OPERATOR, START, "acme", None)
    assert len(str(row.detail["key"])) >= 40
    await ownership.set_key("acme", pem, START + timedelta(days=1))
    assert await ownership.key("acme") == pem
    await ownership.set_key("umbra", pem, START)
    await ownership.set_key("acme", None, START)
    assert await ownership.key("acme") is None
    assert await ownership.key("umbra") == pem
    assert (await lab.audit(act="customer.signing_key_set"))[-1].detail == {"key": None}
    with pytest.raises(DelegatorError, match="nobody") as unknown:
        await ownership.set_key("nobody", pem, START)
    assert unknown.value.kind is Kind.NOT_FOUND


# --- from where it was done ---------------------------------------------------------------------------------------


async def test_what_an_operator_does_from_another_machine_says_so(owned: Lab) -> None:
    store = await open_store(owned.path, SealingKey(b"k" * 32), actor="operator eve", peer="198.51.100.5")
    try:
        await store.ownership.release(TAG, START, "reset")
        await store.ownership.repair(TAG, NEW, START, None, "ticket")
        await store.ownership.give_back([TAG], "RMA-7", START)
        await store.ownership.set_key("acme", None, START)
    finally:
        await store.close()
    for act in ("claim.released", "device.repaired", "device.returned", "customer.signing_key_set"):
        row = await only(owned, act)
        assert (row.actor, row.peer) == ("operator eve", "198.51.100.5"), act


async def test_a_device_is_found_by_any_name_it_has(lab: Lab) -> None:
    await lab.store.add_devices([Registration("acme", TAG, "SN1", ("00:1A:2B:3C:4D:5E",))], today())
    for name in (TAG, "SN1", "00-1a-2b-3c-4d-5e"):
        assert (await lab.store.ownership.device(name)).service_tag == TAG
