"""What a customer's own program answers: an XML document or a JSON object on standard output becomes a credential.

`<Credential><UserName/><Password/><NotAfter/>?<ServiceTag/>?</Credential>`, in our namespace or in none, or the same as
`{"user_name", "password", "not_after"?, "service_tag"?}`. Both are one mapping here, judged by one set of rules.
The invariants: a tag that the answer names is the one that was asked for; a refusal says what is wrong and shows no
value that the program wrote, because any of them may be the password.
Must not live here: running the program (ssh, local).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from delegator.model import Credential, Secret
from delegator.wire import xml
from delegator.wire.soap import FAULT_NAMESPACE
from pki.said import said
from pki.text import MARK, foreign
from pki.twice import said_twice

MAX_OUTPUT = xml.MAX_BYTES
"""Bytes on standard output, and the same again on standard error; an answer has about 200."""
_ELEMENTS = {"UserName": "user_name", "Password": "password", "NotAfter": "not_after", "ServiceTag": "service_tag"}
_OPTIONAL = frozenset(("not_after", "service_tag"))
"""Empty, they say nothing: a program that fills a template has no other way to leave one out."""
_BLANK = " \t\r\n"
_ZONED = msgspec.Meta(tz=True)


class NotAnAnswer(ValueError):
    """The output is no credential for this device; the text says why and shows none of it."""


class SaysNo(ValueError):
    """The program ran and ended with an exit code of its own: its answer for this device is no. What it says of it."""


def says_no(code: int | None) -> bool:
    """Whether an exit code is the program's own: 126 and 127 are the shell's, for what it cannot run, and from 128 on
    it tells of a signal (POSIX.1-2024, XCU 2.8.2)."""
    return code is not None and 0 < code < 126


class _Answer(msgspec.Struct, forbid_unknown_fields=True):
    user_name: str
    password: str
    not_after: Annotated[datetime, _ZONED] | None = None
    service_tag: str | None = None


def credential_in(output: bytes, tag: str) -> Credential:
    """The credential that a program wrote for the device `tag`. Raises NotAnAnswer."""
    output = output.removeprefix(MARK).strip()
    try:
        answer = msgspec.convert(_said(output) if output[:1] == b"{" else _from_xml(output), _Answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # both tell a place and a name, never a value
        raise NotAnAnswer(said(error)) from None
    if answer.service_tag not in (None, tag):
        raise NotAnAnswer(f"it answers for another device than {tag}")
    try:
        return Credential(answer.user_name, Secret(answer.password), answer.not_after)
    except ValueError as error:
        raise NotAnAnswer(str(error)) from None


def _said(output: bytes) -> dict[str, object]:
    """Raises NotAnAnswer for a name that stands there twice, as for an element of XML that does."""
    try:
        found = msgspec.json.decode(output, type=dict[str, object])
        twice = said_twice(output, found)
    except RecursionError:
        raise NotAnAnswer("its JSON is nested too deeply") from None
    if twice is not None:
        raise NotAnAnswer(f"{twice if twice in _ELEMENTS.values() else 'a name'} stands there twice")
    return _without_empty(found)


def _without_empty(values: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value != "" or name not in _OPTIONAL}


def _from_xml(output: bytes) -> dict[str, object]:
    if output[:1] != b"<":
        other = foreign(output)
        raise NotAnAnswer(f"it {other.why}" if other else "it is neither XML nor JSON" if output else
                          "there is nothing on standard output")
    try:
        root, marked = xml.read(output)
    except xml.NotXml as error:
        raise NotAnAnswer(f"its XML is not taken: {str(error).rpartition('; ')[2]}") from None  # drops the bytes shown
    if root.namespace not in ("", FAULT_NAMESPACE) or root.name != "Credential":
        raise NotAnAnswer(f"its XML is not a Credential in {FAULT_NAMESPACE} or in no namespace")
    if any(name != xml.NIL for _, _, attributes in marked for name in attributes):
        raise NotAnAnswer("its XML has attributes")
    return _without_empty(_values(root))


def _values(root: xml.Element) -> dict[str, object]:
    """The texts by the names of JSON. An outer blank of a name or a password counts, of the others it does not."""
    values: dict[str, object] = {}
    for child in root.children:
        name = _ELEMENTS.get(child.name)
        if name is None or child.namespace != root.namespace or child.children:
            raise NotAnAnswer(f"its Credential may hold {', '.join(_ELEMENTS)} and nothing else")
        if name in values:
            raise NotAnAnswer(f"{child.name} stands there twice")
        values[name] = child.text if name in ("user_name", "password") else child.text.strip(_BLANK)
    return values


# --- words --------------------------------------------------------------------------------------------------------


def first_line(errors: bytes) -> str:
    """The line of standard error that tells most, fit for a log: the first with words in it. Python's own
    complaint says what happened in its last."""
    lines = [line for line in errors.decode("utf-8", "backslashreplace").splitlines() if line.strip()] or [""]
    return said(lines[-1] if lines[0].startswith("Traceback (") else lines[0])
