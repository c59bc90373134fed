"""Delegates that are a command elsewhere or a program here, registered on the command line. A7b, A7d, T-B7."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from delegator.model import Delegate, LocalCallback, SshCallback

from ..callbacks.sshd import Sshd
from .conftest import Console

pytestmark = pytest.mark.slow

ssh_keygen = pytest.mark.counterpart("ssh-keygen")


@pytest.fixture
def keys(acme: Console) -> Console:
    """A console with a private key, two host keys and a program in its folder."""
    for name in ("user", "host", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", name], check=True)
    Path("program").write_text("#!/bin/sh\n")
    Path("program").chmod(0o755)
    return acme


def _ssh(*more: object) -> tuple[object, ...]:
    return ("delegates", "add", "paris", "--customer", "acme", "--ssh", "prov@paris.acme.example:2222",
            "--private-key-file", "user", "--host-key-file", "host.pub", *more)


def _kept(console: Console, name: str) -> Any:
    async def read(store: Any) -> Delegate:
        found: Delegate = (await store.tables()).directory.delegates[name]
        return found
    return console.store(read)


@ssh_keygen
def test_a7b_an_ssh_delegate_comes_back_with_all_but_its_private_key(keys: Console) -> None:
    given = keys.ok(*_ssh("--command", "/opt/getCred --tag {tag}", "--address", "192.0.2.1", "--priority", "10",
                          "--weight", "3"))
    public = " ".join(Path("host.pub").read_text().split()[:2])
    assert given == {
        "name": "paris", "customer": "acme", "url": None, "trust_anchor": None, "policy": None, "enabled": True,
        "priority": 10, "weight": 3, "callback": {
            "kind": "ssh", "host": "paris.acme.example", "port": 2222, "user": "prov", "host_key": public,
            "command": "/opt/getCred --tag {tag}", "address": "192.0.2.1"}}
    shown = keys.ok("delegates", "show", "paris")
    assert {key: shown[key] for key in given} == given
    assert "ssh prov@paris.acme.example:2222" in keys.run("delegates", "list").out
    callback = _kept(keys, "paris").callback
    assert isinstance(callback, SshCallback)
    Path("taken").write_text(callback.private_key.reveal())
    Path("taken").chmod(0o600)
    told = subprocess.run(["ssh-keygen", "-y", "-f", "taken"], capture_output=True, text=True, check=True).stdout
    assert told.split()[:2] == Path("user.pub").read_text().split()[:2]
    assert "PRIVATE" not in keys.said


@ssh_keygen
def test_TB7_the_fingerprint_is_told_once_more_as_openssh_tells_it(keys: Console) -> None:
    told = subprocess.run(["ssh-keygen", "-l", "-f", "host.pub"], capture_output=True, text=True, check=True).stdout
    assert f"only the host key {told.split()[1]} is accepted from paris.acme.example" in keys.run(*_ssh()).err


@ssh_keygen
def test_a7b_the_database_holds_no_private_key_in_the_clear(keys: Console) -> None:
    keys.ok(*_ssh())
    secret = [line for line in Path("user").read_text().splitlines() if "-----" not in line]
    with sqlite3.connect("var/delegator.db") as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    raw = b"".join(path.read_bytes() for path in Path("var").glob("delegator.db*"))
    assert b"paris.acme.example" in raw, "it is the right file"
    assert not [line for line in [*secret[1:], "PRIVATE KEY"] if line.encode() in raw]


@ssh_keygen
@pytest.mark.parametrize(("words", "code", "named"), [
    (("--command", "getCred {tga}"), 2, "{tga} is not known"),
    (("--command", "echo $({tag})"), 2, "argument"), (("--host-key", "ssh-ed25519 AAAA"), 2, "host key"),
    (("--password-prompt",), 2, "--hosted only"), (("--argument", "x"), 2, "--local"),
    (("--weight", "0"), 2, "--weight"),
    (("--hosted", "u"), 2, "give one of --ssh or --hosted"), (("--callback-ca", "host.pub"), 2, "--soap only")])
def test_a7b_what_cannot_work_is_refused_with_its_reason(keys: Console, words: tuple[str, ...], code: int,
                                                         named: str) -> None:
    assert named in keys.refused(code, *_ssh(*words))
    assert len(keys.ok("delegates", "list")) == 1


@ssh_keygen
@pytest.mark.parametrize("where", ["paris.example", "a@b@c", "-oProxyCommand=id@host", "u@-host", "u@host:0",
                                   "u@host:x", "u;id@host", "u@ho$st"])
def test_TB6_what_is_no_user_and_host_is_refused(keys: Console, where: str) -> None:
    keys.refused(2, "delegates", "add", "x", "--customer", "acme", "--private-key-file", "user", "--host-key-file",
                 "host.pub", f"--ssh={where}")


@ssh_keygen
def test_a7b_both_keys_are_wanted_and_looked_at(keys: Console) -> None:
    adding = ("delegates", "add", "x", "--customer", "acme", "--ssh", "u@host")
    assert "missing --private-key-file, --host-key-file or --host-key" in keys.refused(2, *adding)
    Path("open").write_bytes(Path("user").read_bytes())
    Path("open").chmod(0o644)
    assert "can be read by others" in keys.refused(3, *adding, "--private-key-file", "open")
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "a pass phrase", "-f", "user"], check=True)
    assert "pass phrase" in keys.refused(3, *adding, "--private-key-file", "user")
    Path("both").write_text(Path("host.pub").read_text() + Path("other.pub").read_text())
    assert "2 host keys" in keys.refused(3, *adding, "--host-key-file", "both")
    assert "private key" in keys.refused(3, *adding, "--private-key-file", "nowhere")


@ssh_keygen
def test_what_change_does_not_name_stays(keys: Console) -> None:
    keys.ok(*_ssh("--command", "own {tag}", "--url", "https://paris.acme.example/", "--weight", "3", "--disabled"))
    before = _kept(keys, "paris")
    replacing = ("delegates", "change", "paris")
    keys.ok("delegates", "enable", "paris")
    keys.ok(*replacing, "--priority", "7")
    keys.ok(*replacing, "--host-key-file", "other.pub")
    after = _kept(keys, "paris")
    assert (after.url, after.weight, after.enabled, after.priority) == (before.url, 3, True, 7)
    assert after.callback.private_key == before.callback.private_key
    assert after.callback.command == "own {tag}"
    assert after.callback.host_key.split()[1] == Path("other.pub").read_text().split()[1]
    assert "--hosted only" in keys.refused(2, *replacing, "--password-prompt")
    keys.ok(*replacing, "--hosted", "root")
    assert _kept(keys, "paris").way.value == "hosted"
    keys.refused(1, "delegates", "change", "nobody", "--priority", "7")
    keys.refused(2, "delegates", "add", "nobody", "--customer", "acme")


@ssh_keygen
def test_a7d_a_local_program_comes_back_with_its_arguments(keys: Console) -> None:
    given = keys.ok("delegates", "add", "own", "--customer", "acme", "--local", "program", "--argument", "--site",
                    "--argument", "a b")
    assert given["callback"] == {"kind": "local", "program": str(Path("program").absolute()), "python": None,
                                 "arguments": ["--site", "a b"]}
    assert _kept(keys, "own").callback == LocalCallback(str(Path("program").absolute()), ("--site", "a b"))


@ssh_keygen
def test_a7d_a_python_function_comes_back_with_its_folder(keys: Console) -> None:
    given = keys.ok("delegates", "add", "own", "--customer", "acme", "--local-python", "pkg.delegate:credential",
                    "--program", ".")
    assert given["callback"] == {"kind": "local", "program": str(Path.cwd()), "python": "pkg.delegate:credential",
                                 "arguments": []}


@ssh_keygen
@pytest.mark.parametrize(("words", "code"), [
    (("--local", "nothing"), 3), (("--local", "user.pub"), 3), (("--local", "changed"), 3), (("--local", "."), 3),
    (("--local", "program", "--program", "."), 2), (("--local", "program", "--local-python", "a:b"), 2),
    (("--local-python", "a:b"), 2), (("--local-python", "a:b", "--program", "program"), 2),
    (("--local-python", "a:b", "--program", ".", "--argument", "x"), 2),
    (("--local-python", "a b:c", "--program", "."), 2),
    (("--local-python", "a:b.c", "--program", "."), 2), (("--local-python", "../a:b", "--program", "."), 2)])
def test_a7d_a_program_that_cannot_work_or_that_others_can_change_is_refused(
        keys: Console, words: tuple[str, ...], code: int) -> None:
    Path("changed").write_text("#!/bin/sh\n")
    Path("changed").chmod(0o777)
    keys.refused(code, "delegates", "add", "own", "--customer", "acme", *words)


# --- scan-host-key ------------------------------------------------------------------------------------------------


@pytest.fixture
def sshd(console: Console) -> Iterator[Sshd]:
    Path("sshd").mkdir()
    server = Sshd(Path("sshd").absolute(), ("rsa", "ed25519"))
    server.start()
    yield server
    server.stop()


def _loopback_is_allowed() -> None:
    Path("delegator.toml").write_text('[outbound]\nallow = ["127.0.0.0/8"]\n[callbacks]\nbudget = 2.0\n')


@pytest.mark.counterpart("sshd", "ssh-keygen")
def test_TB7_a_host_key_is_scanned_confirmed_and_registered(console: Console, sshd: Sshd) -> None:
    _loopback_is_allowed()
    scan = ("delegates", "scan-host-key", f"127.0.0.1:{sshd.port}")
    found = console.ok(*scan)
    assert found == {"host": "127.0.0.1", "port": sshd.port, "fingerprint": sshd.fingerprint("ed25519"),
                     "host_key": " ".join(sshd.host_key("ed25519").split()[:2]), "confirmed": False}
    assert "nobody has confirmed it" in console.run(*scan).err
    assert "give --fingerprint" in console.refused(2, *scan, "--output", "key")
    said = console.refused(5, *scan, "--output", "key", "--fingerprint", sshd.fingerprint("rsa"))
    assert "do not register" in said
    assert not Path("key").exists()
    console.ok(*scan, "--output", "key", "--fingerprint", found["fingerprint"])
    assert Path("key").read_text() == f"{found['host_key']}\n"
    console.ok("customers", "add", "acme", "--title", "Acme")
    console.ok("delegates", "add", "x", "--customer", "acme", "--ssh", f"{sshd.user}@127.0.0.1:{sshd.port}",
               "--private-key-file", sshd.root / "user", "--host-key-file", "key")


@pytest.mark.counterpart("sshd", "ssh-keygen")
def test_TB7_what_cannot_be_scanned_is_told(console: Console, sshd: Sshd) -> None:
    scan = ("delegates", "scan-host-key", f"127.0.0.1:{sshd.port}")
    assert "this machine" in console.refused(4, *scan)
    _loopback_is_allowed()
    sshd.stop()
    assert "refused" in console.refused(4, *scan).lower()
    console.refused(2, "delegates", "scan-host-key", "--", "-oProxyCommand=id")


@ssh_keygen
def test_a7b_whoever_registers_what_cannot_be_called_from_here_is_told(
        keys: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is registered all the same: it may be another machine that calls."""
    def about_ssh() -> list[dict[str, object]]:
        found = keys.run("config", "check", "--json").json["findings"]
        return [one for one in found if one["what"] == "callback ssh"]
    assert "extra" not in keys.run(*_ssh()).err
    assert about_ssh() == []
    keys.ok("delegates", "remove", "paris")
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    assert about_ssh() == [], "nobody needs it"
    said = keys.run(*_ssh())
    assert said.code == 0
    assert "the extra `ssh` is not installed here" in said.err
    assert "pip install" in said.err
    (finding,) = about_ssh()
    assert (finding["ok"], finding["path"]) == (False, "paris")
    assert "the extra `ssh` is not installed here" in str(finding["detail"])
    assert "pip install" in str(finding["hint"])
    assert keys.run("delegates", "test", "paris").code != 0
