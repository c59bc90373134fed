"""Laws of routing: facts and registrations lead to one delegate, for a reason (R-because, A4, A9, A10; block 213)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from delegator.model import SERVICE_TAG, Delegate, Device, Location, Registration, Rule, SoapCallback
from delegator.routing import Directory, Facts, NoRoute, Route, by_preference, choose, directory

# A small world, so that identifiers, names and priorities meet often.
TAGS, SERIALS, MODELS, ORDERS = ["ABC1234", "ABC1299", "XYZ9999"], ["S1", "S2"], ["R740", "R750"], ["O1", "O2"]
MACS = ["00:1A:2B:00:00:01", "00:1A:2B:00:00:02", "00:1A:2C:00:00:03"]
CUSTOMERS = ["acme", "umbra", "zeta"]
DOMAINS = ["example.com", "corp.example.com", "evil-example.com", "EXAMPLE.com"]
ELSEWHERE = "delegator-2.example:4433"
PEERS = ["10.0.0.1", "10.1.0.1", "::ffff:10.0.0.1", "2001:db8::1"]
DELEGATES = [Delegate(f"{customer}-{n}", customer, SoapCallback("d.example"), enabled=n != 1, priority=n)
             for customer in CUSTOMERS for n in (1, 2, 3)]


def maybe(values):
    return st.none() | st.sampled_from(values)


devices = st.builds(Device, st.sampled_from(TAGS), maybe(SERIALS),
                    st.lists(st.sampled_from(MACS), max_size=2).map(tuple), maybe(MODELS))
locations = st.builds(Location, domain=maybe(DOMAINS), host_name=maybe(["a.example.com", "example.com"]))
facts = st.builds(Facts, devices, locations, st.sampled_from(PEERS))
registrations = st.builds(
    Registration, st.sampled_from(CUSTOMERS), maybe(TAGS), maybe(SERIALS),
    st.lists(st.sampled_from(MACS), max_size=2).map(tuple), maybe(MODELS), maybe(ORDERS),
    maybe([one.name for one in DELEGATES]), st.integers(1, 9))
candidates = st.lists(registrations, max_size=4, unique_by=lambda one: one.device_id)
defaults = st.builds(Rule, st.sampled_from("abcdefgh"), st.sampled_from([one.name for one in DELEGATES]),
                     st.integers(1, 3))
rules = defaults | st.builds(
    Rule, st.sampled_from("abcdefgh"), st.sampled_from([one.name for one in DELEGATES] + ["gone"]), st.integers(1, 3),
    model=maybe(MODELS), tag_prefix=maybe(["ABC", "ABC12", "X"]), mac_prefix=maybe(["00:1a:2b", "00:1A"]),
    network=maybe(["10.0.0.0/16", "10.0.0.1/8", "2001:db8::/32"]), domain=maybe(["example.com", "Example.COM"]),
    order=maybe(ORDERS)) | st.builds(
    Rule, st.sampled_from("abcdefgh"), st.none(), st.integers(1, 3), tag_prefix=maybe(["ABC", "X"]),
    delegator=st.just(ELSEWHERE))
rule_lists = st.lists(rules, max_size=6, unique_by=lambda rule: rule.name)
delegate_lists = st.lists(st.sampled_from(DELEGATES), unique_by=lambda one: one.name)
tables = st.builds(directory, delegate_lists, rule_lists)


@st.composite
def owned(draw) -> tuple[Facts, list[Registration]]:
    """A device and registrations of which one is its own, by whichever identifier."""
    seen, known, own = draw(facts), draw(candidates), draw(registrations)
    by = draw(st.sampled_from([{"service_tag": seen.device.service_tag}] + [
        {"service_tag": None, name: getattr(seen.device, name)} for name in ("serial_number", "mac_addresses")
        if getattr(seen.device, name)]))
    return seen, [*known, replace(own, **by, device_id=10)]


def strongest(device: Device, known: list[Registration]) -> Registration | None:
    """The order of identifiers as the design tells it: tag, serial, MAC; a tag that differs is another device."""
    untagged = [one for one in known if one.service_tag is None]
    by_tag = [one for one in known if one.service_tag == device.service_tag]
    by_serial = [one for one in untagged if device.serial_number and one.serial_number == device.serial_number]
    by_mac = [one for one in untagged if any(mac in one.mac_addresses for mac in device.mac_addresses)]
    return min(by_tag or by_serial or by_mac, key=lambda one: one.device_id, default=None)


@given(facts, candidates, tables)
def test_A4_the_strongest_identifier_decides_tag_then_serial_then_mac(seen, known, table):
    found, expected = choose(seen, known, table), strongest(seen.device, known)
    if isinstance(found, Route):
        assert found.registration == expected
    if expected is None and not table.rules:
        assert found == NoRoute("not registered, and no rule matches")


@given(owned(), tables)
def test_A9_a_registered_device_never_goes_to_another_customer_whatever_rules_exist(pair, table):
    seen, known = pair
    owner = strongest(seen.device, known)
    found = choose(seen, known, table)
    if isinstance(found, Route):
        assert found.delegate.customer == owner.customer
    else:
        assert owner.customer not in {one.customer for one in table.delegates.values()}


@given(facts, candidates, tables)
def test_A4_a_serial_or_mac_never_pulls_a_registration_whose_tag_differs(seen, known, table):
    others = [one for one in known if one.service_tag not in (None, seen.device.service_tag)]
    assert choose(seen, others, table) == choose(seen, [], table)


def fits(rule: Rule, seen: Facts) -> bool:
    """A rule's conditions, told anew for an unregistered device and the networks and domains of this world."""
    device, said = seen.device, (seen.location.domain or seen.location.host_name or "").lower()
    address = seen.peer_address.removeprefix("::ffff:")
    nets = {"10.0.0.0/16": "10.0.", "10.0.0.1/8": "10.", "2001:db8::/32": "2001:db8:", None: ""}
    return (rule.order is None
            and rule.model in (None, device.model)
            and device.service_tag.startswith(rule.tag_prefix or "")
            and (rule.mac_prefix is None or rule.mac_prefix.upper() in {mac[:len(rule.mac_prefix)]
                                                                        for mac in device.mac_addresses})
            and address.startswith(nets[rule.network])
            and (rule.domain is None or said in ("example.com", "corp.example.com", "a.example.com")))


def is_default(rule: Rule) -> bool:
    return rule == Rule(rule.name, rule.delegate, rule.priority, delegator=rule.delegator)


@given(facts, delegate_lists, rule_lists)
def test_A4_rules_go_by_priority_then_name_and_the_default_comes_last(seen, known, said):
    names = {one.name for one in known}
    fitting = sorted((rule for rule in said if (rule.delegate in names or rule.delegator) and fits(rule, seen)),
                     key=lambda rule: (is_default(rule), rule.priority, rule.name))
    found = choose(seen, [], directory(known, said))
    if not fitting or fitting[0].delegator:
        assert isinstance(found, NoRoute)
        assert found.delegators == tuple(rule.delegator for rule in fitting[:1])
    else:
        assert isinstance(found, Route)
        assert found.delegate.name == fitting[0].delegate
        assert found.because.startswith(f"rule {fitting[0].name} (")
        assert found.registration is None


@given(facts, candidates, delegate_lists, rule_lists, rules, st.randoms())
def test_A4_an_unrelated_rule_or_registration_changes_nothing(seen, known, served, said, extra, random):
    """A rule that does not fit, a registration without a common identifier, and the order of all of them."""
    before = choose(seen, known, directory(served, said))
    elsewhere = [replace(extra, name="extra", tag_prefix="NEVER"), Rule("other", "gone")]
    stranger = Registration("umbra", "ZZZ9999", "S9", ("00:00:00:00:00:09",), device_id=10)
    unnamed = Registration("umbra", device_id=11)
    all_rules, all_known = [*said, *elsewhere], [*known, stranger, unnamed]
    random.shuffle(all_rules)
    random.shuffle(all_known)
    assert choose(seen, all_known, directory(served, all_rules)) == before


@given(owned(), tables, rules)
def test_A4_another_customers_rule_never_touches_a_registered_device(pair, table, extra):
    seen, known = pair
    owner = strongest(seen.device, known)
    elsewhere = [{"delegate": one.name, "delegator": None} for one in DELEGATES if one.customer != owner.customer]
    elsewhere.append({"delegate": None, "delegator": ELSEWHERE})
    more = directory(table.delegates.values(), [*table.rules, *(replace(extra, name=f"z-{n}", **there)
                                                                for n, there in enumerate(elsewhere))])
    assert choose(seen, known, more) == choose(seen, known, table)


@given(facts, candidates, tables)
def test_R_because_every_answer_says_because(seen, known, table):
    found = choose(seen, known, table)
    assert found.because.strip()
    if isinstance(found, Route) and found.registration is not None:
        assert f"registered with delegate {found.delegate.name}" in found.because or (
            f"registered to customer {found.delegate.customer}" in found.because)


odd_rules = st.builds(Rule, st.text(), st.sampled_from([one.name for one in DELEGATES]), model=st.text(),
                      network=st.text() | st.just("300.0.0.0/8"), domain=maybe(["", "."]) | st.text(),
                      mac_prefix=maybe([""]) | st.text())


@given(devices, st.builds(Location, ip_address=maybe(PEERS), host_name=maybe(DOMAINS)), st.text() | st.ip_addresses(),
       candidates, st.lists(rules | odd_rules | st.builds(Rule, st.text(), st.just("acme-1"), network=st.text())))
def test_R_because_choosing_never_fails_whatever_the_facts(device, location, peer, known, said):
    """Not even for a peer without an IP address, or for a rule that somebody wrote into the database by hand."""
    found = choose(Facts(device, location, str(peer)), known, directory(DELEGATES, said))
    assert isinstance(found, Route | NoRoute)


# --- single conditions --------------------------------------------------------------------------------------------


def world(*said: Rule) -> Directory:
    return directory(DELEGATES, said)


def seen_at(peer: str = "192.0.2.1", **place: str) -> Facts:
    return Facts(Device("ABC1234"), Location(**place), peer)


@pytest.mark.parametrize(("said", "inside"), [
    ("example.com", True), ("a.example.com", True), ("A.B.Example.COM", True), ("evil-example.com", False),
    ("example.com.evil.org", False), ("xample.com", False), ("com", False), (None, False)])
def test_A4_a_domain_matches_on_the_boundary_of_a_label(said, inside):
    table = world(Rule("r", "acme-1", domain="Example.com"))
    assert isinstance(choose(seen_at(domain=said), [], table), Route) is inside
    assert isinstance(choose(seen_at(host_name=said), [], table), Route) is inside


@given(st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,8})?", fullmatch=True))
def test_A4_only_a_dot_makes_a_subdomain(label):
    table = world(Rule("r", "acme-1", domain="example.com"))
    assert isinstance(choose(seen_at(domain=f"{label}.example.com"), [], table), Route)
    assert isinstance(choose(seen_at(domain=f"{label}example.com"), [], table), NoRoute)


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_A4_a_v4_address_is_the_same_one_when_it_comes_mapped_into_v6(address, bits):
    table = world(Rule("r", "acme-1", network=f"{address}/{bits}"))
    for peer in (str(address), f"::ffff:{address}"):
        assert isinstance(choose(seen_at(peer), [], table), Route)


def test_A4_a_network_looks_at_where_the_device_comes_from_not_at_what_it_says():
    table = world(Rule("r", "acme-1", network="10.0.0.0/8"))
    assert isinstance(choose(seen_at("192.0.2.1", ip_address="10.0.0.1"), [], table), NoRoute)
    assert isinstance(choose(seen_at("10.0.0.1", ip_address="192.0.2.1"), [], table), Route)
    assert isinstance(choose(seen_at("2001:db8::1"), [], table), NoRoute)


@pytest.mark.parametrize("known", [[], [Registration("acme", "ABC1234")]], ids=["stranger", "registered"])
def test_A4_the_default_comes_last_whatever_its_priority(known):
    table = world(Rule("a", "acme-1", priority=1), Rule("z", "acme-2", priority=9, model="R740"))
    modelled = Facts(Device("ABC1234", model="R740"), Location(), "192.0.2.1")
    assert choose(modelled, known, table).delegate.name == "acme-2"
    assert choose(seen_at(), known, table).delegate.name == "acme-1"


def test_A9_an_order_is_known_only_of_a_registered_device():
    table = world(Rule("batch", "acme-2", order="O1"))
    assert isinstance(choose(seen_at(), [], table), NoRoute)
    found = choose(seen_at(), [Registration("acme", "ABC1234", order="O1")], table)
    assert (found.delegate.name, found.because) == (
        "acme-2", "its service tag is registered to customer acme; rule batch (order O1)")


def test_A9_a_rule_of_another_order_is_not_for_this_device():
    table = world(Rule("batch", "acme-2", order="O2"))
    for order in ("O1", None):
        found = choose(seen_at(), [Registration("acme", "ABC1234", order=order)], table)
        assert "rule batch" not in found.because


def test_A4_rules_of_one_priority_go_by_name_in_whatever_order_they_were_read():
    names = "cab"
    table = world(*(Rule(name, "acme-2", model="R740") for name in names))
    assert [rule.name for rule in table.rules] == sorted(names)


def test_A10_the_customer_chooses_among_its_delegates():
    """The device's own delegate before rules, rules before the first enabled one by name."""
    known, table = Registration("acme", "ABC1234"), world(Rule("r", "acme-1", model="R740"))
    modelled = Facts(Device("ABC1234", model="R740"), Location(), "192.0.2.1")
    assert choose(modelled, [replace(known, delegate="acme-2")], table).delegate.name == "acme-2"
    assert choose(modelled, [known], table).delegate.name == "acme-1"
    assert choose(seen_at(), [known], table).delegate.name == "acme-2", "acme-1 is disabled"


farm = st.lists(st.builds(
    Delegate, st.sampled_from("abcdefgh"), st.just("acme"), st.just(SoapCallback("d.example")),
    priority=st.integers(1, 2), weight=st.integers(1, 5)), min_size=1, max_size=6, unique_by=lambda one: one.name)


@given(farm, st.from_regex(SERVICE_TAG, fullmatch=True))
def test_A10_delegates_stand_in_for_each_other_by_priority_and_taking_one_away_moves_nobody_else(delegates, tag):
    def asked(of):
        found = choose(Facts(Device(tag), Location(), ""), [Registration("acme", tag)], directory(of, []))
        return [found.delegate, *found.others]
    order = asked(delegates)
    assert sorted(order, key=lambda one: one.name) == sorted(delegates, key=lambda one: one.name)
    assert [one.priority for one in order] == sorted(one.priority for one in order)
    for gone in order[:-1] if len(order) > 1 else []:
        assert asked([one for one in delegates if one != gone]) == [one for one in order if one != gone]


def test_A10_devices_are_shared_out_by_weight():
    three, one = (Delegate(name, "acme", SoapCallback("d.example"), weight=weight)
                  for name, weight in (("three", 3), ("one", 1)))
    first = [by_preference((one, three), f"TAG{number:05}")[0] for number in range(4000)]
    assert 2850 < first.count(three) < 3150


@given(facts, candidates, tables)
def test_A10_who_stands_in_is_another_enabled_delegate_of_the_same_customer(seen, known, table):
    found = choose(seen, known, table)
    if isinstance(found, Route) and found.others:
        assert found.delegate not in found.others
        assert {(one.customer, one.enabled) for one in found.others} == {(found.registration.customer, True)}


def test_A10_a_disabled_delegate_is_better_than_none_so_that_policy_can_say_why():
    found = choose(seen_at(), [Registration("acme", "ABC1234")], directory(DELEGATES[:1], []))
    assert (found.delegate.name, found.delegate.enabled) == ("acme-1", False)


def test_A9_a_delegate_of_another_customer_is_not_followed_even_if_the_registration_names_it():
    found = choose(seen_at(), [Registration("acme", "ABC1234", delegate="umbra-2")], world())
    assert found.delegate.name == "acme-2"


def test_A4_a_customer_without_a_delegate_is_no_route_and_says_whose_device_it_is():
    assert choose(seen_at(), [Registration("nobody", "ABC1234")], world(Rule("r", "acme-1"))) == NoRoute(
        "its service tag is registered to customer nobody, which has no delegate")


def one_of(customer: str | None, order: str | None = "4711", **more: object) -> Registration:
    return Registration(customer, "ABC1234", order=order, **more)  # type: ignore[arg-type]


def test_A9_what_an_order_gives_is_routed_like_what_is_registered_and_says_because():
    """With the customer's delegates, its rules and its order's delegate, and never without naming the order."""
    given = one_of("umbra", by_order=True)
    route = choose(seen_at(), [given], world(Rule("r", "acme-2", priority=1)))
    assert isinstance(route, Route)
    assert (route.delegate.customer, route.because) == (
        "umbra", "its service tag is registered in order 4711, which belongs to umbra")
    route = choose(seen_at(), [given], world(Rule("r", "umbra-3", order="4711")))
    assert isinstance(route, Route)
    assert route.delegate.name == "umbra-3"
    assert "order 4711, which belongs to umbra; rule r" in route.because
    route = choose(seen_at(), [replace(given, delegate="umbra-2")], world())
    assert isinstance(route, Route)
    assert route.because == "its service tag is registered in order 4711, which belongs to umbra, with delegate umbra-2"


@pytest.mark.parametrize("order", ["4711", None])
def test_A9_a_device_in_stock_has_no_way_whatever_rules_exist(order):
    """It is told the same as one that is unknown: at most which other delegator to ask."""
    for rule in (Rule("all", "acme-2"), Rule("model", "acme-2", tag_prefix="ABC")):
        route = choose(seen_at(), [one_of(None, order)], world(rule))
        assert isinstance(route, NoRoute)
        assert "in stock" in route.because
        assert route.delegators == ()
    route = choose(seen_at(), [one_of(None, order)], world(Rule("asia", delegator=ELSEWHERE, tag_prefix="ABC")))
    assert isinstance(route, NoRoute)
    assert route.delegators == (ELSEWHERE,)
