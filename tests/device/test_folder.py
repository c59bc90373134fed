"""The state folder and the process around it: odd files, signals that come twice, chance that something is missing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from delegator.device import asking, channel, command, enrolling, main, reasons, retry, status
from delegator.device.addresses import MOST, Address
from delegator.device.certificate import facts
from delegator.device.reasons import Failure, Misconfigured
from delegator.device.settings import Own
from delegator.device.state import Folder

from ..late import ran, until_gone

ROOT = Path(__file__).parents[2]


def odd(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    {"pipe": lambda: os.mkfifo(path), "folder": lambda: (path / "x").mkdir(parents=True),
     "link": lambda: path.symlink_to(path.parent.parent / "target"),
     "socket": lambda: _bind(path)}[kind]()


def _bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "socket"])
@pytest.mark.parametrize("name", ["lock", "status.json", "state.json", "credential.json", "provisioning.xml",
                                  ".status.json.new", ".state.json.new"])
def test_what_is_no_file_stops_nobody(lab, say, name, kind, monkeypatch):
    monkeypatch.chdir(lab.folder)  # the name of a socket has little room
    Folder(lab.state)
    odd(Path("state") / name, kind)
    assert "outcome" in status.read(lab.state)
    delegator = lab.delegator(lab.issued(lab.delegate()), say.CONFIRMED)
    assert lab.run(delegator)["outcome"] == "ready", lab.err
    assert not (lab.folder / "target").exists()


@pytest.mark.parametrize("said", [
    b'{"reason": "no-route"}', b'{"reason": ["x"]}', b'{"reason": "no-route", "outcome": "a\\nready", "detail": {}}',
    b'{"reason": "no-route", "detail": "a\\u001b[2J\\nready: yes", "attempts": "x", "state": 7}'])
def test_a_status_that_others_wrote_forges_no_line(lab, capsys, said):
    Folder(lab.state).write("status.json", said)
    code = main(["status", "--state", str(lab.state)])
    said = capsys.readouterr()
    assert code in (1, 22)
    assert "ready: yes" not in said.out.splitlines()
    assert "\x1b" not in said.out + said.err
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize("place", ["mkdir", "open"])
def test_a_disk_that_is_full_before_there_is_a_lock_is_waited_for(lab, say, monkeypatch, place):
    left = [2]
    owner, name = (Path, "mkdir") if place == "mkdir" else (os, "open")
    whole = getattr(owner, name)

    def full(path, *more, **named):
        if str(path).endswith("state" if place == "mkdir" else "lock") and left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(path, *more, **named)
    monkeypatch.setattr(owner, name, full)
    assert lab.run(lab.delegator(say.answer(), say.CONFIRMED))["outcome"] == "ready"
    assert lab.time.slept == [90.0, 90.0]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_may_come_twice(lab, say, number):
    marks = lab.folder / "marks"
    delegator = lab.delegator(lab.issued(lab.delegate()), say.CONFIRMED)
    process = lab.start(delegator, "--hook", lab.hook(f"import time\nopen({str(marks)!r}, 'w')\ntime.sleep(60)"))
    deadline = time.monotonic() + 30
    while not marks.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    until_gone(process, number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 128 + number, err
    assert json.loads(out)["outcome"] == "stopped"
    assert "Traceback" not in err
    assert "ignored" not in err


STOPPED = """
import os, sys
from delegator.device import command, main
def work(*_):
    os.kill(os.getpid(), {number})
command._COMMANDS["activate"] = work
said = command._written
def saying(stream, text):
    os.kill(os.getpid(), {number})
    return said(stream, text)
command._written = saying
sys.exit(main({words!r}))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("late", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_while_the_result_is_said_or_python_ends_changes_nothing(lab, number, late):
    done = ran(late, STOPPED.format(number=int(number), words=lab.words("delegator.example", "--json")))
    assert (done.returncode, json.loads(done.stdout)["outcome"]) == (128 + number, "stopped"), done.stderr
    assert done.stderr == "delegator device: stopped; the next activation goes on from here\n"


@pytest.fixture
def theirs():
    """Handlers of somebody who embeds us: they hear nothing meanwhile, and stand again afterwards."""
    seen = []
    kept = {number: signal.signal(number, lambda number, _: seen.append(number))
            for number in (signal.SIGTERM, signal.SIGINT)}
    mine = {number: signal.getsignal(number) for number in kept}
    yield
    try:
        assert {number: signal.getsignal(number) for number in kept} == mine
        assert seen == []
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@pytest.mark.usefixtures("theirs")
def test_a_signal_just_as_the_hook_was_started_leaves_none_behind(lab, say, monkeypatch):
    """A hook that nobody knows of yet would go on by itself."""
    class Started(subprocess.Popen):
        def __init__(self, *given, **named):
            super().__init__(*given, **named)
            pids.append(self.pid)
            signal.raise_signal(signal.SIGTERM)
    pids = []
    monkeypatch.setattr(subprocess, "Popen", Started)
    mark = lab.folder / "mark"
    hook = lab.hook(f"import signal, time\nopen({str(mark)!r}, 'w').write(str(signal.pthread_sigmask(0, ())))\n"
                    "time.sleep(0 if 'again' in __import__('os').listdir('.') else 60)")
    monkeypatch.chdir(lab.folder)
    delegator = lab.delegator(lab.issued(lab.delegate()), say.CONFIRMED)
    assert lab.run(delegator, "--hook", hook)["exit_code"] == 143
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    monkeypatch.undo()
    monkeypatch.chdir(lab.folder)
    (lab.folder / "again").touch()
    assert lab.run(delegator, "--hook", hook)["outcome"] == "ready"
    held_back = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert mark.read_text() == str(held_back), "the hook itself is reached by signals"


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize("place", ["_logging", "_done", "close"])
def test_a_signal_at_the_edge_of_a_command_is_raised_into_nobodys_face(lab, capsys, monkeypatch, place):
    """While its log is put away, when its result is there, when handlers are put back: told or too late, no traceback.
    """
    put, done, close = command._logging, command._done, command._Ear.close

    @contextlib.contextmanager
    def logging(verbose):
        with put(verbose):
            yield
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)

    def finished(*given):
        try:
            return done(*given)
        finally:
            signal.raise_signal(signal.SIGTERM)

    def closing(ear):
        signal.raise_signal(signal.SIGTERM)
        close(ear)
    monkeypatch.setattr(*{"_logging": (command, "_logging", logging), "_done": (command, "_done", finished),
                          "close": (command._Ear, "close", closing)}[place])
    code = main(["status", "--state", str(lab.state)])
    facts = capsys.readouterr().out
    assert (code, "stopped" in facts) == ((3, False) if place == "close" else (143, True)), facts


def test_a_folder_without_devices_is_started_in(monkeypatch, capsys):
    """A chroot that has no /dev/null."""
    monkeypatch.setattr(os, "devnull", "/nowhere/null")
    assert main(["reasons"]) == 0
    assert "own-trouble" in capsys.readouterr().out


def test_a_family_of_addresses_that_this_system_lacks_is_passed_over(lab, monkeypatch):
    made = socket.socket

    def no_ipv6(family, *more):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported")
        return made(family, *more)
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = server.getsockname()
        found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 1, 0, 0)),
                 (socket.AF_INET, socket.SOCK_STREAM, 6, "", where)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: found)
        monkeypatch.setattr(socket, "socket", no_ipv6)
        channel._first_that_answers(Address("x", 1), time.monotonic() + 5).close()


def test_whom_a_delegator_names_takes_no_configured_ones_place(lab, monkeypatch):
    """It names four, each of which names four: the second of the list is asked all the same."""
    tried = []

    def names_others(peer, *_more):
        tried.append(peer.address.host)
        raise Failure(reasons.UNAVAILABLE, ask_at=tuple(
            Address(f"{peer.address.host}{n}", 4433) for n in range(4)) if peer.address.host[0] == "a" else ())
    monkeypatch.setattr(asking, "exchange", names_others)
    for configured in (["a", "b"], ["a", *"bcdefgh"]):
        tried.clear()
        lab.run(",".join(configured), "--once")
        assert set(configured) <= set(tried)
        assert len(tried) <= MOST + 1


def test_a_pause_of_years_ends_no_run(lab, say):
    delegator = lab.delegator(say.fault("TryLater", 999_999_999), say.answer(), say.CONFIRMED)
    assert lab.run(delegator)["outcome"] == "ready"
    assert lab.time.slept[0] >= retry.LONGEST


def test_of_two_pauses_in_one_answer_the_longer_counts(lab, say):
    both = say.fault("TryLater", 40).replace(b"Content-Type", b"Retry-After: 900\r\nContent-Type")
    lab.run(lab.delegator(both, say.answer(), say.CONFIRMED))
    assert lab.time.slept[0] >= 900


@pytest.mark.parametrize("chunk", [b"-" + b"f" * 400, b"f" * 400, b"-2", b"0x7fffffffffffffff", b"7" * 60_000])
def test_an_owners_server_that_counts_oddly_is_not_a_reason_to_ask_the_maker(lab, say, chunk):
    """The credential is on the disk; what the owner's server sends says nothing against it."""
    odd_chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + b"\r\nxx\r\n"
    delegator = lab.delegator(lab.issued(lab.delegate(odd_chunk)), say.CONFIRMED)
    facts = lab.run(delegator, "--for", "1000")
    assert facts["reason"] in ("delegate-failed", "delegate-unreachable")
    assert len(delegator.heard) == 1


def test_a_damaged_key_of_its_own_is_made_anew_and_a_good_one_never(lab, monkeypatch):
    own = Own(lab.folder / "own" / "handshake.key", lab.folder / "own", command=enrolling.OPENSSL)
    enrolling.request(own, "ABC1234")
    whole = own.key.read_bytes()
    for damaged in (b"", whole[:90], whole.replace(b"M", b"\x00")):
        own.key.write_bytes(damaged)
        assert enrolling.request(own, "ABC1234")
        assert own.key.read_bytes().startswith(b"-----BEGIN")
    good = own.key.read_bytes()
    run = enrolling._run
    monkeypatch.setattr(enrolling, "_run", lambda command, *more: (
        run(command, *more) if "req" not in command else (_ for _ in ()).throw(Failure(reasons.OWN_TROUBLE))))
    with pytest.raises(Failure):
        enrolling.request(own, "ABC1234")
    assert own.key.read_bytes() == good


def test_a_common_name_in_another_writing_keeps_no_server(lab, say, monkeypatch):
    """T61String, as old authorities wrote it."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.name import _ASN1Type
    name = x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "b\u00fcro", _ASN1Type.T61String, _validate=False)
    monkeypatch.setattr(x509, "NameAttribute", lambda *_a: name)
    leaf = lab.pki.factory.leaf("odd", server=True)
    pem = Path(leaf.certificate).read_bytes()
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    assert facts(der.replace("b\u00fcro".encode(), b"b\xfcr\xff\xfe")).for_servers


@pytest.mark.slow
def test_two_at_once_are_one_and_a_sentence(lab, say):
    delegator = lab.delegator(lab.issued(lab.delegate()), say.CONFIRMED)
    go = lab.folder / "go"
    hook = lab.hook(f"import os, time\nwhile not os.path.exists({str(go)!r}):\n    time.sleep(0.02)")
    both = [lab.start(delegator, "--hook", hook, "--once") for _ in range(2)]
    deadline = time.monotonic() + 30
    while all(process.poll() is None for process in both):  # the other one works as long as this one needs
        assert time.monotonic() < deadline
        time.sleep(0.02)
    go.touch()
    ends = sorted((process.wait(30), process.communicate()[1]) for process in both)
    assert [code for code, _ in ends] == [0, 6], ends
    assert "another activation is at work" in ends[1][1]
    assert len(delegator.heard) == 2


@pytest.mark.slow
@pytest.mark.parametrize("how", [("LC_ALL", "C"), ("PYTHONOPTIMIZE", "2"), ("LC_ALL", "en_US.ISO-8859-1")])
def test_surroundings_change_nothing(lab, say, how):
    delegator = lab.delegator(lab.issued(lab.delegate()), say.CONFIRMED)
    words = lab.words(delegator, "--once", "--hook", lab.hook(), "--state", "relative", "--host-name", "b\u00fcro")
    done = subprocess.run([sys.executable, "-m", "delegator.device", *words], cwd=lab.folder, timeout=60, check=False,
                          capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT), how[0]: how[1]})
    assert done.returncode == 0, done.stderr
    assert (lab.folder / "relative" / "state.json").exists()


@pytest.mark.parametrize(("name", "cure"), [("handshake.key", "chmod 700"), ("state.json", "chmod 700"),
                                            ("somebody-elses", "name a folder of its own")])
def test_no_advice_leaves_a_folder_that_holds_this_devices_own(tmp_path, name, cure):
    folder = Folder(tmp_path / "kept")
    folder.write(name, b"x")
    folder.path.chmod(0o755)
    with pytest.raises(Misconfigured, match=cure):
        Folder(folder.path)


def test_a_file_in_a_folders_place_is_named_as_that(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match="file is no folder"):
        Folder(tmp_path / "file")


@pytest.mark.parametrize(("authority", "words"), [
    (lambda pki: Path(pki.delegator.certificate).read_text(), "not an authority's"),
    (lambda pki: pki.factory.pem + Path(pki.delegator.certificate).read_text(), "not an authority's"),
    (lambda pki: pki.factory.pem + Path(pki.delegator.key).read_text(), "private key in it")],
    ids=["the server's own certificate", "one beside the authority", "a key beside the authority"])
def test_what_no_firmware_should_hold_is_no_factory_authority(lab, authority, words):
    (lab.folder / "ca.pem").write_text(authority(lab.pki))
    facts = lab.run("delegator.example", "--ca", str(lab.folder / "ca.pem"))
    assert (facts["exit_code"], words in facts["detail"]) == (3, True), facts


@pytest.mark.parametrize(("hook", "words"), [
    ("/nowhere/hook", "there is no such file"), ("no-such-hook", "no such program is in PATH"),
    ("{}/plain", "chmod \\+x"), ("{}", "it is no file")])
def test_of_a_hook_that_cannot_be_run_it_is_said_why(lab, hook, words):
    (lab.folder / "plain").touch(mode=0o644)
    facts = lab.run("delegator.example", "--hook", hook.format(lab.folder))
    assert facts["exit_code"] == 3
    assert re.search(words, facts["detail"])
