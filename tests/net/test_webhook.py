"""A7c: the signed call. Against examples/webhook_receiver.py, and against receivers that misbehave."""

from __future__ import annotations

import http.client
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from delegator.errors import DelegatorError
from delegator.model import Secret
from delegator.net.webhook import Webhook, post, signature
from delegator.outbound import Outbound, networks
from pki import Folder

from ..mailserver import Receiver, webhook_receiver

SECRET = "a-secret-of-acme-0000"
HERE = Outbound(networks(("127.0.0.0/8", "::1/128")))
BODY = b'{"id": "0f.provisioned.webhook", "type": "provisioned"}'


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Who signed the receiver's certificate; the factory did not."""
    folder = Folder.create(tmp_path_factory.mktemp("stranger") / "pki", common_name="Test Stranger CA")
    folder.issue("delegate-server", "localhost", names=("127.0.0.1",))
    return folder


@pytest.fixture
def receiver(authority: Folder, tmp_path: Path) -> Iterator[Receiver]:
    with webhook_receiver(authority, tmp_path, SECRET) as receiver:
        yield receiver


@pytest.fixture
def hook(receiver: Receiver, authority: Folder) -> Webhook:
    return Webhook(f"https://localhost:{receiver.port}/hook?of=acme", Secret(SECRET), authority.ca_path.read_text())


async def refused(hook: Webhook, outbound: Outbound = HERE, clock: Callable[[], datetime] = now) -> str:
    with pytest.raises(DelegatorError) as refusal:
        await post(hook, BODY, outbound, clock)
    assert SECRET not in refusal.value.detail
    return refusal.value.detail


async def test_A7c_it_is_delivered_and_a_duplicate_is_ignored(hook: Webhook, receiver: Receiver) -> None:
    assert [await post(hook, BODY, HERE, now) for _ in range(3)] == [204, 204, 204]
    assert receiver.told(2, seconds=0.3) == [BODY.decode()]


async def test_TB8_a_wrong_secret_or_an_old_time_is_refused_by_the_receiver(hook: Webhook, receiver: Receiver) -> None:
    assert "403" in await refused(Webhook(hook.url, Secret("another-secret-0000"), hook.anchor))
    for minutes in (-6, 6):
        assert "403" in await refused(hook, clock=lambda minutes=minutes: now() + timedelta(minutes=minutes))
    assert receiver.told(1, seconds=0.2) == []


@pytest.mark.parametrize("change", ["body", "time", "none", "cut"])
def test_TB8_nothing_of_what_is_signed_can_be_changed(receiver: Receiver, authority: Folder, change: str) -> None:
    signed = signature(Secret(SECRET), BODY, now())
    later = signature(Secret(SECRET), BODY, now() + timedelta(seconds=1)).partition(",")[0]
    header = {"time": f"{later},{signed.partition(',')[2]}", "none": "", "cut": signed[:-1]}.get(change, signed)
    client = http.client.HTTPSConnection("localhost", receiver.port, timeout=5, context=ssl.create_default_context(
        cafile=str(authority.ca_path)))
    client.request("POST", "/", BODY + (b" " if change == "body" else b""), {"Delegator-Signature": header})
    assert client.getresponse().status == 403
    client.close()


def test_A7c_the_signature_is_what_the_page_says() -> None:
    """Worked out with: printf %s '1767225600.{}' | openssl dgst -sha256 -hmac secret"""
    assert signature(Secret("secret"), b"{}", datetime(2026, 1, 1, tzinfo=UTC)) == (
        "t=1767225600,v1=fa7eaa06bf97d7815f3f456e97cde70c9e50cb005f01660c8d10b10c21964887")


async def test_TB5_the_address_is_judged_at_every_connect(hook: Webhook, receiver: Receiver) -> None:
    assert "this machine" in await refused(hook, Outbound())
    assert receiver.told(1, seconds=0.2) == []


async def test_TB8_whom_to_trust_is_the_anchor_or_the_system(hook: Webhook, factory: Folder, authority: Folder,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    assert "unknown authority" in await refused(Webhook(hook.url, hook.secret, factory.ca_path.read_text()))
    system = Webhook(hook.url, hook.secret)
    assert "unknown authority" in await refused(system)
    assert "no certificate in PEM" in await refused(Webhook(hook.url, hook.secret, "no certificate"))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_path))
    assert await post(system, BODY, HERE, now) == 204


@contextmanager
def answering(authority: Folder, status: int, headers: dict[str, str]) -> Iterator[tuple[int, list[str]]]:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.path)
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    chain = authority.certificate_path("delegate-server", "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, chain.with_suffix(".key"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield int(server.server_address[1]), asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 404, 500, 503])
async def test_TB5_only_2xx_is_delivered_and_no_redirect_is_followed(authority: Folder, status: int) -> None:
    with answering(authority, status, {"Location": "/elsewhere"}) as (port, asked):
        hook = Webhook(f"https://localhost:{port}/hook", Secret(SECRET), authority.ca_path.read_text())
        assert f"HTTP {status}" in await refused(hook)
        assert asked == ["/hook"]
