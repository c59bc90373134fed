"""`python -m pki`: the commands of the manufacturer's operator.

Lives here: one function per command, each a few lines: read options, call a room, return values.
Invariant: every command takes `--dir` and `--json` and ends with an exit code of errors.EXIT_CODES.
Must not live here: rules, formats, file handling.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import click

from pki import disk, minting, show, streams
from pki.adopting import adopted
from pki.check import SOON_DAYS, examine
from pki.console import Commands, Given, Passphrase, Values, command, unlocking
from pki.errors import Kind, PkiError
from pki.folder import Folder, Issued
from pki.keys import KeyType
from pki.ledger import stamp
from pki.naming import SHARED_NAME
from pki.profiles import (
    DELEGATE_CLIENT,
    DELEGATE_SERVER,
    DELEGATOR_SERVER,
    DEVICE,
    MAIL_SIGNER,
    SHARED_DEVICE,
    Profile,
)
from pki.request import REQUEST_LIMIT, requested
from pki.revocation import DEFAULT_DAYS, Reason

_key_type = click.option(
    "--key-type", type=click.Choice([kind.value for kind in KeyType]), default="ec", show_default=True,
    help="ECDSA P-256, or RSA-2048.")  # fmt: skip
_csr = click.option("--csr", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True),
                    metavar="FILE", help="Certify the key of this PKCS#10 request instead.")
_LIFE = click.IntRange(1, 36_500)
_days = click.option("--days", type=_LIFE, help="A shorter life than the profile's.")
_renew = click.option("--renew", is_flag=True, help="Replace; the old pair is kept under retired/. It is for the same "
                      "hosts, unless --alt names others.")  # fmt: skip
_alt = click.option("--alt", "names", multiple=True, help="A further host name or address; may be repeated.")


def _issuing(function: Callable[..., Values]) -> Callable[..., None]:
    """The options that all issuing commands share."""
    for option in (_key_type, _csr, _days, _renew):
        function = option(function)
    return unlocking(command(function))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """The factory's certificate authority: mint, revoke, examine."""


@main.command()
@click.option("--name", default="Factory CA", show_default=True, help="Common name of the authority.")
@click.option("--organization", help="Organization in its subject.")
@_key_type
@unlocking
@command
def init(place: Path, name: str, organization: str | None, key_type: str, passphrase: Passphrase) -> Values:
    """Create an authority: key, certificate, ledger and an empty revocation list."""
    secret = passphrase.read(confirm=True)
    folder = Folder.create(place, common_name=name, organization=organization, key_type=key_type, passphrase=secret)
    described = show.certificate(folder.ca_certificate)
    words = [f"created {folder.path}", *show.lines(described)]
    return {"lines": words, "folder": str(folder.path), "encrypted": secret is not None, "certificate": described}


@main.command()
@click.argument("name")
@_alt
@_issuing
def server(name: str, **options: Any) -> Values:
    """Issue a delegator's server certificate for a host NAME or address."""
    return _issue(DELEGATOR_SERVER, name, _Asked(**options))


@main.command()
@click.argument("name")
@_alt
@click.option("--client", is_flag=True, help="The certificate a delegator shows to delegates.")
@_issuing
def delegate(name: str, client: bool, **options: Any) -> Values:
    """Issue a delegate's server certificate, or with --client the one a delegator shows to it."""
    return _issue(DELEGATE_CLIENT if client else DELEGATE_SERVER, name, _Asked(**options))


@main.command()
@click.option("--batch", help="Name of a production batch: one that leaks can be revoked without the others.")
@_issuing
def shared(batch: str | None, **options: Any) -> Values:
    """Issue a shared device certificate, the same in every device of a batch."""
    return _issue(SHARED_DEVICE, SHARED_NAME if batch is None else f"{SHARED_NAME}-{batch}", _Asked(**options))


@main.command()
@click.argument("address")
@_issuing
def mail(address: str, **options: Any) -> Values:
    """Issue a certificate that signs the delegator's mail from ADDRESS."""
    return _issue(MAIL_SIGNER, address, _Asked(**options))


@main.command()
@click.argument("tag", required=False)
@click.option("--from", "source", type=Given("rb"),
              help="A table with a service_tag column, or one tag a line; - is standard input.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Another folder for the files (with --from).")
@_issuing
def device(tag: str | None, source: IO[bytes] | None, out: Path | None, **options: Any) -> Values:
    """Issue the handshake certificate of the device TAG, or of every tag in a list."""
    if (tag is None) == (source is None) or (tag is not None and out is not None):
        raise PkiError(Kind.USAGE, "give either a TAG, or --from FILE (and --out DIR)",
                       "see: python -m pki device --help")
    if tag is not None:
        return _issue(DEVICE, tag, _Asked(**options))
    return minting.mint(source or sys.stdin.buffer, out, **options)


@main.command()
@click.argument("target", required=False)
@click.option("--tag", help="Every certificate of this device.")
@click.option("--reason", type=click.Choice([reason.value for reason in Reason]), default="unspecified",
              show_default=True)  # fmt: skip
@click.option("--days", type=_LIFE, default=DEFAULT_DAYS, show_default=True, help="Life of the new list.")
@unlocking
@command
def revoke(
    place: Path, target: str | None, tag: str | None, reason: str, days: int, passphrase: Passphrase
) -> Values:
    """Revoke the certificate with serial or file TARGET, or all of a device, and write the list."""
    if (target is None) == (tag is None):
        raise PkiError(Kind.USAGE, "give either a serial, a certificate file, or --tag",
                       "see: python -m pki revoke --help")
    folder = Folder.open(place)
    serials = show.serials_of_tag(folder, tag) if tag else show.serials(target or "")
    done = folder.revoke(serials, Reason(reason), folder.authority(passphrase.read()), days)
    words = [f"revoked {entry.name} ({entry.profile}), serial {entry.serial}: {entry.reason}" for entry in done]
    revoked = [{"serial": each.serial, "name": each.name, "profile": each.profile} for each in done]
    return {"lines": words, "revoked": revoked, "reason": reason, "crl": str(folder.crl_path)}


@main.command()
@click.argument("source", metavar="FILE", type=Given("rb"))
@click.option("--days", type=_LIFE, default=DEFAULT_DAYS, show_default=True, help="Life of the new list.")
@unlocking
@command
def adopt(place: Path, source: IO[bytes], days: int, passphrase: Passphrase) -> Values:
    """Enter what this authority's key signed elsewhere: JSON lines of `delegator enrolments export` in FILE, or -.

    Each certificate is checked against the authority; what was revoked there goes on the list. Repeating it changes
    nothing.
    """
    folder = Folder.open(place)
    taken = adopted(folder, source, lambda: folder.authority(passphrase.read()), days)
    words = [f"{taken.entered} certificates entered, {taken.revoked} revoked, {taken.known} known already, "
             f"{taken.foreign} of another authority"]
    return {"lines": words, "entered": taken.entered, "revoked": taken.revoked, "known": taken.known,
            "foreign": taken.foreign}


@main.command()
@click.option("--days", type=_LIFE, default=DEFAULT_DAYS, show_default=True, help="Life of the list.")
@unlocking
@command
def crl(place: Path, days: int, passphrase: Passphrase) -> Values:
    """Write the revocation list again with a new end."""
    folder = Folder.open(place)
    described = show.revocation_list(folder.refresh_list(folder.authority(passphrase.read()), days))
    return {"lines": [str(folder.crl_path), *show.lines(described)], "crl": str(folder.crl_path), **described}


@main.command(name="show")
@click.argument("target")
@command
def show_command(place: Path, target: str) -> Values:
    """Describe a certificate or list: a FILE, ca, crl, or the NAME of something issued here."""
    path = Path(target) if Path(target).is_file() else show.locate(Folder.open(place), target)
    found = show.describe(path)
    words = [line for each in found for line in (*show.lines(each), "")]
    return {"lines": [str(path), *words[:-1]], "path": str(path), "contents": found,
            "acted": False}


@main.command()
@click.option("--days", type=click.IntRange(0, 36_500), default=SOON_DAYS, show_default=True,
              help="What counts as soon.")  # fmt: skip
@unlocking
@command
def check(place: Path, days: int, passphrase: Passphrase) -> Values:
    """Examine every file: permissions, pairs, chains, ends, list, ledger. Exit 1 if there is a problem."""
    remarks = list(examine(Folder.open(place), passphrase.read(), soon_days=days))
    problems = sum(not remark.note for remark in remarks)
    words = [*map(str, remarks), f"{problems} problems" if problems else "all is well"]
    found = [{"path": str(each.path), "detail": each.detail, "note": each.note} for each in remarks]
    return {"lines": words, "exit": 1 if problems else 0, "problems": problems, "remarks": found,
            "acted": False}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What all issuing commands are told, by the names of their options."""

    place: Path
    key_type: str
    csr: Path | None
    days: int | None
    renew: bool
    passphrase: Passphrase
    names: Sequence[str] = ()


def _issue(profile: Profile, name: str, asked: _Asked) -> Values:
    key = asked.key_type if asked.csr is None else requested(_request(asked.csr))
    folder = Folder.open(asked.place)
    before = folder.hosts(profile, name) if asked.renew and asked.names else ()
    made = folder.issue(profile, name, names=asked.names, key=key, days=asked.days, renew=asked.renew,
                        passphrase=asked.passphrase.read())  # fmt: skip
    ended = [one for one in before if one not in folder.hosts(profile, name)]
    if ended:
        click.echo(f"it is no longer for {', '.join(ended)}: say --alt for each that shall stay", err=True)
    return {"lines": _issued_lines(made), **_issued(made), **({"no_longer_for": ended} if ended else {})}


def _request(path: Path) -> bytes:
    """Or standard input; as much of it as shows that it is too large."""
    if str(path) == "-":
        return sys.stdin.buffer.read(REQUEST_LIMIT + 1)
    return disk.read_given(path, REQUEST_LIMIT + 1)


def _issued(made: Issued) -> Values:
    return {
        "profile": made.profile.name,
        "name": made.name,
        "serial": made.serial,
        "sha256": made.fingerprint,
        "not_after": stamp(made.certificate.not_valid_after_utc),
        "certificate": str(made.certificate_path),
        "key": str(made.key_path) if made.key_path else None,
    }


def _issued_lines(made: Issued) -> list[str]:
    return [str(made.certificate_path), *([str(made.key_path)] if made.key_path else [])]


if __name__ == "__main__":
    streams.program(lambda: main(prog_name="python -m pki"))
