"""The law of widening: where a request that was refused is allowed after a change, there are words for it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from delegator import widening
from delegator.model import (
    CallbackWay,
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


Chance = random.Random
NAMES = ("acme-1", "acme-2", "globex-1")
FIELDS: dict[str, tuple[object, ...]] = {
    "custom_operations": (True, True, True, False), "valid_from": (None, NOON, NOON + timedelta(hours=1)),
    "valid_until": (None, NOON, NOON + timedelta(hours=1)), "identity": tuple(IdentityRule),
    "approved_only": (False, True), "max_devices": (None, 0, 1, 2, 3),
    "callbacks": (None, frozenset({CallbackWay.SOAP}), frozenset({CallbackWay.HOSTED})), "attempts": (1, 2, 3, 4),
    "lease": (timedelta(hours=1), timedelta(hours=24)), "shared_by_domain": (False, True),
    "hours": ((), *((one,) for one in HOURS), tuple(HOURS[:2])),
    "networks": ((), ("192.0.2.0/24",), ("192.0.2.0/28",), ("2001:db8::/32", "192.0.2.0/28")),
    "domains": ((), ("acme.example",), ("a.acme.example",)), "own_anywhere": (False, True),
    "claims_per_hour": (None, 1, 2, 3)}
"""Values of each field, the first the one that is in nobody's way."""
POLICIES = (None, None, "p", "q")
CALLBACKS = (SoapCallback("d.example"), HostedCallback("root", Secret("x")))
LEADING: tuple[dict[str, str], ...] = (*({"delegate": name} for name in NAMES), {"delegator": "elsewhere.example"})
CONDITIONS: tuple[dict[str, str], ...] = (
    {}, {}, {"model": "R1"}, {"model": "R2"}, {"tag_prefix": "ABC"}, {"tag_prefix": "AX"},
    {"network": "192.0.2.0/24"}, {"order": "4711"}, {"domain": "acme.example"})


def a_policy(chance: Chance, name: str) -> Policy:
    """Most of its fields are in nobody's way, so that something is allowed at all."""
    said = {field: values[0] if chance.random() < 0.8 else chance.choice(values) for field, values in FIELDS.items()}
    return Policy(name, **{**said, "attempts": chance.choice((3, 4))})  # type: ignore[arg-type]


def a_customer(chance: Chance, name: str) -> Customer:
    return Customer(name, name, chance.random() < 0.9, chance.choice(POLICIES))


def a_delegate(chance: Chance, name: str) -> Delegate:
    return Delegate(name, name.partition("-")[0], chance.choice(CALLBACKS), policy=chance.choice(POLICIES),
                    enabled=chance.random() < 0.9, priority=chance.choice((1, 2)))


def a_rule(chance: Chance, name: str) -> Rule:
    return Rule(name, priority=chance.choice((1, 2)), **chance.choice(LEADING), **chance.choice(CONDITIONS))


def a_state(chance: Chance) -> State:
    return State(tuple(a_policy(chance, name) for name in "pq"),
                 tuple(a_customer(chance, name) for name in ("acme", "globex")),
                 tuple(a_delegate(chance, name) for name in NAMES if chance.random() < 0.9),
                 tuple(a_rule(chance, name) for name in "rst" if chance.random() < 0.6))


def otherwise(chance: Chance, state: State) -> State:
    """The state with one thing changed: a field of a policy, any row, a row more or less."""
    part = chance.choice(("policies", "policies", "customers", "delegates", "rules", "rules"))
    rows = {one.name: one for one in getattr(state, part)}
    if part == "policies":
        name, field = chance.choice("pq"), chance.choice(list(FIELDS))
        rows[name] = replace(rows[name], **{field: chance.choice(FIELDS[field])})
    elif part == "customers":
        name = chance.choice(("acme", "globex"))
        rows[name] = a_customer(chance, name)
    else:
        name = chance.choice(NAMES if part == "delegates" else "rst")
        made = a_delegate(chance, name) if part == "delegates" else a_rule(chance, name)
        rows.pop(name, None)
        if chance.random() < 0.7:
            rows[name] = made
    return dataclasses.replace(state, **{part: tuple(rows.values())})


def a_registration(chance: Chance) -> Registration | None:
    order = chance.choice((None, "4711"))
    kind = chance.random()
    if kind < 0.3:
        return None
    if kind < 0.4:
        return Registration(None, TAG, order="4711")
    if kind < 0.6:
        return Registration("acme", None, None, (chance.choice(MACS),), order=order)
    return Registration(chance.choice(("acme", "globex")), TAG, order=order,
                        delegate=chance.choice((None, None, *NAMES)))


MACS = ("00:1A:2B:3C:4D:5E", "00:1A:2B:3C:4D:5F")


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


def a_request(chance: Chance) -> Request:
    return Request(chance.choice(("R1", "R2")), chance.choice(("", "192.0.2.7", "192.0.2.99", "198.51.100.7")),
                   chance.choice((None, "acme.example")), chance.choice(tuple(IdentityKind)),
                   frozenset(chance.sample("pq", chance.choice((0, 1, 2)))),
                   Hosts(chance.choice(((), ("x.acme.example",), ("x.a.acme.example",))), "because"),
                   chance.choice((0, 0, 1, 2, 3)), chance.choice((0, 0, 1, 2, 3)), chance.choice((0, 0, 1, 2, 3)))


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


SEEDS = range(6)
TRIES, MET = 3000, 40
"""Worlds looked at for each seed, and how many of them the law must have been about at least: it proves nothing where
no request that was refused became allowed."""


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_change_of_the_tables_lets_in_has_words(seed: int) -> None:
    chance, met = random.Random(seed), 0
    for _ in range(TRIES):
        after, registration, request = a_state(chance), a_registration(chance), a_request(chance)
        if not allowed(after.tables, registration, request):
            continue
        before = otherwise(chance, after)
        if chance.random() < 0.3:
            before = otherwise(chance, before)
        if not allowed(before.tables, registration, request):
            met += 1
            assert widening.let_in(before.tables, after.tables), (before, after, registration, request)
    assert met >= MET


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_change_of_a_registration_lets_in_has_words(seed: int) -> None:
    chance, met = random.Random(seed), 0
    for _ in range(TRIES):
        state, request = a_state(chance), a_request(chance)
        before, after = a_registration(chance), a_registration(chance)
        if (before or after) and allowed(state.tables, after, request) and not allowed(state.tables, before, request):
            met += 1
            assert widening.of_device(before, after, state.tables), (state, before, after, request)
    assert met >= MET


@pytest.mark.parametrize("seed", SEEDS)
def test_what_stays_as_it_is_has_none(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(100):
        state, registration = a_state(chance), a_registration(chance)
        assert widening.let_in(state.tables, dataclasses.replace(state).tables) == ()
        if registration is not None:
            assert widening.of_device(registration, replace(registration), state.tables) == ()


STRICT = Policy("p", valid_from=NOON, valid_until=NOON + timedelta(hours=1), approved_only=True, max_devices=1,
                callbacks=frozenset({CallbackWay.SOAP}), attempts=1, hours=(HOURS[0],), networks=("192.0.2.0/24",),
                domains=("a.example",), claims_per_hour=1)
LOOSER: dict[str, object] = {
    "valid_from": None, "valid_until": None, "identity": IdentityRule.EITHER, "approved_only": False,
    "max_devices": 2, "callbacks": None, "attempts": 2, "lease": timedelta(hours=48), "shared_by_domain": True,
    "hours": (), "networks": ("192.0.2.0/23",), "domains": ("a.example", "b.example"), "own_anywhere": True,
    "claims_per_hour": None}


@pytest.mark.parametrize("field", [name for name in Policy.__struct_fields__ if name != "name"])
def test_each_field_of_a_policy_is_compared(field: str) -> None:
    """A field that is new and not compared fails here, and so does one without an example."""
    assert field in widening.FIELDS
    if field == "custom_operations":
        assert widening.looser(replace(STRICT, custom_operations=False), STRICT)
        assert not widening.looser(STRICT, replace(STRICT, custom_operations=False))
        return
    after = replace(STRICT, **{field: LOOSER[field]})
    assert len(widening.looser(STRICT, after)) == 1
    assert widening.looser(after, STRICT) == ()


def _world(*rules: Rule, customers: tuple[Customer, ...] | None = None) -> Tables:
    policies = (Policy("closed", max_devices=0), Policy("open", identity=IdentityRule.EITHER))
    delegates = (Delegate("acme-1", "acme", SoapCallback("d.example")),
                 Delegate("globex-1", "globex", SoapCallback("d.example")))
    customers = customers or (Customer("acme", "A", policy="closed"), Customer("globex", "G", policy="open"))
    return State(policies, customers, delegates, rules).tables


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
    assert any("devices at once: 0 of customer acme -> any number" in text for text in told)
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
