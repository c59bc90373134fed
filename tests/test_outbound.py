"""Outbound safety (T-B5): which addresses a customer can make the delegator connect to."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegator.model.places import reached
from delegator.outbound import Outbound, networks

FORBIDDEN = ["127.0.0.1", "127.8.8.8", "0.0.0.0", "::1", "::", "169.254.169.254", "fe80::1%eth0", "10.1.2.3",
             "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.100.100.200", "fd00:ec2::254", "fc00::1",
             "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
             "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1",
             "64:ff9b:1::8.8.8.8", "64:ff9b:1:808:8:800::", "::127.0.0.1", "::0.0.0.2", "::ffff:0:10.0.0.1",
             "2001:0:808:808::80ff:fffe", "2001:0:a00:1::f7f7:f7f7", "2001:db9::5efe:127.0.0.1",
             "2001:db9::200:5efe:a00:1", "100::1", "5f00::1", "2001:2::1"]
OPEN = ["8.8.8.8", "172.32.0.1", "192.169.0.1", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808",
        "::8.8.8.8", "::ffff:0:8.8.8.8", "2002:808:808::1", "2001:0:808:808::f7f7:f7f7", "2001:db9::5efe:808:808"]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_inside_addresses_are_refused_with_a_reason(address: str) -> None:
    assert "[outbound] allow" in (Outbound().refusal(address, 443) or "")


@pytest.mark.parametrize("address", OPEN)
def test_public_addresses_are_open(address: str) -> None:
    assert Outbound().refusal(address, 443) is None


def test_an_operator_can_allow_a_network_but_never_the_delegators_own_ports() -> None:
    lab = Outbound(networks(("127.0.0.0/8", "::1/128", "10.0.0.0/8")), frozenset({4433}))
    assert lab.refusal("127.0.0.1", 8443) is None
    assert lab.refusal("10.0.0.1", 4433) is None
    assert lab.refusal("192.168.0.1", 443) is not None
    for own in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert "delegator itself" in (lab.refusal(own, 4433) or "")


@given(st.ip_addresses(v=4))
def test_no_wrapping_changes_the_answer(address: ipaddress.IPv4Address) -> None:
    bare = Outbound().refusal(str(address), 443)
    packed = int(address)
    for wrapped in (f"::ffff:{address}", f"64:ff9b::{packed >> 16:x}:{packed & 0xffff:x}",
                    f"2002:{packed >> 16:x}:{packed & 0xffff:x}::1", f"::ffff:0:{address}"):
        assert reached(wrapped) == (address,)
        assert Outbound().refusal(wrapped, 443) == bare


def shaped(outer: str, address: ipaddress.IPv4Address, at: tuple[int, ...], turned: bool = False) -> str:
    """An IPv6 address with the bytes of an IPv4 one at these places."""
    packed = bytearray(ipaddress.IPv6Address(outer).packed)
    for place, byte in zip(at, address.packed, strict=True):
        packed[place] = byte ^ (255 if turned else 0)
    return str(ipaddress.IPv6Address(bytes(packed)))


@given(st.ip_addresses(v=4).filter(lambda one: int(one) > 1), st.sampled_from([4433, 443]))
def test_TB5_whatever_ends_at_an_ipv4_address_is_judged_by_it_even_where_its_outside_is_allowed(
        address: ipaddress.IPv4Address, port: int) -> None:
    rule = Outbound(networks(("64:ff9b:1::/48", "2000::/3")), frozenset({4433}))
    bare = rule.refusal(str(address), port)
    ways = [("64:ff9b:1::", (6, 7, 9, 10), False), ("64:ff9b:1:7::", (7, 9, 10, 11), False),
            ("64:ff9b:1:7::", (9, 10, 11, 12), False), ("64:ff9b:1:7:0:1::", (12, 13, 14, 15), False),
            ("::", (12, 13, 14, 15), False), ("2001:0:808:808:0:1234::", (12, 13, 14, 15), True),
            ("2001:4860:1:2:0:5efe::", (12, 13, 14, 15), False), ("2001:4860:1:2:200:5efe::", (12, 13, 14, 15), False)]
    for outer, at, turned in ways:
        wrapped = shaped(outer, address, at, turned)
        if address not in ipaddress.ip_network("0.0.0.0/8"):  # a reading that no translator sends anywhere
            assert address in reached(wrapped), wrapped
        if bare is not None and address not in ipaddress.ip_network("0.0.0.0/8"):
            assert rule.refusal(wrapped, port) is not None, wrapped


@given(st.ip_addresses(v=6))
def test_TB5_an_address_always_ends_somewhere(address: ipaddress.IPv6Address) -> None:
    assert reached(str(address))


def test_what_is_no_address_is_an_error_and_not_a_permission() -> None:
    for text in ("localhost", "0x7f000001", "2130706433", "127.1", ""):
        with pytest.raises(ValueError, match="does not appear"):
            Outbound().refusal(text, 443)
