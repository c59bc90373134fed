"""The factory's certificate authority: every certificate of the product is made and judged here.

Lives here: the public names, and nothing else.
Invariant: this package knows nothing of the delegator. The delegator imports these names; the command line
is `python -m pki`.
"""

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
