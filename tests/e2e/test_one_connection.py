"""A whole device on one connection, with a real delegator: what is counted there, and that a confirmation may be said
twice (A12, A13)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from delegator.model import ClaimState
from delegator.store.audit.inspection import Wanted

from .conftest import World, confirmation
from .operating import wait_for

ROOT = Path(__file__).parents[2]


def activate(world: World, tag: str, state: Path, *more: str) -> str:
    certificate, key = world.paths(tag)
    done = subprocess.run(
        [sys.executable, "-m", "delegator.device", "activate", "--once", "--json", "--tag", tag, "--delegator",
         f"localhost:{world.port}", "--certificate", certificate, "--key", key, "--ca", world.factory.ca_path,
         "--state", state, "-v", *more], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcome"] == "ready"
    return done.stderr


def connections(world: World, tag: str, count: int) -> list[tuple[str, str]]:
    """Of each call of a device, what it was and on which connection: the delegator numbers its TLS handshakes."""
    until = time.monotonic() + 5
    while len(world.trails(tag)) < count and time.monotonic() < until:
        time.sleep(0.05)
    return [(line["operation"], line["connection"]) for line in world.trails(tag)]


def test_a12_a_whole_device_is_one_connection_and_one_tls_handshake(world: World, tmp_path: Path) -> None:
    world.host("LINE001")
    world.start()
    activate(world, "LINE001", tmp_path / "device")
    (asked, first), (confirmed, second) = connections(world, "LINE001", 2)
    assert (asked, confirmed) == ("GetProvisioningCredential", "ConfirmProvisioning")
    assert first == second
    (claim,) = world.store(lambda store: store.claims())
    assert claim.state is ClaimState.CONFIRMED


def test_a12_a_hook_that_takes_longer_than_the_delegators_patience_is_two(
        world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The delegator ends a connection on which nothing is asked, and the device dials anew."""
    monkeypatch.setenv("DELEGATOR_LIMITS__IDLE", "1")
    world.host("LINE002")
    world.start()
    said = activate(world, "LINE002", tmp_path / "device", "--hook", "sleep 3")
    assert "still connected" not in said
    calls = connections(world, "LINE002", 2)
    assert len({connection for _, connection in calls}) == len(calls) == 2
    (claim,) = world.store(lambda store: store.claims())
    assert claim.state is ClaimState.CONFIRMED


@pytest.mark.parametrize("result", ["Deployed", "Failed"])
def test_a13_a_confirmation_that_is_said_again_on_another_connection_changes_nothing(world: World, result: str) -> None:
    """As by a device whose line broke off after it was heard: one row of audit, and the delegate hears of it once."""
    world.own("LINE003")
    world.start()
    certificate, key = world.paths("LINE003")
    claim = world.ask("LINE003").text("ClaimId") or ""
    body = confirmation(claim, result)
    for _ in range(2):  # heard, and hung up on before the answer is read
        with world.connection(certificate, key) as there:
            there.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\n"
                          b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            assert there.recv(1)
    (first,) = world.store(lambda store: store.claims())
    assert world.confirm("LINE003", claim, result=result).status == 200
    assert world.store(lambda store: store.claims()) == [first]
    rows = world.store(lambda store: store.audit.list(Wanted(service_tag="LINE003"), 100))
    assert sum(row.entry.act.value in ("claim.confirmed", "claim.failed") for row in rows) == 1
    assert wait_for(lambda: world.delegate.deployed)
    time.sleep(0.5)  # in which it would hear of it again
    assert world.delegate.deployed == [(claim, result)]
