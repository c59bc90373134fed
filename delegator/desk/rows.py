"""Rows of files: devices, read into what a spool holds; orders; lists of devices by one identifier.

The invariants: every row that is wrong is told with its line number, and with everything that is wrong with it; a row
that is accepted is one that the store's forms accept, whichever of the two ways it took through here.
Must not live here: files (records), registering (devices), what is registered already (store).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from delegator.desk import forms
from delegator.desk.refusals import Wrong
from delegator.model import SERIAL_NUMBER, SERVICE_TAG, Order, is_placeholder_mac, is_placeholder_serial
from delegator.store.orders import MOST
from delegator.store.spool import Refused, Said
from pki.tables import ABSENT, Record, Values

COLUMNS = ("service_tag", "serial_number", "mac_addresses", "model", "order", "delegate", "customer")
IDENTIFIERS = COLUMNS[:3]
_FORMS: dict[str, Callable[[str], str]] = {
    "service_tag": forms.tag, "serial_number": forms.serial, "model": forms.model_name, "order": forms.words,
    "delegate": forms.name, "customer": forms.name}
_MAC = "(?:(?:[0-9A-Fa-f]{2}:){5}|(?:[0-9A-Fa-f]{2}-){5})[0-9A-Fa-f]{2}"
_NAMES = re.compile(rf"({SERVICE_TAG.pattern})?\n({SERIAL_NUMBER.pattern})?\n({_MAC}(?:;{_MAC})*)?").fullmatch
"""All identifiers of a row in the forms in which we write them, in one look; MAC addresses in small letters or with
dashes too, as others write them."""
_BLANKS = " \t"
"""What may stand around a value, as for `python -m pki`: a blank that is no ASCII is a part of it, and is refused."""
_ONE_MAC = re.compile(_MAC).fullmatch
"""In another column it is the second of several, in a table whose columns are parted by what parts addresses too."""
_ONE = 17
"""Characters of one address."""
_REMEMBERED = 10_000
"""Combinations of model, order, delegate and customer that are kept: most rows repeat one."""
UNPROVEN = ("any genuine device that says such a serial number or MAC address gets the credential, as nothing but the "
            "service tag is proven by a certificate; docs/security.md, T-A12")
"""What is told of registrations without a service tag (docs/adr/0007)."""
_said = Said._make
_Owned = tuple[str | None, str | None, str | None, str | None]


class Rows:
    """The rows of a file, one by one; `customer` owns those that do not say it. Rows that are written as most
    are take a short way, 4 µs instead of 25 (measured); all others, and those that are wrong, the long one."""

    def __init__(self, customer: str | None) -> None:
        self._customer = customer
        self._owned: dict[tuple[object, ...], _Owned] = {}
        self.placeholders = 0
        """Rows with an identifier that thousands of machines say."""
        self.untagged = 0
        """Rows without a service tag, which alone a certificate proves."""
        self._first = self._first_untagged = 0

    @property
    def words(self) -> tuple[str, ...]:
        """What is to be said of rows that were taken."""
        placeholders = () if not self.placeholders else (
            f"rows with a serial number or MAC address that is a placeholder: {self.placeholders}, the first on line "
            f"{self._first}; it identifies no device, and none will be found by it",)
        untagged = () if not self.untagged else (
            f"rows without a service tag: {self.untagged}, the first on line {self._first_untagged}; {UNPROVEN}",)
        return placeholders + untagged

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
        tag, serial, macs, model, order, delegate, customer = values
        try:
            found = _NAMES("\n".join((tag, serial,
                                      macs if type(macs) is str else _listed(macs))))  # type: ignore[arg-type]
            owner, *rest = self._owned[model, order, delegate, customer]
        except (KeyError, TypeError):  # not seen before, or no text where there should be some
            return None
        if found is None:
            return None
        tag, serial, macs = found.groups()
        if macs:
            macs = macs.upper().replace("-", ":")
            if len(macs) > _ONE:
                parts = macs.split(";")
                if len(set(parts)) < len(parts):
                    return None
                macs = ",".join(parts)
        if not (tag or serial or macs):
            return None
        self._note(line, tag, serial, macs)
        return _said((line, owner, tag, serial, macs, *rest))

    def _said(self, line: int, values: Values) -> Said:
        """Raises ValueError with everything that is wrong."""
        fields = dict(zip(COLUMNS, values, strict=True))
        wrong: list[str] = []
        good = {name: _cell(name, form, fields[name], wrong) for name, form in _FORMS.items()}
        parts = _parts(fields["mac_addresses"])
        macs = [mac for part in parts if (mac := _cell("mac_addresses", forms.mac, part, wrong)) is not None]
        owner = self._owner(fields, good, wrong)
        wrong += [f"{name}: {value} is a MAC address; several of them in one cell are quoted, or parted by spaces"
                  for name in ("model", "order") if (value := good[name]) and _ONE_MAC(value)]
        if not wrong and not (macs or good["service_tag"] or good["serial_number"]):
            wrong.append("no service_tag, serial_number or mac_addresses")
        if wrong:
            raise ValueError("; ".join(wrong))
        owned = (owner, good["model"], good["order"], good["delegate"])
        self._remember(tuple(values[3:]), owned)
        addresses = ",".join(dict.fromkeys(macs)) or None
        self._note(line, good["service_tag"], good["serial_number"], addresses)
        return Said(line, owner, good["service_tag"], good["serial_number"], addresses, *owned[1:])

    def _note(self, line: int, tag: str | None, serial: str | None, macs: str | None) -> None:
        """A placeholder is registered as it stands there, so that what an export wrote comes back; but it finds no
        device, which is to be told. So is who may come for a device without a tag."""
        if not tag:
            self.untagged += 1
            self._first_untagged = self._first_untagged or line
        if (serial and is_placeholder_serial(serial)) or (macs and any(map(is_placeholder_mac, macs.split(",")))):
            self.placeholders += 1
            self._first = self._first or line

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


def _listed(macs: object) -> str:
    """A list of addresses as one text. Raises TypeError for anything that is not so simple."""
    if isinstance(macs, str):
        return macs
    if type(macs) is list and all(len(one) == _ONE for one in macs):
        return ";".join(macs)
    raise TypeError


def _parts(value: object) -> list[object]:
    """A list, or text with semicolons, commas or spaces in between."""
    if isinstance(value, list):
        return value
    return [*re.split(r"[;,\s]+", value)] if isinstance(value, str) else [value]


def _cell(name: str, form: Callable[[str], str], value: object, wrong: list[str]) -> str | None:
    """The value in its form; None where there is none, or where it does not fit, which `wrong` then tells."""
    if value is None or value is ABSENT:
        return None
    if not isinstance(value, str):
        wrong.append(f"{name}: must be a string")
        return None
    text = value.strip(_BLANKS)
    if not text:
        return None
    try:
        return form(text)
    except ValueError as error:
        wrong.append(f"{name}: {error}")
        return None


# --- orders -------------------------------------------------------------------------------------------------------


ORDER = ("order", "customer", "delegate")
_ORDER_FORMS: dict[str, Callable[[str], str]] = {"order": forms.words, "customer": forms.name, "delegate": forms.name}


def orders(records: Iterable[Record], customer: str | None) -> tuple[list[tuple[int, Order]], list[Refused]]:
    """Orders with their lines, each number once, and the lines that are wrong; `customer` has those that do not say
    whose they are. No more are read than can be taken, so that they do not fill the memory."""
    good: list[tuple[int, Order]] = []
    refused: list[Refused] = []
    seen: dict[str, int] = {}
    for line, values in records:
        try:
            order = _order(values, customer)
            if seen.setdefault(order.number, line) != line:
                raise ValueError(f"order {order.number} stands on line {seen[order.number]} already")
            good.append((line, order))
        except ValueError as error:
            refused.append(Refused(line, str(error)))
        if len(good) + len(refused) > 2 * MOST:
            break
    return good, refused


def _order(values: Values | str, customer: str | None) -> Order:
    """Raises ValueError with everything that is wrong."""
    if isinstance(values, str):
        raise ValueError(values)
    wrong: list[str] = []
    good = {name: _cell(name, _ORDER_FORMS[name], value, wrong) for name, value in zip(ORDER, values, strict=True)}
    said = good["customer"]
    if said and customer and said != customer:
        wrong.append(f"customer: the row says {said}, the command {customer}")
    if not (said or customer):
        wrong.append("customer: neither the row nor --customer says it")
    if not good["order"]:
        wrong.append("order: is missing")
    if wrong:
        raise Wrong(wrong)
    return Order(str(good["order"]), str(said or customer), good["delegate"])


# --- lists --------------------------------------------------------------------------------------------------------


LISTED = ("service_tag",)


def listed(records: Iterable[Record], form: Callable[[str], str]) -> list[str]:
    """Each device once, in order, by what `form` makes of its cell. Raises Wrong naming every line that is."""
    found: dict[str, None] = {}
    wrong: list[str] = []
    for line, values in records:
        try:
            found[_named(values, form)] = None
        except ValueError as error:
            wrong.append(f"line {line}: {error}")
    if wrong:
        raise Wrong(wrong)
    return list(found)


def _named(values: Values | str, form: Callable[[str], str]) -> str:
    if isinstance(values, str):
        raise ValueError(values)
    (value,) = values
    if not isinstance(value, str):
        raise ValueError(f"{LISTED[0]} must be a string")
    return form(value.strip(_BLANKS))
