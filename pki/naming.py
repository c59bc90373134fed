"""What a name may look like, for each kind of name a certificate or a file can carry.

Lives here: pure checks that return the name in its one accepted form, or say what is wrong with it.
Invariant: a name that passes is at the same time safe as a common name and safe as a file name: no
separators, no control characters, no leading dot. Nothing is repaired silently except the letter case
of host names, which DNS ignores (RFC 4343); a service tag is compared byte for byte.
Must not live here: which profile wants which kind (profiles.py), or any file access.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final

from pki.errors import Kind, PkiError

COMMON_NAME_LIMIT: Final = 64
"""ub-common-name, RFC 5280 appendix A.1; counted in UTF-8 bytes, as the strictest readers do."""

SERVICE_TAG: Final = re.compile(r"[A-Z0-9]{5,20}")
"""Upper case only, so that no two spellings of one tag exist."""

BATCH: Final = re.compile(r"[a-z0-9-]{1,32}")
"""Lower case, and always behind `shared-device-`: can never be read as a service tag."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NUMERIC = re.compile(r"[0-9.]+|0x[0-9a-f]+")
_MAILBOX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")

SHARED_NAME: Final = "shared-device"


def service_tag(name: str) -> str:
    """The tag itself; raises REFUSED unless it matches `[A-Z0-9]{5,20}` from end to end."""
    if not SERVICE_TAG.fullmatch(name):
        raise _bad("service tag", name, "5 to 20 characters, A-Z and 0-9 only")
    return name


def shared_name(name: str) -> str:
    """`shared-device` or `shared-device-<batch>`."""
    if name == SHARED_NAME or (name.startswith(SHARED_NAME + "-") and BATCH.fullmatch(name[14:])):
        return name
    raise _bad("shared device name", name, "shared-device, or shared-device-BATCH with a batch of [a-z0-9-]{1,32}")


def host(name: str) -> str:
    """An IP address in its canonical form (an IPv4 address inside IPv6 is that IPv4 address), or a fully spelled host
    name in lower case."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return host_name(name)
    return str(getattr(address, "ipv4_mapped", None) or address)


def host_name(name: str) -> str:
    """A host name of letters, digits and hyphens (RFC 5280 section 4.2.1.6), never a wildcard.

    Names made of digits and dots are refused: `10.1` and `0x7f000001` are addresses to some
    resolvers and names to others, which is how a certificate ends up meaning two hosts.
    """
    lowered = name.lower()
    labels = lowered.split(".")
    if len(lowered) > 253 or _NUMERIC.fullmatch(lowered) or not all(map(_LABEL.fullmatch, labels)):
        raise _bad("host name", name, "letters, digits, hyphens and dots; no wildcard, international names as xn--")
    return lowered


def mailbox(name: str) -> str:
    """An address with a plain local part; the domain is lower-cased (RFC 5280 section 7.5)."""
    local, _, domain = name.partition("@")
    if not _MAILBOX.fullmatch(local) or ".." in local or local.endswith("."):
        raise _bad("mail address", name, "like provisioning@example.com")
    return f"{local}@{host_name(domain)}"


def authority_name(name: str) -> str:
    """Free text for a person to read: printable, no surrounding blanks."""
    if not name or name != name.strip() or not name.isprintable():
        raise _bad("authority name", name, "printable characters, no blanks at the ends")
    return name


def fitting_common_name(name: str) -> str:
    """The name again if it fits into a common name (64 bytes), else REFUSED."""
    if len(name.encode()) > COMMON_NAME_LIMIT:
        raise _bad("common name", name, "at most 64 bytes; put a short name first and long ones behind --alt")
    return name


def file_stem(name: str) -> str:
    """The file name for an accepted name; only an IPv6 address needs changing."""
    return name.replace(":", "-")


Check = Callable[[str], str]


def _bad(what: str, name: str, rule: str) -> PkiError:
    shown = ascii(name if len(name) <= 80 else name[:77] + "...")
    return PkiError(Kind.REFUSED, f"{shown} is not a valid {what}", f"use {rule}")
