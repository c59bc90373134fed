"""What the command line's tests share: an operator at a console, in a folder of their own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from click.testing import CliRunner

from delegator.callbacks import Callbacks, hosted
from delegator.cli import main
from delegator.errors import DelegatorError
from delegator.model import (
    Answer,
    Credential,
    CredentialRequest,
    Delegate,
    DelegateRequest,
    Device,
    HostedCallback,
    PeerCertificate,
    Secret,
)
from delegator.provisioning.handshake import Handshake, Heard, Own, Peer
from delegator.sealing import SealingKey, create_key_file, read_key_file
from delegator.store import Store, open_store
from delegator.trail import Trail

ROOT = Path(__file__).parents[2]
T = TypeVar("T")


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class HostedOnly:
    """Callbacks that call nobody."""

    def at_hand(self, delegate: Delegate, request: DelegateRequest, until: datetime) -> Credential:
        assert isinstance(delegate.callback, HostedCallback)
        return hosted.compose(request, delegate.callback, until)


class Console:
    """Runs commands as an operator does, in the test's own process, and looks at what they left in the store."""

    def __init__(self) -> None:
        self.said = ""

    def run(self, *words: object, stdin: str | bytes | None = None) -> Ran:
        done = CliRunner().invoke(main, [str(word) for word in words], input=stdin, prog_name="delegator")
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        self.said += done.stdout + done.stderr
        return Ran(done.exit_code, done.stdout, done.stderr)

    def ok(self, *words: object, stdin: str | bytes | None = None) -> Any:
        """The JSON document of a command that must succeed."""
        done = self.run(*words, "--json", stdin=stdin)
        assert done.code == 0, done.err
        return done.json

    def refused(self, code: int, *words: object, stdin: str | bytes | None = None) -> str:
        """The words of a command that must end with this code; every error ends with what to do next."""
        done = self.run(*words, stdin=stdin)
        assert done.code == code, (done.out, done.err)
        assert done.err.startswith("error: ")
        assert "\n  next: " in done.err
        assert "Traceback" not in done.err
        return done.err

    def store(self, work: Callable[[Store], Awaitable[T]]) -> T:
        async def opened() -> T:
            store = await open_store(Path("var/delegator.db"), SealingKey(read_key_file(Path("var/sealing.key"))))
            try:
                return await work(store)
            finally:
                await store.close()
        return asyncio.run(opened())

    def serve(self, tag: str, identity: str = "own", *, device: str = "1", peer: str = "192.0.2.7",
              at: datetime | None = None) -> Answer | DelegatorError:
        """What the handshake itself answers a device: `device` tells one that holds a key from another."""
        name = tag if identity == "own" else "shared-device"
        request = CredentialRequest(Device(tag), Secret(f"transaction-000-{device}"))
        certificate = PeerCertificate((name,), 1, f"key-{device}")

        async def asked(store: Store) -> Answer | DelegatorError:
            handshake = Handshake(store, cast(Callbacks, HostedOnly()), lambda: at or datetime.now(UTC), Own(1.0, ""),
                                  Heard())
            try:
                return await handshake.provision(request, Peer(peer, certificate), Trail("test", peer))
            except DelegatorError as error:
                return error
        return self.store(asked)


def process(*words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m delegator ...` as a script starts it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DELEGATOR_")}
    return subprocess.run([sys.executable, "-m", "delegator", *map(str, words)], cwd=cwd, text=True, timeout=30,
                          capture_output=True, env={**kept, "PYTHONPATH": str(ROOT), **environment}, check=False)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no settings in the environment."""
    for name in [name for name in os.environ if name.startswith("DELEGATOR_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sealing key and a database that holds nothing."""
    folder = tmp_path_factory.mktemp("begun")
    create_key_file(folder / "sealing.key")

    async def made() -> None:
        await (await open_store(folder / "delegator.db", SealingKey(read_key_file(folder / "sealing.key")))).close()
    asyncio.run(made())
    return folder


@pytest.fixture
def console(place: Path, begun: Path) -> Console:
    """A console with a sealing key and nothing registered."""
    shutil.copytree(begun, "var", copy_function=shutil.copy2)
    return Console()


@pytest.fixture
def acme(console: Console) -> Console:
    """A console where the customer acme has the hosted delegate acme-small and the device ABC1234."""
    console.ok("customers", "add", "acme", "--title", "Acme Corporation")
    console.ok("delegates", "add", "acme-small", "--customer", "acme", "--hosted", "admin-{tag}")
    console.ok("devices", "add", "ABC1234", "--customer", "acme", "--model", "R750", "--order", "4711")
    return console
