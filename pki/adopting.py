"""Certificates that this authority's key signed elsewhere, entered in its ledger: `delegator enrolments export`.

Lives here: `adopted`, which reads the lines, checks each certificate and has the folder enter it.
Invariant: every line is checked before any is entered; what is entered is signed by this authority and is a device's
certificate to the letter (lint.py). Doing it again changes nothing.
Must not live here: the files of a folder (folder.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import IO

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from pki import pem
from pki.authority import Authority
from pki.errors import Kind, PkiError
from pki.folder import Folder
from pki.ledger import Entry, Event, issued, serial_text, stamp
from pki.lint import Draft, findings
from pki.profiles import DEVICE
from pki.revocation import Reason
from pki.tables import Table

_COLUMNS = ("certificate", "issued", "revoked", "reason")


@dataclass(frozen=True, slots=True)
class Adopted:
    """How many lines were new, newly revoked, in the ledger already, or of another authority."""

    entered: int
    revoked: int
    known: int
    foreign: int


def adopted(folder: Folder, source: IO[bytes], authority: Callable[[], Authority], days: int) -> Adopted:
    """Enter them; `authority` is asked for only where the list has to be written. Raises REFUSED, with the line's
    number, for what is not a device's certificate, and enters none."""
    found, foreign = [], 0
    for number, values in Table(source, _COLUMNS, _COLUMNS[:1], others=True):
        if isinstance(values, str):
            raise _refused(number, values)
        try:
            entries = _entries(dict(zip(_COLUMNS, values, strict=True)), folder.ca_certificate)
        except pem.PemFault as error:
            raise _refused(number, f"its certificate: {error}") from None
        except (ValueError, TypeError):
            raise _refused(number, "not a line of `delegator enrolments export`") from None
        except PkiError as error:
            raise _refused(number, error.detail) from None
        foreign += not entries
        found += entries
    entered, revoked = folder.enter(found, authority, days)
    certificates = sum(entry.event is Event.ISSUED for entry in found)
    return Adopted(entered, revoked, certificates - entered, foreign)


def _entries(values: Mapping[str, object], ca: x509.Certificate) -> list[Entry]:
    """What the ledger is to say of one line; nothing where another authority signed."""
    certificate = pem.one(str(values["certificate"]).encode(), pem.CERTIFICATE)
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return []
    odd = findings(Draft(certificate, DEVICE, ca))
    if odd:
        raise PkiError(Kind.REFUSED, "not a device's certificate: " + "; ".join(map(str, odd)), "")
    name = str(certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)
    entries = [issued(certificate, DEVICE.name, name, datetime.fromisoformat(str(values["issued"])))]
    if values["revoked"]:
        moment = stamp(datetime.fromisoformat(str(values["revoked"])))
        entries.append(Entry(Event.REVOKED, moment, serial_text(certificate.serial_number), DEVICE.name, name,
                             reason=Reason(values["reason"]).value))
    return entries


def _refused(number: int, detail: str) -> PkiError:
    return PkiError(Kind.REFUSED, f"line {number}: {detail}", "nothing was entered; export the lines again")
