"""Whether devices are served, in a whole delegator: every way not to be served is told, and nobody can feign one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.store import Store
from delegator.store.engines.sqlite.driver import SqliteDriver
from delegator.watching.served import Teller, Told, Verdict
from delegator.watching.view import LOOKED_UP

from .lab import SHARED, Lab, Wire, asking, certificate

CUSTOMERS = ("acme", "globex", "umbra")


async def fleet(lab: Lab, many: int = 24) -> list[str]:
    """So many devices, in turn of three customers."""
    tags = [f"FLEET{number:03}" for number in range(many)]
    for number, tag in enumerate(tags):
        await lab.own(tag, customer=CUSTOMERS[number % 3])
    return tags


async def look(lab: Lab, teller: Teller | None = None) -> Verdict:
    """As Watching does every two seconds."""
    tags = lab.answers.unknown(LOOKED_UP)
    if tags:
        lab.answers.learn(await lab.store.fleet.customers_of(tags))
    teller, now = teller or Teller(), time.monotonic()
    teller.look(list(lab.answers.seen(now).values()), now, lab.answers.why())
    return teller.verdict


def everywhere(lab: Lab, patch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    """Each store call of this name fails so."""
    async def fails(*_: Any, **__: Any) -> Any:
        raise error
    patch.setattr(Store, name, fails)


def delegates(lab: Lab, patch: pytest.MonkeyPatch) -> None:
    lab.servers.broken |= {"acme-1": "silence", "umbra-1": "silence"}


def stalled(lab: Lab, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SqliteDriver, "age", property(lambda _: 2.0))


def away(lab: Lab, patch: pytest.MonkeyPatch) -> None:
    everywhere(lab, patch, "about", DelegatorError(Kind.UNAVAILABLE, "the database is away"))


def full(lab: Lab, patch: pytest.MonkeyPatch) -> None:
    for name in ("open_claim", "open_and_issue"):
        everywhere(lab, patch, name, DelegatorError(Kind.UNAVAILABLE, "the disk is full"))


def fault(lab: Lab, patch: pytest.MonkeyPatch) -> None:
    everywhere(lab, patch, "about", RuntimeError("a bug"))


@pytest.mark.parametrize(("cause", "most"), [
    (delegates, Told.DELEGATE), (stalled, Told.HELD_UP), (away, Told.UNAVAILABLE), (full, Told.UNAVAILABLE),
    (fault, Told.UNAVAILABLE)], ids=lambda one: getattr(one, "__name__", ""))
async def test_TC15_devices_that_are_not_served_are_told_whatever_the_cause(
        lab: Lab, monkeypatch: pytest.MonkeyPatch, cause: Callable[[Lab, pytest.MonkeyPatch], None],
        most: Told) -> None:
    tags, teller = await fleet(lab), Teller()
    for tag in tags:
        assert (await lab.ask(tag)).fault is None
        await lab.store.ownership.release(tag, lab.clock.now())
    assert (await look(lab, teller)).serving
    with monkeypatch.context() as patch:
        cause(lab, patch)
        for tag in tags:
            await lab.ask(tag)
    verdict = await look(lab, teller)
    assert verdict.most is most
    assert verdict.devices == 24
    lab.servers.broken.clear()
    lab.clock.forward(minutes=10)
    for tag in tags:
        await lab.ask(tag)
    assert (await look(lab, teller)).serving


async def test_TC15_strangers_and_unsold_devices_and_thieves_turn_nothing(
        lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody who is not a registered device asks in every way there is, while everything fails."""
    tags = await fleet(lab)
    unsold = [f"UNSOLD{number:02}" for number in range(40)]
    for cause in (stalled, away, fault):
        with monkeypatch.context() as patch:
            cause(lab, patch)
            for tag in tags:
                await lab.ask(tag, shown=SHARED)
                await lab.ask(tag, shown="UNSOLD01")
                await lab.post(asking(tag), Wire(None))
                await lab.post(asking(tag), Wire(certificate(tag, "UNSOLD01")))
                await lab.post(b"nonsense", Wire(certificate(tag)))
            for tag in unsold:
                await lab.ask(tag)
        verdict = await look(lab)
        assert (verdict.serving, verdict.devices, verdict.unserved) == (True, 0, {})


async def test_TC15_unsold_devices_that_say_what_rules_and_registrations_ask_for_turn_nothing(lab: Lab) -> None:
    """A model and a serial number are only said: the delegates of two customers are kept busy with it, and dead."""
    await lab.rule("acme", "acme-1", model="M1")
    await lab.rule("umbra", "umbra-1", model="M2")
    lab.servers.broken |= {"acme-1": "silence", "umbra-1": "silence"}
    for number in range(60):
        await lab.ask(f"UNSOLD{number:02}", model=f"M{number % 2 + 1}")
    assert (await look(lab)).devices == 0


async def test_TC15_one_customer_with_a_dead_delegate_and_a_hundred_devices_is_told_by_its_own_words(lab: Lab) -> None:
    lab.servers.broken["acme-1"] = "silence"
    for number in range(100):
        await lab.own(f"ACME{number:03}")
        assert (await lab.ask(f"ACME{number:03}")).fault == "TryLater"
    assert (await look(lab)).serving, "it is alone, and it is its own delegate"
    for number in range(5):
        await lab.own(f"GLOB{number:03}", customer="globex")
        assert (await lab.ask(f"GLOB{number:03}")).fault is None
    verdict = await look(lab)
    assert (verdict.serving, verdict.unserved) == (True, {"acme": Told.DELEGATE})


async def test_TC15_what_stood_behind_it_is_in_the_log_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    tags, teller = await fleet(lab), Teller()
    with monkeypatch.context() as patch:
        away(lab, patch)
        for tag in tags:
            await lab.ask(tag)
    lab.answers.learn(await lab.store.fleet.customers_of(lab.answers.unknown(LOOKED_UP)))
    now = time.monotonic()
    (line,) = teller.look(list(lab.answers.seen(now).values()), now, lab.answers.why())
    assert "the database is away" in line
    assert "the database is away" not in str(teller.unserved(now))
