"""T-C15: /readyz, delegator_serving and the log tell when devices are not served, of one process and several;
and no stranger, no unsold device and no single customer makes them say so."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from delegator import config
from delegator.model import Customer, Delegate, Registration
from pki import Folder

from ..clock import today
from .conftest import World
from .operating import lines, metrics, readyz, wait_for
from .test_clocks import DAYS, WallClock, clock

__all__ = ["clock"]
ACME = [f"ACMED{number:02}" for number in range(12)]
UMBRA = [f"UMBRA{number:02}" for number in range(12)]
WORKERS = pytest.mark.parametrize("workers", [1, 2], ids=["one process", "two workers"])


def furnished(make_world: Callable[..., World], authority: Folder, workers: int) -> World:
    """Two customers with twelve devices and a server each."""
    world = make_world("served", server={"workers": workers})
    world.settings = msgspec.structs.replace(world.settings, ops=config.OpsSettings(True, "127.0.0.1", 0))
    (world.root / "delegator.toml").write_text(config.as_toml(world.settings))

    async def register(store):  # type: ignore[no-untyped-def]
        await store.add_customer(Customer("umbra", "Umbra"), today())
        await store.add_delegate(Delegate("umbra-server", "umbra", world.reach(world.delegate, authority)), today())
        await store.add_devices([Registration("umbra", tag) for tag in UMBRA], today())
    world.store(register)
    world.own(*ACME)
    return world


def asked(world: World, *tags: str) -> list[str | None]:
    found: list[str | None] = []
    for tag in tags:
        try:
            found.append(world.ask(tag).fault)
        except (ssl.SSLError, OSError):
            found.append("refused")
    return found


@WORKERS
def test_TC15_devices_of_two_customers_that_are_not_served_are_told_and_when_they_are_again(
        make_world: Callable[..., World], delegate_authority: Folder, workers: int) -> None:
    world = furnished(make_world, delegate_authority, workers)
    ops = world.start()["ops"]
    world.delegate.mode = "nonsense"
    assert set(asked(world, *ACME)) == {"TryLater"}
    time.sleep(3)
    assert metrics(ops)["delegator_serving"] == 1, "twelve are not twenty"
    assert set(asked(world, *UMBRA)) == {"TryLater"}
    assert wait_for(lambda: metrics(ops)["delegator_serving"] == 0), world.log
    status, said = readyz(ops)
    assert (status, said["ready"]) == (200, True), "another instance would do no better"
    assert "TryLater, as their delegates gave no credential" in said["unserved"]["devices"]
    (line,) = lines(world, "devices are not being served")
    assert line["level"] == "error"
    assert re.search(r"of (2\d) devices in a minute \1 were not served", line["event"])
    assert "delegate umbra-server" in line["event"], "why, in words"


@WORKERS
def test_TC15_a_delegator_whose_clock_is_behind_refuses_all_and_says_so_and_is_ready_once_it_is_right(
        make_world: Callable[..., World], delegate_authority: Folder, clock: WallClock, workers: int) -> None:
    """Ten years behind: every device's certificate is not yet valid to OpenSSL. Another instance would serve them."""
    world = furnished(make_world, delegate_authority, workers)
    ops = int(str(clock.start(world)["ops"]))
    assert set(asked(world, *ACME, *UMBRA)) == {None}
    assert metrics(ops)["delegator_serving"] == 1
    clock.set(-3650 * DAYS)
    assert set(asked(world, *ACME, *UMBRA)) == {"refused"}
    assert wait_for(lambda: metrics(ops)["delegator_serving"] == 0), world.log
    assert wait_for(lambda: readyz(ops)[0] == 503), "once both workers have looked whose they are"
    status, said = readyz(ops)
    assert (status, list(said["wrong"])) == (503, ["serving"])
    assert "not yet valid" in said["wrong"]["serving"]
    assert metrics(ops)['delegator_unready{part="serving"}'] == 1
    clock.set(0)
    assert set(asked(world, *ACME, *UMBRA)) == {None}
    assert wait_for(lambda: metrics(ops)["delegator_serving"] == 1)
    assert readyz(ops)[0] == 200
    assert wait_for(lambda: lines(world, "devices are served again, after"))
    assert metrics(ops)['delegator_unready{part="serving"}'] == 0


def test_TC15_strangers_unsold_devices_and_one_customer_change_nothing(
        make_world: Callable[..., World], delegate_authority: Folder, shared: tuple[Path, Path],
        tmp_path: Path) -> None:
    """A dead delegate with twelve devices, forty devices of nobody, a thief that says registered tags, certificates of
    another authority with registered names."""
    world = furnished(make_world, delegate_authority, 1)
    world.own(*(f"MORED{number:02}" for number in range(18)))
    ops = world.start()["ops"]
    assert set(asked(world, *UMBRA)) == {None}
    world.delegate.mode = "nonsense"
    assert set(asked(world, *ACME, *(f"MORED{number:02}" for number in range(18)))) == {"TryLater"}
    asked(world, *(f"NOBODY{number:02}" for number in range(40)))
    for tag in UMBRA:
        world.ask(tag, shown=shared)
    other = Folder.create(tmp_path / "other", common_name="Test Factory CA")
    for tag in UMBRA:
        issued = other.issue("device", tag)
        assert issued.key_path is not None
        with contextlib.suppress(ssl.SSLError, OSError), world.connection(
                issued.certificate_path, issued.key_path) as sock:
            sock.recv(1)
    assert wait_for(lambda: lines(world, "devices of customer acme are not being served"))
    assert metrics(ops)["delegator_serving"] == 1
    status, said = readyz(ops)
    assert (status, said["wrong"]) == (200, {})
    assert list(said["unserved"]) == ["devices of customer acme"]
    assert not lines(world, "devices are not being served")


@WORKERS
def test_TC15_anchors_that_were_exchanged_for_wrong_ones_are_told_and_forgotten_once_they_are_right(
        make_world: Callable[..., World], delegate_authority: Folder, tmp_path: Path, workers: int) -> None:
    """A reload in order by itself, with the anchors of another factory: each device is of an unknown authority now."""
    world = furnished(make_world, delegate_authority, workers)
    ca, crl = tmp_path / "anchors.crt", tmp_path / "anchors.crl"
    ca.write_bytes(world.factory.ca_path.read_bytes())
    crl.write_bytes(world.factory.crl_path.read_bytes())
    world.settings = msgspec.structs.replace(
        world.settings, server=msgspec.structs.replace(world.settings.server, ca=str(ca), crl=str(crl)))
    (world.root / "delegator.toml").write_text(config.as_toml(world.settings))
    ops = world.start()["ops"]
    assert set(asked(world, *ACME, *UMBRA)) == {None}
    other = Folder.create(tmp_path / "other", common_name="Another Factory CA")
    for ours, theirs in ((crl, other.crl_path), (ca, other.ca_path)):
        (tmp_path / "new").write_bytes(theirs.read_bytes())
        (tmp_path / "new").replace(ours)
    assert wait_for(lambda: asked(world, ACME[0]) == ["refused"]), world.log
    time.sleep(3)
    assert set(asked(world, *ACME, *UMBRA)) == {"refused"}
    assert wait_for(lambda: metrics(ops)["delegator_serving"] == 0), world.log
    assert "is not among the anchors any more" in readyz(ops)[1]["unserved"]["devices"]


@WORKERS
def test_TC15_a_store_that_takes_nothing_is_told_by_what_devices_hear_and_so_is_its_end(
        make_world: Callable[..., World], delegate_authority: Folder, workers: int) -> None:
    """Another process holds SQLite's write lock: whatever devices hear of it, it is said; nothing is given twice."""
    world = furnished(make_world, delegate_authority, workers)
    ops = world.start()["ops"]
    for tag in (*ACME, *UMBRA):
        world.device(tag)
    other = sqlite3.connect(world.root / "delegator.db", isolation_level=None, timeout=10)
    try:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(24) as devices:
            heard = list(devices.map(lambda tag: asked(world, tag)[0], (*ACME, *UMBRA)))
        assert None not in heard
        assert wait_for(lambda: lines(world, "devices are not being served")), (heard, world.log)
        assert metrics(ops)["delegator_serving"] == 0
    finally:
        other.close()
    freed = time.monotonic()
    assert wait_for(lambda: set(asked(world, *ACME, *UMBRA)) == {None})
    assert wait_for(lambda: lines(world, "devices are served again, after"))
    assert time.monotonic() - freed < 20
    assert metrics(ops)["delegator_serving"] == 1
    assert len(world.delegate.given) == len(ACME) + len(UMBRA)
