"""Telling what happens, in plain words, to somebody who sees it for the first time.

The invariant: no password is shown; what is shown of a handshake is its trail, read from the delegator's own log.
Must not live here: setting the scene (stage, world).
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from delegator.demo.cast import Part
from delegator.demo.stage import Stage
from delegator.demo.world import Listening
from delegator.trail import tell

Say = Callable[[str], None]
WIDTH = 100
TRAIL_WITHIN = 3.0
"""Seconds for a trail to reach the log after its answer reached the device."""
STILL = 0.1
"""Seconds without another one: lines are written together, a moment later."""


def scene(stage: Stage, cast: tuple[Part, ...], delegator: Listening, delegate: Listening) -> dict[str, Any]:
    """The facts for scripts; every path is absolute."""
    return {
        "delegator": {"host": delegator.host, "port": delegator.port, "pid": delegator.pid,
                      "url": url(delegator), "ca": str(stage.factory / "ca.crt"), "database": str(stage.database),
                      "log": str(stage.log)},
        "delegate": {"host": delegate.host, "port": delegate.port, "pid": delegate.pid},
        "devices": [_device(stage, part) for part in cast],
    }


def _device(stage: Stage, part: Part) -> dict[str, str]:
    certificate, key = stage.certificate(part)
    return {"tag": part.tag, "identity": part.identity, "cert": str(certificate), "key": str(key),
            "request": str(stage.request(part))}


def url(delegator: Listening) -> str:
    return f"https://localhost:{delegator.port}/"


def introduction(say: Say, stage: Stage, delegator: Listening, delegate: Listening) -> None:
    say("A manufacturer's delegator and a customer's delegate are running on this machine:\n")
    say(f"  delegator   {url(delegator):<28} certificates of the factory, database {stage.database.name}")
    say(f"  delegate    https://localhost:{delegate.port}/       of customer Acme, which has its own authority")
    say(f"  everything  {stage.root}\n")
    say("Three devices are switched on now, one after the other.")


def act(say: Say, stage: Stage, part: Part, number: int, delegator: Listening) -> bool:
    """Switch one device on and tell its story; whether it ended as it should."""
    say(f"\n── {number}. {part.tag} " + "─" * (WIDTH - 8 - len(part.tag)))
    say(textwrap.fill(part.story, WIDTH) + "\n")
    done = _activate(stage, part, delegator)
    trails = _trails(stage.log, part.tag)
    for number, trail in enumerate(trails, 1):
        say(f"  connection {number}")
        for line in tell(trail):
            say(textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent=" " * 18))
        if trail["reasons"]:
            say(f"      why (the operator sees it, the device does not): {'; '.join(trail['reasons'])}")
    return _outcome(say, stage, part, done)


def _activate(stage: Stage, part: Part, delegator: Listening) -> subprocess.CompletedProcess[str]:
    certificate, key = stage.certificate(part)
    own = ["--own", str(stage.device_own(part))] if part.identity == "shared" and shutil.which("openssl") else []
    return subprocess.run(
        [sys.executable, "-m", "delegator.device", "activate", "--once", "--json",
         "--delegator", f"localhost:{delegator.port}", "--ca", str(stage.factory / "ca.crt"),
         "--certificate", str(certificate), "--key", str(key), "--tag", part.tag,
         "--state", str(stage.device_state(part)), "--hook", shlex.join([sys.executable, "-c", "pass"]), *own],
        capture_output=True, text=True, check=False, timeout=60)


def _outcome(say: Say, stage: Stage, part: Part, done: subprocess.CompletedProcess[str]) -> bool:
    facts = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}
    if part.customer is None:
        say(textwrap.fill(f"=> refused, as it should be. Its own log: {_last(done.stderr)}", WIDTH,
                          initial_indent="  ", subsequent_indent="     "))
        return done.returncode not in (0, 1, 2, 3)
    if done.returncode != 0:
        say(f"  => it failed: {_last(done.stderr)}")
        return False
    credential = json.loads(Path(facts["credential_file"]).read_text())
    data = f", fetched its provisioning data from {facts['delegate_url']}" if facts.get("provisioning_file") else ""
    say(textwrap.fill(f"=> activated: it took {credential['user_name']!r} as its user{data} and confirmed.", WIDTH,
                      initial_indent="  ", subsequent_indent="     "))
    say(f"     Its credential lies in {facts['credential_file']} (mode 0600).")
    if (stage.device_own(part) / "handshake.pem").exists():
        say("     It came with the shared certificate and has one of its own now; for it the shared one is refused.")
        say(f"     Key and certificate lie in {stage.device_own(part)}.")
    return True


def _last(words: str) -> str:
    return words.strip().rpartition("\n")[2].removeprefix("delegator device: ")


def _trails(log: Path, tag: str) -> list[dict[str, Any]]:
    """The trails of a tag that the delegator has logged, once there are any and no more come."""
    until = time.monotonic() + TRAIL_WITHIN
    found: list[dict[str, Any]] = []
    while True:
        before = len(found)
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        found = [line for line in lines if line.get("event") == "handshake" and line.get("tag") == tag]
        if 0 < before == len(found) or time.monotonic() > until:
            return found
        time.sleep(STILL if found else 0.05)


def curl(stage: Stage, part: Part, delegator: Listening) -> str:
    """The line with which one can play a device by hand."""
    certificate, key = stage.certificate(part)
    words = ["curl", "--cacert", str(stage.factory / "ca.crt"), "--cert", str(certificate), "--key", str(key),
             "-H", "Content-Type: text/xml", "--data-binary", f"@{stage.request(part)}", url(delegator)]
    return shlex.join(words)
