"""Shared becomes unique: a device that asks with the shared certificate and a key of its own gets a certificate for
that key, and from then on the shared one is refused for its tag (6.2)."""

from __future__ import annotations

import base64
import hashlib
import logging
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from delegator.model import IdentityRule
from pki import Authority
from pki.keys import PrivateKey

from .lab import OTHER_SECRET, PEER, SECRET, SHARED, START, Lab

TAG = "ABC1234"


def request_of(key: PrivateKey, name: str = "whatever") -> str:
    """What a device sends beside its question, with any name in it."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return base64.b64encode(made.public_bytes(Encoding.DER)).decode()


def spki_sha256(key: CertificatePublicKeyTypes) -> str:
    """How a key is told from any other: the hash of its SubjectPublicKeyInfo."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


KEY, OTHER_KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
REQUEST, OTHER_REQUEST = request_of(KEY), request_of(OTHER_KEY)
FINGERPRINT = spki_sha256(KEY.public_key())


@pytest.fixture
async def enrolling(lab: Lab, authority: Authority) -> Lab:
    """Acme lets the shared certificate in, and the delegator signs for 30 days."""
    lab.serve(authority=authority, days=30)
    await lab.policy("acme", replace=True, identity=IdentityRule.EITHER)
    await lab.own(TAG)
    return lab


def read(pem: str | None) -> x509.Certificate:
    assert pem is not None
    return x509.load_pem_x509_certificate(pem.encode())


async def test_R_enrolled_a_device_gets_a_certificate_for_its_key_and_its_tag(
        enrolling: Lab, authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "delegator.provisioning.certifying"):
        reply = await enrolling.ask(TAG, shown=SHARED, request=request_of(KEY, "XYZ9999"))
    made = read(reply.text("HandshakeCertificate"))
    assert made.subject.rfc4514_string() == f"CN={TAG}", "and nothing that the request says"
    assert spki_sha256(made.public_key()) == FINGERPRINT
    made.verify_directly_issued_by(authority.certificate)
    assert START - timedelta(days=1) <= made.not_valid_before_utc <= START
    assert timedelta(days=29) < made.not_valid_after_utc - START <= timedelta(days=30)
    (kept,) = await enrolling.store.enrolments.of_tag(TAG)
    assert (kept.service_tag, kept.key_fingerprint, kept.claim_id, kept.certificate, kept.issued_at) == (
        TAG, FINGERPRINT, reply.claim, reply.text("HandshakeCertificate"), START)
    assert kept.not_after == made.not_valid_after_utc
    assert int(kept.serial, 16) == made.serial_number
    assert kept.binding == (await enrolling.claim(TAG)).binding
    assert await enrolling.acts(TAG) == ["claim.asked", "claim.issued", "enrolment.issued"]
    (row,) = await enrolling.audit(act="enrolment.issued")
    assert (row.customer, row.delegate, row.peer, row.detail["key"]) == ("acme", "acme-1", PEER, FINGERPRINT)
    assert f"enrolled {TAG}: certificate {kept.serial} until {kept.not_after:%Y-%m-%d}, claim {reply.claim}" in (
        caplog.text)


async def test_R_enrolled_a_device_that_asks_again_gets_the_same_certificate(enrolling: Lab) -> None:
    first = await enrolling.ask(TAG, shown=SHARED, request=REQUEST)
    for request in (REQUEST, request_of(KEY), None):
        again = await enrolling.ask(TAG, shown=SHARED, request=request)
        assert again.text("HandshakeCertificate") == first.text("HandshakeCertificate")
    assert len(await enrolling.store.enrolments.of_tag(TAG)) == 1


async def test_R_enrolled_who_asks_for_none_gets_none(enrolling: Lab) -> None:
    reply = await enrolling.ask(TAG, shown=SHARED)
    assert (reply.status, reply.text("HandshakeCertificate")) == (200, None)
    later = await enrolling.ask(TAG, shown=SHARED, request=REQUEST)
    assert read(later.text("HandshakeCertificate"))


async def test_R_enrolled_a_device_with_its_own_certificate_needs_none(enrolling: Lab) -> None:
    reply = await enrolling.ask(TAG, request=REQUEST)
    assert (reply.status, reply.text("HandshakeCertificate")) == (200, None)


async def test_R_enrolled_where_enrolment_is_off_a_request_is_left_alone(enrolling: Lab) -> None:
    enrolling.serve(authority=None)
    reply = await enrolling.ask(TAG, shown=SHARED, request=base64.b64encode(b"nonsense").decode())
    assert (reply.status, reply.text("HandshakeCertificate")) == (200, None)


async def test_R_enrolled_where_only_the_shared_certificate_is_let_in_another_would_be_of_no_use(
        enrolling: Lab) -> None:
    await enrolling.policy("acme", replace=True, identity=IdentityRule.SHARED)
    reply = await enrolling.ask(TAG, shown=SHARED, request=REQUEST)
    assert (reply.status, reply.text("HandshakeCertificate")) == (200, None)
    assert not await enrolling.store.enrolments.of_tag(TAG)


UNUSABLE = {
    "no request": (base64.b64encode(b"nonsense").decode(), "CertificateRequest: not a readable PKCS#10 certificate "
                                                           "request"),
    "a weak key": (request_of(rsa.generate_private_key(65537, 1024)), "CertificateRequest: "),
}


@pytest.mark.parametrize("what", UNUSABLE)
async def test_R_enrolled_a_request_that_proves_nothing_is_refused_before_anything_is_looked_up(
        enrolling: Lab, what: str) -> None:
    request, why = UNUSABLE[what]
    reply = await enrolling.ask(TAG, shown=SHARED, request=request)
    assert (reply.fault, reply.level) == ("MalformedRequest", logging.WARNING)
    assert reply.trail.reasons[0].startswith(why)
    assert "routed" not in reply.steps
    assert not await enrolling.claims(TAG)


async def test_R_enrolled_its_own_certificate_takes_the_claim_over_and_the_shared_one_is_refused(
        enrolling: Lab) -> None:
    first = await enrolling.ask(TAG, shown=SHARED, request=REQUEST)
    own = await enrolling.ask(TAG, key=FINGERPRINT)
    assert (own.claim, own.credential) == (first.claim, first.credential)
    assert (await enrolling.claim(TAG)).binding == f"key:{FINGERPRINT}"
    reply = await enrolling.ask(TAG, shown=SHARED, request=REQUEST)
    assert reply.fault == "NotEntitled"
    await enrolling.store.ownership.release(TAG, enrolling.clock.now())
    (kept,) = await enrolling.store.enrolments.of_tag(TAG)
    reply = await enrolling.ask(TAG, shown=SHARED, request=REQUEST)
    assert reply.trail.reasons == (
        f"{TAG} has a certificate of its own, serial {kept.serial}: the shared one is refused",)


async def test_R_enrolled_another_key_is_a_second_claimant_even_with_the_same_secret(enrolling: Lab) -> None:
    first = await enrolling.ask(TAG, shown=SHARED, request=REQUEST)
    reply = await enrolling.ask(TAG, shown=SHARED, request=OTHER_REQUEST, peer="203.0.113.9")
    assert reply.fault == "NotEntitled"
    assert enrolling.counted("delegator_second_claimants_total", identity="shared") == 1
    await enrolling.alarmed()
    (contest,) = await enrolling.store.contests.list()
    assert (contest.claim_id, contest.customer, contest.delegate, contest.peer) == (
        first.claim, "acme", "acme-1", "203.0.113.9")


async def test_R_enrolled_another_secret_gets_no_certificate(enrolling: Lab) -> None:
    await enrolling.ask(TAG, shown=SHARED, request=REQUEST)
    reply = await enrolling.ask(TAG, OTHER_SECRET, shown=SHARED, request=OTHER_REQUEST)
    assert reply.fault == "NotEntitled"
    assert len(await enrolling.store.enrolments.of_tag(TAG)) == 1


async def test_R_enrolled_of_two_keys_at_once_one_is_enrolled_and_the_other_gets_nothing(enrolling: Lab) -> None:
    await enrolling.ask(TAG, shown=SHARED)
    footing = enrolling.store.footing

    async def then_another_key(ask: Any) -> Any:
        found = await footing(ask)
        enrolling.store.footing = footing  # type: ignore[method-assign]
        await enrolling.ask(TAG, shown=SHARED, request=OTHER_REQUEST)
        return found
    enrolling.store.footing = then_another_key  # type: ignore[method-assign]
    reply = await enrolling.ask(TAG, shown=SHARED, request=REQUEST)
    (kept,) = await enrolling.store.enrolments.of_tag(TAG)
    assert kept.key_fingerprint == spki_sha256(OTHER_KEY.public_key())
    assert (reply.fault, reply.trail.reasons) == ("NotEntitled", (f"{TAG} is enrolled already, serial {kept.serial}",))
    assert reply.texts("HandshakeCertificate") == []


async def test_R_enrolled_once_it_confirmed_the_certificate_is_known_to_have_arrived(enrolling: Lab) -> None:
    first = await enrolling.ask(TAG, shown=SHARED, request=REQUEST)
    assert not (await enrolling.store.enrolments.of_tag(TAG))[0].used
    assert (await enrolling.confirm(TAG, first.claim, shown=SHARED, secret=SECRET)).status == 200
    (kept,) = await enrolling.store.enrolments.of_tag(TAG)
    assert kept.used
    assert kept.used_at == START


async def test_R_enrolled_a_failure_says_nothing_of_the_certificate(enrolling: Lab) -> None:
    first = await enrolling.ask(TAG, shown=SHARED, request=REQUEST)
    await enrolling.confirm(TAG, first.claim, "Failed", shown=SHARED, secret=SECRET)
    assert not (await enrolling.store.enrolments.of_tag(TAG))[0].used


async def test_R_enrolled_its_new_certificate_may_confirm_what_the_shared_one_asked_for(enrolling: Lab) -> None:
    first = await enrolling.ask(TAG, shown=SHARED, request=REQUEST)
    assert (await enrolling.confirm(TAG, first.claim, key=FINGERPRINT)).status == 200
    assert (await enrolling.claim(TAG)).binding == f"key:{FINGERPRINT}"


async def test_R_enrolled_a_new_claim_of_the_same_device_keeps_its_certificate(enrolling: Lab) -> None:
    """The first answer was lost with its lease: the second claim comes with the certificate on record."""
    first = await enrolling.ask(TAG, shown=SHARED, request=REQUEST)
    enrolling.clock.forward(hours=24)
    second = await enrolling.ask(TAG, shown=SHARED, request=REQUEST)
    assert second.claim != first.claim
    assert second.text("HandshakeCertificate") == first.text("HandshakeCertificate")
    (kept,) = await enrolling.store.enrolments.of_tag(TAG)
    assert kept.claim_id == second.claim
    enrolling.clock.forward(hours=24)
    third = await enrolling.ask(TAG, shown=SHARED)
    assert (third.status, third.text("HandshakeCertificate")) == (200, None), "it asked for none with this claim"


async def test_R_enrolled_a_signing_authority_that_is_over_is_our_own_fault(
        enrolling: Lab, authority: Authority) -> None:
    enrolling.clock.at = authority.certificate.not_valid_after_utc + timedelta(days=1)
    reply = await enrolling.ask(TAG, shown=SHARED, request=REQUEST)
    assert (reply.fault, reply.level) == ("Unavailable", logging.ERROR)
    assert reply.trail.reasons[0].startswith("enrolment: ")
    assert b"Certificate" not in reply.response.body
