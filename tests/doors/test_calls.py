"""What every door that speaks SOAP does alike: one table of operations, one way to refuse."""

from __future__ import annotations

import logging
from typing import cast

import pytest

from delegator.doors.calls import Call, operation
from delegator.errors import DelegatorError, Kind
from delegator.model import Confirmation, Result
from delegator.provisioning.handshake import Handshake
from delegator.serving import app
from delegator.wire import messages, soap
from delegator.wire.http import HttpError, Request

NS = "urn:delegator:provisioning:1"
CONFIRM = f"<ConfirmProvisioning xmlns='{NS}'><ClaimId>{'0' * 32}</ClaimId>%s</ConfirmProvisioning>"
RESULT = "<Result>Deployed</Result>"


class Handshakes:
    """Use cases that are never called."""

    async def provision(self, *_: object) -> None: ...

    async def confirm(self, *_: object) -> None: ...

    async def note_address(self, *_: object) -> None: ...


def envelope(inner: str, version: soap.Version = soap.Version.V11) -> Request:
    body = f'<s:Envelope xmlns:s="{version.value}"><s:Body>{inner}</s:Body></s:Envelope>'
    return Request("POST", "/", {}, body.encode(), False)


def test_the_composition_names_a_use_case_for_every_operation_of_the_devices_port() -> None:
    """A row that is missing would be a fault of ours, told to the first device that asks."""
    wanted = {one.request.make for dialect in messages.DIALECTS.values()
              for one in dialect.serving(messages.Service.DELEGATOR)}
    assert set(app.operations(cast(Handshake, Handshakes()))) == wanted


async def test_a_new_operation_is_one_row_and_the_door_asks_whoever_stands_in_it() -> None:
    async def confirm(value: Confirmation, peer: str) -> None:
        heard.append((value.result, peer))
    heard: list[tuple[Result, str]] = []
    call, table = Call(), operation(Confirmation, confirm)
    value = call.read(envelope(CONFIRM % RESULT), messages.Service.DELEGATOR)
    response = call.answer(await table[type(value)](value, "192.0.2.7"))
    assert heard == [(Result.DEPLOYED, "192.0.2.7")]
    assert response.body.endswith(f'<ConfirmProvisioningResponse xmlns="{NS}"></ConfirmProvisioningResponse>'
                                  "</soap:Body></soap:Envelope>".encode())


@pytest.mark.parametrize("version", soap.Version)
def test_who_wrote_what_the_model_refuses_reads_the_fault_in_its_own_version(version: soap.Version) -> None:
    call = Call()
    with pytest.raises(DelegatorError) as caught:
        call.read(envelope(CONFIRM % "<Result>Perhaps</Result>", version), messages.Service.DELEGATOR)
    refusal = call.refuse(caught.value)
    assert refusal.code == "MalformedRequest"
    assert refusal.response.headers == {b"Content-Type": version.content_type}
    assert version.value.encode() in refusal.response.body


def test_an_operation_of_another_service_is_none_here() -> None:
    with pytest.raises(DelegatorError, match="no operation"):
        Call().read(envelope(CONFIRM % RESULT), messages.Service.DELEGATE)


@pytest.mark.parametrize(("error", "status", "after"), [
    (HttpError(413, "too large"), 413, None),
    (DelegatorError(Kind.TRY_LATER, "secret", retry_after=7), 500, b"7"),
    (DelegatorError(Kind.NOT_ENTITLED, "secret"), 500, None)])
def test_a_refusal_has_https_status_and_when_to_come_again_and_nothing_of_the_detail(
        error: DelegatorError, status: int, after: bytes | None) -> None:
    refusal = Call().refuse(error)
    assert (refusal.response.status, refusal.response.headers.get(b"Retry-After")) == (status, after)
    assert (refusal.error, refusal.code) == (error, error.appearance.fault)
    assert error.detail.encode() not in refusal.response.body


def test_a_fault_of_ours_is_told_by_its_kind_and_its_traceback_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ZeroDivisionError("inside")
    except ZeroDivisionError as error:
        refusal = Call(soap.Version.V12).refuse(error)
    assert (refusal.code, refusal.error.kind) == ("Unavailable", Kind.UNAVAILABLE)
    assert b"inside" not in refusal.response.body
    (record,) = caplog.records
    assert (record.levelno, record.message) == (logging.ERROR, "a fault of ours")
    assert "test_calls.py" in caplog.text, "the traceback leads to where it was raised"
