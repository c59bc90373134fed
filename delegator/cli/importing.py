"""Rows of a file of devices, read into what a spool holds.

The invariants: every row that is wrong is told with its line number, and with everything that is wrong with it; a row
that is accepted is one that the store's forms accept, whichever of the two ways it took through here.
Must not live here: files (records), registering (devices), what is registered already (store).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import click

from delegator.cli import forms
from delegator.cli.records import ABSENT, Record, Values
from delegator.model import SERIAL_NUMBER, SERVICE_TAG
from delegator.store.spool import Refused, Said

COLUMNS = ("service_tag", "serial_number", "mac_addresses", "model", "order", "delegate", "customer")
IDENTIFIERS = COLUMNS[:3]
_FORMS: dict[str, Callable[[str], str]] = {
    "service_tag": forms.tag, "serial_number": forms.serial, "model": forms.model_name, "order": forms.words,
    "delegate": forms.name, "customer": forms.name}
_MAC = "(?:[0-9A-F]{2}:){5}[0-9A-F]{2}"
_MACS = re.compile(f"{_MAC}(?:;{_MAC})*")
_REMEMBERED = 10_000
"""Combinations of model, order, delegate and customer that are kept: most rows repeat one."""
_said = Said._make
_Owned = tuple[str | None, str | None, str | None, str | None]


class Rows:
    """The rows of a file, one by one; `customer` owns those that do not say it. Rows that are written as we would
    write them take a short way, 4 µs instead of 25 (measured); all others, and those that are wrong, the long one."""

    def __init__(self, customer: str | None) -> None:
        self._customer = customer
        self._owned: dict[tuple[object, ...], _Owned] = {}

    def read(self, records: Iterable[Record]) -> Iterator[Said | Refused]:
        for line, values in records:
            if isinstance(values, str):
                yield Refused(line, values)
                continue
            quick = self._quick(line, values)
            if quick is not None:
                yield quick
                continue
            try:
                yield self._said(line, values)
            except ValueError as error:
                yield Refused(line, str(error))

    def _quick(self, line: int, values: Values) -> Said | None:
        """None where anything has to be looked at more closely."""
        tag, serial, macs = values[:3]
        if not (_fits(tag, SERVICE_TAG) and _fits(serial, SERIAL_NUMBER)):
            return None
        joined = _joined(macs)
        try:
            owned = self._owned.get(tuple(values[3:])) if joined is not None else None
        except TypeError:  # a list where there should be words
            return None
        if owned is None or not (tag or serial or joined):
            return None
        owner, model, order, delegate = owned
        return _said((line, owner, tag or None, serial or None, joined or None, model, order, delegate))

    def _said(self, line: int, values: Values) -> Said:
        """Raises ValueError with everything that is wrong."""
        fields = dict(zip(COLUMNS, values, strict=True))
        wrong: list[str] = []
        good = {name: converted(name, form, fields[name], wrong) for name, form in _FORMS.items()}
        parts = _parts(fields["mac_addresses"])
        macs = [mac for part in parts if (mac := converted("mac_addresses", forms.mac, part, wrong)) is not None]
        owner = self._owner(fields, good, wrong)
        if not wrong and not (macs or good["service_tag"] or good["serial_number"]):
            wrong.append("no service_tag, serial_number or mac_addresses")
        if wrong:
            raise ValueError("; ".join(wrong))
        owned = (owner, good["model"], good["order"], good["delegate"])
        self._remember(tuple(values[3:]), owned)
        return Said(line, owner, good["service_tag"], good["serial_number"], ",".join(dict.fromkeys(macs)) or None,
                    *owned[1:])

    def _remember(self, raw: tuple[object, ...], owned: _Owned) -> None:
        if len(self._owned) >= _REMEMBERED:
            self._owned.clear()
        if all(type(value) is str or value is None or value is ABSENT for value in raw):
            self._owned[raw] = owned

    def _owner(self, fields: dict[str, object], good: dict[str, str | None], wrong: list[str]) -> str | None:
        """Whose it is: None for stock, which a row must say by an order number or by a customer that is left empty."""
        said = good["customer"]
        if said and self._customer and said != self._customer:
            wrong.append(f"customer: the row says {said}, the command {self._customer}")
        if not said and not self._customer:
            if fields["customer"] is ABSENT and good["order"] is None:
                wrong.append("customer: neither the row nor --customer says it, and there is no order")
            elif good["delegate"] is not None:
                wrong.append("delegate: a device that names no customer can name no delegate")
        return said or self._customer


def _fits(value: object, form: re.Pattern[str]) -> bool:
    """Nothing, or text that is in its form as it stands."""
    if type(value) is str:
        return not value or form.fullmatch(value) is not None
    return value is None or value is ABSENT


def _joined(macs: object) -> str | None:
    """Addresses that are in the normal form and all different, with commas in between; None for any others."""
    if type(macs) is str and len(macs) == 17:
        return macs if _MACS.fullmatch(macs) is not None else None
    if not macs and (macs is ABSENT or macs is None or macs == "" or macs == []):
        return ""
    if type(macs) is list and all(type(one) is str and len(one) == 17 for one in macs):
        macs = ";".join(macs)
    if type(macs) is not str or _MACS.fullmatch(macs) is None:
        return None
    parts = macs.split(";")
    return ",".join(parts) if len(set(parts)) == len(parts) else None


def converted(name: str, form: Callable[[str], str], value: object, wrong: list[str]) -> str | None:
    """The value in its form; None where there is none, or where it does not fit, which `wrong` then tells."""
    if value is None or value is ABSENT:
        return None
    if not isinstance(value, str):
        wrong.append(f"{name}: must be a string")
        return None
    if not value.strip():
        return None
    try:
        return form(value.strip())
    except click.BadParameter as error:
        wrong.append(f"{name}: {error.message}")
        return None


def _parts(value: object) -> list[object]:
    """A list, or text with semicolons, commas or spaces in between."""
    if isinstance(value, list):
        return value
    return [*re.split(r"[;,\s]+", value)] if isinstance(value, str) else [value]
