"""`enrolments`, `claims contested`, and what `explain` and `config check` make of enrolment. A2, R-enrolled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from delegator.model import IdentityKind, Result
from delegator.model.enrolled import Contest, Enrolled
from pki import Folder

from .conftest import Console

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def enrolled(acme: Console) -> Console:
    """ABC1234 claimed with the shared certificate and got its own one."""
    acme.ok("policies", "add", "either", "--identity", "either")
    acme.ok("customers", "change", "acme", "--policy", "either")
    acme.serve("ABC1234", "shared")
    acme.store(_enrol)
    return acme


async def _enrol(store: Any) -> None:
    (claim,) = await store.claims(service_tag="ABC1234")
    await store.enrolments.enrol(Enrolled("0a1b", "ABC1234", "aa" * 32, claim.claim_id, claim.binding, "PEM", NOW,
                                          NOW + timedelta(days=7300)))


async def _use(store: Any) -> None:
    (claim,) = await store.claims(service_tag="ABC1234")
    await store.confirm(claim.claim_id, "key:" + "aa" * 32, Result.FAILED, "no disk", NOW)


def _told(console: Console, *words: str) -> tuple[bool, str]:
    data = console.run("explain", "ABC1234", *words, "--json").json
    return data["allowed"], data["told"]["sentence"] + " ".join(one["text"] for one in data["reasons"])


def test_explain_knows_what_an_enrolment_changes(enrolled: Console) -> None:
    allowed, said = _told(enrolled, "--identity", "shared")
    assert (allowed, "certificate 0a1b was issued to" in said) == (True, True)
    allowed, said = _told(enrolled, "--identity", "own")
    assert (allowed, "certificate 0a1b" in said) == (True, True)
    enrolled.store(_use)
    allowed, said = _told(enrolled, "--identity", "shared")
    assert not allowed
    assert "NotEntitled" in said
    assert "the shared one is refused" in said
    assert "enrolments forget ABC1234" in enrolled.run("explain", "ABC1234", "--identity", "shared").err
    enrolled.ok("enrolments", "revoke", "ABC1234")
    assert not _told(enrolled, "--identity", "own")[0]
    enrolled.ok("enrolments", "forget", "ABC1234")
    enrolled.ok("claims", "release", "ABC1234")
    assert _told(enrolled, "--identity", "shared")[0]


def test_states_go_their_way_and_each_step_is_a_commands(enrolled: Console) -> None:
    assert [one["state"] for one in enrolled.ok("enrolments", "list")] == ["issued"]
    enrolled.store(_use)
    assert [one["serial"] for one in enrolled.ok("enrolments", "list", "--state", "used")] == ["0a1b"]
    gone = enrolled.ok("enrolments", "revoke", "ABC1234", "--reason", "keyCompromise", "--because", "ticket 815")
    assert (gone["state"], gone["reason"]) == ("revoked", "keyCompromise")
    assert "already" in enrolled.refused(6, "enrolments", "revoke", "ABC1234")
    enrolled.ok("enrolments", "forget", "ABC1234")
    assert [one["state"] for one in enrolled.ok("enrolments", "show", "ABC1234")] == ["forgotten"]
    enrolled.refused(1, "enrolments", "forget", "ABC1234")
    (line,) = enrolled.ok("enrolments", "export")
    assert set(line) == {"certificate", "issued", "revoked", "reason"}
    assert line["reason"] == "keyCompromise"
    assert "secret:" not in enrolled.said, "what a claim is bound to stays untold"


def test_second_claimants_are_listed(acme: Console) -> None:
    seen = Contest("ABC1234", IdentityKind.SHARED, "c" * 32, "acme", "acme-small", "203.0.113.9", NOW, 3)
    acme.store(lambda store: store.contests.note([(seen, None)]))
    (shown,) = acme.ok("claims", "contested", "--customer", "acme")
    assert (shown["service_tag"], shown["times"], shown["peer"], shown["identity"]) == (
        "ABC1234", 3, "203.0.113.9", "shared")
    assert acme.ok("claims", "contested", "--tag", "ABC9999") == []
    assert "203.0.113.9" in acme.run("claims", "contested").out


def test_config_check_looks_at_the_authority(console: Console) -> None:
    folder = Folder.create(Path("var/enrolment-pki"), common_name="Enrolment CA")
    factory = Folder.create(Path("var/pki"), common_name="Factory CA")
    Path("delegator.toml").write_text("[enrolment]\nenabled = true\n")

    def finding() -> dict[str, Any]:
        found: dict[str, Any] = next(one for one in console.run("config", "check", "--json").json["findings"]
                                     if one["what"] == "enrolment")
        return found
    assert "not among the anchors" in finding()["detail"]
    with factory.ca_path.open("a") as file:
        file.write(folder.ca_path.read_text())
    assert finding()["ok"]
    folder.key_path.chmod(0o640)
    assert "chmod 600" in finding()["hint"]
