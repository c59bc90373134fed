"""Who gives a command, and from where, for the audit.

It is what the session says of itself: whoever owns the account can say otherwise. Give each operator an account of
their own, and let sudo, which sets SUDO_USER, lead to the delegator's.
Must not live here: what is kept of it (store).
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Mapping

from delegator.model.places import normal_address

_STRANGE = re.compile(r"[^A-Za-z0-9._@+-]")
_LONGEST = 64


def actor(environment: Mapping[str, str] = os.environ) -> str:
    """ "operator NAME", by SUDO_USER, else as the session is logged in, else by the account's number."""
    try:
        name = environment.get("SUDO_USER") or environment.get("LOGNAME") or getpass.getuser()
    except (KeyError, OSError):  # an account without a name
        name = str(os.getuid())
    return f"operator {_STRANGE.sub('_', name)[:_LONGEST]}"


def place(environment: Mapping[str, str] = os.environ) -> str:
    """The address that an SSH session comes from, else "local"."""
    said = (environment.get("SSH_CLIENT") or environment.get("SSH_CONNECTION") or "").split()
    try:
        return normal_address(said[0])
    except (IndexError, ValueError):
        return "local"
