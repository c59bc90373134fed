"""Who is told how provisioning ended, when, and how many at once: each delegate at its own pace, at least once, never
lost (A8, A10, A13). The clock stands until a test moves it, so what is told here is told without it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from delegator.callbacks.guard import Limits
from delegator.errors import DelegatorError, Kind
from delegator.model import CredentialRequest, Delegate, Deployment, Device, Result, Secret
from delegator.provisioning import telling
from delegator.provisioning.handshake import Peer
from delegator.provisioning.telling import MOST, NOES, ROUND, Teller
from delegator.trail import Trail

from ..clock import today
from .lab import PEER, SECRET, Lab, certificate

TAGS = ("ABC1234", "ABC1235")
Answer = Callable[[str], Awaitable[None]]


class Server:
    """A customer's server that is told: what came, how much of it at once, and what it answers."""

    def __init__(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        self.heard: list[str] = []
        self.groups: list[int] = []
        self.answer: Answer | None = None
        self._inside = 0
        monkeypatch.setattr(lab.servers, "notify", self.notify)

    async def notify(self, deployment: Deployment, delegate: Delegate) -> None:
        self.heard.append(deployment.claim_id)
        self._inside += 1
        if self._inside == 1:
            self.groups.append(0)
        self.groups[-1] += 1
        try:
            await asyncio.sleep(0)
            if self.answer is not None:
                await self.answer(deployment.claim_id)
        finally:
            self._inside -= 1


@pytest.fixture
def server(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(lab, monkeypatch)


async def deployed(lab: Lab, *tags: str, customer: str = "acme") -> list[str]:
    """Devices that were served and have confirmed; their claims, the oldest first."""
    await lab.own(*tags, customer=customer)
    claims = []
    for tag in tags:
        claims.append((await lab.ask(tag)).claim)
        lab.clock.forward(seconds=1)
    for tag, claim in zip(tags, claims, strict=True):
        await lab.confirm(tag, claim)
    return claims


def tags(count: int, first: str = "TAG") -> list[str]:
    return [f"{first}{number:04}" for number in range(count)]


async def refuse(claim: str) -> None:
    raise DelegatorError(Kind.NOT_ENTITLED, "no")


async def fail(claim: str) -> None:
    raise DelegatorError(Kind.UNREACHABLE, "down")


async def look(lab: Lab) -> None:
    """As after a wake."""
    await lab.teller.look()
    await lab.teller.settled()


@pytest.mark.parametrize(("kind", "tried", "told"), [
    (Kind.NOT_ENTITLED, 2, 1), (Kind.UNREACHABLE, 1, 0), (Kind.CONFIGURATION, 1, 0)])
async def test_a_delegates_no_to_one_claim_keeps_it_from_hearing_of_no_other(
        lab: Lab, server: Server, kind: Kind, tried: int, told: int) -> None:
    await deployed(lab, *TAGS)

    async def first_is_wrong(claim: str) -> None:
        if len(server.heard) == 1:
            raise DelegatorError(kind, "no")
    server.answer = first_is_wrong
    await lab.tell()
    assert len(server.heard) == tried
    waiting = [one.claim_id for one in await lab.untold()]
    assert len(waiting) == 2 - told
    assert server.heard[0] in waiting, "what was not heard is told again"


async def test_a_fault_of_ours_in_one_call_loses_nothing_of_what_others_heard(
        lab: Lab, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    claims = await deployed(lab, *tags(3))

    async def third(claim: str) -> None:
        if claim == claims[2]:
            raise RuntimeError("of ours")
    server.answer = third
    await lab.tell()
    assert [one.claim_id for one in await lab.untold()] == [claims[2]]
    assert f"claim {claims[2]}: a fault of ours" in caplog.text


# --- a burst ------------------------------------------------------------------------------------------------------


async def test_A10_a_burst_is_told_at_once_by_a_few_calls_together_and_a_commit_each(
        lab: Lab, server: Server) -> None:
    """A look used to tell 20, and the next came after 5 s. It begins with one call and goes on as it is answered."""
    claims = await deployed(lab, *tags(100))
    before = lab.store.commits.done
    await look(lab)
    assert sorted(server.heard) == sorted(claims)
    assert server.heard[:3] == claims[:3]
    assert server.groups[:4] == [1, 2, 4, 8]
    assert max(server.groups) == MOST
    assert len(server.groups) <= 3 + 100 / MOST + 5, "at 20 ms each a thousand of them would take 2.6 s"
    assert lab.store.commits.done - before == len(server.groups)
    assert not await lab.untold()


async def test_a_slow_delegate_is_told_one_by_one(lab: Lab, server: Server) -> None:
    await deployed(lab, *tags(12))

    async def slowly(claim: str) -> None:
        lab.clock.forward(seconds=telling.BRISK + 0.1)
    server.answer = slowly
    await look(lab)
    assert server.groups == [1] * 12


async def test_A10_devices_that_ask_have_half_of_the_calls_to_themselves(lab: Lab, server: Server) -> None:
    lab.serve(limits=Limits(running=4))
    await deployed(lab, *tags(20))
    await look(lab)
    assert max(server.groups) == 2
    lab.serve(limits=Limits(running=1))
    await deployed(lab, *tags(5, "NEW"))
    await look(lab)
    assert server.groups[-5:] == [1] * 5


async def test_all_delegates_together_make_so_many_calls(lab: Lab, server: Server,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the first call of each."""
    monkeypatch.setattr(telling, "ALL", 3)
    await deployed(lab, *tags(40))
    await deployed(lab, *tags(40, "UMB"), customer="umbra")
    await look(lab)
    assert max(server.groups) <= 4 + 1
    assert not await lab.untold()


@pytest.mark.slow
async def test_A10_a_thousand_confirmations_are_told_within_5_s_of_the_last(lab: Lab, server: Server) -> None:
    """With the delegate answering in 10 ms, and 16 devices at a time confirming."""
    named = tags(1000)
    await lab.own(*named)
    given = {tag: (await lab.ask(tag)).claim for tag in named}

    async def in_10_ms(claim: str) -> None:
        await asyncio.sleep(0.01)
    server.answer = in_10_ms
    lab.teller = Teller(lab.store, lab.callbacks)
    lab.handshake._confirmed = lab.teller.wake
    running = asyncio.ensure_future(lab.teller.run())
    for at in range(0, len(named), 16):
        await asyncio.gather(*(lab.confirm(tag, given[tag]) for tag in named[at:at + 16]))
    loop = asyncio.get_running_loop()
    ended = loop.time()
    while await lab.untold():
        await asyncio.sleep(0.05)
    print(f"\ntold {loop.time() - ended:.2f} s after the last confirmation")
    assert loop.time() - ended < 5
    assert len(server.heard) == len(set(server.heard)) == 1000
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


# --- each delegate at its own pace --------------------------------------------------------------------------------


@asynccontextmanager
async def hanging(lab: Lab, server: Server, *claims: str) -> AsyncIterator[asyncio.Event]:
    """These are not answered before the event is set."""
    free = asyncio.Event()

    async def hang(claim: str) -> None:
        if claim in claims:
            await free.wait()
    server.answer = hang
    try:
        yield free
    finally:
        free.set()
        await lab.teller.settled()


async def some_turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0.001)


async def test_A10_a_delegate_that_hangs_keeps_no_other_from_hearing(lab: Lab, server: Server) -> None:
    """Neither what had ended when it was called, nor what ends while it hangs. A round used to last as long as the
    slowest delegate of it."""
    claims = await deployed(lab, *TAGS)
    (early,) = await deployed(lab, "UMB0001", customer="umbra")
    async with hanging(lab, server, *claims):
        await lab.teller.look()
        await some_turns()
        (late,) = await deployed(lab, "UMB0002", customer="umbra")
        await lab.teller.look()
        await some_turns()
        assert server.heard == [claims[0], early, late]
    assert sorted(server.heard) == sorted([*claims, early, late])


async def test_A10_a_delegate_that_fails_costs_one_call_a_look_of_the_clock(lab: Lab, server: Server) -> None:
    """However many wakes others' confirmations are. After the oldest the one behind it is tried."""
    claims = await deployed(lab, *tags(30))
    server.answer = fail
    for _ in range(5):
        await look(lab)
    assert server.heard == claims[:1]
    lab.clock.forward(seconds=ROUND)
    for _ in range(5):
        await look(lab)
    assert server.heard == claims[:2]
    server.answer = None
    lab.clock.forward(seconds=ROUND)
    await lab.tell()
    assert not await lab.untold()


async def test_a_claim_that_its_server_chokes_on_hides_no_other(lab: Lab, server: Server) -> None:
    """A server that answers 500 to one detail text would never hear of any device after that one."""
    claims = await deployed(lab, *tags(30))

    async def chokes(claim: str) -> None:
        if claim == claims[0]:
            await fail(claim)
    server.answer = chokes
    await look(lab)
    lab.clock.forward(seconds=ROUND)
    await look(lab)
    assert [one.claim_id for one in await lab.untold()] == claims[:1]
    lab.clock.forward(seconds=ROUND)
    await look(lab)
    assert server.heard.count(claims[0]) == 2, "it is tried again"


async def test_a_delegate_that_begins_to_fail_is_left_alone_after_that_group(lab: Lab, server: Server) -> None:
    claims = await deployed(lab, *tags(60))

    async def breaks(claim: str) -> None:
        if len(server.groups) > 3:
            lab.clock.forward(seconds=ROUND)  # meanwhile the clock looks, which is no reason to try again at once
            await fail(claim)
    server.answer = breaks
    await look(lab)
    await look(lab)
    assert server.groups == [1, 2, 4, 8]
    assert [one.claim_id for one in await lab.untold()][:1] == claims[7:8]


async def test_the_breaker_leaves_a_delegate_alone_and_nothing_is_lost(lab: Lab, server: Server) -> None:
    await deployed(lab, *tags(30))

    async def breaks(claim: str) -> None:
        if len(server.groups) > 3:
            await fail(claim)
    server.answer = breaks
    await look(lab)
    assert lab.breakers == [("acme-1", "open")]
    called = len(server.heard)
    await lab.tell()
    assert len(server.heard) == called
    server.answer = None
    lab.clock.forward(seconds=60)
    await lab.tell()
    assert not await lab.untold()


async def test_noes_hide_nothing_behind_them(lab: Lab, server: Server) -> None:
    """A walk hears so many and ends; the next one goes on behind them, and then all are tried anew."""
    claims = await deployed(lab, *tags(NOES + 9))

    async def but_the_last(claim: str) -> None:
        if claim != claims[-1]:
            await refuse(claim)
    server.answer = but_the_last
    await look(lab)
    assert NOES <= len(server.heard) < NOES + MOST + 5
    assert claims[-1] not in server.heard
    await look(lab)
    assert claims[-1] not in server.heard, "before the clock's next look it is called no more"
    await lab.tell()
    assert claims[-1] in server.heard
    server.heard.clear()
    server.answer = None
    await lab.tell()
    assert sorted(server.heard) == sorted(claims[:-1])


async def test_what_comes_while_a_delegate_is_told_is_told_too(lab: Lab, server: Server) -> None:
    """Also where it was asked for earlier than what was told last, and confirmed later."""
    await lab.own("ABC0000")
    old = (await lab.ask("ABC0000")).claim
    lab.clock.forward(seconds=1)
    claims = await deployed(lab, *TAGS)
    async with hanging(lab, server, claims[0]) as free:
        await lab.teller.look()
        await some_turns()
        await lab.confirm("ABC0000", old)
        await lab.teller.look()
        free.set()
        await lab.teller.settled()
        assert lab.teller._wake.is_set(), "whoever ends a walk looks again"
        await look(lab)
    assert server.heard == [claims[0], claims[1], old]


async def test_two_processes_do_not_go_through_one_backlog_side_by_side(lab: Lab, server: Server) -> None:
    """Who finds that the other was faster leaves it alone; what is told twice is one group at most."""
    claims = await deployed(lab, *tags(60))
    other = Teller(lab.store, lab.callbacks, lab.clock.seconds)
    await asyncio.gather(lab.teller.look(), other.look())
    await asyncio.gather(lab.teller.settled(), other.settled())
    await lab.tell()
    assert set(server.heard) == set(claims)
    assert len(server.heard) <= len(claims) + MOST
    assert not await lab.untold()


# --- what nobody can be told --------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["hosted", "ssh", "local"])
@pytest.mark.parametrize("result", ["Deployed", "Failed"])
async def test_A13_sixteen_confirmations_that_nobody_hears_are_one_commit_and_wake_nobody(
        lab: Lab, by: str, result: str) -> None:
    """0.0625 commits each, where each used to have one more of its own."""
    await lab.delegate("acme-9", by=by)
    named = tags(16)
    await lab.own(*named, delegate="acme-9")
    given = {tag: (await lab.ask(tag)).claim for tag in named}
    before = lab.store.commits.done, lab.store.commits.transactions
    replies = await asyncio.gather(*(lab.confirm(tag, claim, result) for tag, claim in given.items()))
    assert {reply.status for reply in replies} == {200}
    await lab.tell()
    assert (lab.store.commits.done - before[0], lab.store.commits.transactions - before[1]) == (1, 16)
    assert (lab.woken, await lab.untold()) == ([], [])
    assert {(await lab.claim(tag)).result for tag in named} == {Result(result)}


async def test_what_waits_for_a_delegate_that_is_gone_is_noted_by_the_page(lab: Lab) -> None:
    await deployed(lab, *tags(30, "UMB"), customer="umbra")
    for tag in tags(30, "UMB"):
        await lab.store.remove_device(tag, today())
    await lab.store.remove("delegate", "umbra-1", today())
    before = lab.store.commits.done
    await look(lab)
    assert lab.store.commits.done - before == 2
    assert not await lab.untold()


# --- its end ------------------------------------------------------------------------------------------------------


async def run_until_called(lab: Lab, server: Server) -> asyncio.Task[None]:
    running = asyncio.ensure_future(lab.teller.run())
    while not server.heard:
        await asyncio.sleep(0.001)
    return running


async def test_A13_what_is_heard_while_we_end_is_noted_and_nothing_is_told_twice(lab: Lab, server: Server) -> None:
    claims = await deployed(lab, *TAGS)
    async with hanging(lab, server, claims[0]) as free:
        running = await run_until_called(lab, server)
        running.cancel()
        await some_turns()
        assert not running.done()
        free.set()
        await asyncio.wait([running])
    assert [one.claim_id for one in await lab.untold()] == claims[1:]
    lab.teller = Teller(lab.store, lab.callbacks, lab.clock.seconds)
    await look(lab)
    assert server.heard == claims


async def test_A13_cut_off_in_the_middle_nothing_is_lost_and_one_group_at_most_is_told_again(
        lab: Lab, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between what a delegate heard and the commit that notes it, which a kill leaves undone."""
    claims = await deployed(lab, *tags(20))
    noted = lab.store.notified

    async def killed(some: object) -> int:
        if len(server.groups) == 4:
            raise asyncio.CancelledError
        return await noted(some)  # type: ignore[arg-type]
    monkeypatch.setattr(lab.store, "notified", killed)
    await lab.teller.look()
    await asyncio.wait(lab.teller._walks.values())
    monkeypatch.setattr(lab.store, "notified", noted)
    assert server.groups == [1, 2, 4, 8]
    lab.teller = Teller(lab.store, lab.callbacks, lab.clock.seconds)
    await look(lab)
    assert set(server.heard) == set(claims)
    assert sorted(one for one in claims if server.heard.count(one) > 1) == claims[7:15]
    assert not await lab.untold()


async def test_who_tells_goes_on_after_trouble_with_the_store(
        lab: Lab, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """And asks no more often for it."""
    claims = await deployed(lab, *TAGS)
    lab.clock.forward(seconds=ROUND)
    unheard, asked = lab.store.unheard, 0

    async def away() -> list[str]:
        nonlocal asked
        asked += 1
        raise DelegatorError(Kind.UNAVAILABLE, "no disk")
    monkeypatch.setattr(telling, "SOON", 0)
    monkeypatch.setattr(lab.store, "unheard", away)
    with caplog.at_level(logging.ERROR):
        running = asyncio.ensure_future(lab.teller.run())
        await some_turns()
    assert (asked, "telling delegates: no disk" in caplog.text) == (1, True)
    monkeypatch.setattr(lab.store, "unheard", unheard)
    lab.teller.wake()
    while len(server.heard) < len(claims):
        await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.wait([running])


async def test_whoever_works_on_a_claim_of_another_customer_is_told_how_to_end_it(lab: Lab) -> None:
    await lab.own(TAGS[0])
    claim = (await lab.ask(TAGS[0])).claim
    await lab.store.remove_device(TAGS[0], today())
    await lab.own(TAGS[0], customer="umbra")
    with pytest.raises(DelegatorError) as raised:
        await lab.handshake.provision(CredentialRequest(Device(TAGS[0]), Secret(SECRET)),
                                      Peer(PEER, certificate(TAGS[0])), Trail("1f-1", PEER))
    assert (raised.value.kind, raised.value.detail, raised.value.hint) == (
        Kind.NOT_ENTITLED, f"claim {claim} is of customer acme", f"delegator claims release {TAGS[0]}")
