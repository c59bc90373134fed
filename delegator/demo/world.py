"""The world in motion: both servers as processes of their own, and what the store must know of customers and devices.

The invariant: whatever ends the demonstration, every process it started has ended when `servers` is left.
Must not live here: files (stage), telling (show).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from delegator import config
from delegator.demo.cast import Part
from delegator.demo.stage import Stage
from delegator.errors import DelegatorError, Kind
from delegator.model import (
    Customer,
    Delegate,
    HostedCallback,
    IdentityRule,
    Policy,
    Registration,
    Secret,
    SoapCallback,
)
from delegator.serving.parts import open_settings_store

END_IN = 10.0
"""Seconds a server has to end by itself once it was asked to."""


@dataclass(frozen=True, slots=True)
class Listening:
    """A server that runs and listens."""

    host: str
    port: int
    pid: int
    process: subprocess.Popen[str]


@contextlib.contextmanager
def servers(stage: Stage) -> Iterator[tuple[Listening, Listening]]:
    """The delegator and the customer's delegate, running. Raises DelegatorError when one does not start."""
    with contextlib.ExitStack() as stack:
        delegate = _started(stack, stage.delegate_log, "delegate", "serve", "--config",
                            str(stage.delegate_settings), "--json", "--log-json")
        delegator = _started(stack, stage.log, "--config", str(stage.settings), "serve", "--json")
        yield delegator, delegate


def _started(stack: contextlib.ExitStack, log: Path, *words: str) -> Listening:
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "-m", "delegator", *words], stdout=subprocess.PIPE, stderr=file,
                                   stdin=subprocess.DEVNULL, text=True, start_new_session=True, env=_environment())
    stack.callback(_end, process)
    assert process.stdout is not None
    said = json.loads(process.stdout.readline() or "{}")
    if "pid" not in said:
        code = process.wait()
        raise DelegatorError(_KINDS.get(code, Kind.UNAVAILABLE), f"a server did not start: {_last_words(log)}",
                             hint=f"its log is {log}")
    return Listening(said["host"], said["port"], said["pid"], process)


_KINDS = {3: Kind.CONFIGURATION, 6: Kind.CONFLICT}


def _environment() -> dict[str, str]:
    """A newcomer's shell may hold settings of another delegator: they are not for this one."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("DELEGATOR_", "DELEGATE_"))}


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "; ".join(line.strip() for line in lines[-2:]) or "it said nothing"


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_IN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


async def register(stage: Stage, cast: Sequence[Part], delegate_port: int) -> None:
    """Two customers and what they own. Acme answers for itself; Globex lets the delegator do it."""
    store = await open_settings_store(config.load(stage.settings, {}))
    try:
        await store.add_policy(Policy("acme-own-only"), datetime.now(UTC))
        await store.add_policy(Policy("globex-registered", identity=IdentityRule.EITHER), datetime.now(UTC))
        await store.add_customer(Customer("acme", "Acme Corporation", policy="acme-own-only"), datetime.now(UTC))
        await store.add_customer(Customer("globex", "Globex Industries", policy="globex-registered"), datetime.now(UTC))
        anchor = (stage.customer / "ca.crt").read_text()
        await store.add_delegate(Delegate("acme-server", "acme", SoapCallback(
            "localhost", delegate_port, "/", trust_anchor=anchor, address="127.0.0.1")), datetime.now(UTC))
        await store.add_delegate(Delegate("globex-hosted", "globex", HostedCallback("root", Secret("{random}"))),
                                 datetime.now(UTC))
        await store.add_devices((Registration(part.customer, part.tag) for part in cast if part.customer is not None),
                                datetime.now(UTC))
    finally:
        await store.close()
