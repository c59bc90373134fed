"""Ten thousand hostile peers, for tests/e2e/test_hostile.py: a process of its own, so that it slows nobody's clock.

Usage: python -m tests.e2e.flooding PORT CERTIFICATE KEY CA HOW_MANY. Eight threads; each input once or mutated. Prints
one line of JSON: how many of each kind were sent, and what was odd about the answers.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from .. import hostility
from ..forgery import authority, forged, written
from ..hostility import NO_HTTP, NO_SOAP, NO_TLS, request

THREADS = 8
PATIENCE = 15.0
SHARES = (("tls", 3), ("certificate", 1), ("http", 2), ("soap", 4))
"""Of ten: a handshake costs the flood more than it costs the delegator, so most share one."""


class Flood:
    """What the threads share."""

    def __init__(self, port: int, certificate: Path, key: Path, ca: Path) -> None:
        self.address = ("127.0.0.1", port)
        self.known = self._context(ca, certificate, key)
        with tempfile.TemporaryDirectory() as folder:
            stranger = written(Path(folder), "stranger", forged(authority("Nobody"), "HOSTILE1"))
            self.unknown = self._context(ca, *stranger)
        self.sent: collections.Counter[str] = collections.Counter()
        self.odd: list[str] = []
        self.lock = threading.Lock()

    @staticmethod
    def _context(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(certificate, key)
        return context

    def connected(self) -> socket.socket:
        return socket.create_connection(self.address, PATIENCE)

    def handshaken(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        return context.wrap_socket(self.connected(), server_hostname="localhost")

    def note(self, kind: str, odd: str = "") -> None:
        with self.lock:
            self.sent[kind] += 1
            if odd and len(self.odd) < 20:
                self.odd.append(f"{kind}: {odd}")


def end_of(sock: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError, BrokenPipeError):
        while part := sock.recv(65536):
            data += part
    return data


def tls(flood: Flood, inputs: Iterator[bytes]) -> None:
    with flood.connected() as sock, contextlib.suppress(ConnectionError):
        sock.sendall(next(inputs))
        sock.shutdown(socket.SHUT_WR)
        end_of(sock)
    flood.note("tls")


def certificate(flood: Flood, inputs: Iterator[bytes]) -> None:
    said = "the connection stayed open"
    try:
        with flood.handshaken(flood.unknown) as sock:
            sock.sendall(next(inputs))
            sock.recv(1)
    except ssl.SSLError as error:
        said = "" if "UNKNOWN_CA" in str(error.reason) else str(error)
    except ConnectionError:
        said = ""
    flood.note("certificate", said)


def http(flood: Flood, inputs: Iterator[bytes]) -> None:
    """What a mutation cut short ends when the connection does, so nobody waits for a deadline."""
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls_end = flood.known.wrap_bio(into, out, server_hostname="localhost")
    with flood.connected() as sock:
        until(tls_end.do_handshake, sock, into, out)
        tls_end.write(next(inputs))
        with contextlib.suppress(ConnectionError):
            sock.sendall(out.read())
            sock.shutdown(socket.SHUT_WR)
            into.write(end_of(sock))
    into.write_eof()
    answer = b""
    with contextlib.suppress(ssl.SSLError):
        while part := tls_end.read(65536):
            answer += part
    fine = not answer or b"urn:delegator" in answer or answer[9:12] in (b"404", b"405")  # a mutation may be a request
    flood.note("http", "" if fine else answer[:200].decode("latin-1"))


def until(step: Callable[[], object], sock: socket.socket, into: ssl.MemoryBIO, out: ssl.MemoryBIO) -> None:
    """A step of TLS over memory, done."""
    while True:
        try:
            step()
        except ssl.SSLWantReadError:
            sock.sendall(out.read())
            into.write(sock.recv(65536))
        else:
            sock.sendall(out.read())
            return


def soap(flood: Flood, inputs: Iterator[bytes]) -> None:
    """Fifty calls on a connection."""
    with flood.handshaken(flood.known) as sock:
        for body in itertools.islice(inputs, 50):
            sock.sendall(request(body))
            answer = sock.recv(65536)
            flood.note("soap", "" if b"urn:delegator" in answer else answer[:200].decode("latin-1"))


def inputs_of(known: dict[str, bytes], seed: int) -> Iterator[bytes]:
    """Each as it is, then mutated for ever."""
    yield from known.values()
    mutated = [hostility.mutations(data, seed + n) for n, data in enumerate(known.values())]
    yield from (next(one) for one in itertools.cycle(mutated))


SENDERS: dict[str, tuple[Callable[[Flood, Iterator[bytes]], None], dict[str, bytes]]] = {
    "tls": (tls, NO_TLS), "certificate": (certificate, NO_HTTP), "http": (http, NO_HTTP), "soap": (soap, NO_SOAP)}


def flooding(flood: Flood, seed: int, shares: dict[str, int]) -> None:
    """One thread: every kind in turn, each up to its share."""
    inputs = {kind: inputs_of(known, seed) for kind, (_, known) in SENDERS.items()}
    sent = dict.fromkeys(shares, 0)
    while left := [kind for kind in shares if sent[kind] < shares[kind]]:
        for kind in left:
            if kind == "soap":
                many = min(50, shares[kind] - sent[kind])
                soap(flood, itertools.islice(inputs[kind], many))
                sent[kind] += many
            else:
                SENDERS[kind][0](flood, inputs[kind])
                sent[kind] += 1


def main() -> None:
    port, certificate_file, key, ca, many = sys.argv[1:]
    flood = Flood(int(port), Path(certificate_file), Path(key), Path(ca))
    each = int(many) // THREADS
    shares = {kind: each * share // 10 for kind, share in SHARES}
    shares["soap"] += each - sum(shares.values())
    threads = [threading.Thread(target=flooding, args=(flood, 1000 * n, shares)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"sent": flood.sent, "odd": flood.odd}))


if __name__ == "__main__":
    main()
