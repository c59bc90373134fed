"""Callback `local`: a customer's program on this machine; a crash, a hang or a bomb harms nothing but its call. A7d."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from delegator.callbacks import launch, local
from delegator.callbacks.local import Allowance, LocalCaller, said, user_named
from delegator.errors import DelegatorError, Kind
from delegator.model import Credential, Delegate, LocalCallback

from .conftest import CLAIM, asked

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples" / "local"
SECRET = "hunter2-Plant3d"
GOOD = f"echo '<Credential><UserName>u</UserName><Password>{SECRET}</Password></Credential>'"
QUICK = Allowance(seconds=5.0)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder that every user may enter, for programs and what they leave; temporary folders lie in it."""
    root = Path(tempfile.mkdtemp(prefix="bench-"))
    root.chmod(0o755)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(root / "tmp"))
    yield root
    shutil.rmtree(root)


def program(bench: Path, text: str, first: str = "#!/bin/sh") -> LocalCallback:
    path = bench / f"program-{len(list(bench.iterdir()))}"
    path.write_text(f"{first}\n{text}\n")
    path.chmod(0o755)
    return LocalCallback(str(path))


def python(bench: Path, text: str) -> LocalCallback:
    """A program in Python: standard library only, and no site."""
    return program(bench, text, f"#!{sys.executable} -IS")


async def ask(callback: LocalCallback, allowance: Allowance = QUICK) -> Credential:
    return await LocalCaller(allowance).obtain(asked(), Delegate("own", "acme", callback), datetime.now(UTC))


async def refused(callback: LocalCallback, allowance: Allowance = QUICK) -> str:
    with pytest.raises(DelegatorError) as error:
        await ask(callback, allowance)
    said, own_word, why = error.value.detail.partition(" says no: ")
    why = why if own_word else said.removeprefix("delegate own: ")
    own = re.match(r"exit (?!0|12[5-7])", why)  # T-B9: the program's own word for this device, which is an answer
    assert error.value.kind is (Kind.NOT_ENTITLED if own else Kind.UNREACHABLE)
    assert bool(own) is bool(own_word)
    assert SECRET not in error.value.detail
    return why


def alive(pid: str | int) -> bool:
    """A zombie is dead: it only waits for its parent."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


# --- what it is for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("callback", [
    lambda folder: LocalCallback(str(folder / "credential")),
    lambda folder: LocalCallback(str(folder), python="delegate:credential")], ids=["executable", "python"])
async def test_a7d_each_example_gives_each_claim_its_credential(bench: Path, callback: Any) -> None:
    for name in ("credential", "delegate.py"):
        shutil.copy(EXAMPLES / name, bench / name)
    assert "secret" in await refused(callback(bench))
    (bench / "secret").write_text("beef" * 16)
    first, again = await ask(callback(bench)), await ask(callback(bench))
    assert first.user_name == "setup-ABC1234"
    assert len(first.password.reveal()) == 24
    assert first.password == again.password
    if first.not_after is not None:
        assert timedelta(hours=23) < first.not_after - datetime.now(UTC) < timedelta(hours=25)


def test_a7d_the_request_is_one_json_object_with_every_name() -> None:
    assert json.loads(said(asked())) == {
        "claim_id": CLAIM, "service_tag": "ABC1234", "serial_number": "SN-1", "mac_addresses": ["00:1A:2B:3C:4D:5E"],
        "model": "R760", "ip_address": "192.0.2.7", "host_name": None, "domain": None, "peer_address": "198.51.100.9"}


REPORT = """
import json, os, resource, sys
request = json.load(sys.stdin)
here = os.stat(".")
seen = {"tag": request["service_tag"], "env": dict(os.environ), "args": sys.argv[1:], "cwd": os.getcwd(),
        "files": os.listdir("."), "mode": here.st_mode & 0o777, "mine": here.st_uid == os.getuid(),
        "fds": sorted(map(int, os.listdir("/proc/self/fd")))[:-1], "uid": os.getuid(), "groups": os.getgroups(),
        "session": os.getsid(0) == os.getpid(), "nice": os.nice(0),
        "limits": [resource.getrlimit(getattr(resource, "RLIMIT_" + name))[0]
                   for name in ("AS", "CPU", "FSIZE", "NOFILE", "CORE")],
        "alone": [line for line in open("/proc/self/status") if line.startswith(("NoNewPrivs", "SigIgn", "SigBlk"))]}
open("left", "w").write("x")
print(json.dumps({"user_name": "u", "password": json.dumps(seen)}))
"""


async def test_a7d_a_program_starts_with_nothing_but_its_request_and_its_limits(
        bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty environment, empty private folder that is gone afterwards, no descriptors, a session of its own."""
    monkeypatch.setenv("PLANTED", "planted")
    opened = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(opened, True)
    callback = python(bench, REPORT)
    try:
        answer = await ask(LocalCallback(callback.program, ("--site", "a b; $(c)")), Allowance(5.0, 2, 256))
    finally:
        os.close(opened)
    seen = json.loads(answer.password.reveal())
    assert {key: value for key, value in seen["env"].items() if not key.startswith("LC_")} == {}
    assert (seen["tag"], seen["args"]) == ("ABC1234", ["--site", "a b; $(c)"])
    assert (seen["files"], seen["mode"], seen["mine"]) == ([], 0o700, True)
    assert seen["fds"] == [0, 1, 2]
    assert seen["session"]
    assert seen["nice"] == min(os.nice(0) + 10, 19)
    assert seen["limits"] == [256 * launch.MEBIBYTE, 2, launch.FILE_SIZE, launch.OPEN_FILES, 0]
    assert "NoNewPrivs:\t1\n" in seen["alone"]
    assert "SigBlk:\t0000000000000000\n" in seen["alone"]
    assert not Path(seen["cwd"]).exists()
    assert list((bench / "tmp").iterdir()) == []


@as_root
async def test_a7d_a_program_can_run_as_a_user_of_its_own(bench: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    allowance = Allowance(user=user_named("nobody"))
    assert allowance.user == (nobody.pw_uid, nobody.pw_gid)
    told = '{\\"user_name\\": \\"$(id -un)\\", \\"password\\": \\"$(id -G) $(pwd) $(ls -ld .)\\"}'
    answer = await ask(program(bench, f'echo "{told}"'), allowance)
    assert answer.user_name == "nobody"
    assert answer.password.reveal().startswith(f"{nobody.pw_gid} {bench}/tmp/")
    assert "drwx------" in answer.password.reveal()
    assert await refused(program(bench, "cat /etc/shadow"), allowance) == "exit 1: cat: /etc/shadow: Permission denied"
    assert list((bench / "tmp").iterdir()) == []


def test_a7d_a_user_that_is_not_there_is_a_mistake_in_the_settings() -> None:
    assert user_named("") is None
    with pytest.raises(DelegatorError, match=r"\[callbacks\] local_user: there is no user 'no-such-user'") as error:
        user_named("no-such-user")
    assert error.value.kind is Kind.CONFIGURATION


# --- what goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "detail"), [
    ("exit 3", "exit 3"),
    ("echo 'not ours' >&2; echo more >&2; exit 1", "exit 1: not ours"),
    (r"printf '\033[2Jboo' >&2; exit 1", r"exit 1: \x1b[2Jboo"),
    ("kill -SEGV $$", "killed by SIGSEGV"), ("kill -KILL $$", "killed by SIGKILL"),
    ("kill -TERM $$", "killed by SIGTERM"),
    ("exit 0", "exit 0, but there is nothing on standard output"),
    (f"echo {SECRET}", "exit 0, but it is neither XML nor JSON"),
    (f"{GOOD}; exit 9", "exit 9"),
    (GOOD.replace("<U", "<ServiceTag>XYZ9999</ServiceTag><U"),
     "exit 0, but it answers for another device than ABC1234"),
    ("exec sleep 30", "no answer within 0.7 s"),
    ("trap '' TERM HUP INT; while :; do sleep 30; done", "no answer within 0.7 s"),
    ("yes", "it wrote more than 65536 bytes and was stopped"),
    ("yes >&2", "it wrote more than 65536 bytes and was stopped"),
    ("exec yes > file", "killed by SIGXFSZ, it wrote too large a file"),
])
async def test_a7d_a_program_that_fails_is_told_with_its_end_and_one_line(bench: Path, text: str, detail: str) -> None:
    limited = Allowance(seconds=0.7) if "no answer" in detail else QUICK
    started = time.monotonic()
    assert await refused(program(bench, text), limited) == detail
    assert time.monotonic() - started < 4
    assert list((bench / "tmp").iterdir()) == []


async def test_a7d_cpu_time_ends_before_time_does(bench: Path) -> None:
    callback = python(bench, "while True: pass")
    assert await refused(callback, Allowance(10.0, cpu=1)) == "killed by SIGXCPU, its CPU time was over"


async def test_a7d_memory_ends_at_its_limit(bench: Path) -> None:
    callback = python(bench, "hold = []\nwhile True: hold.append(bytearray(8 << 20))")
    assert await refused(callback, Allowance(5.0, memory=128)) == "exit 1: MemoryError"


async def test_a7d_what_cannot_be_run_is_told(bench: Path) -> None:
    nothing = bench / "nothing"
    assert await refused(LocalCallback(str(nothing))) == f"exit 126: {nothing} cannot be run: No such file or directory"
    nothing.write_text("#!/bin/sh\n")
    assert await refused(LocalCallback(str(nothing))) == f"exit 126: {nothing} cannot be run: Permission denied"
    nothing.chmod(0o755)
    nothing.write_bytes(b"\x00\x01\x02")
    assert await refused(LocalCallback(str(nothing))) == f"exit 126: {nothing} cannot be run: Exec format error"


async def test_a7d_a_program_need_not_read_its_request(bench: Path) -> None:
    assert (await ask(program(bench, f"exec 0<&-; {GOOD}"))).password.reveal() == SECRET


# --- a Python function --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "detail"), [
    ("raise LookupError('ABC1234 is not ours')", "exit 1: LookupError: ABC1234 is not ours"),
    ("import sys; sys.exit(3)", "exit 1: SystemExit: 3"),
    ("import os; os._exit(4)", "exit 4"),
    ("import os; os.abort()", "killed by SIGABRT"),
    ("return None", "exit 0, but it is neither XML nor JSON"),
    ("return {'user_name': 'u'}", "exit 0, but Object missing required field `password`"),
    ("return {'user_name': {1}}", "exit 1: AttributeError: 'set' object has no attribute 'isoformat'"),
    ("import asyncssh", "exit 1: ModuleNotFoundError: No module named 'asyncssh'"),
])
async def test_a7d_a_function_that_fails_is_told_with_its_exception(bench: Path, body: str, detail: str) -> None:
    (bench / "own.py").write_text(f"def credential(request):\n    {body}\n")
    assert await refused(LocalCallback(str(bench), python="own:credential")) == detail


async def test_a7d_what_a_function_prints_is_no_part_of_its_answer(bench: Path) -> None:
    (bench / "helper.py").write_text(f"ANSWER = {GOOD.removeprefix('echo ')}")
    (bench / "own.py").write_text("import helper, os\nprint('loading')\n"
                                  "def credential(request):\n    print('hello'); os.system('echo shell')\n"
                                  "    return helper.ANSWER\n")
    assert (await ask(LocalCallback(str(bench), python="own:credential"))).password.reveal() == SECRET
    assert not (bench / "__pycache__").exists()


@pytest.mark.parametrize(("name", "detail"), [
    ("none:credential", "exit 1: ModuleNotFoundError: No module named 'none'"),
    ("own:none", "exit 1: AttributeError: module 'own' has no attribute 'none'")])
async def test_a7d_a_function_that_is_not_there_is_told(bench: Path, name: str, detail: str) -> None:
    (bench / "own.py").write_text("")
    assert await refused(LocalCallback(str(bench), python=name)) == detail


# --- nothing else is harmed ---------------------------------------------------------------------------------------


@asynccontextmanager
async def watched(bench: Path, within: float = 1.0) -> AsyncIterator[list[float]]:
    """Other calls go on meanwhile, and the loop is held up by none of our code and for less than `within` seconds by
    anything; gives how long each call took."""
    took: list[float] = []
    late: list[float] = []
    busy: list[float] = []
    good = program(bench, GOOD)

    async def others() -> None:
        while True:
            started = time.monotonic()
            assert (await ask(good, Allowance(30.0))).password.reveal() == SECRET
            took.append(time.monotonic() - started)

    async def beat() -> None:
        while True:
            started, used = time.monotonic(), time.thread_time()
            await asyncio.sleep(0.01)
            late.append(time.monotonic() - started - 0.01)
            busy.append(time.thread_time() - used)

    tasks = [asyncio.create_task(work()) for work in (others, beat)]
    yield took
    while not took and not tasks[0].done():
        await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in done), done
    assert max(busy) < 0.25, "our own code held the loop"
    assert max(late) < within, "the loop was held up"


LEAVES = """
import os, signal, sys, time
mark = sys.argv[1]
for depth in range(3):                       # three generations, each in a session and a group of its own
    if os.fork():
        break
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    depth = 3
with open(f"{mark}.{depth}", "w") as out:
    out.write(str(os.getpid()))
if depth:
    time.sleep(60)
while len([name for name in os.listdir(os.path.dirname(mark)) if name.startswith(os.path.basename(mark) + ".")]) < 4:
    time.sleep(0.005)
%s
"""


@pytest.mark.parametrize(("ending", "detail"), [
    (f"print('<Credential><UserName>u</UserName><Password>{SECRET}</Password></Credential>')", ""),
    ("sys.exit(2)", "exit 2"), ("os.abort()", "killed by SIGABRT"), ("time.sleep(60)", "no answer within 1.5 s")])
async def test_a7d_nothing_that_a_program_started_outlives_its_call(bench: Path, ending: str, detail: str) -> None:
    """Daemons that took every step to get away: own sessions, parents that ended, signals ignored."""
    callback, mark = python(bench, LEAVES % ending), bench / "mark"
    callback = LocalCallback(callback.program, (str(mark),))
    if detail:
        assert await refused(callback, Allowance(1.5)) == detail
    else:
        assert (await ask(callback)).password.reveal() == SECRET
    pids = [path.read_text() for path in bench.glob("mark.*")]
    assert len(pids) == 4
    assert not [pid for pid in pids if alive(pid)]


async def test_a7d_of_a_launcher_that_does_not_come_to_it_the_delegator_ends_the_program(
        bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here its program stops it; on a machine busy enough it never has a turn. Were it killed, nobody could tell any
    more what is left, and a fork bomb had the machine full within minutes."""
    monkeypatch.setattr(local, "GRACE", 0.5)
    mark = bench / "mark"
    callback = program(bench, f"kill -STOP $PPID; for i in 1 2 3; do sleep 60 & echo $! >> {mark}; done; wait")
    assert await refused(callback, Allowance(0.5)) == "no answer within 0.5 s"
    pids = mark.read_text().split()
    assert len(pids) == 3
    async with asyncio.timeout(10):
        while [pid for pid in pids if alive(pid)] or local._late:
            await asyncio.sleep(0.02)


BOMBS = {
    "forks": "b() { b | b & }; b; sleep 30",
    "forks in sessions": "b() { while :; do setsid sh -c 'sleep 30' & done; }; b",
    "threads of output": "for i in 1 2 3 4 5 6 7 8; do yes & yes >&2 & done; wait",
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_a7d_a_bomb_ends_with_its_call_and_the_others_go_on(bench: Path, bomb: str) -> None:
    """Those that fork are counted and ended at once, also where processes end as quickly as they begin: when they were
    counted at quiet moments alone, there was none, and a bomb had four seconds and thousands of processes."""
    within = launch.SWEEP if bomb.startswith("forks") else 1.0  # hundreds of processes share the cores until swept
    async with watched(bench, within):
        detail = await refused(program(bench, BOMBS[bomb]), Allowance(4.0))
    assert detail in ("exit 125: more than 64 processes", "it wrote more than 65536 bytes and was stopped")
    left = subprocess.run(["pgrep", "-f", f"{bench}/program"], capture_output=True, text=True, check=False).stdout
    assert left == ""


async def test_a7d_hogs_of_memory_and_time_leave_the_others_alone(bench: Path) -> None:
    hog = python(bench, "hold = []\nfor _ in range(9): hold.append(bytearray(8 << 20))\nwhile True: pass")
    async with watched(bench) as took:
        details = await asyncio.gather(*(refused(hog, Allowance(1.5, memory=256)) for _ in range(4)))
    assert set(details) == {"no answer within 1.5 s"}
    assert len(took) >= 3


async def test_a7d_a_program_that_kills_its_launcher_dies_with_it(bench: Path) -> None:
    mark = bench / "mark"
    text = f"echo $$ > {mark}; kill -KILL $PPID; sleep 3"
    assert await refused(program(bench, text)) == "killed by SIGKILL"
    await asyncio.sleep(0.05)
    assert not alive(mark.read_text().strip())


async def test_a7d_when_the_delegator_dies_its_programs_do(bench: Path) -> None:
    """kill -9 in the middle of a call: no program goes on that nobody waits for."""
    mark = bench / "mark"
    callback = program(bench, f"echo $$ > {mark}.new; mv {mark}.new {mark}; exec sleep 30")
    script = ("import asyncio, sys; sys.path[:0] = [sys.argv[1]]\n"
              "from tests.callbacks.test_local import *\n"
              "asyncio.run(ask(LocalCallback(sys.argv[2]), Allowance(20.0)))\n")
    process = subprocess.Popen([sys.executable, "-c", script, Path(__file__).parents[2], callback.program],
                               env={**os.environ, "TMPDIR": str(bench / "tmp")})
    until = time.monotonic() + 15
    while not mark.exists() and time.monotonic() < until:
        await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 15
    while alive(mark.read_text().strip()) and time.monotonic() < until:
        await asyncio.sleep(0.02)
    assert not alive(mark.read_text().strip())
    until = time.monotonic() + 15
    while list((bench / "tmp").iterdir()) and time.monotonic() < until:
        await asyncio.sleep(0.02)
    assert list((bench / "tmp").iterdir()) == []


async def test_a7d_a_folder_full_of_anything_is_gone_afterwards(bench: Path) -> None:
    text = "mkdir -p a/b/c; ln -s / root; mkfifo pipe; touch -- -x; chmod 000 a/b; chmod 500 a; " + GOOD
    assert (await ask(program(bench, text))).password.reveal() == SECRET
    assert list((bench / "tmp").iterdir()) == []
    assert Path("/etc").exists()
