"""What owners of devices read: their page and the four ways to answer. Each example ends with a device activated."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..callbacks.sshd import GET_CRED, Sshd
from . import bases
from .reader import reading
from .scene import Scene, free_port

pytestmark = pytest.mark.slow
OURS = "<NTPServer>ntp.customer.example</NTPServer>"
"""Stands in examples/delegate/default.xml."""


@pytest.mark.counterpart("openssl", "curl")
def test_customers(place: Scene, first_start: Path) -> None:
    """An authority, a delegate, three devices; everything starts anew; then the page's own delegate in its stead."""
    bases.begin(place, first_start)
    with reading(place, bases.CUSTOMERS, test_customers) as page:
        place.words |= {"delegate.acme.example:8443": f"localhost:{free_port()}", "delegate.acme.example": "localhost"}
        page.run("openssl req -x509")
        place.run("cp var/pki/ca.crt factory-ca.crt")
        page.run("mkdir -p provisioning")
        page.run("delegator policies add acme-rollout")
        port = bases.delegate_port(place)
        page.serve("delegate", "delegator delegate serve", port, DELEGATE_DELEGATE__HOST="127.0.0.1",
                   DELEGATE_DELEGATE__PORT=str(port))
        given = place.activated("ABC1234", document=OURS)
        place.environment |= {"USER_NAME": given["user_name"], "PASSWORD": given["password"]}
        assert OURS in page.run("curl --silent"), "for ten more minutes"
        assert "ABC1234" in page.run("delegator delegate list")
        place.run("delegator devices add ORDER01 --order 4711")
        place.activated("ORDER01", document=OURS)
        page.run("delegator customers add small")
        assert place.activated("ABC1235")["user_name"] == "admin-ABC1235"
        place.restart()
        place.run("delegator devices add LATER01 --customer acme")
        place.activated("LATER01", document=OURS)

        _settings_in_a_file(place, port)
        place.stop("delegate")
        del place.servers["delegate"]
        place.words["--port 8443"] = f"--port {port}"
        page.serve("minimal", "python3 examples/delegate_minimal.py", port)
        for tag in ("MINI001", "MINI002"):
            place.run(f"delegator devices add {tag} --customer acme")
            place.activated(tag, document=f"<ServiceTag>{tag}</ServiceTag>")
            place.restart()


def _settings_in_a_file(place: Scene, port: int) -> None:
    """What the page says in a sentence: the same with examples/delegate/delegate.toml, in the places that it names."""
    place.stop("delegate")
    place.run("mkdir var/delegate\ncp delegate.crt delegate.key factory-ca.crt var/delegate\n"
              "delegator devices add TOML001 --customer acme")
    place.serve("delegate", "delegator delegate serve --config examples/delegate/delegate.toml", port,
                DELEGATE_DELEGATE__DELEGATORS="delegator.example.com", DELEGATE_DELEGATE__HOST="127.0.0.1",
                DELEGATE_DELEGATE__PORT=str(port))
    place.activated("TOML001", document=OURS)


@contextlib.contextmanager
def nginx(place: Scene, block: str, users: str) -> Iterator[None]:
    """The page's web server, with another file of users where it is another one's."""
    port = free_port()
    text = block.replace("listen 443", f"listen 127.0.0.1:{port}").replace("start.users", users).replace(
        "/srv/provisioning", str(place.folder / "provisioning"))
    name = f"nginx-{port}"
    (place.folder / f"{name}.conf").write_text(
        f"daemon off; pid {name}.pid; error_log stderr; {'user root;' if os.geteuid() == 0 else ''} events {{}}\n"
        f"http {{ access_log off;\n{place.here(text)}}}\n")
    place.serve(name, f"nginx -p {place.folder} -c {name}.conf", port)
    before = dict(place.words)
    place.words["https://start.acme.example/"] = f"https://localhost:{port}/"
    place.words |= {theirs: place.words.pop(theirs) for theirs in before}  # the longer one comes first
    yield
    place.words = before


@pytest.mark.counterpart("sshd", "ssh-keygen", "nginx", "openssl")
def test_callbacks(place: Scene, first_start: Path) -> None:
    """soap, ssh with a web server, hosted with and without one, a program and a function of the owner's."""
    (place.folder / "sshd").mkdir()
    (place.folder / "acme").mkdir()
    environment = f"SetEnv GETCRED_STATE={place.folder}/state GETCRED_OWNED={place.folder}/owned\n"
    sshd = Sshd(place.folder / "sshd", extra=environment)
    sshd.authorized_keys = place.folder / ".ssh/authorized_keys"
    sshd.start()
    place.words |= {
        "delegator@delegate.acme.example:22": f"{sshd.user}@127.0.0.1:{sshd.port}",
        "delegate.acme.example:22": f"127.0.0.1:{sshd.port}", "SHA256:...": sshd.fingerprint(),
        "/etc/ssh/ssh_host_ed25519_key.pub": "sshd/host_ed25519.pub", "/opt/acme": f"{place.folder}/acme",
        "/usr/local/bin/getCred": str(GET_CRED)}
    try:
        _callbacks(place, sshd, first_start)
    finally:
        sshd.stop()


def _callbacks(place: Scene, sshd: Sshd, first_start: Path) -> None:
    bases.begin(place, first_start)
    bases.owner(place)
    bases.registered(place)
    bases.delegate(place)
    shutil.copy(place.folder / "delegate.key", place.folder / "start.key")
    shutil.copy(place.folder / "delegate.crt", place.folder / "start.crt")

    def own(delegate: str, tag: str) -> str:
        place.run(f"delegator devices add {tag} --customer acme --delegate {delegate}")
        return tag
    with reading(place, "docs/callbacks.md", test_callbacks) as page:
        page.run("delegator delegates add acme-server")
        place.activated(own("acme-server", "SOAP001"), document=OURS)
        shutil.move(place.folder / "delegate.key", place.folder / "delegate-server.key")
        web = page.take("server {")
        assert sshd.fingerprint() in page.run("ssh-keygen")
        with nginx(place, web, "state/users"):
            page.run("delegator delegates scan-host-key")
            assert not (place.folder / "delegate.key").exists()
            given = place.activated(own("acme-ssh", "SSH0001"), document=OURS)
            assert given["user_name"] == "temp-SSH0001"
        shutil.move(place.folder / "delegate-server.key", place.folder / "delegate.key")
        page.run("delegator delegates add acme-hosted")
        assert place.activated(own("acme-hosted", "HOST001"))["user_name"] == "admin-HOST001"
        with nginx(place, web, "start.users"):
            page.run("(umask 077; openssl rand")
            assert place.activated(own("acme-start", "START01"), document=OURS)["user_name"] == "setup"
        page.run("install -m 755 examples/local/credential")
        page.run("install -m 644 examples/local/delegate.py")
        for delegate, tag in (("acme-own", "OWN0001"), ("acme-function", "FUNC001")):
            assert place.activated(own(delegate, tag))["user_name"] == f"setup-{tag}"
        place.restart()
        for delegate, document in (("acme-ssh", OURS), ("acme-start", OURS), ("acme-own", None), ("acme-server", OURS)):
            place.activated(own(delegate, f"AGAIN{delegate[5:].upper().replace('-', '')[:6]}"), document=document)
