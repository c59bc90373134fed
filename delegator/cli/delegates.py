"""`delegator delegates`: the customers' provisioning servers, or what stands for them.

The invariants: a password comes from a file, a prompt or standard input, never from the command line, and is shown
by no command; of a file that should hold certificates nothing but certificates is kept.
Must not live here: calling delegates (callbacks), running one (delegate).
"""

from __future__ import annotations

import dataclasses
import stat
import sys
from pathlib import Path
from typing import Any

import click

from delegator.cli import console, forms, shapes
from delegator.cli.console import Output, verb
from delegator.cli.session import stored
from delegator.errors import DelegatorError, Kind
from delegator.model import Callback, CallbackKind, Credential, Delegate, HostedCallback, Secret, SoapCallback
from delegator.store import Store

_GENERATED = "{random}"
"""Without a password of the customer's, each device gets one of its own."""
_LONGEST = {"{tag}": "T" * 20, "{random}": "r" * 20}
_SOAP_ONLY = {"address": "--address", "callback_ca": "--callback-ca"}
_HOSTED_ONLY = {"password_file": "--password-file", "password_prompt": "--password-prompt"}


@click.group("delegates", epilog=console.as_example("delegator delegates list --customer acme"))
def group() -> None:
    """The customers' provisioning servers, or what stands for them."""


@verb(group, "add", "delegator delegates add acme-berlin --customer acme --soap delegate.acme.example:8443/soap "
                    "--callback-ca acme-ca.crt\n"
                    "delegator delegates add acme-small --customer acme --hosted 'admin-{tag}'")
@click.argument("name", type=forms.name)
@click.option("--customer", type=forms.name, required=True, help="Whose delegate it is.")
@click.option("--soap", type=forms.soap, metavar="HOST[:PORT][/path]", help="The customer's server; HOST is the name "
              "in its certificate. Port 443 and path / unless said.")
@click.option("--address", type=forms.address, help="Where to connect, if not to HOST.")
@click.option("--callback-ca", type=click.Path(path_type=Path), metavar="FILE",
              help="Who signed that server's certificate (PEM), if not the factory CA.")
@click.option("--hosted", metavar="USER", help="No server: its user is set here. {tag} becomes the service tag.")
@click.option("--password-file", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE",
              help="Its password, or a pattern with {tag} and {random}; - is standard input. "
                   "Without one each device gets a random password.")
@click.option("--password-prompt", is_flag=True, help="Ask for the password on the terminal.")
@click.option("--url", type=forms.url, help="Where devices go next (https).")
@click.option("--trust-anchor", type=click.Path(path_type=Path), metavar="FILE",
              help="Whom devices shall trust there (PEM), if not --callback-ca or the factory CA.")
@click.option("--policy", type=forms.name, help="What holds for this delegate, besides the customer's policy.")
@click.option("--disabled", is_flag=True, help="Send no device there for now.")
@click.option("--replace", is_flag=True, help="Change the delegate if there is one of that name.")
def add(name: str, customer: str, soap: SoapCallback | None, hosted: str | None, url: str | None,
        trust_anchor: Path | None, policy: str | None, disabled: bool, replace: bool, **more: Any) -> Output | None:
    """Add the delegate NAME of a customer, reached by --soap or kept here by --hosted."""
    if (soap is None) == (hosted is None):
        raise click.UsageError("give either --soap HOST[:PORT][/path] or --hosted USER")
    callback = _soap(soap, **more) if soap is not None else _hosted(hosted or "", **more)
    anchor = None if trust_anchor is None else certificates(trust_anchor)
    delegate = Delegate(name, customer, callback, url, anchor, policy, not disabled)
    return _add(delegate=delegate, replace=replace)


@stored
async def _add(store: Store, delegate: Delegate, replace: bool) -> Output:
    await store.add_delegate(delegate, replace=replace)
    return Output(shapes.delegate(delegate), words=(f"delegate {delegate.name} is registered",))


@verb(group, "list", "delegator delegates list --customer acme")
@click.option("--customer", type=forms.name, help="Only those of this customer.")
@stored
async def list_(store: Store, customer: str | None) -> Output:
    """List delegates; passwords are never shown."""
    found = [one for one in await store.delegates() if customer in (None, one.customer)]
    rows = [(one.name, one.customer, _reached(one), one.url, one.policy, one.enabled) for one in found]
    return Output([shapes.delegate(one) for one in found],
                  console.table(("name", "customer", "reached", "url", "policy", "enabled"), rows))


@verb(group, "show", "delegator delegates show acme-berlin --json")
@click.argument("name", type=forms.name)
@stored
async def show(store: Store, name: str) -> Output:
    """Show the delegate NAME, without its password, and the state of its circuit breaker."""
    found = (await store.tables()).directory.delegates.get(name)
    if found is None:
        raise console.missing("delegate", name, "delegates")
    health = await store.health(name)
    breaker = {"breaker": health.state, "breaker_why": health.why, "breaker_since": shapes.at(health.since)
               } if health else {"breaker": "closed"}
    data = {**shapes.delegate(found), **breaker}
    return Output(data, console.pairs(data))


@verb(group, "remove", "delegator delegates remove acme-berlin")
@click.argument("name", type=forms.name)
@stored
async def remove(store: Store, name: str) -> Output:
    """Remove the delegate NAME, once nothing refers to it any more."""
    await store.remove("delegate", name)
    return Output({"removed": name}, words=(f"delegate {name} is removed",))


def _reached(delegate: Delegate) -> str:
    """The kind of callback and the one setting that tells most."""
    shape = shapes.callback(delegate)
    return f"{shape['kind']} {_REACHED[delegate.kind].format(**shape)}"


_REACHED = {CallbackKind.SOAP: "{host}:{port}{path}", CallbackKind.SSH: "{user}@{host}:{port}",
            CallbackKind.HOSTED: "{user_name}", CallbackKind.LOCAL: "{program}"}


def _soap(callback: SoapCallback, address: str | None, callback_ca: Path | None, **hosted_only: object) -> Callback:
    _must_be_unsaid(hosted_only, _HOSTED_ONLY, "--hosted")
    anchor = None if callback_ca is None else certificates(callback_ca)
    return dataclasses.replace(callback, address=address, trust_anchor=anchor)


def _hosted(user_name: str, password_file: Path | None, password_prompt: bool, **soap_only: object) -> Callback:
    _must_be_unsaid(soap_only, _SOAP_ONLY, "--soap")
    if password_file is not None and password_prompt:
        raise click.UsageError("give either --password-file or --password-prompt")
    password = _asked() if password_prompt else _GENERATED if password_file is None else _password_in(password_file)
    try:
        Credential(_filled(user_name), Secret(_filled(password)))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return HostedCallback(user_name, Secret(password))


def _must_be_unsaid(said: dict[str, object], options: dict[str, str], goes_with: str) -> None:
    for key, option in options.items():
        if said.get(key):
            raise click.UsageError(f"{option} goes with {goes_with} only")


def _filled(pattern: str) -> str:
    """As long as it can become, so that no device is the first to find it too long."""
    for gap, longest in _LONGEST.items():
        pattern = pattern.replace(gap, longest)
    return pattern


def _asked() -> str:
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask for the password: use --password-file")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


def _password_in(path: Path) -> str:
    """The first line of a private file, or of standard input. Raises DelegatorError (CONFIGURATION)."""
    if str(path) == "-":
        text = sys.stdin.readline()
    else:
        content = _read(path, "password file")
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise DelegatorError(Kind.CONFIGURATION, f"password file {path} can be read by others",
                                 hint=f"chmod 600 {path}")
        text = content.decode("utf-8", "replace").partition("\n")[0]
    if "�" in text or not text.rstrip("\r\n"):
        raise DelegatorError(Kind.CONFIGURATION, f"{path} holds no password in UTF-8 on its first line",
                             hint="write it there, or leave --password-file away for random passwords")
    return text.rstrip("\r\n")


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"{what} {path}: {error.strerror}", hint="check the path") from None


def certificates(path: Path) -> str:
    """The certificates in a PEM file and nothing else of it. A file with a private key is refused: what is kept
    here goes out to devices. Raises DelegatorError (CONFIGURATION)."""
    content = _read(path, "certificate file")
    if b"PRIVATE KEY-----" in content:
        raise DelegatorError(Kind.CONFIGURATION, f"certificate file {path} holds a private key",
                             hint="give a file with certificates only; devices are sent what is in it")
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        found = x509.load_pem_x509_certificates(content)
    except ValueError:
        raise DelegatorError(Kind.CONFIGURATION, f"certificate file {path} holds no certificate in PEM",
                             hint=f"look at it with: openssl x509 -in {path} -noout -text") from None
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in found)
