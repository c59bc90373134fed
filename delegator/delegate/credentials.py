"""Temporary credentials: composed to fit the pickiest device, unique per claim.

User name: `p-` and ten of base32 (50 random bits), 12 characters; password: 20 characters with an upper-case and a
lower-case letter, a digit and one of `-_.`, the first a letter (about 110 bits). Older service processors take 16
and 20 characters at most and may want all four classes; none of these characters needs escaping in XML, a URL, a
shell or HTTP, and nothing can read the first one as an option.
Must not live here: keeping them (ledger), checking them (access).
"""

from __future__ import annotations

import secrets
import string
from datetime import datetime

from delegator.model import Credential, Secret

USER_NAME_PREFIX = "p-"
PASSWORD_LENGTH = 20
SPECIAL = "-_."
_BASE32 = string.ascii_lowercase + "234567"
_PLAIN = string.ascii_letters + string.digits
_CLASSES = (string.ascii_uppercase, string.ascii_lowercase, string.digits, SPECIAL)


def _some(alphabet: str, count: int) -> list[str]:
    return [secrets.choice(alphabet) for _ in range(count)]


def _password() -> str:
    first = secrets.choice(string.ascii_letters)
    rest = [secrets.choice(alphabet) for alphabet in _CLASSES]
    rest += _some(_PLAIN, PASSWORD_LENGTH - 1 - len(rest))
    secrets.SystemRandom().shuffle(rest)
    return first + "".join(rest)


def compose(not_after: datetime) -> Credential:
    """A new credential. Two calls never give the same."""
    return Credential(USER_NAME_PREFIX + "".join(_some(_BASE32, 10)), Secret(_password()), not_after)
