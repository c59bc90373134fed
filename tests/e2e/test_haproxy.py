"""A10: two delegators behind a real load balancer. The example that is shown runs as it is (examples/haproxy)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from delegator import config
from delegator.model import Rule

from ..clock import today
from ..postgres import Cluster
from .conftest import ROOT, World

pytestmark = pytest.mark.counterpart("initdb", "haproxy")
EXAMPLE = ROOT / "examples/haproxy/haproxy.cfg"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.fixture
def delegators(make_world: Callable[..., World], postgres: Cluster) -> tuple[World, World]:
    """Two on one database, which believe whom the balancer on this machine names, and have a port for operators."""
    database = config.Store(url=postgres.url(postgres.database()), connections=4)
    behind = {"proxy_from": ("127.0.0.1/32",)}
    one = make_world("one", database=database, server=behind)
    two = make_world("two", beside=one, server=behind)
    for world in (one, two):
        settings = replace(world.settings, ops=config.OpsSettings(enabled=True, port=free_port()))
        (world.root / "delegator.toml").write_text(config.as_toml(settings))
        world.settings = settings
        world.start()
    return one, two


@pytest.fixture
def balanced(delegators: tuple[World, World], tmp_path: Path) -> Iterator[tuple[World, World]]:
    """The same, with devices connecting to the balancer: `ask` goes there, `direct` keeps each one's own port."""
    one, two = delegators
    port = free_port()
    where = {"DEVICES": f"127.0.0.1:{port}", "ONE": f"127.0.0.1:{one.port}", "TWO": f"127.0.0.1:{two.port}",
             "ONE_OPS": str(one.settings.ops.port), "TWO_OPS": str(two.settings.ops.port)}
    checked = subprocess.run(["haproxy", "-c", "-f", EXAMPLE], env={**os.environ, **where, "PATH": PATH}, text=True,
                             capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr + checked.stdout
    with (tmp_path / "haproxy.log").open("w") as log, subprocess.Popen(
            ["haproxy", "-db", "-f", EXAMPLE], env={**os.environ, **where, "PATH": PATH}, stderr=log) as balancer:
        try:
            one.port = two.port = port
            _reachable(port)
            yield one, two
        finally:
            balancer.terminate()
    assert "ALERT" not in (tmp_path / "haproxy.log").read_text()


PATH = os.environ["PATH"] + ":/usr/sbin"


def _reachable(port: int) -> None:
    until = time.monotonic() + 15
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_A10_devices_are_shared_out_and_seen_with_their_own_addresses(balanced: tuple[World, World]) -> None:
    """The claim is from the device's address, which rules and policies then look at; 127.0.0.2 is such a one here."""
    one, two = balanced
    one.store(lambda store: store.add_rule(Rule("near", "globex-hosted", network="127.0.0.2/32"), today()))
    one.host(*(f"BALA{number:03}" for number in range(8)))
    answers = [one.ask(f"BALA{number:03}") for number in range(8)]
    assert {answer.status for answer in answers} == {200}
    assert min(len(one.trails()), len(two.trails())) > 0, "both had a part of them"
    assert {claim.peer for claim in one.store(lambda store: store.claims())} == {"127.0.0.1"}
    assert one.ask("NEAR001", source="127.0.0.2").status == 200, "nobody registered it: the rule is for its address"
    assert one.ask("NEAR002").fault == "NotEntitled"


def test_A10_a_delegator_that_stops_costs_no_device_an_answer(balanced: tuple[World, World]) -> None:
    one, two = balanced
    tags = [f"STOP{number:03}" for number in range(30)]
    one.host(*tags)
    for tag in tags:
        one.device(tag)
    for number, tag in enumerate(tags):
        assert one.ask(tag).status == 200
        if number == 10:
            assert two.process is not None
            two.process.send_signal(signal.SIGTERM)
    assert two.process is not None
    two.process.wait(30)
    assert two.stop() == 0
    assert len(one.trails()) > len(two.trails())


def test_A10_whoever_goes_past_the_balancer_is_not_served(delegators: tuple[World, World]) -> None:
    """Without a header, and so without anybody who vouches for where it comes from."""
    one, _ = delegators
    one.host("PAST001")
    with pytest.raises(OSError):
        one.ask("PAST001")
    refused = [trail for trail in one.trails() if trail["outcome"] == "TlsRefused"]
    assert "PROXY" in str(refused[0]["reasons"])
