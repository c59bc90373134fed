"""A2: the revocation list says who is out and why, and a server believes it only if it can prove itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from pki import Authority, Folder, Kind, PkiError, Reason, RevocationList, keys
from pki.ledger import Entry, Event
from pki.revocation import build_list, number_of, read_lists

NOW = datetime.now(UTC).replace(microsecond=0)


def gone(serial: str, reason: Reason = Reason.UNSPECIFIED) -> Entry:
    return Entry(Event.REVOKED, "2026-01-02T03:04:05Z", serial, "device", "ABC1234", reason=reason.value)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.found("List CA", None, keys.generate())


def written(path: Path, *lists: x509.CertificateRevocationList) -> Path:
    path.write_bytes(b"".join(each.public_bytes(serialization.Encoding.PEM) for each in lists))
    return path


REASONS = {"keyCompromise": "Key Compromise", "affiliationChanged": "Affiliation Changed", "superseded": "Superseded",
           "cessationOfOperation": "Cessation Of Operation", "privilegeWithdrawn": "Privilege Withdrawn"}  # fmt: skip


def test_a2_openssl_reads_the_list_and_each_reason(
    authority: Authority, tmp_path: Path, openssl: Callable[..., str]
) -> None:
    entries = [gone(f"{number + 16:x}", reason) for number, reason in enumerate(Reason)]
    path = written(tmp_path / "crl.pem", build_list(authority, entries, days=7, now=NOW))
    text = openssl("crl", "-in", path, "-noout", "-text")
    for reason in Reason:
        assert reason.value == "unspecified" or REASONS[reason.value] in text
    assert "Unspecified" not in text  # RFC 5280 section 5.3.1: better left out
    assert "Jan  2 03:04:05 2026 GMT" in text
    assert "X509v3 Authority Key Identifier" in text


def test_a2_numbers_grow_even_when_the_clock_stands_still(authority: Authority) -> None:
    first = number_of(build_list(authority, (), now=NOW))
    assert number_of(build_list(authority, (), now=NOW, previous_number=first)) == first + 1
    assert number_of(build_list(authority, (), now=NOW + timedelta(days=1))) > first + 1


def test_a2_a_list_covers_its_time_and_a_lagging_clock_but_not_a_second_more(
    authority: Authority, tmp_path: Path
) -> None:
    path = written(tmp_path / "crl.pem", build_list(authority, [gone("0a")], days=7, now=NOW))
    loaded = RevocationList.load(path, authority.certificate)
    assert loaded.serials == {10}
    assert loaded.next_update == NOW + timedelta(days=7)
    assert loaded.next_update.tzinfo is not None
    assert loaded.covers(NOW)
    assert loaded.covers(NOW - timedelta(hours=23))
    assert not loaded.covers(NOW - timedelta(hours=25))
    assert loaded.covers(NOW + timedelta(days=7) - timedelta(seconds=1))
    assert not loaded.covers(NOW + timedelta(days=7))


def test_a2_a_list_is_read_in_pem_and_der(authority: Authority, tmp_path: Path) -> None:
    made = build_list(authority, [gone("0a")], now=NOW)
    (tmp_path / "crl.der").write_bytes(made.public_bytes(serialization.Encoding.DER))
    assert RevocationList.load(tmp_path / "crl.der", authority.certificate).serials == {10}


def raw_list(authority: Authority, key: keys.PrivateKey, *, critical: bool = False) -> x509.CertificateRevocationList:
    builder = x509.CertificateRevocationListBuilder(authority.certificate.subject, NOW, NOW + timedelta(days=1))
    if critical:
        builder = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)
    return builder.sign(key, hashes.SHA256())


def test_a2_a_forged_foreign_or_partial_list_is_refused(tmp_path: Path) -> None:
    key = keys.generate()
    mine = Authority.found("List CA", None, key)
    other = Authority.found("Other CA", None, keys.generate())
    cases = {
        "not its issuer's": raw_list(mine, keys.generate()),
        "of another issuer": build_list(other, (), now=NOW),
        "critical extension": raw_list(mine, key, critical=True),
    }
    for words, found in cases.items():
        with pytest.raises(PkiError, match=words) as caught:
            RevocationList.load(written(tmp_path / "crl.pem", found), mine.certificate)
        assert caught.value.kind is Kind.CONFIGURATION


@pytest.mark.parametrize(
    "content", [None, b"", b"rubbish", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"]
)
def test_a2_a_missing_or_damaged_list_is_an_error_never_an_empty_list(
    authority: Authority, tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "crl.pem").write_bytes(content)
    with pytest.raises(PkiError, match="python -m pki crl"):
        RevocationList.load(tmp_path / "crl.pem", authority.certificate)


def test_a2_a_file_with_more_lists_than_asked_for_is_refused(authority: Authority, tmp_path: Path) -> None:
    path = written(tmp_path / "crl.pem", *(build_list(authority, (), now=NOW, previous_number=n) for n in (1, 1 << 40)))
    assert len(read_lists(path)) == 2
    with pytest.raises(PkiError, match="holds 2 lists"):
        RevocationList.load(path, authority.certificate)


def test_a2_many_revoked_serials_load_into_a_set(folder: Folder, tmp_path: Path) -> None:
    """A2: verified once, looked up in a set: a large list costs a start a moment and a handshake nothing."""
    authority = folder.authority()
    entry = gone("0a")
    made = build_list(authority, (Entry(entry.event, entry.time, f"{n + 1:x}", "device", "T", reason="unspecified")
                                  for n in range(20_000)), now=NOW)  # fmt: skip
    loaded = RevocationList.load(written(tmp_path / "crl.pem", made), folder.ca_certificate)
    assert len(loaded.serials) == 20_000
    assert 20_000 in loaded.serials
