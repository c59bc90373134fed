"""A4, A11: what a running delegator leaves in its audit, and what it leaves nowhere: planted secrets (T-C11)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import msgspec
import pytest

from delegator import config
from delegator.sealing import read_key_file
from delegator.store import Store
from delegator.store.audit.inspection import Wanted
from pki import Folder

from ..mailserver import PASSWORD, USER, mail_server
from .conftest import ROOT, World, envelope

RETRIES = 40


def cli(world: World, *words: str, stdin: str | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "delegator", "--config", str(world.root / "delegator.toml"), *words],
                          text=True, capture_output=True, timeout=60, input=stdin, check=False,
                          env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": "/root", "LOGNAME": "jo"})
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return done


def rows(world: World, **wanted: Any) -> list[Any]:
    async def listed(store: Store) -> list[Any]:
        return await store.audit.list(Wanted(**wanted), 1000)
    found: list[Any] = world.store(listed)
    return [one.entry for one in found][::-1]


def until_rows(world: World, number: int, within: float = 10, **wanted: Any) -> list[Any]:
    end = time.monotonic() + within
    while len(found := rows(world, **wanted)) < number and time.monotonic() < end:
        time.sleep(0.1)
    assert len(found) == number, found
    return found


def knock_without_certificate(world: World) -> None:
    """A client that shows no certificate is refused by TLS itself."""
    try:
        with world.connection(None, None) as sock:
            sock.sendall(b"POST / HTTP/1.1\r\n\r\n")
            sock.recv(100)
    except (ssl.SSLError, ConnectionError):
        pass


def test_A4_every_handshake_is_in_the_audit_refusals_included_and_retries_are_grouped(world: World) -> None:
    world.host("AUD0001")
    world.own("AUD0002")
    world.delegate.mode = "fault"
    world.start()
    first = world.ask("AUD0001")
    assert first.status == 200
    for _ in range(RETRIES):
        assert world.ask("AUD0001").credential == first.credential
    assert world.ask("AUD0003").fault == "NotEntitled"
    assert world.ask("AUD0002").fault == "TryLater"
    assert world.post(b"<nonsense", *world.paths("AUD0001")).fault == "MalformedRequest"
    assert world.ask("AUD0001", shown=world.paths("AUD0003")).fault == "IdentityRejected"
    knock_without_certificate(world)
    assert world.confirm("AUD0001", first.text("ClaimId")).status == 200
    assert world.stop() == 0

    found = rows(world, service_tag="AUD0001")
    assert Counter((one.act.value, one.outcome) for one in found) == {
        ("devices.added", "done"): 1, ("claim.issued", "done"): 1, ("handshake.ended", "Answered"): 2,
        ("claim.confirmed", "done"): 1, ("handshake.ended", "IdentityRejected"): 1}
    (issued,) = rows(world, act="claim.issued")
    assert (issued.customer, issued.delegate, issued.peer, issued.claim_id) == (
        "globex", "globex-hosted", "127.0.0.1", first.text("ClaimId"))
    assert [step[0] for step in issued.detail["trail"]["steps"]] == [
        "connected", "authenticated", "asked", "identified", "routed", "decided"]
    assert sum(one.repeated for one in rows(world, outcome="Answered")) == RETRIES
    (unknown,) = rows(world, outcome="NotEntitled")
    assert (unknown.service_tag, unknown.actor) == ("AUD0003", "device")
    assert unknown.reasons
    assert unknown.detail["steps"][-1][0] == "refused"
    (failed,) = rows(world, outcome="TryLater")
    assert "callback failed" in failed.reasons[0]
    (refused,) = rows(world, outcome="TlsRefused")
    assert refused.service_tag is None
    assert len(rows(world, outcome="MalformedRequest")) == 1
    cli(world, "audit", "verify")


def test_A11_start_reload_and_stop_are_in_the_audit_with_what_was_in_use(world: World) -> None:
    world.start()
    assert world.process is not None
    world.process.send_signal(signal.SIGHUP)
    until_rows(world, 1, act="server.reloaded")
    world.stop()
    started, reloaded, stopped = (rows(world, act=f"server.{act}") for act in ("started", "reloaded", "stopped"))
    for name, path in (("certificate", world.settings.server.certificate), ("ca", world.settings.server.ca),
                       ("crl", world.settings.server.crl)):
        assert started[0].detail[name] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert started[0].detail["settings"] == reloaded[0].detail["settings"]
    assert [len(found) for found in (started, reloaded, stopped)] == [1, 1, 1]
    assert {one.actor for one in (*started, *reloaded, *stopped)} == {"delegator"}


def test_A11_the_log_tells_heads_that_prove_later_that_nothing_before_them_is_gone(world: World) -> None:
    world.host("AUD0001")
    world.start()
    world.ask("AUD0001")
    world.stop()
    heads = re.findall(r"audit head (main:\d+:[0-9a-f]{64})", world.log)
    assert heads
    cli(world, "audit", "verify", *(word for head in heads for word in ("--head", head)))
    chain, number, own = heads[-1].split(":")
    cli(world, "audit", "verify", "--head", f"{chain}:{int(number) - 1}:{own}", code=5)


def test_A4_a_stop_loses_no_line_of_a_handshake_and_tells_heads_after_them(world: World) -> None:
    """Lines are written a moment later: the last ones by the stop itself."""
    world.host("AUD0007")
    world.start()
    for _ in range(3):
        world.ask("AUD0007")
    world.stop()
    assert len(world.trails("AUD0007")) == 3
    events = [json.loads(line)["event"] for line in world.log.splitlines() if line.startswith("{")]
    assert "handshake" not in events[max(number for number, event in enumerate(events) if "audit head" in event):]


def test_A11_a_killed_delegator_leaves_a_whole_chain_and_loses_only_counts(world: World) -> None:
    world.start()
    for _ in range(5):
        world.ask("AUD0003")
    until_rows(world, 1, outcome="NotEntitled")
    world.stop(signal.SIGKILL)
    (row,) = rows(world, outcome="NotEntitled")
    assert row.repeated == 1
    cli(world, "audit", "verify")


def test_A11_an_old_row_goes_by_itself_and_the_chain_stays_verifiable(world: World) -> None:
    """[audit] keep_days, applied by housekeeping once two looks at the clock agree."""
    async def of_long_ago(store: Store) -> None:
        from datetime import UTC, datetime

        from delegator.model.audited import Act, Entry
        from delegator.store.audit import ledger as audit
        ledger = store._driver.ledger.beside("old")

        def work() -> Any:
            for _ in range(3):
                yield from audit.append(Entry(Act.SERVER_STARTED, datetime(2020, 1, 1, tzinfo=UTC), "delegator"))
        await store._driver.driver.run(lambda: ledger.kept(work(), store._driver.driver.turn))
    world.store(of_long_ago)
    world.settings = msgspec.structs.replace(world.settings, audit=config.AuditSettings(keep_days=400))
    (world.root / "delegator.toml").write_text(config.as_toml(world.settings))
    world.believes_after = 3.0
    world.start()
    (pruned,) = until_rows(world, 1, act="audit.pruned", within=30)
    world.stop()
    assert (pruned.detail["chain"], pruned.detail["rows"], pruned.actor) == ("old", 3, "delegator")
    cli(world, "audit", "verify")


# --- planted secrets ----------------------------------------------------------------------------------------------


HOSTED = "Canary&Hosted<7>\"'pass"
TRANSACTION_CANARY = "canary-transaction-4711"
HOOK = "Canary-Webhook-0123456789"


def forms(secret: bytes) -> set[bytes]:
    """How a secret could be written by a program that did not mean to."""
    text = secret.decode("latin-1")
    found = {secret, secret.hex().encode(), secret.hex().upper().encode(), escape(text, {'"': "&quot;"}).encode(
        "latin-1"), urllib.parse.quote(secret).encode(), json.dumps(text)[1:-1].encode(), repr(secret)[2:-1].encode()}
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + secret)
        inner = encoded[4 if shift else 0:-4]  # the ends depend on what stands beside
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return {form for form in found if len(form) >= 8}


def test_TC11_the_forms_that_are_looked_for_are_what_programs_write() -> None:
    for written in (b"x" + base64.b64encode(b"ab" + HOSTED.encode() + b"c"), HOSTED.encode().hex().encode(),
                    json.dumps({"a": HOSTED}).encode(), escape(HOSTED, {'"': "&quot;"}).encode()):
        assert any(form in written for form in forms(HOSTED.encode())), written
    assert not any(form in b"nothing of the kind" * 99 for form in forms(HOSTED.encode()))


@pytest.fixture
def planted(world: World, delegate_authority: Folder, factory: Folder) -> Iterator[dict[str, bytes]]:
    """A world with a secret of each kind, each told to the program as an operator would tell it."""
    root = world.root
    with mail_server(delegate_authority) as relay:
        relay.start()
        private(root / "relay.password", PASSWORD)
        private(root / "hosted.password", HOSTED)
        private(root / "hook.secret", HOOK)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(root / "id")], check=True)
        if not (factory.path / "mail/delegator@factory.example.crt").exists():
            factory.issue("mail-signer", "delegator@factory.example")
        world.settings = msgspec.structs.replace(
            world.settings, ops=config.OpsSettings(enabled=True, port=0), mail=config.MailSettings(
                host="localhost", port=relay.port, user=USER, password_file=str(root / "relay.password"),
                sender="delegator@factory.example", ca=str(delegate_authority.ca_path), timeout=5.0))
        (root / "delegator.toml").write_text(config.as_toml(world.settings))
        lines = (root / "id").read_bytes().split(b"\n")
        yield {"hosted password": HOSTED.encode(), "transaction id": TRANSACTION_CANARY.encode(),
               "webhook secret": HOOK.encode(), "relay password": PASSWORD.encode(),
               "sealing key": read_key_file(root / "sealing.key"), "SSH key": lines[2], "SSH seed": lines[3],
               "delegate's password": b"pass<&>\"'-0"}


def private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text + "\n")


@pytest.mark.counterpart("exim4", "openssl", "ssh-keygen")
def test_TC11_a_whole_day_in_small_leaves_no_planted_secret_anywhere(world: World, planted: dict[str, bytes]) -> None:
    """Everything that was written is searched: database, WAL, log, metrics, output, exports. In every form."""
    root, said = world.root, []

    def run(*words: str, **how: Any) -> None:
        done = cli(world, *words, **how)
        said.append((done.stdout + done.stderr).encode())

    run("delegates", "change", "globex-hosted", "--password-file",
        str(root / "hosted.password"), "--mail-to", "admin@globex.example", "--webhook-url",
        "https://localhost:1/hook", "--webhook-secret-file", str(root / "hook.secret"))
    run("customers", "add", "initech", "--title", "Initech")
    run("delegates", "add", "initech-ssh", "--customer", "initech", "--ssh", "delegate@127.0.0.1:1",
        "--private-key-file", str(root / "id"), "--host-key-file", str(root / "id.pub"))
    for customer, tag in (("globex", "DAY0001"), ("globex", "DAY0002"), ("initech", "DAY0003"), ("acme", "DAY0004")):
        run("devices", "add", tag, "--customer", customer)
    port = world.start()["ops"]
    first = world.ask("DAY0001", transaction=TRANSACTION_CANARY)
    assert first.credential[1] == HOSTED, "the device itself is told, of course"
    world.ask("DAY0001", transaction=TRANSACTION_CANARY)
    assert world.ask("DAY0004", transaction=TRANSACTION_CANARY).status == 200
    world.ask("DAY0003", transaction=TRANSACTION_CANARY)
    world.ask("DAY0009", transaction=TRANSACTION_CANARY)
    knock_without_certificate(world)
    hostile = envelope("DAY0002", TRANSACTION_CANARY).replace(b"</Device>", b"<Password>xxx</Password></Device>")
    world.post(hostile, *world.paths("DAY0002"))
    world.confirm("DAY0001", first.text("ClaimId"), transaction=TRANSACTION_CANARY)
    time.sleep(2.5)  # until mail, webhook and the recorder had their turn
    metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read()
    live = {path.name: path.read_bytes() for path in root.glob("delegator.db*")}
    for words in (("delegates", "list"), ("delegates", "show", "globex-hosted"), ("delegates", "show", "initech-ssh"),
                  ("claims", "list"), ("claims", "show", first.text("ClaimId") or ""), ("notifications", "list"),
                  ("audit", "list"), ("explain", "DAY0002"), ("config", "show"),
                  ("audit", "export", str(root / "audit.csv")),
                  ("audit", "export", str(root / "audit.jsonl"), "--format", "jsonl"), ("audit", "verify"),
                  ("backup", str(root / "copy.db"))):
        run(*words)
        if words[0] != "backup" and "export" not in words:
            run(*words, "--json")
    world.stop()
    written = {**live, "metrics": metrics, "output": b"\n".join(said), "log": world.log.encode(),
               **{path.name: path.read_bytes() for path in root.glob("delegator.db*")},
               **{name: (root / name).read_bytes() for name in ("audit.csv", "audit.jsonl", "copy.db")}}
    assert b"DAY0001" in written["audit.jsonl"]
    assert b"DAY0001" in written["copy.db"]
    found = [(what, where) for what, secret in planted.items() for where, content in written.items()
             if any(form in content for form in forms(secret))]
    assert found == []
