"""A delegate is tried before a device does: `delegates test`, and what is refused or warned of when it is added."""

from __future__ import annotations

import http.server
import os
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from delegator.callbacks.soap import SoapCaller, status_words
from delegator.delegate.access import check_delegator
from delegator.errors import DelegatorError, Kind
from delegator.model import Delegate, SoapCallback
from delegator.net import client
from delegator.wire.http import Response
from pki.folder import Folder

from ..callbacks.sshd import Sshd
from ..clock import today
from .conftest import Console

HOSTED = ("delegates", "add", "x", "--customer", "acme", "--hosted")
SOAP = ("delegates", "add", "x", "--customer", "acme", "--soap")


@pytest.fixture
def factory(acme: Console) -> Folder:
    folder = Folder.create(Path("var/pki"), common_name="Factory CA")
    folder.issue("delegate-client", "delegator", names=("delegator.example.com",))
    return folder


@pytest.fixture
def server(factory: Folder) -> Iterator[Callable[[int], int]]:
    """A customer's server that answers with a status, and its port; it wants a certificate of the factory's."""
    factory.issue("delegate-server", "localhost", names=("127.0.0.1",))
    running = []

    def start(status: int) -> int:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass
        one = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        stem = factory.path / "delegates" / "localhost"
        context.load_cert_chain(stem.with_suffix(".crt"), stem.with_suffix(".key"))
        context.load_verify_locations(factory.ca_path)
        context.verify_mode = ssl.CERT_REQUIRED
        one.socket = context.wrap_socket(one.socket, server_side=True)
        threading.Thread(target=one.serve_forever, daemon=True).start()
        running.append(one)
        return one.server_address[1]
    yield start
    for one in running:
        one.shutdown()
        one.server_close()


@pytest.fixture
def allowed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELEGATOR_OUTBOUND__ALLOW", "127.0.0.0/8")


# --- trying -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("status", [200, 404, 405])
def test_a7a_a_server_that_is_in_order_is_reached_without_asking_for_a_credential(
        acme: Console, server: Callable[[int], int], status: int) -> None:
    acme.ok(*SOAP, f"localhost:{server(status)}")
    told = acme.ok("delegates", "test", "x")
    assert (told["reached"], "HTTP" in told["words"]) == (True, False)
    assert acme.ok("delegates", "show", "x")["breaker"] == "closed"


@pytest.mark.usefixtures("allowed")
def test_a7a_a_server_that_does_not_let_us_in_says_so(acme: Console, server: Callable[[int], int]) -> None:
    acme.ok(*SOAP, f"localhost:{server(403)}")
    assert "HTTP 403: it does not let us in; is the name in [callbacks] certificate" in acme.run(
        "delegates", "test", "x").err


@pytest.mark.usefixtures("allowed")
def test_a7a_what_keeps_a_server_from_being_reached_is_told_with_what_to_do(
        acme: Console, server: Callable[[int], int], monkeypatch: pytest.MonkeyPatch) -> None:
    port = server(200)
    other = Folder.create(Path("other"), common_name="Another CA")
    acme.ok(*SOAP, f"localhost:{port}", "--callback-ca", other.ca_path)
    assert "--callback-ca FILE" in acme.refused(4, "delegates", "test", "x")
    acme.ok("delegates", "change", "x", "--unset", "callback-ca", "--address", "127.0.0.1", "--soap",
            f"wrong.example:{port}")
    assert "--soap HOST:PORT" in acme.refused(4, "delegates", "test", "x")
    acme.ok("delegates", "change", "x", "--soap", "localhost:1")
    assert "delegates show x" in acme.refused(4, "delegates", "test", "x")
    monkeypatch.delenv("DELEGATOR_OUTBOUND__ALLOW")
    assert "[outbound] allow" in acme.refused(4, "delegates", "test", "x")
    assert "there is no delegate named y" in acme.refused(1, "delegates", "test", "y")


def test_a7c_of_settings_that_are_kept_here_there_is_nobody_to_reach(acme: Console) -> None:
    assert "kept here" in acme.ok("delegates", "test", "acme-small")["words"]


@pytest.mark.slow
@pytest.mark.counterpart("sshd")
@pytest.mark.usefixtures("allowed")
def test_a7b_a_command_over_ssh_is_reached_and_not_run(acme: Console, tmp_path: Path) -> None:
    (tmp_path / "sshd").mkdir()
    sshd = Sshd(tmp_path / "sshd")
    sshd.start()
    try:
        acme.ok("delegates", "add", "x", "--customer", "acme", "--ssh", f"{sshd.user}@127.0.0.1:{sshd.port}",
                "--private-key-file", sshd.root / "user", "--host-key", sshd.host_key().strip(),
                "--command", f"touch {tmp_path}/ran {{tag}}")
        assert "lets us in" in acme.ok("delegates", "test", "x")["words"]
        sshd.authorized_keys.write_text("")
        assert "not let in with this key" in acme.refused(4, "delegates", "test", "x")
    finally:
        sshd.stop()
    assert not (tmp_path / "ran").exists()


# --- registering --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["localhost:28443", "127.0.0.1", "[::1]:8443", "10.1.2.3", "169.254.169.254"])
def test_TB5_an_address_that_is_never_connected_to_is_told_when_it_is_registered(acme: Console, where: str) -> None:
    done = acme.run(*SOAP, where)
    assert done.code == 0
    assert "WARNING: no device will be served by it" in done.err
    assert "[outbound] allow" in done.err
    assert "delegator delegates test x" in done.err
    assert "WARNING: no device" in acme.run("delegates", "change", "x", "--soap", where, "--priority", "5").err


@pytest.mark.parametrize("where", ["delegate.acme.example", "203.0.113.7"])
def test_TB5_what_may_be_connected_to_is_registered_without_a_word(acme: Console, where: str) -> None:
    assert "WARNING" not in acme.run(*SOAP, where).err


@pytest.mark.usefixtures("allowed")
def test_TB5_nor_is_there_one_of_what_outbound_allows_already(acme: Console) -> None:
    assert "WARNING: no device" not in acme.run(*SOAP, "127.0.0.1:28443").err


@pytest.mark.parametrize("option", ["--callback-ca", "--trust-anchor", "--webhook-anchor"])
def test_TB8_a_certificate_that_vouches_for_nobody_is_refused(acme: Console, factory: Folder, option: str) -> None:
    factory.issue("delegate-server", "localhost")
    leaf = Path("leaf.crt")
    leaf.write_text((factory.path / "delegates" / "localhost.crt").read_text().partition("-----END CERTIFICATE-----")[0]
                    + "-----END CERTIFICATE-----\n")
    reached = (*HOSTED, "u") if option == "--webhook-anchor" else (*SOAP, "d.example")
    assert "is no authority's" in acme.refused(3, *reached, option, leaf)
    acme.ok(*reached, option, factory.path / "delegates" / "localhost.crt")


@pytest.mark.counterpart("openssl")
def test_TB8_one_that_is_signed_by_itself_vouches_for_itself(acme: Console) -> None:
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", os.devnull, "-out", "self.crt", "-subj", "/CN=d.example", "-addext",
                    "basicConstraints=critical,CA:FALSE"], check=True, capture_output=True)
    acme.ok(*SOAP, "d.example", "--callback-ca", "self.crt")


@pytest.mark.parametrize("pattern", ["x-{Tag}-{tag}", "{TAG}", "{serial}", "{ tag }", "{}", "{random}{mac}"])
def test_a7c_a_gap_that_nobody_fills_is_refused_with_those_that_are(acme: Console, pattern: str) -> None:
    assert "is not known; there are {tag} and {random}" in acme.refused(2, *HOSTED, pattern)


def test_a7c_a_password_may_hold_any_brace_but_a_gap_in_another_spelling(acme: Console) -> None:
    for password, code in (("{Tag}-secret", 2), ("{ random }", 2), ("a{b}c-{tag}", 0)):
        Path("password").write_text(password)
        Path("password").chmod(0o600)
        done = acme.run(*HOSTED, "u", "--password-file", "password")
        assert done.code == code, done.err
        assert "secret" not in done.err


def test_a7c_what_was_registered_once_stays_as_it_is(acme: Console) -> None:
    from delegator.model import HostedCallback, Secret

    acme.store(lambda store: store.add_delegate(Delegate(
        "old", "acme", HostedCallback("x-{Tag}-{tag}", Secret("p"))), today()))
    acme.ok("delegates", "change", "old", "--mail-to", "ops@acme.example")


# --- what a status says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405, 418, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("body", [b"", b"<html><p>no</html>", b"Forbidden", b"<x/>"])
async def test_a7a_a_status_without_soap_is_told_by_its_status(
        monkeypatch: pytest.MonkeyPatch, status: int, body: bytes) -> None:
    async def call(*_: object, **__: object) -> Response:
        return Response(status, {}, body)
    monkeypatch.setattr("delegator.callbacks.soap.call", call)
    caller = SoapCaller(None, None, None, 1.0, client.NOWHERE_PRIVATE)  # type: ignore[arg-type]
    monkeypatch.setattr(caller, "_endpoint", lambda *_: None)
    from ..callbacks.conftest import asked

    with pytest.raises(DelegatorError) as caught:
        await caller.obtain(asked(), Delegate("d", "acme", SoapCallback("d.example")), None)  # type: ignore[arg-type]
    assert (caught.value.kind, caught.value.detail) == (Kind.UNREACHABLE, f"delegate d: {status_words(status)}")
    assert len(status_words(status)) > len("HTTP 403: ")


def test_a7a_the_reference_delegate_tells_which_name_was_shown_and_which_it_expects(factory: Folder) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    pem = (factory.path / "delegate-clients" / "delegator.crt").read_bytes()
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    with pytest.raises(DelegatorError) as caught:
        check_delegator(der, frozenset({"other.example", "another.example"}))
    assert "shown is delegator.example.com" in caught.value.detail.replace("delegator, ", "")
    assert "expected another.example or other.example" in caught.value.detail
