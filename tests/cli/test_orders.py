"""Orders: one row says whose everything in them is, before or after the factory lists it. A4, A9."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.model import Answer

from .conftest import Console

SHIPMENT = "service_tag,serial_number,order\nFAC0001,SN-1,4711\nFAC0002,SN-2,4711\nFAC0003,SN-3,4712\n"
SALES = "order,customer,delegate\n4711,acme,acme-small\n4713,acme,\n"


@pytest.fixture
def factory_list(acme: Console) -> Console:
    """The factory has listed three devices in two orders; nobody has bought them yet."""
    assert acme.ok("devices", "import", "-", stdin=SHIPMENT)["new"] == 3
    return acme


def test_a9_a_device_in_stock_is_told_what_an_unknown_one_is_told(factory_list: Console) -> None:
    stock, unknown = factory_list.serve("FAC0001"), factory_list.serve("ZZZ9999")
    assert isinstance(stock, DelegatorError)
    assert isinstance(unknown, DelegatorError)
    assert (stock.kind, stock.retry_after, stock.alternates) == (unknown.kind, unknown.retry_after, unknown.alternates)
    assert stock.kind is Kind.NOT_ENTITLED
    assert "order 4711 belongs to no customer yet" in stock.detail
    said = factory_list.run("explain", "FAC0001")
    assert said.code == 5
    assert "in stock, order 4711" in said.out


def test_a9_one_row_hands_over_the_order_and_explain_says_because(factory_list: Console) -> None:
    done = factory_list.run("orders", "add", "4711", "--customer", "acme")
    assert "2 devices" in done.err
    assert isinstance(factory_list.serve("FAC0001"), Answer)
    assert isinstance(factory_list.serve("FAC0003"), DelegatorError)
    route = factory_list.ok("explain", "FAC0002")["route"]
    assert (route["customer"], route["delegate"]) == ("acme", "acme-small")
    assert route["because"] == "its service tag is registered in order 4711, which belongs to acme"
    shown = factory_list.ok("devices", "show", "FAC0002")
    assert (shown["customer"], shown["owner"], shown["by_order"]) == (None, "acme", True)
    assert [one["service_tag"] for one in factory_list.ok("devices", "list", "--customer", "acme")] == [
        "ABC1234", "FAC0001", "FAC0002"]


def test_a9_the_sales_feed_comes_as_csv_or_json_lines_and_again_changes_nothing(factory_list: Console) -> None:
    first = factory_list.ok("orders", "import", "-", stdin=SALES)
    assert {name: first[name] for name in ("rows", "new", "changed", "unchanged", "refused")} == {
        "rows": 2, "new": 2, "changed": 0, "unchanged": 0, "refused": []}
    assert first["sha256"] == hashlib.sha256(SALES.encode()).hexdigest()
    lines = '{"order": "4711", "customer": "acme", "delegate": "acme-small"}\n{"order": "4713", "customer": "acme"}\n'
    done = factory_list.run("orders", "import", "-", stdin=lines)
    assert "0 new, 0 changed, 2 unchanged, 0 refused of 2 rows; nothing was changed" in done.err
    assert factory_list.ok("orders", "list") == [
        {"order": "4711", "customer": "acme", "delegate": "acme-small"},
        {"order": "4713", "customer": "acme", "delegate": None}]
    assert factory_list.ok("orders", "show", "4711") == {
        "order": "4711", "customer": "acme", "delegate": "acme-small", "devices": 3, "devices_of_order": 2}, "one's own"
    assert factory_list.ok("orders", "show", "4712")["customer"] is None


def test_a9_every_wrong_order_is_told_by_its_line_and_none_is_taken(acme: Console) -> None:
    acme.ok("customers", "add", "other", "--title", "Other")
    acme.ok("orders", "add", "4711", "--customer", "other")
    rows = "order,customer,delegate\n1,acme,\n,acme,\n2,nobody,\n3,acme,none\n4711,acme,\n1,acme,\n4,,\n5,acme\n"
    done = acme.run("orders", "import", "-", "--json", stdin=rows)
    assert done.code == 5
    assert [one["line"] for one in done.json["refused"]] == [3, 4, 5, 6, 7, 8, 9]
    assert "other" not in done.json["refused"][3]["error"].replace("another", "")
    assert len(acme.ok("orders", "list")) == 1
    dry = acme.run("orders", "import", "-", "--dry-run", "--keep-good", "--json", stdin=rows)
    assert dry.json["new"] == 1
    assert len(acme.ok("orders", "list")) == 1
    kept = acme.run("orders", "import", "-", "--keep-good", stdin=rows)
    assert kept.code == 5
    assert "the others are registered" in kept.err
    assert [one["order"] for one in acme.ok("orders", "list", "--customer", "acme")] == ["1"]


def test_a9_another_delegate_needs_replace_and_another_customer_more_than_that(acme: Console) -> None:
    acme.ok("customers", "add", "other", "--title", "Other")
    acme.ok("orders", "add", "4711", "--customer", "acme")
    assert "orders change" in acme.refused(6, "orders", "add", "4711", "--customer", "acme", "--delegate", "acme-small")
    acme.ok("orders", "change", "4711", "--delegate", "acme-small")
    assert "transfer" in acme.refused(6, "orders", "add", "4711", "--customer", "other")
    acme.ok("orders", "remove", "4711")
    acme.ok("orders", "add", "4711", "--customer", "other")
    acme.refused(1, "orders", "remove", "9999")
    acme.refused(1, "orders", "show", "9999")


def test_a9_orders_that_go_out_come_back_the_same(factory_list: Console) -> None:
    factory_list.ok("orders", "import", "-", stdin='order,customer\n"=1+1, ""x""",acme\n\u00e9\u4e2d,acme\n4711,acme\n')
    for form in ("csv", "jsonl"):
        told = factory_list.ok("orders", "export", f"orders.{form}", "--format", form)
        assert told["orders"] == 3
        assert told["sha256"] == hashlib.sha256(Path(f"orders.{form}").read_bytes()).hexdigest()
        again = factory_list.ok("orders", "import", f"orders.{form}")
        assert (again["unchanged"], again["new"], again["changed"]) == (3, 0, 0)


def test_a9_stock_must_be_said(acme: Console) -> None:
    """A row that says nothing of whose it is was more likely forgotten than meant, unless it leaves the customer
    empty."""
    assert "--customer" in acme.run("devices", "import", "-", "--json",
                                    stdin="service_tag\nFAC0009\n").json["refused"][0]["error"]
    assert acme.ok("devices", "import", "-", stdin="service_tag,customer\nFAC0009,\n")["new"] == 1
    acme.refused(2, "devices", "add", "FAC0010")
    assert acme.ok("devices", "add", "FAC0010", "--order", "4711")["customer"] is None
    wrong = acme.run("devices", "import", "-", "--json", stdin="service_tag,order,delegate\nFAC0011,4711,acme-small\n")
    assert "can name no delegate" in wrong.json["refused"][0]["error"]
