"""How a delegate is reached, from options: which option sets which field of which kind of callback.

The invariants: exactly one kind is named, or none for a delegate that is changed, which keeps it; an
option of another kind is a usage error before anything is read or asked; what is not named keeps its value where there
is one.
Must not live here: which fields go together (desk.delegates), what a file may hold (desk.contents), the commands
(delegates).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from delegator.cli import files
from delegator.cli.parameters import as_configuration, as_usage, typed
from delegator.desk import delegates, forms
from delegator.model import Callback, CallbackKind

SOAP, SSH, HOSTED, LOCAL = CallbackKind.SOAP, CallbackKind.SSH, CallbackKind.HOSTED, CallbackKind.LOCAL
Fields = dict[str, Any]


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
    with as_usage():
        return delegates.folder(path)


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


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of NAMING and SETTINGS, in the order in which help shows them."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


_FILE = click.Path(path_type=Path)
_FILE_OR_INPUT = click.Path(path_type=Path, allow_dash=True)
_OPTIONS = (
    click.option("--soap", type=typed(forms.soap), metavar="HOST[:PORT][/path]",
                 help="The customer's server; HOST is the "
                 "name in its certificate. Port 443 and path / unless said."),
    click.option("--callback-ca", type=_FILE, metavar="FILE",
                 help="Who signed that server's certificate (PEM), if not the factory CA."),
    click.option("--ssh", type=typed(forms.ssh), metavar="USER@HOST[:PORT]", help="The customer's command over SSH."),
    click.option("--private-key-file", type=_FILE_OR_INPUT, metavar="FILE",
                 help="The key that lets us in there, without a pass phrase; kept sealed. - is standard input."),
    click.option("--host-key-file", type=_FILE_OR_INPUT, metavar="FILE",
                 help="That machine's host key, as scan-host-key writes it; no other is accepted."),
    click.option("--host-key", type=typed(forms.host_key), metavar="LINE",
                 help="The same as a word: 'ssh-ed25519 AAAA...'."),
    click.option("--command", type=typed(forms.ssh_command), metavar="TEMPLATE",
                 help="What to run there, with {tag}, {ip}, "
                 "{peer} and {claim}. 'getCred {tag} {ip}' unless said."),
    click.option("--address", type=typed(forms.address), help="Where to connect, if not to HOST."),
    click.option("--hosted", metavar="USER", help="No server: its user is set here. {tag} becomes the service tag."),
    click.option("--password-file", type=_FILE_OR_INPUT, metavar="FILE",
                 help="Its password, or a pattern with {tag} and {random}; - is standard input. "
                      "Without one each device gets a random password."),
    click.option("--password-prompt", is_flag=True, help="Ask for the password on the terminal."),
    click.option("--mail-to", type=typed(forms.mail_address), metavar="ADDRESS",
                 help="Whom to tell of each device, by signed mail; none for nobody."),
    click.option("--webhook-url", type=typed(forms.webhook_url), metavar="URL",
                 help="Where to tell of each device, by a signed call (https); none for nowhere."),
    click.option("--webhook-secret-file", type=_FILE_OR_INPUT, metavar="FILE",
                 help="The secret that signs that call, 16 characters at least; - is standard input."),
    click.option("--webhook-anchor", type=_FILE, metavar="FILE",
                 help="Who signed that receiver's certificate (PEM), if not one of the system's authorities."),
    click.option("--local", type=_FILE, metavar="PROGRAM", help="An executable on this machine."),
    click.option("--argument", multiple=True, metavar="WORD", help="One of its arguments; may be repeated."),
    click.option("--local-python", type=typed(forms.function), metavar="MODULE:FUNCTION",
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


UNSET = tuple(setting.option[2:] for setting in SETTINGS.values() if setting.field in delegates.MAY_BE_EMPTY)
"""Options whose field may be empty."""


def emptied(options: Iterable[str], kind: CallbackKind) -> Fields:
    """The fields that these options said, with nothing in them. Raises UsageError for those of another kind."""
    settings = [SETTINGS[name.replace("-", "_")] for name in options]
    for one in settings:
        if kind not in one.kinds:
            fitting = _listed(each.option for each in NAMING.values() if each.kind in one.kinds)
            raise click.UsageError(f"--unset {one.option[2:]} goes with {fitting} only")
    return {one.field: delegates.MAY_BE_EMPTY[one.field] for one in settings}


def made(kind: CallbackKind, fields: Fields, before: Callback | None) -> Callback:
    """The callback, what is not named as it was before. Raises UsageError for one that cannot work, DelegatorError
    (CONFIGURATION) where a file on this machine is not as it must be."""
    with as_usage(_setting_for), as_configuration(""):
        return delegates.callback(kind, fields, before)


def _setting_for(field: str) -> str:
    return _listed(setting.option for setting in SETTINGS.values() if setting.field == field)


def _listed(options: Any) -> str:
    return " or ".join(dict.fromkeys(options))
