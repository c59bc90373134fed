"""The forms that names and identifiers have. What does not match never reaches the store.

Must not live here: values.
"""

from __future__ import annotations

import ipaddress
import re

from delegator.model.places import HOST_NAME, normal_address

SERVICE_TAG = re.compile(r"[A-Z0-9]{5,20}")
"""A service tag, byte for byte. Checked before any look-up, so that look-alikes never reach the store."""
SERIAL_NUMBER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")
MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/+()-]{0,63}")
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""The name of a customer, delegate, rule or policy: what one can type in a shell without quoting."""
MAIL_ADDRESS = re.compile(r"(?=.{3,254}\Z)(?!.{65,}@)[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*@" + HOST_NAME.pattern)
"""A plain mailbox (RFC 5321 section 4.5.3.1): no quoting, no comment, no display name, no line break."""
TRANSACTION_ID = re.compile(r"[A-Za-z0-9._:-]{16,128}")
"""At least 16 characters: with a shared certificate this secret alone says which device a claim belongs to."""
CLAIM_ID = re.compile(r"[0-9a-f]{32}")
_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?!\Z)|\Z)){4}")
_NORMAL_MAC = re.compile(r"(?:[0-9A-F]{2}:){5}[0-9A-F]{2}")
_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-]?)(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}")


def must_match(pattern: re.Pattern[str], text: str, what: str) -> None:
    if pattern.fullmatch(text) is None:
        raise ValueError(f"{what} {text[:64]!a} is not of the form {pattern.pattern}")


def normal_mac(text: str) -> str:
    """A MAC address as `AA:BB:CC:DD:EE:FF`, from colons, dashes or none. Raises ValueError."""
    if _NORMAL_MAC.fullmatch(text) is not None:
        return text
    if _MAC.fullmatch(text) is None:
        raise ValueError(f"MAC address {text[:64]!a} is not six pairs of hexadecimal digits")
    digits = text.replace(":", "").replace("-", "").upper()
    return ":".join([digits[i:i + 2] for i in range(0, 12, 2)])


def normal_hint(text: str) -> str:
    """An IP address that a device says, in its normal form. Without a scope (`%eth0`): it means nothing on another
    host, and could hold any characters. Raises ValueError."""
    if _IPV4.fullmatch(text) is not None:  # the usual case, in a tenth of the time
        return text
    if getattr(ipaddress.ip_address(text), "scope_id", None) is not None:
        raise ValueError(f"IP address {text[:64]!a} has a scope")
    return normal_address(text)


def check_identifiers(service_tag: str | None, serial_number: str | None, model: str | None) -> None:
    """Those that are there must have their form. Raises ValueError."""
    if service_tag is not None:
        must_match(SERVICE_TAG, service_tag, "service tag")
    if serial_number is not None:
        must_match(SERIAL_NUMBER, serial_number, "serial number")
    if model is not None:
        must_match(MODEL, model, "model")


def normal_macs(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Each address once, in the normal form. Raises ValueError."""
    if len(addresses) == 1:
        return (normal_mac(addresses[0]),)
    return tuple(dict.fromkeys([normal_mac(one) for one in addresses]))
