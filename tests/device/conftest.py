"""A pretend delegator and delegate on the standard library's TLS, certificates for both, and a device to run.

The product's own server uses another TLS implementation; here the client meets a second one, and one that can
misbehave at any byte: each connection is answered by the next entry of a script.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import ipaddress
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from delegator.device import built, main
from delegator.device.flow import World

NS = "urn:delegator:provisioning:1"
DAY = datetime.timedelta(days=1)
TAG = "ABC1234"
CLAIM = "0123456789abcdef0123456789abcdef"
PASSWORD = "<&>\"']]> pass"


# --- certificates -------------------------------------------------------------------------------------------------


class Authority:
    """A certificate authority that lives as long as the tests."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(self.subject, self.key, -DAY, 365 * DAY, [
            (x509.BasicConstraints(ca=True, path_length=None), True)])
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.file = folder / f"{name}.pem"
        self.file.write_text(self.pem)

    def _sign(self, subject: x509.Name, key: Any, start: datetime.timedelta, end: datetime.timedelta,
              extensions: list[Any]) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(self.subject, subject, key.public_key(), x509.random_serial_number(),
                                          now + start, now + end)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, hashes.SHA256())

    def leaf(self, name: str, *, server: bool = False, start: datetime.timedelta = -DAY,
             end: datetime.timedelta = 30 * DAY, names: tuple[str, ...] = ("localhost", "127.0.0.1")) -> Leaf:
        """A device's or a server's certificate with its key, as files."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        extensions: list[Any] = [(x509.ExtendedKeyUsage([usage]), False)]
        if server:
            extensions.append((x509.SubjectAlternativeName([_general(n) for n in names]), False))
        certificate = self._sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, start, end,
                                 extensions)
        stem = self.folder / f"{self.name}-{name}-{certificate.serial_number}"
        stem.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        stem.with_suffix(".key").write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return Leaf(str(stem.with_suffix(".crt")), str(stem.with_suffix(".key")))


@dataclass(frozen=True, slots=True)
class Leaf:
    certificate: str
    key: str


def _general(name: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    return x509.DNSName(name)


@dataclass(frozen=True, slots=True)
class Pki:
    factory: Authority
    owner: Authority
    device: Leaf
    delegator: Leaf
    delegate: Leaf


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    folder = tmp_path_factory.mktemp("pki")
    factory, owner = Authority(folder, "factory"), Authority(folder, "owner")
    return Pki(factory, owner, factory.leaf(TAG), factory.leaf("delegator", server=True),
               owner.leaf("delegate", server=True))


# --- the pretend servers ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heard:
    """One HTTP request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: str
    client_certificate: bool = False
    common_name: str | None = None

    def value(self, name: str) -> str | None:
        found = re.search(f"<{name}>(.*?)</{name}>", self.body, re.S)
        return found and found[1]


Reply = bytes | Callable[[Heard], bytes] | None


@dataclass
class Server:
    """Answers each connection with the next reply of its script; the last one stays. None hangs up unanswered. With
    `keeps` it goes on with a connection for as many seconds as nothing comes, and with `then` it does that after each
    answer."""

    context: ssl.SSLContext | None
    script: list[Reply]
    heard: list[Heard] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    connections: int = 0
    at_once: bytes | None = None
    keeps: float = 0
    then: Callable[[ssl.SSLSocket], None] | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    """Of the last connection."""

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)

    def _run(self) -> None:
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.ended.clear()
            with plain:
                plain.settimeout(5)
                self._serve(plain)
            self.ended.set()

    def _serve(self, plain: socket.socket) -> None:
        if self.context is None:
            plain.recv(4096)
            plain.sendall(self.at_once or b"")
            return
        try:
            with self.context.wrap_socket(plain, server_side=True) as secured:
                while self._answer(secured) and self.keeps:
                    secured.settimeout(self.keeps)
        except (OSError, ValueError) as error:  # a ValueError: the device hung up instead of asking
            self.errors.append(str(error))

    def _answer(self, secured: ssl.SSLSocket) -> bool:
        """Whether another question may come on this connection."""
        heard = _read(secured)
        self.heard.append(heard)
        reply = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        answer = reply(heard) if callable(reply) else reply
        if answer is None:
            return False
        secured.sendall(answer)
        if self.then is not None:
            self.then(secured)
        if not self.keeps or heard.headers.get("connection") == "close":
            with contextlib.suppress(OSError):
                secured.unwrap()
            return False
        return True


def _read(secured: ssl.SSLSocket) -> Heard:
    with secured.makefile("rb") as stream:
        method, target, _ = stream.readline().decode().split()
        headers = {}
        while line := stream.readline().decode().strip():
            name, _, text = line.partition(":")
            headers[name.lower()] = text.strip()
        body = stream.read(int(headers.get("content-length", "0"))).decode()
    subject = dict(pair for part in (secured.getpeercert() or {}).get("subject", ()) for pair in part)
    return Heard(method, target, headers, body, bool(secured.getpeercert(binary_form=True)),
                 subject.get("commonName"))


def http(body: str | bytes, status: str = "200 OK", *headers: str) -> bytes:
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Content-Type: text/xml", *headers, "", ""]
    return "\r\n".join(lines).encode() + content


def soap(content: str) -> str:
    return (f'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>{content}</s:Body>'
            "</s:Envelope>")


def answer(*, url: str | None = None, anchor: str = "", user: str = "root", password: str = PASSWORD,
           more: str = "", credential: str | None = None) -> bytes:
    """A GetProvisioningCredentialResponse."""
    escaped = password.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    held = f"<Credential><UserName>{user}</UserName><Password>{escaped}</Password></Credential>"
    delegate = f"<Delegate><URL>{url}</URL><TrustAnchor>{anchor}</TrustAnchor></Delegate>" if url else ""
    return http(soap(f'<GetProvisioningCredentialResponse xmlns="{NS}">{held if credential is None else credential}'
                     f"{delegate}<ClaimId>{CLAIM}</ClaimId>{more}</GetProvisioningCredentialResponse>"))


def fault(code: str, retry_after: int | None = None) -> bytes:
    wait = "" if retry_after is None else f"<RetryAfter>{retry_after}</RetryAfter>"
    return http(soap(f"<s:Fault><faultcode>s:Client</faultcode><faultstring>no</faultstring><detail>"
                     f'<Fault xmlns="{NS}"><Code>{code}</Code>{wait}</Fault></detail></s:Fault>'),
                "500 Internal Server Error")


CONFIRMED = http(soap(f'<ConfirmProvisioningResponse xmlns="{NS}"/>'))
DATA = f'<?xml version="1.0"?><Provisioning xmlns="{NS}"><HostName>web-7</HostName></Provisioning>'.encode()


def server_context(leaf: Leaf, client_ca: Path | None = None,
                   version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.certificate, leaf.key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


# --- the device ---------------------------------------------------------------------------------------------------


class Time:
    """A clock that goes on only when somebody sleeps on it, and chance without chance."""

    def __init__(self) -> None:
        self.moment = 1000.0
        self.slept: list[float] = []

    def world(self) -> World:
        return World(lambda: self.moment, self._sleep, lambda low, high: (low + high) / 2, lambda: 1.8e9)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.moment += seconds


@dataclass
class Lab:
    """Two servers, a device with its state folder, and the means to run it."""

    pki: Pki
    folder: Path
    capsys: pytest.CaptureFixture[str]
    time: Time = field(default_factory=Time)
    servers: list[Server] = field(default_factory=list)
    err: str = ""

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def delegator(self, *script: Reply, leaf: Leaf | None = None, client_ca: Path | None = None,
                  version: ssl.TLSVersion | None = None, **how: Any) -> Server:
        return self.serve(server_context(leaf or self.pki.delegator, client_ca or self.pki.factory.file, version),
                          *script, **how)

    def delegate(self, *script: Reply, leaf: Leaf | None = None) -> Server:
        return self.serve(server_context(leaf or self.pki.delegate), *(script or (http(DATA),)))

    def serve(self, context: ssl.SSLContext | None, *script: Reply, **how: Any) -> Server:
        server = Server(context, list(script) or [None], **how)
        self.servers.append(server)
        return server

    def issued(self, delegate: Server, **more: Any) -> bytes:
        return answer(url=f"https://{delegate.address}/provisioning?tag={TAG}", anchor=self.pki.owner.pem, **more)

    def hook(self, code: str = "import sys; sys.stdin.read()") -> str:
        script = self.folder / "hook.py"
        script.write_text(code)
        return f"{sys.executable} -I -S {script}"

    def words(self, delegator: Server | str, *more: str, leaf: Leaf | None = None) -> list[str]:
        leaf = leaf or self.pki.device
        address = delegator if isinstance(delegator, str) else delegator.address
        return ["activate", "--delegator", address, "--certificate", leaf.certificate, "--key", leaf.key,
                "--ca", str(self.pki.factory.file), "--tag", TAG, "--state", str(self.state), "--timeout", "5",
                "--json", *more]

    def run(self, delegator: Server | str, *more: str, leaf: Leaf | None = None) -> dict[str, Any]:
        """Runs `activate` here and gives its JSON object; `code` is the exit code, `err` the words."""
        code = main(self.words(delegator, *more, leaf=leaf), self.time.world())
        said = self.capsys.readouterr()
        self.err = said.err
        facts: dict[str, Any] = json.loads(said.out)
        assert code == facts["exit_code"]
        assert PASSWORD not in said.out + said.err
        return facts

    def fails(self, delegator: Server | str, reason: str, *more: str, leaf: Leaf | None = None) -> dict[str, Any]:
        """One attempt that must end with this reason."""
        facts = self.run(delegator, "--once", *more, leaf=leaf)
        assert facts["reason"] == reason, (facts, self.err)
        assert facts["outcome"] == "failed"
        assert "[Errno" not in f"{facts['detail']}{self.err}"
        if reason.startswith("delegate-"):  # another server failed: another person must act
            assert "the delegator" not in facts["detail"]
        return facts

    def start(self, delegator: Server, *more: str) -> subprocess.Popen[str]:
        """Runs `activate` as a process of its own."""
        return subprocess.Popen([sys.executable, "-m", "delegator.device", *self.words(delegator, *more)], text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ},
                                cwd=Path(__file__).parents[2])

    def saved(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.state / "state.json").read_text())
        return facts


@pytest.fixture
def lab(pki: Pki, tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setattr(built, "BUILD_TIME", 1_000_000_000)  # the clock of a test machine is always after this
    lab = Lab(pki, tmp_path, capsys)
    yield lab
    for server in lab.servers:
        server.close()


class Words:
    """What tests need of this file: a fixture, since test folders are not packages."""

    answer = staticmethod(answer)
    fault = staticmethod(fault)
    http = staticmethod(http)
    soap = staticmethod(soap)
    server_context = staticmethod(server_context)
    CONFIRMED, DATA, PASSWORD, CLAIM, TAG, DAY, NS = CONFIRMED, DATA, PASSWORD, CLAIM, TAG, DAY, NS

    @staticmethod
    def basic(user: str, password: str) -> str:
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture(scope="session")
def say() -> type[Words]:
    return Words
