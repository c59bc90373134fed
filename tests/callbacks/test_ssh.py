"""Callback `ssh` against a real OpenSSH server: the command, the pinned host key, the limits. A7b, T-B6, T-B7."""

from __future__ import annotations

import asyncio
import re
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from delegator.callbacks import Callbacks, CallbackWay
from delegator.callbacks.guard import Guard, Limits
from delegator.callbacks.ssh import SshCaller
from delegator.errors import DelegatorError, Kind
from delegator.model import Credential, Delegate, Deployment, Result, SshCallback
from delegator.outbound import Outbound, networks

from .conftest import CLAIM, asked
from .sshd import GET_CRED, Sshd

pytestmark = [pytest.mark.counterpart("sshd", "ssh-keygen"), pytest.mark.slow]
LOOPBACK = Outbound(networks(("127.0.0.0/8",)))
SECRET = "hunter2-Plant3d"
GOOD = f"printf '<Credential><UserName>u</UserName><Password>{SECRET}</Password></Credential>'"


async def ask(callback: SshCallback, *, tag: str = "ABC1234", caller: SshCaller | None = None) -> Credential:
    delegate = Delegate("acme-ssh", "acme", callback)
    return await (caller or SshCaller(LOOPBACK)).obtain(asked(tag), delegate, datetime.now(UTC))


async def refused(callback: SshCallback) -> DelegatorError:
    with pytest.raises(DelegatorError) as error:
        await ask(callback)
    own = re.match(r"delegate acme-ssh says no: exit (?!0|12[67])", error.value.detail)  # T-B9: an answer
    assert error.value.kind is (Kind.NOT_ENTITLED if own else Kind.UNREACHABLE)
    assert own or error.value.detail.startswith("delegate acme-ssh: ")
    assert SECRET not in error.value.detail
    return error.value


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def settled(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        await asyncio.sleep(0.02)
    return condition()


# --- the customer's command ---------------------------------------------------------------------------------------


async def test_a7b_getcred_with_tag_and_ip_answers_with_user_and_password(sshd: Sshd) -> None:
    """The patent's own example, with the script that a customer finds in examples/."""
    first, again = await ask(sshd.callback()), await ask(sshd.callback())
    assert first.user_name == "temp-ABC1234"
    assert len(first.password.reveal()) == 24
    assert first.password == again.password, "asked again it answers the same"
    assert first.not_after is not None
    assert timedelta(hours=23) < first.not_after - datetime.now(UTC) < timedelta(hours=25)
    assert (await ask(sshd.callback(), tag="ABC1235")).password != first.password


async def test_a7b_the_example_works_as_a_forced_command_too(tmp_path: Path) -> None:
    """Whoever holds our key can then run nothing else there."""
    sshd = Sshd(tmp_path, extra=f"SetEnv GETCRED_STATE={tmp_path}/state GETCRED_OWNED={tmp_path}/owned\n")
    public = (tmp_path / "user.pub").read_text()
    (tmp_path / "authorized_keys").write_text(f'restrict,command="{GET_CRED}" {public}')
    (tmp_path / "owned").write_text("ABC1234\n")
    sshd.start()
    try:
        assert (await ask(sshd.callback("getCred {tag} {ip}"))).user_name == "temp-ABC1234"
        error = await refused(sshd.callback("touch /tmp/{tag} {ip} {claim}"))
        assert "exit 2: usage: getCred" in error.detail
        with pytest.raises(DelegatorError, match="exit 3: XYZ9999 is not one of our devices"):
            await ask(sshd.callback("getCred {tag} {ip}"), tag="XYZ9999")
    finally:
        sshd.stop()


async def test_a7b_the_command_sees_what_the_template_names_and_no_terminal_input_or_environment(
        sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_PLANTED", "planted")
    report = sshd.root / "seen"
    command = (f"{{ echo {{tag}} {{ip}} {{peer}} {{claim}}; tty; cat; env; echo ${{SSH_AUTH_SOCK:-no agent}}; }} "
               f"> {report}; {GOOD}")
    await ask(sshd.callback(command))
    seen = report.read_text()
    assert seen.startswith(f"ABC1234 192.0.2.7 198.51.100.9 {CLAIM}\nnot a tty\n")
    assert "planted" not in seen
    assert seen.endswith("no agent\n")


@pytest.mark.parametrize(("command", "detail"), [
    ("exit 3", "exit 3"),
    ("echo 'unknown device' >&2; echo second >&2; exit 1", "exit 1: unknown device"),
    (r"printf '\033[2Jboo\007' >&2; exit 4", r"exit 4: \x1b[2Jboo\x07"),
    (f"{GOOD}; exit 5", "exit 5"),
    ("kill -SEGV $$", "killed by SIGSEGV"),
    ("no-such-command-here", "exit 127: "),
    ("true", "exit 0, but there is nothing on standard output"),
    (f"echo {SECRET}", "exit 0, but it is neither XML nor JSON"),
    (f"echo '<Credential><ServiceTag>XYZ9999</ServiceTag><UserName>u</UserName><Password>{SECRET}</Password>"
     "</Credential>'", "exit 0, but it answers for another device than ABC1234"),
])
async def test_a7b_a_command_that_fails_is_told_with_exit_code_and_one_line_of_standard_error(
        sshd: Sshd, command: str, detail: str) -> None:
    told = (await refused(sshd.callback(command))).detail.replace(" says no:", ":")
    assert told.startswith(f"delegate acme-ssh: {detail}")


# --- limits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", ["1", "2"])
async def test_TB6_a_command_that_writes_without_end_is_stopped(sshd: Sshd, stream: str) -> None:
    mark = sshd.root / f"pid{stream}"
    error = await refused(sshd.callback(f"echo $$ > {mark}; exec yes {SECRET} >&{stream}"))
    assert error.detail.endswith("it wrote more than 65536 bytes and was stopped")
    assert await settled(lambda: not Path(f"/proc/{mark.read_text().strip()}").exists()), "and there, too"


async def test_a7b_a_command_that_hangs_costs_its_own_time_only(sshd: Sshd) -> None:
    """The guard's budget ends the call; sshd is asked to kill the command (which it does for all users but root), and
    no connection stays."""
    mark, refusal = sshd.root / "pid", "session signalling requires privilege separation"
    caller = SshCaller(LOOPBACK)
    await ask(sshd.callback(GOOD), caller=caller)
    before = descriptors()
    callbacks = Callbacks({CallbackWay.SSH: caller}, Guard(Limits(budget=3)))
    hanging = Delegate("hanging", "acme", sshd.callback(f"echo $$ > {mark}; exec sleep 8"))
    call = asyncio.create_task(callbacks.obtain(asked(), hanging, datetime.now(UTC)))
    good = Delegate("good", "globex", sshd.callback(GOOD))
    assert (await callbacks.obtain(asked(), good, datetime.now(UTC))).password.reveal() == SECRET
    with pytest.raises(DelegatorError, match=r"delegate hanging: no answer within 3 s"):
        await call
    assert await settled(lambda: refusal in sshd.log or not Path(f"/proc/{mark.read_text().strip()}").exists())
    assert await settled(lambda: descriptors() <= before)


async def test_a7b_a_rack_of_devices_at_once_is_no_flood_to_openssh(tmp_path: Path) -> None:
    """OpenSSH as it comes drops connections at random from the tenth that is not logged in yet."""
    sshd = Sshd(tmp_path, extra="MaxStartups 10:100:11\nLoginGraceTime 20\n")
    sshd.start()
    try:
        caller = SshCaller(LOOPBACK)
        answers = await asyncio.gather(*(ask(sshd.callback(GOOD), caller=caller) for _ in range(14)))
        assert len(answers) == 14
        assert "drop connection" not in sshd.log
    finally:
        sshd.stop()


async def test_a7b_nothing_is_left_after_a_call_however_it_ended(sshd: Sshd) -> None:
    await ask(sshd.callback(GOOD))
    before = descriptors()
    for command in (GOOD, "exit 1", "kill -9 $$", "yes"):
        for _ in range(2):
            if command == GOOD:
                await ask(sshd.callback(command))
            else:
                await refused(sshd.callback(command))
    await refused(msgspec.structs.replace(sshd.callback(), user="nobody-like-this"))
    assert await settled(lambda: descriptors() <= before)


# --- host keys ----------------------------------------------------------------------------------------------------


@pytest.fixture
def moving(tmp_path: Path) -> Iterator[Sshd]:
    """A server of the test's own, whose keys it may change."""
    server = Sshd(tmp_path, ("ed25519", "ecdsa", "rsa"))
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
async def test_TB7_the_pinned_key_is_the_one_that_is_asked_for(moving: Sshd, kind: str) -> None:
    """A host with several keys is known by any one of them."""
    assert (await ask(moving.callback(GOOD, kind))).password.reveal() == SECRET


@pytest.mark.parametrize("kinds", [("ed25519",), ("rsa",)])
async def test_TB7_a_changed_host_key_is_refused_and_reported_and_learns_nothing(
        moving: Sshd, caplog: pytest.LogCaptureFixture, kinds: tuple[str, ...]) -> None:
    """A new key of the same kind, or only one of another kind: both fingerprints are told, the command never runs."""
    callback, pinned = moving.callback(f"touch {moving.root}/ran; {GOOD}"), moving.fingerprint()
    moving.stop()
    moving.kinds = kinds
    moving.new_key(f"host_{kinds[0]}", kinds[0])
    moving.start()
    error = await refused(callback)
    assert f"host key of delegate.acme.example:{moving.port} has changed" in error.detail
    assert f"pinned is ssh-ed25519 {pinned}, shown was ssh-{kinds[0]} {moving.fingerprint()}" in error.detail
    assert "scan-host-key" in error.hint
    assert [record.levelname for record in caplog.records if record.getMessage() == error.detail] == ["WARNING"]
    assert not (moving.root / "ran").exists()
    assert f"for {moving.user}" not in moving.log, "it was not even told a user name"


async def test_TB7_a_key_that_the_server_does_not_let_in_is_told(sshd: Sshd) -> None:
    stranger = msgspec.structs.replace(sshd.callback(), private_key=sshd.new_key("stranger"))
    assert f"user {sshd.user} is not let in with this key" in (await refused(stranger)).detail
    assert "is not let in" in (await refused(msgspec.structs.replace(sshd.callback(), user="nobody-like-this"))).detail
    assert "settings cannot be used" in (await refused(msgspec.structs.replace(sshd.callback(), private_key=type(
        stranger.private_key)(SECRET)))).detail


async def test_TB6_nothing_of_the_user_we_run_as_is_looked_at(
        sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home with a configuration, a known host and a key that would each spoil the call; and an agent."""
    home = tmp_path / ".ssh"
    home.mkdir()
    (home / "config").write_text(f"Host *\n  ProxyCommand touch {tmp_path}/proxied\n  User other\n"
                                 "  HostKeyAlgorithms x\n")
    (home / "known_hosts").write_text("* ssh-ed25519 nonsense\n")
    (home / "id_ed25519").write_text("nonsense")
    monkeypatch.setenv("HOME", str(tmp_path))
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "agent"))
        agent.listen()
        agent.setblocking(False)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        assert (await ask(sshd.callback(GOOD))).password.reveal() == SECRET
        with pytest.raises(BlockingIOError):
            agent.accept()
    assert stat.S_ISDIR(home.stat().st_mode)
    assert sorted(path.name for path in home.iterdir()) == ["config", "id_ed25519", "known_hosts"]


# --- far sides that are none --------------------------------------------------------------------------------------


async def test_TB5_the_address_is_judged_when_it_is_connected_to(sshd: Sshd) -> None:
    delegate = Delegate("acme-ssh", "acme", sshd.callback())
    with pytest.raises(DelegatorError, match=r"127\.0\.0\.1 is this machine") as error:
        await SshCaller(Outbound()).obtain(asked(), delegate, datetime.now(UTC))
    assert error.value.kind is Kind.UNREACHABLE


@asynccontextmanager
async def peer(says: bytes, hang_up: bool = True) -> AsyncIterator[int]:
    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        if not hang_up:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(met, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("says", [
    b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-1.5-old\r\n", b"\x16\x03\x01" * 500,
    b"SSH-2.0-x\r\n" + b"\xff" * 4000, b"SSH-2.0-x\r\n\x00\x00\x00\x0c\x0a\x14" + b"\0" * 40])
async def test_TC10_a_peer_that_speaks_no_ssh_is_unreachable_and_no_more(sshd: Sshd, says: bytes) -> None:
    async with peer(says) as port:
        assert "no SSH connection" in (await refused(msgspec.structs.replace(sshd.callback(), port=port))).detail


async def test_TC10_a_peer_that_says_nothing_ends_with_the_budget(sshd: Sshd) -> None:
    before = descriptors()
    async with peer(b"", hang_up=False) as port:
        callback = msgspec.structs.replace(sshd.callback(), port=port)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await ask(callback)
    assert await settled(lambda: descriptors() <= before)


async def test_a7b_nobody_there_is_unreachable(sshd: Sshd) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        error = await refused(msgspec.structs.replace(sshd.callback(), port=port))
    assert error.detail.endswith(f"delegate.acme.example:{port}: Connection refused")


# --- the extra ----------------------------------------------------------------------------------------------------


async def test_a7b_without_the_extra_the_reason_and_the_remedy_are_told(
        sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    monkeypatch.delitem(sys.modules, "delegator.callbacks.ssh_session", raising=False)
    with pytest.raises(DelegatorError, match="the extra `ssh` is not installed") as error:
        await ask(sshd.callback())
    assert error.value.kind is Kind.UNREACHABLE
    assert "pip install" in error.value.hint


async def test_a13_a_command_is_not_told_how_it_ended_and_no_breaker_takes_that_for_a_success(sshd: Sshd) -> None:
    guard = Guard(Limits())
    callbacks = Callbacks({CallbackWay.SSH: SshCaller(Outbound())}, guard)
    delegate = Delegate("acme-ssh", "acme", sshd.callback())
    for number in range(5):
        with pytest.raises(DelegatorError):
            await callbacks.obtain(asked(f"ABC123{number}"), delegate, datetime.now(UTC))
    await callbacks.notify(Deployment(CLAIM, Result.DEPLOYED), delegate)
    assert callbacks.is_resting(delegate)
