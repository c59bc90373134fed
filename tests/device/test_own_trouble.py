"""What fails on the device itself: flash that wears, disks that fill, hooks, folders, descriptors, programs."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from delegator.device import enrolling, flow, hook, reasons
from delegator.device.certificate import common_names
from delegator.device.reasons import Misconfigured
from delegator.device.settings import Own
from delegator.device.state import Folder

ROOT = Path(__file__).parents[2]


# --- flash --------------------------------------------------------------------------------------------------------


class Flash:
    """Counts what reaches it: how often something is made durable, and how many bytes files are given."""

    def __init__(self, monkeypatch):
        self.syncs = self.written = 0
        fsync, replace = os.fsync, Path.replace

        def synced(descriptor):
            self.syncs += 1
            fsync(descriptor)

        def replaced(path, target):
            self.written += path.stat().st_size
            return replace(path, target)
        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(Path, "replace", replaced)


@pytest.mark.slow
def test_a_day_of_refusals_writes_nothing_after_the_first(lab, say, monkeypatch):
    flash = Flash(monkeypatch)
    facts = lab.run(lab.delegator(say.fault("NotEntitled")), "--interval", "900")
    assert facts["attempts"] == 97
    assert flash.syncs <= 4
    assert flash.written < 50_000


@pytest.mark.slow
@pytest.mark.parametrize("cause", ["owner's server down", "owner's server errs", "failing hook", "refused",
                                   "another anchor"])
def test_a_day_of_anything_costs_at_most_fifty_fsyncs_and_a_megabyte(lab, say, monkeypatch, cause):
    """And the maker is not asked each time for what is on the disk. The owner may have moved, so sometimes it is."""
    delegate = lab.delegate(*([say.http("no", "500 Internal Server Error")] if "errs" in cause else []))
    if "down" in cause:
        delegate.close()
    issued = lab.issued(delegate)
    if cause == "refused":
        issued = lab.issued(lab.delegate(say.http("no", "401 Unauthorized")))
    if cause == "another anchor":
        issued = issued.replace(lab.pki.owner.pem.encode(), lab.pki.factory.pem.encode()).replace(
            b"Content-Length: ", b"X: ")

    def delegator_says(heard):
        return issued if "GetProvisioningCredential" in heard.body else say.CONFIRMED
    delegator = lab.delegator(delegator_says)
    script = lab.folder / "hook.sh"
    script.write_text("cat >/dev/null; exit 1")
    flash = Flash(monkeypatch)
    facts = lab.run(delegator, "--interval", "600", *(("--hook", f"sh {script}") if "hook" in cause else ()))
    assert facts["attempts"] == 145
    asked = [heard for heard in delegator.heard if "GetProvisioningCredential" in heard.body]
    assert 3 <= len(asked) <= (11 if cause in ("refused", "another anchor") else 5)
    assert len(delegator.heard) <= 11
    assert flash.syncs <= 50
    assert flash.written < 1_000_000


def test_equal_bytes_are_not_written_again(tmp_path, monkeypatch):
    folder = Folder(tmp_path / "state")
    folder.write("x", b"a" * 200_000)
    flash = Flash(monkeypatch)
    folder.write("x", b"a" * 200_000)
    assert (flash.syncs, flash.written) == (0, 0)
    with folder.replacing("x") as new:
        for piece in (b"a" * 100_000, b"a" * 99_999, b"b"):
            new.write(piece)
    assert folder.read("x") == b"a" * 199_999 + b"b"
    for shorter in (b"a" * 10, b""):
        folder.write("x", shorter)
        assert folder.read("x") == shorter
    assert [path.name for path in folder.path.iterdir()] == ["x"]


def test_a_fetch_that_breaks_off_leaves_what_was_fetched_before(lab, say):
    cut = say.http(say.DATA.replace(b"web-7", b"web-8" * 9)).replace(b"Content-Length: ", b"Content-Length: 9")
    delegate = lab.delegate(say.http(say.DATA), cut)
    folder = lab.state
    lab.run(lab.delegator(lab.issued(delegate), say.CONFIRMED), "--hook", lab.hook("raise SystemExit(1)"), "--once")
    facts = lab.fails(lab.delegator(lab.issued(delegate)), "delegate-unreachable")
    assert facts["phase"] == "asking"
    assert (folder / "provisioning.xml").read_bytes() == say.DATA


# --- what may pass ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.EIO, errno.EROFS])
def test_a_disk_that_is_full_for_a_moment_ends_no_activation(lab, say, monkeypatch, number):
    fsync, left = os.fsync, [3]

    def full(descriptor):
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(number, os.strerror(number))
        fsync(descriptor)
    monkeypatch.setattr(os, "fsync", full)
    facts = lab.run(lab.delegator(lab.issued(lab.delegate()), say.CONFIRMED), "--hook", lab.hook())
    assert facts["outcome"] == "ready"
    assert "own-trouble" in lab.err


def test_openssl_that_fails_once_is_asked_again(lab, say, monkeypatch):
    """At a first boot there may be too little entropy."""
    script = lab.folder / "openssl"
    script.write_text(f"#!/bin/sh\nif [ ! -e {lab.folder}/once ]; then touch {lab.folder}/once; echo no entropy >&2; "
                      f"exit 1; fi\nPATH=/usr/bin:/bin exec openssl \"$@\"\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{lab.folder}:{os.environ['PATH']}")
    facts = lab.run(lab.delegator(say.answer(), say.CONFIRMED), "--own", str(lab.folder / "own"),
                    leaf=lab.pki.factory.leaf("shared"))
    assert (facts["outcome"], facts["attempts"]) == ("ready", 2)
    assert "no entropy" in lab.err


@pytest.mark.parametrize("tag", ["A#B12", "A$B12", "A\\B12", "A=B, C", 'A"B', "\u00e912345"])
def test_a_tag_stands_in_the_request_as_it_is(tmp_path, tag):
    """A number sign begins a comment in openssl's configuration."""
    from base64 import b64decode

    from cryptography import x509
    from cryptography.x509.oid import NameOID
    made = enrolling.request(Own(tmp_path / "own" / "handshake.key", tmp_path / "own", command=enrolling.OPENSSL), tag)
    request = x509.load_der_x509_csr(b64decode(made))
    (name,) = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == tag


# --- folders ------------------------------------------------------------------------------------------------------


def test_a_folder_behind_a_link_or_of_another_user_is_not_used(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(Misconfigured, match="is a link"):
        Folder(tmp_path / "link")
    if os.geteuid() == 0:
        (tmp_path / "theirs").mkdir(mode=0o700)
        os.chown(tmp_path / "theirs", 12345, 12345)
        with pytest.raises(Misconfigured, match="another user's"):
            Folder(tmp_path / "theirs")


def test_a_lock_that_is_a_link_makes_nothing(tmp_path):
    folder = Folder(tmp_path / "state")
    (folder.path / "lock").symlink_to(tmp_path / "target")
    with folder.held():
        assert (folder.path / "lock").is_file()
    assert not (folder.path / "lock").is_symlink()
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("name", ["state.json", ".state.json.new", "provisioning.xml"])
def test_a_folder_where_a_file_belongs_is_cleared_away(tmp_path, name):
    folder = Folder(tmp_path / "state")
    (folder.path / name / "deeper").mkdir(parents=True)
    for content in (b"1", b"2"):
        folder.write(name.strip(".").removesuffix(".new"), content)
    assert (folder.path / name.strip(".").removesuffix(".new")).read_bytes() == b"2"


# --- the hook -----------------------------------------------------------------------------------------------------


def facts_of(folder: Path, document: Path | None = None) -> hook.Facts:
    return hook.Facts(folder, folder / "credential.json", document, "ABC1234", "c", "https://h/")


def test_a_service_that_a_hook_leaves_behind_is_not_waited_for(tmp_path):
    """It may hold standard input as long as it likes, and not read a word of it."""
    document = tmp_path / "document"
    document.write_bytes(b"x" * 1_000_000)
    folder = Folder(tmp_path / "state")
    with folder.held():
        leaves = ("sh", "-c", f"sleep 30 & echo $! > {tmp_path}/pid")
        hook.apply(leaves, facts_of(folder.path, document), 20, folder.lock)
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, signal.SIGKILL)  # it was there: who is not raises here


def test_of_the_callers_variables_none_is_taken_for_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("DELEGATOR_PROVISIONING_FILE", "/etc/shadow")
    monkeypatch.setenv("OTHER", "stays")
    folder = Folder(tmp_path / "state")
    with folder.held():
        hook.apply(("sh", "-c", f"env > {tmp_path}/env"), facts_of(folder.path), 20, folder.lock)
    said = (tmp_path / "env").read_text()
    assert "OTHER=stays" in said
    assert "/etc/shadow" not in said


def test_a_hook_that_removes_everything_is_survived(lab, say):
    delegator = lab.delegator(lab.issued(lab.delegate()), say.CONFIRMED)
    removing = lab.hook("import os, shutil\nshutil.rmtree(os.environ['DELEGATOR_STATE_DIR'])\nraise SystemExit(1)")
    assert lab.run(delegator, "--hook", removing, "--once")["reason"] == "hook-failed"
    assert lab.run(lab.delegator(lab.issued(lab.delegate()), say.CONFIRMED))["outcome"] == "ready"


@pytest.mark.slow
def test_two_hooks_never_run_at_once_not_even_after_a_kill(lab, say):
    """The lock ends with the client, and its hook goes on by itself."""
    marks = lab.folder / "marks"
    code = (f"import os, sys, time\nsys.stdin.read()\nopen({str(marks)!r}, 'a').write(str(os.getpid()) + '\\n')\n"
            f"time.sleep(30 if open({str(marks)!r}).read().count('\\n') == 1 else 0)\n")
    delegator = lab.delegator(lab.issued(lab.delegate()), say.CONFIRMED)
    words = lab.hook(code)
    first = lab.start(delegator, "--hook", words)
    deadline = time.monotonic() + 30
    while not marks.exists() or not marks.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.kill()
    first.wait()
    for pipe in (first.stdout, first.stderr):  # not read to their ends: the hook has them still
        pipe.close()
    left_over = int(marks.read_text())
    assert lab.run(delegator, "--hook", words)["outcome"] == "ready"
    assert "it is ended" in lab.err
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # whoever inherited it may clear it away any time
        assert Path(f"/proc/{left_over}/stat").read_text().split()[2] == "Z"
    assert (lab.state / "lock").read_bytes() == b""


def test_a_note_of_another_boot_ends_nobody(tmp_path):
    folder = Folder(tmp_path / "state")
    with folder.held(), subprocess.Popen(["sleep", "30"], start_new_session=True) as bystander:
        for note in (f"{bystander.pid} other-boot 1", f"{bystander.pid} ", "-1 x", "\xff", f"{os.getpid()}"):
            os.ftruncate(folder.lock, 0)
            os.pwrite(folder.lock, note.encode("latin-1"), 0)
            hook.end_left_over(folder.lock)
        assert bystander.poll() is None
        bystander.kill()


# --- descriptors --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-", ">/dev/full", "2>/dev/full"])
def test_standard_streams_may_be_closed_or_full(lab, say, closed):
    """What is opened next would take their place: a hook's words must not get into the lock."""
    delegator = lab.delegator(lab.issued(lab.delegate()), say.CONFIRMED)
    says = "" if "full" in closed else "import sys\nprint('words')\nsys.stderr.write('more')"
    words = lab.words(delegator, "--once", "--hook", lab.hook(says))
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "delegator.device", *words],
                          cwd=ROOT, capture_output=True, check=False, timeout=60)
    assert done.returncode == (1 if "1>" in closed or closed == ">/dev/full" else 0), done
    assert lab.saved()["phase"] == "confirmed"
    assert (lab.state / "lock").read_bytes() == b""


# --- looking ------------------------------------------------------------------------------------------------------


def test_a_device_that_waits_says_why_and_until_when(lab, say, monkeypatch):
    seen = []
    monkeypatch.setattr(lab.time, "moment", 1000.0)
    sleep = lab.time._sleep

    def looks(seconds):
        code = flow_status(lab)
        seen.append(code)
        sleep(seconds)
    monkeypatch.setattr(lab.time, "_sleep", looks)
    lab.run(lab.delegator(say.fault("NotEntitled"), say.answer(), say.CONFIRMED))
    (facts,) = seen
    assert (facts["outcome"], facts["reason"], facts["exit_code"]) == ("waiting", "not-entitled", 35)
    assert (facts["attempts"], facts["at_work"], facts["phase"]) == (1, True, "asking")
    assert facts["next_attempt"] == "2027-01-15T08:01:30Z"
    ready = flow_status(lab)
    assert (ready["outcome"], ready["exit_code"], ready["at_work"]) == ("ready", 0, False)


def flow_status(lab):
    from delegator.device import status
    return status.read(lab.state)


def test_status_is_a_verb(lab, say, capsys):
    from delegator.device import main
    lab.fails(lab.delegator(say.fault("NotEntitled")), "not-entitled")
    assert main(["status", "--state", str(lab.state), "--json"]) == 35
    said = capsys.readouterr()
    facts = json.loads(said.out)
    assert (facts["outcome"], facts["reason"]) == ("failed", "not-entitled")
    assert "failed: the delegator has nothing for this device now" in said.err
    assert "no activation is at work. Look at: has the owner registered" in said.err
    assert main(["status", "--state", str(lab.state)]) == 35
    assert "at_work: false" in capsys.readouterr().out.splitlines()
    assert main(["status", "--state", str(lab.folder / "nowhere")]) == 3
    (lab.folder / "empty").mkdir()
    assert main(["status", "--state", str(lab.folder / "empty")]) == 1


WSDL = "<definitions/>"


def check(lab, capsys, *servers, leaf=None):
    from delegator.device import main
    words = ["check" if word == "activate" else word
             for word in lab.words(",".join(server.address for server in servers), leaf=leaf)]
    code = main(words)
    said = capsys.readouterr()
    return code, json.loads(said.out), said.err


def test_check_asks_for_nothing_and_says_what_activate_would(lab, say, capsys):
    good = lab.delegator(say.http(WSDL))
    code, facts, err = check(lab, capsys, good)
    assert (code, facts["outcome"]) == (0, "good")
    assert [one["reason"] for one in facts["findings"]] == [None, None, None]
    assert (good.heard[0].method, good.heard[0].target, good.heard[0].body) == ("GET", "/?wsdl", "")
    assert not lab.state.exists()
    assert "accepts this device's certificate" in err
    other = lab.delegator(say.http(WSDL), leaf=lab.pki.factory.leaf("x", server=True, names=("elsewhere.example",)))
    code, facts, _ = check(lab, capsys, good, other)
    assert (code, facts["reason"]) == (28, "server-name-mismatch")
    code, facts, _ = check(lab, capsys, lab.delegator(say.http("hello")))
    assert facts["reason"] == "answer-not-understood"
    key = Path(lab.pki.device.key)
    for mode, told in ((0o600, False), (0o644, True)):
        key.chmod(mode)
        files = check(lab, capsys, good)[1]["findings"][0]
        assert (f"`chmod 600 {key}`" in files["words"], files["reason"]) == (told, None)
    key.chmod(0o600)


def test_check_tells_that_the_certificate_is_refused(lab, say, capsys):
    refusing = lab.delegator(say.http(WSDL), client_ca=lab.pki.owner.file)
    assert check(lab, capsys, refusing)[1]["reason"] == "client-refused"


# --- a proxy ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def proxy(answer: bytes, target: int | None):
    """A pretend HTTP proxy: what it was asked, and its port."""
    asked, opened = [], []

    def passes(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve(listener):
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                opened.append(client)
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += client.recv(1)
                asked.append(head.decode().splitlines()[0])
                client.sendall(answer)
                if target is None:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", target))
                opened.append(server)
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=passes, args=pair, daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield asked, listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    for one in opened:
        one.close()


def test_a_proxy_passes_bytes_and_the_delegator_proves_itself_all_the_same(lab, say):
    delegator = lab.delegator(say.answer(), say.CONFIRMED)
    with proxy(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n", delegator.port) as (asked, port):
        facts = lab.run(delegator, "--proxy", f"http://127.0.0.1:{port}/")
    assert facts["outcome"] == "ready"
    assert asked == [f"CONNECT {delegator.address} HTTP/1.1"] * 2


@pytest.mark.parametrize("answer", [b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", b"hello\r\n\r\n", b"",
                                    b"HTTP/1.1 200\r\n" + b"x" * 20_000, b"HTTP/1.1 \x1b[2J\r\n\r\n"])
def test_a_proxy_that_does_not_is_no_route(lab, answer):
    with proxy(answer, None) as (asked, port):
        lab.fails("delegator.example", "no-route", "--proxy", f"127.0.0.1:{port}")
    assert asked


@pytest.mark.parametrize("at", ["nowhere.invalid:3128", "127.0.0.1:1"], ids=["no name", "nothing listens"])
def test_a_proxy_that_cannot_be_reached_is_not_blamed_on_the_delegator(lab, at):
    facts = lab.fails("delegator.example", "no-route", "--proxy", at)
    assert facts["detail"].startswith(f"the proxy {at}: ")


def test_a_proxys_password_is_not_repeated(capsys):
    from delegator.device import main
    assert main(["check", "--proxy", "user:secret@proxy.example:3128"]) == 2
    said = capsys.readouterr().err
    assert "no user and no password" in said
    assert "secret" not in said


def test_an_unproven_alert_changes_nothing_that_is_stored(lab, say, monkeypatch):
    """Before the handshake is done anybody on the way can call a certificate withdrawn."""
    state = flow.resume(Folder(lab.state), say.TAG, False, 1.0)
    Folder(lab.state).save(state._replace(own=True))
    monkeypatch.setattr(flow.enrolling, "is_usable", lambda *_a: True)
    monkeypatch.setattr(flow.enrolling, "drop_foreign", lambda *_a: None)
    for proven, stored in ((False, True), (True, False)):
        def alert(*_args, proven=proven):
            failure = reasons.Failure(reasons.CLIENT_REFUSED, "TLS alert certificate_revoked")
            failure.proven = proven
            raise failure
        monkeypatch.setattr("delegator.device.asking.exchange", alert)
        monkeypatch.setattr("delegator.device.asking.context_for", lambda *_a: None)
        lab.run("localhost:1", "--once", "--own", str(lab.folder / "own"))
        assert lab.saved()["own"] is stored
    assert common_names("") == []
