"""The factory of a benchmark: an authority, a certificate for every device, a database that knows them all.

Certificates are minted once by the `pki` package and kept in the folder between runs; the database is made anew, so
that each run's claims are new ones.
The invariant: every device has its own key, its own certificate and its own registration.
Must not live here: servers, sockets, time.
"""

from __future__ import annotations

import asyncio
import io
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate
from OpenSSL import crypto

from delegator import config
from delegator.device import messages
from delegator.model import Customer, Delegate, HostedCallback, Registration, Secret
from delegator.sealing import SealingKey, create_key_file, read_key_file
from delegator.store import open_named
from pki import DEVICE, Folder, batch, disk

HOST = "127.0.0.1"
CUSTOMER, DELEGATE = "acme", "acme-hosted"
USER, PATTERN = "root", "{tag}-{random}"


@dataclass(frozen=True, slots=True)
class Device:
    """One device as the load client needs it: OpenSSL's own objects, and its request as bytes."""

    tag: str
    certificate: Any
    key: Any
    request: bytes


def _identity(number: int) -> messages.Identity:
    return messages.Identity(
        service_tag=f"BEN{number:06d}", serial_number=f"CN-0WKD31-{number:010d}", model="R760",
        mac_addresses=(f"02:00:5e:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}",),
        ip_address="192.0.2.17", host_name="idrac-rack-17-unit-22", domain="dc1.example.com")


class Fleet:
    """Everything a delegator needs to serve `size` devices, in the folder `place`."""

    def __init__(self, place: Path, size: int) -> None:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.place, self.size = place, size
        self.database = place / "delegator.db"
        self.settings_file = place / "delegator.toml"
        self.pki = self._authority()
        self.settings = self._settings()
        self.settings_file.write_text(config.as_toml(self.settings), encoding="utf-8")

    @property
    def certificate(self) -> Path:
        """The server's, with its issuer behind it."""
        return self.pki.certificate_path("delegator-server", "localhost")

    def _authority(self) -> Folder:
        path = self.place / "pki"
        if path.exists():
            folder = Folder.open(path)
            folder.refresh_list(folder.authority())
            return folder
        folder = Folder.create(path, common_name="Benchmark Factory CA")
        folder.issue("delegator-server", "localhost", names=(HOST,))
        folder.issue("delegate-client", "delegator.test")
        return folder

    def _settings(self) -> config.Settings:
        """As shipped, but for where things lie."""
        sealing = self.place / "sealing.key"
        if not sealing.exists():
            create_key_file(sealing)
        callback = self.pki.certificate_path("delegate-client", "delegator.test")
        built_in = config.Settings()
        return msgspec.structs.replace(
            built_in,
            server=msgspec.structs.replace(
                built_in.server, host=HOST, port=0, certificate=str(self.certificate),
                key=str(self.certificate.with_suffix(".key")), ca=str(self.pki.ca_path), crl=str(self.pki.crl_path)),
            store=config.Store(str(self.database)),
            sealing=config.Sealing(str(sealing)),
            callbacks=msgspec.structs.replace(built_in.callbacks, certificate=str(callback),
                                              key=str(callback.with_suffix(".key"))))

    def mint(self) -> None:
        """A certificate for each device that has none yet."""
        tags = io.BytesIO("".join(f"{_identity(number).service_tag}\n" for number in range(self.size)).encode())
        place = disk.make_folder(self.pki.directory(DEVICE))
        tally = batch.Line(self.pki, self.pki.authority(), place).run(batch.rows(tags))
        print(f"certificates: {tally.minted} minted, {tally.skipped} kept from before", file=sys.stderr)

    def register(self) -> None:
        """A new database: one customer with a hosted delegate, and every device under tag, serial and MAC."""
        for suffix in ("", "-wal", "-shm"):
            self.database.with_name(self.database.name + suffix).unlink(missing_ok=True)
        asyncio.run(self._register())

    async def _register(self) -> None:
        store = await open_named(self.settings.store, SealingKey(read_key_file(Path(self.settings.sealing.key_file))))
        try:
            await store.add_customer(Customer(CUSTOMER, "Acme"), datetime.now(UTC))
            await store.add_delegate(Delegate(DELEGATE, CUSTOMER, HostedCallback(USER, Secret(PATTERN))),
                                     datetime.now(UTC))
            await store.add_devices((self._registration(number) for number in range(self.size)), datetime.now(UTC))
        finally:
            await store.close()

    def _registration(self, number: int) -> Registration:
        said = _identity(number)
        return Registration(CUSTOMER, said.service_tag, said.serial_number, said.mac_addresses, said.model)

    def tags(self) -> list[str]:
        return [_identity(number).service_tag for number in range(self.size)]

    def beside(self, name: str, **changed: Any) -> Fleet:
        """The same devices for a delegator with a database and settings of its own; `changed` are sections."""
        other = Fleet(self.place, self.size)
        other.database = self.place / f"{name}.db"
        other.settings_file = self.place / f"{name}.toml"
        other.settings = msgspec.structs.replace(
            self.settings, **({"store": config.Store(str(other.database))} | changed))
        other.settings_file.write_text(config.as_toml(other.settings), encoding="utf-8")
        return other

    def devices(self, first: int, count: int) -> list[Device]:
        """Devices ready to connect. Takes 0.3 ms each, so it is done outside what is timed."""
        return [self._device(number) for number in range(first, first + count)]

    def _device(self, number: int) -> Device:
        said = _identity(number)
        path = self.pki.certificate_path("device", said.service_tag)
        certificate = crypto.X509.from_cryptography(load_pem_x509_certificate(path.read_bytes()))
        key: Any = load_pem_private_key(path.with_suffix(".key").read_bytes(), None)
        return Device(said.service_tag, certificate, crypto.PKey.from_cryptography_key(key), _request(said, number))


def _request(said: messages.Identity, number: int) -> bytes:
    """The product's own device client's words, on a connection for one request."""
    body = messages.ask(said, f"{number:032x}", None)
    head = ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml; charset=utf-8\r\nConnection: close\r\n"
            f"SOAPAction: {messages.action(messages.ASK)}\r\nContent-Length: {len(body)}\r\n\r\n")
    return head.encode() + body
