"""Who signed a certificate that TLS refused before it looked (T-C15)."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from delegator.trail import Step, Trail
from delegator.watching.served import Answers, Told
from delegator.watching.signers import MOST, REMEMBERED, Signers
from pki import Folder


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates(path.read_bytes())[0]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder.create(tmp_path_factory.mktemp("ours") / "pki", common_name="Factory CA")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Another authority, which has the name of ours."""
    return Folder.create(tmp_path_factory.mktemp("theirs") / "pki", common_name="Factory CA")


@pytest.fixture(scope="module")
def leaf(ours: Folder) -> bytes:
    return read(ours.issue("device", "TAG0001").certificate_path).public_bytes(Encoding.DER)


@pytest.fixture(scope="module")
def forged(theirs: Folder) -> bytes:
    return read(theirs.issue("device", "TAG0001").certificate_path).public_bytes(Encoding.DER)


def test_TC15_a_name_is_given_for_a_signature_and_for_nothing_else(ours: Folder, leaf: bytes, forged: bytes) -> None:
    signers = Signers()
    signers.add([read(ours.ca_path)], 0)
    assert signers.name_in(leaf, 1) == "TAG0001"
    assert signers.name_in(forged, 1) is None, "whoever takes the name of an authority has not its key"
    for cut in (b"", b"nonsense", leaf[:-1], leaf[:100], leaf[:-3] + b"abc"):
        assert signers.name_in(cut, 1) is None


def test_TC15_who_was_taken_off_the_anchors_counts_for_an_hour_and_apart(ours: Folder, theirs: Folder, leaf: bytes,
                                                                         forged: bytes) -> None:
    signers = Signers()
    signers.add([read(ours.ca_path)], 0)
    assert signers.name_in(leaf, 1, former=True) is None, "as long as it is in force, a chain without it proves nothing"
    signers.add([read(theirs.ca_path)], 10)
    assert signers.name_in(leaf, 11, former=True) == "TAG0001"
    assert signers.name_in(leaf, 11) is None
    assert signers.name_in(leaf, 10 + REMEMBERED, former=True) is None
    signers.add([read(ours.ca_path)], 20)
    assert signers.name_in(leaf, 21) == "TAG0001", "back again"
    assert signers.name_in(forged, 21, former=True) == "TAG0001"


def test_TC15_reloads_without_end_take_no_memory(ours: Folder) -> None:
    signers = Signers()
    for number in range(MOST * 2):
        signers.add([read(ours.ca_path)], number)
    assert len(signers._known) == 1


def refused(shown: bytes, refusal: str) -> Trail:
    trail = Trail("1f-1", "192.0.2.7", shown=shown)
    trail.facts |= {"outcome": "TlsRefused", "refusal": refusal}
    trail.mark(Step.REFUSED, 5_000_000_000)
    return trail


@pytest.mark.parametrize(("refusal", "told"), [
    ("unknown authority", Told.FOREIGN), ("chain too long", Told.FOREIGN), ("expired", Told.EXPIRED),
    ("not yet valid", Told.EARLY)])
def test_TC15_what_tls_refused_before_it_knew_counts_once_it_is_proved(
        ours: Folder, theirs: Folder, leaf: bytes, forged: bytes, refusal: str, told: Told) -> None:
    signers, answers = Signers(), Answers()
    signers.add([read(ours.ca_path)], 0)
    if told is Told.FOREIGN:
        signers.add([read(theirs.ca_path)], 1)
    answers.note(refused(leaf, refusal))
    assert answers.unknown(9) == []
    answers.prove(lambda shown, former: signers.name_in(shown, 6, former))
    assert answers.unknown(9) == ["TAG0001"]
    answers.learn({"TAG0001": "acme"})
    assert [one.told for one in answers.seen(6).values()] == [told]
    other = Answers()
    other.note(refused(forged, refusal))
    other.prove(lambda shown, former: signers.name_in(shown, 6, former))
    assert other.unknown(9) == [], "what anybody can make"


def test_TC15_strangers_cost_no_more_than_so_many_signatures(forged: bytes) -> None:
    answers, asked = Answers(), []
    for _ in range(1000):
        answers.note(refused(forged, "unknown authority"))
    answers.prove(lambda shown, former: asked.append(shown))  # type: ignore[func-returns-value]
    assert len(asked) == 100
    answers.prove(lambda shown, former: asked.append(shown))  # type: ignore[func-returns-value]
    assert len(asked) == 100, "and none is kept"
