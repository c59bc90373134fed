"""Files of devices: all rows or none, every wrong row told with its line, and again changes nothing. A4, A9."""

from __future__ import annotations

import hashlib
import json
from io import BytesIO
from pathlib import Path

import pytest

from delegator.desk.records import Table
from delegator.desk.rows import COLUMNS, IDENTIFIERS, Rows
from delegator.errors import DelegatorError, Kind
from delegator.store.spool import Refused, Said
from pki.batch import RowFault
from pki.batch import rows as pki_rows

from .conftest import Console

HEADER = "service_tag,serial_number,mac_addresses,model,order,delegate\n"
GOOD = HEADER + 'ABC1235,SN-1,"00:1A:2B:3C:4D:60;001a2b3c4d61",R750,4711,acme-small\nABC1236,,,,,\n,SN-3,,,,\n'


def _import(console: Console, text: str | bytes, *words: str) -> tuple[int, dict[str, object]]:
    done = console.run("devices", "import", "-", "--customer", "acme", "--json", *words, stdin=text)
    return done.code, done.json


def _tags(console: Console) -> list[str]:
    return [one["service_tag"] for one in console.ok("devices", "list")]


def test_a9_a_shipment_is_registered_and_again_changes_nothing(acme: Console) -> None:
    assert _import(acme, GOOD) == (0, {
        "rows": 3, "new": 3, "changed": 0, "unchanged": 0, "refused_rows": 0, "placeholders": 0, "untagged": 1,
        "refused": [], "registered": True,
        "dry_run": False, "sha256": hashlib.sha256(GOOD.encode()).hexdigest()})
    assert acme.ok("devices", "show", "ABC1235") == {
        "service_tag": "ABC1235", "serial_number": "SN-1",
        "mac_addresses": ["00:1A:2B:3C:4D:60", "00:1A:2B:3C:4D:61"],
        "model": "R750", "order": "4711", "delegate": "acme-small", "customer": "acme", "registered": True,
        "owner": "acme", "by_order": False, "claims": []}
    code, facts = _import(acme, GOOD)
    assert (code, facts["new"], facts["unchanged"]) == (0, 0, 3)


def test_a9_json_lines_say_the_same_as_csv(acme: Console) -> None:
    rows = [{"service_tag": "ABC1235", "serial_number": "SN-1", "model": "R750", "order": "4711",
             "mac_addresses": ["00:1A:2B:3C:4D:60", "00:1A:2B:3C:4D:61"], "delegate": "acme-small"},
            {"service_tag": "ABC1236", "mac_addresses": None}, {"serial_number": "SN-3", "mac_addresses": ""}]
    assert _import(acme, GOOD)[0] == 0
    code, facts = _import(acme, "\n\n".join(map(json.dumps, rows)))
    assert (code, facts["new"], facts["unchanged"]) == (0, 0, 3)


def test_a9_what_list_prints_can_be_imported_again(acme: Console) -> None:
    _import(acme, GOOD)
    listed = "\n".join(json.dumps(one) for one in acme.ok("devices", "list"))
    done = acme.run("devices", "import", "-", "--json", stdin=listed)
    assert (done.json["new"], done.json["unchanged"]) == (0, 4)


def test_a9_every_wrong_row_is_told_by_its_line_and_nothing_is_registered(acme: Console) -> None:
    bad = GOOD + "abc,,,,,\nABC1237,,zz,,,nope!\nABC1238,,,,,nobody\nABC1235,,,,,\nABC1239,x\n"
    code, facts = _import(acme, bad)
    assert code == 5
    assert (facts["rows"], facts["registered"]) == (8, False)
    refused = facts["refused"]
    assert isinstance(refused, list)
    assert [one["line"] for one in refused] == [5, 6, 7, 8, 9]
    assert "did you mean ABC" not in refused[0]["error"]
    assert "mac_addresses" in refused[1]["error"]
    assert "delegate" in refused[1]["error"]
    assert "no delegate named nobody" in refused[2]["error"]
    assert "line 2 already" in refused[3]["error"]
    assert "2 cells" in refused[4]["error"]
    assert _tags(acme) == ["ABC1234"]


def test_a9_people_read_the_lines_and_what_to_do_next(acme: Console) -> None:
    done = acme.run("devices", "import", "-", "--customer", "acme", stdin=HEADER + "x,,,,,\n" * 30)
    assert done.code == 5
    assert done.err.count("line ") == 20
    assert "and 10 more" in done.err
    assert "nothing was changed" in done.err
    assert "--keep-good" in done.err.splitlines()[-1]


def test_a9_keep_good_registers_the_others(acme: Console) -> None:
    code, facts = _import(acme, HEADER + "ABC1235,,,,,\nabc,,,,,\nABC1236,,,,,nobody\n", "--keep-good")
    assert (code, facts["new"], facts["registered"]) == (5, 1, True)
    assert _tags(acme) == ["ABC1234", "ABC1235"]


def test_a9_a_dry_run_says_what_would_happen_and_changes_nothing(acme: Console) -> None:
    code, facts = _import(acme, GOOD, "--dry-run")
    assert (code, facts["new"], facts["registered"], facts["dry_run"]) == (0, 3, False, True)
    assert _tags(acme) == ["ABC1234"]


def test_a9_a_device_registered_differently_is_changed_with_replace_only(acme: Console) -> None:
    code, facts = _import(acme, HEADER + "ABC1234,,,R650,,\n")
    assert code == 5
    assert "differently" in str(facts["refused"])
    assert _import(acme, HEADER + "ABC1234,,,R650,,\n", "--replace")[0] == 0
    assert acme.ok("devices", "show", "ABC1234")["model"] == "R650"


def test_a9_a_device_of_another_customer_stays_theirs(acme: Console) -> None:
    acme.ok("customers", "add", "other", "--title", "Other")
    rows = "service_tag,customer\nABC1234,other\n"
    done = acme.run("devices", "import", "-", "--replace", "--json", stdin=rows)
    assert done.code == 5
    assert "another customer" in done.json["refused"][0]["error"]


@pytest.mark.parametrize(("rows", "named"), [
    ("service_tag,customer\nABC1235,other\n", "the row says other"),
    ("service_tag,model\n,R750\n", "no service_tag")])
def test_a9_whose_and_which_device_must_be_said(acme: Console, rows: str, named: str) -> None:
    _, facts = _import(acme, rows)
    assert named in str(facts["refused"])


def test_a9_without_a_customer_no_row_is_registered(acme: Console) -> None:
    done = acme.run("devices", "import", "-", "--json", stdin="service_tag\nABC1235\n")
    assert "--customer" in done.json["refused"][0]["error"]


@pytest.mark.parametrize(("content", "named"), [
    (b"", "header"), (b"tag,colour\nABC1235,red\n", "tag,colour"), (b"model\nR750\n", "header"),
    (b"service_tag,service_tag\n", "header"), (b"service_tag\nABC1235\n\xff\n", "line 3"),
    (b'service_tag\n"ABC1235\n', "line 2"), (b"\xff\xfeP", "UTF-8")])
def test_a_file_that_is_not_one_of_devices_is_refused_as_a_whole(acme: Console, content: bytes, named: str) -> None:
    assert named in acme.refused(5, "devices", "import", "-", "--customer", "acme", stdin=content)


@pytest.mark.parametrize("line", [
    "[1]", "{", '{"service_tag": 5}', '{"service_tag": "ABC1235", "colour": "red"}', '{"mac_addresses": [5]}',
    '{"mac_addresses": {}}', "[" * 100_000])
def test_a_json_line_of_a_wrong_shape_is_a_wrong_row(acme: Console, line: str) -> None:
    code, facts = _import(acme, '{"service_tag": "ABC1299"}\n' + line)
    assert code == 5
    assert [one["line"] for one in facts["refused"]] == [2]  # type: ignore[attr-defined]


def _rows(content: bytes, customer: str | None = "acme") -> list[Said | Refused]:
    return list(Rows(customer).read(Table(BytesIO(content), COLUMNS, IDENTIFIERS)))


def test_a_byte_order_mark_spaces_and_empty_lines_do_no_harm() -> None:
    rows = _rows(b"\xef\xbb\xbf Service_Tag , model\r\n ABC1235 , R750 \r\n,\r\nABC1236,\r\n")
    assert [(row.line, row.service_tag) for row in rows if isinstance(row, Said)] == [(2, "ABC1235"), (4, "ABC1236")]
    assert len(rows) == 2


def test_a_file_that_is_missing_is_said_so(acme: Console) -> None:
    acme.refused(3, "devices", "import", str(Path("none.csv")), "--customer", "acme")


def test_reading_alone_refuses_with_the_kind_for_bad_input() -> None:
    with pytest.raises(DelegatorError) as caught:
        _rows(b"nonsense")
    assert caught.value.kind is Kind.MALFORMED


def test_g_what_thousands_of_machines_say_finds_nobody_and_that_is_told(acme: Console) -> None:
    """It is kept, as an export must come back whole; a command that names it by hand is refused."""
    text = ("service_tag,serial_number,mac_addresses\nPLA0001,None,\nPLA0002,,FF:FF:FF:FF:FF:FF\n"
            "PLA0003,SN-7,00:1A:2B:3C:4D:77\nPLA0004,SN-8,\n")
    done = acme.run("devices", "import", "-", "--customer", "acme", "--json", stdin=text)
    assert (done.code, done.json["new"], done.json["placeholders"]) == (0, 4, 2)
    assert "a placeholder: 2, the first on line 2; it identifies no device" in done.err
    for option, value in (("--serial", "None"), ("--mac", "FF:FF:FF:FF:FF:FF")):
        assert "identifies no device" in acme.refused(
            2, "devices", "add", "PLA0005", "--customer", "acme", option, value)


@pytest.mark.parametrize(("column", "text"), [
    *((column, text) for column in ("service_tag", "serial_number")
      for text in ("To Be Filled By O.E.M.", "Default string", "Not Specified", "System Serial Number")),
    ("service_tag", "N/A"), ("mac_addresses", "N/A"), ("mac_addresses", "unknown")])
def test_g_a_placeholder_in_a_cell_is_called_one_and_no_spelling_of_it_is_guessed(acme: Console, column: str,
                                                                                  text: str) -> None:
    done = acme.run("devices", "import", "-", "--customer", "acme", "--json", stdin=f"{column},model\n{text},R750\n")
    (refused,) = done.json["refused"]
    assert "is a placeholder, leave the cell empty" in refused["error"]
    assert "did you mean" not in refused["error"]


def test_g_a_spelling_that_nobody_calls_a_placeholder_is_still_guessed(acme: Console) -> None:
    done = acme.run("devices", "import", "-", "--customer", "acme", "--json", stdin="service_tag\nabc-1299\n")
    assert "did you mean ABC1299?" in done.json["refused"][0]["error"]


@pytest.mark.parametrize("blank", ["\u00a0", "\u2003", "\u200b", "\ufeff"], ids=ascii)
def test_a_blank_that_is_no_ascii_is_a_part_of_the_value_as_for_the_factory(acme: Console, blank: str) -> None:
    """`python -m pki device --from` refuses such a tag: one program must not take what the other one refuses."""
    rows = f"service_tag,model\nABC1235{blank},R750\n"
    code, facts = _import(acme, rows)
    assert (code, facts["new"]) == (5, 0)
    (fault,) = pki_rows(BytesIO(rows.encode()))
    assert isinstance(fault, RowFault)


@pytest.mark.parametrize("kept", [(), ("--dry-run",)], ids=["for good", "as a trial"])
def test_TA12_rows_without_a_tag_are_taken_and_counted_with_who_may_come_for_them(acme: Console,
                                                                                  kept: tuple[str, ...]) -> None:
    """Nothing but the tag is proven (ADR 7); a serial number is what any genuine device may say."""
    text = ("service_tag,serial_number,mac_addresses,model\nNEW1234,SN-1,,\n,SN-2,,\n"
            ",,00:1a:2b:3c:4d:5e,R 750\n,SN-4,,R 750\n")
    done = acme.run("devices", "import", "-", "--customer", "acme", "--json", *kept, stdin=text)
    assert (done.code, done.json["new"], done.json["untagged"]) == (0, 4, 3)
    assert "rows without a service tag: 3, the first on line 3; any genuine device that says such" in done.err
    text = "service_tag,serial_number\nABC1235,SN-5\n"
    done = acme.run("devices", "import", "-", "--customer", "acme", "--json", *kept, stdin=text)
    assert (done.json["untagged"], "without a service tag" in done.err) == (0, False)


def test_TA12_so_is_a_device_that_is_added_without_one(acme: Console) -> None:
    done = acme.run("devices", "add", "--serial", "SN-9", "--customer", "acme")
    assert (done.code, "it has no service tag: any genuine device that says such" in done.err) == (0, True)
    assert "service tag:" not in acme.run("devices", "add", "ABC1234", "--customer", "acme").err
