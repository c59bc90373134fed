"""Contract: a device changes hands in two steps, each signed where the customer has a key on record (A4, A8)."""

from __future__ import annotations

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from msgspec.structs import replace

from delegator import signing
from delegator.errors import DelegatorError, Kind
from delegator.model import ClaimState, Order, Registration
from delegator.model.owned import TransferState
from delegator.policy import Why
from delegator.signing import Signed
from delegator.store import Outcome
from delegator.store.audit.inspection import Wanted
from delegator.store.transfers import Side, stated

from ..clock import today

TAG, NUMBER = "ABC1234", "0" * 31 + "1"
ACCEPTED, DECLINED, WITHDRAWN = TransferState.ACCEPTED, TransferState.DECLINED, TransferState.WITHDRAWN


def key_pair(kind: str = "ed25519"):
    """(what signs, the public key in PEM)."""
    key = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(
        {"p256": ec.SECP256R1(), "p384": ec.SECP384R1()}[kind])
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return signing.signer(private), signing.public_key_in(public)


@pytest.fixture
async def owned(shop):
    await shop.add_devices([Registration("acme", TAG, "SN-1", order="4711", delegate="acme-hosted"),
                            Registration("acme", None, "SN-2", order="4711"), Registration("umbra",
                                                                                           "UMB0001")], today())
    return shop


@pytest.fixture
def offer(owned, at):
    async def made(name: str = TAG, *, minute: float = 0, until: float = 60, number: str = NUMBER, to: str = "umbra",
                   **side):
        return (await owned.ownership.offer([(name, number)], to, at(until), at(minute), Side(**side)))[0]
    return made


@pytest.fixture
def end(owned, at):
    async def ended(to: TransferState, customer: str, which: str = TAG, *, minute: float = 1,
                    delegate: str | None = None, **side):
        return (await owned.ownership.end(to, [which], at(minute), Side(customer, **side), delegate=delegate))[0]
    return ended


async def owner(store, name: str = TAG) -> str | None:
    return (await store.ownership.device(name)).customer


async def steps(store) -> list[tuple[str, str | None]]:
    found = await store.audit.list(Wanted(), 100)
    return [(one.entry.act.value, one.entry.customer) for one in reversed(found)
            if one.entry.act.value.startswith("transfer.")]


async def refused(kind: Kind, work, match: str) -> None:
    with pytest.raises(DelegatorError, match=match) as refusal:
        await work
    assert refusal.value.kind is kind
    assert refusal.value.hint


# --- two steps ----------------------------------------------------------------------------------------------------


async def test_A4_an_offer_changes_nothing_until_it_is_accepted(owned, offer, ask) -> None:
    claim = (await owned.open_and_issue(ask(), lambda claim: "acme's secret")).claim
    offered = await offer()
    assert (offered.state, offered.offered_by, offered.offered_to) == (TransferState.OFFERED, "acme", "umbra")
    assert await owner(owned) == "acme"
    again = await owned.open_and_issue(ask(minute=1), lambda claim: "x")
    assert (again.outcome, owned.reveal(again.claim)) == (Outcome.SAME_AGAIN, "acme's secret")
    assert (await owned.claim(claim.claim_id)).state is ClaimState.ISSUED


async def test_A4_accepting_moves_the_device_and_wipes_the_old_owners_credential_in_one(
        owned, offer, end, ask, at) -> None:
    claim = (await owned.open_and_issue(ask(), lambda claim: "acme's secret")).claim
    await offer()
    accepted = await end(ACCEPTED, "umbra", delegate="umbra-soap")
    assert (accepted.state, accepted.ended_at) == (ACCEPTED, at(1))
    device = await owned.ownership.device(TAG)
    assert (device.customer, device.delegate, device.order, device.serial_number) == (
        "umbra", "umbra-soap", None, "SN-1")
    old = await owned.claim(claim.claim_id)
    assert (old.state, old.sealed) == (ClaimState.RELEASED, None)
    assert set((await owned.taken("acme", "acme-1")).values()) == {0}
    assert await steps(owned) == [("transfer.offered", "acme"), ("transfer.accepted", "umbra")]
    (of_claim,) = await owned.audit.list(Wanted(act="claim.released"), 9)
    assert (of_claim.entry.detail["event"], of_claim.entry.detail["transfer"]) == ("transferred", NUMBER)
    opened = await owned.open_and_issue(ask(minute=2, customer="umbra", delegate="umbra-soap"), lambda claim: "umbra's")
    assert (opened.outcome, opened.claim.customer) == (Outcome.ISSUED, "umbra")


async def test_A4_when_accepting_fails_halfway_everything_is_as_it_was(owned, offer, end, ask) -> None:
    claim = (await owned.open_and_issue(ask(), lambda claim: "acme's secret")).claim
    await offer()
    await refused(Kind.NOT_FOUND, end(ACCEPTED, "umbra", delegate="acme-hosted"), "no delegate named")
    assert await owner(owned) == "acme"
    assert owned.reveal(await owned.claim(claim.claim_id)) == "acme's secret"
    assert await steps(owned) == [("transfer.offered", "acme")]


@pytest.mark.parametrize(("to", "whose", "other"), [
    (ACCEPTED, "umbra", "acme"), (DECLINED, "umbra", "acme"), (WITHDRAWN, "acme", "umbra")])
async def test_A4_each_step_is_one_customers_and_no_others(owned, offer, end, to, whose, other) -> None:
    await offer()
    await refused(Kind.NOT_ENTITLED, end(to, other), "not")
    assert (await end(to, whose)).state is to
    assert await owner(owned) == ("umbra" if to is ACCEPTED else "acme")
    assert (await steps(owned))[-1] == (f"transfer.{to.value}", whose)
    for after in (ACCEPTED, DECLINED, WITHDRAWN):
        await refused(Kind.NOT_FOUND, end(after, whose), "nothing is offered")
    await refused(Kind.CONFLICT, end(to, whose, NUMBER), "is over")
    assert len(await steps(owned)) == 2


async def test_A4_a_device_has_one_open_offer(owned, offer, end) -> None:
    await owned.add_customer(replace((await owned.customers())[0], name="third", title="Third"), today())
    await offer()
    for name in (TAG, "SN-1"):
        await refused(Kind.CONFLICT, offer(name, number="2" * 32, to="third"), "offered to umbra already")
    await end(WITHDRAWN, "acme")
    assert (await offer(number="2" * 32, to="third", minute=2)).offered_to == "third"
    await refused(Kind.NOT_ENTITLED, end(ACCEPTED, "umbra", minute=3), "not umbra's")


async def test_A4_an_offer_ends_with_its_time(owned, offer, end, at) -> None:
    await offer(until=10)
    assert await owned.ownership.lapse(at(9.9)) == 0
    await refused(Kind.CONFLICT, end(ACCEPTED, "umbra", minute=10), "lapsed")
    assert await owned.ownership.lapse(at(10)) == 1
    assert await owned.ownership.lapse(at(11)) == 0
    assert await owner(owned) == "acme"
    assert await steps(owned) == [("transfer.offered", "acme"), ("transfer.lapsed", "umbra")]
    (row,) = await owned.audit.list(Wanted(act="transfer.lapsed"), 9)
    assert row.entry.actor == "delegator"


async def test_A4_an_offer_that_nobody_ended_makes_room_for_the_next(owned, offer) -> None:
    await offer(until=10)
    await offer(number="2" * 32, minute=10)
    assert [one.state for one in await owned.ownership.transfers()] == [TransferState.OFFERED, TransferState.LAPSED]


async def test_A4_what_is_offered_must_be_owned_and_wanted_by_somebody_else(owned, offer, at) -> None:
    await refused(Kind.NOT_FOUND, offer("NOBODY1"), "no device")
    await refused(Kind.NOT_FOUND, offer(to="nobody"), "no customer named nobody")
    await refused(Kind.CONFLICT, offer("UMB0001"), "umbra's already")
    await refused(Kind.NOT_ENTITLED, offer(customer="umbra"), "is not umbra's")
    await owned.ownership.give_back([TAG], "returned", at(1))
    await refused(Kind.CONFLICT, offer(), "in stock")
    assert await steps(owned) == []


@pytest.mark.parametrize("how", ["returned", "returned and sold", "removed"])
async def test_A4_a_device_that_is_not_the_owners_any_more_cannot_be_accepted(owned, offer, end, at, how) -> None:
    await offer()
    if how == "removed":
        await owned.fleet.remove(await owned.ownership.device(TAG), at(0.5))
        await refused(Kind.CONFLICT, end(ACCEPTED, "umbra"), "not registered any more as it was offered")
        assert (await end(WITHDRAWN, "acme")).state is WITHDRAWN
        return
    await owned.ownership.give_back([TAG], "returned", at(0.5))
    if how == "returned and sold":
        await owned.add_devices([Registration("acme", TAG, "SN-1")], today(), replace=True)
    await refused(Kind.CONFLICT, end(ACCEPTED, "umbra", NUMBER), "over: withdrawn")
    assert (await steps(owned))[-1] == ("transfer.withdrawn", "acme")


async def test_A4_a_device_without_a_tag_is_transferred_by_its_serial_number(owned, offer, end) -> None:
    assert (await offer("SN-2")).device == "SN-2"
    await end(ACCEPTED, "umbra", "SN-2")
    assert await owner(owned, "SN-2") == "umbra"


async def test_A4_many_go_in_one_step_or_none(owned, at) -> None:
    names = await owned.ownership.in_order("4711", "acme")
    assert names == [TAG, "SN-2"]
    offers = [(name, f"{number:032x}") for number, name in enumerate(names)]
    await refused(Kind.CONFLICT, owned.ownership.offer([*offers, ("UMB0001", "f" * 32)], "umbra", at(60), at(0)),
                  "umbra's already")
    assert await owned.ownership.transfers() == []
    told = []
    await owned.ownership.offer(offers, "umbra", at(60), at(0), told=lambda: told.append(1))
    assert len(told) == 2
    found = [one.transfer_id for one in await owned.ownership.transfers(
        customer="umbra", state=TransferState.OFFERED, order="4711")]
    await owned.ownership.end(ACCEPTED, found, at(1), Side("umbra"))
    assert {await owner(owned, name) for name in names} == {"umbra"}


# --- signed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ed25519", "p256", "p384"])
async def test_A4_a_customer_with_a_key_signs_each_of_its_steps(owned, offer, end, at, kind) -> None:
    (sign_acme, acme), (sign_umbra, umbra) = key_pair(kind), key_pair(kind)
    await owned.ownership.set_key("acme", acme, at(0))
    await owned.ownership.set_key("umbra", umbra, at(0))
    await refused(Kind.IDENTITY, offer(), "acme signs what it does")
    await refused(Kind.IDENTITY, offer(sign=sign_umbra), "not of this statement with key")
    await offer(sign=sign_acme)
    await refused(Kind.IDENTITY, end(ACCEPTED, "umbra"), "umbra signs what it does")
    await refused(Kind.IDENTITY, end(ACCEPTED, "umbra", sign=sign_acme), "not of this statement with key")
    assert await owner(owned) == "acme"
    await end(ACCEPTED, "umbra", sign=sign_umbra)
    assert await owner(owned) == "umbra"


async def test_A4_a_signature_is_of_one_step_of_one_transfer(owned, offer, end, at) -> None:
    """What umbra signed to decline does not accept, and what accepted one transfer does not accept the next."""
    sign, public = key_pair()
    await owned.ownership.set_key("umbra", public, at(0))
    offered = await offer()
    to_decline = sign(stated(offered, DECLINED))
    await refused(Kind.IDENTITY, end(ACCEPTED, "umbra", sign=lambda _: to_decline), "not of this statement")
    to_accept = sign(stated(offered, ACCEPTED))
    await end(WITHDRAWN, "acme")
    await offer(number="2" * 32, minute=2)
    await refused(Kind.IDENTITY, end(ACCEPTED, "umbra", minute=3, sign=lambda _: to_accept), "not of this statement")


async def test_A4_a_signed_offer_is_good_once(owned, offer, end, at) -> None:
    sign, public = key_pair()
    await owned.ownership.set_key("acme", public, at(0))
    signature = sign(stated(await owned.ownership.planned(TAG, "umbra", at(60)), TransferState.OFFERED))
    await offer(sign=lambda _: signature)
    await end(WITHDRAWN, "acme", sign=sign)
    await refused(Kind.CONFLICT, offer(number="2" * 32, minute=2, sign=lambda _: signature), "was made before")
    await offer(number="2" * 32, minute=2, until=61, sign=sign)


async def test_A4_a_signature_that_nothing_can_check_is_not_taken(offer) -> None:
    await refused(Kind.IDENTITY, offer(sign=key_pair()[0]), "no signing key on record")


async def test_A4_what_was_signed_stands_in_the_audit_and_can_be_checked_alone(owned, offer, end, at) -> None:
    """With nothing but the row: a statement, a signature or a key that was changed is found."""
    sign, public = key_pair()
    await owned.ownership.set_key("acme", public, at(0))
    await offer(sign=sign, because="sold")
    (row,) = await owned.audit.list(Wanted(act="transfer.offered"), 9)
    detail = row.entry.detail
    signed = Signed(*(str(detail[name]) for name in ("statement", "signature", "public_key")))
    assert signed.holds
    said = msgspec.json.decode(signed.statement)
    assert said == {"act": "transfer.offered", "device": TAG, "offered_by": "acme", "offered_to": "umbra",
                    "until": at(60).isoformat()}
    assert not replace(signed, statement=signed.statement.replace("umbra", "other")).holds
    assert not replace(signed, public_key=key_pair()[1]).holds
    turned = "A" if signed.signature[0] != "A" else "B"
    assert not replace(signed, signature=turned + signed.signature[1:]).holds
    for nonsense in ("", "?", "AAAA"):
        assert not replace(signed, signature=nonsense).holds
        assert not replace(signed, public_key=nonsense).holds
    assert row.entry.reasons == ("sold",)


async def test_A4_a_row_of_a_transfer_that_was_changed_breaks_the_chain(owned, offer, at) -> None:
    from delegator.store.transaction import Query

    await offer()

    async def wrong() -> int:
        verification = owned.audit.verification()
        async for _ in verification.run():
            pass
        return len(verification.findings)

    def tampered():
        yield Query("UPDATE audit SET customer = 'umbra' WHERE act = 'transfer.offered'")
    assert await wrong() == 0
    await owned._driver.run(tampered)
    assert await wrong() == 1


async def test_A4_setting_a_customers_key_is_on_record_and_it_goes_with_the_customer(owned, at) -> None:
    _, public = key_pair()
    await owned.add_customer(replace((await owned.customers())[0], name="third", title="Third"), today())
    await owned.ownership.set_key("third", public, at(1))
    assert await owned.ownership.key("third") == public
    await owned.ownership.set_key("third", None, at(2))
    assert await owned.ownership.key("third") is None
    rows = await owned.audit.list(Wanted(act="customer.signing_key_set"), 9)
    assert [row.entry.detail["key"] for row in reversed(rows)] == [signing.fingerprint(public), None]
    await owned.ownership.set_key("third", public, at(3))
    await owned.remove("customer", "third", today())
    assert await owned.ownership.key("third") is None
    await refused(Kind.NOT_FOUND, owned.ownership.set_key("third", public, at(4)), "no customer named third")


@pytest.mark.parametrize("how", ["accepted", "returned", "removed", "order removed"])
async def test_A8_a_device_that_changes_hands_while_it_asks_is_not_claimed_for_its_old_owner(
        owned, offer, end, ask, at, how) -> None:
    """It was found to be acme's; by the time the claim is opened it is not any more."""
    name = "SN-2"
    if how == "order removed":
        await owned.orders.add(Order("4713", "acme"), at(0))
        await owned.add_devices([Registration(None, None, "SN-3", order="4713")], today())
        name = "SN-3"
    found = await owned.ownership.device(name)
    asked = replace(ask("TAG0009", minute=2), owned=found.device_id)
    if how == "accepted":
        await offer(name)
        await end(ACCEPTED, "umbra", name)
    elif how == "returned":
        await owned.ownership.give_back([name], "returned", at(1))
    elif how == "removed":
        await owned.fleet.remove(found, at(1))
    else:
        assert (await owned.open_claim(replace(asked, claim_id="f" * 32))).outcome is Outcome.OPENED, "so far it is"
        await owned.ownership.release("TAG0009", at(1))
        await owned.orders.remove("4713", at(1))
    opened = await owned.open_and_issue(asked, lambda claim: "acme's secret")
    assert (opened.outcome, [reason.why for reason in opened.reasons]) == (Outcome.OVER_LIMIT, [Why.OWNER])
    assert not [one for one in await owned.claims(service_tag="TAG0009") if one.state is ClaimState.ISSUED]
