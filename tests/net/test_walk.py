"""T-B4: what one address may cost in questions to the DNS is a number, whatever its owner writes into its zone."""

from __future__ import annotations

import asyncio
import ipaddress

import pytest

from delegator.domains import MOST_DOMAINS, MOST_NAMES, DnsTrouble, Naming
from delegator.model.places import Address
from delegator.net.dns import Answer
from delegator.net.walk import Walk

HERE = ipaddress.ip_address("192.0.2.1")


class Zone:
    """Answers for an owner who has so many names for one address, each so deep, and confirms them all."""

    def __init__(self, names: int, deep: int) -> None:
        self.ptr = [(*(f"l{name}-{label}".encode() for label in range(deep)), b"evil", b"test")
                    for name in range(names)]
        self.asked = 0

    async def names(self, address: Address) -> Answer[tuple[bytes, ...]]:
        self.asked += 1
        return Answer(tuple(self.ptr), 60)

    async def addresses(self, name: str, version: int) -> Answer[Address]:
        self.asked += 1
        return Answer(() if name.startswith("provisioning-delegate.") else (HERE,), 60)


@pytest.mark.parametrize("names", [1, 3, 40])
@pytest.mark.parametrize("deep", [1, MOST_DOMAINS, 10])
async def test_TB4_one_address_costs_a_number_of_questions(names: int, deep: int) -> None:
    """Eight names of twelve labels cost 169 of them, and each new address the same again."""
    zone = Zone(names, deep)
    walk = Walk(zone, lambda name: "evil.test", Naming("provisioning-delegate"))  # type: ignore[arg-type]
    finding = await walk.finding(HERE)
    assert zone.asked <= 1 + MOST_NAMES + 2 * MOST_DOMAINS
    assert (finding.domain, finding.late) == (None, False), "it is remembered, and not asked again at once"
    assert ("in more than" in finding.because) == (deep > 1 and min(names, MOST_NAMES) * (deep - 1) + 1 > MOST_DOMAINS)


class Troubled(Zone):
    """The first name is trouble at once; the others would be asked about for ever."""

    asking = 0

    async def addresses(self, name: str, version: int) -> Answer[Address]:
        if name.startswith("l0"):
            raise DnsTrouble("nonsense")
        self.asking += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.asking -= 1
        raise AssertionError


async def test_TB4_a_look_up_that_is_given_up_leaves_no_question_behind() -> None:
    zone = Troubled(8, 1)
    walk = Walk(zone, lambda name: "evil.test", Naming("provisioning-delegate"))  # type: ignore[arg-type]
    with pytest.raises(DnsTrouble, match="nonsense"):
        await walk.finding(HERE)
    assert zone.asking == 0
