"""What survives a power cut: the state folder, written so that every file is whole or absent.

The invariant: `state.json` is written last, so what it speaks of is already on the disk; the transaction id is
on the disk before anybody hears it. Nothing here is readable for anybody but the owner of the process.
Must not live here: when to move from one phase to the next (flow).
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import json
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from delegator.device.addresses import Address
from delegator.device.answers import Credential
from delegator.device.contents import contents
from delegator.device.reasons import Busy, Misconfigured, system_words

log = logging.getLogger("delegator.device")

STATE = "state.json"
CREDENTIAL = "credential.json"
TRUST_ANCHOR = "delegate-ca.pem"
PROVISIONING = "provisioning.xml"
HANDSHAKE_CERTIFICATE = "handshake.pem"
HANDSHAKE_KEY = "handshake.key"
_LOCK = "lock"

_TRANSACTION_BYTES = 24
"""192 random bits: with a shared certificate this number alone says which device a claim belongs to."""


class Phase(enum.Enum):
    """How far this device got; a phase is reached when all it stands for is on the disk."""

    ASKING = "asking"
    ISSUED = "issued"
    FETCHED = "fetched"
    APPLIED = "applied"
    CONFIRMED = "confirmed"


class State(NamedTuple):
    """One activation. `started_at` is the device's own clock and only for people to read."""

    transaction_id: str
    service_tag: str
    started_at: int
    phase: Phase = Phase.ASKING
    claim_id: str = ""
    delegate_url: str = ""
    alternates: tuple[Address, ...] = ()
    own: bool = False
    """Whether this activation shows `handshake.pem` instead of the certificate it was given at the command line."""

    def __repr__(self) -> str:
        return f"State({self.service_tag}, {self.phase.value})"


def _holds_state_alone(path: Path) -> bool:
    """Whether there is nothing in a folder but what we put there: one that others use must not be closed to them."""
    names = {one.name for one in path.iterdir()}
    return STATE in names or names <= {_LOCK}


def new_state(service_tag: str, now: float, own: bool = False) -> State:
    """A fresh activation with a transaction id that nobody can guess."""
    return State(secrets.token_urlsafe(_TRANSACTION_BYTES), service_tag, int(now), own=own)


class Folder:
    """The state folder: mode 0700, files 0600, every write atomic and durable."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = path.stat()
            ours = not found.st_mode & stat.S_ISVTX and found.st_uid == os.geteuid() and _holds_state_alone(path)
        except OSError as error:
            raise Misconfigured(f"the state folder {path} cannot be used: {system_words(error)}") from None
        if found.st_mode & 0o077:
            cure = f"`chmod 700 {path}` first" if ours else "name a folder of its own, which need not be there yet"
            raise Misconfigured(f"others can look into the state folder {path}: {cure}")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps a second activation out; the lock ends with the process, also with a killed one."""
        try:
            lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Misconfigured(f"the state folder {self.path} cannot be written: {system_words(error)}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise Busy(f"another activation is at work in {self.path}") from None
        finally:
            os.close(lock)

    def write(self, name: str, content: bytes) -> Path:
        """Replaces a file whole: new file, fsync, rename, fsync of the folder."""
        target, new = self.path / name, self.path / f".{name}.new"
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        new.replace(target)
        self._sync()
        return target

    def read(self, name: str) -> bytes | None:
        """The file's content, or None where there is none."""
        try:
            return contents(self.path / name)
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Removes what does not belong to this claim, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / name).unlink()
            self._sync()

    def save(self, state: State) -> None:
        """The commit point of every step."""
        self.write(STATE, _as_json({**state._asdict(), "phase": state.phase.value,
                                    "alternates": [list(address) for address in state.alternates]}))

    def load(self) -> State | None:
        """The saved state; a damaged one is put aside and said to be none, for nobody is there to repair it."""
        raw = self.read(STATE)
        if raw is None:
            return None
        try:
            return _state(json.loads(raw))
        except (ValueError, TypeError, KeyError, AttributeError):
            log.warning("%s is damaged; it is kept as %s.damaged and the activation starts anew", STATE, STATE)
            (self.path / STATE).replace(self.path / f"{STATE}.damaged")
            return None

    def save_credential(self, credential: Credential, claim_id: str) -> None:
        """The account of this device; it stays after the activation."""
        self.write(CREDENTIAL, _as_json({**credential._asdict(), "claim_id": claim_id}))

    def load_credential(self) -> Credential | None:
        """The stored account, or None where it is missing or damaged."""
        try:
            facts = json.loads(self.read(CREDENTIAL) or b"")
            return Credential(str(facts["user_name"]), str(facts["password"]), facts["not_after"])
        except (ValueError, TypeError, KeyError):
            return None

    def _sync(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _state(facts: dict[str, Any]) -> State:
    alternates = tuple(Address(str(host), int(port)) for host, port in facts["alternates"])
    return State(str(facts["transaction_id"]), str(facts["service_tag"]), int(facts["started_at"]),
                 Phase(facts["phase"]), str(facts["claim_id"]), str(facts["delegate_url"]), alternates,
                 bool(facts["own"]))


def _as_json(facts: dict[str, Any]) -> bytes:
    return json.dumps(facts, indent=2, ensure_ascii=False).encode() + b"\n"
