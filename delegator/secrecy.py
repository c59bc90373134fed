"""What only we may read: files, whether they are private and where the service manager keeps those it hands over, the
one secret of a file, and our own memory.

The invariant: a file that anybody else can read is not private, wherever it is.
Must not live here: what a file of one secret is (pki.text), what it is for (sealing, wire.tls, notify).
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

from delegator.errors import DelegatorError, Kind
from delegator.model import Secret
from pki.disk import read_regular, require_regular
from pki.text import NotText, secret_in

PREFIX = "credential:"
"""In front of a name in the settings: the file that systemd hands over under it (LoadCredential)."""
SERVICE = Path("/run/credentials/delegator.service")
"""Where it is for a command that is run beside the service, by the service's user or root."""
_HANDED_OVER = Path("/run/credentials")


def directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where systemd keeps the files that it hands over to us."""
    return Path(environment.get("CREDENTIALS_DIRECTORY") or SERVICE)


def located(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """The path that a setting means: `credential:NAME` is NAME among the files handed over, anything else is itself.
    Raises ValueError for a NAME that would lead out of them."""
    if not name.startswith(PREFIX):
        return name
    inner = name.removeprefix(PREFIX)
    if not inner or "/" in inner or inner in (".", ".."):
        raise ValueError(f"{name!r}: after {PREFIX} comes the name that LoadCredential= gives, without a slash")
    return str(directory(environment) / inner)


def is_private(path: Path) -> bool:
    """Whether nobody but us can read it. Raises OSError when it is not there, or no file: of a pipe or a folder the
    mode says nothing that would help.

    What systemd hands over belongs to root and is opened to us by an access control list, whose mask is shown
    where the group's bits are: there a bit for reading by the group says nothing about a group.
    """
    found = path.stat()
    require_regular(path, found)
    mode = stat.S_IMODE(found.st_mode)
    if not mode & 0o077:
        return True
    folders = {path.absolute().parent, path.absolute().parent.parent}
    handed_over = bool(folders & {directory(), _HANDED_OVER})
    return handed_over and found.st_uid == 0 and not mode & 0o037


def read_secret(path: Path, what: str, hint: str) -> Secret:
    """The one line of a private file, by the one rule of pki.text. `what` is what the file is to whoever named it,
    `hint` is for who has none. Raises DelegatorError (CONFIGURATION)."""
    try:
        private, content = is_private(path), read_regular(path)
    except OSError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"{what} {path}: {error.strerror}", hint=hint) from None
    if not private:
        raise DelegatorError(Kind.CONFIGURATION, f"{what} {path} can be read by others", hint=f"chmod 600 {path}")
    return secret_of(content, f"{what} {path}")


def secret_of(content: bytes, source: str) -> Secret:
    """The same of what came by another way. Raises DelegatorError (CONFIGURATION)."""
    try:
        return Secret(secret_in(content))
    except NotText as error:
        raise DelegatorError(Kind.CONFIGURATION, error.of(source), hint=error.hint) from None


_SET_DUMPABLE = 4  # linux/prctl.h


def keep_memory_private() -> None:
    """From here on no crash writes our memory to a disk, and no other process of our user may look into it: sealing
    key, private keys and the credentials of the moment are in there. A limit on cores alone does not do it, because a
    core that goes to a program (core_pattern with `|`, as systemd-coredump) knows no limit; a process that is not
    dumpable has none. What it starts is dumpable again, see callbacks.launch."""
    import contextlib
    import ctypes
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library: the limit has to do
            ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)
