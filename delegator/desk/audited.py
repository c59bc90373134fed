"""Words by which people name rows of the audit, and how old they may be. Each function takes a word and returns a
value, or raises ValueError.

Must not live here: forms of everything else (forms), reading the audit (store.audit.verbs).
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from delegator.store.audit.verification import Known

_HEAD = re.compile(r"(?P<chain>[^:\s]{1,200}):(?P<number>\d{1,18}):(?P<hash>[0-9a-f]{64})", re.ASCII)
_ROW = re.compile(r"((?P<chain>[^:\s]{1,200}):)?(?P<number>\d{1,18})", re.ASCII)
_AGE = re.compile(r"(\d{1,5})d", re.ASCII)


def head(text: str) -> Known:
    """CHAIN:NUMBER:HASH, as `verify` and the log tell it."""
    from delegator.store.audit.chain import Head
    from delegator.store.audit.verification import Known

    found = _HEAD.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:64]!a} must be CHAIN:NUMBER:HASH, as `delegator audit verify` tells it")
    return Known(found["chain"], Head(int(found["number"]), bytes.fromhex(found["hash"])), "--head")


def row(text: str) -> tuple[str, int]:
    """CHAIN:NUMBER, or the number alone in the chain `main`."""
    found = _ROW.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:64]!a} must be the number of a row, or CHAIN:NUMBER")
    return found["chain"] or "main", int(found["number"])


def age(text: str) -> timedelta:
    """A number of days, such as 400d."""
    found = _AGE.fullmatch(text)
    if found is None or found[1].strip("0") == "":
        raise ValueError(f"{text[:64]!a} must be a number of days, such as 400d")
    return timedelta(days=int(found[1]))
