"""A customer with a certificate of their own authority, their delegate here or in a process, its callers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from delegator import model
from delegator.callbacks.soap import SoapCaller
from delegator.delegate.ledger import Ledger, open_ledger
from delegator.delegate.server import Server
from delegator.model import Credential, DelegateRequest, Deployment, Device, Location, Result, SoapCallback
from delegator.net.serve import Listener
from delegator.outbound import Outbound, networks
from delegator.sealing import SealingKey
from delegator.wire.presented import presented
from delegator.wire.tls import server_context
from pki import Folder, TrustStore

_HANDED_OVER = ("import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_FDS='1', LISTEN_FDNAMES="
                "'delegate', LISTEN_PID=str(os.getpid())); os.execv(sys.argv[2], sys.argv[2:])")
"""Hands over a socket at descriptor 3, as sd_listen_fds(3) reads it."""
ROOT = Path(__file__).parents[2]
NAME = "delegator.test"
Pair = tuple[Path, Path]


def real_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Party:
    """Files: the two authorities, the delegate's pair, the delegator's pair."""

    factory_ca: Path
    customer_ca: Path
    delegate: Pair
    delegator: Pair


@pytest.fixture(scope="session")
def party(factory: Folder, customer_ca: Folder) -> Party:
    served = customer_ca.issue("delegate-server", "delegate.test", names=("localhost", "127.0.0.1"), renew=True)
    caller = factory.certificate_path("delegate-client", NAME)
    assert served.key_path is not None
    return Party(factory.ca_path, customer_ca.ca_path, (served.certificate_path, served.key_path),
                 (caller, caller.with_suffix(".key")))


@dataclass(frozen=True)
class Got:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Client:
    """Calls one delegate: as the delegator (SoapCaller), as a device (stdlib)."""

    party: Party
    port: int
    caller: SoapCaller
    known: model.Delegate = field(init=False)

    def __post_init__(self) -> None:
        callback = SoapCallback("localhost", self.port, trust_anchor=self.party.customer_ca.read_text(),
                                address="127.0.0.1")
        self.known = model.Delegate("its-delegate", "a-customer", callback)

    async def ask(self, tag: str, claim_id: str, **device: Any) -> Credential:
        request = DelegateRequest(claim_id, Device(tag, **device), Location("192.0.2.7", None, "lab.example"))
        return await self.caller.obtain(request, self.known, real_now() + timedelta(hours=24))

    async def tell(self, claim_id: str, result: Result = Result.DEPLOYED, detail: str | None = None) -> None:
        await self.caller.notify(Deployment(claim_id, result, detail), self.known)

    def context(self, pair: Pair | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.party.customer_ca))
        if pair is not None:
            context.load_cert_chain(*map(str, pair))
        return context

    def request(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None,
                pair: Pair | None = None) -> Got:
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=5, context=self.context(pair))
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Got(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())

    def get(self, shown: Credential | tuple[str, str] | None, path: str = "/provisioning") -> Got:
        headers = {}
        if shown is not None:
            user, word = shown if isinstance(shown, tuple) else (shown.user_name, shown.password.reveal())
            headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{word}".encode()).decode()
        return self.request("GET", path, headers)

    async def fetch(self, shown: Credential | tuple[str, str] | None, path: str = "/provisioning") -> Got:
        """Like `get`, while the delegate runs in this loop."""
        return await asyncio.to_thread(self.get, shown, path)


@pytest.fixture
async def client(party: Party) -> AsyncIterator[Callable[[int], Client]]:
    callers = []

    def make(port: int) -> Client:
        here = Outbound(networks(("127.0.0.0/8",)))
        caller = SoapCaller(presented(*party.delegator), TrustStore.load(party.factory_ca), real_now, 5.0, here)
        callers.append(caller)
        return Client(party, port, caller)
    yield make
    for caller in callers:
        caller.close()


@pytest.fixture
def new_claim() -> Callable[[], str]:
    return lambda: secrets.token_hex(16)


# --- in this process, with a clock that can be moved --------------------------------------------------------------


@dataclass
class Inside:
    """A delegate in this loop. Move `later` to let time pass."""

    port: int
    client: Client
    ledger: Ledger
    listener: Listener
    data: Path
    database: Path
    later: timedelta = timedelta()

    def now(self) -> datetime:
        return real_now() + self.later


@pytest.fixture
async def inside(party: Party, client: Callable[[int], Client], tmp_path: Path) -> AsyncIterator[Inside]:
    data, database = tmp_path / "data", tmp_path / "delegate.db"
    data.mkdir()
    trust = TrustStore.load(party.factory_ca)
    async with contextlib.AsyncExitStack() as ending:
        ledger = await open_ledger(database, SealingKey(secrets.token_bytes(32)), timedelta(minutes=10))
        ending.push_async_callback(ledger.close)
        here: Inside

        def now() -> datetime:
            return here.now()
        server = Server(ledger, frozenset({NAME.upper()}), data, now, lifetime=timedelta(hours=24))
        listener = Listener(server_context(*party.delegate, trust, real_now, require_certificate=False), server.answer,
                            on_refused=server.refused)
        ending.push_async_callback(listener.close, 1.0)
        _, port = listener.listen("127.0.0.1", 0)
        here = Inside(port, client(port), ledger, listener, data, database)
        ending.callback(here.client.caller.close)
        yield here


# --- in a process of its own, as a customer starts it -------------------------------------------------------------


@dataclass
class Process:
    """`delegator delegate serve`, started and ready."""

    child: subprocess.Popen[bytes]
    told: dict[str, Any]
    log: Path

    @property
    def port(self) -> int:
        return int(self.told["port"])

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.child.send_signal(number)
        return self.child.wait(10)


@dataclass
class Shell:
    """Runs `delegator delegate ...` in a folder of its own."""

    folder: Path
    party: Party
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __call__(self, *words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._command(*words), cwd=self.folder, env=self._environment(env), text=True,
                              capture_output=True, timeout=20, check=False)

    def flags(self) -> list[str]:
        certificate, key = self.party.delegate
        return ["--certificate", str(certificate), "--key", str(key), "--ca", str(self.party.factory_ca),
                "--delegator", NAME, "--host", "127.0.0.1", "--port", "0"]

    def serve(self, *more: object, given: socket.socket | None = None) -> Process:
        """Run it until it says where it listens: at the socket that it is `given` as systemd does, or at its own."""
        log = self.folder / f"log-{len(self.children)}"
        with log.open("wb") as errors:
            words = self._command("serve", "--json", *self.flags(), *more)
            if given is not None:
                words = [sys.executable, "-c", _HANDED_OVER, str(given.fileno()), *words]
            child = subprocess.Popen(words, cwd=self.folder, env=self._environment(None), stdout=subprocess.PIPE,
                                     stderr=errors, pass_fds=() if given is None else (given.fileno(),))
        self.children.append(child)
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line, log.read_text()
        return Process(child, json.loads(line), log)

    def _command(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "delegator", "delegate", *map(str, words)]

    def _environment(self, more: dict[str, str] | None) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), **(more or {})}


@pytest.fixture
def shell(tmp_path: Path, party: Party) -> Iterator[Shell]:
    shell = Shell(tmp_path, party)
    yield shell
    for child in shell.children:
        if child.poll() is None:
            child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


# --- programs that are not ours -----------------------------------------------------------------------------------


@pytest.fixture
def curl(party: Party) -> Callable[..., Awaitable[tuple[int, str]]]:
    """The distribution's curl: status and body."""
    async def run(*words: object) -> tuple[int, str]:
        child = await asyncio.create_subprocess_exec(
            "curl", "--silent", "--show-error", "--max-time", "5", "--cacert", str(party.customer_ca),
            "--write-out", "\n%{http_code}", *map(str, words), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, errors = await child.communicate()
        body, _, status = out.decode().rpartition("\n")
        return int(status), body + errors.decode()
    return run
