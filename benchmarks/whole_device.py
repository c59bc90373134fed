"""What a whole device costs, question and confirmation: `python -m benchmarks.whole_device`, see docs/performance.md.

The delegator serves it on one connection, as the device client does, and on two, as a client does that closes; with
settings kept here, and by SOAP with a delegate whose own CPU is not counted. Beside it nginx answers two requests for a
static page, on two connections and on one. All CPU of the delegator is counted, that of telling the delegate too.
The invariant: each device got a credential of its own, its confirmation was answered, and its delegate heard of it.
Must not live here: how a server is started (servers), what is worked out of rounds (figures).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from OpenSSL import SSL

from benchmarks import figures, load, nginx, servers
from benchmarks.fleet import CUSTOMER, DELEGATE, HOST, Device, Fleet
from benchmarks.load import LoadError
from benchmarks.servers import ROOT, Cores, Server, ServerError
from delegator import config
from delegator.device import messages
from delegator.model import Delegate, SoapCallback
from delegator.serving.parts import open_settings_store

WARM = 100
"""Devices of a warm-up round of each way."""
QUIET = 0.25
"""Seconds in which a server must do nothing before its round is over: delegates are told a moment later."""
ONE, TWO = "one connection", "two connections"
HOSTED, SOAP, NGINX = "hosted", "by SOAP", "nginx"
WAYS = ((HOSTED, ONE), (HOSTED, TWO), (SOAP, ONE), (SOAP, TWO), (NGINX, TWO), (NGINX, ONE))
REFERENCE = NGINX, TWO
Way = tuple[str, str]


def main() -> int:
    """Measure the tree this file lies in."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.whole_device", description=__doc__.partition("\n")[0])
    parser.add_argument("--devices", type=int, default=200, help="per round and way (200)")
    parser.add_argument("--rounds", type=int, default=11, help="of each way, in random order (11)")
    parser.add_argument("--in-flight", type=int, default=16, help="devices at a time (16)")
    parser.add_argument("--preload", default="", metavar="LIBRARY", help="an allocator for the delegator alone")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--dir", type=Path, default=ROOT / "var/benchmarks", help="(var/benchmarks)")
    said = parser.parse_args()
    try:
        table = _measured(said)
    except (LoadError, ServerError, OSError) as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    print(json.dumps({" ".join(way): asdict(row) for way, row in table.items()}) if said.json else "\n".join(
        f"{' '.join(way):24} {row.words()}" for way, row in table.items()))
    return 0


@dataclass(frozen=True, slots=True)
class Row:
    """Of one way: CPU a device in microseconds, that over the reference's in the same round, commits a device."""

    cpu_us: figures.Spread
    ratio: figures.Spread | None
    commits: figures.Spread | None

    def words(self) -> str:
        said = [f"{self.cpu_us.text()} us a device"]
        said += [] if self.ratio is None else [f"{self.ratio.text('.2f')} of {' '.join(REFERENCE)}"]
        said += [] if self.commits is None else [f"{self.commits.text('.3f')} commits"]
        return ", ".join(said)


def _measured(said: argparse.Namespace) -> dict[Way, Row]:
    ours = [way for way in WAYS if way[0] != NGINX or nginx.ways()]
    fleet = Fleet(said.dir.resolve(), WARM * len(ours) + said.devices * said.rounds * len(ours))
    fleet.mint()
    cores = Cores()
    rounds: dict[Way, list[figures.Round]] = {way: [] for way in ours}
    with ExitStack() as stack:
        started = {way: stack.enter_context(_running(way, fleet, cores, said.preload)) for way in ours}
        at = 0
        for number in range(-1, said.rounds):
            count = said.devices if number >= 0 else WARM
            for way in random.sample(ours, len(ours)):
                done = _round(started[way], fleet.devices(at, count), way[1] == ONE, said.in_flight)
                at += count
                rounds[way] += [done] * (number >= 0)
            print(f"round {number + 1} of {said.rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    return {way: _row(done, rounds.get(REFERENCE)) for way, done in rounds.items()}


def _row(done: Sequence[figures.Round], reference: Sequence[figures.Round] | None) -> Row:
    made = [each.commits / each.handshakes for each in done if each.commits is not None]
    return Row(figures.Spread.of([1e6 * each.cpu / each.handshakes for each in done]),
               None if reference is None else figures.ratio(done, reference).plain,
               figures.Spread.of(made) if made else None)


# --- servers ------------------------------------------------------------------------------------------------------


@contextmanager
def _running(way: Way, fleet: Fleet, cores: Cores, preload: str) -> Iterator[Server]:
    with ExitStack() as stack:
        if way[0] == NGINX:
            yield stack.enter_context(servers.running(partial(nginx.start, nginx.LEAN), fleet, cores))
            return
        own = fleet.beside("-".join(" ".join(way).split()), outbound=config.OutboundSettings(allow=("127.0.0.0/8",)))
        own.register()
        if way[0] == SOAP:
            _answered_at(stack.enter_context(_delegate(own)), own)
        yield stack.enter_context(servers.running(partial(servers.start_delegator, preload=preload), own, cores))


@contextmanager
def _delegate(fleet: Fleet) -> Iterator[int]:
    """The reference delegate, on the client's core; its port."""
    place = fleet.database.with_suffix(".delegate")
    place.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "delegator", "delegate", "serve", "--json", "--host", HOST, "--port", "0",
               "--certificate", str(fleet.certificate), "--key", str(fleet.certificate.with_suffix(".key")),
               "--ca", str(fleet.pki.ca_path), "--delegator", "delegator.test", "--database", str(place / "db"),
               "--sealing-key", str(place / "key"), "--data", str(place)]
    with (place / "log").open("wb") as words:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=words, start_new_session=True,
                                   env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline() or b"null")
        if not ready:
            raise ServerError(f"the delegate did not start, see {place / 'log'}")
        yield ready["port"]
    finally:
        servers.end(process)


def _answered_at(port: int, fleet: Fleet) -> None:
    async def change() -> None:
        store = await open_settings_store(fleet.settings)
        try:
            await store.add_delegate(Delegate(DELEGATE, CUSTOMER, SoapCallback("localhost", port, address=HOST)),
                                     datetime.now(UTC),
                                     replace=True)
        finally:
            await store.close()
    asyncio.run(change())


# --- devices ------------------------------------------------------------------------------------------------------


class _Kept(load.Call):
    """A call whose connection stays."""

    __slots__ = ()

    def whole(self) -> tuple[bytes, bytes] | None:
        """Head and body, once all of it is there."""
        head, body = self.answer()
        _, found, rest = head.lower().partition(b"content-length: ")
        return (head, body) if found and len(body) == int(rest.split(b"\r\n", 1)[0]) else None

    def ask(self, request: bytes) -> None:
        self._parts.clear()
        self._tls.sendall(request)
        self._flush()


class _Visit:
    """One device: its question, then its confirmation, on the same connection or on another."""

    def __init__(self, context: SSL.Context, server: Server, device: Device, one: bool) -> None:
        self._context, self._server, self._one = context, server, one
        self.device, self.started = device, time.perf_counter()
        self._asked = False
        self._dial(device.request.replace(b"Connection: close\r\n", b"") if one else device.request)

    def _dial(self, request: bytes) -> None:
        self.socket = socket.create_connection(self._server.address, timeout=load.STALLED)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        device = Device(self.device.tag, self.device.certificate, self.device.key, request)
        self._call = _Kept(self._context, self.socket, device)

    def received(self) -> bool:
        """Take what came; True when the device is done. Raises LoadError."""
        over = self._call.received()
        found = self._call.whole()
        if found is None:
            if over:
                raise LoadError(f"{self.device.tag}: cut off: {self._call.answer()[0][:80]!r}")
            return False
        head, body = found
        if not head.startswith(b"HTTP/1.1 200 ") or not self._good(body):
            raise LoadError(f"{self.device.tag}: not the answer: {head[:80]!r} with {body[:400]!r}")
        if self._asked:
            return True
        self._asked = True
        request = _confirmation(self.device, body)
        if self._one:
            self._call.ask(request)
        else:
            self.socket.close()
            self._dial(request)
        return False

    def _good(self, body: bytes) -> bool:
        if isinstance(self._server, nginx.Nginx):
            return body == nginx.PLAIN
        return (b"ConfirmProvisioningResponse" if self._asked else b"<Password>") in body


def _confirmation(device: Device, answer: bytes) -> bytes:
    """nginx, whose page names no claim, gets as many bytes."""
    claim = answer.partition(b"<ClaimId>")[2].partition(b"<")[0].decode() or "0" * 32
    body = messages.confirm(claim, messages.DEPLOYED, f"{int(device.tag[3:]):032x}", None)
    head = ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml; charset=utf-8\r\nConnection: close\r\n"
            f"SOAPAction: {messages.action(messages.CONFIRM)}\r\nContent-Length: {len(body)}\r\n\r\n")
    return head.encode() + body


def _round(server: Server, devices: list[Device], one: bool, in_flight: int) -> figures.Round:
    commits, before = server.commits(), server.usage()
    cpu, start = time.process_time(), time.perf_counter()
    latencies = _visited(server, devices, one, in_flight)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    used, after = _quiet(server), server.commits()
    made = None if commits is None or after is None else after - commits
    return figures.Round(latencies, wall, used.cpu - before.cpu, cpu, used.waited - before.waited, made)


def _quiet(server: Server) -> servers.Usage:
    """Once it has nothing left to do: a hundredth of a core is its clocks."""
    before = server.usage()
    while True:
        time.sleep(QUIET)
        after = server.usage()
        if after.cpu - before.cpu < QUIET / 50:
            return before
        before = after


def _visited(server: Server, devices: list[Device], one: bool, in_flight: int) -> list[float]:
    context, waiting = load.client_context(), iter(devices)
    latencies: list[float] = []
    visits: set[_Visit] = set()
    while True:
        while len(visits) < in_flight and (device := next(waiting, None)) is not None:
            visits.add(_Visit(context, server, device, one))
        if not visits:
            return latencies
        ready, _, _ = select.select([visit.socket for visit in visits], [], [], load.STALLED)
        if not ready:
            raise LoadError(f"no answer for {load.STALLED:.0f} s with {len(visits)} devices open")
        for visit in [each for each in visits if each.socket in ready]:
            if visit.received():
                visit.socket.close()
                visits.discard(visit)
                latencies.append(time.perf_counter() - visit.started)


if __name__ == "__main__":
    sys.exit(main())
