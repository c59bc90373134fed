"""How a delegate is reached, from options: those that the ways say of themselves (model.ways), as click wants them.

The invariants: exactly one way is named, or none for a delegate that is changed, which keeps it; an option of another
way is a usage error before anything is read or asked; what is not named keeps its value where there is one.
Must not live here: which options a way has (model.ways), what goes together (desk.delegates), what a file may hold
(desk.contents), the commands (delegates).
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
from delegator.model import WAYS, Callback, CallbackWay
from delegator.model.ways import Said

Fields = dict[str, Any]


def _same(value: object) -> object:
    return value


def _unless_none(word: str) -> str | None:
    """`none` takes away what was set before."""
    return None if word == forms.NOBODY else word


def _folder(path: Path) -> str:
    with as_usage():
        return delegates.folder(path)


@dataclasses.dataclass(frozen=True, slots=True)
class _Form:
    """How click takes what is given, and what makes the field's value of it."""

    taken: Mapping[str, Any]
    read: Callable[[Any], object] = _same


_FILE: dict[str, Any] = {"type": click.Path(path_type=Path)}
_FILE_OR_INPUT: dict[str, Any] = {"type": click.Path(path_type=Path, allow_dash=True)}
_FORMS = {
    "address": _Form({"type": typed(forms.address)}),
    "certificate file": _Form(_FILE, files.certificates),
    "file": _Form(_FILE),
    "folder": _Form(_FILE, _folder),
    "function": _Form({"type": typed(forms.function)}),
    "host key": _Form({"type": typed(forms.host_key)}),
    "host key file": _Form(_FILE_OR_INPUT, files.host_key),
    "mail address": _Form({"type": typed(forms.mail_address)}, _unless_none),
    "password file": _Form(_FILE_OR_INPUT, files.password),
    "password prompt": _Form({"is_flag": True}, files.asked_password),
    "private key file": _Form(_FILE_OR_INPUT, files.private_key),
    "soap": _Form({"type": typed(forms.soap)}),
    "ssh": _Form({"type": typed(forms.ssh)}),
    "ssh command": _Form({"type": typed(forms.ssh_command)}),
    "text": _Form({}),
    "webhook address": _Form({"type": typed(forms.webhook_url)}, _unless_none),
    "webhook secret file": _Form(_FILE_OR_INPUT, files.webhook_secret),
    "words": _Form({"multiple": True}, tuple)}
"""Each form that a way names."""


def _key(said: Said) -> str:
    """As click names the parameter of an option."""
    return said.option[2:].replace("-", "_")


_SAID = {_key(said): said for reached in WAYS.values() for said in reached.said}
NAMING = {_key(said): (way, said) for way, reached in WAYS.items() for said in reached.said if said.fill is not None}
SETTINGS = {key: said for key, said in _SAID.items() if said.fill is None}
UNSET = tuple(said.option[2:] for said in SETTINGS.values() if said.unset)
"""Options whose field may be empty."""


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of all ways, in the order in which help shows them."""
    for said in reversed(_SAID.values()):
        function = click.option(said.option, metavar=said.metavar, help=said.help, **_FORMS[said.form].taken)(function)
    return function


def named_way(said: Mapping[str, Any]) -> CallbackWay | None:
    """The one way that is named, if any."""
    named = [naming for key, naming in NAMING.items() if said[key] is not None]
    if len(named) > 1:
        raise click.UsageError(f"give one of {_listed(one.option for _, one in named)}")
    return named[0][0] if named else None


def _fitting(setting: Said) -> str:
    """The options that name a way which has this setting."""
    return _listed(one.option for way, one in NAMING.values() if setting in WAYS[way].said)


def fields_of(said: Mapping[str, Any], way: CallbackWay) -> Fields:
    """What the options say about a callback of that way. Reads files, asks for a password."""
    settings = [(setting, said[key]) for key, setting in SETTINGS.items() if said[key] not in (None, False, ())]
    for setting, _ in settings:
        if setting not in WAYS[way].said:
            raise click.UsageError(f"{setting.option} goes with {_fitting(setting)} only")
        twins = [one.option for one, _ in settings if one.field == setting.field]
        if len(twins) > 1:
            raise click.UsageError(f"give one of {_listed(twins)}")
    fields: Fields = {}
    for key, (_, naming) in NAMING.items():
        if said[key] is not None and naming.fill is not None:
            fields = naming.fill(said[key])
            wrong = [setting.option for setting, _ in settings if setting.field in fields]
            if wrong:
                raise click.UsageError(f"{wrong[0]} does not go with {naming.option}")
    return fields | {setting.field: _FORMS[setting.form].read(value) for setting, value in settings}


def emptied(options: Iterable[str], way: CallbackWay) -> Fields:
    """The fields that these options said, as if they were never said. Raises UsageError for those of another way."""
    settings = [SETTINGS[name.replace("-", "_")] for name in options]
    for one in settings:
        if one not in WAYS[way].said:
            raise click.UsageError(f"--unset {one.option[2:]} goes with {_fitting(one)} only")
    return {one.field: delegates.unsaid(way, one.field) for one in settings}


def made(way: CallbackWay, fields: Fields, before: Callback | None) -> Callback:
    """The callback, what is not named as it was before. Raises UsageError for one that cannot work, DelegatorError
    (CONFIGURATION) where a file on this machine is not as it must be."""
    with as_usage(lambda field: _setting_for(field, way)), as_configuration(""):
        return delegates.callback(way, fields, before)


def _setting_for(field: str, way: CallbackWay) -> str:
    return _listed(said.option for said in WAYS[way].said if said.field == field)


def _listed(options: Any) -> str:
    return " or ".join(dict.fromkeys(options))
