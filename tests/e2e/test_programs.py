"""Delegates that are programs, from the device's request to its answer: a command over SSH, logic kept here. A7b, d."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from delegator.model import Delegate, LocalCallback, Registration, Rule

from ..callbacks.sshd import ROOT, Sshd
from ..clock import today
from .conftest import World

URL = "https://start.acme.example/"
EXAMPLES = ROOT / "examples" / "local"


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    root = tmp_path / "sshd"
    root.mkdir()
    server = Sshd(root, extra=f"SetEnv GETCRED_STATE={root}/state GETCRED_OWNED={root}/owned\n")
    server.start()
    yield server
    server.stop()


def _acme_asks(world: World, delegate: Delegate, *tags: str) -> None:
    """Acme sends these devices to that delegate."""
    world.store(lambda store: store.add_delegate(delegate, today()))
    world.store(lambda store: store.add_rule(Rule("programs", delegate.name, priority=1), today()))
    world.store(lambda store: store.add_devices([Registration("acme", tag, delegate=delegate.name) for tag in tags],
                                                today()))


def _reasons(world: World, tag: str) -> str:
    return str(world.trails(tag)[-1])


@pytest.mark.counterpart("sshd", "ssh-keygen")
def test_a7b_a_device_gets_what_the_customers_command_says_over_ssh(world: World, sshd: Sshd) -> None:
    """And when the host key changes, nothing; the trail and the log say why, the device is told to come again."""
    _acme_asks(world, Delegate("acme-ssh", "acme", sshd.callback(), URL), "SSH0001", "SSH0002")
    world.start()
    reply = world.ask("SSH0001")
    assert (reply.status, reply.text("UserName"), reply.text("URL")) == (200, "temp-SSH0001", URL)
    assert len(reply.text("Password") or "") == 24
    assert world.ask("SSH0001").body == reply.body
    assert world.confirm("SSH0001", reply.text("ClaimId")).status == 200
    assert (reply.text("Password") or "?") not in world.log
    pinned = sshd.fingerprint()
    sshd.stop()
    sshd.new_key("host_ed25519")
    sshd.start()
    assert world.ask("SSH0002").fault == "TryLater"
    assert f"pinned is ssh-ed25519 {pinned}, shown was ssh-ed25519 {sshd.fingerprint()}" in _reasons(world, "SSH0002")
    warned = [line for line in world.log.splitlines() if "has changed" in line and '"handshake"' not in line]
    assert warned, "reported besides the trail"


@pytest.mark.parametrize("python", [None, "delegate:credential"], ids=["executable", "python"])
def test_a7d_a_device_gets_what_the_customers_own_logic_says(world: World, tmp_path: Path, python: str | None) -> None:
    for name in ("credential", "delegate.py"):
        shutil.copy(EXAMPLES / name, tmp_path / name)
    where = str(tmp_path if python else tmp_path / "credential")
    _acme_asks(world, Delegate("acme-own", "acme", LocalCallback(where, (), python)), "OWN0001")
    world.start()
    assert world.ask("OWN0001").fault == "TryLater", "its secret is not there yet"
    assert "secret" in _reasons(world, "OWN0001")
    (tmp_path / "secret").write_text("beef" * 16)
    reply = world.ask("OWN0001")
    assert (reply.status, reply.text("UserName")) == (200, "setup-OWN0001")
    assert len(reply.text("Password") or "") == 24
    assert world.confirm("OWN0001", reply.text("ClaimId")).status == 200


def test_a7d_a_program_that_hangs_is_the_trouble_of_its_own_devices(world: World, tmp_path: Path) -> None:
    (tmp_path / "hangs").write_text("#!/bin/sh\nsleep 60\n")
    (tmp_path / "hangs").chmod(0o755)
    _acme_asks(world, Delegate("acme-own", "acme", LocalCallback(str(tmp_path / "hangs"))), "HANG001")
    world.host("HOST001")
    world.start()
    assert world.ask("HANG001").fault == "TryLater"
    assert "delegate acme-own: no answer within 1 s" in _reasons(world, "HANG001")
    assert world.ask("HOST001").status == 200
