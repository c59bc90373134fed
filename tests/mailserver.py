"""A real mail server, Exim, as a process on a free port of this machine, and a receiver of webhooks. Not our code.

Exim offers STARTTLS, asks for authentication behind it, and delivers into a folder. It runs without privileges.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pki import Folder

ROOT = Path(__file__).parents[1]
USER, PASSWORD = "delegator", "Re1ay-Passw0rd"
CONFIGURATION = """\
primary_hostname = mail.test
spool_directory = {root}/spool
log_file_path = {root}/log-%slog
pid_file_path = {root}/pid
exim_user = {user}
exim_group = {group}
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
tls_advertise_hosts = {tls}
tls_certificate = {root}/mail.crt
tls_privatekey = {root}/mail.key
auth_advertise_hosts = ${{if def:tls_in_cipher{{*}}{{}}}}
acl_smtp_rcpt = recipient
acl_smtp_data = accept
deliver_drop_privilege = true
rfc1413_query_timeout = 0s
never_users =
begin acl
recipient:
  deny local_parts = nobody
       message = no such mailbox
  accept authenticated = *
  deny message = authentication is required
begin routers
all:
  driver = accept
  transport = box
begin transports
box:
  driver = appendfile
  directory = {root}/box
  maildir_format
  create_directory
  user = {user}
  group = {group}
begin retry
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{{name}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@dataclass
class MailServer:
    """Start and stop it as often as a test likes; what it took is in its box."""

    root: Path
    port: int
    identity: pwd.struct_passwd
    process: subprocess.Popen[bytes] | None = None

    def start(self, *, tls: bool = True) -> None:
        (self.root / "exim.conf").write_text(CONFIGURATION.format(
            root=self.root, port=self.port, user=self.identity.pw_uid, group=self.identity.pw_gid, name=USER,
            password=PASSWORD, tls="*" if tls else ""))
        drop = {} if os.geteuid() else {"user": self.identity.pw_uid, "group": self.identity.pw_gid,
                                        "extra_groups": []}
        program = shutil.which("exim4", path=f"{os.environ['PATH']}:/usr/sbin") or "exim4"
        self.process = subprocess.Popen([program, "-C", str(self.root / "exim.conf"), "-bdf"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        start_new_session=True, **drop)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise AssertionError("exim does not listen: " + self.log)

    def stop(self) -> None:
        """Once what it has accepted is delivered: deliveries are processes of their own, and outlive it."""
        if self.process is not None:
            until = time.monotonic() + 2
            while self.log.count(" <= ") > self.log.count(" Completed") and time.monotonic() < until:
                time.sleep(0.02)
            os.killpg(self.process.pid, signal.SIGKILL)  # its connections are processes of their own
            self.process.wait()
            self.process = None

    @property
    def log(self) -> str:
        return "".join(path.read_text() for path in self.root.glob("log-*"))

    def mails(self, wanted: int = 1, seconds: float = 10) -> list[bytes]:
        """What was delivered, once that many have come or the time is over."""
        until = time.monotonic() + seconds
        while len(found := sorted(self.root.glob("box/new/*"))) < wanted and time.monotonic() < until:
            time.sleep(0.02)
        return [path.read_bytes() for path in found]


@contextlib.contextmanager
def mail_server(authority: Folder) -> Iterator[MailServer]:
    """A server that does not run yet. Its folder is of its own user, who may not enter pytest's."""
    identity = pwd.getpwuid(os.geteuid()) if os.geteuid() else pwd.getpwnam("Debian-exim")
    root = Path(tempfile.mkdtemp(prefix="mail-"))
    chain = authority.certificate_path("delegate-server", "localhost")
    shutil.copy(chain, root / "mail.crt")
    shutil.copy(chain.with_suffix(".key"), root / "mail.key")
    (root / "spool").mkdir()
    if not os.geteuid():
        for path in (root, *root.iterdir()):
            os.chown(path, identity.pw_uid, identity.pw_gid)
    server = MailServer(root, free_port(), identity)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(root, ignore_errors=True)


@dataclass
class Receiver:
    """examples/webhook_receiver.py as a process."""

    process: subprocess.Popen[str]
    port: int
    lines: Path

    def told(self, wanted: int = 1, seconds: float = 10) -> list[str]:
        until = time.monotonic() + seconds
        while len(found := self.lines.read_text().splitlines()) < wanted and time.monotonic() < until:
            time.sleep(0.02)
        return found


@contextlib.contextmanager
def webhook_receiver(authority: Folder, folder: Path, secret: str) -> Iterator[Receiver]:
    chain = authority.certificate_path("delegate-server", "localhost")
    (folder / "webhook.secret").write_text(secret + "\n")
    with (folder / "webhooks").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "examples" / "webhook_receiver.py"), "--certificate", str(chain), "--key",
             str(chain.with_suffix(".key")), "--secret-file", str(folder / "webhook.secret"), "--host", "127.0.0.1",
             "--port", "0"], stdout=out, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        yield Receiver(process, int(process.stderr.readline().split()[-1]), folder / "webhooks")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
