"""Isolation: one customer's trouble is seen by its own devices, in `delegates show` and in metrics, nowhere else."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace

from delegator import config
from delegator.model import Customer, Delegate, Registration
from pki import Folder

from ..clock import today
from .conftest import ROOT, PretendDelegate, World

ASKS = 100
ROUNDS = 7


def ops_of(world: World) -> Callable[[str], tuple[int, str]]:
    """Switch the operators' port on, start, and read it."""
    settings = config.load(world.root / "delegator.toml", {})
    path = world.root / "delegator.toml"
    path.write_text(config.as_toml(settings).replace("[ops]\nenabled = false", "[ops]\nenabled = true")
                    .replace("port = 9433", "port = 0"))
    started = world.start()

    def read(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{started['ops']}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
    return read


def show(world: World, name: str) -> dict[str, object]:
    done = subprocess.run([sys.executable, "-m", "delegator", "--config", world.root / "delegator.toml", "delegates",
                           "show", name, "--json"], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    return dict(json.loads(done.stdout))


def test_the_breaker_is_seen_by_operators(world: World) -> None:
    """closed -> open in metrics and, from another process, in `delegates show`; the device is told to come later."""
    tags = [f"BRKR{n:03}" for n in range(7)]
    world.own(*tags)
    read = ops_of(world)
    assert show(world, "acme-server")["breaker"] == "closed"
    world.delegate.mode = "nonsense"
    replies = [world.ask(tag) for tag in tags]
    assert {reply.fault for reply in replies} == {"TryLater"}
    assert len(world.delegate.calls) == 5
    shown = show(world, "acme-server")
    assert shown["breaker"] == "open"
    assert "HTTP 200" in str(shown["breaker_why"])
    metrics = read("/metrics")[1]
    assert 'delegator_delegate_breaker{delegate="acme-server",state="open"} 1.0' in metrics
    assert 'delegator_handshakes_total{outcome="TryLater"} 7.0' in metrics
    assert not any(tag in metrics for tag in tags), "never a service tag as a label"


def test_TB9_a_device_that_its_delegate_refuses_keeps_nobody_else_out(world: World) -> None:
    """A fault is an answer. One device that asked once a second kept its whole customer out: 0 of 57 were served."""
    world.own("REFUSED1", *(f"HLTHY{n:02}" for n in range(8)))
    world.start()
    for number in range(8):
        world.delegate.mode = "fault"
        assert world.ask("REFUSED1").fault == "TryLater"
        world.delegate.mode = "good"
        if number > 5:
            assert world.ask(f"HLTHY{number:02}").status == 200
    assert show(world, "acme-server")["breaker"] == "closed"
    assert "delegate acme-server says no: fault Server" in world.log


def test_health_and_readiness(world: World) -> None:
    read = ops_of(world)
    assert read("/healthz") == (200, '{"alive": true}\n')
    assert read("/readyz")[0] == 200
    assert read("/other")[0] == 404
    end = float(next(line.split()[-1] for line in read("/metrics")[1].splitlines()
                     if line.startswith('delegator_certificate_not_after_timestamp_seconds{file="revocation list"')))
    assert end > time.time()


def hammer(world: World, tags: list[str], stop: object, pause: float) -> None:
    """Devices of the troubled customers, asking again and again, in a process of their own."""
    while not stop.is_set():  # type: ignore[attr-defined]
        for tag in tags:
            with contextlib.suppress(OSError):
                world.ask(tag)
            time.sleep(pause)


def p99(world: World, tags: list[str]) -> float:
    """Milliseconds, over one new device after the other; each a full handshake with a durable claim."""
    taken = []
    for tag in tags:
        begin = time.perf_counter()
        assert world.ask(tag).status == 200
        taken.append((time.perf_counter() - begin) * 1000)
    return statistics.quantiles(taken, n=100)[98]


def crowd(world: World, tags: list[str]) -> Callable[[], None]:
    """Start hammering; the way to end it."""
    fork = multiprocessing.get_context("fork")
    stop = fork.Event()
    bare = replace(world, process=None, _log=None)
    process = fork.Process(target=hammer, args=(bare, tags, stop, 0.1))
    process.start()

    def end() -> None:
        stop.set()
        process.join()
    return end


def test_p99_of_a_third_customer_stays_within_1_3_times_of_normal(
        make_world: Callable[[str], World], delegate_authority: Folder, factory: Folder) -> None:
    """One delegate hangs, another refuses; Globex's devices are as quick as before. The same crowd of other
    customers' devices asks in both halves of a round, so that only what their delegates do differs; the median of
    the rounds counts, so that the machine's own moods cancel out."""
    world = make_world("isolation")
    refusing = PretendDelegate(delegate_authority, factory)
    world.store(lambda store: store.add_customer(Customer("initech", "Initech"), today()))
    world.store(lambda store: store.add_delegate(
        Delegate("initech-server", "initech", world.reach(refusing, delegate_authority)), today()))
    crowds = {mode: [f"{mode}A{n:02}" for n in range(8)] + [f"{mode}I{n:02}" for n in range(8)]
              for mode in ("CALM", "TROU")}
    for tags in crowds.values():
        world.own(*tags[:8])
        world.store(lambda store, some=tags[8:]: store.add_devices([Registration("initech", tag) for tag in some],
                                                                   today()))
    asking = [[f"R{number:02}T{n:03}" for n in range(ASKS)] for number in range(2 * ROUNDS + 1)]
    for tags in asking:
        world.host(*tags)
    for tag in [tag for tags in (*crowds.values(), *asking) for tag in tags]:
        world.paths(tag)
    world.start()
    p99(world, asking.pop())
    ratios = []
    for _ in range(ROUNDS):
        taken = {}
        for mode, (hangs, refuses) in {"CALM": ("good", "good"), "TROU": ("slow", "fault")}.items():
            world.delegate.mode, refusing.mode = hangs, refuses
            end = crowd(world, crowds[mode])
            time.sleep(0.5)
            taken[mode] = p99(world, asking.pop())
            end()
        ratios.append(taken["TROU"] / taken["CALM"])
    refusing.close()
    print("p99 in trouble / p99 in calm:", [round(ratio, 2) for ratio in ratios])
    assert statistics.median(ratios) <= 1.3
