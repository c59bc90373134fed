"""A certificate or a revocation list, described for a person and for a program.

Lives here: pure functions from parsed values to a dictionary, and from the dictionary to lines; and finding what
a word on the command line names.
Invariant: nothing private is ever described; a key is only ever its kind and size.
Must not live here: judgement (check.py, trust.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pki import disk, pem
from pki.errors import Kind, PkiError
from pki.folder import Folder
from pki.ledger import Event, serial_text, stamp
from pki.profiles import LEAVES
from pki.revocation import LIST_LIMIT, number_of, read_lists

Description = dict[str, object]


def certificate(found: x509.Certificate) -> Description:
    """The parts that matter, all as text."""
    return {
        "type": "certificate",
        "subject": found.subject.rfc4514_string(),
        "names": _names(found),
        "issuer": found.issuer.rfc4514_string(),
        "serial": serial_text(found.serial_number),
        "not_before": stamp(found.not_valid_before_utc),
        "not_after": stamp(found.not_valid_after_utc),
        "key": _key(found.public_key()),
        "purposes": _purposes(found),
        "sha256": found.fingerprint(hashes.SHA256()).hex(":"),
        "sha1": found.fingerprint(hashes.SHA1()).hex(":"),  # noqa: S303 - what older consoles display
    }


def revocation_list(found: x509.CertificateRevocationList) -> Description:
    return {
        "type": "revocation list",
        "issuer": found.issuer.rfc4514_string(),
        "number": number_of(found),
        "this_update": stamp(found.last_update_utc),
        "next_update": stamp(found.next_update_utc) if found.next_update_utc else "never",
        "revoked": len(found),
        "sha256": found.fingerprint(hashes.SHA256()).hex(":"),
    }


def lines(description: Description) -> list[str]:
    """`label: value`, one a line, in columns."""
    shown = {key: ", ".join(value) if isinstance(value, list) else str(value) for key, value in description.items()}
    return [f"{key.replace('_', ' '):<12} {value}" for key, value in shown.items() if value]


def _names(found: x509.Certificate) -> list[str]:
    try:
        return [
            str(each.value) for each in found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        ]
    except x509.ExtensionNotFound:
        return []


def _purposes(found: x509.Certificate) -> list[str]:
    try:
        purposes = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return []
    return [purpose._name for purpose in purposes]


def _key(key: object) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA {key.curve.name}"
    return f"RSA {key.key_size} bits" if isinstance(key, rsa.RSAPublicKey) else "other"


def locate(folder: Folder, word: str) -> Path:
    """A file, `ca`, `crl`, or the name of something issued here; FAILED if there is none, USAGE if several."""
    fixed = {"ca": folder.ca_path, "crl": folder.crl_path}
    if word in fixed:
        return fixed[word]
    stem = word.replace(":", "-")
    if "/" not in stem and "\0" not in stem:
        hits = [path for row in LEAVES if (path := folder.directory(row) / f"{stem}.crt").is_file()]
        if len(hits) > 1:
            raise PkiError(Kind.USAGE, f"{word} is ambiguous", "name one of " + ", ".join(map(str, hits)))
        if hits:
            return hits[0]
    raise PkiError(Kind.FAILED, f"no file and nothing issued here is called {word!a}", "look into the ledger")


def describe(path: Path) -> list[Description]:
    """All certificates of a file in order, or its revocation list."""
    try:
        content = disk.read_regular(path, LIST_LIMIT)
        if b"-----BEGIN X509 CRL" in content:
            return [revocation_list(each) for each in read_lists(path)]
        return [certificate(each) for each in _certificates(content)]
    except OSError as error:
        raise PkiError(Kind.FAILED, f"{path}: {error.strerror}", "name a certificate file") from error
    except ValueError as error:
        why = error if isinstance(error, pem.PemFault) else f"it is {pem.der_nature(content) or 'damaged DER'}"
        raise PkiError(Kind.FAILED, f"{path} holds no certificate: {why}", "name a PEM or DER certificate") from error


def _certificates(content: bytes) -> Sequence[x509.Certificate]:
    if content[:1] == b"\x30":
        return [x509.load_der_x509_certificate(content)]
    return pem.read(content, pem.CERTIFICATE)


def serials(word: str) -> list[str]:
    """The serial that a hexadecimal number or a certificate file stands for."""
    path = Path(word)
    if path.is_file():
        return [str(describe(path)[0].get("serial", ""))]
    digits = word.lower().removeprefix("0x").replace(":", "")
    try:
        return [serial_text(int(digits, 16))]
    except ValueError as error:
        hint = "give a hexadecimal serial, a certificate file, or --tag"
        raise PkiError(Kind.USAGE, f"{word!a} is neither a serial nor a file", hint) from error


def serials_of_tag(folder: Folder, tag: str) -> list[str]:
    """Every serial ever issued to a device and not yet revoked; FAILED if it never had one, CONFLICT if all are."""
    issued = {each.serial for each in folder.ledger if each.name == tag and each.profile == "device"}
    gone = {each.serial for each in folder.ledger if each.event is Event.REVOKED}
    if not issued:
        raise PkiError(Kind.FAILED, f"no certificate was issued for the tag {tag!a}", "check the spelling")
    if not issued - gone:
        raise PkiError(Kind.CONFLICT, f"all certificates of {tag} are revoked already", "nothing was changed")
    return sorted(issued - gone)
