"""Hostile bytes at the device port, each looked at: a fault or a clean close, and nothing else happens. T-C1 to T-C9.

"Nothing else": no line of a traceback, no connection outwards, no file opened, no descriptor kept; told by strace and
/proc, not by us.
"""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from delegator.errors import APPEARANCES

from .. import hostility
from ..hostility import NO_HTTP, NO_SOAP, NO_TLS, SOAP11, SOAP12, envelope, request
from .conftest import NS, ROOT, World

FAULTS = {look.fault for look in APPEARANCES.values()} | {"VersionMismatch", "MustUnderstand"}
PATIENCE = 12.0
"""Seconds: a peer that stops in the middle is let go after five, and the machine is shared."""


def everything(sock: socket.socket) -> bytes:
    """All that comes until the other side closes. Fails when it never does."""
    parts, until = [], time.monotonic() + PATIENCE
    while time.monotonic() < until:
        sock.settimeout(max(0.1, until - time.monotonic()))
        try:
            data = sock.recv(65536)
        except (ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            break
        if not data:
            break
        parts.append(data)
    else:
        pytest.fail("neither answered nor closed")
    return b"".join(parts)


def responses(raw: bytes) -> list[tuple[int, bytes, bytes]]:
    """The answers in these bytes: status, head, body. Fails where the framing does not add up."""
    found = []
    while raw:
        head, end, rest = raw.partition(b"\r\n\r\n")
        assert end, raw[:200]
        status = int(head.split(b" ")[1])
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1]) if status >= 200 else 0  # type: ignore[index]
        assert len(rest) >= length
        found.append((status, head, rest[:length]))
        raw = rest[length:]
    return found


def fault_in(body: bytes) -> str | None:
    return next((code.text for code in ElementTree.fromstring(body).iter(f"{NS}Code")), None)


@contextlib.contextmanager
def watched(world: World, tmp_path: Path) -> Iterator[Path]:
    """What the delegator asks of the kernel meanwhile: connections, files, programs."""
    trace = tmp_path / "trace"
    assert world.process is not None
    spy = subprocess.Popen(["strace", "-f", "-qq", "-p", str(world.process.pid), "-o", str(trace), "-e",
                            "trace=connect,open,openat,execve,sendto,sendmsg,creat,unlink,rename"],
                           stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 10
        while "TracerPid:\t0" in Path(f"/proc/{world.process.pid}/status").read_text() and time.monotonic() < until:
            time.sleep(0.02)
        yield trace
    finally:
        spy.terminate()
        spy.wait(10)


def descriptors(world: World) -> int:
    assert world.process is not None
    return len(list(Path(f"/proc/{world.process.pid}/fd").iterdir()))


def settled(world: World, wanted: int) -> int:
    until = time.monotonic() + PATIENCE
    while descriptors(world) > wanted and time.monotonic() < until:
        time.sleep(0.1)
    return descriptors(world)


def without_tls(world: World, data: bytes) -> bytes:
    """What is answered to bytes that are no handshake, after we said that no more will come."""
    with socket.create_connection(("127.0.0.1", world.port), 10) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        return everything(sock)


def within_tls(world: World, data: bytes) -> bytes:
    with world.connection(*world.paths("HOSTILE1")) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(data)
        return everything(sock)


@pytest.mark.counterpart("strace")
def test_TC1_TC5_every_malformed_input_ends_in_a_fault_or_a_close_and_does_nothing(
        world: World, tmp_path: Path) -> None:
    """Each sort once, one connection each, and what a 5xx carries is a fault that SOAP clients read."""
    world.host("HOSTILE1")
    world.start()
    assert world.ask("HOSTILE1").status == 200
    before = descriptors(world)
    odd = []
    with watched(world, tmp_path) as trace:
        for name, data in NO_TLS.items():
            said = without_tls(world, data)
            if said and said[0] not in (21, 22):  # alert, handshake
                odd.append((name, said[:60]))
        for name, data in NO_HTTP.items():
            for status, head, body in responses(within_tls(world, data))[-1:]:
                if not (400 <= status <= 505 and b"Connection: close" in head and fault_in(body) == "MalformedRequest"):
                    odd.append((name, body))
        for name, data in NO_SOAP.items():
            (answer,) = responses(within_tls(world, request(data, b"Connection: close")))
            if answer[0] != 500 or fault_in(answer[2]) not in FAULTS - {"Unavailable"} or b"passwd" in answer[2]:
                odd.append((name, answer[2]))
    assert odd == []
    calls = trace.read_text()
    outwards = [line for line in calls.splitlines() if re.search(r"(connect|execve)\(", line) and "AF_UNIX" not in line]
    assert outwards == []
    opened = set(re.findall(r'open(?:at)?\((?:AT_FDCWD, )?"([^"]+)"', calls))
    assert not [path for path in opened if not path.startswith((str(world.root), str(world.factory.path)))]
    assert settled(world, before) <= before
    assert "Traceback" not in world.log
    assert world.ask("HOSTILE1").status == 200


def test_TC5_never_two_answers_for_one_request(world: World) -> None:
    """A second request hidden behind a malformed one is never read as a request of its own."""
    world.host("HOSTILE1")
    world.start()
    hidden = request(envelope(hostility.call("HOSTILE1")), b"Connection: close")
    assert [answer[0] for answer in responses(within_tls(world, hidden))] == [200]
    for name, data in NO_HTTP.items():
        found = responses(within_tls(world, data + b"\r\n\r\n" + hidden))
        assert [400 <= status <= 505 and status != 500 for status, _, _ in found] == [True], name


@pytest.mark.parametrize(("soap", "status", "media"), [
    (SOAP11, 500, b"text/xml; charset=utf-8"), (SOAP12, 400, b"application/soap+xml; charset=utf-8")])
def test_TC4_a_fault_travels_as_its_soap_version_says(world: World, soap: str, status: int, media: bytes) -> None:
    """SOAP 1.1 over HTTP: 500 (section 6.2); SOAP 1.2 part 2 table 20: 400 for the sender's faults, 500 for ours."""
    world.host("HOSTILE1")
    world.start()
    bodies = (envelope(hostility.call("hostile1"), soap), envelope(hostility.call("HOSTILE2"), soap))
    for body, code in zip(bodies, ("MalformedRequest", "IdentityRejected"), strict=True):
        (answer,) = responses(within_tls(world, request(body, b"Connection: close")))
        assert (answer[0], fault_in(answer[2])) == (status, code)
        assert b"Content-Type: " + media in answer[1]
        assert f'"{soap}"'.encode() in answer[2]


@pytest.mark.counterpart("openssl")
class TestDowngrade:
    """T-C9: TLS 1.2 and 1.3, forward secrecy and AEAD, nothing negotiated twice."""

    @staticmethod
    def s_client(world: World, *words: str, say: bytes = b"") -> str:
        certificate, key = world.paths("HOSTILE1")
        done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{world.port}", "-cert", certificate,
                               "-key", key, "-CAfile", world.factory.ca_path, *words], input=say, capture_output=True,
                              check=False, timeout=20)
        return (done.stdout + done.stderr).decode("utf-8", "replace")

    def test_TC9_weak_suites_and_old_versions_have_nothing_in_common_with_us(self, world: World) -> None:
        world.start()
        for suite in ("AES128-SHA", "AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "NULL", "aNULL", "DHE"):
            said = self.s_client(world, "-tls1_2", "-cipher", f"{suite}:@SECLEVEL=0")
            assert "alert handshake failure" in said or "no cipher match" in said, suite
        for version in ("-tls1", "-tls1_1"):
            assert "alert protocol version" in self.s_client(world, version, "-cipher", "ALL:@SECLEVEL=0")
        said = self.s_client(world, "-tls1_2")
        assert "ECDHE-ECDSA-AES" in said
        assert "Compression: NONE" in said
        assert "Secure Renegotiation IS supported" in said

    def test_TC9_nothing_is_negotiated_anew(self, world: World) -> None:
        """Renegotiation in 1.2 is declined; a thousand key updates in 1.3 end the connection, not the process."""
        world.host("HOSTILE1")
        world.start()
        said = self.s_client(world, "-tls1_2", say=b"R\n" + request(envelope(hostility.call("HOSTILE1"))))
        assert "RENEGOTIATING" in said
        assert " 200 OK" not in said
        self.s_client(world, "-tls1_3", say=b"K\n" * 1000)
        assert world.ask("HOSTILE1").status == 200


# --- ten thousand -------------------------------------------------------------------------------------------------


def memory(world: World, line: str) -> float:
    """MiB of a line in /proc/PID/status."""
    assert world.process is not None
    text = Path(f"/proc/{world.process.pid}/status").read_text()
    return int(re.search(rf"^{line}:\s+(\d+) kB", text, re.MULTILINE)[1]) / 1024  # type: ignore[index]


def test_TC1_TC7_ten_thousand_hostile_peers_cost_little_memory_and_no_device_its_answer(world: World) -> None:
    """All kinds, eight at once: memory grows by 32 MiB at most, and a device that asks beside them, each time over a
    new connection, is answered within 250 ms.

    Tests, flood and delegator share two processors with whatever else runs here, so the device is allowed one answer in
    twenty that is later; none may fail.
    """
    world.host("HOSTILE1", "GOOD0001")
    world.start()
    for _ in range(20):
        assert world.ask("GOOD0001").status == 200
    before, open_before = memory(world, "VmRSS"), descriptors(world)
    certificate, key = world.paths("HOSTILE1")
    flood = subprocess.Popen([sys.executable, "-m", "tests.e2e.flooding", str(world.port), str(certificate), str(key),
                              str(world.factory.ca_path), "10000"], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    waits = []
    assert flood.stdout is not None
    with flood:
        while not select.select([flood.stdout], [], [], 0.1)[0]:
            began = time.monotonic()
            assert world.ask("GOOD0001").status == 200
            waits.append(time.monotonic() - began)
        sent = json.loads(flood.stdout.readline())
    assert sum(sent["sent"].values()) == 10_000
    assert sent["odd"] == []
    assert min(sent["sent"].values()) > 500, "all kinds"
    waits.sort()
    assert waits[int(len(waits) * 0.95)] < 0.25, waits[-20:]
    assert memory(world, "VmHWM") - before <= 32
    assert settled(world, open_before) <= open_before
    assert "Traceback" not in world.log
