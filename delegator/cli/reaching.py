"""How a delegate is reached, from options: which option sets which field of which kind of callback.

The invariants: exactly one kind is named, or none for a delegate that is changed, which keeps it; an
option of another kind is a usage error before anything is read or asked; what is not named keeps its value where there
is one.
Must not live here: what a file may hold (files), the commands (delegates).
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from delegator.cli import console, files
from delegator.desk import forms
from delegator.errors import DelegatorError, Kind
from delegator.model import (
    CALLBACKS,
    Callback,
    CallbackKind,
    Credential,
    HostedCallback,
    LocalCallback,
    Secret,
    SshCallback,
)

SOAP, SSH, HOSTED, LOCAL = CallbackKind.SOAP, CallbackKind.SSH, CallbackKind.HOSTED, CallbackKind.LOCAL
Fields = dict[str, Any]
_GAP = re.compile(r"\{[^{}]*\}")
_LONGEST = {"{tag}": "T" * 20, "{random}": "r" * 20}


@dataclasses.dataclass(frozen=True, slots=True)
class Naming:
    """An option that names the kind, and the fields that its word fills."""

    option: str
    kind: CallbackKind
    fill: Callable[[Any], Fields]


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """An option that sets one field; `read` makes its value. Options that set the same field exclude each other."""

    option: str
    field: str
    kinds: tuple[CallbackKind, ...]
    read: Callable[[Any], object]


def _same(value: object) -> object:
    return value


def _unless_none(word: str) -> str | None:
    """`none` takes away what was set before."""
    return None if word == forms.NOBODY else word


def _folder(path: Path) -> str:
    if not path.is_dir():
        raise click.UsageError(f"{path} is not a folder")
    return str(path.resolve())


NAMING = {
    "soap": Naming("--soap", SOAP, lambda soap: {"host": soap.host, "port": soap.port, "path": soap.path}),
    "ssh": Naming("--ssh", SSH, lambda ssh: dict(zip(("user", "host", "port"), ssh, strict=True))),
    "hosted": Naming("--hosted", HOSTED, lambda user: {"user_name": user}),
    "local": Naming("--local", LOCAL, lambda path: {"program": str(path.absolute()), "python": None}),
    "local_python": Naming("--local-python", LOCAL, lambda name: {"python": name, "arguments": ()}),
}
SETTINGS = {
    "address": Setting("--address", "address", (SOAP, SSH), _same),
    "callback_ca": Setting("--callback-ca", "trust_anchor", (SOAP,), files.certificates),
    "password_file": Setting("--password-file", "password", (HOSTED,), files.password),
    "password_prompt": Setting("--password-prompt", "password", (HOSTED,), files.asked_password),
    "private_key_file": Setting("--private-key-file", "private_key", (SSH,), files.private_key),
    "host_key_file": Setting("--host-key-file", "host_key", (SSH,), files.host_key),
    "host_key": Setting("--host-key", "host_key", (SSH,), _same),
    "command": Setting("--command", "command", (SSH,), _same),
    "mail_to": Setting("--mail-to", "mail_to", (HOSTED,), _unless_none),
    "webhook_url": Setting("--webhook-url", "webhook_url", (HOSTED,), _unless_none),
    "webhook_secret_file": Setting("--webhook-secret-file", "webhook_secret", (HOSTED,), files.webhook_secret),
    "webhook_anchor": Setting("--webhook-anchor", "webhook_anchor", (HOSTED,), files.certificates),
    "argument": Setting("--argument", "arguments", (LOCAL,), tuple),
    "program": Setting("--program", "program", (LOCAL,), _folder),
}
_UNSAID: dict[CallbackKind, Fields] = {HOSTED: {"password": Secret("{random}")}}
"""Without a password of the customer's, each device gets one of its own."""


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of NAMING and SETTINGS, in the order in which help shows them."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


_FILE = click.Path(path_type=Path)
_FILE_OR_INPUT = click.Path(path_type=Path, allow_dash=True)
_OPTIONS = (
    click.option("--soap", type=forms.soap, metavar="HOST[:PORT][/path]", help="The customer's server; HOST is the "
                 "name in its certificate. Port 443 and path / unless said."),
    click.option("--callback-ca", type=_FILE, metavar="FILE",
                 help="Who signed that server's certificate (PEM), if not the factory CA."),
    click.option("--ssh", type=forms.ssh, metavar="USER@HOST[:PORT]", help="The customer's command over SSH."),
    click.option("--private-key-file", type=_FILE_OR_INPUT, metavar="FILE",
                 help="The key that lets us in there, without a pass phrase; kept sealed. - is standard input."),
    click.option("--host-key-file", type=_FILE_OR_INPUT, metavar="FILE",
                 help="That machine's host key, as scan-host-key writes it; no other is accepted."),
    click.option("--host-key", type=forms.host_key, metavar="LINE", help="The same as a word: 'ssh-ed25519 AAAA...'."),
    click.option("--command", type=forms.ssh_command, metavar="TEMPLATE", help="What to run there, with {tag}, {ip}, "
                 "{peer} and {claim}. 'getCred {tag} {ip}' unless said."),
    click.option("--address", type=forms.address, help="Where to connect, if not to HOST."),
    click.option("--hosted", metavar="USER", help="No server: its user is set here. {tag} becomes the service tag."),
    click.option("--password-file", type=_FILE_OR_INPUT, metavar="FILE",
                 help="Its password, or a pattern with {tag} and {random}; - is standard input. "
                      "Without one each device gets a random password."),
    click.option("--password-prompt", is_flag=True, help="Ask for the password on the terminal."),
    click.option("--mail-to", type=forms.mail_address, metavar="ADDRESS",
                 help="Whom to tell of each device, by signed mail; none for nobody."),
    click.option("--webhook-url", type=forms.webhook_url, metavar="URL",
                 help="Where to tell of each device, by a signed call (https); none for nowhere."),
    click.option("--webhook-secret-file", type=_FILE_OR_INPUT, metavar="FILE",
                 help="The secret that signs that call, 16 characters at least; - is standard input."),
    click.option("--webhook-anchor", type=_FILE, metavar="FILE",
                 help="Who signed that receiver's certificate (PEM), if not one of the system's authorities."),
    click.option("--local", type=_FILE, metavar="PROGRAM", help="An executable on this machine."),
    click.option("--argument", multiple=True, metavar="WORD", help="One of its arguments; may be repeated."),
    click.option("--local-python", type=forms.function, metavar="MODULE:FUNCTION",
                 help="A Python function on this machine, in the folder --program."),
    click.option("--program", type=_FILE, metavar="FOLDER", help="Where that module is."),
)


def named_kind(said: Mapping[str, Any]) -> CallbackKind | None:
    """The one kind that is named, if any."""
    named = [naming for key, naming in NAMING.items() if said[key] is not None]
    if len(named) > 1:
        raise click.UsageError(f"give one of {_listed(naming.option for naming in named)}")
    return named[0].kind if named else None


def fields_of(said: Mapping[str, Any], kind: CallbackKind) -> Fields:
    """What the options say about a callback of that kind. Reads files, asks for a password."""
    settings = [(setting, said[key]) for key, setting in SETTINGS.items() if said[key] not in (None, False, ())]
    for setting, _ in settings:
        if kind not in setting.kinds:
            fitting = _listed(one.option for one in NAMING.values() if one.kind in setting.kinds)
            raise click.UsageError(f"{setting.option} goes with {fitting} only")
        twins = [one.option for one, _ in settings if one.field == setting.field]
        if len(twins) > 1:
            raise click.UsageError(f"give one of {_listed(twins)}")
    fields: Fields = {}
    for key, naming in NAMING.items():
        if said[key] is not None:
            fields = naming.fill(said[key])
            wrong = [setting.option for setting, _ in settings if setting.field in fields]
            if wrong:
                raise click.UsageError(f"{wrong[0]} does not go with {naming.option}")
    return fields | {setting.field: setting.read(value) for setting, value in settings}


UNSET = ("address", "callback-ca", "mail-to", "webhook-url", "webhook-secret-file", "webhook-anchor", "argument")
"""Options whose field may be empty."""


def emptied(options: Iterable[str], kind: CallbackKind) -> Fields:
    """The fields that these options said, with nothing in them. Raises UsageError for those of another kind."""
    settings = [SETTINGS[name.replace("-", "_")] for name in options]
    for one in settings:
        if kind not in one.kinds:
            fitting = _listed(each.option for each in NAMING.values() if each.kind in one.kinds)
            raise click.UsageError(f"--unset {one.option[2:]} goes with {fitting} only")
    return {one.field: () if one.field == "arguments" else None for one in settings}


def made(kind: CallbackKind, fields: Fields, before: Callback | None) -> Callback:
    """The callback, what is not named as it was before. Raises UsageError for one that cannot work."""
    if type(before) is CALLBACKS[kind]:
        callback = msgspec.structs.replace(before, **fields)
    else:
        fields = _UNSAID.get(kind, {}) | fields
        wanted = [one.name for one in msgspec.structs.fields(CALLBACKS[kind]) if one.required]
        missing = [name for name in wanted if name not in fields]
        if missing:
            raise click.UsageError(f"missing {', '.join(map(_setting_for, missing))}")
        callback = CALLBACKS[kind](**fields)
    check(callback)
    if isinstance(callback, HostedCallback):
        _check_gaps(fields)
    return callback


def _check_gaps(fields: Fields) -> None:
    """What is said now names no gap that nobody fills: it would stand in every device as it is. In a password, which
    may hold any brace, only what is a gap in another spelling. What was registered once is served as it stands."""
    wrong = [one for one in _GAP.findall(fields.get("user_name", "")) if one not in _LONGEST]
    if "password" in fields:
        wrong += [one for one in _GAP.findall(fields["password"].reveal())
                  if one not in _LONGEST and re.sub(r"\s", "", one).lower() in _LONGEST]
    if wrong:
        raise click.UsageError(f"{console.plain(wrong[0][:40])} is not known; there are {' and '.join(_LONGEST)}")


def _setting_for(field: str) -> str:
    return _listed(setting.option for setting in SETTINGS.values() if setting.field == field)


def _listed(options: Any) -> str:
    return " or ".join(dict.fromkeys(options))


def check(callback: Callback) -> None:
    """What can be known of it here. Raises UsageError, DelegatorError (CONFIGURATION) for one that cannot work."""
    match callback:
        case HostedCallback():
            _check_hosted(callback)
        case SshCallback():
            _check_command(callback.command)
        case LocalCallback(python=None):
            _check_program(Path(callback.program))
        case LocalCallback():
            _folder(Path(callback.program))


def _check_hosted(callback: HostedCallback) -> None:
    """As long as both can become, so that no device is the first to find them too long."""
    filled = [callback.user_name, callback.password.reveal()]
    for gap, longest in _LONGEST.items():
        filled = [pattern.replace(gap, longest) for pattern in filled]
    try:
        Credential(filled[0], Secret(filled[1]))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if callback.webhook_url is not None and callback.webhook_secret is None:
        raise click.UsageError("--webhook-url needs --webhook-secret-file")


def _check_command(command: str) -> None:
    forms.ssh_command(command)


def _check_program(path: Path) -> None:
    """It runs as we do, so nobody else may be able to change it. Raises DelegatorError (CONFIGURATION)."""
    if not path.is_file() or not os.access(path, os.X_OK):
        raise DelegatorError(Kind.CONFIGURATION, f"{path} is not a program that can be run", hint=f"chmod +x {path}")
    if path.stat().st_mode & 0o022:
        raise DelegatorError(Kind.CONFIGURATION, f"{path} can be changed by others", hint=f"chmod go-w {path}")
