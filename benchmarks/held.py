"""What a peer that does nothing costs: `python -m benchmarks.held`, explained in docs/performance.md.

Opens connections that say nothing, then ones that end their TLS handshake and ask nothing, and looks at the server's
resident memory before and after. What the kernel keeps for a socket is not in it.
The invariant: every process that was started here is ended here.
Must not live here: handshakes that ask something (handshakes.py).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import sys
import time
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from OpenSSL import SSL

from benchmarks import load, servers
from benchmarks.fleet import Fleet
from benchmarks.load import RECEIVE, _lib, client_context
from benchmarks.servers import ROOT
from delegator import config

WARM = 400
"""Handshakes and silent connections before anything is measured: what is held then is nobody's."""
SETTLE = 1.0


def main() -> int:
    """Measure the tree this file lies in."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.held", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=5000, help="of each kind (5000)")
    parser.add_argument("--rounds", type=int, default=3, help="(3)")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--dir", type=Path, default=ROOT / "var/benchmarks", help="(var/benchmarks)")
    said = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    rounds = [_round(said.dir.resolve(), said.count) for _ in range(said.rounds)]
    print(json.dumps(rounds) if said.json else "\n".join(
        ", ".join(f"{name} {value}" for name, value in one.items()) for one in rounds))
    return 0


def _round(place: Path, count: int) -> dict[str, Any]:
    fleet = Fleet(place, WARM)
    fleet.mint()
    fleet.register()
    fleet.settings = replace(fleet.settings, limits=replace(
        fleet.settings.limits, connections_per_source=20_000, half_open=20_000, handshake=600, idle=600))
    fleet.settings_file.write_text(config.as_toml(fleet.settings), encoding="utf-8")
    devices = fleet.devices(0, WARM)
    with servers.running(servers.start_delegator, fleet, servers.Cores()) as server:
        load.run(server.address, devices, server.good, 16)
        _let_go(_silent(server.address, WARM))
        time.sleep(SETTLE)
        before = server.resident()
        silent = _silent(server.address, count)
        time.sleep(SETTLE)
        with_silent = server.resident()
        _let_go(silent)
        time.sleep(SETTLE)
        between = server.resident()
        held = _held(server.address, devices, count)
        time.sleep(SETTLE)
        with_held = server.resident()
        _let_go(held)
    return {"silent_kib": round((with_silent - before) / count, 2), "held_kib": round((with_held - between) / count, 2),
            "resident_before_kib": before, "left_by_silent_kib": between - before, "count": count,
            "load_average": round(os.getloadavg()[0], 1)}


def _silent(address: tuple[str, int], count: int) -> list[socket.socket]:
    return [socket.create_connection(address, 30) for _ in range(count)]


def _held(address: tuple[str, int], devices: list[Any], count: int) -> list[Any]:
    """Each ends its handshake, and the server has read its certificate, before the next begins."""

    context, held = client_context(), []
    for number in range(count):
        device = devices[number % len(devices)]
        tls = SSL.Connection(context, None)
        _lib.SSL_use_certificate(tls._ssl, device.certificate._x509)
        _lib.SSL_use_PrivateKey(tls._ssl, device.key._pkey)
        tls.set_connect_state()
        sock = socket.create_connection(address, 30)
        while True:
            try:
                tls.do_handshake()
                sock.sendall(tls.bio_read(RECEIVE))
                break
            except SSL.WantReadError:
                sock.sendall(tls.bio_read(RECEIVE))
                tls.bio_write(sock.recv(RECEIVE))
        held.append(sock)
    return held


def _let_go(sockets: list[Any]) -> None:
    for sock in sockets:
        sock.close()


if __name__ == "__main__":
    sys.exit(main())
