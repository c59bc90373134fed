"""Contract: any walk of asks, answers, crashes and ends keeps what claims promise (R-once, R-durable).

A model in memory, told anew and simpler than the store, predicts every outcome, and every row of audit that a change
of a claim leaves; a clock that only moves when told.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from delegator.model import ClaimState, Customer, Policy, Registration, Result
from delegator.model.owned import TransferState
from delegator.store import Answered, Outcome
from delegator.store.audit.inspection import Wanted
from delegator.store.transfers import Side

from ..clock import today

POLICY = Policy("limits", max_devices=3, attempts=2)
BUSY, LEASE = 2, 10
ENDED = (ClaimState.EXPIRED, ClaimState.RELEASED)
TAGS = ["TAG0001", "TAG0002", "TAG0003", "TAG0004", "TAG0005"]
ACTS = ["claim.asked", "claim.issued", "claim.confirmed", "claim.failed", "claim.expired", "claim.released"]
tags = st.sampled_from(TAGS)
bindings = st.sampled_from(["key:one", "key:two"])
delegates = st.sampled_from(["acme-1", "acme-2"])


@dataclass
class Known:
    """What the model remembers of a claim."""

    tag: str
    by: str
    delegate: str
    lapses: int
    busy: int
    state: ClaimState = ClaimState.ASKING
    secret: str | None = None
    failure: str | None = None


class ClaimsMachine(RuleBasedStateMachine):
    """The store and the model, walked side by side."""

    def __init__(self, database, ask, at) -> None:
        super().__init__()
        self.make, self.at = ask, at
        self.minute = 0
        self.known: dict[str, Known] = {}
        self.rows: Counter[str] = Counter()
        self.refused: dict[str, set[str]] = {}
        self.expected: dict[str, str | None] = {}
        self.runner = asyncio.Runner()
        self.exits = AsyncExitStack()
        self.opening = self.run(self.exits.enter_async_context(database()))
        self.store = self.run(self.opening())
        self.run(self.register())

    def run(self, work):
        return self.runner.run(work)

    async def register(self) -> None:
        for name in ("acme", "umbra"):
            await self.store.add_customer(Customer(name, name), today())
        await self.store.add_devices([Registration("acme", tag) for tag in TAGS], today())

    async def counted(self) -> Counter[str]:
        """The rows of audit of claims, by act."""
        return Counter({act: await self.store.audit.count(Wanted(act=act)) for act in ACTS})

    def moves(self, one: Known, state: ClaimState, act: str | None = None) -> None:
        """The model's claim changes its state, and a row of audit is to say so."""
        one.state = state
        one.secret = one.secret if state is ClaimState.ISSUED else None
        self.rows[act or f"claim.{state.value}"] += 1

    def teardown(self) -> None:
        self.run(self.exits.aclose())
        self.runner.close()

    # --- the model ---

    def live(self) -> dict[str, tuple[str, Known]]:
        return {one.tag: (claim_id, one) for claim_id, one in self.known.items() if one.state not in ENDED}

    def lapsed(self, one: Known) -> bool:
        return one.state in (ClaimState.ASKING, ClaimState.ISSUED) and one.lapses <= self.minute

    def over_limit(self, tag: str) -> bool:
        used = sum(one.tag == tag and one.state is ClaimState.EXPIRED for one in self.known.values())
        return len(self.live()) >= POLICY.max_devices or used >= POLICY.attempts

    def expire_lapsed(self) -> int:
        gone = [one for one in self.known.values() if self.lapsed(one)]
        for one in gone:
            self.moves(one, ClaimState.EXPIRED)
        return len(gone)

    def predicted(self, tag: str, by: str, delegate: str) -> tuple[Outcome, str | None]:
        claim_id, one = self.live().get(tag, (None, None))
        if one is not None:
            outcome = self.standing(one, by, delegate)
            if outcome is not None:
                return outcome, claim_id
            self.moves(one, ClaimState.EXPIRED)
        if by in self.refused.get(tag, ()) or self.expected.get(tag) not in (None, "", by):
            return Outcome.OVER_LIMIT, None
        if self.over_limit(tag):
            self.expire_lapsed()
        return (Outcome.OVER_LIMIT if self.over_limit(tag) else Outcome.OPENED), None

    def standing(self, one: Known, by: str, delegate: str) -> Outcome | None:
        if self.lapsed(one):
            return None
        if one.by != by:
            return Outcome.TAKEN
        if one.state is not ClaimState.ASKING:
            return Outcome.DONE if one.state is ClaimState.CONFIRMED else Outcome.SAME_AGAIN
        if one.busy > self.minute:
            return Outcome.BUSY
        return Outcome.RESUMED if one.delegate == delegate else None

    # --- what can happen ---

    @rule(minutes=st.sampled_from([1, BUSY, LEASE]))
    def time_passes(self, minutes: int) -> None:
        self.minute += minutes

    @rule(tag=tags, by=bindings, delegate=delegates, at_hand=st.booleans())
    def device_asks(self, tag: str, by: str, delegate: str, at_hand: bool) -> None:
        ask = self.make(tag, by, minute=self.minute, delegate=delegate, policy=POLICY, busy=BUSY, lease=LEASE)
        expected, claim_id = self.predicted(tag, by, delegate)
        opened = self.run(self.store.open_and_issue(ask, lambda claim: f"for {by}") if at_hand
                          else self.store.open_claim(ask))
        if expected is Outcome.OPENED:
            claim_id = opened.claim.claim_id
            self.known[claim_id] = Known(tag, by, delegate, self.minute + LEASE, self.minute + BUSY)
            self.rows["claim.asked"] += not at_hand
            if self.expected.get(tag) == "":
                del self.expected[tag]
        if expected is Outcome.RESUMED:
            self.known[claim_id].busy = self.minute + BUSY
        if at_hand and expected in (Outcome.OPENED, Outcome.RESUMED):
            expected = Outcome.ISSUED
            self.known[claim_id].secret = f"for {by}"
            self.moves(self.known[claim_id], ClaimState.ISSUED)
        assert opened.outcome is expected
        assert claim_id == (opened.claim and opened.claim.claim_id)

    @rule(data=st.data(), stand_in=st.none() | delegates)
    def delegate_answers(self, data, stand_in: str | None) -> None:
        if self.known:
            claim_id = data.draw(st.sampled_from(list(self.known)))
            one = self.known[claim_id]
            issued = self.run(self.store.issue(claim_id, f"for {one.by}", self.at(self.minute), Answered(stand_in)))
            assert (issued is not None) == (one.state is ClaimState.ASKING)
            if issued is not None:
                one.delegate = stand_in or one.delegate
                one.secret = f"for {one.by}"
                self.moves(one, ClaimState.ISSUED)

    @rule(data=st.data())
    def callback_fails(self, data) -> None:
        if self.known:
            claim_id = data.draw(st.sampled_from(list(self.known)))
            self.run(self.store.pause(claim_id))
            self.known[claim_id].busy = 0

    @rule()
    def server_restarts(self) -> None:
        self.run(self.store.close())
        self.store = self.run(self.opening())
        self.run(self.store.pause_all())
        for one in self.known.values():
            one.busy = 0

    @rule(data=st.data(), by=bindings | st.none(), result=st.sampled_from(Result))
    def device_confirms(self, data, by: str | None, result: Result) -> None:
        if self.known:
            claim_id = data.draw(st.sampled_from(list(self.known)))
            one = self.known[claim_id]
            open_to_it = one.by == by and one.state in (ClaimState.ISSUED, ClaimState.CONFIRMED)
            claim = self.run(self.store.confirm(claim_id, by, result, str(self.minute), self.at(self.minute)))
            if one.by != by or one.state is ClaimState.ASKING:
                assert claim is None
            if open_to_it:
                assert claim is not None
            if open_to_it and one.state is ClaimState.ISSUED:
                if result is Result.DEPLOYED:
                    self.moves(one, ClaimState.CONFIRMED)
                elif one.failure != str(self.minute):
                    self.moves(one, ClaimState.ISSUED, "claim.failed")
                one.failure = str(self.minute)

    @rule(tag=tags)
    def operator_releases(self, tag: str) -> None:
        assert len(self.run(self.store.ownership.release(tag, self.at(self.minute)))) == self.let_go(tag)

    def let_go(self, tag: str) -> int:
        gone = [one for one in self.known.values() if one.tag == tag and one.state is not ClaimState.RELEASED]
        for one in gone:
            self.moves(one, ClaimState.RELEASED)
        return len(gone)

    @rule(tag=tags)
    def device_is_returned_and_sold_again(self, tag: str) -> None:
        self.run(self.store.ownership.give_back([tag], "returned", self.at(self.minute)))
        self.run(self.store.add_devices([Registration("acme", tag)], today(), replace=True))
        self.let_go(tag)

    @rule(tag=tags, accepted=st.booleans())
    def device_changes_hands(self, tag: str, accepted: bool) -> None:
        """Offered to umbra and taken back, or accepted; then it comes back to acme the same way."""
        ownership, now = self.store.ownership, self.at(self.minute)
        for owner, other in (("acme", "umbra"), ("umbra", "acme")):
            self.run(ownership.offer([(tag, secrets.token_hex(16))], other, self.at(self.minute + 1), now))
            if not accepted:
                self.run(ownership.end(TransferState.WITHDRAWN, [tag], now, Side(owner)))
                return
            self.run(ownership.end(TransferState.ACCEPTED, [tag], now, Side(other)))
            self.let_go(tag)

    @rule(tag=tags, new=bindings | st.none(), by=bindings, delegate=delegates)
    def main_board_is_replaced(self, tag: str, new: str | None, by: str, delegate: str) -> None:
        """And the next that asks is the old board, the new one or a third."""
        mine = {one.by for one in self.known.values() if one.tag == tag}
        standing = self.live().get(tag)
        if not mine or (standing is not None and standing[1].by == new):
            return
        key = None if new is None else new.removeprefix("key:")
        self.run(self.store.ownership.repair(tag, key, self.at(self.minute), None, "broken"))
        self.refused[tag] = (self.refused.get(tag, set()) | mine) - {new}
        self.expected[tag] = new or ""
        self.let_go(tag)
        self.device_asks(tag, by, delegate, True)

    @rule()
    def sweep(self) -> None:
        expected = self.expire_lapsed()
        assert self.run(self.store.expire_lapsed(self.at(self.minute))) == expected

    # --- what always holds ---

    @invariant()
    def record_and_model_agree(self) -> None:
        claims = self.run(self.store.claims(most=100_000))
        live = [one for one in claims if one.state not in ENDED]
        assert {one.claim_id: (one.state, one.delegate) for one in claims} == {
            claim_id: (one.state, one.delegate) for claim_id, one in self.known.items()}
        assert len({one.service_tag for one in live}) == len(live), "one live claim per tag"
        for one in claims:
            assert (one.sealed is not None) == (one.state is ClaimState.ISSUED), "sealed only while issued"
            if one.sealed is not None:
                assert self.store.reveal(one) == self.known[one.claim_id].secret == f"for {one.binding}"
        counted = Counter(f"delegate/{one.delegate}" for one in live) + Counter({"customer/acme": len(live)})
        taken = {**self.run(self.store.taken("acme", "acme-1")), **self.run(self.store.taken("acme", "acme-2"))}
        assert Counter(taken) == counted, "places are counted exactly"
        assert len(live) <= POLICY.max_devices
        assert self.run(self.counted()) == self.rows, "one row of audit for each change"


@pytest.mark.slow
def test_R_once_any_walk_of_asks_answers_crashes_and_ends_keeps_the_promises(database, tmp_path, ask, at):
    def machine() -> ClaimsMachine:
        """In an empty database each time, so that the same steps do the same again."""
        for path in tmp_path.iterdir():
            path.unlink()
        return ClaimsMachine(database, ask, at)

    run_state_machine_as_test(machine, settings=settings(
        max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)))
