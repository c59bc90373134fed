"""`explain` says what the server would do, by the server's own code, and changes nothing. A4, A6."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from delegator.errors import DelegatorError
from delegator.model import Result
from delegator.model.audited import Act, Entry
from pki.folder import Folder
from pki.revocation import Reason

from .conftest import Console

TOMORROW = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=36)


def _explained(console: Console, *words: str) -> dict[str, Any]:
    """The answer as JSON, with exit code and text checked against it."""
    done = console.run("explain", *words, "--json")
    data: dict[str, Any] = done.json
    assert done.code == (0 if data["allowed"] else 5), done.err
    text = console.run("explain", *words)
    assert text.code == done.code
    assert data["told"]["sentence"] in text.out
    assert all(reason["text"] in text.out for reason in data["reasons"])
    return data


def _whys(data: dict[str, Any]) -> list[str]:
    return [reason["why"] for reason in data["reasons"]]


def test_a4_a_registered_device_is_given_a_credential_and_the_route_says_why(acme: Console) -> None:
    data = _explained(acme, "ABC1234")
    assert data["allowed"]
    assert data["route"] == {"customer": "acme", "delegate": "acme-small", "callback": "hosted",
                             "because": "its service tag is registered to customer acme"}
    assert data["registration"]["order"] == "4711"
    assert data["says"]["model"] == "R750"
    assert data["policies"] == [{"policy": "default", "holder": "customer/acme", "says": [
        "with its own certificate", "10 attempts for each device", "the same credential for 24h"]}]
    assert data["told"]["fault"] is None
    assert data["claim"] is None
    assert acme.ok("claims", "list") == []


def test_a4_a_device_that_nobody_registered_is_told_little_and_the_operator_why(acme: Console) -> None:
    data = _explained(acme, "ZZZ9999")
    assert _whys(data) == ["no route"]
    assert (data["route"], data["registration"]) == (None, None)
    assert data["told"]["fault"] == "NotEntitled"
    assert "devices add" in acme.run("explain", "ZZZ9999").err


def test_a4_a_customer_without_delegates_leads_nowhere(console: Console) -> None:
    console.ok("customers", "add", "empty", "--title", "Empty")
    console.ok("devices", "add", "ABC1234", "--customer", "empty")
    data = _explained(console, "ABC1234")
    assert data["registration"]["customer"] == "empty"
    assert "no delegate" in data["reasons"][0]["text"]


def test_a4_rules_are_matched_by_what_the_question_pretends(acme: Console) -> None:
    for name, words in (("by-net", ("--network", "192.0.2.0/24")), ("by-model", ("--model", "R650")),
                        ("by-mac", ("--mac-prefix", "AA:BB")), ("by-domain", ("--domain", "acme.example"))):
        acme.ok("delegates", "add", name, "--customer", "acme", "--hosted", "u")
        acme.ok("rules", "add", name, "--delegate", name, *words)
    for words in (("--from", "192.0.2.9"), ("--model", "R650"), ("--mac", "AABB00000001"),
                  ("--domain", "lab.acme.example")):
        data = _explained(acme, "ZZZ9999", *words)
        assert data["allowed"]
        assert data["route"]["delegate"].startswith("by-")
        assert f"rule {data['route']['delegate']} " in data["route"]["because"]
    assert "say the device's address with --from" in acme.run("explain", "ABC1234").err
    assert "--from" not in acme.run("explain", "ABC1234", "--from", "198.51.100.1").err


def test_a4_a_device_registered_by_serial_number_is_found_when_it_says_it(acme: Console) -> None:
    acme.ok("devices", "add", "--serial", "SN-9", "--customer", "acme")
    data = _explained(acme, "ZZZ9999", "--serial", "SN-9")
    assert "serial number" in data["route"]["because"]


def test_a4_a_registered_device_says_its_registered_addresses(acme: Console) -> None:
    acme.ok("devices", "add", "ABC1235", "--customer", "acme", "--mac", "AA:BB:00:00:00:01", "--serial", "SN-1")
    assert _explained(acme, "ABC1235")["says"] == {
        "serial_number": "SN-1", "model": None, "mac_addresses": ["AA:BB:00:00:00:01"], "domain": None}


@pytest.mark.parametrize(("policy", "question", "why", "fault"), [
    (("--from", "2026-03-01"), ("--at", "2026-02-28T23:59:59Z"), "not yet", "NotEntitled"),
    (("--until", "2026-03-01"), ("--at", "2026-03-01"), "closed", "NotEntitled"),
    (("--approved-only",), (), "not approved", "NotEntitled"),
    (("--no-custom-operations",), (), "not allowed", "NotEntitled"),
    (("--callbacks", "soap"), (), "not allowed", "NotEntitled"),
    (("--identity", "shared"), (), "identity", "IdentityRejected"),
    ((), ("--identity", "shared"), "identity", "NotEntitled"),
    (("--max-devices", "0"), (), "devices taken", "TryLater"),
    (("--hours", "Mon-Fri 08:00-18:00 Europe/Berlin"), ("--at", "2026-03-02T06:59:59Z"), "hours", "NotEntitled"),
    (("--network", "192.0.2.0/24"), ("--from", "198.51.100.7"), "location", "NotEntitled"),
    (("--network", "192.0.2.0/24"), (), "location", "NotEntitled"),
    (("--domain", "acme.example"), ("--from", "192.0.2.7"), "location", "NotEntitled")])
def test_a6_each_reason_of_a_policy_is_told(acme: Console, policy: tuple[str, ...], question: tuple[str, ...],
                                            why: str, fault: str) -> None:
    acme.ok("policies", "add", "p", *policy)
    acme.ok("customers", "change", "acme", "--policy", "p")
    data = _explained(acme, "ABC1234", *question)
    assert _whys(data) == [why]
    assert data["told"]["fault"] == fault
    assert data["reasons"][0]["text"].startswith("policy p: ")


def test_a6_all_reasons_are_told_not_only_the_first(acme: Console) -> None:
    acme.ok("policies", "add", "p", "--approved-only", "--until", "2020-01-01")
    acme.ok("customers", "change", "acme", "--policy", "p")
    acme.ok("customers", "disable", "acme")
    acme.ok("delegates", "disable", "acme-small")
    assert _whys(_explained(acme, "ABC1234", "--identity", "shared")) == [
        "disabled", "disabled", "closed", "identity", "not approved"]


def test_a6_places_and_attempts_are_counted(acme: Console) -> None:
    acme.ok("policies", "add", "p", "--max-devices", "1", "--attempts", "2", "--lease", "1h")
    acme.ok("customers", "change", "acme", "--policy", "p")
    acme.ok("devices", "add", "ABC1235", "--customer", "acme")
    acme.serve("ABC1235")
    data = _explained(acme, "ABC1234")
    assert _whys(data) == ["devices taken"]
    assert data["limits"] == [{"policy": "p", "holder": "customer/acme", "taken": 1, "max_devices": 1,
                               "claims_this_hour": None, "claims_per_hour": None, "attempts_used": 0, "attempts": 2}]
    assert data["told"]["retry_after"] == 300
    assert _explained(acme, "ABC1234", "--at", TOMORROW.isoformat())["allowed"]


def test_a6_the_claims_of_this_hour_are_counted_and_the_wait_is_told(acme: Console) -> None:
    acme.ok("policies", "add", "p", "--claims-per-hour", "1", "--hours", "daily 00:00-24:00 Asia/Kolkata")
    acme.ok("customers", "change", "acme", "--policy", "p")
    acme.ok("devices", "add", "ABC1235", "--customer", "acme")
    at = datetime(2026, 3, 2, 8, 15, 40, tzinfo=UTC)
    acme.serve("ABC1235", at=at)
    data = _explained(acme, "ABC1234", "--at", "2026-03-02T09:15:10Z")
    assert _whys(data) == ["claims per hour"]
    assert (data["limits"][0]["claims_this_hour"], data["limits"][0]["claims_per_hour"]) == (1, 1)
    assert (data["told"]["fault"], data["told"]["retry_after"]) == ("TryLater", 50)
    assert "1 of 1 claims in this hour" in acme.run("explain", "ABC1234", "--at", "2026-03-02T09:15:10Z").out
    assert _explained(acme, "ABC1234", "--at", "2026-03-02T09:16:00Z")["allowed"]


def test_a6_the_policies_of_customer_and_delegate_are_shown_with_what_they_say_and_limits_beside_other_reasons(
        acme: Console) -> None:
    """A limit that is in the way too is told, although the server would not come as far."""
    acme.ok("policies", "add", "p", "--max-devices", "0", "--until", "2026-01-01")
    acme.ok("policies", "add", "q", "--hours", "Mon 08:00-18:00 UTC", "--network", "192.0.2.0/24")
    acme.ok("customers", "change", "acme", "--policy", "p")
    acme.ok("delegates", "change", "acme-small", "--policy", "q")
    data = _explained(acme, "ABC1234", "--at", "2026-03-03T08:00:00Z", "--from", "198.51.100.7")
    assert _whys(data) == ["closed", "hours", "location", "devices taken"]
    assert data["told"]["fault"] == "NotEntitled"
    assert [one["policy"] for one in data["policies"]] == ["p", "q"]
    assert data["policies"][1]["says"][1:3] == ["Mon 08:00-18:00 UTC", "from 192.0.2.0/24"]
    text = acme.run("explain", "ABC1234")
    assert "policy      q (delegate/acme-small): with its own certificate; Mon 08:00-18:00 UTC" in text.out
    assert "say its address with --from" in text.err


def test_a_claim_that_stands_is_for_the_device_that_opened_it(acme: Console) -> None:
    acme.serve("ABC1234")
    data = _explained(acme, "ABC1234")
    assert data["allowed"]
    assert data["claim"]["state"] == "issued"
    assert "same credential again" in data["told"]["sentence"]
    assert "expired" not in acme.run("claims", "list").out


def test_a_confirmed_claim_is_done_until_it_is_released(acme: Console) -> None:
    acme.serve("ABC1234")
    acme.store(lambda store: _confirm(store))
    data = _explained(acme, "ABC1234")
    assert _whys(data) == ["claim"]
    hint = acme.run("explain", "ABC1234").err
    assert "if it was reset, for the same owner: delegator claims release ABC1234" in hint
    assert "if it was sent back: delegator devices return ABC1234" in hint
    acme.ok("claims", "release", "ABC1234")
    assert _explained(acme, "ABC1234")["allowed"]


async def _confirm(store: Any) -> None:
    (claim,) = await store.claims(service_tag="ABC1234")
    await store.confirm(claim.claim_id, claim.binding, Result.DEPLOYED, None, datetime.now(UTC))


def _policy(*words: str) -> tuple[str, ...]:
    return ("policies", "add", "p", *words)


CASES: dict[str, tuple[tuple[str, ...], str, int, timedelta]] = {
    "allowed": (_policy(), "own", 0, timedelta()),
    "same again": (_policy(), "own", 1, timedelta()),
    "lapsed": (_policy("--lease", "1h"), "own", 1, timedelta(hours=2)),
    "attempts used": (_policy("--lease", "1h", "--attempts", "1"), "own", 1, timedelta(hours=2)),
    "taken by an own certificate": (_policy("--identity", "either"), "shared", 1, timedelta()),
    "shared": (_policy("--identity", "shared"), "shared", 0, timedelta()),
    "shared refused": (_policy(), "shared", 0, timedelta()),
    "closed": (_policy("--until", "2020-01-01"), "own", 0, timedelta()),
    "no place": (_policy("--max-devices", "0"), "own", 0, timedelta()),
    "not approved": (_policy("--approved-only"), "own", 0, timedelta()),
    "claims per hour": (_policy("--claims-per-hour", "1", "--lease", "1m"), "own", 1, timedelta(minutes=5)),
    "an hour later": (_policy("--claims-per-hour", "1", "--lease", "1m"), "own", 1, timedelta(minutes=61)),
    "elsewhere": (_policy("--network", "198.51.100.0/24"), "own", 0, timedelta()),
    "shared from a network": (_policy("--identity", "either", "--network", "192.0.2.0/24", "--own-anywhere"), "shared",
                              0, timedelta()),
    "never open": (_policy("--hours", "Mon 00:00-00:01 UTC"), "own", 0, timedelta()),
}


@pytest.mark.parametrize("case", CASES)
def test_explain_and_the_server_agree(acme: Console, case: str) -> None:
    policy, identity, served_before, later = CASES[case]
    acme.ok(*policy)
    acme.ok("customers", "change", "acme", "--policy", "p")
    for _ in range(served_before):
        acme.serve("ABC1234")
    at = datetime.now(UTC) + later
    told = _explained(acme, "ABC1234", "--identity", identity, "--at", at.isoformat(), "--from", "192.0.2.7")["told"]
    answer = acme.serve("ABC1234", identity, at=at)
    if isinstance(answer, DelegatorError):
        assert (told["fault"], told["retry_after"]) == (answer.appearance.fault, answer.retry_after)
    else:
        assert told["fault"] is None


# --- what no question can answer, and the audit knows -------------------------------------------------------------

AGO = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)


def _happened(console: Console, *entries: Entry) -> None:
    console.store(lambda store: store.audit.append(entries))


def _tls_refused(subject: str, serial: str, at: datetime = AGO) -> Entry:
    words = f"revoked (revoked): certificate {subject} serial {serial} depth 0"
    return Entry(Act.HANDSHAKE, at, "device", "TlsRefused", peer="192.0.2.7", reasons=(words,),
                 detail={"refusal": "revoked", "certificate": subject, "serial": serial, "connection": "1-1",
                         "steps": [["connected", 0.0, ""]]})


def _failed(*reasons: str, at: datetime = AGO, tag: str = "ABC1234") -> Entry:
    return Entry(Act.HANDSHAKE, at, "device", "TryLater", tag, "acme", "acme-small", peer="192.0.2.7",
                 reasons=reasons, detail={"identity": "own"})


def test_a4_that_a_certificate_is_not_judged_here_is_said_whatever_the_answer(acme: Console) -> None:
    for tag in ("ABC1234", "ZZZ9999"):
        assert _explained(acme, tag)["certificate"] == {"judged": False, "revoked": [], "last_refused": None}
        assert "certificate is not judged here" in acme.run("explain", tag).out


@pytest.mark.parametrize("subject", ["CN=ABC1234", "CN=ABC1234,O=Example", "O=Example,CN=ABC1234",
                                     "O=Example,CN=ABC1234,C=DE"])
def test_a4_a_refusal_by_tls_of_the_devices_certificate_is_told_with_its_time(acme: Console, subject: str) -> None:
    _happened(acme, _tls_refused(subject, "0b", AGO - timedelta(hours=1)), _tls_refused(subject, "0a"))
    refused = _explained(acme, "ABC1234")["certificate"]["last_refused"]
    assert refused["at"] == AGO.isoformat().replace("+00:00", "Z")
    assert refused["words"] == f"revoked (revoked): certificate {subject} serial 0a depth 0"
    assert acme.ok("audit", "show", refused["row"])["outcome"] == "TlsRefused"
    text = acme.run("explain", "ABC1234").out
    assert refused["at"] in text
    assert refused["words"] in text


@pytest.mark.parametrize("subject", ["CN=ABC12345", "CN=XABC1234", "O=ABC1234", "CN=NOBODY1"])
def test_a4_another_devices_refusal_is_not_this_ones(acme: Console, subject: str) -> None:
    _happened(acme, _tls_refused(subject, "0a"))
    assert _explained(acme, "ABC1234")["certificate"]["last_refused"] is None


def test_a4_a_refusal_is_past_once_a_certificate_of_the_device_was_let_in_again(acme: Console) -> None:
    _happened(acme, _tls_refused("CN=ABC1234", "0a"), _failed("policy x: closed", at=AGO + timedelta(minutes=1)))
    assert _explained(acme, "ABC1234")["certificate"]["last_refused"] is None


def test_a4_a_serial_of_the_device_that_the_revocation_list_names_is_told(acme: Console) -> None:
    """Known by the refusal that the audit holds, or by the factory's ledger, where that is on this machine."""
    folder = Folder.create(Path("var/pki"), common_name="Factory CA")
    authority = folder.authority()
    ours, others = (folder.issue("device", tag).serial for tag in ("ABC1234", "ABC12345"))
    folder.revoke([others], Reason.SUPERSEDED, authority)
    assert _explained(acme, "ABC1234")["certificate"]["revoked"] == []
    folder.revoke([ours], Reason.KEY_COMPROMISE, authority)
    assert _explained(acme, "ABC1234")["certificate"]["revoked"] == [ours]
    assert f"serial {ours} of this tag stands in the revocation list" in acme.run("explain", "ABC1234").out
    Path("var/pki/ledger.jsonl").unlink()
    assert _explained(acme, "ABC1234")["certificate"]["revoked"] == []
    _happened(acme, _tls_refused("CN=ABC1234", ours))
    assert _explained(acme, "ABC1234")["certificate"]["revoked"] == [ours]


@pytest.mark.parametrize("words", ["TLS: unknown CA", "delegate acme-small, HTTP 403: it does not let us in",
                                   "127.0.0.1 is this machine; [outbound] allow can permit its network"])
def test_a4_how_a_callback_last_failed_is_told_with_its_time(acme: Console, words: str) -> None:
    _happened(acme, _failed(f"callback failed: {words}"), _failed("policy p: closed", at=AGO + timedelta(minutes=1)))
    last = _explained(acme, "ABC1234")["last_time"]
    assert (last["words"], last["at"]) == (f"callback failed: {words}", AGO.isoformat().replace("+00:00", "Z"))
    assert f"last time   callback failed: {words}, at {last['at']}" in acme.run("explain", "ABC1234").out


def test_a4_a_callback_that_went_well_since_is_no_trouble_any_more(acme: Console) -> None:
    _happened(acme, _failed("callback failed: HTTP 500"), Entry(
        Act.CLAIM_ISSUED, AGO + timedelta(minutes=1), "device", service_tag="ABC1234", detail={"identity": "own"}))
    assert _explained(acme, "ABC1234")["last_time"] is None


def test_a10_one_that_another_delegate_made_up_for_is_told_by_explain_and_by_its_claim(acme: Console) -> None:
    acme.serve("ABC1234")
    (claim,) = acme.ok("claims", "list", "--tag", "ABC1234")
    assert acme.ok("claims", "show", claim["claim_id"])["passed_over"] == []
    _happened(acme, Entry(
        Act.CLAIM_ISSUED, datetime.now(UTC) + timedelta(seconds=1), "device", service_tag="ABC1234",
        claim_id=claim["claim_id"], detail={"identity": "own", "trail": {
            "connection": "1-1", "steps": [["passed_over", 1.0, "delegate fo-a: connection refused"]]}}))
    assert acme.ok("claims", "show", claim["claim_id"])["passed_over"] == ["delegate fo-a: connection refused"]
    assert acme.ok("explain", "ABC1234")["last_time"]["words"] == "callback failed: delegate fo-a: connection refused"


def test_a4_what_other_devices_made_a_delegate_left_alone_for_is_told(acme: Console) -> None:
    acme.store(lambda store: store.note_health("acme-small", "open", "delegate acme-small: HTTP 403", AGO))
    assert "HTTP 403" in _explained(acme, "ABC1234")["last_time"]["words"]
    assert "another device" in _explained(acme, "ABC1234")["last_time"]["words"]


# --- what to do next ----------------------------------------------------------------------------------------------


def test_a4_what_to_do_next_fits_what_is_missing(console: Console) -> None:
    console.ok("customers", "add", "empty", "--title", "Empty")
    console.ok("devices", "add", "ABC1234", "--customer", "empty")
    console.ok("devices", "add", "ABC1235", "--order", "4711")
    console.ok("devices", "add", "--serial", "SN-6", "--order", "4712")
    for tag, hint in (("ABC1234", "delegator delegates add NAME --customer empty"),
                      ("ABC1235", "delegator orders add 4711 --customer NAME"),
                      ("ZZZ9999", "delegator devices add")):
        assert hint in console.run("explain", tag).err
