"""A certificate chain and its private key, as whoever shows them to others holds them.

Lives here: `Pair`, `read_pair`, and what can be wrong with one: each fault names its own cause.
Invariants: a pair that is returned fits, leaf first and each certificate signed by the one behind it; nobody is asked
for a pass phrase, ever. The key stays in the very bytes that stood in its file: some kinds (RSA-PSS) would be taken
for another through a library's object.
Must not live here: contexts (the delegator's TLS engine), whether a file is private, whom to trust (trust.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from pki import disk, pem
from pki.errors import Kind, PkiError
from pki.keys import Locked, any_key, key_text
from pki.trust import is_authority, shown


@dataclass(frozen=True, slots=True)
class Pair:
    """The leaf first, whoever signed it behind it; the key as it was parsed and as it stood there."""

    chain: tuple[x509.Certificate, ...]
    key: PrivateKeyTypes = field(repr=False, compare=False)
    key_pem: bytes = field(repr=False)

    @property
    def leaf(self) -> x509.Certificate:
        return self.chain[0]


def read_pair(chain_file: Path, key_file: Path, hint: str) -> Pair:
    """Both files, compared. CONFIGURATION, naming the file that is not in order; `hint` is how a pair is made."""
    chain = read_chain(chain_file, key_file, hint)
    key, content = read_key(key_file, hint)
    fault = order_fault(chain, key)
    if fault is not None:
        raise PkiError(Kind.CONFIGURATION, f"{chain_file}: {fault}", ORDER_HINT)
    if not _fits(chain[0], key):
        detail = f"{key_file} does not belong to the certificate {chain_file} ({shown(chain[0])})"
        raise PkiError(Kind.CONFIGURATION, detail, hint)
    return Pair(chain, key, content)


def read_chain(chain_file: Path, key_file: Path, hint: str) -> tuple[x509.Certificate, ...]:
    """All certificates of a file, in the order in which they stand. CONFIGURATION. The key may stand among them only
    where the settings name one file for both."""
    beside = pem.KEY_LABELS if chain_file == key_file else ()
    try:
        return pem.read(disk.read_regular(chain_file), pem.CERTIFICATE, beside)
    except OSError as error:
        raise PkiError(Kind.CONFIGURATION, f"{chain_file}: {_said(error)}", hint) from error
    except pem.PemFault as error:
        raise PkiError(Kind.CONFIGURATION, f"{chain_file}: {error}", hint) from error


def read_key(key_file: Path, hint: str) -> tuple[PrivateKeyTypes, bytes]:
    """The private key of a file, and its text. CONFIGURATION."""
    try:
        content = disk.read_regular(key_file)
        return any_key(content), key_text(content)
    except OSError as error:
        raise PkiError(Kind.CONFIGURATION, f"{key_file}: {_said(error)}", hint) from error
    except Locked as error:
        raise locked(key_file) from error
    except PkiError as error:
        raise PkiError(Kind.CONFIGURATION, f"{key_file}: {error.detail}", hint) from error


def locked(path: Path | str) -> PkiError:
    """What is said of an encrypted key where a program must do without a person."""
    detail = f"{path} is encrypted with a pass phrase, and nobody is there to type it"
    return PkiError(Kind.CONFIGURATION, detail, f"take it off: openssl pkey -in {path} -out NEW && chmod 600 NEW, "
                    "and put NEW in its place")


def _said(error: OSError) -> str:
    return error.strerror.lower() if error.errno == 2 and error.strerror else error.strerror or str(error)


ORDER_HINT = "put the certificate of this key first, whoever signed it behind it, and so on"


def order_fault(chain: Sequence[x509.Certificate], key: PrivateKeyTypes | None = None) -> str | None:
    """What is wrong with the order of a chain; None for nothing. With the key it is told which one must be first."""
    places = [place for place, one in enumerate(chain) if key is not None and _fits(one, key)]
    if places and places[0] > 0:
        first = "an authority's" if is_authority(chain[0]) else "another's"
        return (f"certificate {places[0] + 1} ({shown(chain[places[0]])}) belongs to the key and must stand first; "
                f"before it stands {first} ({shown(chain[0])})")
    leaf = next((place for place, one in enumerate(chain) if not is_authority(one)), None)
    if not places and leaf is None and (len(chain) > 1 or key is not None):
        return f"the leaf is missing, or the key is another's: it holds authorities only ({shown(chain[0])})"
    if not places and leaf:
        first, later = shown(chain[0]), shown(chain[leaf])
        return f"the authority ({first}) stands before the leaf, certificate {leaf + 1} ({later})"
    return _unlinked(chain)


def _unlinked(chain: Sequence[x509.Certificate]) -> str | None:
    for place, (signed, signer) in enumerate(itertools.pairwise(chain), 1):
        if signed.issuer != signer.subject:
            return f"certificate {place + 1} ({shown(signer)}) is not who signed certificate {place} ({shown(signed)})"
    return None


def _fits(certificate: x509.Certificate, key: PrivateKeyTypes) -> bool:
    try:
        return bool(certificate.public_key() == key.public_key())
    except (ValueError, UnsupportedAlgorithm):
        return False


def time_fault(certificate: x509.Certificate, now: datetime) -> str | None:
    """Whether its time has come and is not over."""
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M}Z; is this machine's clock right?"
    if now > certificate.not_valid_after_utc:
        return f"ended at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M}Z"
    return None
