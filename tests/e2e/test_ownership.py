"""A4, A8: factory reset, a new main board, another owner. Over real TLS, with the commands an operator gives."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from delegator.model import ClaimState, Customer, Delegate, IdentityRule, Policy, Registration
from delegator.store.audit.inspection import Wanted
from pki import Folder, Issued

from ..clock import today
from .conftest import ROOT, PretendDelegate, World
from .test_enrolment import Device, configure

TAG = "OWN0001"


@pytest.fixture
def initech(world: World, delegate_authority: Folder, factory: Folder) -> Iterator[PretendDelegate]:
    """The delegate of another customer, initech, that owns nothing yet; acme's own is world.delegate."""
    delegate = PretendDelegate(delegate_authority, factory)
    world.store(lambda store: store.add_customer(Customer("initech", "Initech"), today()))
    reach = world.reach(delegate, delegate_authority)
    world.store(lambda store: store.add_delegate(Delegate("initech-server", "initech", reach), today()))
    yield delegate
    delegate.close()


def command(world: World, *words: object, code: int = 0, script: tuple[str, ...] = ("-m", "delegator")) -> Any:
    """What a command of its own process answers, while the delegator runs."""
    done = subprocess.run([sys.executable, *script, "--config", str(world.root / "delegator.toml"), *map(str, words),
                           "--json"], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False,
                          env={**os.environ, "SSH_CLIENT": "198.51.100.9 50000 22"})
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if done.stdout else None


def claims(world: World, tag: str = TAG) -> list[ClaimState]:
    return [one.state for one in world.store(lambda store: store.claims(service_tag=tag))]


def rows(world: World, tag: str = TAG) -> list[Any]:
    found = world.store(lambda store: store.audit.list(Wanted(service_tag=tag), 100))
    return [one.entry for one in reversed(found)]


def test_A8_after_a_factory_reset_a_device_is_provisioned_anew_once_an_operator_says_so(world: World) -> None:
    world.own(TAG)
    world.start()
    first = world.ask(TAG)
    assert world.confirm(TAG, first.text("ClaimId")).status == 200
    assert world.ask(TAG).fault == "NotEntitled", "whoever has its key does not get a second credential by that"
    command(world, "claims", "release", TAG, "--because", "factory reset")
    second = world.ask(TAG)
    assert second.status == 200
    assert second.text("ClaimId") != first.text("ClaimId")
    assert second.credential != first.credential
    by_claim = [(one.act.value, one.actor.partition(" ")[0], one.peer) for one in rows(world) if one.claim_id]
    assert by_claim == [
        ("claim.asked", "device", "127.0.0.1"), ("claim.issued", "device", "127.0.0.1"),
        ("claim.confirmed", "device", "127.0.0.1"), ("claim.released", "operator", "198.51.100.9"),
        ("claim.asked", "device", "127.0.0.1"), ("claim.issued", "device", "127.0.0.1")]
    issued = next(one for one in rows(world) if one.act.value == "claim.issued")
    steps = [step[0] for step in issued.detail["trail"]["steps"]]
    assert steps[:2] == ["connected", "authenticated"]
    assert {"routed", "decided", "called_back"} <= set(steps), "the handshake's steps and timings stand in its row"


def test_A8_a_repaired_device_comes_with_its_new_certificate_and_the_old_board_gets_nothing(
        world: World, factory: Folder, device: Callable[[str], Issued], tmp_path: Path) -> None:
    tag = "REPAIR2"
    world.own(tag)
    world.start()
    old = tuple(Path(shutil.copy(path, tmp_path)) for path in world.paths(tag))
    assert world.confirm(tag, world.ask(tag, shown=old).text("ClaimId"), shown=old).status == 200
    renewed = factory.issue("device", tag, renew=True)
    assert renewed.key_path is not None
    new = (renewed.certificate_path, renewed.key_path)
    assert world.ask(tag, shown=new).fault == "NotEntitled", "a second key under a taken tag, until it is approved"
    command(world, "devices", "repair", tag, "--certificate", new[0], "--because", "ticket 4711")
    assert world.ask(tag, shown=old).fault == "NotEntitled"
    fresh = world.ask(tag, shown=new)
    assert fresh.status == 200
    assert world.confirm(tag, fresh.text("ClaimId"), shown=new).status == 200
    command(world, "claims", "release", tag)
    assert world.ask(tag, shown=old).fault == "NotEntitled", "not after a release either"
    assert world.ask(tag, shown=new).status == 200
    refused = [trail for trail in world.trails(tag) if trail["outcome"] == "NotEntitled"]
    assert any("that was replaced" in reason for trail in refused for reason in trail["reasons"])


@pytest.mark.counterpart("openssl")
def test_A8_a_repaired_device_that_was_enrolled_enrols_again_with_its_new_board(
        world: World, factory: Folder, shared: tuple[Path, Path]) -> None:
    """One command does it: the old board's own certificate is withdrawn, the shared one may speak once more."""
    configure(world, enabled=True, certificate=str(factory.ca_path), key=str(factory.key_path))
    world.store(lambda store: store.add_policy(Policy("either", identity=IdentityRule.EITHER), today()))
    world.store(lambda store: store.add_customer(Customer("globex", "Globex", policy="either"), today(), replace=True))
    world.host(TAG)
    world.start()
    old, new = Device(world, shared, TAG), Device(world, shared, TAG)
    first = old.ask()
    before = old.keep(first)
    assert old.confirm(first, own=True).status == 200
    assert new.ask(transaction="another-transaction-01").fault == "NotEntitled"
    command(world, "devices", "repair", TAG, "--because", "ticket 4712")
    second = new.ask(transaction="another-transaction-01")
    assert second.status == 200
    after = new.keep(second)
    assert after.serial_number != before.serial_number
    assert new.ask(own=True, request=None).credential == second.credential
    assert new.confirm(second, own=True).status == 200
    assert {one.revoked_at is None for one in world.store(lambda store: store.enrolments.of_tag(TAG))} == {True, False}


def test_A8_after_acceptance_only_the_new_owners_credential_comes(world: World, initech: PretendDelegate) -> None:
    world.own(TAG)
    world.start()
    first = world.ask(TAG)
    assert first.credential[1] in world.delegate.given.values()
    (offered,) = command(world, "transfers", "offer", TAG, "--to", "initech", "--because", "sold")
    assert world.ask(TAG).body == first.body, "offered, it is acme's still"
    asked_before = len(world.delegate.calls)
    command(world, "transfers", "accept", TAG, "--as", "initech")
    assert claims(world) == [ClaimState.RELEASED]
    second = world.ask(TAG)
    assert second.credential[1] in initech.given.values()
    assert second.text("URL") == f"https://localhost:{initech.port}/provisioning"
    assert len(world.delegate.calls) == asked_before, "the old owner's delegate is not asked any more"
    assert world.confirm(TAG, first.text("ClaimId")).fault == "NotEntitled", "nor can the old claim be ended"
    steps = command(world, "transfers", "show", offered["transfer_id"])["steps"]
    assert [(one["step"], one["customer"], one["peer"]) for one in steps] == [
        ("transfer.offered", "acme", "198.51.100.9"), ("transfer.accepted", "initech", "198.51.100.9")]


def test_A8_a_device_that_asks_while_it_changes_hands_gets_one_owners_answer(
        world: World, initech: PretendDelegate) -> None:
    """Ten devices ask all the time while they are accepted. No answer is of one owner and claimed for the other, and
    in the end all of them are the new owner's."""
    tags = [f"RACE000{number}" for number in range(10)]
    world.own(*tags)
    for tag in tags:
        world.paths(tag)
    world.start()
    stop, answers = threading.Event(), []

    def ask(tag: str) -> None:
        while not stop.is_set():
            reply = world.ask(tag)
            if reply.status == 200:
                answers.append((tag, reply.credential[1], reply.text("URL")))

    threads = [threading.Thread(target=ask, args=(tag,)) for tag in tags]
    command(world, "transfers", "offer", *tags, "--to", "initech")
    for thread in threads:
        thread.start()
    try:
        command(world, "transfers", "accept", *tags, "--as", "initech")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for tag, password, url in answers:
        owner = initech if password in initech.given.values() and url.endswith(f":{initech.port}/provisioning") else (
            world.delegate)
        assert url == f"https://localhost:{owner.port}/provisioning", tag
        assert password in owner.given.values()
    assert all(f":{initech.port}/" in (world.ask(tag).text("URL") or "") for tag in tags)


HALFWAY = """
import os, signal, sys
from delegator import engine
engine.load()
from delegator.store import transfers
transfers._end = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from delegator.cli import main
main()
"""


def test_A8_an_acceptance_that_is_killed_halfway_leaves_the_old_owner_with_everything(
        world: World, initech: PretendDelegate, tmp_path: Path) -> None:
    """After the registration has moved and the claim was released, before the commit."""
    world.own(TAG)
    world.start()
    first = world.ask(TAG)
    command(world, "transfers", "offer", TAG, "--to", "initech")
    script = tmp_path / "halfway.py"
    script.write_text(HALFWAY)
    command(world, "transfers", "accept", TAG, "--as", "initech", script=(str(script),), code=-signal.SIGKILL)
    assert world.ask(TAG).body == first.body
    assert claims(world) == [ClaimState.ISSUED]
    assert world.store(lambda store: store.ownership.device(TAG)).customer == "acme"
    assert [one.act.value for one in rows(world) if one.act.value.startswith("transfer.")] == ["transfer.offered"]
    command(world, "transfers", "accept", TAG, "--as", "initech")
    assert world.ask(TAG).credential[1] in initech.given.values()


def test_A4_a_returned_device_is_served_by_nobody_and_then_by_its_buyer(world: World, initech: PretendDelegate) -> None:
    world.own(TAG)
    world.start()
    assert world.ask(TAG).status == 200
    command(world, "devices", "return", TAG, "--because", "RMA 77")
    assert world.ask(TAG).fault == "NotEntitled"
    world.store(lambda store: store.add_devices([Registration("initech", TAG)], today(), replace=True))
    assert world.ask(TAG).credential[1] in initech.given.values()


def test_A4_an_offer_that_nobody_ends_is_ended_by_housekeeping(world: World, initech: PretendDelegate) -> None:
    import time
    from datetime import UTC, datetime, timedelta

    world.own(TAG)
    now = datetime.now(UTC)
    world.store(lambda store: store.ownership.offer([(TAG, "0" * 32)], "initech", now + timedelta(seconds=1), now))
    world.believes_after = 3.0  # one look at the clock ends nothing
    world.start()
    until = time.monotonic() + 30
    while command(world, "transfers", "list")[0]["state"] == "offered" and time.monotonic() < until:
        time.sleep(0.5)
    assert command(world, "transfers", "list")[0]["state"] == "lapsed"
    assert rows(world)[-1].actor == "delegator"
