"""Contract: enrolments, on record before they leave, one standing for a tag, holding its claim; second claimants."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from delegator.errors import DelegatorError, Kind
from delegator.model import IdentityKind, Notice, NotificationKind, Result, Telling
from delegator.model.audited import Act, By
from delegator.model.enrolled import Contest, Enrolled
from delegator.store import Outcome
from delegator.store.contested import MOST_A_DAY
from delegator.store.footing import no_ask
from delegator.store.transaction import Query

TAG, SECRET, KEY = "ABC1234", "secret:mine", "aa" * 32
OPERATOR = By("operator ann", "192.0.2.99")
_AUDIT = Query("SELECT act, actor, service_tag FROM audit WHERE act LIKE 'enrolment.%' OR act = 'claim.contested' "
               "ORDER BY number")
BY_MAIL = Telling((NotificationKind.MAIL,), "acme-1", "delegator.example")


@pytest.fixture
def opened(store, ask):
    """A claim that was opened with the shared certificate and answered."""
    async def make(tag=TAG, by=SECRET, minute=0.0, **more):
        return (await store.open_and_issue(ask(tag, by, kind=IdentityKind.SHARED, minute=minute, **more),
                                           lambda claim: "x")).claim
    return make


@pytest.fixture
def made(at):
    """A certificate as the enroller makes it."""
    def make(claim, key=KEY, serial="0a1b", minute=0.5):
        return Enrolled(serial, claim.service_tag, key, claim.claim_id, claim.binding, "-----BEGIN CERTIFICATE-----",
                        at(minute), at(60 * 24 * 365))
    return make


@pytest.fixture
async def enrolled(store, opened, made):
    claim = await opened()
    return await store.enrolments.enrol(made(claim))


# --- on record ----------------------------------------------------------------------------------------------------


async def test_R_enrolled_an_enrolment_is_on_record_and_the_same_device_finds_it_again(
        store, enrolled, opened, made, at):
    assert await store.enrolments.of_tag(TAG) == [enrolled]
    assert (enrolled.used, enrolled.revoked_at, enrolled.forgotten_at) == (False, None, None)
    claim = (await store.claims(service_tag=TAG))[0]
    again = await store.enrolments.enrol(made(claim, serial="ffff"))
    assert again == enrolled, "the one that may have left, whatever was signed meanwhile"
    assert await store.enrolments.page("") == [enrolled]


@pytest.mark.parametrize(("fingerprint", "by"), [
    ("bb" * 32, SECRET), (KEY, "secret:other"), ("bb" * 32, "secret:other")])
async def test_R_enrolled_nobody_else_is_enrolled_for_the_tag(store, enrolled, made, fingerprint, by):
    claim = (await store.claims(service_tag=TAG))[0]
    with pytest.raises(DelegatorError) as refused:
        await store.enrolments.enrol(replace(made(claim, fingerprint, "ffff"), binding=by))
    assert refused.value.kind is Kind.NOT_ENTITLED
    assert await store.enrolments.of_tag(TAG) == [enrolled]


@pytest.mark.parametrize("end", ["confirmed", "released", "never"])
async def test_R_enrolled_only_a_claim_that_was_answered_and_stands_is_enrolled(store, opened, made, at, end):
    claim = await opened()
    if end == "confirmed":
        await store.confirm(claim.claim_id, SECRET, Result.DEPLOYED, None, at(1))
    if end == "released":
        await store.ownership.release(TAG, at(1))
    wanted = made(claim) if end != "never" else replace(made(claim), claim_id="f" * 32)
    with pytest.raises(DelegatorError, match="was ended"):
        await store.enrolments.enrol(wanted)
    assert await store.enrolments.of_tag(TAG) == []


async def test_R_enrolled_of_many_at_once_one_is_enrolled_and_all_of_its_key_get_that_one(opening, store, opened, made):
    claim = await opened()
    other = await opening()
    wanted = [made(claim, key * 32, f"{number:04x}")
              for number, key in enumerate(["aa", "bb"] * 8)]
    got = await asyncio.gather(*((store if number % 2 else other).enrolments.enrol(one)
                                 for number, one in enumerate(wanted)), return_exceptions=True)
    kept = {one.serial for one in got if isinstance(one, Enrolled)}
    assert len(kept) == 1
    assert [one.serial for one in await store.enrolments.of_tag(TAG)] == list(kept)
    assert sum(isinstance(one, DelegatorError) for one in got) == 8


# --- whose the claim is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["asks", "confirms"])
async def test_R_enrolled_at_its_first_use_the_enrolled_key_takes_the_claim_over(store, ask, enrolled, at, first):
    if first == "asks":
        again = await store.open_claim(ask(TAG, f"key:{KEY}", minute=1))
        assert (again.outcome, again.claim.claim_id) == (Outcome.SAME_AGAIN, enrolled.claim_id)
    ended = await store.confirm(enrolled.claim_id, f"key:{KEY}", Result.DEPLOYED, None, at(2))
    assert ended is not None
    (claim,) = await store.claims(service_tag=TAG)
    assert claim.binding == f"key:{KEY}"
    assert await store.confirm(enrolled.claim_id, SECRET, Result.FAILED, None, at(3)) is None
    (kept,) = await store.enrolments.of_tag(TAG)
    assert (kept.used, kept.used_at) == (True, at(1 if first == "asks" else 2))


@pytest.mark.parametrize("by", ["key:" + "bb" * 32, "secret:other", f"secret:{KEY}", f"key:{KEY} ", "key:"])
async def test_R_enrolled_no_other_binding_takes_it_over(store, ask, enrolled, at, by):
    assert (await store.open_claim(ask(TAG, by, minute=1))).outcome is Outcome.TAKEN
    assert await store.confirm(enrolled.claim_id, by, Result.DEPLOYED, None, at(1)) is None
    (claim,) = await store.claims(service_tag=TAG)
    assert claim.binding == SECRET


async def test_R_enrolled_a_revoked_key_takes_nothing_over(store, ask, enrolled, at):
    await store.enrolments.revoke(TAG, "keyCompromise", at(1), OPERATOR)
    assert (await store.open_claim(ask(TAG, f"key:{KEY}", minute=2))).outcome is Outcome.TAKEN


async def test_R_enrolled_confirming_with_the_secret_says_that_the_certificate_arrived(store, enrolled, at):
    await store.confirm(enrolled.claim_id, SECRET, Result.FAILED, "no disk", at(1))
    assert not (await store.enrolments.of_tag(TAG))[0].used
    await store.confirm(enrolled.claim_id, SECRET, Result.DEPLOYED, None, at(2))
    assert (await store.enrolments.of_tag(TAG))[0].used_at == at(2)


async def test_R_enrolled_a_claim_opened_with_the_own_certificate_counts_as_use(store, ask, enrolled, at):
    """Nothing is written to the enrolment then: it would cost a statement with every handshake."""
    await store.expire_lapsed(at(61))
    assert not (await store.enrolments.of_tag(TAG))[0].used
    opened = await store.open_claim(ask(TAG, f"key:{KEY}", minute=62))
    assert opened.outcome is Outcome.OPENED
    assert (await store.enrolments.of_tag(TAG))[0].used
    await store.ownership.release(TAG, at(63))
    assert (await store.enrolments.of_tag(TAG))[0].used, "also when that claim is over"


# --- the footing --------------------------------------------------------------------------------------------------


async def test_R_alike_the_footing_says_what_stands_in_the_way(store, ask, enrolled, at):
    mine = await store.footing(ask(TAG, SECRET, kind=IdentityKind.SHARED, minute=1))
    assert mine.claim is not None
    assert mine.enrolled == enrolled
    assert mine.enrolled.admits(SECRET, KEY)
    assert mine.enrolled.admits(SECRET, None)
    for binding, key in ((SECRET, "bb" * 32), ("secret:other", KEY), ("secret:other", None)):
        assert not mine.enrolled.admits(binding, key)
    lapsed = await store.footing(ask(TAG, SECRET, kind=IdentityKind.SHARED, minute=61))
    assert (lapsed.claim, lapsed.enrolled) == (None, enrolled)
    await store.enrolments.forget(TAG, "superseded", at(62), OPERATOR)
    free = await store.footing(ask(TAG, SECRET, kind=IdentityKind.SHARED, minute=63))
    assert (free.claim, free.enrolled, free.reasons) == (None, None, ())


async def test_R_alike_the_same_statements_are_run_whatever_they_find(store, opening, ask, enrolled, at, monkeypatch):
    """Registered or not, claimed or not, with a judgement or without one: nobody can count them by time."""
    seen = []
    read = store._driver.read

    async def counting(query):
        seen.append(query.sql)
        return await read(query)
    monkeypatch.setattr(store._driver, "read", counting)
    asked = []
    for one in (ask(TAG, SECRET), ask(TAG, "secret:other"), ask("NOBODY1", SECRET),
                no_ask(ask("NOBODY2", SECRET).identity, ask(TAG, SECRET).now)):
        seen.clear()
        await store.footing(one)
        asked.append(list(seen))
    assert len(asked[0]) >= 3
    assert all(one == asked[0] for one in asked)
    assert all(sql.startswith("SELECT") for sql in asked[0])


# --- operators ----------------------------------------------------------------------------------------------------


async def test_R_enrolled_revoked_stays_and_forgotten_makes_room(store, enrolled, opened, made, at):
    gone = await store.enrolments.revoke(TAG, "keyCompromise", at(1), OPERATOR)
    assert (gone.revoked_at, gone.reason, gone.forgotten_at) == (at(1), "keyCompromise", None)
    assert await store.enrolments.revoked(at(2)) == {0x0A1B}
    with pytest.raises(DelegatorError) as twice:
        await store.enrolments.revoke(TAG, "superseded", at(2), OPERATOR)
    assert twice.value.kind is Kind.CONFLICT
    forgotten = await store.enrolments.forget(TAG, "superseded", at(3), OPERATOR)
    assert (forgotten.revoked_at, forgotten.reason, forgotten.forgotten_at) == (at(1), "keyCompromise", at(3))
    for work in (store.enrolments.revoke, store.enrolments.forget):
        with pytest.raises(DelegatorError) as none:
            await work(TAG, "superseded", at(4), OPERATOR)
        assert none.value.kind is Kind.NOT_FOUND
    await store.ownership.release(TAG, at(5))
    claim = await opened(by="secret:new", minute=6)
    new = await store.enrolments.enrol(made(claim, "cc" * 32, "0c", 6))
    assert await store.enrolments.of_tag(TAG) == [new, forgotten]
    assert await store.enrolments.revoked(at(7)) == {0x0A1B}, "the old one stays refused"


async def test_R_enrolled_forgetting_revokes_and_what_ended_needs_no_list(store, enrolled, at):
    await store.enrolments.forget(TAG, "superseded", at(1), OPERATOR)
    assert await store.enrolments.revoked(at(2)) == {0x0A1B}
    assert await store.enrolments.revoked(at(0) + timedelta(days=366)) == frozenset()


# --- second claimants ---------------------------------------------------------------------------------------------


def contest(at, tag=TAG, minute=1.0, kind=IdentityKind.SHARED, claim="c" * 32, times=1):
    return Contest(tag, kind, claim, "acme", "acme-1", "203.0.113.9", at(minute), times)


async def test_R_contested_a_second_claimant_is_new_once_a_day_and_counted_always(store, at):
    day = 24 * 60
    assert await store.contests.note([(contest(at), BY_MAIL)]) == [contest(at)]
    assert await store.contests.note([(contest(at, minute=2, times=40), BY_MAIL)]) == []
    (kept,) = await store.contests.list()
    assert (kept.times, kept.at, kept.peer, kept.customer) == (41, at(2), "203.0.113.9", "acme")
    assert len(await store.contests.note([(contest(at, minute=day), BY_MAIL)])) == 1
    assert len(await store.contests.note([(contest(at, minute=day, kind=IdentityKind.OWN), BY_MAIL)])) == 1
    assert [one.times for one in await store.contests.list(tag=TAG)] == [1, 1, 41]
    assert await store.contests.list(customer="globex") == []


async def test_R_contested_an_owner_is_told_once_a_day_for_a_tag_and_never_flooded(store, at):
    for _ in range(3):
        await store.contests.note([(contest(at), BY_MAIL), (contest(at, kind=IdentityKind.OWN), BY_MAIL)])
    (notice,) = await store.outbox.list()
    assert (notice.event, notice.claim_id, notice.body["peer"], notice.body["identity"]) == (
        Notice.SECOND_CLAIMANT.value, "c" * 32, "203.0.113.9", IdentityKind.SHARED.value)
    many = [(contest(at, f"TAG{number:05}", claim=f"{number:032x}"), BY_MAIL) for number in range(60)]
    await store.contests.note(many)
    assert len(await store.outbox.list()) == MOST_A_DAY
    await store.contests.note([(contest(at, minute=24 * 60), BY_MAIL)])
    assert len(await store.outbox.list()) == MOST_A_DAY + 1, "tomorrow is another day"


async def test_R_contested_it_is_told_beside_what_was_told_of_the_same_claim(store, ask, at):
    claim = (await store.open_and_issue(ask(TAG), lambda claim: "x", BY_MAIL)).claim
    await store.contests.note([(contest(at, claim=claim.claim_id), BY_MAIL)])
    found = await store.outbox.list()
    assert sorted(one.event for one in found) == ["provisioned", "second claimant"]


async def test_R_contested_whoever_has_no_address_is_told_nothing_and_all_is_kept(store, at):
    assert len(await store.contests.note([(contest(at), None)])) == 1
    assert await store.outbox.list() == []
    assert len(await store.contests.list()) == 1


async def test_R_contested_old_contests_go(store, at):
    await store.contests.note([(contest(at), None)])
    await store.contests.note([(contest(at, "ABC9999", minute=91 * 24 * 60), None)])
    assert [one.service_tag for one in await store.contests.list()] == ["ABC9999"]


# --- the audit ----------------------------------------------------------------------------------------------------


async def test_A11_each_act_leaves_one_row(store, enrolled, made, at):
    claim = (await store.claims(service_tag=TAG))[0]
    await store.enrolments.enrol(made(claim, serial="ffff"))
    await store.enrolments.revoke(TAG, "keyCompromise", at(1), OPERATOR)
    await store.enrolments.forget(TAG, "unspecified", at(2), OPERATOR)
    for _ in range(3):
        await store.contests.note([(contest(at), None)])
    rows = await store._driver.read(_AUDIT)
    assert [tuple(row) for row in rows] == [
        (Act.ENROLMENT_ISSUED.value, "device", TAG), (Act.ENROLMENT_REVOKED.value, "operator ann", TAG),
        (Act.ENROLMENT_FORGOTTEN.value, "operator ann", TAG), (Act.CLAIM_CONTESTED.value, "device", TAG)]


async def test_TA10_what_was_counted_is_not_forgotten_by_one_look_at_a_clock(store, at):
    """A start with a clock that is a year ahead, and anybody who asks for a tag that another holds."""
    await store.contests.note([(contest(at), None)])
    await store.contests.note([(contest(at, minute=366 * 24 * 60), None)], forget=False)
    assert len(await store.contests.list()) == 2
    await store.contests.note([(contest(at, minute=367 * 24 * 60), None)])
    assert len(await store.contests.list()) == 2
