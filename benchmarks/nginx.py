"""nginx at its leanest, the yardstick: bare as Debian packages it, without session tickets, and on a newer OpenSSL.

The invariant: each answers a static page after the same mutual TLS, with one worker and no log.
Must not live here: load, statistics, other servers.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.fleet import HOST, Device, Fleet
from benchmarks.servers import Cores, Server, end, free_port, wait_for
from delegator.model.places import authority

PLAIN = b"<answer>" + b"x" * 783 + b"</answer>"
"""What nginx answers: 800 bytes, as long as our answer with a delegate's address."""
_SETTINGS = """\
daemon off; worker_processes 1; pid {prefix}/nginx.pid; error_log {prefix}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; default_type text/xml;
  client_body_temp_path {prefix}/body; proxy_temp_path {prefix}/proxy; fastcgi_temp_path {prefix}/fastcgi;
  uwsgi_temp_path {prefix}/uwsgi; scgi_temp_path {prefix}/scgi;
  ssl_certificate {certificate}; ssl_certificate_key {key};
  ssl_client_certificate {ca}; ssl_verify_client on;
  ssl_protocols TLSv1.2 TLSv1.3;
  {tickets}
  server {{ listen {place} ssl; location / {{ return 200 "{answer}"; }} }}
}}
"""
"""No file and no revocation list, which we do check."""
BARE, LEAN, NEWER = "nginx", "nginx without tickets", "nginx without tickets, newer OpenSSL"
_LEAN = "ssl_session_tickets off; ssl_session_cache off; ssl_conf_command NumTickets 0;"
TICKETS = {BARE: "", LEAN: _LEAN, NEWER: _LEAN}
"""Bare, as Debian packages it, nginx sends each device two session tickets, which costs it half as much again. Without
them it does what we do, and is the harder measure. `ssl_session_tickets off` alone does not stop them in TLS 1.3."""


class Nginx(Server):
    """A static page, as a server of a run."""

    def good(self, device: Device, body: bytes) -> bool:
        return body == PLAIN


def program() -> str | None:
    return shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")


def ways() -> list[str]:
    """The names of TICKETS that this machine has."""
    if program() is None:
        return []
    return [BARE, LEAN, *([NEWER] if _newer() else [])]


def _newer() -> Path | None:
    """A folder with a newer OpenSSL's shared libraries: those inside the wheel psycopg-binary (extra `bench`), which
    are of the generation that nginx as packaged can be started with. The delegator's own is built into its wheel."""
    found = importlib.util.find_spec("psycopg_binary")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parents[1] / "psycopg_binary.libs"
    return folder if any(folder.glob("libssl-*.so.3")) else None


def _libraries(prefix: Path, name: str) -> Mapping[str, str]:
    """The environment in which nginx finds the newer libraries under the names it asks for."""
    newer = _newer() if name == NEWER else None
    if newer is None:
        return {}
    folder = prefix / "libraries"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in newer.iterdir():
        (folder / file.name).symlink_to(file)
        if found := re.fullmatch(r"(lib(?:ssl|crypto))-[0-9a-f]+(\.so\.3)", file.name):
            (folder / (found[1] + found[2])).symlink_to(file)
    return {"LD_LIBRARY_PATH": str(folder)}


def described(place: Path, name: str) -> str:
    """nginx's version and the OpenSSL it runs with."""
    said = subprocess.run([str(program()), "-V"], capture_output=True, text=True, check=True,
                          env=os.environ | _libraries(_prefix(place, name), name)).stderr
    running = re.search(r"running with (OpenSSL \S+)", said) or re.search(r"built with (OpenSSL \S+)", said)
    version = re.search(r"nginx/(\S+)", said)
    return (f"nginx {version[1] if version else '?'}, {running[1] if running else 'OpenSSL ?'}, "
            "static answer of 800 bytes")


def _prefix(place: Path, name: str) -> Path:
    return place / name.replace(" ", "-").replace(",", "")


def start(name: str, fleet: Fleet, cores: Cores, under: Sequence[str] = ()) -> Server:
    """nginx with the same certificate and anchors; `name` is one of `ways`. Raises ServerError."""
    prefix = _prefix(fleet.place, name)
    prefix.mkdir(exist_ok=True)
    address = (HOST, free_port())
    settings = prefix / "nginx.conf"
    settings.write_text(_SETTINGS.format(
        prefix=prefix, place=authority(HOST, address[1]), certificate=fleet.certificate,
        key=fleet.certificate.with_suffix(".key"), ca=fleet.pki.ca_path, answer=PLAIN.decode(), tickets=TICKETS[name]),
        encoding="utf-8")
    with cores.for_server():
        alone = ["-g", "master_process off;"] if under else []
        process = subprocess.Popen([*under, str(program()), "-p", str(prefix), "-c", str(settings), "-e",
                                    "error.log", *alone], env=os.environ | _libraries(prefix, name),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(process, address, prefix / "error.log")
    except BaseException:
        end(process)
        raise
    return Nginx(name, process, address)
