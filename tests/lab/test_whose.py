"""Whose a device is: exactly one customer's, for a reason that is said, or nobody's (block 213). Nobody else's
credential goes to anybody."""

from __future__ import annotations

import logging

import pytest

from delegator.model import ClaimState, Order

from ..clock import today
from .lab import PEER, START, Lab

TAG = "ABC1234"


async def test_each_device_gets_its_own_owners_credential_and_no_other(lab: Lab) -> None:
    await lab.own("ABC1234")
    await lab.own("UMB1234", customer="umbra")
    await lab.own("GLO1234", customer="globex")
    for tag, customer, user in (("ABC1234", "acme", "user of acme-1"), ("UMB1234", "umbra", "user of umbra-1"),
                                ("GLO1234", "globex", "root")):
        reply = await lab.ask(tag)
        assert reply.credential[0] == user
        assert (await lab.claim(tag)).customer == customer == reply.trail.facts["customer"]


async def test_a_device_that_nobody_registered_gets_nothing(lab: Lab) -> None:
    reply = await lab.ask(TAG)
    assert (reply.fault, reply.retry_after, reply.status, reply.level) == ("NotEntitled", None, 500, logging.INFO)
    assert reply.trail.reasons == ("ABC1234: not registered, and no rule matches",)
    assert reply.steps == ["connected", "authenticated", "asked", "identified", "refused"]
    assert not lab.servers.asked
    (row,) = await lab.audit(service_tag=TAG)
    assert (row.act.value, row.outcome, row.actor, row.peer) == ("handshake.ended", "NotEntitled", "device", PEER)
    assert row.reasons == reply.trail.reasons
    assert lab.counted("delegator_handshakes_total", outcome="NotEntitled") == 1


async def test_a_device_in_stock_gets_nothing(lab: Lab) -> None:
    await lab.own(TAG, customer=None)
    reply = await lab.ask(TAG)
    assert reply.fault == "NotEntitled"
    assert reply.trail.reasons == ("ABC1234: its service tag is registered, in stock",)


async def test_a_device_belongs_to_whom_its_order_belongs_to(lab: Lab) -> None:
    await lab.own(TAG, customer=None, order="4711")
    refused = await lab.ask(TAG)
    assert refused.trail.reasons == (
        "ABC1234: its service tag is registered, in stock: order 4711 belongs to no customer yet",)
    await lab.store.orders.add(Order("4711", "umbra"), START)
    reply = await lab.ask(TAG)
    assert reply.credential[0] == "user of umbra-1"
    assert reply.note("routed").endswith("because its service tag is registered in order 4711, which belongs to umbra")


@pytest.mark.parametrize(("registered", "said", "by"), [
    ({"serial_number": "SN1"}, {"serial": "SN1"}, "serial number"),
    ({"mac_addresses": ("00:1A:2B:3C:4D:5E",)}, {"macs": ["00-1a-2b-3c-4d-5e"]}, "MAC address")])
async def test_what_a_device_only_says_binds_it_to_its_tag_at_the_first_claim(
        lab: Lab, registered: dict[str, object], said: dict[str, object], by: str) -> None:
    await lab.register("acme", **registered)
    reply = await lab.ask(TAG, **said)
    assert reply.note("routed").endswith(f"because its {by} is registered to customer acme")
    assert (await lab.store.ownership.device(TAG)).service_tag == TAG
    other = await lab.ask("XYZ9999", **said)
    assert other.fault == "NotEntitled", "said again under another tag it leads nowhere"
    assert not await lab.claims("XYZ9999")


async def test_two_that_say_the_same_serial_number_at_once_are_one_device(lab: Lab) -> None:
    await lab.register("acme", serial_number="SN1")
    store = lab.store
    find = store.about

    async def about(device: object) -> object:
        found = await find(device)  # type: ignore[arg-type]
        if device.service_tag == "XYZ9999" and not await lab.claims(TAG):  # type: ignore[attr-defined]
            await lab.ask(TAG, serial="SN1")
        return found
    store.about = about  # type: ignore[assignment, method-assign]
    reply = await lab.ask("XYZ9999", serial="SN1")
    assert reply.fault == "NotEntitled"
    assert reply.trail.reasons == ("its registration was taken by another service tag",)
    assert (await lab.claim(TAG)).state is ClaimState.ISSUED


async def test_a_rule_leads_a_stranger_to_a_delegate_and_says_which_did(lab: Lab) -> None:
    await lab.rule("rack", "umbra-1", model="R750", tag_prefix="ABC")
    reply = await lab.ask(TAG, model="R750")
    assert reply.credential[0] == "user of umbra-1"
    assert reply.note("routed") == ("customer Umbra, delegate umbra-1, because rule rack (model R750, tag prefix ABC)")
    assert (await lab.ask(TAG + "5", model="R650")).fault == "NotEntitled"


async def test_a_rule_can_send_a_stranger_to_another_delegator(lab: Lab) -> None:
    await lab.rule("asia", tag_prefix="ABC", delegator="asia.example:4433")
    reply = await lab.ask(TAG)
    assert (reply.fault, reply.texts("AlternateDelegator")) == ("NotEntitled", ["asia.example:4433"])
    assert reply.trail.reasons == (
        "ABC1234: not registered; rule asia (tag prefix ABC) sends it to asia.example:4433",)


async def test_a_device_in_stock_is_sent_where_a_stranger_would_be(lab: Lab) -> None:
    await lab.own(TAG, customer=None)
    await lab.rule("asia", tag_prefix="ABC", delegator="asia.example:4433")
    assert (await lab.ask(TAG)).texts("AlternateDelegator") == ["asia.example:4433"]


async def test_a_rule_chooses_among_the_delegates_of_the_owner_and_never_takes_a_device_away(lab: Lab) -> None:
    await lab.delegate("acme-2")
    await lab.rule("mine", "acme-2", priority=2, tag_prefix="ABC")
    await lab.rule("theirs", "umbra-1", priority=1, tag_prefix="ABC")
    await lab.own(TAG)
    reply = await lab.ask(TAG)
    assert reply.credential[0] == "user of acme-2"
    assert reply.note("routed") == ("customer Acme, delegate acme-2, because its service tag is registered to "
                                    "customer acme; rule mine (tag prefix ABC)")


async def test_a_customer_without_a_delegate_gives_nothing(lab: Lab) -> None:
    await lab.customer("new")
    await lab.own(TAG, customer="new")
    reply = await lab.ask(TAG)
    assert (reply.fault, reply.trail.reasons) == (
        "NotEntitled", ("ABC1234: its service tag is registered to customer new, which has no delegate",))


# --- a device that changed hands ----------------------------------------------------------------------------------


async def test_a_claim_of_another_customer_is_refused_whatever_the_registration_says_now(lab: Lab) -> None:
    """Acme's credential is not given out once the device is Umbra's, nor does Umbra's replace it: somebody must
    release the claim."""
    await lab.own(TAG)
    first = await lab.ask(TAG)
    await lab.store.remove_device(TAG, today())
    await lab.own(TAG, customer="umbra")
    reply = await lab.ask(TAG)
    assert reply.fault == "NotEntitled"
    assert reply.trail.reasons == (f"claim {first.claim} is of customer acme",)
    assert reply.trail.facts["customer"] == "umbra"
    assert b"password" not in reply.response.body
    assert lab.servers.names == ["acme-1"]
    await lab.store.ownership.release(TAG, lab.clock.now())
    assert (await lab.ask(TAG)).credential[0] == "user of umbra-1"


async def test_a_device_that_changes_hands_while_it_asks_is_asked_to_come_again(lab: Lab) -> None:
    await lab.own(TAG)
    find = lab.store.about

    async def about(device: object) -> object:
        found = await find(device)  # type: ignore[arg-type]
        lab.store.about = find  # type: ignore[method-assign]
        await lab.store.remove_device(TAG, today())
        await lab.own(TAG, customer="umbra")
        return found
    lab.store.about = about  # type: ignore[assignment, method-assign]
    reply = await lab.ask(TAG)
    assert (reply.fault, reply.retry_after) == ("TryLater", 300)
    assert reply.trail.reasons == ("it changed hands while it asked",)
    assert not await lab.claims(TAG)
    assert (await lab.ask(TAG)).credential[0] == "user of umbra-1"
