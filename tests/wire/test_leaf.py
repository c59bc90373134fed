"""The short way to judge a device's certificate, against the long one; and what is odd about others. T-A4, T-A5."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from delegator.wire import leaf
from delegator.wire.certificate import read_leaf
from pki import Folder, Issued, keys
from pki.trust import Refusal, leaf_fault

from ..forgery import SERVER, Key, Signer, forged


def der_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def judged(der: bytes) -> Refusal | None:
    found = leaf.fault(der, read_leaf(der)[1])
    return found and found[0]


def careful(*_: object) -> None:
    raise AssertionError("the long way was taken")


KEYS: dict[str, Callable[[], keys.PrivateKey]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA-2048": lambda: rsa.generate_private_key(65537, 2048),
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("profile", ["device", "shared-device"])
def test_TA4_what_the_factory_issues_takes_the_short_way(factory: Folder, kind: str, profile: str,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """No microsecond of a handshake is spent on reading what is known."""
    authority = factory.authority()
    name = "LEAF0001" if profile == "device" else "shared-device"
    from pki import PROFILES
    made = authority.issue(authority.prepare(PROFILES[profile], name, KEYS[kind]().public_key()))
    monkeypatch.setattr(leaf, "leaf_fault", careful)
    assert judged(der_of(made)) is None


ODD: dict[str, tuple[Callable[[], Key] | None, dict[str, object], Refusal | None]] = {
    "another order of extensions": (None, {}, None),
    "RSA-3072": (lambda: rsa.generate_private_key(65537, 3072), {}, None),
    "RSA-2048, exponent 3": (lambda: rsa.generate_private_key(3, 2048), {}, Refusal.WEAK_KEY),
    "RSA-1024": (lambda: rsa.generate_private_key(65537, 1024), {}, Refusal.WEAK_KEY),
    "P-521": (lambda: ec.generate_private_key(ec.SECP521R1()), {}, Refusal.WEAK_KEY),
    "an authority": (None, {"authority": True}, Refusal.WRONG_PURPOSE),
    "a server": (None, {"purposes": [SERVER]}, Refusal.WRONG_PURPOSE),
    "no purpose": (None, {"purposes": None}, Refusal.WRONG_PURPOSE),
    "no usage": (None, {"usage": None}, Refusal.WRONG_PURPOSE),
    "another usage": (None, {"usage": ["key_encipherment"]}, Refusal.WRONG_PURPOSE),
}


@pytest.mark.parametrize("what", ODD)
def test_TA4_any_other_is_read_in_full(factory: Folder, what: str) -> None:
    key, odd, refusal = ODD[what]
    made = forged(Signer.of(factory), "LEAF0002", key=key and key(), **odd)  # type: ignore[arg-type]
    assert judged(der_of(made.certificate)) is refusal


@given(at=st.integers(0, 600), put=st.integers(0, 255))
def test_TA4_what_the_short_way_takes_the_long_way_takes(device: Callable[[str], Issued], at: int, put: int) -> None:
    """One byte anywhere behind the names is another, and never does the expression say yes where a reader says no."""
    whole = bytearray(der_of(device("LEAF0003").certificate))
    key_at = read_leaf(bytes(whole))[1]
    at = key_at + at % (len(whole) - key_at)
    whole[at] = put
    changed = bytes(whole)
    if leaf._USUAL.match(changed, key_at) is None:
        return
    try:
        certificate = x509.load_der_x509_certificate(changed)
        certificate.public_key()
    except ValueError:
        return  # no point of the curve, or no signature: OpenSSL never calls such a leaf verified
    assert leaf_fault(certificate, "client") is None
