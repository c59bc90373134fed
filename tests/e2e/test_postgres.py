"""Two delegators on one PostgreSQL: one service, exact, told of changes, back by itself (R-engines, R-seen; A3, A6,
A8, A10)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from delegator import config
from delegator.model import ClaimState, Customer, IdentityRule, Policy, Registration
from pki import Folder

from ..clock import today
from ..postgres import Cluster
from .conftest import ROOT, Reply, World
from .test_crashes import HOSTED_STEPS, SOAP_STEPS, first_try
from .test_enrolment import Device, configure, until_refused

pytestmark = pytest.mark.counterpart("initdb")
Make = Callable[..., World]


@pytest.fixture
def database(postgres: Cluster) -> config.Store:
    return config.Store(url=postgres.url(postgres.database()), connections=4, timeout=2.0)


@pytest.fixture
def pair(make_world: Make, database: config.Store) -> tuple[World, World]:
    """Two delegators of one product that run."""
    first = make_world("first", database=database)
    second = make_world("second", beside=first)
    for one in (first, second):
        one.start()
    return first, second


def test_A10_a_device_may_call_any_delegator_and_is_the_same_device_everywhere(pair: tuple[World, World]) -> None:
    first, second = pair
    first.own("SAME001")
    first.host("SAME002")
    answers = [one.ask(tag) for tag in ("SAME001", "SAME002") for one in (first, second, first)]
    assert {answer.status for answer in answers} == {200}
    assert len({answer.credential for answer in answers}) == 2
    assert len(first.delegate.given) == 1, "its delegate was asked for one credential"
    claim = answers[0].text("ClaimId")
    assert second.confirm("SAME001", claim).status == 200
    assert first.ask("SAME001").fault == "NotEntitled", "it was confirmed"
    assert {one.state for one in first.store(lambda store: store.claims())} == {ClaimState.CONFIRMED,
                                                                               ClaimState.ISSUED}


def test_A6_a_limit_is_one_limit_for_all_delegators(pair: tuple[World, World]) -> None:
    first, _ = pair
    tags = [f"RACE{number:03}" for number in range(24)]
    first.store(lambda store: store.add_policy(Policy("default", max_devices=5), today(), replace=True))
    first.own(*tags)
    for tag in tags:
        first.device(tag)
    with ThreadPoolExecutor(12) as devices:
        answers = list(devices.map(lambda numbered: pair[numbered[0] % 2].ask(numbered[1]), enumerate(tags)))
    assert sorted(answer.status for answer in answers)[:5] == [200] * 5
    assert sum(answer.status == 200 for answer in answers) == 5
    assert first.store(lambda store: store.taken("acme", "acme-server"))["customer/acme"] == 5


CHANGES: dict[str, Callable[[World], object]] = {
    "its registration is removed": lambda world: world.store(lambda store: store.remove_device("MOVE001", today())),
    "it is registered to another customer, whose policy refuses": lambda world: world.store(_moved),
    "its customer is disabled": lambda world: world.store(
        lambda store: store.add_customer(Customer("acme", "Acme", enabled=False), today(), replace=True)),
    "its customer's policy closes": lambda world: world.store(
        lambda store: store.add_policy(Policy("default", max_devices=0, custom_operations=False), today(),
                                       replace=True)),
}


async def _moved(store) -> None:
    await store.add_policy(Policy("closed", custom_operations=False), today())
    await store.add_customer(Customer("globex", "Globex", policy="closed"), today(), replace=True)
    await store.remove_device("MOVE001", today())
    await store.add_devices([Registration("globex", "MOVE001")], today())


@pytest.mark.parametrize("how", CHANGES)
def test_R_seen_what_was_changed_anywhere_counts_everywhere_within_a_second(
        pair: tuple[World, World], how: str) -> None:
    """A moved or revoked device is refused by every delegator; both have answered it before."""
    pair[0].own("MOVE001")
    assert [one.ask("MOVE001").status for one in pair] == [200, 200]
    time.sleep(0.5)  # both listen by now
    CHANGES[how](pair[0])
    changed = time.monotonic()
    refused = []
    for one in pair:
        while (reply := one.ask("MOVE001")).fault != "NotEntitled" and time.monotonic() - changed < 1:
            time.sleep(0.01)
        refused.append(reply.fault)
    assert refused == ["NotEntitled", "NotEntitled"]
    assert time.monotonic() - changed < 1


def test_R_seen_a_certificate_that_was_revoked_is_refused_by_every_delegator_within_a_second(
        make_world: Make, database: config.Store, factory: Folder, shared: tuple[Path, Path]) -> None:
    """One that a delegator itself issued, revoked by a command: each keeps the serials, and is told of a new one."""
    first = make_world("first", database=database)
    second = make_world("second", beside=first)
    first.store(lambda store: store.add_policy(Policy("either", identity=IdentityRule.EITHER), today()))
    first.store(lambda store: store.add_customer(Customer("globex", "Globex", policy="either"), today(), replace=True))
    first.host("GONE001")
    for one in (first, second):
        configure(one, enabled=True, certificate=str(factory.ca_path), key=str(factory.key_path))
        one.start()
    device = Device(first, shared, "GONE001")
    device.keep(device.ask())
    devices = [device, Device(second, shared, "GONE001")]
    devices[1].certificate, devices[1].key = device.certificate, device.key
    assert [one.ask(own=True, request=None).status for one in devices] == [200, 200]
    time.sleep(0.5)  # both listen by now
    first.store(lambda store: store.enrolments.revoke("GONE001", "keyCompromise", datetime.now(UTC), store.by))
    revoked = time.monotonic()
    for one in devices:
        until_refused(lambda one=one: one.ask(own=True, request=None), 5, 0.02)
    assert time.monotonic() - revoked < 1


# --- the database goes away and comes back ------------------------------------------------------------------------


class Devices:
    """Devices that ask one after the other, at every delegator in turn, in the background."""

    def __init__(self, pair: tuple[World, World], tags: list[str]) -> None:
        self.answers: list[tuple[str, Reply]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(pair, tags))
        self._thread.start()

    def _run(self, pair: tuple[World, World], tags: list[str]) -> None:
        for number, tag in enumerate(tags):
            if self._stop.wait(0.02):
                return
            self.answers.append((tag, pair[number % 2].ask(tag)))

    def end(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def ops(make_world: Make, database: config.Store) -> tuple[World, World, int]:
    """The pair, and the port on which operators look at the first."""
    first = make_world("first", database=database)
    path = first.root / "delegator.toml"
    settings = replace(first.settings, ops=config.OpsSettings(enabled=True, port=0))
    path.write_text(config.as_toml(settings))
    second = make_world("second", beside=first)
    said = first.start()
    second.start()
    return first, second, said["ops"]["port"] if isinstance(said["ops"], dict) else said["ops"]


def ready(port: int) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


def test_R_later_while_the_database_restarts_devices_are_told_to_try_later_and_then_served(
        ops: tuple[World, World, int], postgres: Cluster) -> None:
    first, second, port = ops
    tags = [f"REST{number:04}" for number in range(150)]
    first.host(*tags)
    for tag in tags:
        first.device(tag)
    assert ready(port)[0] == 200
    devices = Devices((first, second), tags)
    try:
        time.sleep(0.3)
        postgres.stop("immediate")
        time.sleep(0.3)
        began = time.monotonic()
        assert first.ask(tags[-1]).fault == "TryLater"
        assert time.monotonic() - began < 1
        assert ready(port)[0] == 503
        postgres.start()
        back = time.monotonic()
        while second.ask(tags[-1]).status != 200 or ready(port)[0] != 200:
            assert time.monotonic() - back < 5
            time.sleep(0.02)
        time.sleep(0.3)
    finally:
        devices.end()
    faults = {reply.fault for _, reply in devices.answers if reply.status != 200}
    assert faults == {"TryLater"}
    later = next(reply for _, reply in devices.answers if reply.status != 200)
    assert int(later.headers["retry-after"]) > 0
    for tag, reply in devices.answers:
        assert reply.fault == "TryLater" or second.ask(tag).credential == reply.credential, tag


# --- commands -----------------------------------------------------------------------------------------------------


def command(world: World, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "delegator", "--config", str(world.root / "delegator.toml"), *words], cwd=world.root,
        capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment})


def test_R_engines_commands_work_on_it_as_on_the_embedded_one(pair: tuple[World, World]) -> None:
    first, second = pair
    shipment = first.root / "shipment.csv"
    shipment.write_text("service_tag,serial_number,mac_addresses,model\n" + "".join(
        f"SHIP{number:03},SN-{number},02:00:00:00:00:{number:02x},R750\n" for number in range(40)))
    for words in (["policies", "add", "rollout", "--max-devices", "500"],
                  ["customers", "add", "initech", "--title", "Initech", "--policy", "rollout"],
                  ["delegates", "add", "initech-1", "--customer", "initech", "--hosted", "admin-{tag}"],
                  ["rules", "add", "berlin", "--delegate", "initech-1", "--network", "192.0.2.0/24"],
                  ["devices", "import", str(shipment), "--customer", "initech"],
                  ["policies", "approve", "rollout", "SHIP001"],
                  ["devices", "list", "--customer", "initech"], ["devices", "show", "SHIP007"],
                  ["rules", "list"], ["explain", "SHIP007"], ["audit", "verify"]):
        done = command(first, *words)
        assert done.returncode == 0, (words, done.stderr)
    assert second.ask("SHIP007").credential[0] == "admin-SHIP007"
    claims = json.loads(command(second, "claims", "list", "--customer", "initech", "--json").stdout)
    assert [one["service_tag"] for one in claims] == ["SHIP007"]
    assert command(first, "claims", "release", "SHIP007").returncode == 0
    assert command(first, "customers", "add", "initech", "--title", "Again").returncode == 6
    assert command(first, "backup", "copy.db").returncode == 3
    assert command(first, "audit", "verify").returncode == 0


def test_R_kept_config_check_looks_at_the_database(pair: tuple[World, World], postgres: Cluster) -> None:
    world, _ = pair

    def database(**environment: str) -> tuple[int, dict[str, object]]:
        done = command(world, "config", "check", "--json", **environment)
        found = json.loads(done.stdout)["findings"]
        return done.returncode, next(one for one in found if one["what"] == "database")

    code, finding = database()
    assert finding["ok"], finding
    assert "PostgreSQL 1" in str(finding["detail"])
    away = world.settings.store.url.replace("port=5432", "port=5433")
    done = command(world, "config", "check", "--json", DELEGATOR_STORE__URL="mysql://db/x")
    assert (done.returncode, "DELEGATOR_STORE__URL" in done.stdout) == (3, True), "a setting that is none is told first"
    assert "postgresql://" in done.stderr
    for url, words in ((away, "is the database up?"),
                       (world.settings.store.url.replace("delegator@", "nobody@"), "nobody")):
        code, finding = database(DELEGATOR_STORE__URL=url)
        assert (code, finding["ok"]) == (3, False)
        assert words in f"{finding['detail']} {finding['hint']}"
        assert finding["hint"]
    for words in (("config", "check"), ("config", "show"), ("claims", "list")):
        done = command(world, *words, DELEGATOR_STORE__URL="postgresql://delegator:secret-word@db/x")
        assert done.returncode == 3
        assert "holds a password" in done.stderr
        assert "secret-word" not in done.stdout + done.stderr


def test_R_kept_a_start_without_its_database_says_so_and_ends(make_world: Make, database: config.Store,
                                                              tmp_path: Path) -> None:
    world = make_world("first", database=database)
    done = command(world, "serve", DELEGATOR_STORE__URL=database.url.replace("port=5432", "port=5433"))
    assert done.returncode == 4
    assert "is the database up?" in done.stderr
    assert "Traceback" not in done.stderr


# --- a delegator goes away ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [*(f"soap {step}" for step in SOAP_STEPS),
                                  *(f"hosted {step}" for step in HOSTED_STEPS)])
def test_A3_a_delegator_that_is_killed_at_any_step_is_replaced_by_the_next(make_world: Make, database: config.Store,
                                                                           step: str) -> None:
    """The device tries another one, waits while the first one's claim counts as being answered, and gets the one
    credential; its delegate was asked under one claim id only."""
    kind, _, moment = step.partition(" ")
    first = make_world("first", database=database)
    second = make_world("second", beside=first)
    (first.host if kind == "hosted" else first.own)("CRASH01")
    first.start(kill_at=moment)
    second.start()
    before = first_try(first, "CRASH01")
    assert first.process is not None
    assert first.process.wait(10) == -9
    first.stop()
    until = time.monotonic() + 10
    while (after := second.ask("CRASH01")).fault == "TryLater":
        assert time.monotonic() < until
        time.sleep(0.1)
    assert after.status == 200, after.body
    if before is not None:
        assert before.credential == after.credential
    (claim,) = second.store(lambda store: store.claims())
    assert claim.state is ClaimState.ISSUED
    if kind == "soap":
        assert set(first.delegate.given) == {claim.claim_id}
        assert after.credential == ("temp", first.delegate.given[claim.claim_id])
