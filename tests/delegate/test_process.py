"""The delegate as a customer runs it: first start, kill -9, SIGTERM, mistakes, secrets, `delegate list`."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import stat

import pytest

from delegator.delegate import app
from delegator.delegate.ledger import read_entries
from delegator.delegate.settings import load
from delegator.errors import DelegatorError
from delegator.model import Result
from pki import Reason

from ..hostility import NO_HTTP
from ..late import until_gone

pytestmark = pytest.mark.slow


async def test_a7a_its_state_survives_kill_9(shell, client, new_claim):
    claim, other = new_claim(), new_claim()
    first = shell.serve()
    before = client(first.port)
    given = await before.ask("SRV0001", claim)
    assert (await before.fetch(given)).status == 200
    done = await before.ask("SRV0002", other)
    await before.tell(other)
    first.stop(signal.SIGKILL)

    after = client(shell.serve().port)
    assert await after.ask("SRV0001", claim) == given
    assert (await after.fetch(given)).status == 200
    assert (await after.fetch(done)).status == 200
    with pytest.raises(DelegatorError, match="MalformedRequest"):
        await after.ask("SRV0003", claim)
    renewed = await after.ask("SRV0001", new_claim())
    assert (await after.fetch(given)).status == 401
    assert (await after.fetch(renewed)).status == 200


async def test_canary_the_password_is_nowhere_but_in_answers(shell, client, new_claim):
    """Not in the log, not in any byte of the database or its side files, not in an error, not in the list."""
    running = shell.serve("--log-level", "debug", "--log-json", "--grace", "0")
    caller, claim = client(running.port), new_claim()
    given = await caller.ask("SRV0001", claim)
    word = given.password.reveal()
    await caller.fetch(given)
    errors = [await caller.fetch((given.user_name, word + "x")), await caller.fetch((given.user_name[:-1], word)),
              await caller.fetch(given, "/provisioning/SRV0002")]
    with pytest.raises(DelegatorError) as caught:
        await caller.ask("SRV0002", claim)
    await caller.ask("SRV0001", new_claim())
    await caller.tell(claim, Result.DEPLOYED)
    listed = await asyncio.to_thread(shell, "list", "--json")
    database = b"".join(path.read_bytes() for path in shell.folder.glob("delegate.db*"))
    assert running.stop() == 0
    everything = [running.log.read_bytes(), database, (shell.folder / "delegate.db").read_bytes(),
                  listed.stdout.encode(), listed.stderr.encode(), str(caught.value).encode(),
                  *(error.body for error in errors)]
    assert given.user_name.encode() in everything[0]
    assert given.user_name.encode() in everything[1] + everything[2]
    assert all(word.encode() not in place for place in everything)
    assert all(json.loads(line) for line in everything[0].splitlines() if line.startswith(b"{"))


async def test_a13_list_shows_what_was_learned(shell, client, new_claim):
    caller = client(shell.serve().port)
    claims = [new_claim() for _ in range(3)]
    for number, claim in enumerate(claims):
        given = await caller.ask(f"SRV000{number}", claim, model="R1")
        if number:
            await caller.fetch(given)
    await caller.tell(claims[2], Result.DEPLOYED, "all well")
    told = await asyncio.to_thread(shell, "list", "--json")
    entries = json.loads(told.stdout)
    assert [(one["service_tag"], one["state"]) for one in entries] == [
        ("SRV0000", "learned"), ("SRV0001", "fetched"), ("SRV0002", "deployed")]
    assert (entries[2]["detail"], entries[2]["claim_id"], entries[0]["ip_address"]) == (
        "all well", claims[2], "192.0.2.7")
    shown = (await asyncio.to_thread(shell, "list")).stdout.splitlines()
    assert [line.split()[:2] for line in shown[1:]] == [["SRV0000", "learned"], ["SRV0001", "fetched"],
                                                        ["SRV0002", "deployed"]]


def test_a_first_start_makes_its_key_says_so_and_ends_with_0(shell):
    running = shell.serve()
    assert running.told["pid"] == running.child.pid
    assert running.told["host"] == "127.0.0.1"
    assert stat.S_IMODE((shell.folder / "delegate-sealing.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((shell.folder / "delegate.db").stat().st_mode) == 0o600
    assert running.stop() == 0
    log = running.log.read_text()
    assert f"delegate listening on https://127.0.0.1:{running.port}\n" in log
    assert "made a new sealing key" in log

    (shell.folder / "delegate-sealing.key").unlink()
    again = shell("serve", *shell.flags())
    assert again.returncode == 3
    assert "sealing key delegate-sealing.key is gone" in again.stderr


def test_mistakes_end_with_3_and_a_hint(shell):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = shell("serve", *shell.flags(), "--port", port)
        assert (done.returncode, done.stdout) == (3, "")
        assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr
        assert "choose another port" in done.stderr
    done = shell("serve", "--config", "none.toml")
    assert (done.returncode, "none.toml" in done.stderr, "Traceback" in done.stderr) == (3, True, False), done.stderr


@pytest.mark.parametrize(("changes", "said"), [
    ({"delegators": ()}, "no delegator is named"), ({"ca": "none.crt"}, "none.crt"),
    ({"certificate": "none.crt"}, "none.crt"), ({"key": "none.key"}, "none.key"), ({"crl": "none.pem"}, "none.pem"),
    ({"data": "a file"}, "not a folder")])
async def test_nothing_is_made_and_nothing_listens_when_something_is_missing(
        party, tmp_path, monkeypatch, changes, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").touch()
    certificate, key = map(str, party.delegate)
    given = {"certificate": certificate, "key": key, "ca": str(party.factory_ca), "delegators": ["delegator.test"]}
    with pytest.raises(DelegatorError, match=said) as caught:
        await app.serve(load(None, {}, {"delegate": {**given, **changes}}), lambda host, port: None)
    assert caught.value.appearance.exit_code == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


async def test_list_makes_no_database(tmp_path):
    with pytest.raises(DelegatorError, match=r"none\.db"):
        await read_entries(tmp_path / "none.db")
    assert not list(tmp_path.iterdir())


async def test_a_revocation_list_is_read_and_read_again(shell, factory, client, new_claim, party, tmp_path):
    """A revoked delegator is refused as soon as the delegate has the list."""
    factory.issue("delegate-client", "revoked.test", names=("delegator.test",))
    path = factory.certificate_path("delegate-client", "revoked.test")
    lists = tmp_path / "crl.pem"
    lists.write_bytes(factory.crl_path.read_bytes())
    running = shell.serve("--crl", lists)
    caller = client(running.port)
    await caller.ask("SRV0001", new_claim())
    pair = path, path.with_suffix(".key")
    assert caller.request("POST", "/", None, b"", pair).status == 500

    serial = next(entry.serial for entry in factory.ledger if entry.name == "revoked.test")
    factory.revoke([serial], Reason.KEY_COMPROMISE, factory.authority())
    lists.write_bytes(factory.crl_path.read_bytes())
    running.child.send_signal(signal.SIGHUP)
    for _ in range(100):
        if "reload:" in running.log.read_text():
            break
        await asyncio.sleep(0.02)
    with pytest.raises(OSError):
        caller.request("POST", "/", None, b"", pair)
    await caller.ask("SRV0002", new_claim())
    assert running.stop() == 0
    assert "revoked" in running.log.read_text()


async def test_TC5_what_is_no_http_gets_a_fault_and_the_end_of_the_connection(shell, client, party):
    """Anybody may connect to a delegate: devices have no certificate there."""
    running = shell.serve()
    caller = client(running.port)
    for data in NO_HTTP.values():
        with (socket.create_connection(("127.0.0.1", running.port), 10) as raw,
              caller.context().wrap_socket(raw, server_hostname="localhost") as sock):
            sock.sendall(data)
            answer = b""
            while part := sock.recv(65536):
                answer += part
        assert 400 <= int(answer[9:12]) <= 505
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"<d:Code>MalformedRequest</d:Code>" in answer
    assert running.stop() == 0
    assert "Traceback" not in running.log.read_text()


def test_a_service_manager_gives_it_its_socket_and_hears_of_start_reload_and_end(shell, tmp_path, monkeypatch):
    """The delegate lives as the delegator does: one code for both (doors.listening)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard, socket.create_server(("127.0.0.1", 0)) as port:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        running = shell.serve(given=port)
        assert running.port == port.getsockname()[1], "and not a port of its own"
        assert heard.recv(4096).startswith(b"READY=1")
        running.child.send_signal(signal.SIGHUP)
        assert [heard.recv(4096).split(b"=")[0] for _ in range(2)] == [b"RELOADING", b"READY"]
        assert running.stop() == 0
        assert heard.recv(4096) == b"STOPPING=1\nSTATUS=requests under way have 10 s"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_that_comes_again_and_again_ends_it_no_other_way(shell, number):
    running = shell.serve()
    assert await asyncio.to_thread(until_gone, running.child, number) == 0
    assert "Traceback" not in running.log.read_text()
