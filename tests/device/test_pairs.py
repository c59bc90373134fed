"""A device's files that cannot be used are called what they are: a maker's operator reads nothing of OpenSSL's. I."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from delegator.device import tls
from delegator.device.reasons import Misconfigured
from pki import Folder

PKCS8 = PrivateFormat.PKCS8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folder = Folder.create(tmp_path_factory.mktemp("pairs") / "pki", common_name="Example")
    for tag in ("ABC1234", "ABC1235"):
        folder.issue("device", tag)
    return folder


def _der_certificate(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def _der_key(pem: bytes) -> bytes:
    return load_pem_private_key(pem, None).private_bytes(Encoding.DER, PKCS8, NoEncryption())


def _locked(pem: bytes) -> bytes:
    return load_pem_private_key(pem, None).private_bytes(Encoding.PEM, PKCS8, BestAvailableEncryption(b"geheim"))


def _rsa(pem: bytes) -> bytes:
    return rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PKCS8, NoEncryption())


def _half(pem: bytes) -> bytes:
    return pem[:len(pem) // 2]


@pytest.mark.parametrize(("which", "changed", "words"), [
    ("ca", _der_certificate, "it holds no certificate in PEM"), ("ca", _half, "is cut off: 1 begin there"),
    ("ca", lambda _: b"", "it holds no certificate in PEM"),
    ("certificate", _der_certificate, "holds no certificate in PEM but binary, as DER and PKCS#12 are"),
    ("certificate", _half, "a certificate in {} is cut off"),
    ("certificate", lambda _: b"x", "{} holds no certificate in PEM"),
    ("key", _der_key, "{} holds no private key in PEM but binary"), ("key", _half, "one of them is damaged"),
    ("key", _locked, "the key is encrypted"), ("key", _rsa, "the key is not that of the certificate"),
    ("key", "certificate", "{} holds no private key in PEM"), ("certificate", "key", "{} holds no certificate in PEM"),
    ("key", "other", "the key is not that of the certificate")])
def test_what_cannot_be_used_is_called_what_it_is(
        tmp_path: Path, folder: Folder, which: str, changed: Callable[[bytes], bytes] | str, words: str) -> None:
    devices = folder.path / "devices"
    files = {"ca": folder.ca_path, "certificate": devices / "ABC1234.crt", "key": devices / "ABC1234.key",
             "other": devices / "ABC1235.key"}
    path = tmp_path / "given"
    path.write_bytes(files[changed].read_bytes() if isinstance(changed, str) else changed(files[which].read_bytes()))
    given = {name: str(files[name]) for name in ("certificate", "key", "ca")}
    tls.delegator_context(**given)
    with pytest.raises(Misconfigured) as caught:
        tls.delegator_context(**given | {which: str(path)})
    assert words.format(path) in str(caught.value)
    assert "_ssl.c" not in str(caught.value)
