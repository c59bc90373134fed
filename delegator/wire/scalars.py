"""Values without children: text to model value and back, each with its XSD type.

The invariant: `read` raises nothing but ValueError, and that never shows a secret; `read(write(value)) == value`.
Must not live here: element names (wire.messages).
"""

from __future__ import annotations

import base64
import enum
import operator
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from delegator.model import Secret


class Scalar(msgspec.Struct, frozen=True):
    """A value without children: text to value (raises ValueError) and back, and how the XSD tells it."""

    xsd: str
    read: Callable[[str], Any]
    write: Callable[[Any], str] = str
    facets: tuple[tuple[str, str], ...] = ()


_BLANK = " \t\r\n"  # XML 1.0 section 2.3
_BLANKS = re.compile("[ \t\r\n]+")


_stripped = operator.methodcaller("strip", _BLANK)


def token(pattern: re.Pattern[str] | None = None) -> Scalar:
    """Text whose outer blanks mean nothing; stacks that indent what they send put them there.

    The pattern is for the XSD. The model checks it, once; that is most of what reading a message costs.
    """
    return Scalar("token", _stripped, facets=(("pattern", pattern.pattern),) if pattern else ())


def exact(pattern: re.Pattern[str]) -> Scalar:
    """A token that is checked here, because not every value that holds it does."""

    def read(text: str) -> str:
        text = text.strip(_BLANK)
        if pattern.fullmatch(text) is None:
            raise ValueError(f"{text[:64]!a} is not of the form {pattern.pattern}")
        return text

    return Scalar("token", read, facets=(("pattern", pattern.pattern),))


def text(least: int, most: int) -> Scalar:
    """Text in which every blank counts."""

    def read(text: str) -> str:
        if not least <= len(text) <= most:
            raise ValueError(f"{len(text)} characters where {least} to {most} are wanted")
        return text

    return Scalar("string", read, read, (("minLength", str(least)), ("maxLength", str(most))))


def secret(scalar: Scalar) -> Scalar:
    """The same, kept out of sight. No refusal may show the text."""

    def read(text: str) -> Secret:
        try:
            return Secret(scalar.read(text))
        except ValueError:
            raise ValueError("not of the form the schema tells") from None

    return Scalar(scalar.xsd, read, lambda secret: scalar.write(secret.reveal()), scalar.facets)


_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")


def _read_time(text: str) -> datetime:
    """An xs:dateTime that says its zone; a naive time would be a guess."""
    text = text.strip(_BLANK)
    if _TIME.fullmatch(text) is None:
        raise ValueError(f"{text[:64]!a} is no xs:dateTime with a zone")
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text[:64]!a} is out of range") from None


def _write_time(time: datetime) -> str:
    if time.tzinfo is None:
        raise ValueError("a time without zone")
    return time.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def _read_base64(text: str) -> bytes:
    return base64.b64decode(_BLANKS.sub("", text), validate=True)


def _write_base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


def one_of(choices: type[enum.Enum]) -> Scalar:
    names = {str(choice.value): choice for choice in choices}

    def read(text: str) -> enum.Enum:
        choice = names.get(text.strip(_BLANK))
        if choice is None:
            raise ValueError(f"{text[:64]!a} is none of {', '.join(names)}")
        return choice

    return Scalar("token", read, lambda choice: str(choice.value), tuple(("enumeration", name) for name in names))


MAC = Scalar("token", _stripped, facets=(("pattern", "([0-9A-Fa-f]{2}[:-]?){5}[0-9A-Fa-f]{2}"),))
HOST = Scalar("token", _stripped, facets=(("maxLength", "253"),))
"""The model knows the form; its look-ahead has no words in XSD."""
ADDRESS = token()
URL = Scalar("anyURI", _stripped)
STRING = Scalar("string", str)
SECONDS = Scalar("unsignedInt", int)
TIME = Scalar("dateTime", _read_time, _write_time)
BASE64 = Scalar("base64Binary", _read_base64, _write_base64)
