"""Name servers for tests: BIND as it is, and a pretend one that misbehaves as told. Both speak on loopback only."""

from __future__ import annotations

import contextlib
import shutil
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

LABEL = "provisioning-delegate"
SOA = "ns.test. admin.test. 1 3600 600 86400 30"
"""The last number is the time for which "there is nothing" may be believed."""
REVERSE = {
    "1.2.0.192": ["PTR rack1.customer.test."],
    "2.2.0.192": ["PTR Rack2.LAB.customer.test."],
    "3.2.0.192": ["PTR www.customer.test."],
    "4.2.0.192": ["PTR ghost.customer.test."],
    "5.2.0.192": ["CNAME 5.0-15.2.0.192.in-addr.arpa."],
    "5.0-15.2.0.192": ["PTR rack5.customer.test."],
    "6.2.0.192": [f"PTR many{number}.customer.test." for number in range(12)],
    "7.2.0.192": ["PTR rack7.customer.test.", "PTR rack7.elsewhere.test."],
    "8.2.0.192": ["PTR rack8.evil-customer.test."],
    "9.2.0.192": ["PTR co.uk."],
    "10.2.0.192": ["PTR customer.test."],
    "11.2.0.192": [r"PTR a\;b.customer.test.", r"PTR a\.b.customer.test.", r"PTR a\000b.customer.test.",
                   "PTR under_score.customer.test.", r"PTR a\"b\$\(id\).customer.test."],
    "12.2.0.192": ["CNAME loop.2.0.192.in-addr.arpa."],
    "loop.2.0.192": ["CNAME 12.2.0.192.in-addr.arpa."],
    "13.2.0.192": ["PTR rack13.customer.test.", "PTR rack13.lab.customer.test."],
    "14.2.0.192": ["PTR " + ".".join(["l" * 40] * 5) + ".customer.test."],
    "15.2.0.192": ["PTR rack15.elsewhere.test."],
    "16.2.0.192": ["PTR rack16.uk."],
    **{f"{number}.0.0.127": [f"PTR local{number}.customer.test."] for number in (1, 2, 3, 4)},
    "9.0.0.127": ["PTR local9.elsewhere.test."],
}
REVERSE_6 = {"7.0.0.0." + "0." * 20 + "8.b.d.0.1.0.0.2": ["PTR rack6.customer.test."]}
FORWARD = {
    "rack1.customer": ["A 192.0.2.1", "A 192.0.2.101", "AAAA 2001:db8::1"], "rack2.lab.customer": ["A 192.0.2.2"],
    "www.customer": ["A 198.51.100.80"],
    "rack5.customer": ["CNAME host5.dc.customer.test."], "host5.dc.customer": ["CNAME real5.customer.test."],
    "real5.customer": ["A 192.0.2.5"], "rack6.customer": ["AAAA 2001:db8::7", "A 192.0.2.106"],
    **{f"many{number}.customer": [f"A 192.0.2.{other}" for other in range(1, 20)] for number in range(12)},
    "rack7.customer": ["A 192.0.2.7"], "rack7.elsewhere": ["A 192.0.2.7"],
    "rack8.evil-customer": ["A 192.0.2.8"], "customer": ["A 192.0.2.10"],
    "rack13.customer": ["A 192.0.2.13"], "rack13.lab.customer": ["A 192.0.2.13"],
    ".".join(["l" * 40] * 5) + ".customer": ["A 192.0.2.14"], "rack15.elsewhere": ["A 192.0.2.15"],
    **{f"local{number}.customer": [f"A 127.0.0.{number}"] for number in (1, 2, 3, 4)},
    "local9.elsewhere": ["A 127.0.0.9"],
    f"{LABEL}.customer": ["A 127.0.0.1"], f"{LABEL}.lab.customer": ["CNAME server.hosting.test."],
    "server.hosting": ["A 203.0.113.9", "AAAA 2001:db8:9::9"],
    f"{LABEL}.elsewhere": ["A 127.0.0.1"], LABEL: ["A 203.0.113.1"],
}
ZONES = {"test": FORWARD, "in-addr.arpa": REVERSE, "ip6.arpa": REVERSE_6,
         "uk": {"co": ["A 192.0.2.9"], LABEL: ["A 203.0.113.2"], "rack16": ["A 192.0.2.16"]}, ".": {}}


def _zone(records: dict[str, list[str]]) -> str:
    lines = ["$TTL 60", f"@ SOA {SOA}", "@ NS ns.test."]
    return "\n".join([*lines, *(f"{name} {text}" for name, texts in records.items() for text in texts), ""])


def _free_port() -> int:
    """Free for both transports."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            try:
                tcp.bind(udp.getsockname())
            except OSError:
                continue
            return int(udp.getsockname()[1])


@contextlib.contextmanager
def bind(folder: Path) -> Iterator[str]:
    """BIND with the zones above; the address it answers at."""
    port, zones = _free_port(), []
    for number, (name, records) in enumerate(ZONES.items()):
        (folder / f"{number}.zone").write_text(_zone({**records, "ns.test.": ["A 127.0.0.1"]}
                                                     if name in ("test", ".") else records))
        zones.append(f'zone "{name}" {{ type primary; file "{number}.zone"; check-names ignore; }};')
    (folder / "named.conf").write_text(f"""
        options {{ directory "{folder}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
                   pid-file none; session-keyfile none; dnssec-validation no; empty-zones-enable no; notify no;
                   max-records-per-type 0; max-cache-size 8m; }};
        controls {{ }};
        {" ".join(zones)}""")
    program = shutil.which("named", path="/usr/sbin:/usr/bin")
    assert program is not None
    with (folder / "log").open("w") as log, subprocess.Popen(
            [program, "-g", "-n", "1", "-c", str(folder / "named.conf")], stdout=log, stderr=log) as process:
        try:
            _wait_for(port, folder / "log")
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait_for(port: int, log: Path) -> None:
    query = dns.message.make_query("ns.test.", "A").to_wire()
    for _ in range(100):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.settimeout(0.1)
            sock.sendto(query, ("127.0.0.1", port))
            if dns.message.from_wire(sock.recv(512)).answer:
                return
        time.sleep(0.05)
    raise AssertionError(log.read_text())


# --- a pretend one ------------------------------------------------------------------------------------------------


class PretendDns:
    """Answers from `records` ({(name, type): texts}), and for names in `ways` as told: see the methods `_as_...`.
    `asked` holds (name, type, transport) of every question."""

    def __init__(self, records: dict[tuple[str, str], list[str]], ttl: int = 60) -> None:
        self.records, self.ttl = records, ttl
        self.ways: dict[str, str] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.under_way = self.most_under_way = 0
        self.delay = 0.0
        self._lock = threading.Lock()
        outer = self

        class OverUdp(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                data, sock = self.request
                for reply in outer.replies(data, "udp"):
                    sock.sendto(reply, self.client_address)

        class OverTcp(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                size = int.from_bytes(self.rfile.read(2), "big")
                for reply in outer.replies(self.rfile.read(size), "tcp"):
                    self.wfile.write(len(reply).to_bytes(2, "big") + reply)

        address = ("127.0.0.1", _free_port())
        self._udp = socketserver.ThreadingUDPServer(address, OverUdp)
        self._tcp = socketserver.ThreadingTCPServer(address, OverTcp)
        self._udp.max_packet_size = 65_535
        self._servers = (self._udp, self._tcp)
        self._threads = [threading.Thread(target=one.serve_forever, args=(0.02,)) for one in self._servers]
        for thread in self._threads:
            thread.start()
        self.address = f"127.0.0.1:{self._udp.server_address[1]}"

    def close(self) -> None:
        for one in self._servers:
            one.shutdown()
        for thread in self._threads:
            thread.join()
        for one in self._servers:
            one.server_close()

    def replies(self, data: bytes, transport: str) -> list[bytes]:
        query = dns.message.from_wire(data)
        name, kind = query.question[0].name.to_text().lower(), dns.rdatatype.to_text(query.question[0].rdtype)
        with self._lock:
            self.asked.append((name, kind, transport))
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            time.sleep(self.delay)
            way: Callable[..., list[bytes]] = getattr(
                self, "_as_" + self.ways.get(name, self.ways.get("", "good")).replace(" ", "_"))
            return way(self._answer(query, name, kind), transport)
        finally:
            with self._lock:
                self.under_way -= 1

    def _answer(self, query: dns.message.Message, name: str, kind: str) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        for _ in range(20):
            alias = self.records.get((name, "CNAME"))
            if alias is None:
                break
            response.answer.append(dns.rrset.from_text(name, self.ttl, "IN", "CNAME", *alias))
            name = alias[0]
        found = self.records.get((name, kind))
        if found:
            response.answer.append(dns.rrset.from_text(name, self.ttl, "IN", kind, *found))
        else:
            response.authority.append(dns.rrset.from_text(".", self.ttl, "IN", "SOA", SOA))
            if not any(known == name for known, _ in self.records):
                response.set_rcode(dns.rcode.NXDOMAIN)
        return response

    def _as_good(self, response: dns.message.Message, transport: str) -> list[bytes]:
        wire = response.to_wire(max_size=65_535)
        return [wire] if transport == "tcp" or len(wire) <= 1232 else self._as_truncated(response, transport)

    def _as_silent(self, response: dns.message.Message, transport: str) -> list[bytes]:
        return []

    def _as_truncated(self, response: dns.message.Message, transport: str) -> list[bytes]:
        if transport == "tcp":
            return [response.to_wire(max_size=65_535)]
        response.answer, response.authority = [], []
        response.flags |= dns.flags.TC
        return [response.to_wire()]

    def _as_servfail(self, response: dns.message.Message, transport: str) -> list[bytes]:
        response.answer, response.authority = [], []
        response.set_rcode(dns.rcode.SERVFAIL)
        return [response.to_wire()]

    def _as_forged_before(self, response: dns.message.Message, transport: str) -> list[bytes]:
        """First an answer with a wrong id and another address in it, as an off-path attacker would send."""
        good = response.to_wire()
        response.id ^= 0xFFFF
        response.answer = [dns.rrset.from_text(response.question[0].name, 60, "IN", "A", "203.0.113.66")]
        return [response.to_wire(), good]

    def _as_garbage(self, response: dns.message.Message, transport: str) -> list[bytes]:
        return [response.to_wire()[:2] + b"\x81\x80\x00\x01\xff\xff" + b"\xc0\x0c" * 40]

    def _as_another_question(self, response: dns.message.Message, transport: str) -> list[bytes]:
        response.question = [dns.rrset.from_text("other.test.", 0, "IN", "A")]
        return [response.to_wire()]


def pretend(ttl: int = 60) -> PretendDns:
    """The pretend server with the zones above."""
    records: dict[tuple[str, str], list[str]] = {}
    for zone, names in ZONES.items():
        for name, texts in names.items():
            for text in texts:
                kind, _, value = text.partition(" ")
                records.setdefault((f"{name}.{zone}.".lower(), kind), []).append(value)
    return PretendDns(records, ttl)
