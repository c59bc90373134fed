"""T-A10: the wall clock of a running delegator is set, by forty days for eight seconds and by two hours at the
start. Nothing is lost, changed or given twice; everything is as it was once the clock is right."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from delegator import config
from delegator.clockwork.clocks import STOOD
from delegator.model import Claim, Delegate, HostedCallback, Notification, Policy, Secret
from pki import Folder

from ..clock import today
from ..mailserver import free_port
from ..postgres import Cluster
from ..thorough import THOROUGH
from .conftest import World
from .operating import lines, readyz, wait_for

pytestmark = pytest.mark.counterpart("cc")
HOURS, DAYS = 3600.0, 86400.0
BELIEVED = STOOD if THOROUGH else 20.0
"""Seconds after which these delegators believe a clock: well over the twelve and the eight of these tests."""
TAGS = [f"CLOCK{number:03}" for number in range(12)]
DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.counterpart("initdb"))]


class WallClock:
    """The wall clock of programs that are started while it is in force, by how many seconds it is ahead."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        library, file = folder / "wallclock.so", folder / "ahead"
        source = Path(__file__).with_name("wallclock.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
        file.write_bytes(bytes(8))
        self._patch, self._library, self._name = patch, library, file
        self._file = file.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), 8)

    def set(self, ahead: float) -> None:
        self._map[:] = struct.pack("d", ahead)

    def start(self, world: World) -> dict[str, object]:
        """Start its delegator under this clock."""
        with self._patch.context() as patch:
            patch.setenv("LD_PRELOAD", str(self._library))
            patch.setenv("WALL_CLOCK", str(self._name))
            return world.start()

    def close(self) -> None:
        self._map.close()
        self._file.close()


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WallClock]:
    made = WallClock(tmp_path, monkeypatch)
    yield made
    made.close()


@pytest.fixture(params=DATABASES)
def house(request: pytest.FixtureRequest, make_world: Callable[..., World]) -> World:
    """A world whose audit keeps a month, whose claims last an hour, and whose operators' port is open."""
    where = None
    if request.param == "postgresql":
        cluster: Cluster = request.getfixturevalue("postgres")
        where = config.Store(url=cluster.url(cluster.database()), connections=4)
    world = make_world("house", database=where)
    world.believes_after = BELIEVED
    world.settings = msgspec.structs.replace(world.settings, audit=config.AuditSettings(keep_days=30),
                                             ops=config.OpsSettings(True, "127.0.0.1", 0))
    (world.root / "delegator.toml").write_text(config.as_toml(world.settings))
    world.store(lambda store: store.add_policy(Policy("default", lease=timedelta(hours=1)), today(), replace=True))
    world.own(*TAGS)
    for tag in TAGS:
        world.device(tag)
    return world


def claims(world: World) -> list[Claim]:
    found: list[Claim] = world.store(lambda store: store.claims())
    return found


def acts(world: World) -> list[str]:
    """What is in the audit, oldest first."""
    from delegator.store.audit.inspection import Wanted
    rows = world.store(lambda store: store.audit.list(Wanted(), 1000))
    return [row.entry.act.value for row in reversed(rows)]


@pytest.mark.parametrize(("house", "later"), [
    ("sqlite", 12), pytest.param("postgresql", 12, marks=pytest.mark.counterpart("initdb")), ("sqlite", BELIEVED + 3)],
    indirect=["house"],
    ids=["sqlite, soon after the start", "postgresql, soon after the start", "sqlite, when it is believed"])
def test_TA10_forty_days_ahead_for_eight_seconds_prune_nothing_and_give_no_second_credential(
        house: World, clock: WallClock, later: float) -> None:
    said = clock.start(house)
    first = {tag: house.ask(tag).credential for tag in TAGS}
    assert len(set(first.values())) == len(TAGS)
    time.sleep(later)
    rows = acts(house)
    clock.set(40 * DAYS)
    jumped, told = time.monotonic(), {}
    while time.monotonic() < jumped + 8:
        for tag in TAGS:
            told[tag] = house.ask(tag).credential
        time.sleep(0.5)
    house.own("CLOCK999")
    during = house.ask("CLOCK999")
    assert "ahead by 40 days" in readyz(int(str(said["ops"])))[1]["soon"]["clock"]
    clock.set(0)
    assert told == first, "the same answer again, and at once"
    assert {tag: house.ask(tag).credential for tag in TAGS} == first
    assert house.ask("CLOCK999").credential == during.credential
    found = claims(house)
    assert len(found) == len(TAGS) + 1
    assert all(abs(one.asked_at - datetime.now(UTC)) < timedelta(minutes=5) for one in found)
    assert acts(house)[:len(rows)] == rows
    assert "audit.pruned" not in acts(house)
    assert len(house.delegate.given) == len(TAGS) + 1
    assert wait_for(lambda: lines(house, "the clock is back where it was"))
    assert lines(house, "the clock jumped ahead by 40 days")
    assert readyz(int(str(said["ops"])))[1] == {"ready": True, "wrong": {}, "soon": {}}


def test_TA10_a_start_with_a_clock_two_days_ahead_ends_no_claim_before_it_is_set_right(
        house: World, clock: WallClock) -> None:
    """Each of them is over by that clock; its device is told to come again, and then has the answer it had."""
    house.start()
    first = {tag: house.ask(tag).credential for tag in TAGS}
    rows = acts(house)
    house.stop()
    clock.set(2 * DAYS)
    clock.start(house)
    replies = [house.ask(tag) for tag in TAGS]
    assert {reply.fault for reply in replies} == {"TryLater"}
    assert {reply.headers["retry-after"] for reply in replies} == {f"{BELIEVED:.0f}"}
    time.sleep(BELIEVED / 5)
    assert {house.ask(tag).fault for tag in TAGS} == {"TryLater"}
    clock.set(0)
    assert {tag: house.ask(tag).credential for tag in TAGS} == first
    assert len(claims(house)) == len(house.delegate.given) == len(TAGS)
    assert acts(house)[:len(rows)] == rows


@pytest.mark.parametrize("house", ["sqlite"], indirect=True)
def test_TA10_a_clock_that_was_set_for_good_is_followed_once_it_has_stood(house: World, clock: WallClock) -> None:
    """A claim is over then, and its device gets a new one: what stands for so long is no accident."""
    clock.start(house)
    first = house.ask(TAGS[0]).text("ClaimId")
    time.sleep(BELIEVED + 3)
    clock.set(2 * HOURS)
    assert house.ask(TAGS[0]).text("ClaimId") == first
    time.sleep(BELIEVED + 6)
    assert lines(house, "from now on it counts")
    assert house.ask(TAGS[0]).text("ClaimId") not in (None, first)


def test_TA10_a_mail_that_failed_while_the_clock_was_ahead_is_tried_again_at_once(
        house: World, clock: WallClock, factory: Folder) -> None:
    """Two hours ahead at the start, no relay; then right, after a restart: not two hours later, new mail with it."""
    sender = "delegator@factory.example"
    if not (factory.path / "mail" / f"{sender}.crt").exists():
        factory.issue("mail-signer", sender)
    house.settings = msgspec.structs.replace(house.settings, mail=config.MailSettings(
        host="localhost", port=free_port(), sender=sender))
    (house.root / "delegator.toml").write_text(config.as_toml(house.settings))
    house.store(lambda store: store.add_delegate(Delegate(
        "globex-hosted", "globex", HostedCallback("root", Secret("pass"),
                                                  "admin@globex.example")), today(), replace=True))
    house.host("MAIL001", "MAIL002")

    def tried() -> dict[str, int]:
        found: list[Notification] = house.store(lambda store: store.outbox.list())
        return {one.body["service_tag"]: one.attempts for one in found}
    clock.set(2 * HOURS)
    clock.start(house)
    assert house.ask("MAIL001").status == 200
    assert wait_for(lambda: tried() == {"MAIL001": 1}), house.log
    house.stop()
    clock.set(0)
    clock.start(house)
    assert house.ask("MAIL002").status == 200
    assert wait_for(lambda: sum(tried().values()) >= 2), (tried(), house.log)


def test_TA10_the_library_moves_the_wall_clock_alone(clock: WallClock) -> None:
    """What these tests stand on."""
    program = "import time; print(time.time(), time.monotonic(), time.time_ns(), flush=True)"
    clock.set(DAYS)
    said = subprocess.run(["python3", "-c", program], check=True, capture_output=True, text=True, env={
        **os.environ, "LD_PRELOAD": str(clock._library), "WALL_CLOCK": str(clock._name)}).stdout.split()
    assert float(said[0]) - time.time() == pytest.approx(DAYS, abs=30)
    assert float(said[1]) - time.monotonic() == pytest.approx(0, abs=30)
    assert int(said[2]) / 1e9 - time.time() == pytest.approx(DAYS, abs=30)
