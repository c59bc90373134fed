"""Everything that must be renewed one day is renewed while devices keep coming: 0 failures. The walk of
docs/operators.md, "CA rollover", "The sealing key" and "The server's certificate". A10, R-sealed."""

from __future__ import annotations

import http.client
import itertools
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from delegator.model import Customer, Delegate, HostedCallback, IdentityRule, Policy, Registration, Secret
from delegator.sealing import SealingKey, create_key_file, read_key_file
from pki import Folder
from pki.request import requested
from pki.revocation import Reason

from ..cli.conftest import process
from ..clock import today
from .conftest import Reply, World, envelope
from .operating import change, hang_up, lines, wait_for

DEVICES = 24
"""Of each kind: hosted ones and those of a delegate."""
AT_LEAST = 8
"""Devices that are answered between two steps, so that no step goes by unseen."""


@dataclass
class Device:
    """What a device holds: who it is, and whom it trusts."""

    tag: str
    certificate: Path
    key: Path
    anchors: Path
    credential: tuple[str | None, str | None] | None = None


@dataclass
class Fleet:
    """Devices that come all the time, each a connection of its own, and what went wrong for any of them."""

    world: World
    devices: list[Device]
    failures: list[str] = field(default_factory=list)
    answered: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def ask(self, device: Device) -> Reply:
        context = ssl.create_default_context(cafile=str(device.anchors))
        context.load_cert_chain(device.certificate, device.key)
        client = http.client.HTTPSConnection("localhost", self.world.port, timeout=15, context=context)
        try:
            client.request("POST", "/", envelope(device.tag), {"Content-Type": "text/xml; charset=utf-8"})
            response = client.getresponse()
            return Reply(response.status, {}, response.read())
        finally:
            client.close()

    def run(self) -> None:
        for device in itertools.cycle(list(self.devices)):
            if self._stop.is_set():
                return
            try:
                reply = self.ask(device)
                if reply.status != 200:
                    self.failures.append(f"{device.tag}: {reply.status} {reply.fault}")
                elif device.credential not in (None, reply.credential):
                    self.failures.append(f"{device.tag}: another credential than before")
                else:
                    device.credential = reply.credential
            except OSError as error:
                self.failures.append(f"{device.tag}: {error!r}")
            self.answered += 1

    def some_come(self) -> None:
        """Every device comes once more at least, and nothing went wrong so far."""
        until, wanted = time.monotonic() + 60, self.answered + len(self.devices) + AT_LEAST
        while self.answered < wanted and time.monotonic() < until and not self.failures:
            time.sleep(0.02)
        assert not self.failures, (self.failures[:3], self.world.log[-2000:])
        assert self.answered >= wanted

    def stop(self) -> None:
        self._stop.set()


@pytest.fixture
def authority(tmp_path: Path) -> Folder:
    """The factory's authority of today, of this test alone."""
    folder = Folder.create(tmp_path / "old", common_name="Factory CA 1")
    folder.issue("delegator-server", "delegator", names=("localhost", "127.0.0.1"))
    folder.issue("delegate-client", "delegator.test")
    return folder


@pytest.fixture
def serving(world: World, authority: Folder, tmp_path: Path) -> World:
    """A delegator whose anchors and lists are files of its own, as the manual says."""
    trust = tmp_path / "trust"
    trust.mkdir()
    put(trust / "crl.pem", authority.crl_path)
    put(trust / "ca.crt", authority.ca_path)
    text = (world.root / "delegator.toml").read_text()
    for old, new in ((world.factory.ca_path, trust / "ca.crt"), (world.factory.crl_path, trust / "crl.pem"),
                     (world.factory.path, authority.path)):
        text = text.replace(str(old), str(new))
    text = text.replace("budget = 1.0", "budget = 8.0")
    (world.root / "delegator.toml").write_text(text)
    world.factory = authority
    trusts(world, authority)
    world.start()
    return world


@pytest.fixture
def fleet(serving: World, authority: Folder) -> Iterator[Fleet]:
    hosted = [f"HOST{number:03}" for number in range(DEVICES)]
    owned = [f"OWND{number:03}" for number in range(DEVICES)]
    serving.host(*hosted)
    serving.own(*owned)
    found = Fleet(serving, [made(authority, tag) for tag in hosted + owned])
    thread = threading.Thread(target=found.run)
    thread.start()
    yield found
    found.stop()
    thread.join(30)


def made(authority: Folder, tag: str, anchors: Path | None = None) -> Device:
    issued = authority.issue("device", tag)
    assert issued.key_path is not None
    return Device(tag, issued.certificate_path, issued.key_path, anchors or authority.ca_path)


def request_of(device: Device) -> bytes:
    """What the device sends to be certified again: a PKCS#10 request with the key that it has."""
    key = serialization.load_pem_private_key(device.key.read_bytes(), None)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, device.tag)])
    built = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]


def put(path: Path, *parts: Path) -> None:
    """`cat PARTS > path.new && mv path.new path`: no reader ever sees half of it."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(b"".join(part.read_bytes() for part in parts))
    new.replace(path)


def trusts(world: World, authority: Folder) -> None:
    """The customer's server takes delegators of this authority, too."""
    world.delegate._server.socket.context.load_verify_locations(authority.ca_path)  # type: ignore[attr-defined]


def reloaded(world: World) -> None:
    assert "were reloaded" in hang_up(world)


def shown_issuer(world: World, device: Device) -> str:
    context = ssl.create_default_context(cafile=str(device.anchors))
    context.load_cert_chain(device.certificate, device.key)
    client = http.client.HTTPSConnection("localhost", world.port, timeout=10, context=context)
    client.connect()
    names = dict(part[0] for part in client.sock.getpeercert()["issuer"])
    client.close()
    return str(names["commonName"])


def test_a_new_authority_while_devices_keep_coming(serving: World, fleet: Fleet, authority: Folder,
                                                   tmp_path: Path) -> None:
    """Both are trusted, then devices learn both, then the server changes, then the old one goes. Every device is
    answered at every step, with its own credential."""
    trust, both = tmp_path / "trust", tmp_path / "both.crt"
    fleet.some_come()

    successor = Folder.create(tmp_path / "new", common_name="Factory CA 2")
    put(trust / "crl.pem", authority.crl_path, successor.crl_path)
    put(trust / "ca.crt", authority.ca_path, successor.ca_path)
    reloaded(serving)
    put(both, authority.ca_path, successor.ca_path)
    newborn = made(successor, "NEWDEV1", both)
    serving.host("NEWDEV1")
    assert fleet.ask(newborn).status == 200, "from the new authority, as the factory makes them from now on"
    fleet.some_come()

    for device in fleet.devices:  # an update in the field: they trust both from here on
        device.anchors = both
    trusts(serving, successor)  # and so do customers
    fleet.some_come()

    successor.issue("delegator-server", "delegator", names=("localhost", "127.0.0.1"))
    successor.issue("delegate-client", "delegator.test")
    change(serving, (f'certificate = "{authority.path}/server', f'certificate = "{successor.path}/server'),
           (f'key = "{authority.path}/server', f'key = "{successor.path}/server'),
           (f'certificate = "{authority.path}/delegate-clients', f'certificate = "{successor.path}/delegate-clients'),
           (f'key = "{authority.path}/delegate-clients', f'key = "{successor.path}/delegate-clients'))
    reloaded(serving)
    assert shown_issuer(serving, newborn) == "Factory CA 2"
    serving.own("CALLED1")
    called = made(successor, "CALLED1", both)
    assert fleet.ask(called).status == 200, "the customer's server takes the new certificate"
    fleet.some_come()

    for device in fleet.devices:  # in the course of time the new authority certifies every device's own key
        again = successor.issue("device", device.tag, key=requested(request_of(device)))
        device.certificate, device.anchors = again.certificate_path, successor.ca_path
    fleet.some_come()
    put(trust / "ca.crt", successor.ca_path)
    put(trust / "crl.pem", successor.crl_path)
    reloaded(serving)
    fleet.some_come()
    left = made(authority, "LEFTOVR", both)
    with pytest.raises((ssl.SSLError, OSError)):
        fleet.ask(left)


def test_a_new_server_key_while_devices_keep_coming(serving: World, fleet: Fleet, authority: Folder) -> None:
    """Renewed in place, three times, and noticed without a signal; half of a renewal is never served."""
    for _ in range(3):
        before = _serial(authority)
        authority.issue("delegator-server", "delegator", names=("localhost", "127.0.0.1"), renew=True)
        assert wait_for(lambda before=before: _shown_serial(serving, fleet.devices[0]) == _serial(authority) != before)
        fleet.some_come()
    assert not lines(serving, "a fault of ours")


def _serial(authority: Folder) -> int:
    path = authority.certificate_path("delegator-server", "delegator")
    return x509.load_pem_x509_certificates(path.read_bytes())[0].serial_number


def _shown_serial(world: World, device: Device) -> int:
    context = ssl.create_default_context(cafile=str(device.anchors))
    context.load_cert_chain(device.certificate, device.key)
    client = http.client.HTTPSConnection("localhost", world.port, timeout=10, context=context)
    client.connect()
    found = client.sock.getpeercert(binary_form=True)
    client.close()
    return x509.load_der_x509_certificate(found).serial_number


def test_a_new_sealing_key_while_devices_keep_coming(serving: World, fleet: Fleet) -> None:
    """New first, old behind it; read by the delegator; everything sealed again; the old one gone."""
    settings, old = serving.root / "delegator.toml", serving.root / "sealing.key"
    fleet.some_come()
    new = serving.root / "new.key"
    create_key_file(new)
    change(serving, (f'key_file = "{old}"\nolder_key_files = []', f'key_file = "{new}"\nolder_key_files = ["{old}"]'))
    reloaded(serving)
    fleet.some_come()
    done = process("--config", settings, "sealing", "rotate", cwd=serving.root)
    assert done.returncode == 0, done.stderr
    assert "can be taken out of older_key_files" in done.stderr
    fleet.some_come()
    change(serving, (f'older_key_files = ["{old}"]', "older_key_files = []"))
    old.unlink()
    reloaded(serving)
    fleet.some_come()
    serving.settings = type(serving.settings)(**{
        **{name: getattr(serving.settings, name) for name in serving.settings.__struct_fields__},
        "sealing": type(serving.settings.sealing)(str(new))})
    held = serving.store(lambda store: store.resealing.held())
    assert {one.key for one in held} == {SealingKey(read_key_file(new)).known[0]}


def test_a_new_shared_certificate_while_devices_keep_coming(serving: World, fleet: Fleet, authority: Folder,
                                                            tmp_path: Path) -> None:
    """The new batch is served beside the old one; then the old one is revoked, and only that."""
    async def allowed(store) -> None:
        await store.add_policy(Policy("either", identity=IdentityRule.EITHER), today())
        await store.add_customer(Customer("batches", "Batches", policy="either"), today())
        await store.add_delegate(Delegate("batches-hosted", "batches", HostedCallback("root", Secret("{random}"))),
                                 today())
        await store.add_devices([Registration("batches", tag) for tag in ("BATCH01", "BATCH02", "BATCH03")], today())
    serving.store(allowed)

    def of_batch(batch: str, tag: str) -> Device:
        path = authority.certificate_path("shared-device", f"shared-device-{batch}")
        return Device(tag, path, path.with_suffix(".key"), authority.ca_path)

    old = authority.issue("shared-device", "shared-device-2026")
    assert fleet.ask(of_batch("2026", "BATCH01")).status == 200
    authority.issue("shared-device", "shared-device-2027")
    assert fleet.ask(of_batch("2027", "BATCH02")).status == 200
    fleet.some_come()
    authority.revoke([old.serial], Reason.SUPERSEDED, authority.authority())
    put(tmp_path / "trust" / "crl.pem", authority.crl_path)
    reloaded(serving)
    with pytest.raises((ssl.SSLError, OSError)):
        fleet.ask(of_batch("2026", "BATCH03"))
    assert fleet.ask(of_batch("2027", "BATCH03")).status == 200
    fleet.some_come()
