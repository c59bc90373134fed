"""Who is told how provisioning ended when a delegate fails: its no to one claim says nothing of the next, its silence
does (A10)."""

from __future__ import annotations

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.handshake import Peer
from delegator.model import CredentialRequest, Delegate, Deployment, Device, Secret
from delegator.trail import Trail

from .lab import PEER, SECRET, Lab, certificate

TAGS = ("ABC1234", "ABC1235")


@pytest.mark.parametrize(("kind", "tried", "told"), [
    (Kind.NOT_ENTITLED, 2, 1), (Kind.UNREACHABLE, 1, 0), (Kind.CONFIGURATION, 1, 0)])
async def test_a_delegates_no_to_one_claim_keeps_it_from_hearing_of_no_other(
        lab: Lab, monkeypatch: pytest.MonkeyPatch, kind: Kind, tried: int, told: int) -> None:
    await lab.own(*TAGS)
    for tag in TAGS:
        await lab.confirm(tag, (await lab.ask(tag)).claim)
        lab.clock.forward(seconds=1)
    heard: list[str] = []

    async def notify(deployment: Deployment, delegate: Delegate) -> None:
        heard.append(deployment.claim_id)
        if len(heard) == 1:
            raise DelegatorError(kind, "no")
    monkeypatch.setattr(lab.servers, "notify", notify)
    await lab.handshake.notify_delegates()
    assert len(heard) == tried
    waiting = [one.claim_id for one in await lab.store.unnotified()]
    assert len(waiting) == 2 - told
    assert heard[0] in waiting, "what was not heard is told again"


async def test_whoever_works_on_a_claim_of_another_customer_is_told_how_to_end_it(lab: Lab) -> None:
    await lab.own(TAGS[0])
    claim = (await lab.ask(TAGS[0])).claim
    await lab.store.remove_device(TAGS[0])
    await lab.own(TAGS[0], customer="umbra")
    with pytest.raises(DelegatorError) as raised:
        await lab.handshake.provision(CredentialRequest(Device(TAGS[0]), Secret(SECRET)),
                                      Peer(PEER, certificate(TAGS[0])), Trail("1f-1", PEER))
    assert (raised.value.kind, raised.value.detail, raised.value.hint) == (
        Kind.NOT_ENTITLED, f"claim {claim} is of customer acme", f"delegator claims release {TAGS[0]}")
