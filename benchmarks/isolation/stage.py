"""Where a mode is played: a real server with a database of its own, other customers, and whom the attacker has.

One server for all modes of a layer. Each window gets customers and devices that no window had before, so that no
breaker, no queue and no claim remembers anything.
The invariant: leaving the `with` block ends the server.
Must not live here: windows, figures.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncssh
import msgspec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate
from OpenSSL import crypto

from benchmarks.fleet import HOST, Device, Fleet
from benchmarks.isolation.attacker import Ports
from benchmarks.isolation.certificates import ALTERNATIVE, LARGEST, SUBJECT, crowded
from benchmarks.isolation.layers import Kind, Layer
from benchmarks.isolation.modes import Provoked, Site
from benchmarks.servers import ROOT, ServerError, end
from delegator import config
from delegator.model import Customer, Delegate, HostedCallback, Registration, Secret, SoapCallback, SshCallback
from delegator.model.places import authority
from delegator.sealing import SealingKey, read_key_file
from delegator.store import open_named
from pki import DEVICE, Folder, batch, disk

BUDGET = 1.0
STEPS = 2
"""Customers whose administrators one lane has told in a window, one after the other: a queue that failed rests. As many
again are told in its control, where the peer says no politely: a failure is written down, whoever caused it."""
OWN = 16
"""Devices of the attacker's."""
WELL = 16
"""Customers whose peers behave well, for the control."""
LOOPS = ("asyncio", "uvloop")
SENDER = "delegator@factory.example"
CALLER = "delegator.test"


@dataclass(frozen=True, slots=True)
class Size:
    """How much a layer needs: windows with their lanes, and other customers' and well-served devices in all."""

    windows: Sequence[int]
    victims: int
    well: int


@dataclass
class Numbers:
    """Which device plays what, by number: each is given away once."""

    victims: Iterator[int]
    well: Iterator[int]
    hostile: list[list[int]] = field(default_factory=list)
    """Of each window those who make the peer be called, each of a customer of its own."""


class Stage(Fleet):
    """The fleet of one layer on one loop."""

    def __init__(self, place: Path, layer: Layer, size: Size, ports: Ports) -> None:
        self.layer, self.ports = layer, ports
        self._each = {Kind.DELEGATE: 1, Kind.TOLD: 2 * STEPS}.get(layer.kind, 0)
        self._windows = [lanes * self._each for lanes in size.windows]
        bounds = list(itertools.accumulate((0, size.victims, size.well, OWN, sum(self._windows))))
        self._victims, self._well, self._own, self._hostile = (
            range(a, b) for a, b in itertools.pairwise(bounds))
        self.numbers = Numbers(iter(self._victims), iter(self._well))
        super().__init__(place, bounds[-1])
        self.other = self._customer()

    def _customer(self) -> Folder:
        """The authority of customers, with a delegate's certificate."""
        path = self.place / "customer-pki"
        if path.exists():
            return Folder.open(path)
        folder = Folder.create(path, common_name="Benchmark Customer CA")
        folder.issue("delegate-server", "localhost", names=(HOST,))
        return folder

    def _settings(self) -> config.Settings:
        usual = super()._settings()
        mail = self.pki.certificate_path("mail-signer", SENDER)
        if not mail.exists():
            self.pki.issue("mail-signer", SENDER)
        settings = msgspec.structs.replace(
            usual, outbound=config.OutboundSettings(allow=("127.0.0.0/8",)),
            callbacks=msgspec.structs.replace(usual.callbacks, budget=BUDGET, running=64, waiting=256),
            ops=config.OpsSettings(enabled=True, port=0))
        changed: dict[str, Any] = {}
        if self.layer.name == "dns":
            changed["domains"] = config.Domains(enabled=True, nameservers=(authority(HOST, self.ports.number),),
                                                budget=BUDGET, private_networks=("127.0.0.0/8",))
        if self.layer.name == "smtp":
            changed["mail"] = config.MailSettings(
                host="localhost", port=self.ports.number, sender=SENDER, timeout=BUDGET, certificate=str(mail),
                key=str(mail.with_suffix(".key")), ca=str(self.place / "customer-pki" / "ca.crt"))
        if self.layer.name == "proxy":
            changed["server"] = msgspec.structs.replace(settings.server, proxy_from=("127.0.0.0/8",))
        return msgspec.structs.replace(settings, **changed)

    # --- who is registered ---

    async def _register(self) -> None:
        store = await open_named(self.settings.store, SealingKey(read_key_file(Path(self.settings.sealing.key_file))))
        try:
            await store.add_customer(Customer("others", "Others"), datetime.now(UTC))
            await store.add_delegate(Delegate("others", "others", HostedCallback("root", Secret("{random}"))),
                                     datetime.now(UTC))
            own = () if self.layer.kind is Kind.NAMES else self._own  # nobody's, so that their addresses are looked up
            rows = [Registration("others", self._tag(number)) for number in (*self._victims, *own)]
            wells = [f"well{number}" for number in range(WELL if self._well else 0)]
            hostile = [f"h{number}" for number in range(len(self._hostile))]
            for name in (*wells, *hostile):
                await store.add_customer(Customer(name, name), datetime.now(UTC))
                await store.add_delegate(Delegate(name, name, self._callback()), datetime.now(UTC))
            rows += [Registration(name, self._tag(number)) for name, number in zip(
                itertools.cycle(wells or ["others"]), self._well, strict=False)]
            rows += [Registration(name, self._tag(number)) for name, number in zip(hostile, self._hostile, strict=True)]
            await store.add_devices(rows, datetime.now(UTC))
        finally:
            await store.close()
        numbers = iter(self._hostile)
        self.numbers.hostile = [list(itertools.islice(numbers, many)) for many in self._windows]

    def _callback(self) -> SoapCallback | SshCallback | HostedCallback:
        anchor, port = self.other.ca_path.read_text(), self.ports.number
        if self.layer.name == "ssh":
            return SshCallback("localhost", "delegator", Secret(self._key("user").read_text()),
                               self._key("host").with_suffix(".pub").read_text(), port, address=HOST)
        if self.layer.name == "smtp":
            return HostedCallback("root", Secret("{random}"), mail_to="admin@customer.example")
        if self.layer.name == "webhook":
            return HostedCallback("root", Secret("{random}"), None, f"https://localhost:{port}/hook", Secret("s" * 32),
                                  anchor)
        return SoapCallback("localhost", port, "/", anchor, HOST)

    def _key(self, name: str) -> Path:
        path = self.place / f"ssh-{name}"
        if not path.exists():
            key = asyncssh.generate_private_key("ssh-ed25519")
            key.write_private_key(str(path))
            key.write_public_key(str(path.with_suffix(".pub")))
        return path

    @staticmethod
    def _tag(number: int) -> str:
        return f"BEN{number:06d}"

    # --- who comes ---

    def site(self, address: tuple[str, int], ops: tuple[str, int]) -> Site:
        chain = self.other.certificate_path("delegate-server", "localhost")
        own = [self.pki.certificate_path("device", self._tag(number)) for number in self._own]
        return Site(chain, self.pki.ca_path, address, ops, [] if self.layer.name == "reference" else own,
                    self._key("host"), crowded(self.place / f"names-{ALTERNATIVE}.crt", 1, ALTERNATIVE, self.other),
                    crowded(self.place / f"subject-{SUBJECT}.crt", SUBJECT, 0),
                    crowded(self.place / f"subject-{LARGEST}.crt", LARGEST, 0))

    def victims(self, count: int) -> list[Device]:
        if self.layer.name == "reference":
            return [self._delegator(number) for number in itertools.islice(self.numbers.victims, count)]
        return [self._device(number) for number in itertools.islice(self.numbers.victims, count)]

    def _delegator(self, number: int) -> Device:
        """At the reference delegate the others are delegators."""
        path = self.pki.certificate_path("delegate-client", CALLER)
        certificate = crypto.X509.from_cryptography(load_pem_x509_certificate(path.read_bytes()))
        key: Any = load_pem_private_key(path.with_suffix(".key").read_bytes(), None)
        body = (b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><RequestCredential '
                b'xmlns="urn:delegator:provisioning:1"><ClaimId>%b</ClaimId><Device><ServiceTag>%b</ServiceTag>'
                b"</Device></RequestCredential></s:Body></s:Envelope>"
                % (secrets.token_hex(16).encode(), self._tag(number).encode()))
        head = (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml; charset=utf-8\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body))
        return Device(self._tag(number), certificate, crypto.PKey.from_cryptography_key(key), head + body)

    def hostile(self, window: int, lanes: int) -> list[list[Provoked]]:
        """Lanes that make the peer be called, or none where it calls itself."""
        if self.layer.kind is Kind.NAMES:
            return [[Provoked(self._device(self._own[lane]), source) for source in itertools.islice(_sources, 20)]
                    for lane in range(lanes)]
        found = [Provoked(self._device(number), "") for number in self.numbers.hostile[window]]
        if self.layer.kind is Kind.TOLD:
            del found[lanes * STEPS:]  # those of the control
        return [found[lane::lanes] for lane in range(lanes if found else 0)]

    def well(self, calls: int, lanes: int, window: int | None = None) -> list[list[Provoked]]:
        """So many calls, shared out; where administrators are told, of the window's customers for that."""
        if self.layer.kind is Kind.CALLS or not calls:
            return []
        lanes = min(lanes, calls)
        if self.layer.kind is Kind.TOLD:
            told = [] if window is None else self.numbers.hostile[window][lanes * STEPS:][:calls]
            return [[Provoked(self._device(number), "") for number in told[lane::lanes]] for lane in range(lanes)
                    ] if told else []
        if self.layer.kind is Kind.NAMES:
            return [[Provoked(self._device(self._own[lane]), source)
                     for source in itertools.islice(_sources, calls // lanes)] for lane in range(lanes)]
        found = [Provoked(self._device(number), "") for number in itertools.islice(self.numbers.well, calls)]
        return [found[lane::lanes] for lane in range(lanes)]


_sources = (f"127.{a}.{b}.{c}" for a in range(1, 255) for b in range(1, 255) for c in range(1, 255))
"""Addresses that no device came from yet."""


# --- the server ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Served:
    """A server under attack: where it is, and what all its processes have used and hold."""

    process: subprocess.Popen[bytes]
    address: tuple[str, int]
    ops: tuple[str, int]

    def _stats(self) -> Iterator[tuple[Path, Sequence[str]]]:
        """Of each process of its session (proc(5))."""
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid and fields[0] != "Z":
                    yield path, fields

    def cpu(self) -> float:
        """Seconds of all its processes, and of their children that ended."""
        if self.process.poll() is not None:
            raise ServerError(f"it ended with code {self.process.returncode}")
        return sum(sum(map(int, fields[11:15])) for _, fields in self._stats()) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> int:
        """KiB."""
        pages = sum(int((path / "statm").read_text().split()[1]) for path, _ in self._stats())
        return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def cpu_of(pid: int) -> float:
    """Seconds of one process, its threads that ended included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(stage: Stage, loop: str) -> Iterator[Served]:
    """`delegator serve`, or `delegator delegate serve`, on one of LOOPS. Raises ServerError."""
    log = stage.place / f"{stage.layer.name}-{loop}.log"
    with log.open("wb") as words:
        process = subprocess.Popen([sys.executable, "-m", "delegator", *_command(stage)], stdout=subprocess.PIPE,
                                   stderr=words, start_new_session=True,
                                   env=os.environ | {"PYTHONPATH": str(ROOT), "DELEGATOR_LOOP": loop})
    assert process.stdout is not None
    try:
        ready = json.loads(process.stdout.readline() or b"null")
        if not ready:
            raise ServerError(f"it did not start, see {log}")
        yield Served(process, (HOST, ready["port"]), (HOST, ready.get("ops") or 0))
    finally:
        end(process)


def _command(stage: Stage) -> list[str]:
    if stage.layer.name != "reference":
        return ["--config", str(stage.settings_file), "serve", "--json"]
    chain, place = stage.other.certificate_path("delegate-server", "localhost"), stage.place / "reference"
    place.mkdir(exist_ok=True)
    for old in place.glob("delegate.db*"):
        old.unlink()
    flags = {"--host": HOST, "--port": 0, "--certificate": chain, "--key": chain.with_suffix(".key"),
             "--ca": stage.pki.ca_path, "--delegator": CALLER, "--sealing-key": place / "sealing.key", "--data": place,
             "--database": place / "delegate.db"}
    return ["delegate", "serve", "--json", *(str(word) for pair in flags.items() for word in pair)]


def minted(stage: Stage) -> None:
    """A certificate for each device that has none yet, without words."""
    tags = io.BytesIO("".join(f"{stage._tag(number)}\n" for number in range(stage.size)).encode())
    place = disk.make_folder(stage.pki.directory(DEVICE))
    batch.Line(stage.pki, stage.pki.authority(), place).run(batch.rows(tags))
