"""Files of devices, as CSV or as JSON lines, read into registrations.

The invariants: reading changes nothing; every row that is wrong is told with its line number, not only the first;
a row that is accepted is one that the store's forms accept.
Must not live here: registering (devices), what is registered already (store).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import click

from delegator.cli import forms
from delegator.errors import DelegatorError, Kind
from delegator.model import Registration

Fields = dict[str, object]


@dataclass(frozen=True, slots=True)
class Row:
    """One device and the line on which it stands."""

    line: int
    registration: Registration


@dataclass(frozen=True, slots=True)
class Refused:
    """One row that cannot be registered, and why."""

    line: int
    error: str


@dataclass(slots=True)
class Batch:
    """What was read from one file."""

    rows: list[Row] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


_FORMS: dict[str, Callable[[str], str]] = {
    "service_tag": forms.tag, "serial_number": forms.serial, "model": forms.model_name, "order": forms.words,
    "delegate": forms.name, "customer": forms.name}
COLUMNS = ("service_tag", "serial_number", "mac_addresses", "model", "order", "delegate", "customer")
_IDENTIFIERS = COLUMNS[:3]


def read(content: bytes, customer: str | None) -> Batch:
    """The devices of a file; `customer` owns those that do not say it. Raises DelegatorError (MALFORMED) when the
    file as a whole is not one of devices."""
    text = _decoded(content)
    records = _json_lines(text) if text.lstrip().startswith("{") else _csv(text)
    batch, seen = Batch(), dict[str, int]()
    for line, found in records:
        try:
            registration = _registration(found, customer)
            _must_be_once(registration, line, seen)
            batch.rows.append(Row(line, registration))
        except ValueError as error:
            batch.refused.append(Refused(line, str(error)))
    return batch


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[:error.start].count(b"\n") + 1
        raise _malformed(f"line {line}: not UTF-8", "save the file as UTF-8") from None


def _malformed(detail: str, hint: str) -> DelegatorError:
    return DelegatorError(Kind.MALFORMED, detail, hint=hint)


_Records = Iterator[tuple[int, Fields]]


def _csv(text: str) -> _Records:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        _check_header(header)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, _cells(header, cells)
    except csv.Error as error:
        raise _malformed(f"line {reader.line_num}: {error}", "quote cells as in RFC 4180") from None


def _check_header(header: list[str]) -> None:
    unknown = [name for name in header if name not in COLUMNS]
    if unknown or len(set(header)) < len(header) or not set(header) & set(_IDENTIFIERS):
        raise _malformed(f"line 1: the header is {','.join(header)[:120] or 'missing'!a}",
                         f"begin the file with some of: {','.join(COLUMNS)}")


def _cells(header: list[str], cells: list[str]) -> Fields:
    """A row with other cells than the header is kept as it is, to be refused with its line number."""
    return {"": f"{len(cells)} cells under a header of {len(header)}"} if len(cells) != len(header) else {
        name: cell.strip() for name, cell in zip(header, cells, strict=True)}


def _json_lines(text: str) -> _Records:
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        yield line, found if isinstance(found, dict) else {"": "not a JSON object on one line"}


def _registration(fields: Fields, customer: str | None) -> Registration:
    """Raises ValueError with everything that is wrong."""
    if "" in fields:
        raise ValueError(str(fields[""]))
    wrong = [f"unknown name {name[:40]!a}" for name in fields if name not in COLUMNS]
    values = {name: _converted(name, form, fields.get(name), wrong) for name, form in _FORMS.items()}
    parts = _parts(fields.get("mac_addresses"))
    macs = [mac for part in parts if (mac := _converted("mac_addresses", forms.mac, part, wrong)) is not None]
    owner = _owner(values["customer"], customer, wrong)
    if not wrong and not (macs or values["service_tag"] or values["serial_number"]):
        wrong.append("no service_tag, serial_number or mac_addresses")
    if wrong:
        raise ValueError("; ".join(wrong))
    return Registration(owner, values["service_tag"], values["serial_number"], tuple(dict.fromkeys(macs)),
                        values["model"], values["order"], values["delegate"])


def _converted(name: str, form: Callable[[str], str], value: object, wrong: list[str]) -> str | None:
    """The value in its form; None where there is none, or where it does not fit, which `wrong` then tells."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        wrong.append(f"{name}: must be a string")
        return None
    try:
        return form(value)
    except click.BadParameter as error:
        wrong.append(f"{name}: {error.message}")
        return None


def _parts(value: object) -> list[object]:
    """A list, or text with semicolons, commas or spaces in between."""
    if isinstance(value, list):
        return value
    return [*re.split(r"[;,\s]+", value)] if isinstance(value, str) else [value]


def _owner(said: str | None, customer: str | None, wrong: list[str]) -> str:
    if said and customer and said != customer:
        wrong.append(f"customer: the row says {said}, the command {customer}")
    if not said and not customer:
        wrong.append("customer: neither the row nor --customer says it")
    return said or customer or ""


def _must_be_once(one: Registration, line: int, seen: dict[str, int]) -> None:
    """A repeated identifier is a mistake of whoever wrote the file: which row is meant, nobody knows."""
    said = (("service tag", one.service_tag), ("serial number", one.serial_number),
            *(("MAC address", mac) for mac in one.mac_addresses))
    for identifier in [f"{what} {value}" for what, value in said if value]:
        if seen.setdefault(identifier, line) != line:
            raise ValueError(f"{identifier} stands on line {seen[identifier]} already")
