"""What an activation costs a device: the figures of docs/device-makers.md, printed with `-s` and held to bounds."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from delegator.device import channel
from scripts import build_device

from ..thorough import THOROUGH

pytestmark = pytest.mark.slow
TELL = """
import runpy, sys, atexit
said = lambda: open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]
atexit.register(lambda: open({out!r}, "w").write(said()))
sys.argv = [{packed!r}, *sys.argv[1:]]
runpy.run_path({packed!r}, run_name="__main__")
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("dist") / "delegator-device.pyz"
    assert build_device.main(["--out", str(target)]) == 0
    return target


def resident(packed: Path, out: Path, *words: str) -> int:
    """KiB at most, as the kernel says it of the packed program."""
    code = TELL.format(out=str(out), packed=str(packed))
    subprocess.run([sys.executable, "-I", "-S", "-c", code, *words], check=True, capture_output=True, timeout=60)
    return int(out.read_text())


def cpu(*command: str, times: int = 10) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(times):
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / times


def test_memory_and_start(lab, say, packed):
    delegator = lab.delegator(lab.issued(lab.delegate()), say.CONFIRMED)
    bare = resident(packed, lab.folder / "bare", "reasons")
    whole = resident(packed, lab.folder / "whole", *lab.words(delegator, "--once", "--hook", lab.hook()))
    python = cpu(sys.executable, "-I", "-S", "-c", "")
    start = cpu(sys.executable, "-I", "-S", str(packed), "reasons")
    print(f"\nresident: start {bare} KiB, activation {whole} KiB\nCPU: Python {python:.3f} s, start {start:.3f} s")
    assert whole < 32 * 1024


class Counted:
    """What reaches the disk and the wire."""

    def __init__(self, monkeypatch):
        self.syncs = self.written = self.out = self.taken = 0
        fsync, replace, flush, take = os.fsync, Path.replace, channel.Channel._flush, channel.Channel._take

        def synced(descriptor):
            self.syncs += 1
            fsync(descriptor)

        def replaced(path, target):
            self.written += path.stat().st_size
            return replace(path, target)

        def flushed(one):
            self.out += one._outgoing.pending
            flush(one)

        def took(one):
            before = one._allowed
            take(one)
            self.taken += before - one._allowed
        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(Path, "replace", replaced)
        monkeypatch.setattr(channel.Channel, "_flush", flushed)
        monkeypatch.setattr(channel.Channel, "_take", took)

    def tell(self, what: str) -> None:
        print(f"\n{what}: {self.syncs} fsyncs, {self.written} bytes to the disk, {self.out} bytes sent, "
              f"{self.taken} bytes taken")


@pytest.mark.parametrize("keeps", [0, 5], ids=["a connection for each question", "one connection"])
def test_flash_and_wire_of_an_activation(lab, say, monkeypatch, keeps):
    counted = Counted(monkeypatch)
    delegator = lab.delegator(lab.issued(lab.delegate()), say.CONFIRMED, keeps=keeps)
    assert lab.run(delegator, "--hook", lab.hook())["outcome"] == "ready"
    counted.tell(f"one activation on {delegator.connections} connections")
    assert counted.syncs <= 20
    assert counted.out + counted.taken < 20_000


@pytest.mark.timeout(900)
@pytest.mark.parametrize("cause", ["nothing listens", "refused", "the owner's server is down",
                                   "the owner's server answers 401", "the hook fails"])
def test_flash_and_wire_of_a_day(lab, say, monkeypatch, cause):
    """Every 90 s as a device does, with THOROUGH in the environment; else every 900 s."""
    delegate = lab.delegate(say.http("", "401 Unauthorized") if "401" in cause else say.http(say.DATA))
    if "down" in cause:
        delegate.close()
    issued = lab.issued(delegate)
    delegator = lab.delegator(say.fault("NotEntitled") if cause == "refused" else lambda heard: (
        issued if "GetProvisioningCredential" in heard.body else say.CONFIRMED))
    script = lab.folder / "hook.sh"
    script.write_text("exit 1")
    counted = Counted(monkeypatch)
    facts = lab.run("localhost:1" if "nothing" in cause else delegator, "--interval",
                    "90" if THOROUGH else "900",
                    *(("--hook", f"sh {script}") if "hook" in cause else ()))
    assert "attempts" in facts, facts
    counted.tell(f"{cause}, {facts['attempts']} attempts, the delegator asked {len(delegator.heard)} times")
    assert counted.syncs <= 50
    assert counted.written < 1_000_000
