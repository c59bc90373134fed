"""Where a handshake's CPU goes, piece by piece: `python -m benchmarks.pieces [--devices N] [--dir DIR] [--json]`.

Each piece of the walk runs alone, in this process, many times over; told is the CPU of all threads per call, of the
quickest of five runs. The pieces do not add up to `benchmarks.handshakes`'s figure: alone, each finds its code and
data in the caches, and nobody else waits for the interpreter's lock. They say what is worth changing.
The invariant: what is timed is the product's own code, called as the product calls it.
Must not live here: opinions about the numbers (docs/performance.md).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto

from benchmarks import load
from benchmarks.fleet import Fleet
from benchmarks.servers import ROOT
from delegator.clockwork.clocks import Clock
from delegator.model import IdentityKind
from delegator.provisioning.handshake import Handshake, Peer
from delegator.provisioning.judgement import judge
from delegator.routing import Facts
from delegator.serving import app
from delegator.store import Store
from delegator.trail import Step, Trail
from delegator.watching import logs
from delegator.wire import messages, soap
from delegator.wire.certificate import read_certificate
from delegator.wire.http import RequestReader, Response, render_response
from delegator.wire.tls import Session, TlsContext

CLOCK = Clock()

REPEATS = 5
CALLS = 200
IN_FLIGHT = 16
Pieces = dict[str, float]


def quickest(work: Callable[[], object], calls: int = CALLS) -> float:
    """Microseconds of CPU per call, in the least disturbed of five runs."""
    runs = []
    for _ in range(REPEATS):
        start = time.process_time()
        for _ in range(calls):
            work()
        runs.append((time.process_time() - start) / calls)
    return 1e6 * min(runs)


async def quickest_async(work: Callable[[], Coroutine[Any, Any, object]], calls: int = CALLS) -> float:
    """The same for a coroutine, stepped by an event loop without a task of its own."""
    runs = []
    for _ in range(REPEATS):
        start = time.process_time()
        for _ in range(calls):
            await work()
        runs.append((time.process_time() - start) / calls)
    return 1e6 * min(runs)


# --- TLS ----------------------------------------------------------------------------------------------------------


class _Pair:
    """A handshake in memory, with the CPU of the server's end kept apart."""

    def __init__(self, context: TlsContext, device: Any) -> None:
        self.device = device
        client = load.client_context()
        client.use_certificate(device.certificate.to_cryptography())
        client.use_privatekey(device.key.to_cryptography_key())
        self._client_context, self._context = client, context

    def run(self, reply: bytes = b"") -> tuple[float, float, Session]:
        """Seconds of the server's end: until the request is read, and to answer and close."""
        client = SSL.Connection(self._client_context, None)
        client.set_connect_state()
        _pump(client)
        hello = client.bio_read(load.RECEIVE)
        start = time.process_time()
        session = Session(self._context)
        session.receive(hello)
        flight = session.outgoing()
        spent = time.process_time() - start
        client.bio_write(flight)
        _pump(client)
        client.sendall(self.device.request)
        second = client.bio_read(load.RECEIVE)
        start = time.process_time()
        request = session.receive(second)
        spent += time.process_time() - start
        assert request == self.device.request, session.refused
        start = time.process_time()
        session.send(reply)
        session.close()
        session.outgoing()
        return spent, time.process_time() - start, session


def _pump(client: Any) -> None:
    try:
        client.do_handshake()
    except SSL.WantReadError:
        return


def tls(context: TlsContext, device: Any) -> tuple[Pieces, Session]:
    """The handshake with the request in it, and the answer with its goodbye."""
    pair = _Pair(context, device)
    done = [pair.run(b"x" * 800) for _ in range(REPEATS * CALLS)]
    runs = [done[at:at + CALLS] for at in range(0, len(done), CALLS)]
    session = done[-1][2]
    return {
        "TLS: handshake, request decrypted": 1e6 * min(sum(one[0] for one in run) for run in runs) / CALLS,
        "TLS: answer encrypted, close_notify": 1e6 * min(sum(one[1] for one in run) for run in runs) / CALLS,
        "peer certificate read": quickest(session.peer),
    }, session


# --- bytes and values ---------------------------------------------------------------------------------------------


def wire(request: bytes, answer: Any) -> Pieces:
    """HTTP and SOAP, both ways."""
    body = RequestReader().feed(request)[0].body
    envelope = soap.parse(body)
    reply = messages.write_answer(envelope.operation, answer)
    response = Response(200, {b"Content-Type": b"text/xml; charset=utf-8"}, soap.render(envelope.version, reply))
    return {
        "HTTP: request read": quickest(lambda: RequestReader().feed(request)),
        "SOAP: envelope parsed": quickest(lambda: soap.parse(body)),
        "SOAP: element to values": quickest(lambda: messages.read(envelope.operation, messages.Service.DELEGATOR)),
        "SOAP: values to element": quickest(lambda: messages.write_answer(envelope.operation, answer)),
        "SOAP: element to bytes": quickest(lambda: soap.render(envelope.version, reply)),
        "HTTP: answer written": quickest(lambda: render_response(response, close=True)),
    }


def trail_of_a_handshake() -> Trail:
    """As many marks with as many words as a handshake with a hosted credential takes."""
    trail = Trail("1f-1", "127.0.0.1")
    trail.facts |= {"operation": "CredentialRequest", "tag": "BEN000001", "identity": "own", "customer": "acme",
                    "delegate": "acme-hosted", "outcome": "Answered"}
    for step in (Step.CONNECTED, Step.AUTHENTICATED, Step.ASKED, Step.IDENTIFIED, Step.ROUTED, Step.DECIDED,
                 Step.CLAIMED, Step.ISSUED, Step.ANSWERED):
        trail.mark(step, time.monotonic_ns(), f"some words about {step.name}")
    return trail


def log_lines(place: Path) -> Pieces:
    """The trail, and its line in the log as text and as JSON."""
    trail, pieces = trail_of_a_handshake(), {"trail: nine marks": quickest(trail_of_a_handshake)}
    with (place / "pieces.log").open("w", buffering=1, encoding="utf-8") as stream:
        for name, as_json in (("text", False), ("JSON", True)):
            logs.configure("info", as_json, stream)
            pieces[f"log line, {name}"] = quickest(lambda: logs.record([(trail, logging.INFO)]))
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)
    return pieces


# --- the store and the use case -----------------------------------------------------------------------------------


async def look_ups(store: Store, asked: Any) -> Pieces:
    """What is read for a handshake, and the whole judgement, which holds that read."""
    facts = Facts(asked.device, asked.location, "127.0.0.1")
    about = await quickest_async(lambda: store.about(asked.device))

    async def judged() -> None:
        await judge(store, facts, IdentityKind.OWN, CLOCK.now(), Trail("1f-1", "127.0.0.1"))
    return {"store: the device, and whether the small tables changed": about,
            "judgement: that read, routing, policy": await quickest_async(judged)}


async def claims(handshake: Handshake, asks: Iterable[tuple[Any, Peer]]) -> Pieces:
    """The whole use case for new devices, one at a time and many at once; each device is used once."""
    waiting = list(asks)
    half = len(waiting) // 2

    async def provision(request: Any, peer: Peer) -> None:
        await handshake.provision(request, peer, Trail("1f-1", peer.address))

    start = time.process_time()
    for request, peer in waiting[:half]:
        await provision(request, peer)
    alone, start = time.process_time() - start, time.process_time()
    for at in range(half, len(waiting), IN_FLIGHT):
        await asyncio.gather(*(provision(*one) for one in waiting[at:at + IN_FLIGHT]))
    together = time.process_time() - start
    return {"use case with its commit, alone": 1e6 * alone / half,
            f"use case with its commit, {IN_FLIGHT} at once": 1e6 * together / (len(waiting) - half)}


async def small(store: Store) -> Pieces:
    """Sealing, and what asyncio and the kernel take for a task and a connection."""
    async def nothing() -> None:
        return None

    async def task() -> None:
        await loop.create_task(nothing())

    loop, key = asyncio.get_running_loop(), store._key
    return {
        "sealing: seal and open": quickest(lambda: key.open(key.seal("x" * 100, "claims/1"), "claims/1")),
        "asyncio: a task": await quickest_async(task),
        "asyncio and kernel: accept, watch, close": _connections(loop),
    }


def _connections(loop: asyncio.AbstractEventLoop) -> float:
    """CPU of the accepting end of empty connections."""
    spent = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        for _ in range(CALLS):
            with socket.create_connection(listening.getsockname()):
                start = time.process_time()
                sock, _ = listening.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                loop.add_reader(sock.fileno(), lambda: None)
                loop.remove_reader(sock.fileno())
                sock.close()
                spent.append(time.process_time() - start)
    return 1e6 * sorted(spent)[len(spent) // 2]


# --- the command --------------------------------------------------------------------------------------------------


async def measure(fleet: Fleet) -> Pieces:
    """All pieces, in the order of the walk."""
    bench = app.App(fleet.settings)
    await bench.start()
    store, handshake, context = bench._store, bench._handshake, bench._parts.context
    first = fleet.devices(0, 1)[0]
    pieces, session = tls(context, first)
    asked = _asked(first.request)
    answer = await handshake.provision(asked, Peer("127.0.0.1", session.peer()), Trail("1f-1", "127.0.0.1"))
    pieces |= wire(first.request, answer)
    pieces |= await look_ups(store, asked)
    others = fleet.devices(1, fleet.size - 1)
    pieces |= await claims(handshake, [(_asked(one.request), _peer(one)) for one in others])
    pieces |= await small(store)
    pieces |= log_lines(fleet.place)
    bench.stop()
    await bench.run()
    return pieces


def _asked(request: bytes) -> Any:
    envelope = soap.parse(RequestReader().feed(request)[0].body)
    return messages.read(envelope.operation, messages.Service.DELEGATOR)


def _peer(device: Any) -> Peer:
    return Peer("127.0.0.1", read_certificate(crypto.dump_certificate(crypto.FILETYPE_ASN1, device.certificate)))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pieces",
                                     description="Where a handshake's CPU goes, piece by piece.")
    parser.add_argument("--devices", type=int, default=641, metavar="N", help="with a claim of their own (641)")
    parser.add_argument("--dir", type=Path, default=ROOT / "var" / "benchmarks", metavar="DIR")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    arguments = parser.parse_args()
    fleet = Fleet(arguments.dir.resolve(), arguments.devices)
    fleet.mint()
    fleet.register()
    pieces = asyncio.run(measure(fleet))
    print(json.dumps(pieces) if arguments.json else
          "\n".join(f"{microseconds:8.1f} us  {name}" for name, microseconds in pieces.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
