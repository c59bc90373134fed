"""Errors: one table says how each kind looks to a device, a log and a shell (R-five, R-kinds)."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import pytest

from delegator.errors import APPEARANCES, DelegatorError, Kind, words_of

FAULTS = {"MalformedRequest", "IdentityRejected", "NotEntitled", "TryLater", "Unavailable"}


def test_R_five_every_kind_has_an_appearance_and_devices_hear_five_faults_only():
    assert set(APPEARANCES) == set(Kind)
    assert {look.fault for look in APPEARANCES.values()} == FAULTS


def test_R_five_one_fault_is_one_sentence_so_that_nobody_can_tell_kinds_apart():
    assert len({(look.fault, look.message, look.retry_after) for look in APPEARANCES.values()}) == len(FAULTS)


def test_R_five_only_try_later_names_a_time():
    assert {look.fault for look in APPEARANCES.values() if look.retry_after is not None} == {"TryLater"}


@pytest.mark.parametrize(("kind", "code"), [
    (Kind.UNAVAILABLE, 1), (Kind.NOT_FOUND, 1), (Kind.CONFIGURATION, 3), (Kind.UNREACHABLE, 4), (Kind.MALFORMED, 5),
    (Kind.IDENTITY, 5), (Kind.NOT_ENTITLED, 5), (Kind.CONFLICT, 6), (Kind.TRY_LATER, 75)])
def test_R_kinds_exit_codes_are_those_of_the_command_line(kind, code):
    assert APPEARANCES[kind].exit_code == code


def test_R_kinds_what_is_our_fault_is_logged_as_an_error_and_what_is_theirs_is_not():
    for look in APPEARANCES.values():
        assert (look.log_level == logging.ERROR) == (look.fault == "Unavailable")


@pytest.mark.parametrize("kind", list(Kind))
def test_R_five_what_a_device_hears_has_nothing_of_the_detail(kind):
    error = DelegatorError(kind, "customer acme, rack 7", hint="look there", reasons=("one", "two"))
    assert error.appearance is APPEARANCES[kind]
    assert "acme" not in error.appearance.message
    assert str(error) == error.detail == "customer acme, rack 7"
    assert error.reasons == ("one", "two")


def test_the_detail_is_the_reason_where_there_is_no_other():
    assert DelegatorError(Kind.CONFLICT, "taken").reasons == ("taken",)


@pytest.mark.parametrize(("said", "got"), [(None, 30), (300, 300), (0, 0)])
def test_R_five_a_time_to_come_back_overrides_the_table(said, got):
    assert DelegatorError(Kind.TRY_LATER, "x", retry_after=said).retry_after == got


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionResetError(), BrokenPipeError(), OSError(), EOFError(),
                                   asyncio.IncompleteReadError(b"", 5), MemoryError(), ConnectionAbortedError(),
                                   RuntimeError(), asyncio.CancelledError(), StopIteration()],
                         ids=lambda one: type(one).__name__)
def test_TC15_the_name_of_a_class_alone_is_no_reason(error: BaseException) -> None:
    """Whoever has the pager reads why, in words."""
    words = words_of(error)
    assert len(words.replace(f"({type(error).__name__})", "").split()) >= 3


def test_TC15_words_that_an_error_has_are_told_as_they_are() -> None:
    assert words_of(OSError(28, "No space left on device")) == "No space left on device"
    assert words_of(DelegatorError(Kind.UNAVAILABLE, "the disk is full")) == "the disk is full"
    assert words_of(ValueError("not a number")) == "not a number"


ALLOWED = {
    "delegator/errors.py": "beside the words", "delegator/callbacks/launch.py": "beside the words",
    "delegator/callbacks/soap.py": "the kind of a message, which is a word of the contract",
    "delegator/notify/__init__.py": "a fault of ours may hold anything in its words; the log has its traceback",
    "delegator/wire/messages.py": "a fault of ours"}


def test_TC15_nobody_tells_the_name_of_a_class_for_a_reason() -> None:
    """`type(error).__name__`, wherever it stands outside the store, is listed with why it is no reason there."""
    root = Path(__file__).parents[1]
    found = {str(path.relative_to(root)) for path in (root / "delegator").rglob("*.py")
             if re.search(r"type\(\w+\)\.__name__", path.read_text())}
    assert {name for name in found if not name.startswith(("delegator/store/", "delegator/device/"))} == set(ALLOWED)
