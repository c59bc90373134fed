"""A whole world for each test: a factory, a delegator as a process of its own, a pretend delegate, devices.

Devices and the delegate speak through the standard library's TLS and HTTP, so that both ends of every connection
are different implementations.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import http.server
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from delegator import config
from delegator.clockwork.clocks import STOOD
from delegator.model import Customer, Delegate, HostedCallback, Policy, Registration, Secret, SoapCallback
from delegator.sealing import create_key_file
from delegator.serving.parts import open_settings_store
from delegator.store import Store
from delegator.watching.finished import MOMENT
from pki import Folder, Issued

from ..clock import today
from .operating import ROOT, Heard, change

QUICK = "test_provisioning"
"""What `make test` runs of this folder: each test here starts whole programs."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.stem != QUICK:
            item.add_marker(pytest.mark.slow)

NS = "{urn:delegator:provisioning:1}"
SOAP11 = "http://schemas.xmlsoap.org/soap/envelope/"
TRANSACTION = "transaction-0123456789"


def envelope(tag: str, transaction: str = TRANSACTION, extra: str = "", soap: str = SOAP11) -> bytes:
    """What a device posts."""
    return (f'<?xml version="1.0" encoding="utf-8"?><s:Envelope xmlns:s="{soap}"><s:Body>'
            f'<GetProvisioningCredential xmlns="urn:delegator:provisioning:1"><Device><ServiceTag>{tag}</ServiceTag>'
            f"{extra}</Device><TransactionId>{transaction}</TransactionId></GetProvisioningCredential>"
            "</s:Body></s:Envelope>").encode()


def confirmation(claim: str, result: str = "Deployed", transaction: str | None = TRANSACTION) -> bytes:
    said = f"<TransactionId>{transaction}</TransactionId>" if transaction else ""
    return (f'<s:Envelope xmlns:s="{SOAP11}"><s:Body><ConfirmProvisioning xmlns="urn:delegator:provisioning:1">'
            f"<ClaimId>{claim}</ClaimId><Result>{result}</Result>{said}</ConfirmProvisioning>"
            "</s:Body></s:Envelope>").encode()


@dataclass(frozen=True)
class Reply:
    """What came back, as far as a device looks at it."""

    status: int
    headers: dict[str, str]
    body: bytes

    def text(self, name: str) -> str | None:
        return next((element.text for element in ElementTree.fromstring(self.body).iter(NS + name)), None)

    @property
    def fault(self) -> str | None:
        return self.text("Code")

    @property
    def credential(self) -> tuple[str | None, str | None]:
        return self.text("UserName"), self.text("Password")


# --- a pretend delegate -------------------------------------------------------------------------------------------


class PretendDelegate:
    """A customer's server that answers as told: `mode` is good, slow, fault, nonsense, cut or silent."""

    def __init__(self, authority: Folder, factory: Folder, name: str = "localhost") -> None:
        self.mode = "good"
        self.given: dict[str, str] = {}
        self.calls: list[str] = []
        self.deployed: list[tuple[str, str]] = []
        self.in_hand = threading.Event()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        chain = authority.certificate_path("delegate-server", name)
        context.load_cert_chain(chain, chain.with_suffix(".key"))
        context.load_verify_locations(factory.ca_path)
        context.verify_mode = ssl.CERT_REQUIRED
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.answer(self, body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True,
                                                  do_handshake_on_connect=False)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def answer(self, handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        root = ElementTree.fromstring(body)
        claim = next(root.iter(NS + "ClaimId")).text or ""
        self.calls.append(claim)
        if root.find(f".//{NS}NotifyDeployed") is not None:
            self.deployed.append((claim, next(root.iter(NS + "Result")).text or ""))
            self._reply(handler, "<NotifyDeployedResponse xmlns='urn:delegator:provisioning:1'/>")
            return
        password = self.given.setdefault(claim, f"pass<&>\"'-{len(self.given)}")
        self.in_hand.set()
        getattr(self, f"_{self.mode}")(handler, password)

    def _good(self, handler: http.server.BaseHTTPRequestHandler, password: str) -> None:
        escaped = password.replace("&", "&amp;").replace("<", "&lt;")
        self._reply(handler, "<RequestCredentialResponse xmlns='urn:delegator:provisioning:1'><Credential>"
                             f"<UserName>temp</UserName><Password>{escaped}</Password></Credential>"
                             "</RequestCredentialResponse>")

    def _slow(self, handler: http.server.BaseHTTPRequestHandler, password: str) -> None:
        time.sleep(3)
        self._good(handler, password)

    def _fault(self, handler: http.server.BaseHTTPRequestHandler, password: str) -> None:
        self._reply(handler, "<s:Fault><faultcode>s:Server</faultcode><faultstring>no</faultstring></s:Fault>", 500)

    def _nonsense(self, handler: http.server.BaseHTTPRequestHandler, password: str) -> None:
        self._raw(handler, 200, b"<html>hello</html>")

    def _cut(self, handler: http.server.BaseHTTPRequestHandler, password: str) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n<s:Envel")
        handler.close_connection = True

    def _silent(self, handler: http.server.BaseHTTPRequestHandler, password: str) -> None:
        handler.close_connection = True

    def _reply(self, handler: http.server.BaseHTTPRequestHandler, inner: str, status: int = 200) -> None:
        self._raw(handler, status,
                  f'<s:Envelope xmlns:s="{SOAP11}"><s:Body>{inner}</s:Body></s:Envelope>'.encode())

    @staticmethod
    def _raw(handler: http.server.BaseHTTPRequestHandler, status: int, body: bytes) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "text/xml; charset=utf-8")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def busy(pid: int) -> bool:
    """Whether it has something to do that it has not come to: it, or a process that it started."""
    try:
        mine = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
        return any(Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[0] == "R" for one in mine)
    except (FileNotFoundError, ProcessLookupError):  # one ends just now
        return False


# --- the world ----------------------------------------------------------------------------------------------------


@dataclass
class World:
    """One delegator with its files. `start` and `kill` as often as a test likes."""

    root: Path
    factory: Folder
    delegate: PretendDelegate
    device: Callable[[str], Issued]
    settings: config.Settings
    port: int = 0
    believes_after: float = STOOD
    """Seconds after which its delegator believes a clock; other than the product's own, see believing.py."""
    tree: Path = ROOT
    """Where its program is; another release's, where a test says so."""
    process: subprocess.Popen[str] | None = None
    _log: Any = field(default=None)

    def start(self, *, kill_at: str = "", fail_at: str = "") -> dict[str, Any]:
        """Run `delegator serve`; with `kill_at`, one that kills itself at that step (see dying.py), with `fail_at` one
        in which that step raises (see failing.py)."""
        script = ["-m", "delegator"]
        if self.believes_after != STOOD:
            script = [str(Path(__file__).with_name("believing.py")), str(self.believes_after)]
        if kill_at or fail_at:
            script = [str(Path(__file__).with_name("dying.py" if kill_at else "failing.py")), kill_at or fail_at]
        self._log = (self.root / "log").open("a")
        self.process = subprocess.Popen(
            [sys.executable, *script, "--config", str(self.root / "delegator.toml"), "serve", "--json"],
            stdout=subprocess.PIPE, stderr=self._log, text=True, cwd=self.tree,
            env={**os.environ, "PYTHONPATH": str(self.tree)})
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (self.root / "log").read_text()
        said: dict[str, Any] = json.loads(line)
        self.port = said["port"]
        return said

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(15)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
        return code

    @property
    def log(self) -> str:
        """What it has said of everything so far; lines of handshakes come a moment after them."""
        if self.process is not None and self.process.poll() is None:
            time.sleep(3 * MOMENT)
            until = time.monotonic() + 10
            while busy(self.process.pid) and time.monotonic() < until:  # on a machine with other work it has its turn
                time.sleep(MOMENT)
        return (self.root / "log").read_text()

    def trails(self, tag: str | None = None) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == "handshake" and tag in (None, line.get("tag"))]

    async def in_store(self, work: Callable[[Store], Any]) -> Any:
        store = await open_settings_store(self.settings)
        try:
            return await work(store)
        finally:
            await store.close()

    def store(self, work: Callable[[Store], Any]) -> Any:
        """Do something in the store, as the command line would, from another process's point of view."""
        return asyncio.run(self.in_store(work))

    def own(self, *tags: str) -> None:
        """Acme registers devices; its pretend delegate answers for them."""
        self.store(lambda store: store.add_devices([Registration("acme", tag) for tag in tags], today()))

    def host(self, *tags: str) -> None:
        """Globex registers devices; its credential is kept at the delegator."""
        self.store(lambda store: store.add_devices([Registration("globex", tag) for tag in tags], today()))

    @staticmethod
    def reach(delegate: PretendDelegate, authority: Folder) -> SoapCallback:
        return SoapCallback("localhost", delegate.port, "/", authority.ca_path.read_text(), "127.0.0.1")

    def paths(self, tag: str) -> tuple[Path, Path]:
        issued = self.device(tag)
        assert issued.key_path is not None
        return issued.certificate_path, issued.key_path

    def tls(self, certificate: Path | None, key: Path | None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.factory.ca_path))
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if certificate is not None:
            context.load_cert_chain(certificate, key)
        return context

    @contextlib.contextmanager
    def connection(self, certificate: Path | None, key: Path | None,
                   version: ssl.TLSVersion | None = None) -> Iterator[ssl.SSLSocket]:
        with (socket.create_connection(("127.0.0.1", self.port), 10) as raw,
              self.tls(certificate, key, version).wrap_socket(raw, server_hostname="localhost") as sock):
            yield sock

    def post(self, body: bytes, certificate: Path, key: Path, headers: dict[str, str] | None = None,
             source: str = "") -> Reply:
        """`source` is the address to come from, where it matters."""
        client = http.client.HTTPSConnection("localhost", self.port, timeout=15, context=self.tls(certificate, key),
                                             source_address=(source, 0) if source else None)
        try:
            client.request("POST", "/", body, {"Content-Type": "text/xml; charset=utf-8", **(headers or {})})
            with client.getresponse() as response:  # which has the socket from here on
                return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            client.close()

    def ask(self, tag: str, *, transaction: str = TRANSACTION, shown: tuple[Path, Path] | None = None,
            extra: str = "", source: str = "") -> Reply:
        """A device asks for its credential; `shown` is the certificate if it is not the tag's own."""
        return self.post(envelope(tag, transaction, extra), *(shown or self.paths(tag)), source=source)

    def confirm(self, tag: str, claim: str | None, *, shown: tuple[Path, Path] | None = None,
                transaction: str | None = TRANSACTION, result: str = "Deployed") -> Reply:
        assert claim is not None
        return self.post(confirmation(claim, result, transaction), *(shown or self.paths(tag)))


@pytest.fixture
def make_world(tmp_path: Path, factory: Folder, delegate_authority: Folder,
               device: Callable[[str], Issued]) -> Iterator[Callable[[str], World]]:
    """Worlds of one factory, each with its own delegator and delegate. Acme has a delegate of its own, Globex is
    hosted; no device is registered yet, nothing runs yet."""
    made: list[World] = []

    def make(name: str, *, database: config.Store | None = None, beside: World | None = None,
             server: dict[str, object] | None = None) -> World:
        """`database` is one other than the embedded; with `beside` it is one more delegator on that world's database;
        `server` are further settings of that section."""
        root = tmp_path / name
        root.mkdir()
        settings = _settings(root, factory)
        settings = replace(settings, store=database or settings.store,
                           server=replace(settings.server, **(server or {})))
        if beside is not None:
            settings = replace(settings, store=beside.settings.store, sealing=beside.settings.sealing)
        world = World(root, factory, PretendDelegate(delegate_authority, factory), device, settings)
        made.append(world)
        (root / "delegator.toml").write_text(config.as_toml(world.settings))
        if beside is None:
            create_key_file(root / "sealing.key")
            world.store(lambda store: _registered(store, world, delegate_authority))
        return world

    yield make
    for world in made:
        if world.process is not None and world.process.returncode is None:
            world.stop()
        world.delegate.close()
        assert not re.search(r"Traceback|unhandled", world.log if (world.root / "log").exists() else "")


@pytest.fixture
def world(make_world: Callable[[str], World]) -> World:
    return make_world("world")


@pytest.fixture
def watched(world: World) -> World:
    """A world whose operators' port is open."""
    change(world, ("[ops]\nenabled = false", "[ops]\nenabled = true"), ("port = 9433", "port = 0"))
    return world


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    found = Heard(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(found.path))
    yield found
    found.close()


@pytest.fixture
def handed_over(world: World) -> Iterator[socket.socket]:
    """The world's delegator is started with this socket at descriptor 3."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as sock:
        yield sock


def _settings(root: Path, factory: Folder) -> config.Settings:
    return config.Settings(
        server=config.Server(host="127.0.0.1", port=0, certificate=str(factory.path / "server/delegator.crt"),
                             key=str(factory.path / "server/delegator.key"), ca=str(factory.ca_path),
                             crl=str(factory.crl_path)),
        store=config.Store(path=str(root / "delegator.db")),
        sealing=config.Sealing(key_file=str(root / "sealing.key")),
        callbacks=config.CallbackSettings(
            certificate=str(factory.path / "delegate-clients/delegator.test.crt"),
            key=str(factory.path / "delegate-clients/delegator.test.key"), budget=1.0),
        outbound=config.OutboundSettings(allow=("127.0.0.0/8",)),
        log=config.Log(json=True))


async def _registered(store: Store, world: World, authority: Folder) -> None:
    await store.add_policy(Policy("default"), today())
    await store.add_customer(Customer("acme", "Acme", policy="default"), today())
    await store.add_customer(Customer("globex", "Globex"), today())
    await store.add_delegate(Delegate("acme-server", "acme", world.reach(world.delegate, authority)), today())
    await store.add_delegate(Delegate("globex-hosted", "globex", HostedCallback("root", Secret("{random}"))), today())
