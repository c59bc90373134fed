"""The operators' page from its first line to its last: a factory, a registry, copies, keys, and a new authority."""

from __future__ import annotations

import pytest

from . import bases
from .reader import Reader, reading
from .scene import Scene

pytestmark = pytest.mark.slow
OURS = "<NTPServer>ntp.customer.example</NTPServer>"
REFUSED = 29
"""client-refused: the delegator did not accept this device's certificate."""


@pytest.mark.counterpart("openssl")
def test_operators(place: Scene) -> None:
    """Each section ends with a device activated, and the whole starts anew in between."""
    with reading(place, bases.OPERATORS, test_operators) as page:
        page.run("python -m pki init --name")
        page.serve("delegator", "delegator serve", place.port)
        bases.owner(place)
        bases.delegate(place)
        _registering(place, page)
        _copies(place, page)
        _keys(place, page)
        _rollover(place, page)


MORE = ("CHANGE1", "BACKUP1", "BACKUP2", "RENEWED", "SEALED1", "OLD0001", "OLD0002", "OLD0003", "NEW0001", "NEW0002")
"""Further devices of Acme's, for later sections: registered and minted in one go, activated one after the other."""


def _further(place: Scene) -> None:
    rows = "\n".join(f"{tag},acme,acme-berlin" for tag in MORE)
    old = "\n".join(tag for tag in MORE if not tag.startswith("NEW"))
    place.run(f"delegator devices import - <<'END'\nservice_tag,customer,delegate\n{rows}\nEND\n"
              f"delegator policies approve rollout {' '.join(MORE)}\n"
              f"python -m pki device --from - <<'END'\n{old}\nEND\n")


def _registering(place: Scene, page: Reader) -> None:
    page.run("delegator policies add rollout")
    page.run("delegator rules add berlin")
    page.run("delegator explain ABC1234")
    place.words["127.0.0.1:4433"] = f"127.0.0.1:{place.port}"
    page.run("python -m pki device ABC1234")
    assert OURS in (place.folder / "var/device/provisioning.xml").read_text()
    page.run("delegator rules add asia")
    page.run("cat > shipment.csv")
    _further(place)
    place.activated("ABC1235", document=OURS)
    place.device("ABC1236")  # names no delegate: whichever of Acme's two it is
    page.run("cat > factory.csv")
    place.restart()
    place.activated("FAC0001", document=OURS)
    assert "FAC0001" in page.run("delegator devices show SN-11")
    place.words["--address 192.0.2.10"] = "--address 127.0.0.1"
    page.run("delegator customers change acme")
    place.activated("CHANGE1", document=OURS)


def _copies(place: Scene, page: Reader) -> None:
    page.run("delegator backup")
    place.activated("BACKUP1", document=OURS)
    place.stop("delegator")
    page.run("delegator restore delegator-copy.db --replace")
    place.start("delegator")
    place.activated("BACKUP2", document=OURS)


def _keys(place: Scene, page: Reader) -> None:
    page.run("python -m pki server delegator --alt delegator.example.com --alt 127.0.0.1 --renew")
    place.activated("RENEWED", document=OURS)
    page.run("delegator config new-key var/sealing-2.key")
    page.settings("[sealing]")
    place.reload()
    assert "var/sealing.key" not in page.run("delegator sealing rotate"), "nothing is left that the old key sealed"
    place.settings("[sealing]\nolder_key_files = []")
    place.restart()
    place.activated("SEALED1", document=OURS)


def _rollover(place: Scene, page: Reader) -> None:
    """Both are trusted, then the successor is shown, then the old authority is gone."""
    page.run("python -m pki init --dir var/pki-2")
    page.settings("[server]\nca")
    place.reload()
    place.activated("OLD0001", document=OURS)
    page.run("python -m pki server delegator --alt delegator.example.com --alt 127.0.0.1 --dir var/pki-2")
    place.settings('[server]\ncertificate = "var/pki-2/server/delegator.crt"\nkey = "var/pki-2/server/delegator.key"\n'
                   '[callbacks]\ncertificate = "var/pki-2/delegate-clients/delegator.crt"\n'
                   'key = "var/pki-2/delegate-clients/delegator.key"')
    place.run("cp var/trust/ca.crt factory-ca.crt\ncp var/trust/ca.crt both.crt")
    place.restart()
    successor = _successors_device(place, "NEW0001")
    place.activated("NEW0001", "--ca", "both.crt", *successor, document=OURS)
    place.activated("OLD0003", "--ca", "both.crt", document=OURS)
    page.run("cat var/pki-2/ca.crt")
    place.reload()
    place.activated("NEW0002", "--ca", "var/pki-2/ca.crt", *_successors_device(place, "NEW0002"), document=OURS)
    place.device("OLD0002", "--ca", "both.crt", ends=REFUSED)


def _successors_device(place: Scene, tag: str) -> tuple[str, ...]:
    place.run(f"python -m pki device {tag} --dir var/pki-2")
    return "--certificate", f"var/pki-2/devices/{tag}.crt", "--key", f"var/pki-2/devices/{tag}.key"
