"""The factory's certificate authority: every certificate of the product is made and judged here.

Lives here: the public names, and nothing else. Each is imported when it is asked for: how a file of text is read
(`pki.text`) is needed by every command of the delegator, the authority with all of `cryptography` by few.
Invariant: this package knows nothing of the delegator. The delegator imports these names; the command line
is `python -m pki`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pki.authority import Authority as Authority
    from pki.authority import Prepared as Prepared
    from pki.errors import EXIT_CODES as EXIT_CODES
    from pki.errors import Kind as Kind
    from pki.errors import PkiError as PkiError
    from pki.folder import Folder as Folder
    from pki.folder import Issued as Issued
    from pki.keys import KeyType as KeyType
    from pki.naming import BATCH as BATCH
    from pki.naming import SERVICE_TAG as SERVICE_TAG
    from pki.naming import SHARED_NAME as SHARED_NAME
    from pki.profiles import DELEGATE_CLIENT as DELEGATE_CLIENT
    from pki.profiles import DELEGATE_SERVER as DELEGATE_SERVER
    from pki.profiles import DELEGATOR_SERVER as DELEGATOR_SERVER
    from pki.profiles import DEVICE as DEVICE
    from pki.profiles import FACTORY_CA as FACTORY_CA
    from pki.profiles import MAIL_SIGNER as MAIL_SIGNER
    from pki.profiles import PROFILES as PROFILES
    from pki.profiles import SHARED_DEVICE as SHARED_DEVICE
    from pki.profiles import Profile as Profile
    from pki.revocation import Reason as Reason
    from pki.revocation import RevocationList as RevocationList
    from pki.trust import Refusal as Refusal
    from pki.trust import TrustStore as TrustStore
    from pki.trust import Verdict as Verdict
    from pki.trust import refusal_of as refusal_of

_ROOMS = {
    "authority": ("Authority", "Prepared"),
    "errors": ("EXIT_CODES", "Kind", "PkiError"),
    "folder": ("Folder", "Issued"),
    "keys": ("KeyType",),
    "naming": ("BATCH", "SERVICE_TAG", "SHARED_NAME"),
    "profiles": ("DELEGATE_CLIENT", "DELEGATE_SERVER", "DELEGATOR_SERVER", "DEVICE", "FACTORY_CA", "MAIL_SIGNER",
                 "PROFILES", "SHARED_DEVICE", "Profile"),
    "revocation": ("Reason", "RevocationList"),
    "trust": ("Refusal", "TrustStore", "Verdict", "refusal_of"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> object:
    room = _ROOM_OF.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(importlib.import_module(f"pki.{room}"), name)
    globals()[name] = found
    return found
