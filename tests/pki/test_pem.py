"""The one reader of PEM: what was read is all that stood there, or it is refused with the place. C."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import example, given
from hypothesis import strategies as st

from pki import Folder, PkiError, keys, pem
from pki.authority import Authority
from pki.revocation import build_list, read_lists
from pki.trust import TrustStore

ROOT = Path(__file__).parents[2]
ONE, TWO, THREE = (Authority.found(f"Factory {n}", None, keys.generate()) for n in (1, 2, 3))


def text(*authorities: Authority) -> bytes:
    return b"".join(one.certificate.public_bytes(Encoding.PEM) for one in authorities)


def lines(content: bytes) -> list[bytes]:
    return content.splitlines(keepends=True)


BOTH = text(ONE, TWO)
FIRST = len(lines(text(ONE)))
KEY = keys.to_pem(keys.generate())


def test_all_that_stands_there_is_read_in_order() -> None:
    assert pem.read(text(ONE, TWO, THREE), pem.CERTIFICATE) == (ONE.certificate, TWO.certificate, THREE.certificate)


@given(st.integers(min_value=2, max_value=len(BOTH) - 1))
def test_c_a_file_that_lost_its_end_is_never_read_as_a_shorter_one(cut: int) -> None:
    """Every cut but those between the blocks, where a whole file is left that nobody can tell from a shorter one."""
    left = BOTH[:-cut]
    if left.strip() == text(ONE).strip() or not left.strip():
        return
    with pytest.raises(pem.PemFault):
        pem.read(left, pem.CERTIFICATE)


@given(st.integers(min_value=2, max_value=len(BOTH) - 1))
def test_c_nor_is_one_that_lost_its_beginning(cut: int) -> None:
    left = BOTH[cut:]
    if left in (text(TWO), b"\n" + text(TWO)):
        return  # whole
    if left.strip(b"-\n") == b"":
        return
    with pytest.raises(pem.PemFault):
        pem.read(left, pem.CERTIFICATE)


@given(st.integers(min_value=0, max_value=len(lines(BOTH)) - 1))
def test_c_nor_is_one_that_lost_a_line(gone: int) -> None:
    kept = lines(BOTH)
    del kept[gone]
    with pytest.raises(pem.PemFault, match=r"block \d|line \d"):
        pem.read(b"".join(kept), pem.CERTIFICATE)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(st.integers(min_value=0, max_value=len(BOTH) - 1), st.binary(min_size=1, max_size=3))
@example(48, b"+")  # a serial number below zero, which is read with a warning
def test_c_whatever_byte_is_written_over_all_are_read_or_none(at: int, other: bytes) -> None:
    """Either the text is refused, or it holds as many certificates as begin in it."""
    changed = BOTH[:at] + other + BOTH[at + len(other):]
    try:
        found = pem.read(changed, pem.CERTIFICATE)
    except pem.PemFault:
        return
    assert len(found) == 2


FAULTS: dict[str, tuple[bytes, str]] = {
    "cut off": (BOTH[:-200], r"block 2 \(line \d+\) is cut off: its END line is missing"),
    "cut within the END line": (BOTH[:-8], r"block 2 \(line \d+\) is cut off"),
    "one END lost": (b"".join(lines(BOTH)[:FIRST - 1] + lines(BOTH)[FIRST:]), r"block 1 \(line 1\) is cut off"),
    "one BEGIN lost": (b"".join(lines(BOTH)[1:]), r"line 1 belongs to a block whose BEGIN line is missing"),
    "two of one": (text(ONE, TWO, ONE), r"block 3 \(line \d+\) is block 1 \(line 1\) once more"),
    "a key among them": (text(ONE) + KEY, r"block 2 \(line \d+\) is a private key, where a certificate belongs"),
    "a list among them": (text(ONE) + build_list(ONE, ()).public_bytes(Encoding.PEM), "is a revocation list, where"),
    "another END": (text(ONE).replace(b"END CERTIFICATE", b"END X509 CRL"), "begins as 'CERTIFICATE' and ends"),
    "a foreign letter": (text(ONE)[:100] + b"!" + text(ONE)[101:], r"block 1 \(line 1\) is damaged.*not base64"),
    "damaged within": (text(ONE)[:40] + b"QQQQ" + text(ONE)[44:], r"block 1 \(line 1\) is no readable certificate"),
    "misspelt": (text(ONE).replace(b"-----BEGIN", b"----BEGIN"), "is a piece of the line that begins or ends a block"),
    "a piece of the next": (text(ONE) + b"-----BE", "is a piece of the line"),
    "a dash of the next": (text(ONE) + b"--", "is a piece of the line"),
    "empty": (b"", "it is empty"),
    "words": (b"hello\n", "holds no certificate in PEM"),
    "DER": (ONE.certificate.public_bytes(Encoding.DER), r"it is a certificate in DER \(binary\)"),
    "UTF-16": (text(ONE).decode().encode("utf-16"), "UTF-16"),
    "an empty block": (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "is empty"),
    "trailing data": (re.sub(rb"[^\n]+\n(-----END)", rb"AAAA\n\1", text(ONE)), "no readable certificate"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_c_each_fault_names_its_cause_and_its_place(name: str) -> None:
    content, words = FAULTS[name]
    with pytest.raises(pem.PemFault, match=words):
        pem.read(content, pem.CERTIFICATE)


HARMLESS = {
    "words between, as in the system's file": b"# Factory one\n" + text(ONE) + b"\n# two\n" + text(TWO),
    "what openssl s_client prints": b"---\nCertificate chain\n 0 s:CN = x\n" + text(ONE) + b" 1 s:CN = y\n" + text(TWO)
                                    + b"---\n",
    "Windows' ends of lines": BOTH.replace(b"\n", b"\r\n"),
    "old ends of lines": BOTH.replace(b"\n", b"\r"),
    "a byte-order mark": b"\xef\xbb\xbf" + BOTH,
    "no end of the last line": BOTH.rstrip(),
    "indented": BOTH.replace(b"\n", b"\n   "),
    "a fingerprint": b"ab" * 32 + b"\n" + BOTH,
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_costs_nothing_is_taken(name: str) -> None:
    assert pem.read(HARMLESS[name], pem.CERTIFICATE) == (ONE.certificate, TWO.certificate)


def test_what_can_only_add_is_taken_piece_by_piece() -> None:
    lists = [build_list(one, (), previous_number=n) for n, one in enumerate((ONE, TWO))]
    content = b"".join(one.public_bytes(Encoding.PEM) for one in lists)
    assert pem.whole(content[:-60], pem.REVOCATION_LIST) == (lists[0],)
    damaged = b"-----BEGIN X509 CRL-----\n!!\n-----END X509 CRL-----\n"
    assert pem.whole(damaged + content, pem.REVOCATION_LIST) == tuple(lists)


def of_trust(path: Path) -> object:
    return TrustStore.load(path)


def of_issuers(path: Path) -> object:
    whole = path.with_name("whole.pem")
    whole.write_bytes(BOTH)
    return TrustStore.load(whole, None, path)


def of_domains(path: Path) -> object:
    from delegator.net.reverse import _anchor
    return _anchor(str(path))


def of_options(path: Path) -> object:
    """--callback-ca, --trust-anchor, --webhook-anchor."""
    from delegator.cli import files
    return files.certificates(path)


def of_relay(path: Path) -> object:
    from delegator.net.mail import relay_anchors
    return relay_anchors(str(path))


def of_webhook(path: Path) -> object:
    from datetime import UTC, datetime

    from delegator.net.webhook import _context
    return _context(path.read_text(), lambda: datetime.now(UTC))


def of_chain(path: Path) -> object:
    from pki.pair import read_chain
    return read_chain(path, path.with_name("key"), "")


def of_show(path: Path) -> object:
    from pki.show import describe
    return describe(path)


def of_device(path: Path) -> object:
    from delegator.device.tls import delegate_context
    return delegate_context(path.read_text())


READERS: tuple[Callable[[Path], object], ...] = (
    of_trust, of_issuers, of_domains, of_options, of_relay, of_webhook, of_chain, of_show, of_device)


@pytest.mark.parametrize("reader", READERS)
def test_c_every_reader_of_several_certificates_refuses_half_a_file(
    reader: Callable[[Path], object], tmp_path: Path
) -> None:
    from delegator.device.reasons import Failure
    from delegator.errors import DelegatorError

    path = tmp_path / "anchors.pem"
    path.write_bytes(BOTH)
    reader(path)
    path.write_bytes(BOTH[:-200])
    with pytest.raises((PkiError, DelegatorError, Failure)) as caught:
        reader(path)
    assert "cut off" in str(caught.value)


def test_c_every_list_of_a_file_is_read_or_none(tmp_path: Path) -> None:
    content = b"".join(build_list(one, ()).public_bytes(Encoding.PEM) for one in (ONE, TWO))
    path = tmp_path / "lists.pem"
    path.write_bytes(content)
    assert len(read_lists(path)) == 2
    path.write_bytes(content[:-100])
    with pytest.raises(PkiError, match=r"lists\.pem: block 2 \(line \d+\) is cut off"):
        read_lists(path)


LENIENT = {"load_pem_x509_certificates", "load_pem_x509_certificate", "load_pem_x509_crl", "load_pem_x509_csr"}


def test_c_nobody_else_reads_certificates_from_pem() -> None:
    """The law, over the whole tree: a library's reader of PEM takes what is left of a file."""
    found = [f"{path.relative_to(ROOT)}:{node.lineno}" for folder in ("delegator", "pki", "scripts", "examples")
             for path in (ROOT / folder).rglob("*.py") for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.Attribute | ast.Name)
             and (node.attr if isinstance(node, ast.Attribute) else node.id) in LENIENT]
    assert found == []


def test_c_the_folder_and_adopting_take_one_certificate_whole(tmp_path: Path) -> None:
    folder = Folder.create(tmp_path / "pki", common_name="Factory")
    folder.ca_path.write_bytes(folder.ca_path.read_bytes()[:-30])
    with pytest.raises(PkiError, match=r"holds no certificate: block 1 \(line 1\) is cut off"):
        Folder.open(folder.path)


def test_one_means_one() -> None:
    with pytest.raises(pem.PemFault, match="holds 2 certificates where one is wanted"):
        pem.one(BOTH, pem.CERTIFICATE)
    assert isinstance(pem.one(text(ONE), pem.CERTIFICATE), x509.Certificate)
