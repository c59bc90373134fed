"""What routing tells a person, and what it must decide the same way on every machine (R-because, A4, A10)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from delegator.model import Delegate, Device, Location, Registration, Rule, SoapCallback
from delegator.routing import Facts, Route, by_preference, catches_all, choose, directory

MACS, ELSEWHERE = ["00:1A:2B:00:00:01", "00:1A:2B:00:00:02"], "delegator-2.example:4433"
DELEGATES = [Delegate(f"{customer}-{n}", customer, SoapCallback("d.example"), priority=n)
             for customer in ("acme", "umbra") for n in (1, 2, 3)]


def world(*said):
    return directory(DELEGATES, said)


def because(seen: Facts, known: list[Registration], *said: Rule) -> str:
    return choose(seen, known, world(*said)).because


@pytest.mark.parametrize(("known", "text"), [
    (Registration("acme", "ABC1234"), "its service tag is registered to customer acme"),
    (Registration("acme", None, "S1"), "its serial number is registered to customer acme"),
    (Registration("acme", None, None, (MACS[0],)), "its MAC address is registered to customer acme"),
    (Registration("acme", "ABC1234", delegate="acme-3"), "its service tag is registered with delegate acme-3"),
    (Registration(None, "ABC1234"), "its service tag is registered, in stock"),
    (Registration(None, "ABC1234", order="O1"),
     "its service tag is registered, in stock: order O1 belongs to no customer yet")])
def test_R_because_what_is_registered_is_told_with_what_found_it(known, text):
    seen = Facts(Device("ABC1234", "S1", (MACS[0],)), Location(), "192.0.2.1")
    assert because(seen, [known]) == text


@pytest.mark.parametrize(("known", "sold"), [
    (Registration(None, "ABC1234"), "devices change ABC1234"),
    (Registration(None, None, "S1"), "devices change DEVICE"),
    (Registration(None, "ABC1234", order="O1"), "orders add O1")])
def test_R_because_what_is_in_stock_comes_with_the_command_that_sells_it(known, sold):
    seen = Facts(Device("ABC1234", "S1", (MACS[0],)), Location(), "192.0.2.1")
    assert choose(seen, [known], world()).hint == f"say whose it is with: delegator {sold} --customer NAME"


def test_R_because_an_orders_customer_is_told_without_what_joins_the_sentence():
    seen = Facts(Device("ABC1234"), Location(), "192.0.2.1")
    row = Registration("acme", "ABC1234", order="O1", by_order=True)
    assert because(seen, [row]) == "its service tag is registered in order O1, which belongs to acme"
    assert because(seen, [replace(row, delegate="acme-3")]) == (
        "its service tag is registered in order O1, which belongs to acme, with delegate acme-3")


@pytest.mark.parametrize(("said", "text"), [
    ({}, "the default"), ({"model": "R740"}, "model R740"), ({"tag_prefix": "ABC"}, "tag prefix ABC"),
    ({"mac_prefix": "00:1a"}, "mac prefix 00:1A"), ({"network": "192.0.2.0/24"}, "network 192.0.2.0/24"),
    ({"domain": "example.com"}, "domain example.com"),
    ({"model": "R740", "network": "192.0.2.0/24"}, "model R740, network 192.0.2.0/24")])
def test_R_because_a_rule_is_told_with_everything_it_asked(said, text):
    seen = Facts(Device("ABC1234", "S1", (MACS[0],), "R740"), Location(domain="a.example.com"), "192.0.2.1")
    assert because(seen, [], Rule("r", "acme-1", **said)) == f"rule r ({text})"
    assert because(seen, [], Rule("r", delegator=ELSEWHERE, **said)) == (
        f"not registered; rule r ({text}) sends it to {ELSEWHERE}")


@pytest.mark.parametrize(("serial", "macs", "said"), [
    ("S1", (MACS[0],), ""),
    (None, (), ""),
    ("Default", (MACS[0],), " (Default: a placeholder, which finds nobody)"),
    ("S1", ("00:00:00:00:00:00",), " (00:00:00:00:00:00: a placeholder, which finds nobody)"),
    ("Default", ("00:00:00:00:00:00", MACS[0]),
     " (Default, 00:00:00:00:00:00: a placeholder, which finds nobody)")])
def test_A4_what_thousands_of_machines_say_finds_nobody_and_is_told(serial, macs, said):
    """Wherever it is registered: a row that was written down like that is nobody's."""
    seen = Facts(Device("ABC1234", serial, macs), Location(), "192.0.2.1")
    rows = [Registration("acme", None, "Default", device_id=1),
            Registration("acme", None, None, ("00:00:00:00:00:00",), device_id=2)]
    assert because(seen, rows) == f"not registered, and no rule matches{said}"
    real = Registration("acme", None, None, ("00:00:00:00:00:00", MACS[0]), device_id=3)
    assert isinstance(choose(seen, [*rows, real], world()), Route) is (MACS[0] in macs)


def test_A4_of_two_rows_that_one_identifier_finds_the_older_one_counts():
    rows = [Registration("umbra", None, "S1", device_id=9), Registration("acme", None, "S1", device_id=2)]
    seen = Facts(Device("ABC1234", "S1"), Location(), "")
    assert choose(seen, rows, world()).registration == rows[1]
    assert choose(seen, rows[::-1], world()).registration == rows[1]


def test_A10_the_order_of_delegates_is_the_same_on_every_machine_and_for_ever():
    """It is written down nowhere: another order after an upgrade would move claims between customers' servers."""
    farm = [Delegate(name, "acme", SoapCallback("d.example"), weight=weight) for name, weight in zip(
        "abcd", (1, 1, 2, 3), strict=True)]
    order = {tag: "".join(one.name for one in by_preference(farm, tag)) for tag in ("ABC1234", "ABC1235", "XYZ9999")}
    assert order == {"ABC1234": "adcb", "ABC1235": "dabc", "XYZ9999": "dacb"}


@pytest.mark.parametrize(("network", "everywhere"), [
    ("0.0.0.0/2", True), ("0.0.0.0/7", True), ("10.0.0.0/8", False), ("::/4", True), ("2000::/15", True),
    ("2001::/16", False), ("192.0.2.1/2", True), ("x", False)])
def test_A4_a_network_that_is_wider_than_anybodys_is_as_good_as_all(network, everywhere):
    assert catches_all(Rule("r", "acme-1", network=network)) is everywhere
    assert not catches_all(Rule("r", delegator=ELSEWHERE, network=network))
    assert not catches_all(Rule("r", "acme-1", network=network, model="R740"))
    assert catches_all(Rule("r", "acme-1", model="", network="::/0"))
