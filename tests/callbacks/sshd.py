"""A customer's machine: a real OpenSSH sshd on loopback, run by and for whoever runs the tests."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from delegator.model import Secret, SshCallback

ROOT = Path(__file__).parents[2]
GET_CRED = ROOT / "examples" / "ssh" / "getCred"


class Sshd:
    """One server with its host keys and a user's key that is let in. `start` and `stop` as often as a test likes."""

    def __init__(self, root: Path, kinds: tuple[str, ...] = ("ed25519",), extra: str = "") -> None:
        self.root = root
        self.user = getpass.getuser()
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None
        self.private_key = self.new_key("user")
        self.authorized_keys = root / "authorized_keys"
        self.authorized_keys.write_text((root / "user.pub").read_text())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.kinds = kinds

    def new_key(self, name: str, kind: str = "ed25519") -> Secret:
        path = self.root / name
        for old in (path, path.with_suffix(".pub")):
            old.unlink(missing_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "test", "-f", path], check=True)
        return Secret(path.read_text())

    def host_key(self, kind: str | None = None) -> str:
        return (self.root / f"host_{kind or self.kinds[0]}.pub").read_text()

    def fingerprint(self, kind: str | None = None) -> str:
        """As OpenSSH's own tool tells it."""
        told = subprocess.run(["ssh-keygen", "-l", "-f", self.root / f"host_{kind or self.kinds[0]}.pub"],
                              capture_output=True, text=True, check=True)
        return told.stdout.split()[1]

    def start(self) -> None:
        for kind in self.kinds:
            if not (self.root / f"host_{kind}").exists():
                self.new_key(f"host_{kind}", kind)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it locks itself in before a login
        host_keys = "".join(f"HostKey {self.root}/host_{kind}\n" for kind in self.kinds)
        (self.root / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\n{host_keys}AuthorizedKeysFile {self.authorized_keys}\n"
            "PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            f"PermitRootLogin prohibit-password\nLogLevel VERBOSE\n{self._extra}")
        sshd = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin")
        assert sshd is not None
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen([sshd, "-D", "-e", "-f", self.root / "sshd_config"], stderr=log)
        until = time.monotonic() + 10
        while time.monotonic() < until and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise AssertionError(self.log)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(10)
            self._process = None

    @property
    def log(self) -> str:
        return (self.root / "log").read_text()

    def callback(self, command: str = f"{GET_CRED} {{tag}} {{ip}}", kind: str | None = None) -> SshCallback:
        """How a delegate here is registered."""
        return SshCallback("delegate.acme.example", self.user, self.private_key, self.host_key(kind), self.port,
                           command, "127.0.0.1")
