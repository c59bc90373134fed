"""The one reader of PEM (RFC 7468): every block that stands in a text is read, or the text is refused.

Lives here: `blocks`, which finds them, and `read`, which makes certificates, revocation lists or requests of them.
Libraries skip what they cannot read: of a file that lost its last lines they give what is left of it, and devices
of the authority that stood last are turned away. So what was read is compared with what stands there.
Invariant: what comes out is all that stood there, each block once and of the kind that was asked for. Words between
blocks are allowed (section 2); what looks like a piece of a block is not.
Must not live here: files (disk.py), private keys (keys.py), what a certificate is worth (trust.py).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

T = TypeVar("T")


class PemFault(ValueError):
    """What is wrong with a text, with the number and the line of the block; nothing of the text itself."""


@dataclass(frozen=True, slots=True)
class Block:
    """One block. `headers` are the lines that OpenSSL's old form of an encrypted key has in front (RFC 1421)."""

    label: str
    number: int
    line: int
    der: bytes
    headers: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        return f"block {self.number} (line {self.line})"


@dataclass(frozen=True, slots=True)
class Sort(Generic[T]):
    """What is asked for: its name, the labels that it goes by, and how it is made of the bytes."""

    word: str
    labels: tuple[str, ...]
    load: Callable[[bytes], T]


CERTIFICATE: Final = Sort("certificate", ("CERTIFICATE", "X509 CERTIFICATE"), x509.load_der_x509_certificate)
REVOCATION_LIST: Final = Sort("revocation list", ("X509 CRL",), x509.load_der_x509_crl)
REQUEST: Final = Sort("certificate request", ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"),
                      x509.load_der_x509_csr)  # fmt: skip

KEY_LABELS: Final = ("PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY",
                     "OPENSSH PRIVATE KEY")  # fmt: skip
_OTHERS: Final = {
    "PUBLIC KEY": "public key", "RSA PUBLIC KEY": "public key", "EC PARAMETERS": "set of EC parameters",
    "PKCS7": "PKCS#7 bundle", "CMS": "CMS message", "DH PARAMETERS": "set of DH parameters",
    "TRUSTED CERTIFICATE": "certificate in OpenSSL's own form (openssl x509 -in FILE writes it as others read it)",
}  # fmt: skip
_WORDS: Final = _OTHERS | dict.fromkeys(KEY_LABELS, "private key") | {
    label: sort.word for sort in (CERTIFICATE, REVOCATION_LIST, REQUEST) for label in sort.labels}  # fmt: skip


def word_of(label: str) -> str:
    """What a block with this label is, in words."""
    return _WORDS.get(label, f"block {label[:40]!a}")


def read(content: bytes, sort: Sort[T], beside: Collection[str] = (), *, twice: bool = False) -> tuple[T, ...]:
    """Everything in a text, one or more of the sort and nothing else but blocks with a label in `beside`.

    Raises PemFault for what is cut off, damaged, of another kind, or there twice: where two are meant and one was
    copied twice, the other is missing. With `twice` that is taken, for texts that no person has put together.
    """
    found = [block for block in some_blocks(content, sort.word) if block.label not in beside]
    if not found:
        raise PemFault(f"it holds no {sort.word}")
    made: dict[bytes, tuple[Block, T]] = {}
    for block in found:
        if block.der in made and not twice:
            raise PemFault(f"{block.where} is {made[block.der][0].where} once more")
        made.setdefault(block.der, (block, _made(block, sort)))
    return tuple(one for _, one in made.values())


def whole(content: bytes, sort: Sort[T]) -> tuple[T, ...]:
    """Those of the sort that can be read, whatever else stands there. Only for what can do no harm by being too few."""
    found: list[T] = []
    for text in re.findall(rb"-----BEGIN [^-]+-----[^-]+-----END [^-]+-----", content):
        with contextlib.suppress(PemFault):
            found += [_made(block, sort) for block in blocks(text)]
    return tuple(found)


def one(content: bytes, sort: Sort[T]) -> T:
    """The only one in a text. Raises PemFault."""
    found = read(content, sort)
    if len(found) > 1:
        raise PemFault(f"it holds {len(found)} {sort.word}s where one is wanted")
    return found[0]


def some_blocks(content: bytes, wanted: str) -> tuple[Block, ...]:
    """The blocks of a text that is to hold at least one; `wanted` is what it is to be. Raises PemFault."""
    found = tuple(blocks(content))
    if not found:
        raise PemFault(_nature(content, wanted))
    return found


def _made(block: Block, sort: Sort[T]) -> T:
    if block.label not in sort.labels:
        raise PemFault(f"{block.where} is a {word_of(block.label)}, where a {sort.word} belongs")
    if block.headers:
        raise PemFault(f"{block.where} has a line in front of its base64 that no {sort.word} has")
    try:
        return sort.load(block.der)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise PemFault(f"{block.where} is no readable {sort.word}: it is damaged") from None


_EDGE = re.compile(rb"-----(BEGIN|END) ([!-,.-~](?:[ !-,.-~]*[!-,.-~])?)-----")
_LIKE_AN_EDGE = re.compile(rb"-----[A-Z]|--\s*(?:BEGIN|END)\b|\b(?:BEGIN|END) [A-Z0-9 ]+--|[A-Z]-----\Z")
_LIKE_BASE64 = re.compile(rb"(?![0-9A-Fa-f]+\Z)[A-Za-z0-9+/]{60,}={0,2}")
"""A line from within a block, where no block is; a fingerprint in hexadecimal may stand there."""


def blocks(content: bytes) -> Iterator[Block]:
    """Every block in order; none for a text without any. Raises PemFault for what is not whole."""
    text = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines, at, number = text.split(b"\n"), 0, 0
    while at < len(lines):
        line = lines[at].strip()
        if line.startswith(b"-----BEGIN "):
            number += 1
            block, at = _block(lines, at, number)
            yield block
            continue
        if _LIKE_AN_EDGE.search(line) or (_is_dashes(line) and (
                at == len(lines) - 1 or lines[at + 1].lstrip().startswith(b"-----BEGIN "))):
            raise PemFault(f"line {at + 1} is a piece of the line that begins or ends a block: something was cut off")
        if _LIKE_BASE64.fullmatch(line):
            raise PemFault(f"line {at + 1} belongs to a block whose BEGIN line is missing")
        at += 1


def _is_dashes(line: bytes) -> bool:
    """What a cut leaves of the last line of a file, or of the END line in front of the next block. `openssl s_client`
    parts what it prints by three of them, but never right in front of a block."""
    return 0 < len(line) <= len(b"-----") and not line.strip(b"-")


def _block(lines: list[bytes], start: int, number: int) -> tuple[Block, int]:
    """The block that begins at a line, and the line behind it."""
    where = f"block {number} (line {start + 1})"
    begin = _EDGE.fullmatch(lines[start].strip())
    if begin is None:
        raise PemFault(f"{where}: its BEGIN line is damaged")
    at = next((at for at in range(start + 1, len(lines)) if lines[at].lstrip().startswith(b"-")), None)
    end = None if at is None else _EDGE.fullmatch(lines[at].strip())
    if at is None or end is None or end[1] != b"END":
        raise PemFault(f"{where} is cut off: its END line is missing or damaged")
    label = begin[2].decode("ascii")
    if end[2] != begin[2]:
        raise PemFault(f"{where} begins as {label[:40]!a} and ends, in line {at + 1}, as another")
    headers, body = _split([line.strip() for line in lines[start + 1 : at]])
    try:
        der = base64.b64decode(b"".join(body), validate=True)
    except (binascii.Error, ValueError):
        raise PemFault(f"{where} is damaged: what stands between its lines is not base64") from None
    if not der:
        raise PemFault(f"{where} is empty")
    return Block(label, number, start + 1, der, headers), at + 1


def _split(lines: list[bytes]) -> tuple[tuple[str, ...], list[bytes]]:
    """Headers, which a blank line ends, and what is behind them."""
    if not any(b":" in line for line in lines[:1]) or b"" not in lines:
        return (), lines
    blank = lines.index(b"")
    return tuple(line.decode("ascii", "replace") for line in lines[:blank]), lines[blank + 1 :]


_DER: Final = (CERTIFICATE, REQUEST, REVOCATION_LIST)


def _nature(content: bytes, wanted: str) -> str:
    """What a text without any block is instead."""
    if not content.strip():
        return "it is empty"
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0-\0-" in content[:16]:
        return "it is written in UTF-16; save it as ASCII"
    if content[0] != 0x30:
        return f"it holds no {wanted} in PEM"
    return f"it is {der_nature(content) or 'binary'}, where a {wanted} in PEM is wanted"


def der_nature(content: bytes) -> str | None:
    """What sort of DER this is; None for none that we know."""
    for sort in _DER:
        try:
            sort.load(content)
        except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
            continue
        return f"a {sort.word} in DER (binary)"
    return None
