"""IPv4 addresses inside IPv6 ones: where a packet to such an address ends. Numbers alone, nothing is looked up.

Each form is one row: the network it stands in and where in it the four bytes are. What a prefix of this site's own
(RFC 6052 section 2.2) or of a provider (6rd, RFC 5969; MAP, RFC 7597) wraps, nobody can tell from the address.
The invariant: a form that leaves several readings has all of them here, since who judges takes the worst.
Must not live here: what an address is allowed (outbound), the same peer told in another way (places.address).
"""

from __future__ import annotations

import ipaddress

import msgspec

_V6 = ipaddress.IPv6Network
_V4 = ipaddress.IPv4Address


class _Form(msgspec.Struct, frozen=True):
    """Where the four bytes stand, each reading by itself; `alone`: nothing but them counts, so that the outer address
    is none of its own; `turned`: its bits are (RFC 4380 section 4)."""

    network: ipaddress.IPv6Network
    readings: tuple[tuple[int, int, int, int], ...]
    alone: bool = True
    turned: bool = False


_LAST = (12, 13, 14, 15)
_FORMS = (
    _Form(_V6("::ffff:0:0/96"), (_LAST,)),    # IPv4-mapped, RFC 4291 section 2.5.5.2
    _Form(_V6("::ffff:0:0:0/96"), (_LAST,)),  # IPv4-translated, RFC 2765 section 2.1
    _Form(_V6("64:ff9b::/96"), (_LAST,)),     # NAT64, RFC 6052 section 2.1
    # NAT64 of a site's own, RFC 8215: it chooses the length of its prefix, and each has its place for the bytes, around
    # the eighth (RFC 6052 section 2.2).
    _Form(_V6("64:ff9b:1::/48"), ((6, 7, 9, 10), (7, 9, 10, 11), (9, 10, 11, 12), _LAST), alone=False),
    _Form(_V6("2002::/16"), ((2, 3, 4, 5),)),  # 6to4, RFC 3056
    _Form(_V6("2001::/32"), (_LAST,), alone=False, turned=True),  # Teredo: the client
    _Form(_V6("2001::/32"), ((4, 5, 6, 7),), alone=False),        # Teredo: the server, which is asked the way
    _Form(_V6("::/96"), (_LAST,)),            # IPv4-compatible, RFC 4291 section 2.5.5.1; `::` and `::1` are not
)
_OWN = frozenset((0, 1))
_ISATAP = (0x00005EFE, 0x02005EFE)
"""The first half of the interface identifier, in any network (RFC 5214 section 6.1)."""
_NOWHERE = 256 ** 3
"""0.0.0.0/8: as one of several readings it says only that this reading is not the one."""


def inside(address: ipaddress.IPv6Address) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]:
    """Every address that a packet to this one may end at; itself where nothing else is wrapped in it."""
    if int(address) in _OWN:
        return (address,)
    forms = [form for form in _FORMS if address in form.network]
    found = [one for form in forms for one in _read(address.packed, form)]
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        found.append(_V4(address.packed[12:]))
    alone = any(form.alone for form in forms)
    return tuple(dict.fromkeys(found)) if alone else (address, *dict.fromkeys(found))


def _read(packed: bytes, form: _Form) -> list[ipaddress.IPv4Address]:
    mask = 0xFFFFFFFF if form.turned else 0
    numbers = [int.from_bytes(bytes(packed[at] for at in places)) ^ mask for places in form.readings]
    return [_V4(one) for one in numbers if len(numbers) == 1 or one >= _NOWHERE]
