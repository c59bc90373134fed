"""Errors: one table says how each kind looks to a device, a log and a shell (DESIGN 5, 8)."""

from __future__ import annotations

import logging

import pytest

from delegator.errors import APPEARANCES, DelegatorError, Kind

FAULTS = {"MalformedRequest", "IdentityRejected", "NotEntitled", "TryLater", "Unavailable"}


def test_5_every_kind_has_an_appearance_and_devices_hear_five_faults_only():
    assert set(APPEARANCES) == set(Kind)
    assert {look.fault for look in APPEARANCES.values()} == FAULTS


def test_5_one_fault_is_one_sentence_so_that_nobody_can_tell_kinds_apart():
    assert len({(look.fault, look.message, look.retry_after) for look in APPEARANCES.values()}) == len(FAULTS)


def test_5_only_try_later_names_a_time():
    assert {look.fault for look in APPEARANCES.values() if look.retry_after is not None} == {"TryLater"}


@pytest.mark.parametrize(("kind", "code"), [
    (Kind.UNAVAILABLE, 1), (Kind.NOT_FOUND, 1), (Kind.CONFIGURATION, 3), (Kind.UNREACHABLE, 4), (Kind.MALFORMED, 5),
    (Kind.IDENTITY, 5), (Kind.NOT_ENTITLED, 5), (Kind.CONFLICT, 6), (Kind.TRY_LATER, 75)])
def test_8_exit_codes_are_those_of_the_command_line(kind, code):
    assert APPEARANCES[kind].exit_code == code


def test_8_what_is_our_fault_is_logged_as_an_error_and_what_is_theirs_is_not():
    for look in APPEARANCES.values():
        assert (look.log_level == logging.ERROR) == (look.fault == "Unavailable")


@pytest.mark.parametrize("kind", list(Kind))
def test_5_what_a_device_hears_has_nothing_of_the_detail(kind):
    error = DelegatorError(kind, "customer acme, rack 7", hint="look there", reasons=("one", "two"))
    assert error.appearance is APPEARANCES[kind]
    assert "acme" not in error.appearance.message
    assert str(error) == error.detail == "customer acme, rack 7"
    assert error.reasons == ("one", "two")


def test_the_detail_is_the_reason_where_there_is_no_other():
    assert DelegatorError(Kind.CONFLICT, "taken").reasons == ("taken",)


@pytest.mark.parametrize(("said", "got"), [(None, 30), (300, 300), (0, 0)])
def test_5_a_time_to_come_back_overrides_the_table(said, got):
    assert DelegatorError(Kind.TRY_LATER, "x", retry_after=said).retry_after == got
