"""What the operator is told of a refused shared certificate, of which the device learns nothing (6.1)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from delegator.errors import DelegatorError, Kind
from delegator.model import Claim, ClaimState, Identity, IdentityKind
from delegator.model.enrolled import Contest, Enrolled
from delegator.policy import Reason, Why
from delegator.provisioning.shared_door import contest_in, obstacle, veiled
from delegator.store.footing import Footing, no_ask

from .lab import START

ME = Identity(IdentityKind.SHARED, "ABC1234", "secret:me")
CLAIM = Claim("c" * 32, "ABC1234", "acme", "acme-1", ClaimState.ISSUED, IdentityKind.SHARED, 1, START, START,
              binding="secret:me")
ENROLLED = Enrolled("0a", "ABC1234", "aa", "d" * 32, "secret:me", "PEM", START, START + timedelta(days=1))
FREE = ("if it was reset, for the same owner: delegator claims release ABC1234; if it was sent back: delegator devices "
        "return ABC1234")
TAKEN = ("claim cccccccccccccccccccccccccccccccc of ABC1234: taken by another",
         FREE)
OWN = ("ABC1234 has a certificate of its own, serial 0a: the shared one is refused",
       "if that is lost: delegator enrolments forget ABC1234")
CONFIRMED = ("claim cccccccccccccccccccccccccccccccc of ABC1234: already confirmed", FREE)


@pytest.mark.parametrize(("footing", "words"), [
    (Footing(replace(CLAIM, binding="secret:other"), None, ()), TAKEN),
    (Footing(replace(CLAIM, binding="secret:other", state=ClaimState.CONFIRMED), ENROLLED, ()), TAKEN),
    (Footing(None, replace(ENROLLED, used=True), ()), OWN),
    (Footing(CLAIM, replace(ENROLLED, key_fingerprint="bb"), ()), OWN),
    (Footing(replace(CLAIM, state=ClaimState.CONFIRMED), replace(ENROLLED, used=True), ()), OWN),
    (Footing(replace(CLAIM, state=ClaimState.CONFIRMED), ENROLLED, ()), CONFIRMED)])
def test_R_alike_the_first_thing_in_the_way_is_told_with_what_clears_it(
        footing: Footing, words: tuple[str, str]) -> None:
    found = obstacle(footing, ME, "aa")
    assert found is not None
    assert (found.kind, found.detail, found.hint) == (Kind.NOT_ENTITLED, *words)


def test_R_alike_limits_are_told_as_they_are_and_nothing_in_the_way_is_nothing() -> None:
    found = obstacle(Footing(None, None, (Reason(Why.PACE, "one"), Reason(Why.BOARD, "two"))), ME, "aa")
    assert found is not None
    assert (found.kind, found.detail, found.reasons) == (Kind.NOT_ENTITLED, "one; two", ("one", "two"))
    assert obstacle(Footing(CLAIM, ENROLLED, ()), ME, "aa") is None
    assert obstacle(Footing(None, ENROLLED, ()), ME, None) is None, "who asks for no certificate"


def test_R_contested_who_holds_a_tag_is_told_of_who_else_asks_for_it() -> None:
    ask = replace(no_ask(ME, 0), customer="umbra", delegate="umbra-1")
    other = Footing(replace(CLAIM, binding="secret:other"), None, ())
    assert contest_in(other, ME, "aa", ask, "192.0.2.9", START) == Contest(
        "ABC1234", IdentityKind.SHARED, "c" * 32, "acme", "acme-1", "192.0.2.9", START)
    enrolled = Footing(None, replace(ENROLLED, binding="secret:other"), ())
    assert contest_in(enrolled, ME, "aa", ask, "192.0.2.9", START) == Contest(
        "ABC1234", IdentityKind.SHARED, "d" * 32, "umbra", "umbra-1", "192.0.2.9", START)
    unknown = contest_in(enrolled, ME, "aa", no_ask(ME, 0), "192.0.2.9", START)
    assert unknown is not None
    assert (unknown.customer, unknown.delegate) == (None, None)
    assert contest_in(Footing(CLAIM, ENROLLED, ()), ME, "aa", ask, "", START) is None


@pytest.mark.parametrize("kind", [Kind.NOT_ENTITLED, Kind.IDENTITY, Kind.TRY_LATER, Kind.CONFIGURATION])
def test_R_alike_what_is_veiled_keeps_all_that_the_operator_reads(kind: Kind) -> None:
    told = veiled(DelegatorError(kind, "detail", reasons=("a", "b"), hint="do this", retry_after=9), ("other",))
    assert (told.kind, told.detail, told.reasons, told.hint, told.alternates, told.retry_after) == (
        Kind.NOT_ENTITLED, "detail", ("a", "b"), "do this", ("other",), None)
