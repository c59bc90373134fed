"""What is taken from a PKCS#10 request: its key to the byte, or a refusal that names its own cause. D, I."""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from delegator.errors import DelegatorError
from delegator.provisioning.certifying import Enroller
from pki import DEVICE, Folder, PkiError, keys
from pki.authority import Authority
from pki.request import Requested, own, requested, spki_of

pytestmark = pytest.mark.counterpart("openssl")
NEW = "openssl genpkey -quiet -out key "
ECDSA = NEW + "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"
ASK = "openssl req -new -key key -subj /CN=x -out csr "
CASES: dict[str, tuple[str, str, str]] = {
    "RSA-PSS": (NEW + "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048", ASK, "for RSA-PSS alone"),
    "Ed25519": (NEW + "-algorithm ed25519", ASK, "an Ed25519 key"),
    "Ed448": (NEW + "-algorithm ed448", ASK, "an Ed448 key"),
    "explicit parameters": (ECDSA + " -pkeyopt ec_param_enc:explicit", ASK, "written in another form"),
    "compressed": (ECDSA + " && openssl ec -in key -conv_form compressed -out key2 && mv key2 key", ASK,
                   "written in another form"),
    "P-521": (NEW + "-algorithm EC -pkeyopt ec_paramgen_curve:P-521", ASK, "secp521r1 is not P-256 or P-384"),
    "exponent 3": (NEW + "-algorithm RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:3", ASK, "exponent"),
    "RSA-1024": (NEW + "-algorithm RSA -pkeyopt rsa_keygen_bits:1024", ASK, "1024 bits"),
    "SHA-1": (ECDSA, ASK + "-sha1", "signed with SHA-1, which proves nothing"),
    "MD5": (NEW + "-algorithm RSA -pkeyopt rsa_keygen_bits:2048", ASK + "-md5",
            "signed with MD5, which proves nothing"),
    "another's key": (ECDSA, ASK + "-outform DER && " + r"printf '\377' | dd of=csr bs=1 conv=notrunc status=none "
                      r"seek=$(($(wc -c < csr) - 1))", "not signed by its own key|cannot be used"),
    "cut off": (ECDSA, ASK + "&& head -c 250 csr > c && mv c csr", r"block 1 \(line 1\) is cut off"),
    "DER cut off": (ECDSA, ASK + "-outform DER && head -c 100 csr > c && mv c csr", "its DER is damaged or cut off"),
    "a certificate": (ECDSA, "openssl req -x509 -key key -subj /CN=x -out csr",
                      r"block 1 \(line 1\) is a certificate, where a certificate request belongs"),
    "a certificate in DER": (ECDSA, "openssl req -x509 -key key -subj /CN=x -outform DER -out csr",
                             r"it is a certificate in DER"),
    "the private key": (ECDSA, "cp key csr", "is a private key, where a certificate request belongs"),
    "a public key": (ECDSA, "openssl pkey -in key -pubout -out csr", "is a public key, where"),
    "nothing": (ECDSA, ": > csr", "it is empty"),
    "two": (ECDSA, ASK + "&& openssl req -new -key key -subj /CN=y >> csr", "holds 2 certificate requests"),
}


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], bytes]:
    def make(name: str) -> bytes:
        key, request, _ = CASES[name]
        subprocess.run(f"{key} && {request}", shell=True, cwd=tmp_path, check=True, capture_output=True)
        return (tmp_path / "csr").read_bytes()
    return make


@pytest.mark.parametrize("name", CASES)
def test_d_i_every_way_in_refuses_it_with_its_own_cause(
    name: str, made: Callable[[str], bytes], run: Callable[..., Any], tmp_path: Path
) -> None:
    """`pki device`, `pki server`, `pki delegate` (a partner's), and a device over SOAP: one place judges all."""
    content, words = made(name), CASES[name][2]
    with pytest.raises(PkiError, match=words):
        requested(content)
    run("init")
    folder = Folder.open(tmp_path / "pki")
    for arguments in (("device", "ABC1234"), ("server", "d.example.com"), ("delegate", "d.example.com"),
                      ("delegate", "--client", "d.example.com")):
        done = run(*arguments, "--csr", str(tmp_path / "csr"))
        assert done.code == 5, done
        assert re.search(words, done.err), done.err
    assert list(folder.path.rglob("d.example.com.crt")) == list(folder.directory(DEVICE).glob("*.crt")) == []
    enroller = Enroller(None, folder.authority(), 30, None)  # type: ignore[arg-type]
    if not content:
        assert enroller.wanted(content) is None, "an element that is there and empty asks for nothing"
        return
    with pytest.raises(DelegatorError, match=words):
        enroller.wanted(content)


KINDS = {"P-256": ec.generate_private_key(ec.SECP256R1()), "P-384": ec.generate_private_key(ec.SECP384R1()),
         "RSA-2048": rsa.generate_private_key(65537, 2048), "RSA-3072": rsa.generate_private_key(65537, 3072)}
HASHES = (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("digest", HASHES, ids=lambda one: one.name)
def test_d_what_is_certified_has_the_very_bytes_of_the_request(kind: str, digest: hashes.HashAlgorithm) -> None:
    key = KINDS[kind]
    request = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, digest)
    asked = requested(request.public_bytes(serialization.Encoding.DER))
    authority = Authority.found("Factory", None, keys.generate())
    certificate = authority.issue(authority.prepare(DEVICE, "ABC1234", asked))
    assert spki_of(certificate) == asked.spki
    assert asked.spki in request.public_bytes(serialization.Encoding.DER)
    assert asked == own(key.public_key())


def test_d_a_request_signed_with_rsa_pss_by_a_plain_rsa_key_is_certified() -> None:
    """The signature proves possession; how it was padded is no property of the key."""
    key = KINDS["RSA-2048"]
    assert isinstance(key, rsa.RSAPrivateKey)
    request = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(
        key, hashes.SHA256(), rsa_padding=padding.PSS(padding.MGF1(hashes.SHA256()), 32))
    assert requested(request.public_bytes(serialization.Encoding.PEM)).key == key.public_key()


def test_d_nothing_is_signed_whose_key_is_not_the_requests_to_the_byte() -> None:
    """The last look before the real key signs, whoever read the request."""
    key = KINDS["RSA-2048"].public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    plain = own(key).spki
    pss = bytes.fromhex("06092a864886f70d01010a")
    forged = Requested(key, plain.replace(bytes.fromhex("06092a864886f70d010101"), pss))
    authority = Authority.found("Factory", None, keys.generate())
    with pytest.raises(PkiError, match="otherwise than in the request"):
        authority.prepare(DEVICE, "ABC1234", forged)


@pytest.mark.parametrize("form", ["PEM", "old label", "DER"])
def test_a_request_is_taken_in_each_form_that_tools_write(form: str) -> None:
    request = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(KINDS["P-256"], hashes.SHA256())
    der = request.public_bytes(serialization.Encoding.DER)
    text = base64.encodebytes(der)
    content = {"DER": der, "PEM": request.public_bytes(serialization.Encoding.PEM),
               "old label": b"-----BEGIN NEW CERTIFICATE REQUEST-----\n" + text +
                            b"-----END NEW CERTIFICATE REQUEST-----\n"}[form]
    assert requested(content).key == KINDS["P-256"].public_key()
