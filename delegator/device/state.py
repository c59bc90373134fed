"""What survives a power cut: the state folder, written so that every file is whole or absent.

The invariants: nothing that was stored is trusted more than what is received; `state.json` is written last, so what it
speaks of is already on the disk; the transaction id is on the disk before anybody hears it. Nothing here is readable
for anybody but the owner of the process.
Must not live here: when to move from one phase to the next (flow).
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import json
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from delegator.device.addresses import MOST, Address, authority, parse_address, parse_delegate_url
from delegator.device.answers import Credential, usable_claim_id
from delegator.device.contents import contents
from delegator.device.reasons import Busy, Misconfigured, may_pass, own_error, shown, system_words
from delegator.device.replacing import Replacement, clear, sync

log = logging.getLogger("delegator.device")

STATE = "state.json"
CREDENTIAL = "credential.json"
TRUST_ANCHOR = "delegate-ca.pem"
PROVISIONING = "provisioning.xml"
HANDSHAKE_CERTIFICATE = "handshake.pem"
HANDSHAKE_KEY = "handshake.key"
LOCK = "lock"

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


def _is_ours(path: Path) -> bool:
    """Whether there is nothing in a folder but what we put there: one that others use must not be closed to them, and
    one that holds a device's key or state must not be left for another one."""
    names = {one.name for one in path.iterdir()}
    return bool(names & {STATE, HANDSHAKE_KEY, HANDSHAKE_CERTIFICATE}) or names <= {LOCK}


_ANOTHER = "name a folder of its own, which need not be there yet"


def new_state(service_tag: str, now: float, own: bool = False) -> State:
    """A fresh activation with a transaction id that nobody can guess."""
    return State(secrets.token_urlsafe(_TRANSACTION_BYTES), service_tag, int(now), own=own)


class Folder:
    """The state folder: mode 0700, files 0600, every write atomic and durable, none where nothing changes."""

    def __init__(self, path: Path) -> None:
        """Raises Misconfigured for a folder that is not this user's alone."""
        self.path = path
        self.lock = -1
        """The descriptor of the file `lock`, while it is held."""
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.is_symlink():
                raise Misconfigured(f"the folder {path} is a link to another: name that one")
            found = path.stat()
            ours = not found.st_mode & stat.S_ISVTX and found.st_uid == os.geteuid() and _is_ours(path)
        except FileExistsError:
            raise Misconfigured(f"{path} is no folder") from None
        except OSError as error:
            raise own_error(f"the folder {path} cannot be used", error) from None
        if found.st_uid != os.geteuid():
            raise Misconfigured(f"the folder {path} is another user's: run this as user {found.st_uid}, or {_ANOTHER}")
        if found.st_mode & 0o077:
            raise Misconfigured(f"others can look into the folder {path}: "
                                f"{f'`chmod 700 {path}` first' if ours else _ANOTHER}")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps a second activation out; the lock ends with the process, also with a killed one. Raises Busy,
        Misconfigured."""
        path = self.path / LOCK
        try:
            if path.is_symlink() or (path.exists() and not path.is_file()):
                clear(path)  # whatever it is, nobody can have locked it
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise own_error(f"the state folder {self.path} cannot be written", error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise Busy(f"another activation is at work in {self.path}") from None
        self.lock = lock
        try:
            yield
        finally:
            self.lock = -1
            os.close(lock)

    def replacing(self, name: str) -> Replacement:
        """A file's new content, to be given piece by piece."""
        return Replacement(self.path / name)

    def write(self, name: str, content: bytes) -> Path:
        """Replaces a file whole, if it holds anything else."""
        with self.replacing(name) as new:
            new.write(content)
        return self.path / name

    def read(self, name: str) -> bytes | None:
        """The file's content, or None where there is none that can be read. Raises OSError for what may pass: a device
        that is short of memory has not lost its state."""
        try:
            return contents(self.path / name)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            if may_pass(error) and getattr(error, "errno", None) != errno.EIO:  # a block of flash that is gone stays so
                raise
            log.warning("%s cannot be read: %s", name, shown(system_words(error)))
            return None

    def remove(self, name: str) -> None:
        """Removes what does not belong to this claim, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / name).unlink()
            sync(self.path)

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
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError):
            log.warning("%s is damaged; it is kept as %s.damaged and the activation starts anew", STATE, STATE)
            self.write(f"{STATE}.damaged", raw)
            return None

    def save_credential(self, credential: Credential, claim_id: str) -> None:
        """The account of this device; it stays after the activation."""
        self.write(CREDENTIAL, _as_json({**credential._asdict(), "claim_id": claim_id}))

    def load_credential(self) -> Credential | None:
        """The stored account, or None where it is missing or damaged."""
        try:
            facts = json.loads(self.read(CREDENTIAL) or b"")
            ends = facts.get("not_after")
            return Credential(_word(facts["user_name"]), _word(facts["password"]),
                              ends if isinstance(ends, str) else None)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None


def _state(facts: dict[str, Any]) -> State:
    """What was stored, trusted no more than what is received. Raises whatever nonsense leads to."""
    url = str(facts["delegate_url"])
    if url:
        parse_delegate_url(url)
    state = State(_word(facts["transaction_id"]), _word(facts["service_tag"]), int(facts["started_at"]),
                  Phase(facts["phase"]), str(facts["claim_id"]), url,
                  tuple(_address(*one) for one in facts["alternates"][:MOST]), facts["own"] is True)
    begun = state.phase is not Phase.ASKING
    if not _TRANSACTION.fullmatch(state.transaction_id) or (begun and not usable_claim_id(state.claim_id)):
        raise ValueError("it is not what was saved")
    return state


_TRANSACTION = re.compile(r"[A-Za-z0-9_-]{16,128}")


def _word(said: object) -> str:
    if not isinstance(said, str) or not said:
        raise ValueError("it is no text")
    return said


def _address(host: object, port: object) -> Address:
    return parse_address(authority(_word(host), int(str(port))))


def _as_json(facts: dict[str, Any]) -> bytes:
    return json.dumps(facts, indent=2, ensure_ascii=False).encode() + b"\n"
