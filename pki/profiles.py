"""The one table of what this authority may ever put into a certificate.

Lives here: `Profile` and the seven rows of `PROFILES`. Everything that differs between two kinds of
certificate is a column; the code that builds, lints, stores and shows them has no branch per kind.
Invariant: a profile is a constant. Whatever a requester sends (a PKCS#10 file, a tag list) can choose a
row and fill in names, and can change nothing else.
Must not live here: keys, signing, files.

Lifetimes. The authority lives 30 years: longer than any device it must vouch for. Device and shared
certificates live 20: a server is in service for about ten, may lie in a warehouse first, and must still be
able to introduce itself after being wiped and sold; nobody can renew it while it is switched off in a
box. (IEEE 802.1AR goes further and has initial device identities never expire.) Revocation, not
expiry, is what ends them early. Servers, delegates and mail live 397 days, because someone is there to renew.

Clocks. `notBefore` is back-dated a day: service processors often keep local time as if it were UTC, up to
14 hours off. A device whose clock restarted in 1970 finds every certificate "not yet valid"; no
back-dating can help that one, its client takes its own build time as the earliest possible now.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from pki import naming
from pki.errors import Kind, PkiError

BACKDATE: Final = timedelta(days=1)
YEAR: Final = timedelta(days=365)


class AltNames(enum.Enum):
    """What stands in subjectAltName (RFC 5280 section 4.2.1.6)."""

    NONE = "none"
    HOSTS = "dNSName, iPAddress"
    HOST_NAMES = "dNSName"
    MAIL = "rfc822Name"


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of certificate. `folder` is where it is stored, `whole_chain` whether the CA follows it."""

    name: str
    folder: str
    common_name: naming.Check
    alt_names: AltNames
    purposes: tuple[ObjectIdentifier, ...]
    key_usage: frozenset[str]
    lifetime: timedelta
    whole_chain: bool
    is_authority: bool = False

    def stem(self, name: str) -> str:
        """The file name, without ending, of this profile's certificate for `name` (checked here)."""
        return naming.file_stem(self.common_name(name))


_SIGN = frozenset({"digital_signature"})
_SERVER = ExtendedKeyUsageOID.SERVER_AUTH
_CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH

# digitalSignature alone, also for RSA: TLS 1.3 and every ECDHE suite sign. keyEncipherment would only
# serve the static RSA key exchange that the delegator does not offer.
_ROWS = (
    #        name               folder              common name            alternative names    purposes     key usage
    Profile("factory-ca", "", naming.authority_name, AltNames.NONE, (), frozenset({"key_cert_sign", "crl_sign"}),
            30 * YEAR, whole_chain=False, is_authority=True),
    Profile("delegator-server", "server", naming.host, AltNames.HOSTS, (_SERVER,), _SIGN,
            timedelta(days=397), whole_chain=True),
    Profile("delegate-server", "delegates", naming.host, AltNames.HOSTS, (_SERVER,), _SIGN,
            timedelta(days=397), whole_chain=True),
    Profile("delegate-client", "delegate-clients", naming.host_name, AltNames.HOST_NAMES, (_CLIENT,), _SIGN,
            timedelta(days=397), whole_chain=True),
    Profile("shared-device", "shared", naming.shared_name, AltNames.NONE, (_CLIENT,), _SIGN,
            20 * YEAR, whole_chain=False),
    Profile("device", "devices", naming.service_tag, AltNames.NONE, (_CLIENT,), _SIGN,
            20 * YEAR, whole_chain=False),
    Profile("mail-signer", "mail", naming.mailbox, AltNames.MAIL, (ExtendedKeyUsageOID.EMAIL_PROTECTION,), _SIGN,
            timedelta(days=397), whole_chain=True),
)  # fmt: skip

PROFILES: Final = MappingProxyType({row.name: row for row in _ROWS})

FACTORY_CA, DELEGATOR_SERVER, DELEGATE_SERVER, DELEGATE_CLIENT, SHARED_DEVICE, DEVICE, MAIL_SIGNER = _ROWS
LEAVES: Final = tuple(row for row in _ROWS if not row.is_authority)


def profile_named(profile: Profile | str) -> Profile:
    """The row itself, or the row with that name; USAGE if there is none."""
    if isinstance(profile, Profile):
        return profile
    if profile not in PROFILES:
        raise PkiError(Kind.USAGE, f"no profile called {profile!a}", "choose one of " + ", ".join(PROFILES))
    return PROFILES[profile]
