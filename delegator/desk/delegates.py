"""A delegate as people say it, and how it is reached: the fields of its way in their forms, what must go together, and
what can be known of one here before a device depends on it.

The invariants: exactly one way is said; of one that is changed, what is not said keeps its value; what cannot work is
refused.
Must not live here: which fields a way has (model.ways), calling one (callbacks), options and files (cli.reaching,
cli.files).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from delegator.callbacks import calling
from delegator.desk import contents, forms
from delegator.desk.refusals import Clash, Unfit
from delegator.desk.registering import PRIORITY, WEIGHT
from delegator.desk.sheets import Field, Range, Read, Sheet, many, switch, text
from delegator.errors import DelegatorError
from delegator.model import WAYS, Callback, CallbackWay, Delegate, Secret
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
        missing = [name for name in _required(way) if name not in fields]
        if missing:
            raise Clash(f"missing {', '.join(f'{{{name}}}' for name in missing)}", at=missing[0])
        made = WAYS[way](**fields)
    check(made, fields)
    return made


def _required(way: CallbackWay) -> list[str]:
    return [one.name for one in msgspec.structs.fields(WAYS[way]) if one.required]


def unsaid(way: CallbackWay, field: str) -> object:
    """What a field holds that was never said."""
    return {one.name: one.default for one in msgspec.structs.fields(WAYS[way])}[field]


def check(one: Callback, said: Fields) -> None:
    """What can be known of it here, of which `said` was said just now. Raises ValueError, Unfit where a file of this
    machine is not as it must be."""
    for field, other in one.together.items():
        if getattr(one, field) is not None and getattr(one, other) is None:
            raise Clash(f"{{{field}}} needs {{{other}}}", at=field)
    one.check(said)
    try:
        calling.way(one.way).check(one)
    except DelegatorError as error:
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


_READ: dict[str, Read] = {
    "address": text(forms.address), "anchors": _pasted(contents.anchors), "function": text(forms.function),
    "host key": text(forms.host_key), "mailbox": text(forms.mailbox), "password": _pasted(_password),
    "path": text(forms.path), "place": text(forms.place), "port": PORT,
    "private key": _pasted(contents.private_key), "ssh command": text(forms.ssh_command),
    "ssh user": text(forms.ssh_user), "text": text(str), "url": text(forms.url),
    "webhook secret": _pasted(lambda content: contents.webhook_secret(_password(content))),
    "words": many(forms.argument)}
"""Each form that a field of a way names."""


def _sheet(way: CallbackWay) -> Sheet[Callback]:
    fields = {name: Field(name, _READ[form], empty=name not in _required(way) and unsaid(way, name) is None)
              for name, form in WAYS[way].forms.items()}
    return Sheet(f"callback {way.value}", fields, lambda said: callback(way, said),
                 frozenset(_required(way)) - {*WAYS[way].unsaid})


REACHED: dict[CallbackWay, Sheet[Callback]] = {way: _sheet(way) for way in CallbackWay}
"""How a delegate is reached, by way. A local callback names a program on the delegator's own machine, and an SSH one a
key that is kept here: whether somebody may say such a thing at all is for each door to decide before it reads it."""


def _callback(value: object) -> Callback:
    """An object with its way as `kind`, as a delegate's shape has it. Raises ValueError."""
    if not isinstance(value, Mapping):
        raise ValueError("must be an object with a kind")
    known = {way.value: way for way in CallbackWay}
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
