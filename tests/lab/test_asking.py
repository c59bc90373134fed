"""The walk of one request, block by block: who asks, whose it is, what is written down, what goes back (205-216).

Identity comes before any look-up; `asking` is durable before a delegate is asked and `issued` before anything is
answered; every call ends as one trail, one line of metrics, and rows of audit.
"""

from __future__ import annotations

import logging

import pytest

from delegator.model import ClaimState, IdentityKind, PeerCertificate
from delegator.store import Store, Tables
from delegator.store.engines.sqlite.driver import SqliteDriver

from .lab import FACTORY, PEER, SECRET, SHARED, START, Lab, Wire, asking, certificate, key_of

TAG = "ABC1234"
WALK = ["connected", "authenticated", "asked", "identified", "routed", "decided", "claimed", "called_back", "issued",
        "answered"]


async def test_a_device_gets_its_owners_credential_and_everything_is_on_record(lab: Lab) -> None:
    await lab.own(TAG)
    reply = await lab.ask(TAG, location={"IPAddress": "10.0.0.9"})
    claim = await lab.claim(TAG)

    assert (reply.status, reply.level) == (200, logging.INFO)
    assert reply.credential == ("user of acme-1", "password 0 of acme-1")
    assert reply.claim == claim.claim_id
    assert (reply.text("NotAfter"), reply.text("HandshakeCertificate"), reply.texts("AlternateDelegator")) == (
        None, None, [])

    assert (claim.state, claim.customer, claim.delegate, claim.attempt, claim.identity) == (
        ClaimState.ISSUED, "acme", "acme-1", 1, IdentityKind.OWN)
    assert (claim.peer, claim.binding) == (PEER, f"key:{key_of(TAG)}")
    assert claim.callback is not None
    assert claim.callback.value == "soap"
    assert (claim.asked_at, claim.issued_at, claim.ended_at) == (START, START, None)
    assert (claim.lease_until - START).total_seconds() == 24 * 3600

    assert reply.steps == WALK
    assert reply.trail.facts == {"operation": "GetProvisioningCredential", "tag": TAG, "identity": "own",
                                 "customer": "acme", "delegate": "acme-1", "outcome": "Answered"}
    assert reply.note("asked") == "GetProvisioningCredential"
    assert reply.note("identified") == "ABC1234, by its own handshake certificate"
    assert reply.note("routed") == ("customer Acme, delegate acme-1, because its service tag is registered to "
                                    "customer acme")
    assert reply.note("decided") == "policy acme allows it"
    assert reply.note("claimed") == "opened"
    assert reply.note("called_back") == "callback soap to acme-1"
    assert reply.note("issued") == f"claim {claim.claim_id}, attempt 1"

    assert lab.counted("delegator_handshakes_total", outcome="Answered") == 1
    assert lab.counted("delegator_claims_total", outcome="opened") == 1
    assert lab.counted("delegator_delegate_call_duration_seconds_count", delegate="acme-1") == 1
    assert await lab.acts(TAG) == ["claim.asked", "claim.issued"]
    assert not await lab.outbox()
    assert lab.woken == []


async def test_the_delegate_is_told_who_asks_from_where_and_until_when(lab: Lab) -> None:
    await lab.own(TAG)
    reply = await lab.ask(TAG, serial="SN1", macs=["00:1A:2B:3C:4D:5E"], model="R750", location={"Domain": "a.example"})
    ((name, request, until),) = lab.servers.asked
    assert (name, request.claim_id, request.peer_address) == ("acme-1", reply.claim, PEER)
    assert (request.device.service_tag, request.device.serial_number, request.device.model) == (TAG, "SN1", "R750")
    assert request.location.domain == "a.example"
    assert until == (await lab.claim(TAG)).lease_until


async def test_asking_is_durable_before_a_delegate_is_asked_and_issued_before_it_is_answered(lab: Lab) -> None:
    await lab.own(TAG)
    seen = []

    async def look(*_: object) -> None:
        seen.append(await lab.claim(TAG))
    lab.servers.meanwhile = look
    await lab.ask(TAG)
    (while_asked,) = seen
    assert (while_asked.state, while_asked.sealed, while_asked.issued_at) == (ClaimState.ASKING, None, None)
    claim = await lab.claim(TAG)
    assert claim.state is ClaimState.ISSUED
    assert claim.sealed is not None
    assert b"password" not in claim.sealed
    assert "password 0 of acme-1" in lab.store.reveal(claim)


async def test_the_trail_stands_in_the_row_of_audit_of_what_was_issued_and_no_secret_does(lab: Lab) -> None:
    await lab.own(TAG)
    await lab.ask(TAG)
    asked, issued = await lab.audit(claim_id=(await lab.claim(TAG)).claim_id)
    assert (asked.actor, asked.peer, asked.service_tag, asked.customer, asked.delegate, asked.outcome, asked.at) == (
        "device", PEER, TAG, "acme", "acme-1", "done", START)
    assert asked.detail == {"event": "asked", "identity": "own", "attempt": 1}
    trail = issued.detail["trail"]
    assert isinstance(trail, dict)
    assert [step[0] for step in trail["steps"]] == WALK[:-2]
    assert (issued.detail["event"], issued.detail["callback"]) == ("delegate answered", "soap")
    assert "password" not in str(await lab.audit())


async def test_a_claims_id_begins_with_the_time_and_cannot_be_guessed(lab: Lab) -> None:
    await lab.own(TAG, "ABC1235")
    one, other = (await lab.ask(TAG)).claim, (await lab.ask("ABC1235")).claim
    assert int(one[:12], 16) == int(START.timestamp() * 1000)
    assert len(one) == 32
    assert one[:12] == other[:12]
    assert one[12:] != other[12:]


# --- identity before anything ------------------------------------------------------------------------------------

STRANGERS = {
    "another tag's certificate": (certificate("XYZ9999"), "the certificate is for 'XYZ9999', the request for ABC1234"),
    "none": (None, "no certificate was shown"),
    "two names": (certificate(TAG, "XYZ9999"), "the certificate has 2 common names"),
    "no name": (PeerCertificate((), 1, "aa"), "the certificate has 0 common names"),
    "one that ends like the shared one": (certificate("a-shared-device"), "the certificate is for 'a-shared-device'"),
}


@pytest.mark.parametrize("shown", STRANGERS)
async def test_R_identity_who_cannot_be_the_device_is_refused_before_anything_is_looked_up(
        lab: Lab, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await lab.own(TAG)
    looked: list[object] = []

    async def about(self: Store, device: object) -> tuple[Tables, object]:
        looked.append(device)
        raise AssertionError
    monkeypatch.setattr(Store, "about", about)
    presented, why = STRANGERS[shown]
    reply = await lab.post(asking(TAG), Wire(presented))
    assert (reply.fault, reply.status, reply.level) == ("IdentityRejected", 500, logging.WARNING)
    assert reply.trail.reasons[0].startswith(why)
    assert reply.steps == ["connected", "authenticated", "asked", "refused"]
    assert reply.trail.facts["tag"] == TAG
    assert not looked
    assert not await lab.claims(TAG)
    assert not lab.servers.asked


async def test_a_certificate_that_cannot_be_read_proves_nothing(lab: Lab) -> None:
    class Odd(Wire):
        @property
        def certificate(self) -> PeerCertificate | None:  # type: ignore[override]
            raise ValueError("certificate: not the structure of RFC 5280")

        @certificate.setter
        def certificate(self, _: object) -> None:
            pass
    reply = await lab.post(asking(TAG), Odd(None))
    assert reply.fault == "IdentityRejected"
    assert reply.trail.reasons == ("certificate: not the structure of RFC 5280",)


async def test_R_shared_the_shared_certificate_gets_nothing_where_no_policy_says_otherwise(lab: Lab) -> None:
    await lab.own(TAG)
    reply = await lab.ask(TAG, shown=SHARED)
    assert (reply.fault, reply.retry_after) == ("NotEntitled", None)
    assert reply.trail.reasons == ("policy acme: identity must be own, the device showed shared",)
    assert reply.trail.facts["identity"] == "shared"
    assert reply.note("identified") == "ABC1234, by its shared certificate"
    assert not await lab.claims(TAG)


# --- a store that cannot ------------------------------------------------------------------------------------------


async def test_while_the_line_for_the_store_is_old_only_who_asks_again_is_answered(
        lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """T-C19: whoever would join it is told so at once, and nothing is begun; what is on disk needs no line."""
    await lab.own(TAG)
    await lab.own("NEW0001")
    first = await lab.ask(TAG)
    monkeypatch.setattr(SqliteDriver, "age", property(lambda self: 1.1))
    reply = await lab.ask("NEW0001")
    assert (reply.fault, reply.retry_after, reply.status) == ("TryLater", 30, 500)
    assert reply.steps == ["connected", "authenticated", "asked", "identified", "routed", "decided", "refused"]
    assert "others have waited for a commit for 1.1 s" in reply.trail.reasons[0]
    assert not await lab.claims("NEW0001")
    again = await lab.ask(TAG)
    assert again.status == 200
    assert again.texts("Password") == first.texts("Password")
    monkeypatch.undo()
    assert (await lab.ask("NEW0001")).status == 200


@pytest.mark.parametrize("what", ["shared certificate", "reading waits too"])
async def test_while_the_line_for_the_store_is_old_nothing_is_looked_at_for_who_must_learn_nothing(
        lab: Lab, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Nor on PostgreSQL, where reading takes one of the connections that all wait for."""
    await lab.own(TAG)
    monkeypatch.setattr(SqliteDriver, "age", property(lambda self: 1.1))
    monkeypatch.setattr(SqliteDriver, "reads_beside", what != "reading waits too")
    reply = await lab.ask(TAG, **({"shown": SHARED} if what == "shared certificate" else {}))
    assert (reply.fault, reply.retry_after) == ("TryLater", 30)
    assert "routed" not in reply.steps


# --- what is said beside the credential ---------------------------------------------------------------------------


async def test_A10_the_other_delegators_are_told_with_every_answer(lab: Lab) -> None:
    lab.serve(alternates=("delegator-2.example:4433", "delegator-3.example:4433"))
    await lab.own(TAG)
    await lab.own("GLO1234", customer="globex")
    for tag in (TAG, TAG, "GLO1234"):
        assert (await lab.ask(tag)).texts("AlternateDelegator") == [
            "delegator-2.example:4433", "delegator-3.example:4433"]


ADDRESSES = {
    "what the delegate says": ({"url": "https://prov.acme.example/", "trust_anchor": "ACME"}, None,
                               ("https://prov.acme.example/", "ACME")),
    "its server, whose authority it trusts": ({}, "SERVER", ("https://acme-9.example:443/provisioning", "SERVER")),
    "its server, and the factory": ({}, None, ("https://acme-9.example:443/provisioning", FACTORY)),
    "an address of its own, its server's authority": ({"url": "https://other.example/p"}, "SERVER",
                                                      ("https://other.example/p", "SERVER")),
    "its own anchor before its server's": ({"trust_anchor": "ACME"}, "SERVER",
                                           ("https://acme-9.example:443/provisioning", "ACME")),
}


@pytest.mark.parametrize("said", ADDRESSES)
async def test_a_device_is_told_where_to_go_and_whom_to_trust_there(lab: Lab, said: str) -> None:
    fields, anchor, expected = ADDRESSES[said]
    await lab.delegate("acme-9", anchor=anchor, **fields)
    await lab.own(TAG, delegate="acme-9")
    assert (await lab.ask(TAG)).delegate == expected


async def test_where_there_is_no_server_and_no_address_a_device_is_told_none(lab: Lab) -> None:
    await lab.own(TAG, customer="globex")
    assert (await lab.ask(TAG)).delegate == (None, None)


async def test_settings_kept_here_can_name_an_address_too(lab: Lab) -> None:
    await lab.delegate("globex-1", "globex", by="hosted", url="https://g.example/", replace=True)
    await lab.own(TAG, customer="globex")
    assert (await lab.ask(TAG)).delegate == ("https://g.example/", FACTORY)


@pytest.mark.parametrize("by", ["ssh", "local"])
async def test_a_command_and_a_program_are_delegates_too(lab: Lab, by: str) -> None:
    await lab.delegate("acme-9", by=by)
    await lab.own(TAG, delegate="acme-9")
    reply = await lab.ask(TAG)
    assert reply.credential == ("user of acme-9", "password 0 of acme-9")
    assert reply.note("called_back") == f"callback {by} to acme-9"
    assert reply.delegate == (None, None)


async def test_the_secret_of_a_request_is_in_no_trail(lab: Lab) -> None:
    await lab.own(TAG)
    reply = await lab.ask(TAG)
    assert SECRET not in str(reply.trail.as_data())
    assert SECRET not in str(await lab.audit())
