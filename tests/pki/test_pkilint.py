"""A2: a linter that is not ours reads one certificate of every profile; each finding is fixed or explained here.

`pkilint` is run in three ways: against RFC 5280, which binds us, and against the rules of the CA/Browser Forum for
web servers and for mail, which bind public authorities and not a factory. From the latter we keep every finding in
the table with the reason why a factory departs from it; a finding without a reason fails, and so does a reason
without a finding. `docs/pki.md` shows the same table.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import warnings
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pki import Folder

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs" / "pki.md"

NO_FETCHING = "nobody downloads lists or issuers at run time: the delegator loads crl.pem itself, the chain is sent"
NO_POLICY = "policy identifiers are the Forum's; one private authority has one policy"
EXPLAINED: dict[str, str] = {
    # RFC 5280
    "pkix.subject_key_identifier_method_1_identified": "a remark, no fault: the key identifier is the key's SHA-1",
    # CA/Browser Forum, web servers
    "cabf.serverauth.certificate_validity_period_exceeds_200_days":
        "browsers never see these; partners renew by hand once a year",
    "cabf.serverauth.dv.common_name_attribute_present": "older service processors read the common name only",
    "cabf.serverauth.subscriber.revocation_information_absent": NO_FETCHING,
    "msft.end_entity.revocation_information_absent": NO_FETCHING,
    "cabf.serverauth.subscriber.subject_key_identifier_extension_present":
        "RFC 5280 section 4.2.1.2 recommends it; some verifiers build chains by it",
    "cabf.serverauth.subscriber.authority_info_access_extension_absent": NO_FETCHING,
    "cabf.serverauth.subscriber.certificate_policies_extension_absent": NO_POLICY,
    # CA/Browser Forum, root
    "cabf.serverauth.root_validity_period_too_long": "30 years: it must outlive devices in the field for 20",
    "cabf.serverauth.ca.country_attribute_absent": "the name is for people; a manufacturer may have no one country",
    "cabf.serverauth.root_basic_constraints_pathlenconstraint_present":
        "leaves only, directly beneath: a stolen leaf or a careless hand can make no intermediate",
    "cabf.ca_certificate_no_digital_signature_bit": "the authority signs certificates and lists, nothing else",
    "cabf.serverauth.root.authority_key_identifier_extension_absent":
        "RFC 5280 section 4.2.1.1 lets a self-signed certificate leave it out",
    # CA/Browser Forum, mail
    "cabf.smime.certificate_policies_extension_missing": NO_POLICY,
    "cabf.aia_extension_missing": NO_FETCHING,
    "cabf.smime.crldp_extension_missing": NO_FETCHING,
    # CA/Browser Forum, list
    "cabf.crl_invalid_validity_period": "30 days by default, so that a plant shut down over a holiday still starts",
}  # fmt: skip

LEAVES = [
    ("delegator-server", "d.example.com"), ("delegate-server", "delegate.customer.example.com"),
    ("delegate-client", "d.example.com"), ("shared-device", "shared-device"), ("shared-device", "shared-device-b1"),
    ("device", "ABC1234"), ("mail-signer", "provisioning@example.com"),
]  # fmt: skip
PKIX = ("lint_pkix_cert", "lint")
SERVER = ("lint_cabf_serverauth_cert", "lint", "-t", "DV-FINAL-CERTIFICATE")
ROOT = ("lint_cabf_serverauth_cert", "lint", "-t", "ROOT-CA")
MAIL = ("lint_cabf_smime_cert", "lint", "-t", "MAILBOX-MULTIPURPOSE")


def codes(tool: tuple[str, ...], *files: Path) -> set[str]:
    """What a pkilint program finds, from remarks upwards."""
    program = importlib.import_module(f"pkilint.bin.{tool[0]}")  # its command line, without 20 starts of Python
    words = [*tool[1:], "-s", "INFO", "-f", "CSV", *map(str, files)]
    with contextlib.redirect_stdout(io.StringIO()) as out, warnings.catch_warnings(action="ignore"):
        program.main(words)
    assert out.getvalue().startswith("node_path,")
    return {row["code"] for row in csv.DictReader(out.getvalue().splitlines()) if row["code"]}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """All findings, by what was linted."""
    place = tmp_path_factory.mktemp("pkilint")
    folder = Folder.create(place / "pki", common_name="Example Factory CA", organization="Example Manufacturer")
    result = {
        "factory-ca": codes(PKIX, folder.ca_path),
        "factory-ca as a public root": codes(ROOT, folder.ca_path),
        "crl": codes(("lint_crl", "lint", "-t", "CRL", "-p", "PKIX"), folder.crl_path),
        "crl as a public one": codes(("lint_crl", "lint", "-t", "CRL", "-p", "BR"), folder.crl_path),
    }
    for number, (profile, name) in enumerate(LEAVES):
        made = folder.issue(profile, name, key=("ec", "rsa")[number % 2])
        alone = place / f"{number}.pem"  # pkilint reads one certificate a file
        alone.write_bytes(made.certificate.public_bytes(serialization.Encoding.PEM))
        result[f"{profile} {name}"] = codes(PKIX, alone)
        result[f"{profile} {name} and its issuer"] = codes(
            ("lint_pkix_signer_signee_cert_chain", "lint"), folder.ca_path, alone
        )
        if profile.endswith("-server"):
            result[f"{profile} as a public one"] = codes(SERVER, alone)
        if profile == "mail-signer":
            result[f"{profile} as a public one"] = codes(MAIL, alone)
    return result


def test_a2_under_rfc_5280_there_is_one_remark_and_no_fault(found: dict[str, set[str]]) -> None:
    ours = {code for what, those in found.items() if "public" not in what for code in those}
    assert ours == {"pkix.subject_key_identifier_method_1_identified"}


def test_a2_every_finding_is_explained(found: dict[str, set[str]]) -> None:
    unexplained = {what: those - EXPLAINED.keys() for what, those in found.items() if those - EXPLAINED.keys()}
    assert unexplained == {}


def test_a2_no_explanation_outlives_its_finding(found: dict[str, set[str]]) -> None:
    assert EXPLAINED.keys() == {code for those in found.values() for code in those}


def test_a2_every_profile_was_linted(found: dict[str, set[str]]) -> None:
    from pki import PROFILES

    assert set(PROFILES) <= {what.split()[0] for what in found}


def test_a2_the_manual_shows_the_same_table() -> None:
    text = DOCS.read_text()
    for code, reason in EXPLAINED.items():
        assert f"| `{code}` | {reason} |" in text


def test_a2_the_linter_would_notice(tmp_path: Path) -> None:
    """A2: a certificate with a fault does get a finding, so silence means something."""
    from datetime import UTC, datetime, timedelta

    from cryptography.hazmat.primitives import hashes

    from pki import keys

    key, empty = keys.generate(), x509.Name([])
    now = datetime.now(UTC)
    bad = x509.CertificateBuilder(empty, empty, key.public_key(), 1, now, now + timedelta(days=1))
    (tmp_path / "bad.pem").write_bytes(bad.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    assert codes(PKIX, tmp_path / "bad.pem") - EXPLAINED.keys()
