"""What an operator is told where a device, or an identifier, is somebody's: whose, and how it moves. A4, A9."""

from __future__ import annotations

import pytest

from delegator.model import Answer

from .conftest import Console

MAC = "00:1A:2B:3C:4D:5E"


@pytest.fixture
def shop(acme: Console) -> Console:
    """acme has one device by itself and one by its order 7001; beta has the order 8001, and 9001 is nobody's."""
    acme.ok("customers", "add", "beta", "--title", "Beta")
    acme.ok("devices", "add", "REP0001", "--customer", "acme", "--serial", "SR-1", "--mac", MAC)
    acme.ok("devices", "add", "FAC0003", "--serial", "SF-3", "--order", "7001")
    acme.ok("orders", "add", "7001", "--customer", "acme")
    acme.ok("orders", "add", "8001", "--customer", "beta")
    return acme


def _owner(shop: Console, device: str) -> object:
    return shop.ok("devices", "show", device)["owner"]


def test_a9_a_conflict_names_the_identifier_and_whose_it_is(shop: Console) -> None:
    said = shop.refused(6, "devices", "add", "REP0002", "--customer", "acme", "--serial", "SR-1")
    assert "serial number SR-1 belongs to REP0001" in said
    assert "devices show REP0001" in said
    assert "REP0002 is registered" not in said
    said = shop.refused(6, "devices", "change", "FAC0003", "--mac", MAC)
    assert f"MAC address {MAC} belongs to REP0001" in said


@pytest.mark.parametrize("row", ["service_tag,serial_number\nREP0002,SR-1\n",
                                 f"service_tag,mac_addresses\nREP0002,{MAC}\n"])
def test_a9_an_import_never_renames_a_device_with_a_confirmed_claim(shop: Console, row: str) -> None:
    assert isinstance(shop.serve("REP0001"), Answer)
    for more in ((), ("--dry-run",)):
        done = shop.run("devices", "import", "-", "--customer", "acme", "--replace", "--json", *more, stdin=row)
        assert done.code == 5
        assert [(one["line"], "belongs to REP0001" in one["error"]) for one in done.json["refused"]] == [(2, True)]
        assert "line 2: " in done.err
    assert shop.ok("devices", "show", "REP0001")["registered"]
    shop.refused(1, "devices", "show", "REP0002")


def test_a9_what_was_registered_without_a_tag_takes_it_from_an_import(shop: Console) -> None:
    shop.ok("devices", "add", "--customer", "acme", "--serial", "SR-5")
    said = shop.refused(6, "devices", "add", "REP0005", "--customer", "acme", "--serial", "SR-5")
    assert "devices change SR-5 --tag REP0005" in said
    row = "service_tag,serial_number\nREP0005,SR-5\n"
    assert shop.ok("devices", "import", "-", "--customer", "acme", "--replace", stdin=row)["changed"] == 1
    assert shop.ok("devices", "show", "SR-5")["service_tag"] == "REP0005"


@pytest.mark.parametrize("words", [
    ("devices", "change", "FAC0003", "--customer", "beta"), ("devices", "change", "FAC0003", "--order", "8001"),
    ("devices", "change", "FAC0003", "--order", "9001"), ("devices", "change", "REP0001", "--customer", "beta"),
    ("devices", "add", "FAC0003", "--customer", "beta"), ("devices", "add", "FAC0003", "--order", "8001"),
    ("orders", "add", "7001", "--customer", "beta")])
def test_a9_no_command_moves_a_device_to_another_customer_in_one_step(shop: Console, words: tuple[str, ...]) -> None:
    said = shop.refused(6, *words)
    assert "transfers offer" in said or "devices return" in said
    if words[0] == "devices":
        assert "is acme's" in said
    assert (_owner(shop, "FAC0003"), _owner(shop, "REP0001")) == ("acme", "acme")


@pytest.mark.parametrize(("noun", "rows"), [
    ("devices", "service_tag,customer\nFAC0003,beta\n"), ("devices", "service_tag,order\nFAC0003,8001\n"),
    ("devices", "service_tag,order\nFAC0003,9001\n"), ("devices", '{"serial_number": "SF-3", "customer": "beta"}\n'),
    ("orders", "order,customer\n7001,beta\n")])
def test_a9_no_import_moves_a_device_to_another_customer(shop: Console, noun: str, rows: str) -> None:
    for more in ((), ("--keep-good",), ("--dry-run",)):
        done = shop.run(noun, "import", "-", "--replace", "--json", *more, stdin=rows)
        (refused,) = done.json["refused"]
        if noun == "devices":
            assert "FAC0003 is acme's by its order 7001" in refused["error"]
            assert "devices return" in refused["error"]
    assert _owner(shop, "FAC0003") == "acme"


def test_a9_it_moves_by_its_own_roads(shop: Console) -> None:
    shop.ok("devices", "return", "FAC0003")
    assert shop.ok("devices", "change", "FAC0003", "--customer", "beta")["customer"] == "beta"
    shop.ok("transfers", "offer", "FAC0003", "--to", "acme")
    shop.ok("transfers", "accept", "FAC0003", "--as", "acme")
    assert _owner(shop, "FAC0003") == "acme"


@pytest.mark.parametrize("row", ["service_tag,order,customer\nREP0001,7001,\n",
                                 "service_tag,order,model\nREP0001,7001,R9\n"])
def test_a9_a_row_that_leaves_the_owner_changes_the_rest(shop: Console, row: str) -> None:
    """Also where a device's delegate was its customer's, and its order's customer is the same."""
    shop.ok("devices", "change", "REP0001", "--delegate", "acme-small", "--order", "7001")
    done = shop.run("devices", "import", "-", "--replace", "--json", stdin=row)
    assert (done.code, done.json["changed"]) == (0, 1), done.err
    shown = shop.ok("devices", "show", "REP0001")
    assert (shown["owner"], shown["by_order"]) == ("acme", "customer" in row)


def test_a9_who_removes_a_device_is_told_of_the_claim_that_stands(shop: Console) -> None:
    shop.serve("REP0001")
    done = shop.run("devices", "remove", "REP0001", "--json")
    assert done.json["claim"]["state"] == "issued"
    assert "counts as a place of customer acme" in done.err
    assert "claims release REP0001" in done.err
    assert shop.ok("claims", "release", "REP0001")["released"] == 1
    gone = shop.run("devices", "remove", "FAC0003", "--json")
    assert gone.json["claim"] is None
    assert "claim" not in gone.err


@pytest.mark.parametrize("words", [
    ("transfers", "accept", "REP0001", "--as", "bet"), ("transfers", "decline", "REP0001", "--as", "bet"),
    ("transfers", "withdraw", "REP0001", "--as", "acm"),
    ("transfers", "offer", "FAC0003", "--to", "beta", "--as", "acm"),
    ("transfers", "offer", "--order", "7001", "--to", "beta", "--as", "acm"),
    ("transfers", "accept", "--order", "7001", "--as", "bet"),
    ("transfers", "statement", "offer", "FAC0003", "--to", "bet", "--until", "2099-01-01")])
def test_a_customer_that_is_not_there_is_told_as_such_with_the_nearest(shop: Console, words: tuple[str, ...]) -> None:
    shop.ok("transfers", "offer", "REP0001", "--to", "beta")
    said = shop.refused(1, *words)
    meant = "beta" if "bet" in words else "acme"
    assert f"there is no customer named {meant[:-1]}; did you mean {meant}?" in said
