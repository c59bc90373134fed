"""Whether cost grows with what is kept: `python -m benchmarks.flat`, explained in docs/performance.md.

Look-up and claim with 1 000 devices, with a million, and with a million rows of audit; the server's part of a TLS
handshake with nobody revoked and with 100 000. All in this process, in turn within each round, and told as ratios. The
databases are made once, by the product's own import, and kept in the folder.
The invariant: what is timed is the product's own code, called as the product calls it.
Must not live here: whole handshakes (handshakes.py).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import secrets
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.fleet import Fleet
from benchmarks.pieces import _Pair
from delegator.model import Customer, Delegate, Device, HostedCallback, Identity, IdentityKind, Secret
from delegator.model.audited import Act, Entry
from delegator.sealing import SealingKey, create_key_file, read_key_file
from delegator.store import Ask, Outcome, milliseconds, open_store
from delegator.wire.tls import server_context
from pki.trust import TrustStore

ROOT = Path(__file__).resolve().parents[1]
FEW = 1000
EACH = 96
"""Look-ups and claims in a round of one kind: no device of the thousand twice."""
IN_FLIGHT = 16
SERIALS = 100_000


def main() -> int:
    """Measure the tree this file lies in."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flat", description=__doc__.partition("\n")[0])
    parser.add_argument("--devices", type=int, default=1_000_000, help="in the large database (1000000)")
    parser.add_argument("--audit", type=int, default=1_000_000, help="rows of audit (1000000)")
    parser.add_argument("--rounds", type=int, default=9, help="at most 10, as there are 1000 devices (9)")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--dir", type=Path, default=ROOT / "var" / "benchmarks", help="(var/benchmarks)")
    said = parser.parse_args()
    report = _lists(said) | asyncio.run(_stores(said)) | {"load average": round(os.getloadavg()[0], 1)}
    print(json.dumps(report) if said.json else "\n".join(f"{name}: {value}" for name, value in report.items()))
    return 0


# --- look-up and claim ---


async def _stores(said: argparse.Namespace) -> dict[str, Any]:
    key = _key(said.dir)
    sizes = {"few": FEW, "audit": FEW, "many": said.devices}
    made = {name: await _database(said.dir, name, size, said.audit if name == "audit" else 0)
            for name, size in sizes.items()}
    stores = {name: await open_store(path, key) for name, path in made.items()}
    asked = {name: random.sample(range(size), EACH * said.rounds) for name, size in sizes.items()}
    figures: dict[str, dict[str, list[float]]] = {
        name: {"look-up": [], "claim": [], "both": []} for name in stores}
    for number in range(said.rounds):
        for name in random.sample(sorted(stores), len(stores)):
            costs = await _round(stores[name], asked[name][number * EACH:(number + 1) * EACH])
            for what, cost in (costs | {"both": sum(costs.values())}).items():
                figures[name][what].append(cost)
    for store in stores.values():
        await store.close()
    return _report(figures)


def _report(figures: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    report: dict[str, Any] = {f"{name}, {what}, us": _spread(costs) for name, all_of in figures.items()
                              for what, costs in all_of.items()}
    for name in ("many", "audit"):
        for what, costs in figures[name].items():
            report[f"{name} ÷ few, {what}"] = _spread([one / other for one, other in
                                                       zip(costs, figures["few"][what], strict=True)])
    return report


async def _round(store: Any, numbers: list[int]) -> dict[str, float]:
    """Microseconds of this process's CPU, all threads, for each look-up and each claim."""
    await store.tables()
    tags = [_tag(number) for number in numbers]
    start = time.process_time()
    owned = []
    for number, tag in zip(numbers, tags, strict=True):
        device = Device(tag, _serial(number), (_mac(2 * number), _mac(2 * number + 1)), "R750")
        _, found = await store.about(device)
        owned.append(found.registrations[0].device_id)
    looked = time.process_time() - start
    now = milliseconds(datetime.now(UTC))

    async def claim(device: int | None) -> None:
        """By a tag that never asked, as the databases are kept; the registration is looked at all the same."""
        whose = Identity(IdentityKind.OWN, secrets.token_hex(8).upper(), f"key:{secrets.token_hex(8)}")
        ask = Ask(f"{now:012x}{secrets.token_hex(10)}", whose, "acme", "acme-hosted", "192.0.2.7", now, now + 1,
                  now + 1000, owned=device)
        opened = await store.open_and_issue(ask, lambda claim: "secret")
        assert opened.outcome is Outcome.ISSUED
    start = time.process_time()
    for at in range(0, len(owned), IN_FLIGHT):
        await asyncio.gather(*(claim(device) for device in owned[at:at + IN_FLIGHT]))
    return {"look-up": 1e6 * looked / len(tags), "claim": 1e6 * (time.process_time() - start) / len(tags)}


def _tag(number: int) -> str:
    return f"T{number:08}"


def _serial(number: int) -> str:
    return f"SN-{number:09}"


def _mac(number: int) -> str:
    digits = f"{number:012x}"
    return ":".join(digits[at:at + 2] for at in range(0, 12, 2))


async def _database(place: Path, name: str, devices: int, audit: int) -> Path:
    """Made once; later runs add their claims, a few hundred, to each alike."""
    path = place / f"flat-{name}-{devices}-{audit}.db"
    done = path.with_suffix(".done")
    if done.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    store = await open_store(path, _key(place))
    try:
        await store.add_customer(Customer("acme", "Acme"), datetime.now(UTC))
        await store.add_delegate(Delegate("acme-hosted", "acme", HostedCallback("root", Secret("{random}"))),
                                 datetime.now(UTC))
        await _append(store, audit)
    finally:
        await store.close()
    began = time.monotonic()
    _import(place, path, devices)
    print(f"{path.name}: {devices} devices imported in {time.monotonic() - began:.1f} s", file=sys.stderr)
    done.touch()
    return path


def _key(place: Path) -> Any:
    path = place / "flat.key"
    place.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        create_key_file(path)
    return SealingKey(read_key_file(path))


async def _append(store: Any, rows: int) -> None:
    at = datetime.now(UTC)
    for first in range(0, rows, 5000):
        await store.audit.append([Entry(Act.HANDSHAKE, at, "device", "NotEntitled", f"OLD{number:07}", peer="192.0.2.9",
                                        reasons=("no rule leads to a customer",))
                                  for number in range(first, min(rows, first + 5000))])


def _import(place: Path, database: Path, devices: int) -> None:
    file = place / f"flat-{devices}.csv"
    if not file.exists():
        with file.open("w", encoding="utf-8") as rows:
            rows.write("service_tag,serial_number,mac_addresses,model\n")
            rows.writelines(f"{_tag(number)},{_serial(number)},{_mac(2 * number)};{_mac(2 * number + 1)},R750\n"
                            for number in range(devices))
    subprocess.run([sys.executable, "-m", "delegator", "devices", "import", str(file), "--customer", "acme", "--json"],
                   check=True, stdout=subprocess.DEVNULL, env=os.environ | {
                       "PYTHONPATH": str(ROOT), "DELEGATOR_STORE__PATH": str(database),
                       "DELEGATOR_SEALING__KEY_FILE": str(place / "flat.key")})


# --- revocation lists ---


def _lists(said: argparse.Namespace) -> dict[str, Any]:
    """The server's part of a handshake with the request in it."""
    fleet = Fleet(said.dir.resolve(), 1)
    fleet.mint()
    trust = TrustStore.load(fleet.pki.ca_path, fleet.pki.crl_path).beneath_anchors()
    assert trust.revocation is not None
    full = replace(trust, revocation=replace(trust.revocation, serials=frozenset(
        secrets.randbits(159) for _ in range(SERIALS))))
    contexts = {name: server_context(fleet.certificate, fleet.certificate.with_suffix(".key"), one,
                                     lambda: datetime.now(UTC)) for name, one in (("none", trust), ("full", full))}
    (device,) = fleet.devices(0, 1)
    pairs = {name: _Pair(context, device) for name, context in contexts.items()}
    costs: dict[str, list[float]] = {name: [] for name in contexts}
    for _ in range(said.rounds):
        for name in random.sample(sorted(contexts), len(contexts)):
            costs[name].append(statistics.median(
                1e6 * pairs[name].run()[0] for _ in range(150)))
    return {"TLS, nobody revoked, us": _spread(costs["none"]), f"TLS, {SERIALS} revoked, us": _spread(costs["full"]),
            f"{SERIALS} revoked ÷ nobody": _spread([one / other for one, other in
                                                    zip(costs["full"], costs["none"], strict=True)])}


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


if __name__ == "__main__":
    sys.exit(main())
