"""Several workers on one port: claims and limits exact across them, watched, reloaded in turn, seen as one."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from delegator.model import Customer, Policy
from delegator.net.company import FULL
from delegator.store import Store

from ..clock import today
from .conftest import ROOT, Reply, World
from .operating import Heard, change, lines, metrics, readyz, start_with, wait_for


@pytest.fixture
def several(world: World) -> World:
    """A world of two workers, their operators' port open."""
    change(world, ("workers = 1\n", "workers = 2\n"), ("[ops]\nenabled = false", "[ops]\nenabled = true"),
           ("port = 9433", "port = 0"))
    return world


async def few(store: Store, most: int) -> None:
    """Globex may have so many devices, as its policy says."""
    await store.add_policy(Policy("few", max_devices=most), today())
    await store.add_customer(Customer("globex", "Globex", policy="few"), today(), replace=True)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def hang_up(world: World, words: str) -> dict[str, Any]:
    assert world.process is not None
    before = len(lines(world, words))
    world.process.send_signal(signal.SIGHUP)
    found = wait_for(lambda: lines(world, words)[before:])
    assert found, world.log
    return dict(found[0])


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """So many threads that begin together."""
    gate = threading.Barrier(count)

    def one(number: int) -> Any:
        gate.wait()
        return work(number)
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def ask_at_once(world: World, tags: list[str]) -> list[Reply]:
    """All of these devices ask together; certificates are minted before."""
    for tag in tags:
        world.paths(tag)
    return at_once(len(tags), lambda number: world.ask(tags[number]))


@contextlib.contextmanager
def each_takes_what_it_can(said: Any) -> Iterator[None]:
    """Both workers have as many in hand as they have room for, so that neither leaves a device to the other."""
    with contextlib.ExitStack() as stack:
        for _ in range(2 * FULL):
            stack.enter_context(socket.create_connection(("127.0.0.1", said["port"])))
        time.sleep(0.2)
        yield


def answered_by(world: World) -> set[str]:
    """The processes that answered, by the beginnings of their connections' names."""
    return {trail["connection"].partition("-")[0] for trail in world.trails()}


class TestExact:
    def test_a6_one_tag_asked_at_many_workers_is_given_once(self, several: World) -> None:
        """All get the same credential, or are told to ask again; the delegate made one."""
        several.own("RACE001")
        with each_takes_what_it_can(several.start()):
            replies = ask_at_once(several, ["RACE001"] * 16)
        given = {reply.credential for reply in replies if reply.status == 200}
        assert len(given) == 1
        assert {reply.fault for reply in replies if reply.status != 200} <= {"TryLater"}
        assert several.ask("RACE001").credential in given
        assert len(several.delegate.given) == 1
        assert len(several.store(lambda store: store.claims(service_tag="RACE001"))) == 1

    def test_a11_a_limit_holds_over_all_workers_and_the_audit_verifies(self, several: World) -> None:
        """24 devices race for 9 places at two workers; afterwards the one chain of the audit is whole."""
        tags = [f"LIMIT{number:02}" for number in range(24)]
        several.host(*tags)
        several.store(lambda store: few(store, 9))
        said = several.start()
        with each_takes_what_it_can(said):
            replies = ask_at_once(several, tags)
        assert sorted(reply.status for reply in replies).count(200) == 9
        assert len(answered_by(several)) == 2, "both took their part"
        counted = metrics(said["ops"])
        assert counted['delegator_handshakes_total{outcome="Answered"}'] == 9
        several.stop()
        done = subprocess.run(
            [sys.executable, "-m", "delegator", "--config", str(several.root / "delegator.toml"), "audit", "verify",
             "--json"], capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == 0, done.stdout + done.stderr
        assert list(several.store(lambda store: store.audit.chains())) == ["main"]

    def test_a_confirmation_is_told_by_the_worker_that_keeps_house(self, several: World) -> None:
        """Whichever worker hears it, and without waiting for the next round."""
        tags = [f"TOLD{number:03}" for number in range(8)]
        several.own(*tags)
        several.start()
        claims = {tag: several.ask(tag).text("ClaimId") for tag in tags}
        began = time.monotonic()
        for tag in tags:
            assert several.confirm(tag, claims[tag]).status == 200
        assert wait_for(lambda: len(several.delegate.deployed) == len(tags)), several.delegate.deployed
        assert time.monotonic() - began < 4.5
        assert sorted(several.delegate.deployed) == sorted((claim, "Deployed") for claim in claims.values())


class TestLife:
    def test_one_that_dies_is_started_anew_and_nothing_counted_is_lost(self, several: World) -> None:
        several.host("DIES001", "DIES002")
        said = several.start()
        first, second = said["workers"]
        assert several.ask("DIES001").status == 200
        assert metrics(said["ops"])['delegator_handshakes_total{outcome="Answered"}'] == 1
        os.kill(first, signal.SIGKILL)  # the one that keeps house
        assert wait_for(lambda: lines(several, "started anew")), several.log
        assert alive(second)
        assert several.ask("DIES002").status == 200
        counted = metrics(said["ops"])
        assert counted['delegator_handshakes_total{outcome="Answered"}'] == 2
        assert (counted["delegator_workers"], counted["delegator_worker_restarts_total"]) == (2, 1)
        assert readyz(said["ops"]) == (200, {"ready": True, "wrong": {}, "soon": {}})

    def test_devices_are_served_by_the_other_meanwhile(self, several: World) -> None:
        several.host(*(f"OTHER{number:02}" for number in range(5)))
        said = several.start()
        os.kill(said["workers"][0], signal.SIGKILL)
        assert all(several.ask(f"OTHER{number:02}").status == 200 for number in range(5))

    def test_the_end_lets_requests_be_answered_and_leaves_no_process(self, several: World) -> None:
        change(several, ("budget = 1.0", "budget = 10.0"))
        several.own("LAST001")
        said = several.start()
        several.delegate.mode = "slow"
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(several.ask, "LAST001")
            assert several.delegate.in_hand.wait(10)
            assert several.stop() == 0
            assert asked.result().status == 200
        assert not [pid for pid in said["workers"] if alive(pid)]

    def test_workers_do_not_outlive_a_parent_that_was_killed(self, several: World) -> None:
        said = several.start()
        several.stop(signal.SIGKILL)
        assert wait_for(lambda: not [pid for pid in said["workers"] if alive(pid)])

    def test_what_is_not_in_order_ends_the_start(self, several: World) -> None:
        """With the exit code and the words of one process, before anything listens."""
        change(several, (f'key_file = "{several.root}', 'key_file = "/nowhere'))
        done = subprocess.run([sys.executable, "-m", "delegator", "--config", str(several.root / "delegator.toml"),
                               "serve"], capture_output=True, text=True, timeout=60,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == 3, done.stderr
        assert "/nowhere" in done.stderr

    def test_one_worker_is_one_process(self, world: World) -> None:
        said = world.start()
        assert said["workers"] == []
        assert Path(f"/proc/{said['pid']}/task/{said['pid']}/children").read_text() == ""


class TestReload:
    def test_all_are_reloaded_in_turn_while_devices_ask(self, several: World) -> None:
        """No device is refused or kept from the port, connections that stand go on, and each process stays."""
        tags = [f"TURN{number:03}" for number in range(40)]
        several.host(*tags)
        said = several.start()
        several.ask(tags[0])
        with several.connection(*several.paths(tags[0])) as kept:
            for tag in tags:
                several.paths(tag)
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                replies = pool.map(several.ask, tags)
                for _ in range(3):
                    hang_up(several, "workers were reloaded, one after the other")
                assert all(reply.status == 200 for reply in replies)
            kept.sendall(b"GET /?wsdl HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert kept.recv(100).startswith(b"HTTP/1.1 200")
        counted = metrics(said["ops"])
        assert counted['delegator_reloads_total{outcome="done"}'] == 3
        assert counted["delegator_worker_restarts_total"] == 0
        assert all(alive(pid) for pid in said["workers"])

    def test_a_setting_takes_effect_in_all_of_them(self, several: World) -> None:
        said = several.start()
        change(several, ("connections = 20000", "connections = 5000"), ("workers = 2\n", "workers = 3\n"))
        hang_up(several, "workers were reloaded, one after the other")
        counted = metrics(said["ops"])
        assert counted["delegator_connections_limit"] == 5000
        assert counted["delegator_settings_waiting_for_restart"] == 1
        assert counted["delegator_workers"] == 2

    def test_what_is_not_in_order_changes_nothing(self, several: World) -> None:
        several.host("STAY001")
        said = several.start()
        change(several, ("connections = 20000", "connections = 5000"), ("crl.pem", "no-crl.pem"))
        assert "no-crl.pem" in hang_up(several, "reload refused")["event"]
        counted = wait_for(lambda: (one := metrics(said["ops"]))['delegator_reloads_total{outcome="refused"}'] and one)
        assert counted["delegator_connections_limit"] == 20000
        assert counted["delegator_reload_successful"] == 0
        assert several.ask("STAY001").status == 200


class TestLine:
    def test_A10_when_the_one_that_took_them_all_hangs_the_other_takes_the_next(self, several: World) -> None:
        several.host("NEXT000", "NEXT001")
        workers = several.start()["workers"]
        assert several.ask("NEXT000").status == 200
        at_work = int(answered_by(several).pop(), 16)
        assert at_work in workers
        os.kill(at_work, signal.SIGSTOP)
        try:
            assert several.ask("NEXT001").status == 200
        finally:
            os.kill(at_work, signal.SIGCONT)
        assert len(answered_by(several)) == 2


class TestSeenAsOne:
    def test_a10_metrics_are_those_of_all(self, several: World) -> None:
        """Each worker counts its own; the port shows the sum, a process's memory too."""
        tags = [f"SUM{number:04}" for number in range(20)]
        several.host(*tags)
        said = several.start()
        with each_takes_what_it_can(said):
            ask_at_once(several, tags)
        assert len(answered_by(several)) == 2
        counted = metrics(said["ops"])
        assert counted['delegator_handshakes_total{outcome="Answered"}'] == 20
        assert counted["delegator_handshake_duration_seconds_count"] == 20
        assert counted['delegator_handshake_duration_seconds_bucket{le="+Inf"}'] == 20
        assert counted["delegator_store_transactions_total"] >= 20
        resident = sum(int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) * 1024
                       for pid in said["workers"])
        assert counted["process_resident_memory_bytes"] == pytest.approx(resident, rel=0.1)

    def test_readiness_names_the_worker_that_hangs_on(self, several: World) -> None:
        """A store that takes nothing is said by all of them, so no worker is named."""
        said = several.start()
        lock = (f"import sqlite3, time; c = sqlite3.connect({str(several.root / 'delegator.db')!r}); "
                "c.execute('BEGIN IMMEDIATE'); print(flush=True); time.sleep(30)")
        with subprocess.Popen([sys.executable, "-c", lock], stdout=subprocess.PIPE, text=True) as locking:
            assert locking.stdout is not None
            locking.stdout.readline()
            status, told = readyz(said["ops"])
            locking.kill()
        assert status == 503
        assert told["wrong"]["store"].startswith("no durable write within")

    def test_the_service_manager_hears_the_parent(self, several: World, heard: Heard,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WATCHDOG_USEC", "600000")
        several.start()
        assert heard.first("READY") == {"READY": "1", "STATUS": "serving devices"}
        assert wait_for(lambda: sum("WATCHDOG" in one for one in heard.said) > 3)
        hang_up(several, "workers were reloaded")
        heard.first("RELOADING")
        several.stop()
        heard.first("STOPPING")
        assert wait_for(lambda: [key for one in heard.said for key in one
                                 if key in ("READY", "RELOADING", "STOPPING")] == [
            "READY", "RELOADING", "READY", "STOPPING"])

    def test_a_socket_of_the_service_manager_is_shared(self, several: World,
                                                       handed_over: socket.socket) -> None:
        tags = [f"GIVEN{number:02}" for number in range(12)]
        several.host(*tags)
        start_with(several, handed_over)
        assert several.port == handed_over.getsockname()[1]
        assert [reply.status for reply in ask_at_once(several, tags)] == [200] * 12
