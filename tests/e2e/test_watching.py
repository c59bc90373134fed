"""What operators see of a delegator that serves devices: metrics that the board asks for, lines with one id."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import urllib.request
from pathlib import Path
from typing import Any

from delegator.net import descriptors

from ..test_deploy import expressions, selectors
from .conftest import World
from .operating import change, hang_up, wait_for

NOT_MADE_HERE = {"delegator_second_claimants_total": {"identity"}, "delegator_notifications_total": {"kind", "outcome"}}
"""Metrics that have a sample once it happened, which tests of their own make happen; and their labels."""


def scraped(port: int) -> dict[str, set[str]]:
    """The metrics of /metrics by the names of their samples, each with its labels; those without any sample too."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found: dict[str, set[str]] = {name: set() for name in re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", text, re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


def busy(world: World) -> None:
    """Something of everything: answers by every path, refusals by every layer, a delegate that fails until it is left
    alone."""
    world.host("BUSY001")
    world.own(*(f"BUSY01{n}" for n in range(7)))
    assert world.ask("BUSY001").status == 200
    assert world.ask("BUSY010").status == 200
    world.delegate.mode = "nonsense"
    for number in range(1, 7):
        world.ask(f"BUSY01{number}")
    assert world.ask("NOBODY1").fault == "NotEntitled"
    with contextlib.suppress(ssl.SSLError, OSError), world.connection(None, None) as sock:
        sock.recv(1)
    with socket.create_connection(("127.0.0.1", world.port)) as nonsense:
        nonsense.sendall(b"GET / HTTP/1.0\r\n\r\n")
        nonsense.recv(100)


def test_a10_every_metric_of_the_board_and_the_alerts_is_exported(watched: World) -> None:
    said = watched.start()
    busy(watched)
    there = scraped(said["ops"])
    for where, expression in expressions().items():
        for name, labels in selectors(expression):
            assert name in there, f"{where} asks for {name}"
            known = there[name] | NOT_MADE_HERE.get(name, set()) | {"le"}
            assert labels <= known, f"{where}: {name} has no label {labels - known}"


def test_metrics_are_in_base_units_and_name_no_device(watched: World) -> None:
    said = watched.start()
    busy(watched)
    with urllib.request.urlopen(f"http://127.0.0.1:{said['ops']}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert "BUSY0" not in text
    names = re.findall(r"^# TYPE (delegator_\S+) ", text, re.MULTILINE)
    assert len(names) > 20
    for name in names:
        assert not re.search(r"_(ms|milliseconds|minutes|days|kb|mb|percent)(_|$)", name), name
    values = {name: float(value) for name, value in re.findall(r"^([^#\n].*) (\S+)$", text, re.MULTILINE)}
    assert values['delegator_claims_total{outcome="opened and issued in one commit"}'] == 1
    assert values['delegator_tls_refused_total{reason="no certificate"}'] == 1
    assert values['delegator_tls_refused_total{reason="protocol"}'] == 1
    assert values['delegator_delegate_breaker{delegate="acme-server",state="open"}'] == 1
    assert values["delegator_store_transactions_total"] >= values["delegator_store_commits_total"] > 5
    assert values["process_resident_memory_bytes"] > 1e7
    assert values["delegator_connections_limit"] == min(20000, descriptors.room(descriptors.highest(), 8))


def test_connections_are_counted_by_phase(watched: World) -> None:
    said = watched.start()

    def phases() -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{said['ops']}/metrics", timeout=5) as answer:
            return {phase: float(value) for phase, value in re.findall(
                r'^delegator_connections\{phase="(\w+)"\} (\S+)$', answer.read().decode(), re.MULTILINE)}

    assert set(phases().values()) == {0}
    with (socket.create_connection(("127.0.0.1", watched.port)), socket.create_connection(("127.0.0.1", watched.port)),
          watched.connection(*watched.paths("PHASE01")) as sock):
        sock.sendall(b"GET /?wsdl HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.recv(65536)
        assert wait_for(lambda: (phases()["silent"], phases()["idle"]) == (2, 1))
    assert wait_for(lambda: set(phases().values()) == {0})


def test_too_many_connections_are_turned_away_and_counted(watched: World) -> None:
    change(watched, ("connections = 20000", "connections = 2"))
    said = watched.start()
    with socket.create_connection(("127.0.0.1", watched.port)), socket.create_connection(("127.0.0.1", watched.port)), \
            socket.create_connection(("127.0.0.1", watched.port), 5) as third:
        assert third.recv(1) == b""
        assert scraped(said["ops"])
        with urllib.request.urlopen(f"http://127.0.0.1:{said['ops']}/metrics", timeout=5) as answer:
            assert b"\ndelegator_connections_turned_away_total 1.0\n" in answer.read()


def _lines(world: World) -> list[dict[str, Any]]:
    return [json.loads(line) for line in world.log.splitlines() if line.startswith("{")]


class TestOneIdForEachConnection:
    def test_every_line_of_a_connection_has_its_id(self, world: World) -> None:
        """The handshake, the callback, the breaker, bad HTTP, too slow, refused by TLS: each with an id, and the
        lines of one connection with the same."""
        change(world, ("request = 5.0", "request = 0.5"), ("handshake = 5.0", "handshake = 1.0"))
        world.start()
        busy(world)
        with world.connection(*world.paths("SLOWP01")) as sock:
            sock.sendall(b"POST / HTTP/1.1\r\n")
            sock.recv(1)
        with world.connection(*world.paths("BADPP01")) as sock:
            sock.sendall(b"NONSENSE\r\n\r\n")
            sock.recv(100)
        assert wait_for(lambda: any("too slow" in line["event"] for line in _lines(world)))
        of_connections = [line for line in _lines(world) if re.search(
            r"^handshake$|bad HTTP|too slow|circuit breaker", line["event"])]
        assert len(of_connections) > 12
        assert all(re.fullmatch(r"[0-9a-f]+-[0-9a-f]+", line["connection"]) for line in of_connections)
        (opened,) = (line for line in of_connections if "circuit breaker open" in line["event"])
        same = [line for line in of_connections if line["connection"] == opened["connection"]]
        assert {line["event"] for line in same} >= {opened["event"], "handshake"}
        ids = [line["connection"] for line in of_connections if line["event"] == "handshake"]
        assert len(ids) == len(set(ids))

    def test_what_concerns_no_connection_has_none(self, world: World) -> None:

        world.host("NONE001")
        world.start()
        assert world.ask("NONE001").status == 200
        hang_up(world)
        (line,) = (line for line in _lines(world) if "were reloaded" in line["event"])
        assert "connection" not in line

    def test_text_lines_have_it_too(self, world: World) -> None:
        change(world, ("json = true", "json = false"))
        world.start()
        with world.connection(*world.paths("BADPP02")) as sock:
            sock.sendall(b"NONSENSE\r\n\r\n")
            sock.recv(100)
        assert wait_for(lambda: re.search(r"bad HTTP: .* connection=[0-9a-f]+-[0-9a-f]+$", world.log, re.MULTILINE))


def test_the_manual_names_every_metric(watched: World) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "watching.md").read_text(encoding="utf-8")
    said = watched.start()
    with urllib.request.urlopen(f"http://127.0.0.1:{said['ops']}/metrics", timeout=5) as answer:
        names = re.findall(r"^# TYPE (delegator_\S+) ", answer.read().decode(), re.MULTILINE)
    assert [name for name in names if f"`{name}`" not in manual and not name.endswith("_created")] == []
