"""S5: nothing a peer sends reaches the last `except` of a door. Each is asked with any method, target, head, body."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delegator import ops, server
from delegator.delegate import server as delegate
from delegator.delegate.ledger import Ledger
from delegator.handshake import Handshake
from delegator.metrics import Metrics
from delegator.net.connection import Connection
from delegator.wire.http import HttpError, Request, RequestReader, Response

NOW = datetime(2026, 12, 1, tzinfo=UTC)
Door = Callable[[Request, Connection], Awaitable[Response]]
STRANGER = cast(Connection, SimpleNamespace(
    id="1", peer_address="192.0.2.7", certificate=None, certificate_der=None, connected_at=1, authenticated_at=2))
SEEN_IN_ATTACKS = ["//[", "//[::1", "/[", "/provisioning/[", "/?wsdl#[", "//", "///", "/%", "/%00", "/..//..", "http://[",
                   "http://a:b@[::1", "*", "/provisioning?[", "/?wsdl?wsdl",
                   "/provisioning/" + "a" * 5000, "\\", "/\udcff"]
TARGETS = st.one_of(
    st.sampled_from(SEEN_IN_ATTACKS),
    st.text(st.characters(min_codepoint=33, max_codepoint=255), min_size=1, max_size=60),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40).map("/{}".format),
    st.text("[]:@/?#%.\\", min_size=1, max_size=12).map("/provisioning{}".format))
HEADS = st.dictionaries(
    st.sampled_from([b"host", b"content-type", b"authorization", b"soapaction", b"accept", b"x"]),
    st.one_of(st.sampled_from([b"[", b"[::1", b"Basic =", b"Basic \xff\xfe", b"text/xml; charset=[", b"a:b:c"]),
              st.binary(max_size=40)))
BODIES = st.one_of(st.binary(max_size=200), st.sampled_from([
    b"", b"<", b"<a/>", b"<a xmlns='[['/>", b"\xff\xfe<\0", b"<s:Envelope xmlns:s='http://schemas.xmlsoap.org/soap/envelope/'>"
    b"<s:Body><x/></s:Body></s:Envelope>"]))


async def nothing() -> dict[str, str]:
    return {}


class NoLedger:
    """No credential is in force here."""

    async def find(self, user_name: str) -> None:
        return None

    def is_password(self, *_: object) -> bool:
        return False


@pytest.fixture
def told() -> list[object]:
    return []


@pytest.fixture(params=["devices", "delegate", "operators"])
def door(request: pytest.FixtureRequest, tmp_path: Path, told: list[object]) -> Door:
    if request.param == "devices":
        return server.Server(cast(Handshake, None), lambda trail, _: told.append(trail), "", lambda: "here:1").answer
    if request.param == "delegate":
        return delegate.Server(cast(Ledger, NoLedger()), frozenset({"delegator.test"}), tmp_path, lambda: NOW,
                               lifetime=timedelta(hours=1)).answer
    operators = ops.Ops(Metrics(), nothing, dict, nothing)
    return lambda asked, _: operators.answer(asked)


@pytest.fixture
def faults(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    yield (found := [])
    found += [one.getMessage() for one in caplog.records if one.exc_info]
    assert found == [], "the last except was reached"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(method=st.sampled_from(["GET", "POST", "HEAD", "PUT", "OPTIONS", "DELETE", "CONNECT", "TRACE", "PROPFIND"]),
       target=TARGETS, head=HEADS, body=BODIES)
async def test_whatever_is_asked_is_answered_and_is_no_fault_of_ours(
        door: Door, faults: list[str], method: str, target: str, head: dict[bytes, bytes], body: bytes) -> None:
    answer = await door(Request(method, target, head, body, True), STRANGER)
    assert answer.status in (200, 400, 401, 403, 404, 405, 413, 415, 429, 500)
    if answer.status == 500:
        assert b"Fault" in answer.body, "SOAP 1.1 has no other status for a fault of the caller's"
        assert b"Unavailable" not in answer.body


@pytest.mark.parametrize("target", SEEN_IN_ATTACKS[:-1])
async def test_each_target_that_was_seen_is_answered(door: Door, faults: list[str], target: str) -> None:
    """As it comes through the reader of HTTP, where that lets it pass."""
    try:
        (asked,) = RequestReader().feed(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    except HttpError:
        return
    assert (await door(asked, STRANGER)).status < 500


def test_faults_are_seen_here(caplog: pytest.LogCaptureFixture) -> None:
    """What the fixture above looks for is what a last `except` writes."""
    try:
        raise RuntimeError
    except RuntimeError:
        logging.getLogger("delegator.server").exception("a fault of ours")
    assert any(one.exc_info for one in caplog.records)
