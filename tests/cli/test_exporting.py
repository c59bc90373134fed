"""What goes out comes back the same, whatever stands in it; any device is found by any of its names. A9."""

from __future__ import annotations

import csv
import io
import json
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delegator.cli import exporting
from delegator.desk.records import Table
from delegator.desk.rows import COLUMNS, IDENTIFIERS, Rows
from delegator.desk.shapes import registration
from delegator.model import MODEL, Registration
from delegator.store.importing import registration_said
from delegator.store.spool import Refused, Said

from .conftest import Console

printable = st.text(st.characters(codec="utf-8").filter(str.isprintable), min_size=1, max_size=30)
orders = st.one_of(printable, st.sampled_from(
    ['=HYPERLINK("http://evil.example","x")', "+1", "-1", "@x", 'a,b;"c"', "#", "{", "'", "Bestellung \u00fc\u4e2d"]
)).map(str.strip).filter(lambda text: bool(text) and text.isprintable())
macs = st.lists(st.integers(0, 2**48 - 1), max_size=4, unique=True).map(
    lambda some: tuple(":".join(f"{one:012X}"[at:at + 2] for at in range(0, 12, 2)) for one in some))
tags = st.none() | st.from_regex(r"[A-Z0-9]{5,20}", fullmatch=True)
serials = st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}", fullmatch=True)
models = st.none() | st.from_regex(MODEL, fullmatch=True).filter(lambda text: text == text.strip())
known = st.builds(Registration, st.none() | st.just("acme"), tags, serials, macs, models, st.none() | orders).filter(
    lambda one: bool(one.service_tag or one.serial_number or one.mac_addresses))


def _read(content: bytes) -> list[Said | Refused]:
    return list(Rows(None).read(Table(io.BytesIO(content), COLUMNS, IDENTIFIERS)))


@settings(max_examples=120, deadline=None)
@given(st.lists(known, min_size=1, max_size=4), st.sampled_from(["csv", "jsonl"]))
def test_a9_every_value_comes_back_byte_for_byte(some: list[Registration], form: str) -> None:
    shaped = [registration(one) for one in some]
    content = exporting._json_lines(shaped) if form == "jsonl" else (
        ",".join(COLUMNS) + "\n" + exporting._csv(COLUMNS, shaped))
    back = _read(content.encode())
    assert [registration_said(one) for one in back if isinstance(one, Said)] == some


cells = st.one_of(printable, st.sampled_from(
    ["", " ", "ABC1234", " ABC1234", "abc", "00:1A:2B:3C:4D:5E", "001a2b3c4d5e", "R750", "acme", "a,b", "4711", "\x00",
     "00:1A:2B:3C:4D:5E;00:1A:2B:3C:4D:5F", "00-1a-2B-3c-4d-5e", "00-1a:2b-3c-4d-5e",
     "00:1a:2b:3c:4d:5e;00-1A-2B-3C-4D-5F", "00:1a:2b:3c:4d:5e;00-1A-2B-3C-4D-5E"]))
odd = st.one_of(cells, st.none(), st.integers(), st.booleans(), st.lists(cells, max_size=3), st.just({}), st.just([]))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(COLUMNS, odd)), min_size=1, max_size=6))
def test_the_short_way_of_a_row_leads_where_the_long_one_does(rows: list[dict[str, object]]) -> None:
    """Whatever stands in it. The short way is taken by rows that repeat what was seen before, so each comes twice."""
    class Long(Rows):
        def _quick(self, *_: object) -> None:
            return None

    records = [(line, [row.get(name) for name in COLUMNS]) for line, row in enumerate([*rows, *rows], 1)]
    for owner in (None, "acme"):
        assert list(Rows(owner).read(records)) == list(Long(owner).read(records))


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a9_all_devices_go_out_and_into_another_database(acme: Console, form: str) -> None:
    rows = ("service_tag,serial_number,mac_addresses,model,order,customer,delegate\n"
            "ABC1235,SN-1,00:1A:2B:3C:4D:60;00:1A:2B:3C:4D:61,R 750 (x),\"=1+1,\"\"2\"\"\",acme,acme-small\n"
            ",SN-2,,,\u00e9\u4e2d,,\n,,001a2b3c4d62,,,,\n")
    assert acme.ok("devices", "import", "-", stdin=rows)["new"] == 3
    acme.ok("orders", "add", "\u00e9\u4e2d", "--customer", "acme")
    told = acme.ok("devices", "export", f"all.{form}", "--format", form)
    assert told["devices"] == 4
    assert stat.S_IMODE(Path(f"all.{form}").stat().st_mode) == 0o600
    before = acme.ok("devices", "list")
    assert acme.ok("devices", "import", f"all.{form}")["unchanged"] == 4
    for one in ("ABC1234", "ABC1235", "SN-2", "00-1a-2b-3c-4d-62"):
        acme.ok("devices", "remove", one)
    assert acme.ok("devices", "list") == []
    assert acme.ok("devices", "import", f"all.{form}")["new"] == 4
    assert acme.ok("devices", "list") == before
    own = acme.run("devices", "export", "--customer", "acme", "--format", "jsonl").out
    assert [json.loads(line)["service_tag"] for line in own.splitlines()] == ["ABC1234", "ABC1235", None]


def test_a9_a_value_that_looks_like_a_formula_is_data_and_kept_as_it_is(acme: Console) -> None:
    acme.ok("devices", "add", "ABC1235", "--customer", "acme", "--order", "=cmd|' /C calc'!A0")
    out = acme.run("devices", "export").out
    assert list(csv.DictReader(io.StringIO(out)))[1]["order"] == "=cmd|' /C calc'!A0"


def test_a9_json_needs_a_file_and_a_file_that_cannot_be_written_is_no_half_file(acme: Console) -> None:
    assert "--format jsonl" in acme.refused(2, "devices", "export", "--json")
    acme.refused(3, "devices", "export", "none/such.csv")
    assert not list(Path().glob("*.csv*"))


@pytest.mark.parametrize("name", ["ABC1235", "SN-0042", "00:1A:2B:3C:4D:60", "001a2b3c4d60"])
def test_a9_a_device_is_shown_and_removed_by_any_of_its_names(acme: Console, name: str) -> None:
    acme.ok("devices", "add", "ABC1235", "--customer", "acme", "--serial", "SN-0042", "--mac", "00:1A:2B:3C:4D:60")
    assert acme.ok("devices", "show", name)["service_tag"] == "ABC1235"
    assert acme.ok("devices", "remove", name)["removed"] == name
    acme.refused(1, "devices", "show", name)
    acme.refused(1, "devices", "remove", name)


@pytest.mark.parametrize("words", [("--serial", "SN-9"), ("--mac", "00:1A:2B:3C:4D:99")])
def test_a9_a_device_without_a_tag_is_shown_and_removed_all_the_same(acme: Console, words: tuple[str, str]) -> None:
    acme.ok("devices", "add", *words, "--customer", "acme")
    assert acme.ok("devices", "show", words[1])["registered"]
    acme.ok("devices", "remove", words[1])
    assert len(acme.ok("devices", "list")) == 1


def test_a9_a_name_of_two_devices_is_not_guessed(acme: Console) -> None:
    acme.ok("devices", "add", "--serial", "ABC1234", "--customer", "acme")
    assert "2 devices" in acme.refused(6, "devices", "remove", "ABC1234")
