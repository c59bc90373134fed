"""`make isolation`: what it plays is what it says, and one mode of each layer leaves other customers' devices alone.

The whole of it takes long and a quiet machine; here the limits are those of a busy one.
"""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dns.message
import pytest

from benchmarks.isolation import judged, names
from benchmarks.isolation.layers import LAYERS, MODES
from benchmarks.isolation.tls import DATA, Wire, context
from benchmarks.isolation.window import Figures, Result, of_data
from pki import Folder

from .test_security_page import named_in

ROOT = Path(__file__).parents[1]
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
CALM = Figures(answered=60, failed={}, p50=5.0, p99=20.0, calls=30, cpu=0.2, each=2.0, burnt=0.5, longest=0.9,
               grown=100, told={})
FINE = Result("tls 1.3", "key updates", 16, "uvloop", CALM, CALM, 1.0)


# --- what there is ------------------------------------------------------------------------------------------------


def test_there_are_at_least_sixty_modes_and_each_layer_has_some() -> None:
    assert len(MODES) >= 60
    assert {one.layer for one in MODES} == set(LAYERS)
    assert len({(one.layer, one.name) for one in MODES}) == len(MODES)
    assert not [one for one in MODES if "|" in one.does or len(one.does.split()) < 2]


@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_names_quick_tests_that_are_there(layer: str) -> None:
    assert LAYERS[layer].laws
    for law in LAYERS[layer].laws:
        path, _, name = law.partition("::")
        assert name in named_in(ROOT / path), law


def test_the_page_lists_them_all() -> None:
    text = judged.PAGE.read_text(encoding="utf-8")
    assert judged.drawn(text) == text, "stale: run make isolation ARGS=--draw"


# --- what is sent -------------------------------------------------------------------------------------------------


def joined(factory: Folder, version: ssl.TLSVersion, *, serves: bool) -> tuple[Wire, ssl.SSLSocket]:
    """The attacker's end of a connection, and the standard library's."""
    chain = factory.certificate_path("delegator-server", "delegator")
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    theirs.settimeout(5)
    made = [context(version, chain=chain), context(version, ca=factory.ca_path)]
    mine, other = made if serves else made[::-1]
    shaken: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: shaken.append(other.wrap_socket(theirs, server_side=not serves)))
    thread.start()
    wire = Wire(ours, mine, serves=serves)
    thread.join()
    return wire, shaken[0]


@pytest.mark.parametrize("serves", [True, False], ids=["as a server", "as a client"])
@pytest.mark.parametrize("version", VERSIONS)
def test_records_that_are_sealed_here_are_taken_by_openssl(factory: Folder, version: ssl.TLSVersion,
                                                           serves: bool) -> None:
    """A flood that the other side cannot open would be no flood, but one bad record."""
    wire, peer = joined(factory, version, serves=serves)
    with wire.socket, peer:
        wire.write(b"hello")
        assert peer.recv(100) == b"hello"
        floods = [wire.sealed(DATA, b"") for _ in range(5)]
        if version is ssl.TLSVersion.TLSv1_3:
            floods += [wire.key_update(number % 2 > 0) for number in range(9)] + [wire.sealed(DATA, b"padded", 500)]
        wire.socket.sendall(b"".join(floods) + wire.sealed(DATA, b"after all"))
        got = b""
        while not got.endswith(b"after all"):
            got += peer.recv(100)
        peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert wire.request() == b""


@pytest.mark.parametrize("make", [lambda q: names.bomb(q, 45), lambda q: names.chain(q, 40), names.loop,
                                  names.nothing], ids=["bomb", "chain", "loop", "nothing"])
def test_answers_of_the_hostile_name_server_can_be_read(make: Callable[[bytes], bytes]) -> None:
    question = dns.message.make_query("9.2.0.192.in-addr.arpa.", "PTR")
    wire = make(question.to_wire())
    assert question.is_response(dns.message.from_wire(wire))
    assert len(wire) <= 1232


# --- what is too much ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changed", "words"), [
    ({"p99": 251.0}, "p99 251 ms"), ({"each": 3.1}, "CPU 1.55 times"), ({"failed": {"500": 1}}, "1 failed"),
    ({"longest": 2.1}, "1.1 s past the budget"), ({"grown": 33 * 1024}, "33 MiB more"), ({"answered": 0}, "0 failed")])
def test_each_limit_is_judged_on_its_own(changed: dict[str, Any], words: str) -> None:
    assert judged.broken(FINE) == []
    assert judged.broken(replace(FINE, attack=replace(CALM, **changed))) == [words]


def test_a_machine_without_room_is_no_fault_of_the_mode_unless_it_makes_it_worse() -> None:
    crowded = replace(CALM, p99=400.0)
    assert judged.broken(replace(FINE, attack=replace(CALM, p99=500.0), control=crowded)) == []
    assert judged.broken(replace(FINE, attack=replace(CALM, p99=601.0), control=crowded)) == ["p99 601 ms"]


def test_a_run_is_written_into_the_page_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"before\n{judged.BEGIN}\nold\n{judged.END}\n{judged.MODES_BEGIN}{judged.END}after\n")
    judged.written([FINE, replace(FINE, attack=replace(CALM, p99=300.0))], "2026-01-01", path)
    text = path.read_text()
    assert "| tls 1.3 | 1 | 300 | 1.00 | 0.0 | 0.1 | 0 |" in text
    assert "- tls 1.3, key updates, 16 at once, uvloop: p99 300 ms" in text
    assert "\nold\n" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert of_data(json.loads(json.dumps(FINE.data()))) == FINE


# --- the thing itself ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("loop", "layers"), [("asyncio", list(LAYERS)[::2]), ("uvloop", list(LAYERS)[1::2])])
def test_TB10_one_hostile_peer_of_each_layer_and_other_customers_devices_beside_it(
        tmp_path_factory: pytest.TempPathFactory, loop: str, layers: list[str]) -> None:
    """None fails, calls end with their budgets, memory stays; time and CPU within what a busy machine makes of them."""
    place = tmp_path_factory.getbasetemp() / "isolation"  # certificates are minted once for both
    only = [word for name in layers for word in ("--layer", name)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.isolation", "--sample", "2", "--at-once", "16", "--loop", loop, "--seconds",
         "0.6", "--tries", "2", "--json", "--dir", str(place), *only],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1), done.stderr
    results = [of_data(data) for data in json.loads(done.stdout)["results"]]
    assert [one.layer for one in results] == layers
    assert {f"{one.layer}: {one.name}": judged.broken(one, judged.GENEROUS) for one in results
            if judged.broken(one, judged.GENEROUS)} == {}, done.stderr
