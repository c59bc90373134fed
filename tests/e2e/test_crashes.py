"""R-once and R-durable: the delegator is killed at every step of a claim, and the device loses nothing.

After each crash: the device's retry gets an answer; any answer given before is the same as after; the delegate was
asked under one claim id only; nobody else ever gets the credential.
"""

from __future__ import annotations

import contextlib
import http.client
import time

import pytest

from delegator.model import ClaimState
from pki import Folder

from .conftest import Reply, World

SOAP_STEPS = ("before-open_claim", "after-open_claim", "before-obtain", "after-obtain", "before-issue", "after-issue",
              "before-_answer", "before-_written")
HOSTED_STEPS = ("before-open_and_issue", "after-open_and_issue", "before-_answer", "before-_written")


def first_try(world: World, tag: str) -> Reply | None:
    """The answer the device got before the crash, if any."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return world.ask(tag)
    return None


def impostor_gets_nothing(world: World, factory: Folder, tag: str) -> None:
    """The same tag with another key (the board was cloned): refused, whatever happened before."""
    if not (factory.path / "devices" / f"{tag}.crt").exists():
        raise AssertionError("the device must exist first")
    other = factory.path / "shared" / "shared-device.crt"
    reply = world.ask(tag, shown=(other, other.with_suffix(".key")), transaction="another-secret-0000")
    assert reply.fault in ("NotEntitled", "IdentityRejected")


@pytest.mark.parametrize(("step", "hosted"), [(step, False) for step in SOAP_STEPS]
                         + [(step, True) for step in HOSTED_STEPS])
def test_a_crash_loses_nothing_and_doubles_nothing(world: World, factory: Folder, step: str, hosted: bool) -> None:
    """A3, A8: killed at the step, restarted, asked again."""
    (world.host if hosted else world.own)("CRASH01")
    world.start(kill_at=step)
    before = first_try(world, "CRASH01")
    assert world.process is not None
    assert world.process.wait(10) == -9
    world.stop()

    world.start()
    after = world.ask("CRASH01")
    assert after.status == 200, after.body
    if before is not None:
        assert before.credential == after.credential
    assert after.credential == world.ask("CRASH01").credential
    impostor_gets_nothing(world, factory, "CRASH01")
    claims = world.store(lambda store: store.claims())
    assert [claim.state for claim in claims] == [ClaimState.ISSUED]
    if not hosted:
        assert set(world.delegate.given) == {claims[0].claim_id}
        assert after.credential == ("temp", world.delegate.given[claims[0].claim_id])


@pytest.mark.parametrize("step", ["before-confirm", "after-confirm"])
def test_a_confirmation_survives_a_crash(world: World, step: str) -> None:
    """A13: the device repeats it, the credential is wiped once, the delegate hears of it."""
    world.own("CRASH02")
    world.start(kill_at=step)
    claim = world.ask("CRASH02").text("ClaimId")
    with contextlib.suppress(OSError, http.client.HTTPException):
        world.confirm("CRASH02", claim)
    world.stop()

    world.start()
    assert world.confirm("CRASH02", claim).status == 200
    (kept,) = world.store(lambda store: store.claims())
    assert (kept.state, kept.sealed) == (ClaimState.CONFIRMED, None)
    until = time.monotonic() + 15
    while not world.delegate.deployed and time.monotonic() < until:
        time.sleep(0.02)
    assert set(world.delegate.deployed) == {(claim, "Deployed")}


@pytest.mark.parametrize(("step", "times"), [("before-notified", 2), ("after-notified", 1)])
def test_a_delegate_hears_of_the_end_through_a_crash(world: World, step: str, times: int) -> None:
    """A13: killed between what it heard and the note that it did, it is told again after the restart, and once noted
    no more. The device has had its answer and does nothing."""
    world.own("CRASH03")
    world.start(kill_at=step)
    claim = world.ask("CRASH03").text("ClaimId")
    with contextlib.suppress(OSError, http.client.HTTPException):
        world.confirm("CRASH03", claim)
    assert world.process is not None
    assert world.process.wait(10) == -9
    world.stop()
    assert world.delegate.deployed == [(claim, "Deployed")]

    world.start()
    until = time.monotonic() + 10
    while world.store(lambda store: store.unheard()) and time.monotonic() < until:
        time.sleep(0.05)
    assert world.delegate.deployed == [(claim, "Deployed")] * times
