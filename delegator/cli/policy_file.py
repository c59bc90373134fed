"""A policy in a file: a JSON object as `policies show --json` prints it.

The invariants: what `show` prints is read back as the same policy; everything that is wrong is told, not only the
first; what a file does not say is the safe choice.
Must not live here: options (policy_options), what a command does with a policy (policies).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import click

from delegator.cli import forms
from delegator.errors import DelegatorError, Kind
from delegator.model import CallbackWay, IdentityRule, Policy
from pki.text import NotText, decoded
from pki.twice import said_twice


@dataclass(frozen=True, slots=True)
class Written:
    """A policy as a file says it, and the approved list, where it has one."""

    policy: Policy
    approved: frozenset[str] | None = None
    said: Mapping[str, Any] = field(default_factory=dict)
    """The fields that the file names."""


def _text(form: Callable[[str], Any]) -> Callable[[object], Any]:
    def read(value: object) -> Any:
        if not isinstance(value, str):
            raise click.BadParameter("must be a string")
        return form(value)
    return read


def _many(form: Callable[[str], Any]) -> Callable[[object], Any]:
    def read(value: object) -> Any:
        if not isinstance(value, list):
            raise click.BadParameter("must be a list of strings")
        return tuple(_text(form)(one) for one in value)
    return read


def _number(least: int) -> Callable[[object], Any]:
    def read(value: object) -> Any:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise click.BadParameter(f"must be a number of at least {least}")
        return value
    return read


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise click.BadParameter("must be true or false")
    return value


def _identity(text: str) -> IdentityRule:
    if text not in (known := [rule.value for rule in IdentityRule]):
        raise click.BadParameter(f"must be one of {', '.join(known)}")
    return IdentityRule(text)


def _callback(text: str) -> CallbackWay:
    (kind,) = forms.callbacks(text)
    return kind


_FIELDS: dict[str, tuple[str, Callable[[object], Any]]] = {
    "name": ("name", _text(forms.name)), "identity": ("identity", _text(_identity)),
    "from": ("valid_from", _text(forms.moment)), "until": ("valid_until", _text(forms.moment)),
    "hours": ("hours", _many(forms.opening)), "networks": ("networks", _many(forms.network)),
    "domains": ("domains", _many(forms.domain)), "own_anywhere": ("own_anywhere", _switch),
    "approved_only": ("approved_only", _switch), "max_devices": ("max_devices", _number(0)),
    "claims_per_hour": ("claims_per_hour", _number(1)), "attempts": ("attempts", _number(1)),
    "lease": ("lease", _text(forms.duration)),
    "callbacks": ("callbacks", lambda value: frozenset(_many(_callback)(value))),
    "shared_by_domain": ("shared_by_domain", _switch), "custom_operations": ("custom_operations", _switch),
}
"""From a name in the file to the field of a policy and what reads it."""
_APPROVED = "approved"
_DERIVED = ("says", _APPROVED)
"""What `show` prints besides: the policy in words, and its list."""
_MAY_BE_NULL = ("from", "until", "max_devices", "claims_per_hour", "callbacks")


def read(content: bytes, name: str | None = None) -> Written:
    """The policy of a file; `name` is its name where the file does not say one, and must be it where it does. Raises
    DelegatorError (MALFORMED)."""
    try:
        text = decoded(content)
        found = json.loads(text)
        twice = said_twice(text, found)
    except NotText as error:
        raise _malformed([error.of("it")]) from None
    except (ValueError, RecursionError) as error:
        raise _malformed([f"not JSON: {error}"]) from None
    if not isinstance(found, dict):
        raise _malformed(["not a JSON object"])
    if twice is not None:
        raise _malformed([f"says {twice[:40]!a} twice"])
    wrong: list[str] = []
    fields = _fields(found, wrong)
    if name is not None and fields.setdefault("name", name) != name:
        wrong.append(f"name: the file says {fields['name']}, the command {name}")
    if "name" not in fields and not wrong:
        wrong.append("name: is missing")
    approved = _converted(_APPROVED, _many(forms.tag), found[_APPROVED], wrong) if _APPROVED in found else None
    if wrong:
        raise _malformed(wrong)
    return Written(_policy(fields), None if approved is None else frozenset(approved), fields)


def _fields(found: Mapping[str, object], wrong: list[str]) -> dict[str, Any]:
    wrong += [f"unknown name {name[:40]!a}; there are {', '.join(_FIELDS)}" for name in found
              if name not in _FIELDS and name not in _DERIVED]
    return {into: None if found[name] is None and name in _MAY_BE_NULL else _converted(name, form, found[name], wrong)
            for name, (into, form) in _FIELDS.items() if name in found}


def _converted(name: str, form: Callable[[object], Any], value: object, wrong: list[str]) -> Any:
    try:
        return form(value)
    except click.BadParameter as error:
        wrong.append(f"{name}: {error.message}")
        return None


def _policy(fields: Mapping[str, Any]) -> Policy:
    policy = Policy(**fields)
    if policy.valid_from is not None and policy.valid_until is not None and policy.valid_until <= policy.valid_from:
        raise _malformed(["until: is not after from"])
    return policy


def _malformed(wrong: list[str]) -> DelegatorError:
    return DelegatorError(Kind.MALFORMED, "the file is no policy: " + "; ".join(wrong), reasons=tuple(wrong),
                          hint="the form is what this prints: delegator policies show NAME --json")
