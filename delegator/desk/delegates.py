"""A delegate as people say it, and how it is reached: the forms of each way's fields, what must go together, and what
can be known of one here before a device depends on it.

The invariants: exactly one way is said; of one that is changed, what is not said keeps its value; what cannot work is
refused.
Must not live here: what a way itself refuses (model.ways), what it needs on this machine (callbacks), connecting to one
(reach), options and files (cli.reaching, cli.files).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from delegator.desk import contents, forms
from delegator.desk.refusals import Clash, Unfit
from delegator.desk.registering import PRIORITY, WEIGHT
from delegator.desk.sheets import Field, Range, Read, Sheet, many, switch, text
from delegator.errors import DelegatorError, Kind
from delegator.model import WAYS, Callback, CallbackWay, Delegate, Secret
from delegator.model.ways import Alone
from pki.text import NotText, secret_in

Fields = Mapping[str, Any]
PORT = Range(1, 65535)


# --- callbacks ----------------------------------------------------------------------------------------------------


def callback(way: CallbackWay, fields: Fields, before: Callback | None = None) -> Callback:
    """The callback, what is not said as it was before where that is of the same way. Raises ValueError for one that
    cannot work."""
    if before is not None and before.way is way:
        made = msgspec.structs.replace(before, **fields)
    else:
        fields = {**WAYS[way].unsaid, **fields}
        wanted = [one.name for one in msgspec.structs.fields(WAYS[way]) if one.required]
        missing = [name for name in wanted if name not in fields]
        if missing:
            raise Clash(f"missing {', '.join(f'{{{name}}}' for name in missing)}", at=missing[0])
        made = WAYS[way](**fields)
    check(made, fields)
    return made


def emptied(way: CallbackWay, fields: Iterable[str]) -> dict[str, Any]:
    """These fields as if they were never said."""
    unsaid = {one.name: one.default for one in msgspec.structs.fields(WAYS[way])}
    return {name: unsaid[name] for name in fields}


def check(one: Callback, said: Fields) -> None:
    """What can be known of it here, of which `said` was said now. Raises ValueError, Unfit where a file of this machine
    is not as it must be, DelegatorError (UNREACHABLE) where the way does not load."""
    from delegator.callbacks import calling

    try:
        one.check(said)
    except Alone as error:
        raise Clash(f"{{{error.field}}} needs {{{error.needs}}}", at=error.field) from None
    try:
        calling.way(one.way).check(one)
    except DelegatorError as error:
        if error.kind is not Kind.CONFIGURATION:
            raise
        raise Unfit(error.detail, error.hint) from None


def folder(path: str | Path) -> str:
    """Where a function of Python is found. Raises ValueError."""
    if not Path(path).is_dir():
        raise ValueError(f"{path} is not a folder")
    return str(Path(path).resolve())


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
_OF_WAY: dict[CallbackWay, dict[str, Field]] = {
    CallbackWay.SOAP: {
        **_HOST, "path": Field("path", text(forms.path)),
        "trust_anchor": Field("trust_anchor", _pasted(contents.anchors), empty=True)},
    CallbackWay.SSH: {
        **_HOST, "user": Field("user", text(forms.ssh_user)),
        "private_key": Field("private_key", _pasted(contents.private_key)),
        "host_key": Field("host_key", text(forms.host_key)), "command": Field("command", text(forms.ssh_command))},
    CallbackWay.HOSTED: {
        "user_name": Field("user_name", text(str)), "password": Field("password", _pasted(_password)),
        "mail_to": Field("mail_to", text(forms.mailbox), empty=True),
        "webhook_url": Field("webhook_url", text(forms.url), empty=True),
        "webhook_secret": Field("webhook_secret", _pasted(lambda content: contents.webhook_secret(_password(content))),
                                empty=True),
        "webhook_anchor": Field("webhook_anchor", _pasted(contents.anchors), empty=True)},
    CallbackWay.LOCAL: {
        "program": Field("program", text(forms.place)), "arguments": Field("arguments", many(forms.argument)),
        "python": Field("python", text(forms.function), empty=True)},
}


def _sheet(way: CallbackWay) -> Sheet[Callback]:
    needed = {one.name for one in msgspec.structs.fields(WAYS[way]) if one.required} - {*WAYS[way].unsaid}
    return Sheet(f"callback {way.value}", _OF_WAY[way], lambda fields: callback(way, fields), frozenset(needed))


REACHED: dict[CallbackWay, Sheet[Callback]] = {way: _sheet(way) for way in WAYS}
"""How a delegate is reached, by way. A local callback names a program on the delegator's own machine, and an SSH one a
key that is kept here: whether somebody may say such a thing at all is for each door to decide before it reads it."""


def _callback(value: object) -> Callback:
    """An object with its way as `kind`, as a delegate's shape has it. Raises ValueError."""
    if not isinstance(value, Mapping):
        raise ValueError("must be an object with a kind")
    known = {way.value: way for way in WAYS}
    way = known.get(str(value.get("kind")))
    if way is None:
        raise ValueError(f"kind must be one of {', '.join(known)}")
    return REACHED[way].read({name: said for name, said in value.items() if name != "kind"})


SHEET: Sheet[Delegate] = Sheet("delegate", {
    "name": Field("name", text(forms.name)), "customer": Field("customer", text(forms.name)),
    "callback": Field("callback", _callback), "url": Field("url", text(forms.url), empty=True),
    "trust_anchor": Field("trust_anchor", _pasted(contents.anchors), empty=True),
    "policy": Field("policy", text(forms.name), empty=True), "enabled": Field("enabled", switch),
    "priority": Field("priority", PRIORITY), "weight": Field("weight", WEIGHT),
}, lambda fields: Delegate(**fields), frozenset({"name", "customer", "callback"}))
