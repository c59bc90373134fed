"""What an import of many devices costs, and what devices notice of it: `python -m benchmarks.importing`.

Each round takes a new database, starts a delegator on it, lets a device ask over and over, one complete handshake at a
time, first with nothing else going on and then while `delegator devices import` runs as a process of its own.
The invariant: every process that was started here is ended here; every answer is a credential, or the run ends.
Must not live here: load for its own sake (handshakes.py).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.fleet import CUSTOMER, Fleet
from benchmarks.servers import ROOT, Cores, Server, end, start_delegator

ASKING = 20
"""Devices that ask, in turn; from their second time on they get the same answer again, by the same transaction."""
PAUSE = 0.02
QUIET = 5.0
"""Seconds of asking before the import begins."""
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.importing", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="devices in the file (1000000)")
    parser.add_argument("--rounds", type=int, default=3, help="of each kind (3)")
    parser.add_argument("--kind", choices=("series", "random"), action="append",
                        help="identifiers that count up, or that have nothing to do with each other (both)")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--dir", type=Path, default=ROOT / "var" / "benchmarks", help="(var/benchmarks)")
    said = parser.parse_args()
    fleet = Fleet(said.dir, ASKING)
    fleet.mint()
    report = {kind: [_round(fleet, kind, said.rows) for _ in range(said.rounds)] for kind in said.kind or ["series",
                                                                                                          "random"]}
    if said.json:
        print(json.dumps(report))
        return 0
    for kind, rounds in report.items():
        print(f"{said.rows} devices, {kind}:")
        for one in rounds:
            print("  " + ", ".join(f"{name} {value}" for name, value in one.items()))
    return 0


def _round(fleet: Fleet, kind: str, rows: int) -> dict[str, Any]:
    file = _shipment(fleet.place / f"{kind}-{rows}.csv", kind, rows)
    fleet.register()
    server = start_delegator(fleet, Cores())
    try:
        ask = _asking(fleet, server)
        until = time.monotonic() + QUIET
        quiet = list(_latencies(ask, lambda: time.monotonic() < until))
        began, load = time.monotonic(), os.getloadavg()[0]
        importing = subprocess.Popen(
            [sys.executable, "-m", "delegator", "--config", str(fleet.settings_file), "devices", "import", str(file),
             "--customer", CUSTOMER, "--json"], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)})
        beside = list(_latencies(ask, lambda: not os.waitid(os.P_PID, importing.pid, os.WEXITED | os.WNOHANG
                                                            | os.WNOWAIT)))
        assert importing.stdout is not None
        facts = json.loads(importing.stdout.read())
        usage = os.wait4(importing.pid, 0)[2]
        importing.returncode = 0
        assert facts["new"] == rows, facts
    finally:
        end(server.process)
    return {"wall_s": round(time.monotonic() - began, 1), "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
            "peak_mib": usage.ru_maxrss // 1024, "load_before": round(load, 1), "p50_ms_before": _of(quiet, 0.5),
            "p99_ms_before": _of(quiet, 0.99), "p50_ms_beside": _of(beside, 0.5), "p99_ms_beside": _of(beside, 0.99),
            "longest_ms_beside": _of(beside, 1), "answers_beside": len(beside)}


def _of(latencies: list[float], share: float) -> float:
    return round(sorted(latencies)[min(len(latencies) - 1, int(share * len(latencies)))] * 1000, 1)


def _latencies(ask: Callable[[], float], going: Callable[[], bool]) -> Iterator[float]:
    while going():
        yield ask()
        time.sleep(PAUSE)


def _asking(fleet: Fleet, server: Server) -> Callable[[], float]:
    """One complete handshake of the next device; the seconds it took."""
    devices, number = fleet.devices(0, ASKING), 0
    contexts = []
    for device in devices:
        path = fleet.pki.certificate_path("device", device.tag)
        contexts.append(context := ssl.create_default_context(cafile=str(fleet.pki.ca_path)))
        context.load_cert_chain(path, path.with_suffix(".key"), password="")

    def ask() -> float:
        nonlocal number
        at, number = number % ASKING, number + 1
        began = time.perf_counter()
        with (socket.create_connection(server.address, 30) as raw,
              contexts[at].wrap_socket(raw, server_hostname="localhost") as secured):
            secured.sendall(devices[at].request)
            answer = b"".join(iter(lambda: secured.recv(65536), b""))
        took = time.perf_counter() - began
        assert server.good(devices[at], answer.partition(b"\r\n\r\n")[2]), answer
        return took
    return ask


def _shipment(path: Path, kind: str, rows: int) -> Path:
    """A file of devices, each with a tag, a serial number and two MAC addresses; 500 to an order."""
    if path.exists():
        return path
    any_of = random.Random(7)
    with path.open("w", encoding="utf-8") as file:
        file.write("service_tag,serial_number,mac_addresses,model,order\n")
        for number in range(rows):
            if kind == "series":
                tag, serial, macs = f"T{number:08}", f"SN-{number:09}", [2 * number, 2 * number + 1]
            else:
                tag, serial = "".join(any_of.choices(_LETTERS, k=9)), f"SN-{any_of.getrandbits(48):012X}"
                macs = [any_of.getrandbits(47), any_of.getrandbits(47)]
            file.write(f"{tag},{serial},{';'.join(map(_mac, macs))},R750,{number // 500}\n")
    return path


def _mac(number: int) -> str:
    digits = f"{number:012X}"
    return ":".join(digits[at:at + 2] for at in range(0, 12, 2))


if __name__ == "__main__":
    sys.exit(main())
