"""Identifiers that identify nobody: what a board's maker leaves in the firmware where a serial number or an address
should be. Thousands of machines say the same, so one must never find another's registration.

The words are those of dmidecode's and fwupd's bug trackers, and of SMBIOS tables seen in the field. Pure predicates:
reading a message leaves such a hint out, routing finds nothing by it, and whoever registers devices may refuse it.
Must not live here: what to do about one.
"""

from __future__ import annotations

import re

_WORDS = frozenset((
    "default", "defaultstring", "empty", "fillbyoem", "filledbyoem", "invalid", "na", "nil", "none", "noserial",
    "noserialnumber", "notapplicable", "notavailable", "notdefined", "notprovided", "notset", "notspecified", "null",
    "oem", "serial", "serialnumber", "sn", "systemserialnumber", "chassisserialnumber", "baseboardserialnumber",
    "boardserialnumber", "tbd", "tobefilled", "tobefilledbyoem", "undefined", "unknown", "unspecified", "123456",
    "1234567", "12345678", "123456789", "1234567890", "0123456789", "01234567", "012345678", "0123456"))
_ORNAMENT = re.compile(r"[^a-z0-9]+")
_REPEATED = 4
"""Of one and the same character, from so many on it is nobody's number; zeros, x and the like always."""
_BLANKS = frozenset("0xf-")


def is_placeholder_serial(text: str) -> bool:
    """Whether a serial number is one that firmware says where nobody wrote any."""
    said = text.lower()
    if said in _WORDS:
        return True
    if said.isalnum() and len(set(said)) > 1:  # what serial numbers look like
        return False
    plain = _ORNAMENT.sub("", said)
    if plain in _WORDS or not plain:
        return True
    return len(set(plain)) == 1 and (len(plain) >= _REPEATED or plain[0] in _BLANKS)


def is_placeholder_mac(text: str) -> bool:
    """Whether a MAC address (in its normal form) is no interface's: one pair six times, or a group's address, which
    no interface has for its own (IEEE 802, the lowest bit of the first pair)."""
    return int(text[:2], 16) & 1 == 1 or len(set(text.split(":"))) == 1
