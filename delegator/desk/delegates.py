"""A delegate as people say it, and how it is reached: the fields of each kind of callback, what must go together, and
what can be known of one here before a device depends on it.

The invariants: exactly one kind of callback is said; of one that is changed, what is not said keeps its value; a
password or user name names no gap that nobody fills; what cannot work is refused.
Must not live here: connecting to one (reach), calling one (callbacks), options and files (cli.reaching, cli.files).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from delegator.desk import contents, forms
from delegator.desk.refusals import Clash, Unfit
from delegator.desk.registering import PRIORITY, WEIGHT
from delegator.desk.sheets import Field, Range, Read, Sheet, many, switch, text
from delegator.model import (
    CALLBACKS,
    Callback,
    CallbackKind,
    Credential,
    Delegate,
    HostedCallback,
    LocalCallback,
    Secret,
    SshCallback,
)
from pki.said import visible
from pki.text import NotText, secret_in

Fields = Mapping[str, Any]
SOAP, SSH, HOSTED, LOCAL = CallbackKind.SOAP, CallbackKind.SSH, CallbackKind.HOSTED, CallbackKind.LOCAL
PORT = Range(1, 65535)
MAY_BE_EMPTY = {"address": None, "trust_anchor": None, "mail_to": None, "webhook_url": None, "webhook_secret": None,
                "webhook_anchor": None, "arguments": ()}
"""Fields of callbacks that may be taken back, with what is there then."""
_UNSAID: dict[CallbackKind, Fields] = {HOSTED: {"password": Secret("{random}")}}
"""Without a password of the customer's, each device gets one of its own."""
_GAP = re.compile(r"\{[^{}]*\}")
_LONGEST = {"{tag}": "T" * 20, "{random}": "r" * 20}


# --- callbacks ----------------------------------------------------------------------------------------------------


def callback(kind: CallbackKind, fields: Fields, before: Callback | None = None) -> Callback:
    """The callback, what is not said as it was before where that is of the same kind. Raises ValueError for one that
    cannot work."""
    if type(before) is CALLBACKS[kind]:
        made = msgspec.structs.replace(before, **fields)
    else:
        fields = {**_UNSAID.get(kind, {}), **fields}
        wanted = [one.name for one in msgspec.structs.fields(CALLBACKS[kind]) if one.required]
        missing = [name for name in wanted if name not in fields]
        if missing:
            raise Clash(f"missing {', '.join(f'{{{name}}}' for name in missing)}", at=missing[0])
        made = CALLBACKS[kind](**fields)
    check(made)
    if isinstance(made, HostedCallback):
        _check_gaps(fields)
    return made


def _check_gaps(fields: Fields) -> None:
    """What is said now names no gap that nobody fills: it would stand in every device as it is. In a password, which
    may hold any brace, only what is a gap in another spelling. What was registered once is served as it stands."""
    wrong = [one for one in _GAP.findall(fields.get("user_name", "")) if one not in _LONGEST]
    if "password" in fields:
        wrong += [one for one in _GAP.findall(fields["password"].reveal())
                  if one not in _LONGEST and re.sub(r"\s", "", one).lower() in _LONGEST]
    if wrong:
        raise ValueError(f"{visible(wrong[0][:40])} is not known; there are {' and '.join(_LONGEST)}")


def check(one: Callback) -> None:
    """What can be known of it here. Raises ValueError, Unfit where a file of this machine is not as it must be."""
    match one:
        case HostedCallback():
            _check_hosted(one)
        case SshCallback():
            forms.ssh_command(one.command)
        case LocalCallback(python=None):
            _check_program(Path(one.program))
        case LocalCallback():
            folder(one.program)


def _check_hosted(one: HostedCallback) -> None:
    """As long as both can become, so that no device is the first to find them too long."""
    filled = [one.user_name, one.password.reveal()]
    for gap, longest in _LONGEST.items():
        filled = [pattern.replace(gap, longest) for pattern in filled]
    Credential(filled[0], Secret(filled[1]))
    if one.webhook_url is not None and one.webhook_secret is None:
        raise Clash("{webhook_url} needs {webhook_secret}", at="webhook_url")


def folder(path: str | Path) -> str:
    """Where a function of Python is found. Raises ValueError."""
    if not Path(path).is_dir():
        raise ValueError(f"{path} is not a folder")
    return str(Path(path).resolve())


def _check_program(path: Path) -> None:
    """It runs as we do, so nobody else may be able to change it. Raises Unfit."""
    if not path.is_file() or not os.access(path, os.X_OK):
        raise Unfit(f"{path} is not a program that can be run", f"chmod +x {path}")
    if path.stat().st_mode & 0o022:
        raise Unfit(f"{path} can be changed by others", f"chmod go-w {path}")


# --- sheets -------------------------------------------------------------------------------------------------------


def _pasted(read: Callable[[bytes], Any]) -> Read:
    """A field whose text is what a file would hold."""
    return text(lambda said: read(said.encode(errors="surrogateescape")))


def _password(content: bytes) -> Secret:
    try:
        return Secret(secret_in(content))
    except NotText as error:
        raise ValueError(error.of("it")) from None


_HOST = {"host": Field("host", text(forms.address)), "port": Field("port", PORT),
         "address": Field("address", text(forms.address), empty=True)}
_OF_KIND: dict[CallbackKind, dict[str, Field]] = {
    SOAP: {**_HOST, "path": Field("path", text(forms.path)),
           "trust_anchor": Field("trust_anchor", _pasted(contents.anchors), empty=True)},
    SSH: {**_HOST, "user": Field("user", text(forms.ssh_user)),
          "private_key": Field("private_key", _pasted(contents.private_key)),
          "host_key": Field("host_key", text(forms.host_key)), "command": Field("command", text(forms.ssh_command))},
    HOSTED: {"user_name": Field("user_name", text(str)), "password": Field("password", _pasted(_password)),
             "mail_to": Field("mail_to", text(forms.mailbox), empty=True),
             "webhook_url": Field("webhook_url", text(forms.url), empty=True),
             "webhook_secret": Field("webhook_secret", _pasted(lambda content: contents.webhook_secret(
                 _password(content))), empty=True),
             "webhook_anchor": Field("webhook_anchor", _pasted(contents.anchors), empty=True)},
    LOCAL: {"program": Field("program", text(forms.place)), "arguments": Field("arguments", many(forms.argument)),
            "python": Field("python", text(forms.function), empty=True)},
}


def _sheet(kind: CallbackKind) -> Sheet[Callback]:
    needed = {one.name for one in msgspec.structs.fields(CALLBACKS[kind]) if one.required} - {*_UNSAID.get(kind, {})}
    return Sheet(f"callback {kind.value}", _OF_KIND[kind], lambda fields: callback(kind, fields), frozenset(needed))


REACHED: dict[CallbackKind, Sheet[Callback]] = {kind: _sheet(kind) for kind in CallbackKind}
"""How a delegate is reached, by kind. A local callback names a program on the delegator's own machine, and an SSH one a
key that is kept here: whether somebody may say such a thing at all is for each door to decide before it reads it."""


def _callback(value: object) -> Callback:
    """An object with its kind, as a delegate's shape has it. Raises ValueError."""
    if not isinstance(value, Mapping):
        raise ValueError("must be an object with a kind")
    known = {kind.value: kind for kind in CallbackKind}
    kind = known.get(str(value.get("kind")))
    if kind is None:
        raise ValueError(f"kind must be one of {', '.join(known)}")
    return REACHED[kind].read({name: said for name, said in value.items() if name != "kind"})


SHEET: Sheet[Delegate] = Sheet("delegate", {
    "name": Field("name", text(forms.name)), "customer": Field("customer", text(forms.name)),
    "callback": Field("callback", _callback), "url": Field("url", text(forms.url), empty=True),
    "trust_anchor": Field("trust_anchor", _pasted(contents.anchors), empty=True),
    "policy": Field("policy", text(forms.name), empty=True), "enabled": Field("enabled", switch),
    "priority": Field("priority", PRIORITY), "weight": Field("weight", WEIGHT),
}, lambda fields: Delegate(**fields), frozenset({"name", "customer", "callback"}))
