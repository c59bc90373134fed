"""A policy in a file: a JSON object as `policies show --json` prints it.

The invariants: what `show` prints is read back as the same policy; everything that is wrong is told, not only the
first; what a file does not say is the safe choice.
Must not live here: the fields of a policy (policies), what a door does with one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from delegator.desk import forms
from delegator.desk.policies import SHEET
from delegator.desk.refusals import Clash
from delegator.desk.sheets import converted, many
from delegator.errors import DelegatorError, Kind
from delegator.model import Policy
from pki.text import NotText, decoded
from pki.twice import said_twice


@dataclass(frozen=True, slots=True)
class Written:
    """A policy as a file says it, and the approved list, where it has one."""

    policy: Policy
    approved: frozenset[str] | None = None
    said: Mapping[str, Any] = field(default_factory=dict)
    """The fields that the file names."""


_APPROVED = "approved"
_DERIVED = ("says", _APPROVED)
"""What `show` prints besides: the policy in words, and its list."""
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
    fields = SHEET.said({key: value for key, value in found.items() if key not in _DERIVED}, wrong)
    if name is not None and fields.setdefault("name", name) != name:
        wrong.append(f"name: the file says {fields['name']}, the command {name}")
    if "name" not in fields and not wrong:
        wrong.append("name: is missing")
    approved = converted(_APPROVED, many(forms.tag), found[_APPROVED], wrong) if _APPROVED in found else None
    if wrong:
        raise _malformed(wrong)
    try:
        policy = SHEET.make(fields)
    except Clash as error:
        raise _malformed([error.reason]) from None
    return Written(policy, None if approved is None else frozenset(approved), fields)


def _malformed(wrong: list[str]) -> DelegatorError:
    return DelegatorError(Kind.MALFORMED, "the file is no policy: " + "; ".join(wrong), reasons=tuple(wrong),
                          hint="the form is what this prints: delegator policies show NAME --json")
