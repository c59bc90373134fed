"""Writing is expected to fail: an 8-bit terminal, a full disk, a reader that left, a stream that was closed before.

The laws, for every program and every way to write: no traceback; what could not be written does not end with 0; what
was done is said all the same; what cannot be said changes nothing, unless it tells what lets devices in.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import build_device

from ..late import ran
from ..thorough import crossed
from .conftest import ROOT

PROGRAM = """
import sys
from pki.streams import program
def run():
    {body}
program(run)
"""
LOST = ("> /dev/full", ">&-", "> /dev/full 2> /dev/full", ">&- 2>&- <&-", "| true")
UNHEARD = ("2> /dev/full", "2>&-")


def _shell(command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DELEGATOR_", "LC_", "LANG"))}
    return subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=cwd, capture_output=True, timeout=60,
                          check=False, env={**kept, "PYTHONPATH": str(ROOT), "PY": sys.executable, **environment})


def _own(cwd: Path, body: str, how: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    (cwd / "program.py").write_text(PROGRAM.format(body=body))
    return _shell(f"$PY program.py {how}", cwd, **environment)


INTERRUPTED = """
import click, os, sys
from pki.streams import program
from {module} import main
@click.command()
def wait():
    os.kill(os.getpid(), 2)
type(main).get_command = lambda *_: wait
sys.argv[1:] = ["completion"]
program(main)
"""


@pytest.mark.parametrize("body", [
    PROGRAM.format(body="raise KeyboardInterrupt"), INTERRUPTED.format(module="pki.__main__"),
    INTERRUPTED.format(module="delegator.cli")], ids=["a script", "pki", "delegator"])
def test_ctrl_c_is_a_word_and_130_and_more_of_it_changes_neither(body: str) -> None:
    done = ran(signal.SIGINT, body)
    assert (done.returncode, done.stdout, done.stderr.lstrip()) == (130, "", "error: stopped\n")


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("body", ["print('x')", "print('x' * 100_000)", "sys.stdout.buffer.write(b'x')"])
def test_what_could_not_be_written_does_not_end_with_0(tmp_path: Path, body: str, how: str) -> None:
    done = _own(tmp_path, f"import time; time.sleep(0.1); {body}", how)
    assert done.returncode == (141 if how == "| true" else 1)
    said = {"> /dev/full": "No space left on device", ">&-": "it is closed"}.get(how)
    assert done.stderr.decode().startswith(f"error: standard output: {said}\n  next: ") if said else not done.stderr


@pytest.mark.parametrize("how", UNHEARD)
@pytest.mark.parametrize(("body", "code"), [("print('kept'); print('x' * 100_000, file=sys.stderr)", 0),
                                            ("print('kept'); sys.exit('words')", 1), ("print('kept'); sys.exit(6)", 6)])
def test_what_could_not_be_said_changes_nothing(tmp_path: Path, how: str, body: str, code: int) -> None:
    done = _own(tmp_path, body, how)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"kept\n", b"")


def test_a_file_never_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    body = "file = open('data', 'w'); print('words', file=sys.stderr); sys.exit(file.fileno())"
    assert _own(tmp_path, body, ">&- 2>&- <&-").returncode > 2
    assert (tmp_path / "data").read_text() == ""


def test_a_closed_input_says_so_when_it_is_read(tmp_path: Path) -> None:
    done = _own(tmp_path, "sys.stdin.read()", "<&-")
    assert done.stderr.splitlines()[-1] == b"OSError: [Errno 9] it is closed: 'standard input'"


@pytest.mark.parametrize("encoding", ["latin-1", "latin-1:strict", "ascii", "cp1252", "utf-8"])
def test_letters_that_a_terminal_does_not_have_are_escaped(tmp_path: Path, encoding: str) -> None:
    body = r"[print('\u0141\xf3d\u017a \udcff', file=f) for f in (sys.stdout, sys.stderr)] and None"
    done = _own(tmp_path, body, "", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    expected = "Łódź \udcff".encode(encoding.partition(":")[0], "backslashreplace") + b"\n"
    assert (done.stdout, done.stderr) == (expected, expected)


def test_the_code_of_a_program_stays_where_it_failed_already(tmp_path: Path) -> None:
    assert _own(tmp_path, "print('x'); return 6", "> /dev/full").returncode == 6
    assert _own(tmp_path, "print('x'); return 6", "| true").returncode == 6


# --- the programs themselves --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything: registered devices, a factory, the packed device client."""
    folder = tmp_path_factory.mktemp("house")
    build_device.pack(folder / "device.pyz", build_device.contents(ROOT, 1_000_000_000), 1_000_000_000)
    done = _shell("""set -e; D="$PY -m delegator"; $D config new-key var/sealing.key
        $D customers add loc --title 'Łódź GmbH'
        $D delegates add loc-small --customer loc --hosted 'müller-{tag}'
        $D devices add ABC1234 --customer loc --model R750
        $D policies add rollout; $D audit list > /dev/null
        $PY -m pki init --dir p --name 'Łódź CA'; $PY -m pki device ABC1234 --dir p""", folder, LC_ALL="C.UTF-8")
    assert done.returncode == 0, done.stderr
    return folder


READING = (
    "-m delegator --help", "-m delegator customers list", "-m delegator customers list --json",
    "-m delegator customers show loc", "-m delegator delegates show loc-small", "-m delegator devices list",
    "-m delegator devices list --json", "-m delegator devices export", "-m delegator devices export --format jsonl",
    "-m delegator policies try rollout --customer loc --list all", "-m delegator explain ABC1234",
    "-m delegator usage --json",
    "-m delegator usage --csv", "-m delegator audit list", "-m delegator config show", "-m delegator completion bash",
    "device.pyz reasons", "-m pki show ca --dir p",
    "-m pki show ca --dir p --json", "-m pki --help", "-m pki check --dir p")


@pytest.mark.slow
@pytest.mark.parametrize(("words", "encoding"), crossed(READING, ("latin-1", "ascii:strict"), 2))
def test_every_command_shows_what_it_can(house: Path, words: str, encoding: str) -> None:
    done = _shell(f"$PY {words}", house, PYTHONIOENCODING=encoding)
    assert b"Traceback" not in done.stderr
    assert done.returncode in (0, 5)  # as `explain` ends for a device that is turned away
    assert done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("words", "how"), crossed(READING, (*LOST, *UNHEARD), 3))
def test_every_command_survives_every_stream(house: Path, words: str, how: str) -> None:
    done = _shell(f"$PY {words} {how}", house, PYTHONIOENCODING="utf-8")
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    assert done.returncode in ((1, 5, 141) if how in LOST else (0, 5)) or "--help" in words
    if how in ("> /dev/full", ">&-"):
        assert b"standard output: " in done.stderr or "--help" in words


@pytest.mark.slow
@pytest.mark.parametrize("how", ["> /dev/full", ">&-", "| true"])
@pytest.mark.parametrize(("words", "told"), [
    ("-m delegator customers add {} --title x --json", "customer {} is registered"),
    ("-m pki server {} --dir p", "{}.crt"), ("-m pki server {} --dir p --json", "{}.crt")])
def test_what_was_done_is_told_although_it_could_not_be_said(house: Path, words: str, told: str, how: str) -> None:
    name = f"n{abs(hash((words, how))) % 10 ** 9}"
    done = _shell(f"$PY {words.format(name)} {how}", house)
    assert done.returncode in (1, 141)
    assert told.format(name) in done.stderr.decode()


@pytest.mark.slow
def test_a_problem_is_said_although_its_json_could_not_be(house: Path) -> None:
    for words in ("-m delegator customers show nobody --json", "-m pki show nobody --dir p --json"):
        done = _shell(f"$PY {words} > /dev/full", house)
        assert done.returncode == 1
        assert b"nobody" in done.stderr


@pytest.mark.slow
def test_what_programs_read_is_utf_8_on_any_terminal(house: Path) -> None:
    for words in ("devices export", "config show", "usage --csv"):
        shown = _shell(f"$PY -m delegator {words}", house, PYTHONIOENCODING="latin-1", DELEGATOR_MAIL__USER="Łódź")
        assert shown.returncode == 0
        shown.stdout.decode("utf-8")
    logged = _shell("$PY -m delegator device activate --delegator 127.0.0.1:1 --tag Ł --ca x --certificate x --key x "
                    "--state st --once --json", house, PYTHONIOENCODING="latin-1", LC_ALL="C.UTF-8")
    json.loads(logged.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("how", UNHEARD)
def test_what_lets_devices_in_and_nobody_could_hear_of_does_not_end_with_0(house: Path, how: str) -> None:
    """It was done all the same: whoever runs it has to look."""
    name = f"u{len(how)}"
    before = _shell(f"""set -e; D="$PY -m delegator"; $D customers add {name} --title x
        $D delegates add {name}-d --customer {name} --hosted 'u-{{tag}}'
        $D devices add UNH{len(how)}234 --customer {name} --model R750; $D customers disable {name}""", house)
    assert before.returncode == 0, before.stderr
    done = _shell(f"$PY -m delegator customers enable {name} {how}", house)
    assert done.returncode == 1
    assert json.loads(_shell(f"$PY -m delegator customers show {name} --json", house).stdout)["enabled"] is True
    heard = _shell(f"""D="$PY -m delegator"; $D customers disable {name} && $D customers enable {name}""", house)
    assert heard.returncode == 0
    assert b"WARNING" in heard.stderr
    unmoved = _shell(f"$PY -m delegator customers enable {name} {how}", house)
    assert unmoved.returncode == 0, "nothing was let in, so nothing was lost"
