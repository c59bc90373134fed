"""Pages for whoever builds devices and runs the factory: certificates, the client, shared certificates, the README."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from . import bases
from .reader import reading
from .reading import ROOT
from .scene import Scene

pytestmark = pytest.mark.slow
SHARED = "--certificate", "var/pki/shared/shared-device.crt", "--key", "var/pki/shared/shared-device.key"


def _registered(place: Scene, *tags: str) -> None:
    place.run("delegator customers add acme --title Acme\n"
              "delegator delegates add acme-small --customer acme --hosted 'admin-{tag}'")
    for tag in tags:
        place.run(f"delegator devices add {tag} --customer acme")


@pytest.mark.counterpart("openssl")
def test_pki(place: Scene) -> None:
    """A delegator with the certificates of this page, which have names of their own, serves its devices; what the page
    revokes is refused."""
    (place.folder / "tags.csv").write_text("service_tag,model\nABC5555,R7\nABC6666,R7\n")
    place.run("(umask 077; echo correct horse > secret)")
    place.words |= {
        "/secure/pki --passphrase-prompt": "secure --passphrase-file secret", "/secure/pki": "secure",
        "/run/credentials/pki-passphrase": "secret", "get-it-from-your-vault": "cat secret",
        "generate-tags |": "printf 'ABC7777\\nABC8888\\n' |", "/mnt/line-7": "line-7"}
    with reading(place, "docs/pki.md", test_pki) as page:
        page.run("python -m pki init --name")
        place.run("delegator config new-key var/sealing.key")
        place.settings("""[server]
certificate = "var/pki/server/delegator.example.com.crt"
key = "var/pki/server/delegator.example.com.key"
[callbacks]
certificate = "var/pki/delegate-clients/delegator.example.com.crt"
key = "var/pki/delegate-clients/delegator.example.com.key"
""")
        bases.serve(place)
        _registered(place, "ABC1234", "ABC5555", "ABC6666")
        place.activated("ABC1234")
        page.run("python -m pki init --dir /secure/pki")
        page.run("python -m pki server delegator.example.com --alt localhost --alt 127.0.0.1 --renew")
        page.run("openssl req")
        page.run("python -m pki device --from")
        place.activated("ABC5555")
        page.run("python -m pki revoke")
        page.run("python -m pki show ABC1234", ends=2)  # openssl's word for a revoked one
        place.restart()
        place.device("ABC1234", "--again", ends=CLIENT_REFUSED)
        place.activated("ABC6666")


CLIENT_REFUSED = 29


def test_device_makers(place: Scene, first_start: Path) -> None:
    """The packed client, and the hook that sets an account: here a program of that name writes down what it is told."""
    bases.begin(place, first_start)
    bases.owner(place)
    bases.registered(place)
    bases.delegate(place)
    place.run("delegator devices add HOOK001 --customer acme\npython -m pki device ABC1234\n"
              "cp var/pki/devices/ABC1234.crt device.crt\ncp var/pki/devices/ABC1234.key device.key\n"
              "cp var/pki/ca.crt factory-ca.pem")
    (place.folder / "bin").mkdir()
    (place.folder / "bin" / "chpasswd").write_text("#!/bin/sh\ncat > \"$HOME/accounts\"\n")
    (place.folder / "bin" / "chpasswd").chmod(0o755)
    place.environment["PATH"] = f"{place.folder}/bin:{place.environment['PATH']}"
    place.words |= {
        "python3 scripts/build_device.py ":
            f"{sys.executable} {ROOT}/scripts/build_device.py --out dist/delegator-device.pyz ",
        "delegator.example:4433": f"127.0.0.1:{place.port}", "/etc/provisioning.xml": "$HOME/etc-provisioning.xml"}
    with reading(place, "docs/device-makers.md", test_device_makers) as page:
        page.run("python3 scripts/build_device.py")
        assert json.loads((place.folder / "state/state.json").read_text())["phase"] == "confirmed"
        looked = page.run("python3 dist/delegator-device.pyz status")
        assert "outcome: ready" in looked
        assert "outcome: good" in looked
        hook = place.folder / "apply-provisioning"
        hook.write_text(place.here(page.take("#!/bin/sh")))
        hook.chmod(0o755)
        document = "<ServiceTag>HOOK001</ServiceTag>"
        place.restart()
        given = place.activated("HOOK001", "--hook", str(hook), document=document)
    assert (place.folder / "accounts").read_text() == f"{given['user_name']}:{given['password']}\n"
    assert document in (place.folder / "etc-provisioning.xml").read_text()


@pytest.mark.counterpart("openssl")
def test_enrolment(place: Scene, first_start: Path) -> None:
    """A device with the shared certificate gets its own, loses it, and gets another."""
    bases.begin(place, first_start)
    place.run("python -m pki shared\ndelegator policies add shared --identity either")
    _registered(place, "ABC1234", "OWNS001")
    place.run("delegator customers change acme --policy shared")
    own = "--own", str(place.folder / "own")
    with reading(place, "docs/enrolment.md", test_enrolment) as page:
        page.run("delegator explain ABC1234 --identity shared")
        page.run("python -m pki init --dir var/enrolment-pki")
        page.settings("[server]")
        place.restart()
        place.run("mkdir -m 700 own")
        place.activated("ABC1234", *SHARED, *own)
        assert (place.folder / "own/handshake.pem").exists()
        place.device("ABC1234", "--again", *SHARED, ends=NOT_ENTITLED)
        page.run("delegator claims contested")
        page.run("delegator enrolments list")
        place.run("rm own/*\ndelegator claims release ABC1234 --because 'reset'")
        place.restart()
        place.activated("ABC1234", "--again", *SHARED, *own)
        page.run("delegator enrolments export")
        place.reload()
        place.activated("OWNS001")


NOT_ENTITLED = 35


@pytest.mark.counterpart("curl")
def test_readme(place: Scene) -> None:
    """The demonstration goes on, curl is the device, and then the device client is."""
    with (place.folder / "demo.log").open("w") as log, subprocess.Popen(
            ["delegator", "demo", "--keep", "--json", "--port", "0"], cwd=place.folder, text=True, stderr=log,
            stdout=subprocess.PIPE, env={name: value for name, value in place.environment.items()
                                         if not name.startswith("DELEGATOR_")}) as demo:
        try:
            assert demo.stdout is not None
            said = json.loads(demo.stdout.readline())
            place.port = said["delegator"]["port"]
            place.words[":4433"] = f":{place.port}"
            own = said["devices"][0]
            (place.folder / "var/pki/devices").mkdir(parents=True)
            (place.folder / "var/pki/ca.crt").symlink_to(said["delegator"]["ca"])
            for name, file in (("crt", own["cert"]), ("key", own["key"])):
                (place.folder / f"var/pki/devices/{own['tag']}.{name}").symlink_to(file)
            with reading(place, "README.md", test_readme) as page:
                given = re.findall("<UserName>(.*?)<", page.run("curl"))
                assert [place.activated(own["tag"], document=own["tag"])["user_name"]] == given
        finally:
            demo.terminate()
