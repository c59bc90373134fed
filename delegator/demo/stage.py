"""The scene on disk: a factory, a customer's own authority, settings of both servers, devices with their requests.

The invariant: everything lies under one folder; what was minted there before is used again, never replaced.
Must not live here: processes, the store.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from delegator import config
from delegator.demo.cast import Part, tags
from delegator.errors import DelegatorError, Kind
from delegator.model import CredentialRequest, Device, Secret
from delegator.sealing import create_key_file
from delegator.wire import messages, soap
from pki import DELEGATE_CLIENT, DELEGATE_SERVER, DELEGATOR_SERVER, DEVICE, SHARED_DEVICE, Folder, Profile
from pki.batch import Line, Row

DELEGATOR_NAME = "delegator.example"
HOSTS = ("localhost", "127.0.0.1", "::1")
SHARED = "shared-device"


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything lies."""

    root: Path

    @property
    def factory(self) -> Path:
        return self.root / "factory-pki"

    @property
    def customer(self) -> Path:
        return self.root / "acme-pki"

    @property
    def log(self) -> Path:
        return self.root / "delegator.log"

    @property
    def delegate_log(self) -> Path:
        return self.root / "delegate.log"

    @property
    def database(self) -> Path:
        return self.root / "delegator.db"

    @property
    def delegate_database(self) -> Path:
        return self.root / "delegate.db"

    @property
    def settings(self) -> Path:
        return self.root / "delegator.toml"

    @property
    def delegate_settings(self) -> Path:
        return self.root / "delegate.toml"

    @property
    def sealing_key(self) -> Path:
        return self.root / "sealing.key"

    def certificate(self, part: Part) -> tuple[Path, Path]:
        """Certificate and key that a device of this part shows."""
        stem = self.factory / "shared" / SHARED if part.identity == "shared" else self.factory / "devices" / part.tag
        return stem.with_suffix(".crt"), stem.with_suffix(".key")

    def request(self, part: Part) -> Path:
        return self.root / "requests" / f"{part.tag}.xml"

    def device_state(self, part: Part) -> Path:
        return self.root / "devices" / part.tag

    def device_own(self, part: Part) -> Path:
        """Where a device that came with the shared certificate keeps its own one."""
        return self.root / "own" / part.tag


@contextlib.contextmanager
def held(root: Path) -> Iterator[Stage]:
    """The stage, for one demonstration at a time. Raises DelegatorError (CONFLICT)."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (root / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DelegatorError(Kind.CONFLICT, f"a demonstration is running in {root}",
                                 hint="end it, or use another folder with --dir") from None
        yield Stage(root.resolve())


def prepare(stage: Stage, cast: Sequence[Part], port: int) -> None:
    """Make or find everything that must exist before the servers start; the last run's records are cleared."""
    factory = _folder(stage.factory, "Example Manufacturer Factory CA")
    customer = _folder(stage.customer, "Acme Corporation CA")
    _issue(factory, DELEGATOR_SERVER, "delegator", HOSTS)
    _issue(factory, DELEGATE_CLIENT, DELEGATOR_NAME)
    _issue(factory, SHARED_DEVICE, SHARED)
    _issue(customer, DELEGATE_SERVER, "localhost", HOSTS[1:])
    line = Line(factory, factory.authority(), factory.directory(DEVICE))
    line.destination.mkdir(exist_ok=True, mode=0o700)
    line.run(Row(number, tag) for number, tag in enumerate(tags(cast), 1))
    if not stage.sealing_key.exists():
        create_key_file(stage.sealing_key)
    _clear(stage, cast)
    _write_settings(stage, port)
    _write_requests(stage, cast)


def _folder(path: Path, common_name: str) -> Folder:
    return Folder.open(path) if path.exists() else Folder.create(path, common_name=common_name)


def _issue(folder: Folder, profile: Profile, name: str, names: Sequence[str] = ()) -> None:
    if not folder.certificate_path(profile, name).exists():
        folder.issue(profile, name, names=names)


def _clear(stage: Stage, cast: Sequence[Part]) -> None:
    """Databases and devices of the last demonstration: this one starts with devices fresh from the box."""
    for database in (stage.database, stage.delegate_database):
        for ending in ("", "-wal", "-shm"):
            database.with_name(database.name + ending).unlink(missing_ok=True)
    for log in (stage.log, stage.delegate_log):
        log.unlink(missing_ok=True)
    for part in cast:
        for folder in (stage.device_state(part), stage.device_own(part)):
            for file in folder.iterdir() if folder.exists() else ():
                file.unlink()


def _write_settings(stage: Stage, port: int) -> None:
    client = stage.factory / "delegate-clients" / DELEGATOR_NAME
    server = stage.factory / "server" / "delegator"
    _write(stage.settings, config.as_toml(config.Settings(
        server=config.Server(host=config.HERE, port=port, certificate=f"{server}.crt", key=f"{server}.key",
                             ca=str(stage.factory / "ca.crt"), crl=str(stage.factory / "crl.pem")),
        store=config.Store(path=str(stage.database)),
        sealing=config.Sealing(key_file=str(stage.sealing_key)),
        callbacks=config.CallbackSettings(certificate=f"{client}.crt", key=f"{client}.key"),
        outbound=config.OutboundSettings(allow=("127.0.0.0/8",)),
        enrolment=config.Enrolment(enabled=True, certificate=str(stage.factory / "ca.crt"),
                                   key=str(stage.factory / "ca.key")),
        log=config.Log(json=True))))
    (stage.root / "provisioning").mkdir(exist_ok=True, mode=0o700)  # empty: each device is told its own tag
    _write(stage.delegate_settings, f"""[delegate]
host = ["127.0.0.1", "::1"]
port = 0
certificate = "{stage.customer}/delegates/localhost.crt"
key = "{stage.customer}/delegates/localhost.key"
ca = "{stage.factory}/ca.crt"
crl = "{stage.factory}/crl.pem"
delegators = ["{DELEGATOR_NAME}"]
database = "{stage.delegate_database}"
sealing_key = "{stage.root}/delegate-sealing.key"
data = "{stage.root}/provisioning"
""")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True, mode=0o700)
    path.write_text(text, encoding="utf-8")


def _write_requests(stage: Stage, cast: Sequence[Part]) -> None:
    """A ready SOAP envelope for every device, to be posted by any program."""
    stage.request(cast[0]).parent.mkdir(exist_ok=True, mode=0o700)
    for part in cast:
        request = CredentialRequest(Device(part.tag), Secret(secrets.token_hex(16)))
        descriptor = os.open(stage.request(part), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(soap.render(soap.Version.V11, messages.write(request)))
