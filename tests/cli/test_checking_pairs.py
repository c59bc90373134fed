"""`config check` on certificates and keys: each names its own cause, in the words that `serve` says too. C, I."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from delegator.cli.checking import Finding, examine
from delegator.errors import DelegatorError
from delegator.serving.parts import prepare
from pki import Folder, keys
from pki.authority import Authority
from tests.test_unattended import World

END = "-----END CERTIFICATE-----\n"


@pytest.fixture
def world(tmp_path: object) -> World:
    return World(tmp_path)  # type: ignore[arg-type]


def root_first(world: World) -> None:
    path = world.file("server", "certificate")
    parts = [part + END for part in path.read_text().split(END) if part.strip()]
    path.write_text("".join(reversed(parts)))


def half_an_anchor_file(world: World) -> None:
    path = world.file("server", "ca")
    path.write_text(path.read_text()[:-200])


def anothers_key(world: World) -> None:
    world.file("server", "key").write_bytes(keys.to_pem(keys.generate()))


CASES: dict[str, tuple[Callable[[World], None], str, str]] = {
    "I3": (root_first, "server certificate",
           "the authority (CN=Factory) stands before the leaf, certificate 2 (CN=delegator)"),
    "I3, at the key": (root_first, "server key",
                       "certificate 2 (CN=delegator) belongs to the key and must stand first"),
    "C1": (half_an_anchor_file, "factory anchors", "block 2 (line 11) is cut off: its END line is missing"),
    "another's key": (anothers_key, "server key", "does not belong to the certificate"),
}


def findings(world: World, what: str) -> Finding:
    return next(one for one in examine(world.settings) if one.what == what)


@pytest.mark.parametrize("case", CASES)
def test_it_says_what_is_wrong_and_serve_refuses_for_the_same(world: World, case: str) -> None:
    spoil, what, words = CASES[case]
    assert findings(world, what).ok
    spoil(world)
    found = findings(world, what)
    assert (found.ok, words in found.detail) == (False, True), found
    assert found.hint
    with pytest.raises(DelegatorError):
        prepare(world.settings, lambda: datetime.now(UTC))


@pytest.mark.parametrize(("age", "words"), [(timedelta(days=-3), "is not valid before"),
                                            (timedelta(days=31 * 365), "ended at")])
def test_i_an_anchor_that_ended_or_has_not_begun_is_told_as_that(world: World, age: timedelta, words: str) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    old = Authority.found("Old", None, keys.generate(), datetime.now(UTC) - age)
    path = world.file("server", "ca")
    path.write_bytes(path.read_bytes() + old.certificate.public_bytes(Encoding.PEM))
    found = findings(world, "factory anchors")
    assert not found.ok
    assert f"the certificate of CN=Old {words}" in found.detail


def test_i_a_list_of_tomorrow_is_not_called_stale(world: World) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    from pki.revocation import build_list

    later = datetime.now(UTC) + timedelta(days=3)
    lists = [build_list(Folder.open(world.place / name).authority(), (), now=later) for name in ("pki", "online")]
    world.file("server", "crl").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in lists))
    found = findings(world, "factory anchors")
    assert (found.ok, "begins at" in found.detail, "clock" in found.hint) == (False, True, True)
