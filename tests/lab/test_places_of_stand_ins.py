"""Where a device calls from counts for who stands in too: the DNS is asked where only a stand-in's policy needs it."""

from __future__ import annotations

import pytest

from .lab import PEER, Lab

TAG = "ABC1234"


@pytest.mark.parametrize(("host", "asked"), [("bmc.acme.example", ["acme-1", "acme-2"]),
                                             ("bmc.evil.example", ["acme-1"])])
async def test_a_stand_in_may_want_to_know_the_domain_where_the_first_does_not(
        lab: Lab, host: str, asked: list[str]) -> None:
    lab.serve(reverse_dns=True)
    lab.dns.host(PEER, host)
    await lab.policy("at home", domains=("acme.example",))
    await lab.delegate("acme-1", priority=1, replace=True)
    await lab.delegate("acme-2", priority=2, policy="at home")
    await lab.own(TAG)
    lab.servers.broken["acme-1"] = "down"
    await lab.ask(TAG)
    assert lab.servers.names == asked
    assert lab.dns.asked == [PEER]


async def test_the_first_delegates_domain_is_asked_for_whatever_a_stand_in_wants(lab: Lab) -> None:
    lab.serve(reverse_dns=True)
    lab.dns.host(PEER, "bmc.acme.example")
    await lab.policy("at home", domains=("acme.example",))
    await lab.delegate("acme-1", priority=1, policy="at home", replace=True)
    await lab.delegate("acme-2", priority=2)
    await lab.own(TAG)
    assert (await lab.ask(TAG)).credential[0] == "user of acme-1"
