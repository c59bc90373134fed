"""The factory's certificate authority: every certificate of the product is made and judged here.

Lives here: the public names, each fetched from its room when it is asked for, so that a program which needs one small
room does not wait for all of them; and the one sentence for a Python that is too old, for which this file is written so
that any Python can read it.
Invariant: this package knows nothing of the delegator. The delegator imports these names; the command line
is `python -m pki`.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - whoever starts it need not have installed it
    sys.stderr.write("error: pki needs Python 3.11 or newer, and this is Python %d.%d\n"  # noqa: UP031
                     "  next: start it with a newer one, such as: python3.11 -m pki\n" % sys.version_info[:2])
    sys.exit(3)

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pki.authority import Authority, Prepared
    from pki.errors import EXIT_CODES, Kind, PkiError
    from pki.folder import Folder, Issued
    from pki.keys import KeyType
    from pki.naming import BATCH, SERVICE_TAG, SHARED_NAME
    from pki.profiles import (
        DELEGATE_CLIENT,
        DELEGATE_SERVER,
        DELEGATOR_SERVER,
        DEVICE,
        FACTORY_CA,
        MAIL_SIGNER,
        PROFILES,
        SHARED_DEVICE,
        Profile,
    )
    from pki.revocation import Reason, RevocationList
    from pki.trust import Refusal, TrustStore, Verdict, refusal_of

__all__ = [
    "BATCH",
    "DELEGATE_CLIENT",
    "DELEGATE_SERVER",
    "DELEGATOR_SERVER",
    "DEVICE",
    "EXIT_CODES",
    "FACTORY_CA",
    "MAIL_SIGNER",
    "PROFILES",
    "SERVICE_TAG",
    "SHARED_DEVICE",
    "SHARED_NAME",
    "Authority",
    "Folder",
    "Issued",
    "KeyType",
    "Kind",
    "PkiError",
    "Prepared",
    "Profile",
    "Reason",
    "Refusal",
    "RevocationList",
    "TrustStore",
    "Verdict",
    "refusal_of",
]
_ROOMS = {
    "authority": "Authority Prepared", "errors": "EXIT_CODES Kind PkiError", "folder": "Folder Issued",
    "keys": "KeyType", "naming": "BATCH SERVICE_TAG SHARED_NAME",
    "profiles": "DELEGATE_CLIENT DELEGATE_SERVER DELEGATOR_SERVER DEVICE FACTORY_CA MAIL_SIGNER PROFILES "
                "SHARED_DEVICE Profile",
    "revocation": "Reason RevocationList", "trust": "Refusal TrustStore Verdict refusal_of",
}


def __getattr__(name):
    # type: (str) -> object
    for room, names in _ROOMS.items():
        if name in names.split():
            return getattr(importlib.import_module("pki." + room), name)
    raise AttributeError("module 'pki' has no attribute " + repr(name))
