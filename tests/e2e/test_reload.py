"""SIGHUP: settings, certificates and lists are read again, connections that stand go on, what is broken is refused."""

from __future__ import annotations

import re
import signal
import socket
import ssl
import time
from pathlib import Path

import pytest

from pki import Folder, Issued
from pki.revocation import Reason

from .conftest import World, envelope
from .operating import change, hang_up, lines, metrics, readyz, wait_for

OPS_PORT = '[ops]\nenabled = true\nhost = ["127.0.0.1","::1"]\nport = 0\n'

@pytest.fixture
def own_factory(world: World, tmp_path: Path) -> Folder:
    """Copies of the server's files in the world's own folder, so that a test can change them."""
    folder = Folder.create(tmp_path / "own", common_name="Own Factory CA")
    folder.issue("delegator-server", "delegator", names=("localhost", "127.0.0.1"))
    folder.issue("delegate-client", "delegator.test")
    text = (world.root / "delegator.toml").read_text().replace(str(world.factory.path), str(folder.path))
    (world.root / "delegator.toml").write_text(text)
    world.factory, made = folder, {}

    def device(tag: str) -> Issued:
        if tag not in made:
            made[tag] = folder.issue("device", tag)
        return made[tag]
    world.device = device
    return folder


def shown_serial(world: World, tag: str) -> int:
    from cryptography import x509

    with world.connection(*world.paths(tag)) as sock:
        return x509.load_der_x509_certificate(sock.getpeercert(binary_form=True) or b"").serial_number


class TestConnectionsThatStand:
    def test_a10_a_request_in_the_middle_survives_and_the_next_handshake_sees_the_new_certificate(
            self, world: World, own_factory: Folder) -> None:
        world.host("STAND01", "STAND02")
        world.start()
        before = shown_serial(world, "STAND02")
        request = envelope("STAND01")
        head = (f"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nContent-Length: {len(request)}\r\n"
                "Connection: close\r\n\r\n").encode()
        with world.connection(*world.paths("STAND01")) as sock:
            sock.sendall(head + request[:100])
            own_factory.issue("delegator-server", "delegator", names=("localhost", "127.0.0.1"), renew=True)
            assert "were reloaded" in hang_up(world)
            assert shown_serial(world, "STAND02") not in (before, 0)
            sock.sendall(request[100:])
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"<d:UserName>" in answer or b"UserName>" in answer

    def test_a_kept_connection_and_one_that_waits_for_its_delegate_go_on(self, world: World) -> None:
        """The delegate is slow; meanwhile limits, budgets and callers are exchanged under it."""
        change(world, ("budget = 1.0", "budget = 9.0"))
        world.own("STAND03")
        world.start()
        world.delegate.mode = "slow"
        request = envelope("STAND03")
        with world.connection(*world.paths("STAND03")) as sock:
            sock.sendall((f"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\n"
                          f"Content-Length: {len(request)}\r\n\r\n").encode() + request)
            assert world.delegate.in_hand.wait(5)
            change(world, ("running = 16", "running = 3"), ("budget = 9.0", "budget = 0.5"))
            assert "callbacks.budget, callbacks.running" in hang_up(world)
            sock.settimeout(8)
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
            sock.sendall(b"GET /?wsdl HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")


class TestSettings:
    def test_limits_take_effect_at_the_next_connection(self, world: World) -> None:
        """A peer that says nothing is let go after the new time."""
        world.start()
        change(world, ("handshake = 5.0", "handshake = 0.3"))
        assert "limits.handshake" in hang_up(world)
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", world.port), 5) as silent:
            silent.settimeout(5)
            assert silent.recv(1) == b""
        assert 0.2 < time.monotonic() - began < 4.0, "the old time was five seconds"

    def test_alternates_are_told_with_the_next_answer(self, world: World) -> None:
        world.host("ALTS002")
        world.start()
        assert world.ask("ALTS002").text("AlternateDelegator") is None
        change(world, ("alternates = []", 'alternates = ["second.example:4433"]'))
        hang_up(world)
        assert world.ask("ALTS002").text("AlternateDelegator") == "second.example:4433"

    def test_where_delegates_may_be_takes_effect_at_the_next_call(self, world: World) -> None:
        world.own("OUTB001", "OUTB002")
        world.start()
        assert world.ask("OUTB001").status == 200
        change(world, ('allow = ["127.0.0.0/8"]', "allow = []"))
        assert "outbound.allow" in hang_up(world)
        assert world.ask("OUTB002").fault == "TryLater"

    def test_the_log_and_the_operators_port(self, watched: World) -> None:
        """The port is closed and opened elsewhere; lines become text."""
        said = watched.start()
        assert metrics(said["ops"])["delegator_reload_successful"] == 1
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        change(watched, (OPS_PORT, OPS_PORT.replace("= 0", f"= {port}")))
        hang_up(watched)
        assert metrics(port)['delegator_reloads_total{outcome="done"}'] == 1
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", said["ops"]), 2)
        change(watched, ("json = true", "json = false"))
        assert watched.process is not None
        watched.process.send_signal(signal.SIGHUP)
        assert wait_for(lambda: re.search(r"^\S+ info delegator.serving.app .*settings changed: log.json$", watched.log,
                                          re.M))

    def test_what_needs_a_new_start_is_said_by_name_and_nothing_else_of_it_happens(self, watched: World) -> None:
        said = watched.start()
        store = str(watched.settings.store.path)
        change(watched, (f'path = "{store}"', 'path = "elsewhere.db"'), ("idle = 10.0", "idle = 4.0"))
        hang_up(watched)
        assert wait_for(lambda: lines(watched, "setting store.path was changed, which takes effect at the next start"))
        assert "limits.idle" in lines(watched, "were reloaded")[0]["event"]
        assert metrics(said["ops"])["delegator_settings_waiting_for_restart"] == 1
        watched.host("STORE01")
        assert watched.ask("STORE01").status == 200
        assert not (Path.cwd() / "elsewhere.db").exists()


BROKEN = {
    "no TOML": ("[server]", "[server"),
    "unknown key": ("idle = 10.0", "idel = 10.0"),
    "no such key": ("server/delegator.key", "server/none.key"),
    "no network": ('allow = ["127.0.0.0/8"]', 'allow = ["nowhere"]'),
    "no sealing key": ("sealing.key", "gone.key"),
}


class TestWhatIsBroken:
    @pytest.mark.parametrize("what", BROKEN)
    def test_it_changes_nothing_and_is_said(self, watched: World, what: str) -> None:
        said = watched.start()
        watched.host("BROKE01", "BROKE02")
        assert watched.ask("BROKE01").status == 200
        good = metrics(said["ops"])["delegator_reload_last_success_timestamp_seconds"]
        before = (watched.root / "delegator.toml").read_text()
        change(watched, BROKEN[what], ("alternates = []", 'alternates = ["never.example"]'))
        assert hang_up(watched).startswith("reload refused, serving on with what was loaded: ")
        assert "; next: " in lines(watched, "reload refused")[0]["event"]
        now = metrics(said["ops"])
        assert now["delegator_reload_successful"] == 0
        assert now['delegator_reloads_total{outcome="refused"}'] == 1
        assert now["delegator_reload_last_success_timestamp_seconds"] == good
        reply = watched.ask("BROKE02")
        assert (reply.status, reply.text("AlternateDelegator")) == (200, None)
        (watched.root / "delegator.toml").write_text(before)
        assert "were reloaded" in hang_up(watched)
        assert metrics(said["ops"])["delegator_reload_successful"] == 1

    def test_a_port_that_is_taken_leaves_the_old_one(self, watched: World) -> None:
        said = watched.start()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            change(watched, (OPS_PORT, OPS_PORT.replace("= 0", f"= {taken.getsockname()[1]}")))
            assert "reload refused" in hang_up(watched)
        assert metrics(said["ops"])["delegator_reload_successful"] == 0


class TestReadiness:
    def test_ready_and_what_is_to_be_done_soon(self, watched: World, own_factory: Folder) -> None:
        said = watched.start()
        assert readyz(said["ops"]) == (200, {"ready": True, "wrong": {}, "soon": {}})
        own_factory.refresh_list(own_factory.authority(), days=3)
        assert wait_for(lambda: "revocation list" in readyz(said["ops"])[1]["soon"]), "noticed without a signal"
        assert "python -m pki crl" in readyz(said["ops"])[1]["soon"]["revocation list"]

    def test_a_list_that_ended_is_unready_and_says_why(self, watched: World, own_factory: Folder) -> None:
        from datetime import UTC, datetime, timedelta

        own_factory.refresh_list(own_factory.authority(), days=1, now=datetime.now(UTC) - timedelta(days=2))
        said = watched.start()
        code, told = readyz(said["ops"])
        assert (code, set(told["wrong"])) == (503, {"revocation list"})
        assert re.search(r"the revocation list ended at .*; next: python -m pki crl", told["wrong"]["revocation list"])
        assert metrics(said["ops"])['delegator_unready{part="revocation list"}'] == 1
        own_factory.refresh_list(own_factory.authority())
        assert wait_for(lambda: readyz(said["ops"])[0] == 200)

    def test_a_store_that_takes_no_write_is_unready_and_recovers(self, watched: World) -> None:
        import sqlite3

        said = watched.start()
        with sqlite3.connect(str(watched.settings.store.path), isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            code, told = readyz(said["ops"])
            assert (code, set(told["wrong"])) == (503, {"store"})
            assert "no durable write within 2 s" in told["wrong"]["store"]
            other.execute("ROLLBACK")
        other.close()
        assert wait_for(lambda: readyz(said["ops"])[0] == 200)

    def test_draining_is_unready(self, watched: World) -> None:
        """A load balancer stops sending while requests under way are answered."""
        change(watched, ("budget = 1.0", "budget = 9.0"))
        watched.own("DRAIN01")
        said = watched.start()
        watched.delegate.mode = "slow"
        request = envelope("DRAIN01")
        with watched.connection(*watched.paths("DRAIN01")) as sock:
            sock.sendall((f"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\n"
                          f"Content-Length: {len(request)}\r\n\r\n").encode() + request)
            assert watched.delegate.in_hand.wait(5)
            assert watched.process is not None
            watched.process.send_signal(signal.SIGTERM)
            assert wait_for(lambda: readyz(said["ops"])[0] == 503)
            assert set(readyz(said["ops"])[1]["wrong"]) == {"draining"}
            sock.settimeout(8)
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        assert watched.stop() == 0


def test_a_revoked_certificate_is_refused_after_a_reload_and_devices_that_stand_are_not_cut(
        world: World, own_factory: Folder) -> None:
    world.host("REVOK01", "REVOK02")
    world.start()
    assert world.ask("REVOK01").status == 200
    serial = world.device("REVOK01").serial
    with world.connection(*world.paths("REVOK02")) as sock:
        own_factory.revoke([serial], Reason.KEY_COMPROMISE, own_factory.authority())
        hang_up(world)
        with pytest.raises((ssl.SSLError, OSError)):
            world.ask("REVOK01")
        sock.sendall(b"GET /?wsdl HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
