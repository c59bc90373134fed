"""An empty folder, and what a reader of the pages has in it: a shell, servers that run, devices that are switched on.

The invariants: a page's commands run as they stand but for the scene's few `words` (host names, ports, folders of a
real machine); whatever a scene started has ended when it is left; a device counts as activated when the device client
says so and its state folder says what the page promises.
Must not live here: what stands on which page (plans), what a page needs besides (test_pages).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .reading import ROOT

PROJECT = ("examples", "scripts", "deploy")
"""What pages name of the project's own files."""
ENDS_WITHIN = 45.0
"""Seconds a server may take to end: the drain of the settings, and a machine that is busy."""
WITHIN = 60.0
"""Seconds a server has to listen; the machine is shared."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@dataclass
class Server:
    """A program that a page starts and leaves running."""

    line: str
    port: int
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None


@dataclass
class Scene:
    """`folder` is the reader's working folder and home. `words` are what a test has instead of a real machine."""

    folder: Path
    words: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    servers: dict[str, Server] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    activations: int = 0
    restarted: bool = False
    served_after_restart: bool = False

    def __post_init__(self) -> None:
        for name in PROJECT:
            (self.folder / name).symlink_to(ROOT / name)
        own = {name: value for name, value in os.environ.items() if not name.startswith(("DELEGAT", "PKI_"))}
        self.environment = {
            **own, "HOME": str(self.folder), "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin",
            "DELEGATOR_SERVER__HOST": "127.0.0.1", "DELEGATOR_SERVER__PORT": str(self.port),
            "DELEGATOR_OUTBOUND__ALLOW": "127.0.0.0/8", **self.environment}

    # --- words and commands ---

    def here(self, text: str) -> str:
        """The page's text with this scene's words in it."""
        for theirs, ours in self.words.items():
            text = text.replace(theirs, ours)
        return text

    def run(self, text: str, *, ends: int = 0) -> str:
        """Run lines of shell as a reader does. What they print."""
        done = subprocess.run(["/bin/sh", "-ec", self.here(text)], cwd=self.folder, env=self.environment, check=False,
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == ends, f"{self.here(text)}\nended with {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def settings(self, text: str) -> None:
        """Put what a page shows of the settings into delegator.toml, beside what stands there."""
        path = self.folder / "delegator.toml"
        tree = tomllib.loads(path.read_text()) if path.exists() else {}
        for section, values in tomllib.loads(self.here(text)).items():
            tree.setdefault(section, {}).update(values)
        lines = [line for section, values in tree.items()
                 for line in (f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()))]
        path.write_text("\n".join(lines) + "\n")

    # --- servers ---

    def serve(self, name: str, line: str, port: int, **environment: str) -> None:
        """Start what a page shows as a server, and wait until it listens."""
        self.servers[name] = server = Server(self.here(line), port, environment)
        self._start(name, server)

    def _start(self, name: str, server: Server) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            server.process = subprocess.Popen(["/bin/sh", "-c", f"exec {server.line}"], cwd=self.folder, stdout=log,
                                              stderr=log, env={**self.environment, **server.environment})
        until = time.monotonic() + WITHIN
        while time.monotonic() < until and server.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", server.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(f"{name} does not listen on {server.port}: {self.log(name)}")

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def stop(self, name: str) -> None:
        process = self.servers[name].process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"{name} does not end: {self.log(name)[-3000:]}") from None

    def start(self, name: str) -> None:
        self._start(name, self.servers[name])
        self.restarted = True

    def reload(self, name: str = "delegator") -> None:
        """SIGHUP, and wait for what is said of it. Raises AssertionError where it was refused."""
        before, process = self.log(name).count(" reload"), self.servers[name].process
        assert process is not None
        process.send_signal(signal.SIGHUP)
        until = time.monotonic() + WITHIN
        while self.log(name).count(" reload") == before and time.monotonic() < until:
            time.sleep(0.05)
        said = self.log(name).splitlines()[-1]
        assert " reload" in self.log(name)[-600:], self.log(name)[-2000:]
        assert "reload refused" not in said, said

    def restart(self) -> None:
        """Everything ends and starts anew, as after a power cut of the whole place."""
        for name in self.servers:
            self.stop(name)
        for name in self.servers:
            self.start(name)

    # --- devices ---

    def device(self, tag: str, *words: str, ends: int = 0) -> Path:
        """Mint a device's certificate and switch it on. Its state folder."""
        if not (self.folder / f"var/pki/devices/{tag}.crt").exists():
            self.run(f"python -m pki device {tag}")
        state = self.folder / f"device-{tag}"
        state.mkdir(mode=0o700, exist_ok=True)
        shown = [] if "--certificate" in words else [
            "--certificate", f"var/pki/devices/{tag}.crt", "--key", f"var/pki/devices/{tag}.key"]
        asked = ["delegator", "device", "activate", "--delegator", f"127.0.0.1:{self.port}", "--tag", tag, "--ca",
                 "var/pki/ca.crt", "--state", str(state), "--once", *shown, *words]
        done = subprocess.run(asked, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False,
                              timeout=120)
        logs = "".join(self.log(name)[-3000:] for name in self.servers)
        assert done.returncode == ends, f"{tag} ended with {done.returncode}\n{done.stdout}{done.stderr}\n{logs}"
        return state

    def activated(self, tag: str, *words: str, document: str | None = None) -> dict[str, Any]:
        """A device that is switched on ends as ready: confirmed, with its account, and with the document where there is
        one to fetch. Its credential."""
        state = self.device(tag, *words)
        assert json.loads((state / "state.json").read_text())["phase"] == "confirmed"
        fetched = state / "provisioning.xml"
        assert fetched.exists() is (document is not None), "a document where there is one, and only there"
        if document is not None:
            assert document in fetched.read_text()
        self.activations += 1
        self.served_after_restart |= self.restarted
        credential: dict[str, Any] = json.loads((state / "credential.json").read_text())
        return credential


@contextlib.contextmanager
def scene(folder: Path, **words: str) -> Iterator[Scene]:
    """A scene in an empty folder, which ends what it started."""
    made = Scene(folder, dict(words))
    try:
        yield made
        for name in made.servers:
            assert "Traceback" not in made.log(name), made.log(name)
    finally:
        for server in made.servers.values():
            if server.process is not None and server.process.poll() is None:
                server.process.kill()
                server.process.wait()
