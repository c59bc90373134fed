"""A2: what the authority's key signed elsewhere is entered in its ledger, after it was checked, and once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pki import Folder, keys
from pki.ledger import Event, serial_text

ISSUED, REVOKED = "2026-01-02T03:04:05Z", "2026-02-03T04:05:06.789Z"


def signed(folder: Folder, profile: str, name: str) -> x509.Certificate:
    """As an online authority with this key does it: the ledger on disk hears nothing."""
    from pki.profiles import PROFILES

    authority = folder.authority()
    return authority.issue(authority.prepare(PROFILES[profile], name, keys.generate().public_key()))


def line(certificate: x509.Certificate, revoked: str | None = None, reason: str | None = None) -> str:
    pem = certificate.public_bytes(Encoding.PEM).decode()
    return json.dumps({"certificate": pem, "issued": ISSUED, "revoked": revoked, "reason": reason}) + "\n"


def test_a2_certificates_are_entered_and_revoked_ones_listed_once(folder: Folder, run: Callable[..., Any]) -> None:
    good, bad = (signed(folder, "device", tag) for tag in ("ABC1234", "ABC1235"))
    lines = line(good) + "\n" + line(bad, REVOKED, "keyCompromise")
    first = run("adopt", "-", "--json", stdin=lines)
    assert (first.code, first.json["entered"], first.json["revoked"], first.json["known"]) == (0, 2, 1, 0)
    ledger = folder.ledger.path.read_bytes()
    again = run("adopt", "-", "--json", stdin=lines)
    assert (again.json["entered"], again.json["revoked"], again.json["known"]) == (0, 0, 2)
    assert folder.ledger.path.read_bytes() == ledger
    entries = [entry for entry in folder.ledger if entry.name.startswith("ABC")]
    assert [(entry.event, entry.name, entry.time) for entry in entries] == [
        (Event.ISSUED, "ABC1234", "2026-01-02T03:04:05Z"), (Event.ISSUED, "ABC1235", "2026-01-02T03:04:05Z"),
        (Event.REVOKED, "ABC1235", "2026-02-03T04:05:06Z")]
    listed = x509.load_pem_x509_crl(folder.crl_path.read_bytes())
    assert [one.serial_number for one in listed] == [bad.serial_number]
    assert run("revoke", serial_text(good.serial_number)).code == 0, "it is one of the ledger's own from now on"
    assert run("check").code == 0


def test_a2_a_later_revocation_is_taken_over(folder: Folder, run: Callable[..., Any]) -> None:
    made = signed(folder, "device", "ABC1234")
    run("adopt", "-", stdin=line(made))
    assert run("adopt", "-", "--json", stdin=line(made, REVOKED, "superseded")).json["revoked"] == 1


def test_a2_what_another_authority_signed_is_left_to_it(folder: Folder, tmp_path: Path,
                                                        run: Callable[..., Any]) -> None:
    other = Folder.create(tmp_path / "other", common_name="Example Factory CA", organization="Example Manufacturer")
    done = run("adopt", "-", "--json", stdin=line(signed(other, "device", "ABC1234"), REVOKED, "unspecified"))
    assert (done.code, done.json["foreign"], done.json["entered"]) == (0, 1, 0)
    assert not [entry for entry in folder.ledger if entry.name == "ABC1234"]


@pytest.mark.parametrize(("wrong", "said"), [
    ("hello", "line 2"), ('{"certificate": "x"}', "line 2"), ("[]", "line 2"),
    ("server", "not a device's certificate"), ("reason", "line 2"), ("time", "line 2")])
def test_a2_one_bad_line_and_none_is_entered(folder: Folder, run: Callable[..., Any], wrong: str, said: str) -> None:
    good = signed(folder, "device", "ABC1234")
    bad = {"server": line(signed(folder, "delegator-server", "d.example.com")),
           "reason": line(good, REVOKED, "because"), "time": line(good, "yesterday", "unspecified")}.get(wrong, wrong)
    done = run("adopt", "-", stdin=line(good) + bad)
    assert done.code == 5
    assert said in done.err
    assert [entry.name for entry in folder.ledger] == ["Example Factory CA"]


def test_a2_the_key_is_asked_for_only_where_the_list_is_written(folder: Folder, run: Callable[..., Any]) -> None:
    made = signed(folder, "device", "ABC1234")
    bad = signed(folder, "device", "ABC1235")
    folder.key_path.unlink()
    assert run("adopt", "-", stdin=line(made)).code == 0
    assert run("adopt", "-", stdin=line(bad, REVOKED, "unspecified")).code == 3
    assert [entry.name for entry in folder.ledger] == ["Example Factory CA", "ABC1234"]
