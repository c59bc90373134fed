"""Commands for whose a device is, and what commands for many devices at once share: which ones, and who signs.

The invariants: what is named is done as a whole or not at all; a private key is read from a file of its owner's alone
and goes nowhere.
Must not live here: how many at once, and until when (desk.ownership), what a change of owner means (store.ownership,
store.transfers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from delegator.cli import changing, console, files
from delegator.cli.console import Output
from delegator.cli.parameters import as_configuration, typed
from delegator.cli.session import stored
from delegator.cli.tags import devices_in
from delegator.desk import contents, forms, ownership, shapes
from delegator.model.owned import Standing, TransferState
from delegator.store import Store

if TYPE_CHECKING:
    from delegator.signing import Sign

_PATH = click.Path(path_type=Path, allow_dash=True)


def several(function: Callable[..., Any]) -> Callable[..., Any]:
    """The argument and the option that say which devices."""
    named = click.argument("names", metavar="[DEVICE]...", type=typed(forms.identifier), nargs=-1)
    listed = click.option("--devices", "listed", type=_PATH, metavar="FILE",
                          help="Those in FILE, one a line; - is standard input.")
    return named(listed(function))


def chosen(names: Sequence[str], listed: Path | None) -> list[str]:
    """The devices that were named, each once. Raises DelegatorError (MALFORMED) for a list that is not in order."""
    found = [] if listed is None else devices_in(listed, forms.identifier)
    return at_most([*names, *found])


def at_most(found: Sequence[str]) -> list[str]:
    """Raises UsageError for more than one transaction takes."""
    try:
        return list(ownership.at_most(found))
    except ValueError as error:
        raise click.UsageError(f"{error}: name so many at a time with --devices FILE; a long list is cut with: "
                               f"split -l {ownership.MOST}") from None


# --- signatures ---------------------------------------------------------------------------------------------------


def signing(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options by which a customer signs."""
    with_key = click.option("--sign-with", "key_file", type=_PATH, metavar="FILE",
                            help="Sign for the customer with its private key in FILE (PEM).")
    with_signature = click.option("--signature", "signature_file", type=_PATH, metavar="FILE",
                                  help="The customer's signature of what `delegator transfers statement` prints.")
    return with_key(with_signature(function))


def signed_by(count: int, key_file: Path | None = None, signature_file: Path | None = None) -> Sign | None:
    """How to sign, or None. Raises DelegatorError (CONFIGURATION), UsageError."""
    if key_file is not None and signature_file is not None:
        raise click.UsageError("--sign-with or --signature, not both")
    if signature_file is not None:
        if count != 1:
            raise click.UsageError("--signature is of one device's step: name one device")
        signature = contents.signature(files.read(signature_file, "signature file"))
        return lambda _: signature
    if key_file is None:
        return None
    content = files.read_private(key_file, "private key file")
    with as_configuration(key_file):
        return contents.signer(content, f"private key file {key_file}")


def public_key(path: Path) -> str:
    """A customer's public key, from a file with it or with a certificate. Raises DelegatorError (CONFIGURATION)."""
    content = files.read(path, "signing key file")
    with as_configuration(path):
        return contents.public_key(content, f"signing key file {path}")


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
@click.option("--order", type=typed(forms.words), default=ownership.STOCK, show_default=True,
              help="The order under which they are in stock; it must be nobody's.")
@click.option("--because", type=typed(forms.words), help="The reason, for the audit.")
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
@click.argument("tag", type=typed(forms.tag))
@click.option("--certificate", type=_PATH, metavar="FILE", help="The certificate of the new main board.")
@click.option("--key-fingerprint", "fingerprint", type=typed(forms.fingerprint), metavar="HEX",
              help="SHA-256 of the new main board's public key, where its certificate is not at hand.")
@click.option("--within", type=typed(forms.duration),
              help="How long the new main board may take to claim; without its key "
                                                    "7d unless told otherwise.")
@click.option("--because", type=typed(forms.words), required=True, help="The reason, for the audit.")
def repair(tag: str, certificate: Path | None, fingerprint: str | None, within: timedelta | None,
           because: str) -> Output | None:
    """Approve a new main board for the device TAG: same tag, new certificate.

    What the old board holds is released and its key refused from now on. With the new one's certificate or key that
    one alone may claim; without, the first other key that comes in time.
    """
    if certificate is not None and fingerprint is not None:
        raise click.UsageError("--certificate or --key-fingerprint, not both")
    key = fingerprint if certificate is None else _key_of(certificate, tag)
    return _repair(one=ownership.repair({"service_tag": tag, "key": key, "within": within, "because": because}))


@stored
async def _repair(store: Store, one: ownership.Repair) -> Output:
    now, tag, key, within = datetime.now(UTC), one.service_tag, one.key, one.within
    known = await store.ownership.repair(tag, key, now, one.until(now), one.because)
    refused = sum(one.standing is Standing.REFUSED for one in known)
    until = "" if within is None else f" within {shapes.lasting(within)}"
    which = "the first key that is not refused" if key is None else f"key {key[:16]}..."
    output = Output({"service_tag": tag, "keys": [shapes.board(one) for one in known]}, words=(
        f"device {tag}: {which} may claim it{until}; {refused} older keys are refused",
        "  next: revoke the old certificate, if it was issued here: python -m pki revoke"))
    return changing.plainly(output, [f"device {tag}: another key was refused, now {which} may claim it{until}"])


def _key_of(path: Path, tag: str) -> str:
    """The fingerprint of a device certificate's key. Raises DelegatorError (CONFIGURATION)."""
    content = files.read(path, "certificate file")
    with as_configuration(path):
        return contents.device_key(content, tag, f"certificate file {path}")
