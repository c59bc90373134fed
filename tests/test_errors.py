"""Errors: one table says how each kind looks to a device, a log and a shell (R-five, R-kinds)."""

from __future__ import annotations

import asyncio
import logging
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from delegator.errors import APPEARANCES, DelegatorError, Kind, words_of
from delegator.notify import _why
from delegator.watching.metrics import Metrics
from delegator.watching.ops import Ops
from delegator.watching.readiness import Readiness
from delegator.wire import soap
from delegator.wire.http import Request

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
    """Also where a device hears of both that the service is not available: nobody is woken by what is not there."""
    for kind, look in APPEARANCES.items():
        theirs = kind in (Kind.CONFLICT, Kind.NOT_FOUND)
        assert (look.log_level == logging.ERROR) == (look.fault == "Unavailable" and not theirs)


@pytest.mark.parametrize(("kind", "status"), [
    (Kind.MALFORMED, 400), (Kind.IDENTITY, 403), (Kind.NOT_ENTITLED, 403), (Kind.NOT_FOUND, 404), (Kind.CONFLICT, 409),
    (Kind.CONFIGURATION, 500), (Kind.UNREACHABLE, 502), (Kind.TRY_LATER, 503), (Kind.UNAVAILABLE, 503)])
def test_every_kind_has_a_status_of_http(kind, status):
    """Whoever asks without SOAP is told by it whether to ask otherwise (4xx), again or later (5xx)."""
    assert APPEARANCES[kind].http_status == status
    assert (status < 500) == (kind in (Kind.MALFORMED, Kind.IDENTITY, Kind.NOT_ENTITLED, Kind.NOT_FOUND, Kind.CONFLICT))


def test_no_kind_is_without_a_status_of_http():
    named = {mark.args[1][at][0] for mark in test_every_kind_has_a_status_of_http.pytestmark
             for at in range(len(mark.args[1]))}
    assert named == set(Kind)


def test_who_is_to_ask_later_by_http_is_told_when():
    """503 with Retry-After says busy; 503 without one says that it is not known when."""
    assert [kind for kind, look in APPEARANCES.items() if look.retry_after is not None] == [Kind.TRY_LATER]
    assert APPEARANCES[Kind.TRY_LATER].http_status == 503


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


# --- hints --------------------------------------------------------------------------------------------------------

HINT = "run: delegator sealing rotate"
READS_HINTS = {
    "delegator/doors/listening.py": "the log", "delegator/delegate/app.py": "the log",
    "delegator/provisioning/shared_door.py": "the log, and the error that the trail is made of",
    "delegator/notify/carriers.py": "the log",
    "delegator/notify/__init__.py": "the log", "delegator/watching/readiness.py": "the log",
    "delegator/store/engines/sqlite/keeping.py": "the log",
    "delegator/store/importing.py": "rows that the command line asked to be "
    "told for operators (`How.whose`)", "delegator/net/channel.py": "from a worker to its parent, which logs it",
    "delegator/provisioning/judgement.py": "handed on", "delegator/callbacks/soap.py": "handed on",
    "delegator/callbacks/calling.py": "the log, and handed on", "delegator/callbacks/ssh.py": "handed on",
    "delegator/serving/parts.py": "handed on",
    "delegator/watching/ops.py": "handed on", "delegator/config.py": "handed on", "delegator/secrecy.py": "handed on",
    "delegator/provisioning/certifying.py": "handed on", "delegator/net/mail.py": "handed on",
    "delegator/net/reverse.py": "handed on",
    "delegator/store/engines/postgres/driver.py": "handed on",
    "delegator/store/engines/sqlite/whereabouts.py": "handed on",
    "delegator/wire/presented.py": "handed on", "delegator/errors.py": "handed on"}
"""Whoever reads an error's hint below the command line, and where it goes."""
_NO_ERRORS = ("delegator/wire/messages.py", "delegator/wire/reading.py")
"""Where a hint is what a device says and may be wrong."""


def test_hints_are_read_by_the_command_line_the_log_and_nobody_else() -> None:
    root = Path(__file__).parents[1]
    found = {str(path.relative_to(root)) for path in (root / "delegator").rglob("*.py")
             if re.search(r"\.hint\b(?! =)", path.read_text())}
    above = {name for name in found if name.startswith(("delegator/cli/", "delegator/desk/", "delegator/device/"))}
    assert found - above - {*_NO_ERRORS} == set(READS_HINTS)


@pytest.mark.parametrize("version", list(soap.Version))
@pytest.mark.parametrize("kind", list(Kind))
def test_R_five_a_device_and_a_delegator_are_answered_no_hint(kind: Kind, version: soap.Version) -> None:
    error = DelegatorError(kind, "the detail", hint=HINT, reasons=("one",))
    answered = soap.render_fault(version, soap.fault_of(error))
    assert b"delegator sealing" not in answered
    assert b"the detail" not in answered


class _Failing:
    """A store that cannot be written to."""

    async def check(self) -> None:
        raise DelegatorError(Kind.UNAVAILABLE, "the disk is full", hint=HINT)


async def test_the_operators_port_answers_no_hint_and_the_log_has_it_once(caplog: pytest.LogCaptureFixture) -> None:
    store: Any = _Failing()
    ready = Readiness(store, lambda: datetime(2030, 1, 1, tzinfo=UTC))
    port = Ops(Metrics(), ready.wrong, ready.soon, _nothing)
    for _ in range(3):
        for path in ("/readyz", "/healthz", "/metrics"):
            response = await port.answer(Request("GET", path, {}, b"", False))
            assert b"delegator sealing" not in response.body
            assert path != "/readyz" or (response.status == 503 and b"the disk is full" in response.body)
    assert sum(HINT in record.getMessage() for record in caplog.records) == 1


async def _nothing() -> dict[str, str]:
    return {}


@pytest.mark.parametrize("kind", list(Kind))
def test_what_is_kept_of_a_webhook_or_a_mail_that_failed_is_no_hint(kind: Kind) -> None:
    assert _why(DelegatorError(kind, "the detail", hint=HINT)) == "the detail"
