"""The command that a customer's machine runs: a template of theirs, filled with what a device said.

The invariant: no character that a device can choose means anything to a shell. Three walls, each enough alone: a tag
is letters and digits, an address is printed by `ipaddress`, a claim is our own hexadecimal number; each is quoted on
top; and a template that plainly makes one the name of a command, a variable or a file is refused at registration.
Must not live here: connections (ssh_session).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

from delegator.model import CLAIM_ID, SERVICE_TAG, DelegateRequest, places

MAX_COMMAND = 1000
_FIELD = re.compile(r"\{([A-Za-z_]+)\}")
"""Other braces are the customer's own (`awk '{ print }'`)."""
_NAMING = tuple("$;|&(){!<>`\\")
"""After one of these, blanks apart, a word is the name of a variable, a command or a file."""


def check_command(template: str) -> None:
    """What a registration refuses. Raises ValueError."""
    if not 1 <= len(template) <= MAX_COMMAND or not template.isprintable():
        raise ValueError(f"a command has 1 to {MAX_COMMAND} printable characters")
    for found in _FIELD.finditer(template):
        before = template[:found.start()].rstrip()
        if found[1] not in _VALUES:
            raise ValueError(f"{found[0]} is not known; there are {', '.join(f'{{{name}}}' for name in _VALUES)}")
        if not before or before.endswith(_NAMING):
            raise ValueError(f"{found[0]} may be an argument, not the name of a command, a variable or a file")


def command_for(template: str, request: DelegateRequest) -> str:
    """The command for one claim. Raises ValueError for a value that is not there or not of its form."""
    check_command(template)
    return _FIELD.sub(lambda found: shlex.quote(_VALUES[found[1]](request)), template)


def _tag(request: DelegateRequest) -> str:
    return _of_form(SERVICE_TAG, request.device.service_tag, "service tag")


def _claim(request: DelegateRequest) -> str:
    return _of_form(CLAIM_ID, request.claim_id, "claim id")


def _ip(request: DelegateRequest) -> str:
    """Where the device says it is, or else where it called from."""
    return _address(request.location.ip_address or request.peer_address)


def _peer(request: DelegateRequest) -> str:
    return _address(request.peer_address)


_VALUES: dict[str, Callable[[DelegateRequest], str]] = {"tag": _tag, "ip": _ip, "peer": _peer, "claim": _claim}


def _of_form(pattern: re.Pattern[str], text: str, what: str) -> str:
    if pattern.fullmatch(text) is None:
        raise ValueError(f"the {what} is not of its form")
    return text


def _address(text: str) -> str:
    """In its plainest form. The scope of a link-local peer is dropped: it names an interface of this machine."""
    try:
        return str(places.address(text))
    except ValueError:
        raise ValueError("the device's address is not known") from None
