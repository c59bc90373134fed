"""The law of widening: where a request that was refused is allowed after a change, there are words for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delegator import widening
from delegator.model import (
    CallbackKind,
    Customer,
    Delegate,
    Device,
    HostedCallback,
    IdentityKind,
    IdentityRule,
    Location,
    Policy,
    Registration,
    Rule,
    Secret,
    SoapCallback,
)
from delegator.model.hours import opening
from delegator.policy import Case, Hosts, applied, decide, over_limits, over_pace
from delegator.routing import Directory, Facts, NoRoute, choose, directory

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOURS = [opening(text) for text in ("Thu 08:00-13:00 UTC", "Thu 12:00-14:00 UTC", "daily 22:00-12:30 UTC",
                                    "Thu 08:00-13:00 Europe/Berlin")]
TAG = "ABC1234"


@dataclass(frozen=True)
class Tables:
    customers: Mapping[str, Customer]
    policies: Mapping[str, Policy]
    directory: Directory


@dataclass(frozen=True)
class State:
    """What is registered, in parts that can be drawn anew one by one."""

    policies: tuple[Policy, ...]
    customers: tuple[Customer, ...]
    delegates: tuple[Delegate, ...]
    rules: tuple[Rule, ...]

    @property
    def tables(self) -> Tables:
        return Tables({one.name: one for one in self.customers}, {one.name: one for one in self.policies},
                      directory(self.delegates, self.rules))


def _policy(name: str) -> st.SearchStrategy[Policy]:
    moment = st.none() | st.integers(-2, 2).map(lambda hour: NOON + timedelta(hours=hour))
    some = st.lists(st.sampled_from(HOURS), max_size=2, unique=True).map(tuple)
    return st.builds(
        Policy, st.just(name), custom_operations=st.sampled_from([True, True, True, False]), valid_from=moment,
        valid_until=moment, identity=st.sampled_from(IdentityRule), approved_only=st.booleans(),
        max_devices=st.none() | st.integers(0, 3),
        callbacks=st.none() | st.frozensets(st.sampled_from([CallbackKind.SOAP, CallbackKind.HOSTED])),
        attempts=st.integers(1, 3), lease=st.sampled_from([timedelta(hours=1), timedelta(hours=24)]),
        shared_by_domain=st.booleans(), hours=some | st.just(()),
        networks=st.lists(st.sampled_from(["192.0.2.0/24", "192.0.2.0/28", "2001:db8::/32"]), max_size=2).map(tuple),
        domains=st.sampled_from([(), ("acme.example",), ("a.acme.example",)]), own_anywhere=st.booleans(),
        claims_per_hour=st.none() | st.integers(1, 3))


named = st.none() | st.sampled_from(["p", "q"])
parts: dict[str, st.SearchStrategy[object]] = {
    "policies": st.tuples(_policy("p"), _policy("q")),
    "customers": st.tuples(*(st.builds(Customer, st.just(name), st.just(name), st.sampled_from([True, True, False]),
                                       named) for name in ("acme", "globex"))),
    "delegates": st.lists(st.sampled_from(["acme-1", "acme-2", "globex-1"]), unique=True).flatmap(
        lambda names: st.tuples(*(st.builds(
            Delegate, st.just(name), st.just(name.partition("-")[0]),
            st.sampled_from([SoapCallback("d.example"), HostedCallback("root", Secret("x"))]), policy=named,
            enabled=st.sampled_from([True, True, False]), priority=st.integers(1, 2)) for name in names))),
    "rules": st.lists(st.sampled_from(["r", "s", "t"]), unique=True).flatmap(
        lambda names: st.tuples(*(st.builds(
            lambda name, leads, priority, said: Rule(name, priority=priority, **leads, **said), st.just(name),
            st.sampled_from([{"delegate": "acme-1"}, {"delegate": "acme-2"}, {"delegate": "globex-1"},
                             {"delegator": "elsewhere.example"}]), st.integers(1, 2),
            st.sampled_from([{}, {"model": "R1"}, {"model": "R2"}, {"tag_prefix": "ABC"}, {"tag_prefix": "AX"},
                             {"network": "192.0.2.0/24"}, {"order": "4711"}, {"domain": "acme.example"}]))
            for name in names))),
}
states = st.builds(State, **parts)  # type: ignore[arg-type]
registrations = st.none() | st.builds(
    lambda customer, delegate, order: Registration(customer, TAG, order=order, delegate=customer and delegate),
    st.none() | st.sampled_from(["acme", "globex"]), st.none() | st.sampled_from(["acme-1", "acme-2", "globex-1"]),
    st.none() | st.just("4711")) | st.builds(
    lambda mac, order: Registration("acme", None, None, (mac,), order=order),
    st.sampled_from(["00:1A:2B:3C:4D:5E", "00:1A:2B:3C:4D:5F"]), st.none() | st.just("4711"))


@dataclass(frozen=True)
class Request:
    """Everything that a device and the moment bring along."""

    model: str
    peer: str
    domain: str | None
    identity: IdentityKind
    approved: frozenset[str]
    hosts: Hosts
    taken: int
    attempts: int
    opened: int


requests = st.builds(
    Request, st.sampled_from(["R1", "R2"]), st.sampled_from(["", "192.0.2.7", "192.0.2.99", "198.51.100.7"]),
    st.sampled_from([None, "acme.example"]), st.sampled_from(IdentityKind),
    st.frozensets(st.sampled_from(["p", "q"])), st.builds(Hosts, st.sampled_from(
        [(), ("x.acme.example",), ("x.a.acme.example",)]), st.just("because")), st.integers(0, 3), st.integers(0, 3),
    st.integers(0, 3))


def allowed(tables: Tables, registration: Registration | None, request: Request) -> bool:
    """As the server judges."""
    device = Device(TAG, None, ("00:1A:2B:3C:4D:5E",), request.model)
    facts = Facts(device, Location(domain=request.domain), request.peer)
    route = choose(facts, [registration] if registration else [], tables.directory)
    if isinstance(route, NoRoute):
        return False
    customer = tables.customers[route.delegate.customer]
    policies = applied(customer, route.delegate, tables.policies)
    by_tag = route.registration is not None and route.registration.service_tag is not None
    case = Case(customer, route.delegate, request.identity, by_tag, request.approved, NOON, False, request.peer,
                request.hosts)
    # The customer's devices are at least as many as the delegate's: the holders' counts differ.
    counts = {one.holder: request.taken - (one.holder.startswith("delegate/") and request.taken > 0)
              for one in policies}
    pace = {holder: [(int(NOON.timestamp()) // 60, request.opened)] for holder in counts}
    return decide(policies, case).allowed and not over_limits(policies, counts, request.attempts) and not over_pace(
        policies, pace, NOON)


@settings(max_examples=1500, deadline=None)
@given(st.data(), states, registrations, requests)
def test_what_a_change_of_the_tables_lets_in_has_words(data: st.DataObject, before: State,
                                                       registration: Registration | None, request: Request) -> None:
    changed = data.draw(st.lists(st.sampled_from(sorted(parts)), min_size=1, max_size=2, unique=True))
    after = replace(before, **{name: data.draw(parts[name], name) for name in changed})
    if not allowed(before.tables, registration, request) and allowed(after.tables, registration, request):
        assert widening.let_in(before.tables, after.tables)


@settings(max_examples=800, deadline=None)
@given(states, registrations, registrations, requests)
def test_what_a_change_of_a_registration_lets_in_has_words(state: State, before: Registration | None,
                                                           after: Registration | None, request: Request) -> None:
    if before is None and after is None:
        return
    if not allowed(state.tables, before, request) and allowed(state.tables, after, request):
        assert widening.of_device(before, after, state.tables)


@settings(max_examples=200, deadline=None)
@given(states, registrations)
def test_what_stays_as_it_is_has_none(state: State, registration: Registration | None) -> None:
    assert widening.let_in(state.tables, replace(state).tables) == ()
    if registration is not None:
        assert widening.of_device(registration, replace(registration), state.tables) == ()


STRICT = Policy("p", valid_from=NOON, valid_until=NOON + timedelta(hours=1), approved_only=True, max_devices=1,
                callbacks=frozenset({CallbackKind.SOAP}), attempts=1, hours=(HOURS[0],), networks=("192.0.2.0/24",),
                domains=("a.example",), claims_per_hour=1)
LOOSER: dict[str, object] = {
    "valid_from": None, "valid_until": None, "identity": IdentityRule.EITHER, "approved_only": False,
    "max_devices": 2, "callbacks": None, "attempts": 2, "lease": timedelta(hours=48), "shared_by_domain": True,
    "hours": (), "networks": ("192.0.2.0/23",), "domains": ("a.example", "b.example"), "own_anywhere": True,
    "claims_per_hour": None}


@pytest.mark.parametrize("field", [one.name for one in fields(Policy) if one.name != "name"])
def test_each_field_of_a_policy_is_compared(field: str) -> None:
    """A field that is new and not compared fails here, and so does one without an example."""
    assert field in widening.FIELDS
    if field == "custom_operations":
        assert widening.looser(replace(STRICT, custom_operations=False), STRICT)
        assert not widening.looser(STRICT, replace(STRICT, custom_operations=False))
        return
    after = replace(STRICT, **{field: LOOSER[field]})
    assert len(widening.looser(STRICT, after)) == 1
    if field != "lease":  # which is told either way
        assert widening.looser(after, STRICT) == ()


def _world(*rules: Rule, customers: tuple[Customer, ...] | None = None) -> Tables:
    policies = (Policy("closed", max_devices=0), Policy("open", identity=IdentityRule.EITHER))
    delegates = (Delegate("acme-1", "acme", SoapCallback("d.example")),
                 Delegate("globex-1", "globex", SoapCallback("d.example")))
    return State(policies, customers or (Customer("acme", "A", policy="closed"), Customer("globex", "G", policy="open")),
                 delegates, rules).tables


def test_a_removed_rule_tells_of_the_laxer_one_behind_it() -> None:
    strict, lax = Rule("first", "acme-1", 1, model="R1"), Rule("second", "globex-1", 2, tag_prefix="AB")
    (text, *_) = widening.let_in(_world(strict, lax), _world(lax))
    assert "rule second" in text
    assert "customer globex" in text
    apart = Rule("second", "globex-1", 2, model="R2")
    assert not widening.let_in(_world(strict, apart), _world(apart)), "no device is of two models"


def test_a_removed_rule_that_sent_devices_elsewhere_tells_of_the_one_behind_it() -> None:
    away, lax = Rule("away", None, 1, delegator="asia.example", tag_prefix="A"), Rule("rest", "globex-1", 2)
    assert widening.let_in(_world(away, lax), _world(lax))
    assert not widening.let_in(_world(lax), _world(away, lax)), "whom another delegator shall answer is let in nowhere"


def test_a_policy_that_is_taken_back_tells_what_it_asked() -> None:
    bare = (Customer("acme", "A"), Customer("globex", "G", policy="open"))
    told = widening.let_in(_world(), _world(customers=bare))
    assert any("devices at once: 0 -> any number" in text for text in told)
    assert not widening.let_in(_world(customers=bare), _world())


def test_where_reverse_dns_may_lead_strangers_that_is_told() -> None:
    rule = Rule("r", "acme-1", model="R1")
    assert any("reverse DNS" in text for text in widening.let_in(_world(rule), _world(), by_domain=True))
    assert not widening.let_in(_world(rule), _world())


@pytest.mark.parametrize(("rule", "all_of_them"), [
    (Rule("r", "d"), True), (Rule("r", "d", network="0.0.0.0/0"), True), (Rule("r", "d", network="::/0"), True),
    (Rule("r", "d", network="::ffff:0:0/96"), True), (Rule("r", "d", network="0.0.0.0/1"), True),
    (Rule("r", "d", network="2000::/3"), True), (Rule("r", "d", tag_prefix=""), True),
    (Rule("r", "d", network="192.0.2.0/24"), False), (Rule("r", "d", network="2001:db8::/32"), False),
    (Rule("r", "d", network="0.0.0.0/0", model="R1"), False), (Rule("r", "d", order="4711"), False),
    (Rule("r", "d", mac_prefix="00"), False), (Rule("r", None, delegator="asia.example"), False)])
def test_a_rule_that_keeps_nobody_out_is_known_for_it(rule: Rule, all_of_them: bool) -> None:
    from delegator.routing import catches_all

    assert catches_all(rule) is all_of_them
