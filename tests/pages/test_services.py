"""Pages that need somebody else's service beside the delegator: a relay, a receiver, name servers, PostgreSQL."""

from __future__ import annotations

import email
import json
from pathlib import Path

import pytest

from pki import Folder

from ..mailserver import PASSWORD, mail_server, webhook_receiver
from ..net.name_servers import bind
from ..postgres import run as as_postgres
from ..postgres import running_cluster
from . import bases
from .reader import Reader, reading
from .scene import Scene, free_port

pytestmark = pytest.mark.slow


@pytest.mark.counterpart("exim4", "openssl")
def test_notifications(place: Scene, first_start: Path, delegate_authority: Folder) -> None:
    """Two devices are activated; of one the administrator is told by mail, of the other by a call."""
    bases.begin(place, first_start)
    place.run("delegator customers add acme --title Acme\n(umask 077; openssl rand -hex 32 > acme.secret)\n"
              f"(umask 077; echo {PASSWORD} > var/relay.password)\ncp var/pki/ca.crt factory-ca.crt")
    (place.folder / "acme-ca.crt").write_bytes(delegate_authority.ca_path.read_bytes())
    secret = (place.folder / "acme.secret").read_text().strip()
    with (mail_server(delegate_authority) as relay,
          webhook_receiver(delegate_authority, place.folder, secret) as receiver,
          reading(place, "docs/notifications.md", test_notifications) as page):
        relay.start()
        place.words |= {"pip install '.[mail]'": ":", "relay.factory.example": "localhost",
                        "port = 587": f"port = {relay.port}",
                        "https://hooks.acme.example/": f"https://localhost:{receiver.port}/"}
        page.run("pip install")
        page.settings("[server]")
        place.settings('[mail]\nca = "acme-ca.crt"')
        place.restart()
        _by_mail(place, page)
        (mail,) = relay.mails()
        (place.folder / "mail.eml").write_bytes(mail)
        assert "ABC1234" in page.run("openssl cms")
        assert email.message_from_bytes(mail)["To"] == "admin@acme.example"
        page.run("delegator delegates add acme-hooks")
        place.run("delegator devices add ABC1235 --customer acme --delegate acme-hooks")
        place.activated("ABC1235")
        told = json.loads(receiver.told()[0])
        assert told["service_tag"] == "ABC1235"
        assert set(told) == set(json.loads(page.take('{"type"'))), "the page shows each member"
        page.run("delegator notifications list")
        assert len(receiver.told()) == len(relay.mails()) == 1
        place.restart()
        place.activated("ABC1237")


def _by_mail(place: Scene, page: Reader) -> None:
    """The page's two lines: somebody to tell, and then nobody any more."""
    somebody, nobody = page.take("delegator delegates add acme-small").splitlines()
    place.run(somebody)
    place.run("delegator devices add ABC1234 --customer acme --delegate acme-small\n"
              "delegator devices add ABC1236 --customer acme --delegate acme-small\n"
              "delegator devices add ABC1237 --customer acme --delegate acme-small")
    place.activated("ABC1234")
    place.run(nobody)
    place.activated("ABC1236")


DELEGATE = "provisioning-delegate.customer.test"


@pytest.mark.counterpart("named")
def test_domain_association(place: Scene, first_start: Path, tmp_path: Path) -> None:
    """A device that nobody registered, at an address whose name is in a customer's domain."""
    bases.begin(place, first_start)
    bases.owner(place)
    place.run(f"python -m pki delegate {DELEGATE}")
    (tmp_path / "names").mkdir()
    with bind(tmp_path / "names") as nameserver, reading(place, "docs/domain-association.md",
                                                         test_domain_association) as page:
        port = free_port()
        place.words |= {"customer.example": "customer.test", "192.0.2.7": "127.0.0.1"}
        own = f"var/pki/delegates/{DELEGATE}"
        place.serve("delegate", f"delegator delegate serve --host 127.0.0.1 --port {port} --data provisioning "
                    f"--ca factory-ca.crt --delegator delegator.example.com --certificate {own}.crt --key {own}.key",
                    port)
        page.settings("[domains]")
        place.settings(f'[domains]\nnameservers = ["{nameserver}"]\nprivate_networks = ["127.0.0.0/8"]\n'
                       f"callback_port = {port}")
        place.stop("delegator")
        said = page.run("delegator policies add by-dns")
        assert "domain:customer.test" in said
        place.start("delegator")
        place.environment["PYTHONPATH"] = f"{_devices_names(tmp_path)}:{place.environment['PYTHONPATH']}"
        for tag in ("ABC1234", "ABC1235"):
            place.activated(tag, document="<NTPServer>ntp.customer.test</NTPServer>".replace(".test", ".example"))
            place.restart()


def _devices_names(folder: Path) -> Path:
    """The device's network knows the delegate's name; this machine's resolver does not ask the test's name server."""
    shim = folder / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(
        "import socket\n_asked = socket.getaddrinfo\n"
        f"def getaddrinfo(host, *more, **words):\n    return _asked('127.0.0.1' if host == '{DELEGATE}' else host, "
        "*more, **words)\nsocket.getaddrinfo = getaddrinfo\n")
    return shim


@pytest.mark.counterpart("initdb")
def test_scale(place: Scene, first_start: Path) -> None:
    """Two delegators on one PostgreSQL, each with a device; the server and both start anew, and go on."""
    bases.begin(place, first_start)
    place.stop("delegator")
    del place.servers["delegator"]
    (place.folder / "credentials").mkdir(mode=0o700)
    (place.folder / "credentials" / "database-password").write_text("correct horse\n")
    (place.folder / "credentials" / "database-password").chmod(0o600)
    place.environment["CREDENTIALS_DIRECTORY"] = str(place.folder / "credentials")
    with running_cluster() as cluster, reading(place, "docs/scale.md", test_scale) as page:
        for line in page.take("CREATE ROLE").splitlines():
            cluster.sql(line.replace("'...'", "'correct horse'"))
        shown = "postgresql://delegator@db1.example,db2.example/delegator?sslmode=verify-full&sslrootcert=" \
                "/etc/delegator/db-ca.crt"
        place.words[shown] = cluster.url("delegator")
        page.settings("[store]")
        place.settings("[server]\nproxy_from = []")
        bases.serve(place)
        first, second = place.port, free_port()
        place.serve("second", "delegator serve", second, DELEGATOR_SERVER__PORT=str(second))
        place.run("delegator customers add acme --title Acme\n"
                  "delegator delegates add acme-small --customer acme --hosted 'admin-{tag}'\n"
                  "printf 'service_tag\\nSCALE01\\nSCALE02\\nSCALE03\\nSCALE04\\n' | "
                  "delegator devices import - --customer acme")
        for tag, port in (("SCALE01", first), ("SCALE02", second)):
            place.port = port
            place.activated(tag)
        seen = as_postgres("psql", "--no-psqlrc", "--tuples-only", "--no-align", "--host", cluster.socket, "--port",
                           cluster.port, "--username=delegator", "--dbname=delegator", "--command",
                           page.take("SET delegator.customer")).stdout
        assert "SCALE01" in seen
        cluster.stop()
        cluster.start()
        place.restart()
        for tag, port in (("SCALE03", first), ("SCALE04", second)):
            place.port = port
            place.activated(tag)
