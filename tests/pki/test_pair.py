"""A chain and its key: what is wrong with a pair is told by its own name. I."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from pki import DELEGATOR_SERVER, Folder, PkiError, keys
from pki.authority import Authority
from pki.pair import order_fault, read_pair, time_fault

NAME = "d.example.com"
MINT = "make one"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    made = Folder.create(tmp_path_factory.mktemp("pair") / "pki", common_name="The Factory")
    made.issue(DELEGATOR_SERVER, NAME)
    return made


class Files:
    """A pair in a folder of its own, to be spoiled."""

    def __init__(self, folder: Folder, place: Path) -> None:
        source = folder.certificate_path(DELEGATOR_SERVER, NAME)
        self.chain, self.key, self.folder = place / "c.crt", place / "c.key", folder
        self.text, self.secret = source.read_text(), source.with_suffix(".key").read_text()
        self.ca = folder.ca_path.read_text()
        self.leaf = self.text.removesuffix(self.ca)
        self.other = keys.to_pem(keys.generate()).decode()
        self.write(self.text, self.secret)

    def write(self, chain: str | bytes, key: str | bytes) -> None:
        for path, content in ((self.chain, chain), (self.key, key)):
            path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def files(folder: Folder, tmp_path: Path) -> Files:
    return Files(folder, tmp_path)


def encrypted(form: str) -> Callable[[Files], None]:
    def spoil(files: Files) -> None:
        words = {"PKCS#8": ["pkcs8", "-topk8"], "OpenSSL's old form": ["ec", "-aes128"],
                 "scrypt": ["pkcs8", "-topk8", "-scrypt"]}[form]
        made = subprocess.run(["openssl", *words, "-in", files.key, "-passout", "pass:abc"], check=True,
                              capture_output=True).stdout
        files.write(files.text, made)
    return spoil


def openssh(files: Files) -> None:
    subprocess.run(["ssh-keygen", "-q", "-p", "-f", files.key, "-N", "abcdef"], check=True, capture_output=True)


def piped(files: Files) -> None:
    files.key.unlink()
    os.mkfifo(files.key)


FAULTS: dict[str, tuple[Callable[[Files], None], str]] = {
    "encrypted": (encrypted("PKCS#8"), r"c\.key is encrypted with a pass phrase, and nobody is there to type it"),
    "encrypted, old form": (encrypted("OpenSSL's old form"), r"c\.key is encrypted with a pass phrase"),
    "encrypted, scrypt": (encrypted("scrypt"), r"c\.key is encrypted with a pass phrase"),
    "encrypted, OpenSSH": (openssh, r"c\.key is encrypted with a pass phrase"),
    "a named pipe": (piped, r"c\.key: is not a file but a named pipe"),
    "chain root first": (lambda f: f.write(f.ca + f.leaf, f.secret),
                         r"certificate 2 \(CN=d\.example\.com\) belongs to the key and must stand first; before it "
                         r"stands an authority's \(CN=The Factory\)"),
    "root first, key of neither": (lambda f: f.write(f.ca + f.leaf, f.other),
                                   r"the authority \(CN=The Factory\) stands before the leaf, certificate 2"),
    "leaf missing": (lambda f: f.write(f.ca, f.secret), "the leaf is missing"),
    "another's key": (lambda f: f.write(f.text, f.other), r"c\.key does not belong to the certificate .*c\.crt"),
    "key missing": (lambda f: f.key.unlink(), r"c\.key: no such file"),
    "chain missing": (lambda f: f.chain.unlink(), r"c\.crt: no such file"),
    "files exchanged": (lambda f: f.write(f.secret, f.text),
                        r"c\.crt: block 1 \(line 1\) is a private key, where a certificate belongs"),
    "certificate as key": (lambda f: f.write(f.text, f.text), r"c\.key: .*it holds a certificate instead"),
    "public key as key": (lambda f: f.write(f.text, public(f.secret)), r"c\.key: .*it holds a public key instead"),
    "request as certificate": (lambda f: f.write(request(f), f.secret), "is a certificate request, where"),
    "DER certificate": (lambda f: f.write(der(f.leaf), f.secret), r"it is a certificate in DER \(binary\)"),
    "DER key": (lambda f: f.write(f.text, key_der(f.secret)), r"it is binary, where a private key in PEM is wanted"),
    "key cut off": (lambda f: f.write(f.text, f.secret[:-20]), r"c\.key: .*block 1 \(line 1\) is cut off"),
    "chain cut off": (lambda f: f.write(f.text[:-40], f.secret), r"c\.crt: block 2 \(line \d+\) is cut off"),
    "two keys": (lambda f: f.write(f.text, f.secret + f.other), "it holds 2 private keys"),
    "leaf twice": (lambda f: f.write(f.leaf + f.text, f.secret), "is block 1 .line 1. once more"),
    "a stranger behind": (lambda f: f.write(f.leaf + stranger(), f.secret),
                          r"certificate 2 \(CN=Stranger\) is not who signed certificate 1 \(CN=d\.example\.com\)"),
    "empty key": (lambda f: f.write(f.text, ""), r"c\.key: .*it is empty"),
}


def public(secret: str) -> bytes:
    return subprocess.run(["openssl", "pkey", "-pubout"], input=secret.encode(), capture_output=True, check=True).stdout


def request(files: Files) -> bytes:
    return subprocess.run(["openssl", "req", "-new", "-key", files.key, "-subj", "/CN=x"], capture_output=True,
                          check=True).stdout


def der(text: str) -> bytes:
    return subprocess.run(["openssl", "x509", "-outform", "DER"], input=text.encode(), capture_output=True,
                          check=True).stdout


def key_der(secret: str) -> bytes:
    return subprocess.run(["openssl", "pkey", "-outform", "DER"], input=secret.encode(), capture_output=True,
                          check=True).stdout


def stranger() -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return Authority.found("Stranger", None, keys.generate()).certificate.public_bytes(Encoding.PEM).decode()


@pytest.mark.counterpart("openssl", "ssh-keygen")
@pytest.mark.parametrize("name", FAULTS)
def test_i_each_fault_of_a_pair_names_its_own_cause_and_file(name: str, files: Files) -> None:
    spoil, words = FAULTS[name]
    if name == "encrypted, OpenSSH":
        files.key.chmod(0o600)
    spoil(files)
    with pytest.raises(PkiError, match=words) as caught:
        read_pair(files.chain, files.key, MINT)
    assert caught.value.hint


def test_a_pair_in_order_is_given_with_the_leaf_first(files: Files) -> None:
    pair = read_pair(files.chain, files.key, MINT)
    assert [one.subject.rfc4514_string() for one in pair.chain] == ["CN=d.example.com", "CN=The Factory"]
    assert pair.key_pem.decode() == files.secret


@pytest.mark.parametrize("key", ["EC PARAMETERS", "certificates beside it"])
def test_what_tools_put_into_a_keys_file_is_passed_over(files: Files, key: str) -> None:
    beside = files.text if key.startswith("cert") else "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n" \
                                                       "-----END EC PARAMETERS-----\n"
    files.write(files.text, beside + files.secret)
    assert read_pair(files.chain, files.key, MINT).key_pem.decode() == files.secret


def test_one_file_may_hold_both_where_the_settings_say_so(files: Files) -> None:
    files.write(files.text + files.secret, "")
    assert len(read_pair(files.chain, files.chain, MINT).chain) == 2


def test_a_self_signed_server_alone_is_in_order() -> None:
    key = keys.generate()
    assert order_fault([Authority.found("self.example", None, key).certificate], key) is None


def test_i_not_yet_and_no_longer_are_told_apart(folder: Folder, files: Files) -> None:
    leaf = read_pair(files.chain, files.key, MINT).leaf
    begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    assert "is not valid before" in str(time_fault(leaf, begin - timedelta(seconds=1)))
    assert "clock" in str(time_fault(leaf, begin - timedelta(seconds=1)))
    assert time_fault(leaf, begin) is time_fault(leaf, end) is None
    assert f"ended at {end:%Y-%m-%d}" in str(time_fault(leaf, end + timedelta(seconds=1)))
