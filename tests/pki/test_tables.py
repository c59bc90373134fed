"""The one reader of tables and lists: a value comes from the column that the header says, or the file is refused by the
name of what it is."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import tracemalloc
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pki.errors import Kind, PkiError
from pki.tables import ABSENT, LONGEST_LINE, Record, Table

COLUMNS = ("service_tag", "model", "order")
TAG = COLUMNS[:1]


def strict(content: str | bytes) -> list[Record]:
    """As the delegator's imports read it: no other columns, a header always."""
    raw = content.encode() if isinstance(content, str) else content
    return [(line, values if isinstance(values, str) else tuple(values))
            for line, values in Table(io.BytesIO(raw), COLUMNS, TAG)]


def lenient(content: str | bytes) -> list[Record]:
    """As lists of tags are read: other columns, or none and no header."""
    raw = content.encode() if isinstance(content, str) else content
    return [(line, values if isinstance(values, str) else tuple(values))
            for line, values in Table(io.BytesIO(raw), TAG, TAG, others=True, alone=True)]


def refusal(content: str | bytes, read: object = strict) -> PkiError:
    with pytest.raises(PkiError) as caught:
        read(content)  # type: ignore[operator]
    assert caught.value.kind is Kind.REFUSED
    assert caught.value.hint
    assert caught.value.detail.isascii()
    return caught.value


# --- the column that the header says ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    "order\tservice_tag\tmodel\n7001\tABC1234\tR7500\n\tABC1235\tR7525\n",
    '"Site, rack",service_tag,model\n"Berlin, 4",ABC1234,R7515\n"Berlin, 5",ABC1235,R7515\n',
    "\ufeffmodel;Service Tag\r\nR7;ABC1234\r\n;ABC1235\r\n",
    "a,SERVICE-TAG ,b\n,ABC1234,\n x, ABC1235 ,\n",
    '"Site\nand rack",service_tag\n"Berlin\n4",ABC1234\n,ABC1235\n',
    "sep=;\nmodel;service_tag\nR7,5;ABC1234\nR7;ABC1235\n",
    '\n\n"a;b",servicetag\n1,"ABC1234"\n1,ABC1235',
    '{"service_tag": "ABC1234", "x": 1}\n\n{"x": 2, "service_tag": "ABC1235"}\n'])
def test_a_value_comes_from_its_column(text: str) -> None:
    assert [str(values[0]).strip() for _, values in lenient(text)] == ["ABC1234", "ABC1235"]


class Ambiguous(Exception):
    """The header can be read in two ways, and the reader says so."""


def _sure(text: str) -> list[Record]:
    try:
        return lenient(text)
    except PkiError as error:
        raise (Ambiguous if "can be read as parted" in error.detail else AssertionError)(error.detail) from None


_CELL = st.text("ab,;\t\"\n ' é", max_size=6)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 5), st.integers(0, 4), st.sampled_from(",;\t"), st.data())
def test_what_a_spreadsheet_writes_is_read_back_by_column(width: int, at: int, separator: str,
                                                          data: st.DataObject) -> None:
    at %= width
    names = data.draw(st.lists(st.text("xy,;é z", min_size=1, max_size=6).filter(str.strip), min_size=width,
                               max_size=width))
    rows = data.draw(st.lists(st.lists(_CELL, min_size=width, max_size=width), max_size=5))
    tags = [f"TAG{number:04}" for number in range(len(rows))]
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator)
    for cells, tag in [(names, "service_tag"), *zip(rows, tags, strict=True)]:
        writer.writerow([*cells[:at], tag, *cells[at + 1:]])
    with contextlib.suppress(Ambiguous):
        assert [values[0] for _, values in _sure(out.getvalue())] == tags


@pytest.mark.parametrize(("text", "why"), [
    ("service_tag,,model\nABC1234,,R7\n", "column 2 of the header has no name"),
    ("service_tag,model,\nABC1234,R7,\n", "column 3 of the header has no name"),
    ("\tservice_tag\n\tABC1234\n", "column 1 of the header has no name"),
    ("service_tag,service_tag\n", "columns 1 and 2 of the header are both service_tag"),
    ("service_tag,model,Service Tag\n", "columns 1 and 3 of the header are both service_tag"),
    ("service_tag\tSERVICE-TAG\n", "are both service_tag"),
    ("a;service_tag;b,service_tag,c\n", "commas and by semicolons"),
    ("ABC1234,R7\nABC1235,R7\n", "no header with a column service_tag"),
    ("\tABC1234\n", "no header with a column service_tag"), ("model;order\nR7;1\n", "no header with a column"),
    ("Serial\nSN12345\n", "names no column service_tag"), ("MODELS\nR7515\n", "names no column service_tag"),
    ("service_tag|model\nABC1234|R7\n", "no header with a column"),
    ("\n\nservice_tag,\n", "line 3: column 2")])
def test_a_header_that_can_be_read_in_two_ways_or_in_none_is_refused(text: str, why: str) -> None:
    assert why in refusal(text, lenient).detail


@pytest.mark.parametrize(("text", "why"), [
    ("", "the header is missing"), ("\n \n", "the header is missing"), ("model\nR7\n", "has no column service_tag"),
    ("service_tag,colour\n", "unknown column 'colour'"), ("ABC1234,R7\n", "no header: 'ABC1234,R7'"),
    ("service_tag|model\n", "something else than commas"), ("service_tag model\n", "something else than commas"),
    ("service_tag;colour\n", "unknown column 'colour'"), ("service_tag,service tag\n", "both service_tag")])
def test_an_import_knows_every_column_of_its_header(text: str, why: str) -> None:
    error = refusal(text)
    assert why in error.detail
    assert error.detail.startswith("line ")


@pytest.mark.parametrize("read", [strict, lenient])
def test_a_ragged_row_is_told_with_its_line_and_read_by_nobody(read: object) -> None:
    found = read('service_tag;model\nABC1234\n"ABC\n1235";R7\nABC1236;R7;x\n;\n\nABC1237;R7\n')  # type: ignore[operator]
    assert [line for line, _ in found] == [2, 3, 5, 8]
    assert found[0][1] == "1 cells under a header of 2, parted by semicolons"
    assert found[2][1] == "3 cells under a header of 2, parted by semicolons"
    assert found[3][1][0] == "ABC1237"


@pytest.mark.parametrize(("rows", "why"), [
    ('ok,1\n"ABC1234,R7\nABC1235,R7\n', "line 3: a quote is opened there and closed nowhere"),
    ('"ABC1234"x,R7\n', "line 2: something else than the next cell stands behind a closing quote"),
    ('ABC1234,"' + "x\n" * 100_000 + '"\n', "line 2: a cell is longer than"),
    ("ABC1234,R7\rABC1235,R7\n", "line 2 holds a carriage return without a line feed"),
    ("ABC1234,R\x007\n", "line 2 is no text: it holds a NUL byte"),
    ("x" * (LONGEST_LINE + 1), "line 2 is longer than")])
def test_a_record_that_is_none_ends_it_with_the_line_on_which_it_begins(rows: str, why: str) -> None:
    assert why in refusal(f"service_tag,model\n{rows}").detail


# --- lists ------------------------------------------------------------------------------------------------------------


def test_a_list_is_one_value_a_line() -> None:
    assert lenient("\ufeffABC1234\r\n# a comment\n\n  ABC1235  # why\nABC1236\t\nABC1237") == [
        (1, ("ABC1234",)), (4, ("ABC1235",)), (5, ("ABC1236",)), (6, ("ABC1237",))]


@pytest.mark.parametrize("line", ["\tABC1235", "ABC1235,R7", "ABC1235;", "R7\tABC1235"])
def test_a_line_of_a_list_with_more_than_one_value_is_a_wrong_row(line: str) -> None:
    (_, (number, why)) = lenient(f"ABC1234\n{line}\n")
    assert (number, str(why)[:13]) == (2, "more than one")


# --- files that are something else ------------------------------------------------------------------------------------


def _zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return out.getvalue()


TEXT = "service_tag,model\nABC1234,R7\n"
FOREIGN = {
    "UTF-16 with mark": (TEXT.encode("utf-16"), "is UTF-16"), "UTF-16 big": ("\ufeff" + TEXT).encode("utf-16-be"),
    "UTF-16 without mark": TEXT.encode("utf-16-le"), "UTF-16 big without mark": TEXT.encode("utf-16-be"),
    "UTF-32": (TEXT.encode("utf-32"), "is UTF-32"), "xlsx": (_zipped(), ".xlsx"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "(.xls)"), "gzip": (gzip.compress(TEXT.encode()), "gzip"),
    "Latin-1": (TEXT.replace("R7", "Größe").encode("latin-1"), "line 2 is not UTF-8: byte 0xf6"),
    "bare CR": (TEXT.replace("\n", "\r").encode(), "carriage return"),
    "JSON array": (json.dumps([{"service_tag": "ABC1234"}]).encode(), "JSON array"),
    "JSON array over lines": (json.dumps([{"service_tag": "ABC1234"}], indent=1).encode(), "JSON array"),
    "JSON object over lines": (json.dumps({"service_tag": "ABC1234"}, indent=1).encode(), "JSON object over several"),
    "JSON objects between bare CR": (b'{"service_tag": "A"}\r{"service_tag": "B"}\r', "carriage return"),
    "HTML": (b"<!DOCTYPE html>\n<title>Sign in</title>\n", "HTML"), "PEM": (b"-----BEGIN CERTIFICATE-----\n", "PEM"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3\n", "PDF"), "database": (b"SQLite format 3\0" + bytes(99), "SQLite"),
    "NUL": (b"service_tag\nAB\0C\n", "NUL"), "/dev/zero": (bytes(1 << 21), "nothing but NUL bytes, as /dev/zero"),
    "UTF-32 without mark": (TEXT.encode("utf-32-le"), "is UTF-32"), "one NUL": (b"\0", "nothing but NUL"),
    "UTF-32 big without mark": (TEXT.encode("utf-32-be"), "is UTF-32")}


@pytest.mark.parametrize("read", [strict, lenient])
@pytest.mark.parametrize("given", FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_is_something_else_is_told_what_it_is(given: tuple[bytes, str] | bytes, read: object) -> None:
    content, why = given if isinstance(given, tuple) else (given, "is UTF-16")
    error = refusal(content, read)
    assert why in error.detail


# --- JSON lines -------------------------------------------------------------------------------------------------------


def test_names_in_json_are_exact_and_said_once() -> None:
    good = '{"service_tag": "ABC1234", "model": "service_tag", "order": null}\n'
    assert strict(good) == [(1, ("ABC1234", "service_tag", ""))]
    assert strict('{"service_tag": "ABC1234"}')[0][1][1] is ABSENT
    for wrong, why in (('{"service_tag": "A", "service_tag": "B"}', "says 'service_tag' twice"),
                       ('{"service_tag": "A", "Service Tag": "B"}', "it is spelled service_tag"),
                       ("[1]", "not a JSON object"), ("{", "not a JSON object")):
        for read in (strict, lenient):
            (_, (line, told)) = read(good.replace("model", "order", 1).replace(', "order": null', "") + wrong)
            assert line == 2
            assert why in str(told)


# --- size -------------------------------------------------------------------------------------------------------------


def test_memory_is_one_record() -> None:
    class Endless(io.RawIOBase):
        left = 600_000

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            row = b"ABC1234,R7,1\n"
            size = min(len(buffer) // len(row) * len(row), self.left // len(row) * len(row))
            buffer[:size] = row * (size // len(row))
            self.left -= size
            return size
    source = io.BufferedReader(Endless())
    table = Table(io.BytesIO(b"service_tag,model,order\n"), COLUMNS, TAG)
    assert list(table) == []
    tracemalloc.start()
    try:
        first = io.BytesIO(b"service_tag,model,order\n")
        chained = _Chained(first, source)
        assert sum(1 for _ in Table(chained, COLUMNS, TAG)) > 40_000  # type: ignore[arg-type]
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


class _Chained:
    """What is read of one, then of the other."""

    def __init__(self, *sources: io.BufferedIOBase) -> None:
        self._sources = list(sources)

    def read(self, size: int) -> bytes:
        while self._sources:
            content = self._sources[0].read(size)
            if content:
                return content
            self._sources.pop(0)
        return b""


# --- headings where values should be --------------------------------------------------------------------------------


@pytest.mark.parametrize("second", ["service_tag,model", "model,Service Tag", "location,SERVICE-TAG", "Tag,Model",
                                    "SERIALNO,x1", "SeRvIcE tAg,LINE"])
@pytest.mark.parametrize("read", [strict, lenient])
def test_a_heading_in_the_middle_of_a_table_is_no_row(second: str, read: object) -> None:
    found = read(f"service_tag,model\nABC1234,R7\n{second}\nABC1235,R8\n")  # type: ignore[operator]
    assert [line for line, values in found if isinstance(values, str)] == [3]
    assert "reads as a heading" in str(found[1][1])


def test_a_heading_in_the_middle_of_a_list_or_of_objects_is_no_row() -> None:
    for text in ("ABC1234\nABC1235\nservice_tag\nABC1236\n", "ABC1234\nABC1235\nSERIAL\nABC1236\n",
                 '{"service_tag": "ABC1234"}\n' * 2 + '{"service_tag": "SERVICETAG"}\n'):
        assert "reads as a heading" in str(lenient(text)[2][1])


_TAGS = [f"{number}{letter}C{number}234" for number in range(3) for letter in "BDF"]


@pytest.mark.parametrize("word", [
    "COMPUTERNAME", "DELLTAG", "DESCRIPTION", "STAG", "SERIENNR", "BESCHREIBUNG", "SERIENNUMMER", "MODELL", "NOMBRE",
    "NUMERO", "DEVICEID", "HOSTNAME", "ETIQUETA", "KUNDE", "Bezeichnung", "# devices of may\n\nASSET"])
@pytest.mark.parametrize("below", [[], _TAGS[:1], _TAGS])
def test_a_list_whose_first_line_is_a_word_of_headings_is_refused(word: str, below: list[str]) -> None:
    error = refusal("\n".join([word, *below]), lenient)
    assert "reads as the heading" in error.detail
    assert "write a line service_tag above it" in error.hint


@pytest.mark.parametrize(("first", "below", "why"), [
    ("WYXKLMN", _TAGS, "has no digit"), ("WYXKLMN", _TAGS[:1], "has no digit"),
    ("COLUMN1", [], ""), ("SPALTE17", _TAGS, "is not as long"), ("XYZ12", [*_TAGS * 300], "is not as long")])
def test_a_first_line_that_differs_in_kind_from_all_others_is_refused(first: str, below: list[str], why: str) -> None:
    text = "\n".join([first, *below])
    if not why:
        assert lenient(text)[0] == (1, (first,))
    else:
        assert why in refusal(text, lenient).detail
        assert lenient("service_tag\n" + text)[0] == (2, (first,)), "a heading says what it is"


@pytest.mark.parametrize("first", ["ABC1234", "HJKLMNP"])
def test_a_list_that_is_taken_without_a_heading_says_what_it_took(first: str) -> None:
    table = Table(io.BytesIO("\n".join([first, "XYZVWQB", "A1234567"]).encode()), TAG, TAG, others=True, alone=True)
    assert [line for line, _ in table] == [1, 2, 3]
    assert table.taken == f"no heading: the first line, '{first}', is taken as a service tag"
    named = Table(io.BytesIO(b"service_tag\nABC1234\n"), TAG, TAG, others=True, alone=True)
    assert list(named)
    assert not named.taken


def test_a_list_through_a_pipe_mints_nothing_before_its_first_line_is_known() -> None:
    with pytest.raises(PkiError):
        next(iter(Table(io.BytesIO("\n".join(["WYXKLMN", *_TAGS]).encode()), TAG, TAG, others=True, alone=True)))
