"""What the heart looks up: words that logs, trails and programs know it by, and the limits that it is documented with.

In delegator.provisioning.handshake, delegator.provisioning.judgement, delegator.policy, delegator.routing,
delegator.provisioning.shared_door, delegator.store.claims and delegator.store.ownership.
"""

from __future__ import annotations

import enum
import inspect

import pytest

from delegator import policy, routing
from delegator.errors import DelegatorError, Kind
from delegator.model import IdentityKind
from delegator.policy import Why
from delegator.provisioning import handshake, judgement, shared_door
from delegator.store import Outcome, claims, ownership

from .lab import Lab

WORDS: dict[type[enum.Enum], str] = {
    Why: "disabled, unregistered, not allowed, not yet, closed, hours, location, location unknown, identity, "
         "not approved, domain alone, devices taken, attempts used, claims per hour, main board, owner changed",
    Outcome: "opened, resumed after a broken try, opened and issued in one commit, same answer again, being answered, "
             "taken by another, already confirmed, over a limit, over if the clock is right"}


@pytest.mark.parametrize("kind", WORDS, ids=lambda kind: kind.__name__)
def test_the_words_of_an_answer_are_what_they_were(kind: type[enum.Enum]) -> None:
    """They stand in audits that are kept for years, and programs ask for them."""
    assert ", ".join(one.value for one in kind) == WORDS[kind]


async def test_each_outcome_is_good_or_tells_the_device_what_to_do(lab: Lab) -> None:
    assert handshake._TO_ASK == (Outcome.OPENED, Outcome.RESUMED)
    assert handshake._GOOD == (Outcome.OPENED, Outcome.RESUMED, Outcome.ISSUED, Outcome.SAME_AGAIN)
    assert {one.name: kind.name for one, kind in handshake.OBSTACLES.items()} == {
        "BUSY": "TRY_LATER", "UNSURE": "TRY_LATER", "TAKEN": "NOT_ENTITLED", "DONE": "NOT_ENTITLED"}
    assert {one: lab.handshake._again(one) for one in handshake.OBSTACLES} == {
        Outcome.BUSY: 11, Outcome.UNSURE: 60, Outcome.TAKEN: None, Outcome.DONE: None}
    assert {*handshake._GOOD, *handshake.OBSTACLES, Outcome.OVER_LIMIT} == set(Outcome)


def test_a_credential_of_an_older_release_that_is_none_today_is_told_with_the_way_out() -> None:
    """It was sealed before the rule for credentials, and no device may be given it."""
    with pytest.raises(DelegatorError) as refused:
        handshake._credential('{"user_name": "a\\nb", "password": "p"}')
    assert refused.value.kind is Kind.UNAVAILABLE
    assert refused.value.detail.startswith("the credential that an older release issued is no good: a user name ")
    assert refused.value.hint == "make it free: delegator claims release TAG"


def test_each_way_to_show_who_one_is_has_words() -> None:
    assert handshake._CERTIFICATES == {IdentityKind.OWN: "own handshake certificate",
                                       IdentityKind.SHARED: "shared certificate"}


def test_reasons_that_pass_are_told_as_such_and_all_others_are_final() -> None:
    assert {why.name: kind.name for why, kind in judgement._KIND_OF.items()} == {
        "IDENTITY": "IDENTITY", "DEVICES_TAKEN": "TRY_LATER", "PACE": "TRY_LATER", "LOCATION_UNKNOWN": "TRY_LATER",
        "OWNER": "TRY_LATER"}


def test_what_the_shared_certificate_is_not_told_is_all_that_can_depend_on_a_tag() -> None:
    assert set(Kind) - set(shared_door._VEILED) == set(Kind) - {
        Kind.NOT_ENTITLED, Kind.IDENTITY, Kind.TRY_LATER, Kind.CONFIGURATION}
    assert 0.001 < shared_door.SOONEST < 0.05, "more than a row costs to read, less than anybody would notice"


def test_a_policy_is_looked_at_in_the_order_of_its_page_and_no_check_is_left_out() -> None:
    checks = [one for name, one in vars(policy).items()
              if inspect.isfunction(one) and list(inspect.signature(one).parameters) == ["policy", "case"]
              and one.__annotations__["return"] == "_Found"]
    assert list(policy._CHECKS) == checks
    assert len(checks) == 9


def test_each_condition_of_a_rule_is_asked_for_in_the_order_of_its_page() -> None:
    assert list(routing._CONDITIONS) == ["order", "model", "tag_prefix", "mac_prefix", "network", "domain"]
    assert routing._IDENTIFIERS == ("service tag", "serial number", "MAC address")


def test_how_much_is_read_and_done_at_once_is_what_the_pages_say() -> None:
    assert inspect.signature(ownership.Ownership.transfers).parameters["most"].default == 1000
    assert ownership._STEPS_READ == 100_000
    assert (ownership.KEY, ownership.REPLACED) == ("key:", "main board replaced")
    assert inspect.signature(claims.expire_lapsed).parameters["most"].default == 500
