"""Killed at any call to the system: the next power-on becomes ready, with the same transaction id and nothing half.

strace kills at the n-th call of a kind. A tenth of them by a fixed seed, another in the place of one that this run does
not come to; with THOROUGH in the environment, all.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..thorough import THOROUGH

ROOT = Path(__file__).parents[2]
CALLS = ("fsync", "rename", "openat", "write", "pwrite64", "ftruncate", "connect", "sendto", "recvfrom", "mkdir",
         "unlink", "flock", "close", "vfork", "clone", "clone3", "wait4")
BY_SPEED = ("wait4", "recvfrom")
"""Called the more often the longer a child or a server takes, so that another run need not come to the last of them."""
pytestmark = [pytest.mark.slow, pytest.mark.counterpart("strace"), pytest.mark.timeout(1800)]


class Device:
    """One device whose activation is traced, with servers that keep connections and answer the same to the same."""

    def __init__(self, lab, say, folder: Path):
        folder.mkdir()
        lab.folder = folder
        self.lab, self.marks = lab, folder / "marks"
        self.delegate = lab.delegate()
        issued = lab.issued(self.delegate)
        self.delegator = lab.delegator(
            lambda heard: issued if "GetProvisioningCredential" in heard.body else say.CONFIRMED, keeps=5)
        hook = lab.hook(f"import sys\nsys.stdin.read()\nopen({str(self.marks)!r}, 'a').write('.')")
        self.words = lab.words(self.delegator, "--once", "--hook", hook)

    def traced(self, *how: str) -> int:
        code = (f"import sys; sys.path.insert(0, {str(ROOT)!r}); from delegator.device import main; sys.exit(main())")
        command = ["strace", "-o", str(self.lab.folder / "trace"), *how, sys.executable, "-I", "-S", "-c", code]
        return subprocess.run([*command, *self.words], capture_output=True, check=False, timeout=60).returncode

    def killed_and_started_again(self, call: str, number: int) -> bool:
        """Whether it was killed."""
        code = self.traced("-e", f"inject={call}:signal=SIGKILL:when={number}")
        assert code in (-9, 0), (call, number)  # 0: how often some are called depends on how fast a child is
        for name in ("state.json", "credential.json"):
            if (self.lab.state / name).exists():
                json.loads((self.lab.state / name).read_text())
        facts = self.lab.run(self.delegator, *self.words[self.words.index("--once"):])
        assert facts["outcome"] in ("ready", "already-ready"), (call, number, self.lab.err)
        asked = [heard.value("TransactionId") for heard in self.delegator.heard]
        assert set(asked) == {self.lab.saved()["transaction_id"]}
        assert len(asked) <= 4
        assert self.marks.read_text() in (".", "..")
        assert not [path.name for path in self.lab.state.iterdir() if path.name.startswith(".")]
        return code == -9


def test_a_kill_at_any_call_leaves_no_scar(lab, say, tmp_path):
    device = Device(lab, say, tmp_path / "whole")
    assert device.traced("-e", f"trace={','.join(CALLS)}") == 0
    called, moments, begun = dict.fromkeys(CALLS, 0), [], False
    for line in (lab.folder / "trace").read_text().splitlines():
        found = re.match(r"(\w+)\(", line)
        if found and found[1] in called:
            called[found[1]] += 1
            begun |= "/state" in line
            if begun:
                moments.append((found[1], called[found[1]]))
    kinds = {call for call, _ in moments}
    assert kinds >= {"fsync", "rename", "openat", "connect", "sendto", "recvfrom", "mkdir", "flock", "wait4"}, kinds
    wanted = len(moments) if THOROUGH else len(moments) // 10
    killed, missed = 0, []
    for number, moment in enumerate(random.Random(14).sample(moments, len(moments))):
        if killed == wanted:
            break
        if Device(lab, say, tmp_path / str(number)).killed_and_started_again(*moment):
            killed += 1
        else:
            missed.append(moment)
    print(f"\n{killed} kills; not come to: {missed}")
    assert killed == wanted or THOROUGH
    assert sum(call not in BY_SPEED for call, _ in missed) < 0.1 * len(moments), missed
