"""Contract: a credential that was issued is one billable event, for ever, and the audit proves it (A11)."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from delegator.errors import DelegatorError, Kind
from delegator.model import CallbackWay, ClaimState, Result
from delegator.model.audited import Act, Entry, Record
from delegator.model.billed import Count, Month, Period
from delegator.store import Answered, Outcome, issuing, milliseconds
from delegator.store.audit import ledger
from delegator.store.audit.inspection import Wanted
from delegator.store.billing.reconciling import Reconciliation, Verdict, What
from delegator.store.transaction import Query

JANUARY = Month(2026, 1)
SOAP, SSH, HOSTED = CallbackWay.SOAP, CallbackWay.SSH, CallbackWay.HOSTED


def period(begins: datetime, ends: datetime) -> Period:
    return Period(JANUARY, "UTC", begins, ends)


async def counts(store, month: Month = JANUARY, **more) -> list[Count]:
    within = await store.statements.period(month, "UTC")
    return await store.usage.counts(within, within.ends, **more)


async def reconciled(store, within: Period | None = None, page: int = 3, statement=None) -> Reconciliation:
    reconciliation = store.reconciliation(within or await store.statements.period(JANUARY, "UTC"), statement)
    async for _ in reconciliation.run(page):
        pass
    return reconciliation


async def issuing_rows(store) -> list[Record]:
    return [row async for row in store.audit.stream(Wanted(act="claim.issued"))]


async def proven(store, within: Period | None = None) -> int:
    """How many events the audit proves; fails when it does not prove all of them."""
    done = await reconciled(store, within)
    assert (done.verdict, done.found.differences) == (Verdict.PROVEN, [])
    assert done.found.events == done.found.rows
    return done.found.events


@pytest.fixture
def wants(ask):
    """An ask whose delegate is reached in some way."""
    return lambda *words, callback=SOAP, **more: replace(ask(*words, **more), callback=callback)


# --- what counts --------------------------------------------------------------------------------------------------


async def test_A11_a_device_that_asks_again_within_its_lease_is_one_event(store, wants) -> None:
    outcomes = [(await store.open_and_issue(wants(minute=minute, callback=HOSTED), lambda claim: "x")).outcome
                for minute in range(4)]
    assert outcomes == [Outcome.ISSUED, *[Outcome.SAME_AGAIN] * 3]
    assert await counts(store) == [Count("acme", HOSTED, 1, 0)]
    assert await proven(store) == 1


async def test_A11_what_was_not_issued_is_none(store, wants, at) -> None:
    opened = await store.open_claim(wants("TAG0001"))
    await store.pause(opened.claim.claim_id)
    assert (await store.open_claim(wants("TAG0001", minute=1))).outcome is Outcome.RESUMED
    await store.open_claim(wants("TAG0002"))
    await store.expire_lapsed(at(60))
    assert await counts(store) == []
    assert await proven(store) == 0


async def test_A11_issued_is_billed_whatever_becomes_of_it_and_confirmed_is_told_beside(store, wants, at) -> None:
    ids = []
    for number in range(4):
        claim = (await store.open_claim(wants(f"TAG000{number}"))).claim
        ids.append((await store.issue(claim.claim_id, "x", at(0.5), Answered(callback=SOAP))).claim_id)
    await store.confirm(ids[0], "key:one", Result.DEPLOYED, None, at(1))
    await store.confirm(ids[1], "key:one", Result.FAILED, "no disk", at(1))
    await store.ownership.release("TAG0000", at(2))
    await store.ownership.release("TAG0002", at(2))
    await store.expire_lapsed(at(100))
    assert {(await store.claim(one)).state for one in ids} == {ClaimState.RELEASED, ClaimState.EXPIRED}
    assert await counts(store) == [Count("acme", SOAP, 4, 1)]
    await store.open_and_issue(wants("TAG0000", minute=3), lambda claim: "x")
    assert await counts(store) == [Count("acme", SOAP, 5, 1)], "provisioned anew is a new event"
    assert await proven(store) == 5


async def test_A11_an_event_is_of_the_kind_that_answered(store, wants, at) -> None:
    claim = (await store.open_claim(wants(callback=SOAP, delegate="acme-1"))).claim
    issued = await store.issue(claim.claim_id, "x", at(0.5), Answered("acme-2", SSH))
    assert (issued.delegate, issued.callback) == ("acme-2", SSH)
    assert await counts(store) == [Count("acme", SSH, 1, 0)]
    assert await store.taken("acme", "acme-1") == {"customer/acme": 1, "delegate/acme-1": 0}
    assert (await store.taken("acme", "acme-2"))["delegate/acme-2"] == 1
    again = await store.issue(claim.claim_id, "other", at(0.6), Answered("acme-1", SOAP))
    assert again is None
    assert (await store.claim(claim.claim_id)).callback is SSH
    (row,) = await issuing_rows(store)
    assert (row.entry.delegate, row.entry.detail["callback"]) == ("acme-2", "ssh")
    assert await proven(store) == 1


async def test_A11_counts_are_by_customer_and_kind(store, wants) -> None:
    for number, (customer, callback) in enumerate([("acme", SOAP), ("acme", SOAP), ("acme", HOSTED), ("umbra", SSH),
                                                   ("domain:umbra.example", SOAP), ("umbra", None)]):
        await store.open_and_issue(wants(f"TAG000{number}", customer=customer, callback=callback), lambda claim: "x")
    assert await counts(store) == [
        Count("acme", HOSTED, 1, 0), Count("acme", SOAP, 2, 0), Count("domain:umbra.example", SOAP, 1, 0),
        Count("umbra", None, 1, 0), Count("umbra", SSH, 1, 0)]
    assert await counts(store, customer="acme") == [Count("acme", HOSTED, 1, 0), Count("acme", SOAP, 2, 0)]


# --- when it counts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes", [-90, -1, 0, 1, 59, 60, 61, 60 * 24 * 40],
                         ids=lambda minutes: f"issued {minutes} min after asking")
async def test_A11_an_event_is_in_the_month_it_was_issued_in_whenever_it_was_asked_for(store, wants, at, minutes):
    """Also hours later, after a delegate's outage, and by a delegator whose clock is behind."""
    border = at(60 * 24 * 31)
    for number, milli in enumerate((-1, 0)):
        issued = border + timedelta(milliseconds=milli)
        asked = (issued - at(0)).total_seconds() / 60 - minutes
        claim = (await store.open_claim(wants(f"TAG000{number}", minute=asked, lease=10**6))).claim
        await store.issue(claim.claim_id, "x", issued)
    for month in (JANUARY, JANUARY.after(1)):
        assert [one.issued for one in await counts(store, month)] == [1], month
        assert await proven(store, await store.statements.period(month, "UTC")) == 1
    assert await counts(store, JANUARY.after(-1)) == await counts(store, JANUARY.after(2)) == []


async def test_A11_events_come_a_page_at_a_time_each_once(store, wants, at) -> None:
    """Seven soon after asking, two of them in one millisecond with another, and four long after."""
    for number in range(11):
        late = 120.0 if number % 3 == 0 else 0.0
        claim = (await store.open_claim(wants(f"TAG{number:04}", minute=number // 2, lease=1000))).claim
        await store.issue(claim.claim_id, "x", at(number // 2 + late))
    within = await store.statements.period(JANUARY, "UTC")
    for page in (1, 2, 3, 100):
        pages = [one async for one in store.usage.events(within, page)]
        ids = [event.claim_id for one in pages for event in one]
        assert max(map(len, pages)) <= page
        assert sorted(ids) == sorted(one.claim_id for one in await store.claims())
        assert len(set(ids)) == 11


# --- what can never come about ------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [
    "customer = 'umbra'", "callback = 'ssh'", "callback = NULL", "issued_at = NULL", "issued_at = issued_at - 1",
    "asked_at = asked_at + 1", "delegate = 'acme-9'", "claim_id = 'x'"])
async def test_A11_what_is_billed_of_a_claim_is_changed_by_no_statement(store, wants, change: str) -> None:
    await store.open_and_issue(wants(), lambda claim: "x")
    for statement in (f"UPDATE claims SET {change}", "DELETE FROM claims"):
        with pytest.raises(DelegatorError) as refusal:
            await store._driver.run(lambda text=statement: raw(text))
        assert refusal.value.kind is Kind.CONFLICT
    assert await proven(store) == 1


async def test_A11_a_claim_that_was_never_issued_may_go(store, wants) -> None:
    await store.open_claim(wants())
    await store._driver.run(lambda: raw("DELETE FROM claims"))
    assert await store.claims() == []


def raw(statement: str, *parameters):
    yield Query(statement, parameters)


class Broken(Exception):
    """The driver fails."""


def failing(work, after: int):
    """The transaction, as if its statement of that number failed."""
    rows = None
    for _ in range(after):
        try:
            query = next(work) if rows is None else work.send(rows)
        except StopIteration as end:
            return end.value
        rows = yield query
    raise Broken


async def test_A11_a_claim_is_issued_with_its_event_and_its_row_or_not_at_all(store, wants) -> None:
    """Whichever statement of the transaction fails, in one step and in two."""
    tags = iter(f"TAG{number:04}" for number in range(1000))

    async def one_step(after: int) -> None:
        asked = wants(next(tags))
        await store._driver.run(lambda: failing(issuing.open_issue_and_tell(asked, lambda claim: b"x", None), after))

    async def two_steps(after: int) -> None:
        claim = (await store.open_claim(wants(next(tags), delegate="acme-1"))).claim
        await store._driver.run(lambda: failing(issuing.issue_and_tell(
            claim.claim_id, b"x", milliseconds(claim.asked_at), Answered("acme-2", SSH)), after))
    issued = 0
    for step in (one_step, two_steps):
        for after in range(50):
            try:
                await step(after)
                issued += 1
            except Broken:
                pass
            assert sum(one.issued for one in await counts(store)) == issued
            assert len(await issuing_rows(store)) == issued
            if issued and after > 40:
                break
    assert issued > 50
    assert await proven(store) == issued


async def test_A11_devices_that_race_are_as_many_events_as_credentials(opening, wants) -> None:
    stores = [await opening() for _ in range(2)]
    asks = [wants(f"TAG{number % 8:04}", minute=0) for number in range(64)]
    opened = await asyncio.gather(*(stores[number % 2].open_and_issue(one, lambda claim: "x")
                                    for number, one in enumerate(asks)))
    assert sum(one.outcome is Outcome.ISSUED for one in opened) == 8
    assert await counts(stores[0]) == [Count("acme", SOAP, 8, 0)]
    assert await proven(stores[1]) == 8


# --- against a model ----------------------------------------------------------------------------------------------

tags = st.sampled_from(["TAG0001", "TAG0002", "TAG0003"])
kinds = st.sampled_from([SOAP, SSH, HOSTED])
steps = st.lists(st.one_of(
    st.tuples(st.just("serve"), tags, kinds), st.tuples(st.just("ask"), tags, kinds),
    st.tuples(st.just("answer"), tags, kinds), st.tuples(st.just("fail over"), tags, kinds),
    st.tuples(st.just("pause"), tags), st.tuples(st.just("confirm"), tags), st.tuples(st.just("release"), tags),
    st.tuples(st.just("sweep")), st.tuples(st.just("pass"), st.sampled_from([1, 30, 50, 700]))),
    min_size=5, max_size=25)


class World:
    """Devices of one customer, and the events there must be."""

    def __init__(self, store, wants, at, number: int) -> None:
        self.store, self.wants, self.at = store, wants, at
        self.customer, self.minute = f"customer-{number}", 31.0 * 24 * 60 - 60
        self.prefix = f"N{number:04}"
        self.standing: dict[str, tuple[str, bool]] = {}
        self.expected: Counter[tuple[Month, CallbackWay]] = Counter()

    def note(self, claim, kind: CallbackWay) -> None:
        now = self.at(self.minute)
        self.expected[Month(now.year, now.month), kind] += 1
        self.standing[claim.service_tag] = (claim.claim_id, True)

    def asks(self, tag: str, kind: CallbackWay):
        return self.wants(self.prefix + tag, customer=self.customer, minute=self.minute, callback=kind, busy=0,
                          lease=600)

    async def step(self, what: str, *words) -> None:
        if what == "pass":
            self.minute += words[0]
        elif what == "sweep":
            await self.store.expire_lapsed(self.at(self.minute))
        elif what in ("serve", "ask"):
            await self.asked(what, *words)
        elif (standing := self.standing.get(self.prefix + words[0])) is not None:
            await self.went_on(what, standing[0], *words)

    async def asked(self, what: str, tag: str, kind: CallbackWay) -> None:
        if what == "serve":
            opened = await self.store.open_and_issue(self.asks(tag, kind), lambda claim: "x")
            if opened.outcome is Outcome.ISSUED:
                self.note(opened.claim, kind)
        else:
            opened = await self.store.open_claim(self.asks(tag, kind))
        if opened.claim is not None:
            self.standing[opened.claim.service_tag] = (opened.claim.claim_id, False)

    async def went_on(self, what: str, claim_id: str, tag: str, kind: CallbackWay | None = None) -> None:
        now = self.at(self.minute)
        if what in ("answer", "fail over"):
            other = "acme-2" if what == "fail over" else None
            issued = await self.store.issue(claim_id, "x", now, Answered(other, kind))
            if issued is not None:
                self.note(issued, kind)
        elif what == "pause":
            await self.store.pause(claim_id)
        elif what == "confirm":
            await self.store.confirm(claim_id, "key:one", Result.DEPLOYED, None, now)
        else:
            await self.store.ownership.release(self.prefix + tag, now)


def test_A11_any_walk_of_retries_failovers_and_releases_is_billed_as_a_model_counts_it(database, wants, at) -> None:
    numbers = iter(range(10**6))
    exits, runner, all_of = AsyncExitStack(), asyncio.Runner(), Counter()
    opening = runner.run(exits.enter_async_context(database()))
    store = runner.run(opening())

    async def walked(walk) -> None:
        world = World(store, wants, at, next(numbers))
        for step in walk:
            await world.step(*step)
        found = Counter({(month, one.way): one.issued for month in (JANUARY, JANUARY.after(1))
                         for one in await counts(store, month, customer=world.customer)})
        assert found == world.expected
        all_of.update(world.expected)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(steps)
    def walk(walk) -> None:
        runner.run(walked(walk))
    try:
        walk()
        months = [runner.run(store.statements.period(month, "UTC")) for month in (JANUARY, JANUARY.after(1))]
        assert sum(runner.run(proven(store, month)) for month in months) == all_of.total() > 0
        assert {kind for _, kind in all_of} == {SOAP, SSH, HOSTED}
    finally:
        runner.run(exits.aclose())
        runner.close()


# --- what reconciling finds ---------------------------------------------------------------------------------------


def planted(claim_id: str, tag: str, customer: str, issued_at: int, asked_at: int | None = None):
    """A claim that somebody put into the database."""
    asked_at = int(claim_id[:12], 16) if asked_at is None else asked_at
    yield Query(
        "INSERT INTO claims (claim_id, service_tag, customer, delegate, state, identity, binding, attempt, asked_at, "
        "busy_until, lease_until, issued_at, callback) VALUES ($1, $2, $3, 'acme-1', 'released', 'own', 'key:one', 1, "
        "$4, 0, $4, $5, 'soap')", (claim_id, tag, customer, asked_at, issued_at))


def told(claim_id: str, when: datetime, customer: str = "acme", callback: str = "soap"):
    """A row of audit that tells of an event."""
    return ledger.append(Entry(Act.CLAIM_ISSUED, when, "device", customer=customer, delegate="acme-1",
                              claim_id=claim_id, detail={"callback": callback}))


def claim_id_at(when: datetime, number: int) -> str:
    return f"{milliseconds(when):012x}{number:020x}"


async def differences(store) -> list[tuple[What, str | None]]:
    done = await reconciled(store)
    assert done.verdict is (Verdict.DIFFERS if done.found.counted else Verdict.PROVEN)
    assert Counter(one.what for one in done.found.differences) == done.found.counted
    return sorted(((one.what, one.claim_id) for one in done.found.differences), key=str)


async def test_A11_an_event_without_a_row_and_a_row_without_an_event_are_found(store, wants, at) -> None:
    for number in range(5):
        await store.open_and_issue(wants(f"TAG000{number}", minute=number), lambda claim: "x")
    added, gone = claim_id_at(at(2), 1), claim_id_at(at(3), 2)
    await store._driver.run(lambda: planted(added, "ADDED01", "acme", milliseconds(at(2))))
    await store._driver.run(lambda: told(gone, at(3)))
    open_still = (await store.open_claim(wants("TAG0009", minute=4))).claim
    await store._driver.run(lambda: told(open_still.claim_id, at(4)))
    assert await differences(store) == sorted([
        (What.NO_ROW, added), (What.NO_EVENT, gone), (What.NO_EVENT, open_still.claim_id)], key=str)


@pytest.mark.parametrize(("customer", "minute", "callback", "words"), [
    ("umbra", 2, "soap", "customer is acme, in the audit umbra"), ("acme", 3, "soap", "time is"),
    ("acme", -99, "soap", "time is"), ("acme", 2, "ssh", "callback is soap, in the audit ssh")])
async def test_A11_an_event_that_differs_from_its_row_is_found(store, at, customer, minute, callback, words):
    changed = claim_id_at(at(2), 1)
    await store._driver.run(lambda: planted(changed, "TAG0001", "acme", milliseconds(at(2))))
    await store._driver.run(lambda: told(changed, at(minute), customer, callback))
    done = await reconciled(store)
    assert [(one.what, one.claim_id) for one in done.found.differences] == [(What.OTHER, changed)]
    assert words in done.found.differences[0].words


async def test_A11_an_event_that_was_moved_to_another_month_is_found_from_both(store, at) -> None:
    moved, february = claim_id_at(at(0), 1), datetime(2026, 2, 3, tzinfo=UTC)
    await store._driver.run(lambda: planted(moved, "TAG0001", "acme", milliseconds(february)))
    await store._driver.run(lambda: told(moved, at(0)))
    for month in (JANUARY, JANUARY.after(1)):
        done = await reconciled(store, await store.statements.period(month, "UTC"))
        assert [(one.what, one.claim_id) for one in done.found.differences] == [(What.OTHER, moved)], month


async def test_A11_a_claim_that_is_not_counted_because_of_its_id_is_found(store, at) -> None:
    hidden, later = claim_id_at(at(0), 1), at(3 * 24 * 60)
    await store._driver.run(lambda: planted(hidden, "TAG0001", "acme", milliseconds(later), milliseconds(later)))
    await store._driver.run(lambda: told(hidden, later))
    assert await counts(store) == []
    assert await differences(store) == [(What.NO_EVENT, hidden)]


async def test_A11_a_row_that_is_there_twice_is_found(store, wants, at) -> None:
    claim = (await store.open_and_issue(wants(), lambda claim: "x")).claim
    await store._driver.run(lambda: told(claim.claim_id, at(0)))
    assert await differences(store) == [(What.TWO_ROWS, claim.claim_id)]


async def test_A11_what_is_older_than_the_audit_is_not_provable_and_not_wrong(store, wants) -> None:
    """After pruning, the audit is complete from the first row that is left."""
    for minute in range(0, 60, 10):
        await store.open_and_issue(wants(f"TAG00{minute:02}", minute=minute), lambda claim: "x")
    asked = datetime.now(UTC) + timedelta(days=1)
    await store.audit.prune(await store.audit.prunable(asked), asked, asked)
    done = await reconciled(store)
    assert (done.verdict, done.found.differences) == (Verdict.NOT_PROVABLE, [])
    assert done.found.unprovable + done.found.rows == done.found.events == 6
    assert done.found.unprovable >= 5
    assert done.since > datetime(2026, 1, 1, tzinfo=UTC)


async def test_A11_only_so_many_differences_are_kept_and_all_are_counted(store, at, monkeypatch) -> None:
    monkeypatch.setattr("delegator.store.billing.reconciling.MOST", 3)
    for number in range(9):
        await store._driver.run(lambda number=number: told(claim_id_at(at(3), number), at(3)))
    done = await reconciled(store, page=2)
    assert (len(done.found.differences), done.found.counted[What.NO_EVENT]) == (3, 9)
