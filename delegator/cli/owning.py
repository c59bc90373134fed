"""Commands for whose a device is, and what commands for many devices at once share: which ones, and who signs.

The invariants: what is named is done as a whole or not at all; a private key is read from a file of its owner's alone
and goes nowhere.
Must not live here: what a change of owner means (store.ownership, store.transfers).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from delegator.cli import changing, console, files
from delegator.cli.console import Output
from delegator.cli.session import stored
from delegator.cli.tags import devices_in
from delegator.desk import forms, shapes
from delegator.errors import DelegatorError, Kind
from delegator.model.audited import Entry
from delegator.model.owned import Standing, TransferState
from delegator.store import Store
from pki.text import MARK

MOST = 2_000
"""Devices in one step: one transaction, in which a running delegator writes no claim; past five seconds it would turn
devices away. A device that is accepted and signed for takes a millisecond (measured)."""
STOCK = "returned"
"""The order under which returned devices are in stock, where no other is named."""
_PATH = click.Path(path_type=Path, allow_dash=True)


def several(function: Callable[..., Any]) -> Callable[..., Any]:
    """The argument and the option that say which devices."""
    named = click.argument("names", metavar="[DEVICE]...", type=forms.identifier, nargs=-1)
    listed = click.option("--devices", "listed", type=_PATH, metavar="FILE",
                          help="Those in FILE, one a line; - is standard input.")
    return named(listed(function))


def chosen(names: Sequence[str], listed: Path | None) -> list[str]:
    """The devices that were named, each once. Raises DelegatorError (MALFORMED) for a list that is not in order."""
    found = [] if listed is None else devices_in(listed, forms.identifier)
    return at_most(list(dict.fromkeys([*names, *found])))


def at_most(found: list[str]) -> list[str]:
    """Raises UsageError for more than one transaction takes."""
    if len(found) > MOST:
        raise click.UsageError(f"more than {MOST} devices are too many for one step: name so many at a time with "
                               f"--devices FILE; a long list is cut with: split -l {MOST}")
    return found


# --- signatures ---------------------------------------------------------------------------------------------------


def signing(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options by which a customer signs."""
    with_key = click.option("--sign-with", "key_file", type=_PATH, metavar="FILE",
                            help="Sign for the customer with its private key in FILE (PEM).")
    with_signature = click.option("--signature", "signature_file", type=_PATH, metavar="FILE",
                                  help="The customer's signature of what `delegator transfers statement` prints.")
    return with_key(with_signature(function))


def signed_by(key_file: Path | None, signature_file: Path | None, count: int) -> Callable[[bytes], bytes] | None:
    """How to sign, or None. Raises DelegatorError (CONFIGURATION), UsageError."""
    if key_file is not None and signature_file is not None:
        raise click.UsageError("--sign-with or --signature, not both")
    if signature_file is not None:
        if count != 1:
            raise click.UsageError("--signature is of one device's step: name one device")
        signature = _signature(files.read(signature_file, "signature file"))
        return lambda _: signature
    if key_file is None:
        return None
    from delegator.signing import signer

    try:
        return signer(files.read_private(key_file, "private key file"))
    except ValueError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"private key file {key_file}: {error}",
                             hint="make one: openssl genpkey -algorithm ed25519 -out FILE") from None


def _signature(content: bytes) -> bytes:
    """As programs write it: the bytes themselves, or base64."""
    try:
        return base64.b64decode(b"".join(content.removeprefix(MARK).split()), validate=True)
    except binascii.Error:
        return content


def signature(entry: Entry) -> shapes.Shape:
    """What a row of audit holds of a signature, checked here and now with nothing but the row; empty for a row without
    one. It must be of what the row says."""
    from delegator.signing import Signed, fingerprint

    parts = [entry.detail.get(name) for name in ("statement", "signature", "public_key")]
    if not any(parts):
        return {}
    signed = Signed(*map(str, parts))
    holds = signed.holds and signed.says({**entry.detail, "act": entry.act.value})
    return {"signature": "holds" if holds else "does not hold", "statement": signed.statement,
            "key": fingerprint(signed.public_key)[:16] if holds else None}


def public_key(path: Path) -> str:
    """A customer's public key, from a file with it or with a certificate. Raises DelegatorError (CONFIGURATION)."""
    from delegator.signing import public_key_in

    try:
        return public_key_in(files.read(path, "signing key file"))
    except ValueError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"signing key file {path}: {error}",
                             hint="openssl pkey -in PRIVATE-KEY-FILE -pubout") from None


# --- devices show, devices return, devices repair -------------------------------------------------------------------


async def standing(store: Store, name: str, tag: str | None) -> shapes.Shape:
    """What is offered of a device, and the keys of a repaired one."""
    offered = await store.ownership.transfers(device=tag or name, state=TransferState.OFFERED, most=1)
    known = [] if tag is None else await store.ownership.boards(tag)
    data: shapes.Shape = {}
    if offered:
        data |= {"offered_to": offered[0].offered_to, "offered_until": shapes.at(offered[0].until)}
    for one in known:
        if one.standing is not Standing.REFUSED:
            data |= {"approved_key": shapes.board(one)["key"] or "any", "approved_until": shapes.at(one.until)}
    refused = [shapes.board(one)["key"] for one in known if one.standing is Standing.REFUSED]
    return {**data, **({"refused_keys": [key for key in refused if key is not None]} if refused else {})}


@console.command("return", "delegator devices return ABC1234 --because 'RMA 2026-0815'")
@several
@click.option("--order", type=forms.words, default=STOCK, show_default=True,
              help="The order under which they are in stock; it must be nobody's.")
@click.option("--because", type=forms.words, help="The reason, for the audit.")
def return_(names: tuple[str, ...], listed: Path | None, order: str, because: str | None) -> Output | None:
    """Take devices back to stock: nobody owns them, what they hold is released, what was offered is withdrawn."""
    found = chosen(names, listed)
    if not found:
        raise click.UsageError("say which devices: DEVICE or --devices")
    return _return(found=found, order=order, because=because)


@stored
async def _return(store: Store, found: list[str], order: str, because: str | None) -> Output:
    before = await store.ownership.give_back(found, order, datetime.now(UTC), because)
    data = [{**shapes.registration(one), "customer": None, "delegate": None, "order": order,
             "returned_by": one.customer} for one in before]
    which = f"device {found[0]}, until now {before[0].customer}'s," if len(found) == 1 else f"{len(found)} devices,"
    return Output(data, words=(f"back in stock, order {order}: {which} nobody's from now on",))


@console.command("repair", "delegator devices repair ABC1234 --certificate new-board.crt --because 'ticket 4711'\n"
                           "delegator devices repair ABC1234 --within 3d --because 'ticket 4712'")
@click.argument("tag", type=forms.tag)
@click.option("--certificate", type=_PATH, metavar="FILE", help="The certificate of the new main board.")
@click.option("--key-fingerprint", "fingerprint", type=str, metavar="HEX",
              help="SHA-256 of the new main board's public key, where its certificate is not at hand.")
@click.option("--within", type=forms.duration, help="How long the new main board may take to claim; without its key "
                                                    "7d unless told otherwise.")
@click.option("--because", type=forms.words, required=True, help="The reason, for the audit.")
def repair(tag: str, certificate: Path | None, fingerprint: str | None, within: timedelta | None,
           because: str) -> Output | None:
    """Approve a new main board for the device TAG: same tag, new certificate.

    What the old board holds is released and its key refused from now on. With the new one's certificate or key that
    one alone may claim; without, the first other key that comes in time.
    """
    if certificate is not None and fingerprint is not None:
        raise click.UsageError("--certificate or --key-fingerprint, not both")
    key = _fingerprint(fingerprint) if certificate is None else _key_of(certificate, tag)
    return _repair(tag=tag, key=key, within=within or (timedelta(days=7) if key is None else None), because=because)


@stored
async def _repair(store: Store, tag: str, key: str | None, within: timedelta | None, because: str) -> Output:
    now = datetime.now(UTC)
    known = await store.ownership.repair(tag, key, now, None if within is None else now + within, because)
    refused = sum(one.standing is Standing.REFUSED for one in known)
    until = "" if within is None else f" within {shapes.lasting(within)}"
    which = "the first key that is not refused" if key is None else f"key {key[:16]}..."
    output = Output({"service_tag": tag, "keys": [shapes.board(one) for one in known]}, words=(
        f"device {tag}: {which} may claim it{until}; {refused} older keys are refused",
        "  next: revoke the old certificate, if it was issued here: python -m pki revoke"))
    return changing.plainly(output, [f"device {tag}: another key was refused, now {which} may claim it{until}"])


def _fingerprint(text: str | None) -> str | None:
    """Hexadecimal digits, with or without colons. Raises BadParameter."""
    plain = None if text is None else text.replace(":", "").lower()
    if plain is not None and (len(plain) != 64 or set(plain) - set("0123456789abcdef")):
        raise click.BadParameter("a key's fingerprint is SHA-256, 64 hexadecimal digits; see: python -m pki show",
                                 param_hint="--key-fingerprint")
    return plain


def _key_of(path: Path, tag: str) -> str:
    """The fingerprint of a device certificate's key. Raises DelegatorError (CONFIGURATION)."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from delegator.wire.certificate import read_certificate
    from pki import pem

    try:
        found = pem.read(files.read(path, "certificate file"), pem.CERTIFICATE)[0]
        shown = read_certificate(found.public_bytes(Encoding.DER))
    except ValueError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"certificate file {path}: {error}",
                             hint=f"look at it with: openssl x509 -in {path} -noout -text") from None
    if shown.common_names != (tag,):
        raise DelegatorError(Kind.CONFIGURATION, f"certificate file {path} is of "
                             f"{', '.join(shown.common_names) or 'nobody'}, not of {tag}",
                             hint=f"make one: python -m pki device {tag}")
    return shown.key_fingerprint
