"""The first and the last second of a certificate and of a revocation list, by a clock that is told the time (T-A5,
T-A10).

OpenSSL judges certificates, by its own clock where nobody tells it another; we judge lists. docs/operators.md,
"Clocks".
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from delegator.wire.tls import Session, server_context
from pki import Folder
from pki.trust import Refusal, TrustStore

from ..forgery import Signer, forged, written
from .test_tls import Stdlib

NOW = datetime.now(UTC).replace(microsecond=0)
SECOND, YEARS = timedelta(seconds=1), timedelta(days=3652)
START, END = NOW - timedelta(days=1), NOW + timedelta(days=1)


@pytest.fixture(scope="module")
def old_factory(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """One whose authority was there before anything in question."""
    folder = Folder.create(tmp_path_factory.mktemp("edges") / "pki", common_name="Edges CA",
                           now=NOW - timedelta(days=9))
    folder.issue("delegator-server", "delegator", names=("localhost",))
    return folder


def judged(folder: Folder, place: Path, at: datetime, version: ssl.TLSVersion, *, crl: bool = False) -> Refusal | None:
    """What becomes of a device whose certificate is good from START to END, when our clock shows `at`."""
    pair = written(place, "edge", forged(Signer.of(folder), "EDGE001", start=START, end=END))
    chain = folder.certificate_path("delegator-server", "delegator")
    trust = TrustStore.load(folder.ca_path, folder.crl_path if crl else None)
    context = server_context(chain, chain.with_suffix(".key"), trust, lambda: at)
    store = context.ssl.get_cert_store()
    assert store is not None
    store.set_time(at)
    ours, peer = Session(context), Stdlib(folder, pair[0], version=version, key=pair[1])
    said = peer.step()
    while said and ours.refused is None:
        ours.receive(said)
        said = peer.step(ours.outgoing()) if ours.refused is None else b""
    assert ours.handshaken is (ours.refused is None)
    return ours.refused.refusal if ours.refused else None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(("at", "expected"), [
    (START - SECOND, Refusal.NOT_YET_VALID), (START, None), (START + SECOND, None), (END - SECOND, None),
    (END, None), (END + SECOND, Refusal.EXPIRED), (NOW + YEARS, Refusal.EXPIRED),
    (NOW - YEARS, Refusal.NOT_YET_VALID)],
    ids=["before", "first", "second", "last but one", "last", "after", "ten years on", "ten years back"])
def test_TA5_a_certificate_counts_from_its_first_second(
        old_factory: Folder, tmp_path: Path, at: datetime, expected: Refusal | None, version: ssl.TLSVersion) -> None:
    assert judged(old_factory, tmp_path, at, version) is expected


def test_TA5_a_list_counts_from_its_first_second_and_not_any_more_at_its_next(old_factory: Folder) -> None:
    """One that ended is no list: whom it revoked would be let in. Nobody is, until there is a newer one."""
    found = TrustStore.load(old_factory.ca_path, old_factory.crl_path)
    revocation = found.revocation
    assert revocation is not None
    edges = (revocation.this_update - SECOND, revocation.this_update, revocation.next_update - SECOND,
             revocation.next_update)
    assert [found.refuse(4711, at) is None for at in edges] == [False, True, True, False]
