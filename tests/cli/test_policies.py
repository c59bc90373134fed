"""Policies are said, changed, written to files and tried; what they would do is told before it is saved. A6."""

from __future__ import annotations

import json
import re
import shlex
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from delegator.cli import policy_options
from delegator.desk import policies, policy_words, shapes
from delegator.model import (
    Customer,
    Delegate,
    IdentityKind,
    IdentityRule,
    Policy,
    Registration,
    Result,
    SoapCallback,
)
from delegator.model.hours import opening
from delegator.policy import Applied, Case, Decision, Hosts, Why, decide, over_limits, over_pace
from delegator.provisioning.judgement import refusal

from ..clock import today
from .conftest import ROOT, Console

FULL = ("--identity", "either", "--from", "2026-03-01", "--until", "2026-04-01T18:00:00+02:00", "--approved-only",
        "--max-devices", "500", "--attempts", "3", "--lease", "7d", "--callbacks", "soap,hosted", "--shared-by-domain",
        "--no-custom-operations", "--hours", "Mon-Fri 08:00-18:00 Europe/Berlin", "--hours", "Sat 22:00-02:00 UTC",
        "--network", "192.0.2.0/24", "--domain", "acme.example", "--own-anywhere", "--claims-per-hour", "60")


# --- saying -------------------------------------------------------------------------------------------------------


def test_a6_every_field_can_be_said_by_option_by_file_and_is_told_in_words() -> None:
    fields = set(Policy.__struct_fields__)
    assert set(policy_options.FIELDS.values()) == fields - {"name"}
    assert {field.into for field in policies.SHEET.fields.values()} == fields
    assert policy_words.fields() == fields - {"name"}
    assert set(shapes.policy(Policy())) == set(policies.SHEET.fields)


def test_a6_a_policy_goes_through_a_file_and_comes_back_the_same(console: Console) -> None:
    console.ok("policies", "add", "rollout", *FULL)
    shown = console.run("policies", "show", "rollout", "--json").out
    Path("rollout.json").write_text(shown)
    assert console.ok("policies", "validate", "rollout.json")["says"] == json.loads(shown)["says"]
    Path("copy.json").write_text(shown.replace('"name": "rollout"', '"name": "copy"'))
    console.ok("policies", "add", "copy", "--file", "copy.json")
    assert {**console.ok("policies", "show", "copy"), "name": "rollout"} == json.loads(shown)
    assert "copy" in console.refused(5, "policies", "add", "other", "--file", "copy.json")
    assert console.ok("policies", "add", "third", "--file", "-", "--max-devices", "7", stdin="{}")["max_devices"] == 7


def test_a6_a_policy_is_changed_in_what_is_said_and_in_nothing_else(console: Console) -> None:
    before = console.ok("policies", "add", "rollout", *FULL)
    after = console.ok("policies", "change", "rollout", "--max-devices", "800", "--unset", "until", "--unset",
                       "no-custom-operations", "--unset", "hours")
    told = {one["field"]: (one["old"], one["new"]) for one in after.pop("changed")}
    assert told["max_devices"] == (before["max_devices"], 800)
    assert set(told) == {"max_devices", "until", "custom_operations", "hours"}
    assert after.pop("lets_in")
    assert {name for name in after if after[name] != before[name]} == {
        "max_devices", "until", "custom_operations", "hours", "says"}
    assert (after["max_devices"], after["until"], after["custom_operations"], after["hours"]) == (800, None, True, [])
    assert "both said and unset" in console.refused(2, "policies", "change", "rollout", "--lease", "1h", "--unset",
                                                    "lease")
    console.refused(2, "policies", "change", "rollout")
    console.refused(2, "policies", "change", "rollout", "--until", "2026-01-01")
    console.refused(1, "policies", "change", "nobody", "--lease", "1h")
    assert console.ok("policies", "list") == [after]


@pytest.mark.parametrize(("content", "named"), [
    ("", "not JSON"), ("[]", "not a JSON object"), ("{}", "name: is missing"), ('{"name": "p", "max": 1}', "'max'"),
    ('{"name": "p", "max_devices": true, "lease": "1x"}', "max_devices: must be a number"),
    ('{"name": "p", "max_devices": true, "lease": "1x"}', "lease:"), ('{"name": "p", "attempts": null}', "attempts"),
    ('{"name": "p", "hours": "Mon 08:00-09:00 UTC"}', "list of strings"), ('{"name": "p", "from": "now"}', "from:"),
    ('{"name": "p", "from": "2026-01-02", "until": "2026-01-01"}', "until: is not after from"),
    ('{"name": "p", "identity": "none"}', "own, shared, either"), ('{"name": "P"}', "name:"),
    ('{"name": "p", "callbacks": ["pigeon"]}', "callbacks:"), ('{"name": "p", "approved": ["x"]}', "approved:")])
def test_a6_a_file_that_is_no_policy_is_refused_with_everything_that_is_wrong(console: Console, content: str,
                                                                              named: str) -> None:
    Path("p.json").write_text(content)
    assert named in console.refused(5, "policies", "validate", "p.json")


PAGE = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")


def _rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without their marks of code."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def test_a6_the_manual_has_every_option_with_its_field_and_default() -> None:
    names = {field.into: name for name, field in policies.SHEET.fields.items()}
    fields = {option: names[field] for option, field in policy_options.FIELDS.items()}
    safe = shapes.policy(Policy())
    said = {option: (field, default) for option, field, default, _ in _rows("What a policy can say")}
    assert said.keys() == {f"--{option}" for option in fields}
    for option, field in fields.items():
        name, default = said[f"--{option}"]
        assert (name, default.strip('"')) == (field, json.dumps(safe[field]).strip('"')), option


CUSTOMER, DELEGATE = Customer("acme", "Acme"), Delegate("a", "acme", SoapCallback("d.example"))
CASE = Case(CUSTOMER, DELEGATE, IdentityKind.OWN, True, frozenset(), datetime(2026, 1, 1, tzinfo=UTC), peer="192.0.2.7")
LATE, NEVER = Hosts((), "no answer", late=True), opening("Mon 08:00-09:00 UTC")
BROKEN: list[tuple[Policy, Case]] = [
    (Policy(), replace(CASE, customer=replace(CUSTOMER, enabled=False))),
    (Policy(identity=IdentityRule.EITHER), replace(CASE, identity=IdentityKind.SHARED, registered=False)),
    (Policy(custom_operations=False), CASE), (Policy(callbacks=frozenset()), CASE),
    (Policy(valid_from=CASE.now + timedelta(1)), CASE), (Policy(valid_until=CASE.now), CASE),
    (Policy(hours=(NEVER,)), CASE), (Policy(hours=(replace(NEVER, zone="Mars/Phobos"),)), CASE),
    (Policy(networks=("198.51.100.0/24",)), CASE), (Policy(domains=("acme.example",)), CASE),
    (Policy(domains=("acme.example",)), replace(CASE, hosts=LATE)),
    (Policy(identity=IdentityRule.SHARED), CASE), (Policy(approved_only=True), CASE),
    (Policy(identity=IdentityRule.EITHER), replace(CASE, identity=IdentityKind.SHARED, by_domain=True))]
"""One broken rule each, in the order of the manual."""


def test_a6_the_manual_has_every_reason_with_its_sentence_and_what_the_device_is_told() -> None:
    """The sentences are those of the code, of a case made for each."""
    found = [decide([Applied(policy, "customer/acme")], case).reasons for policy, case in BROKEN]
    limited = [Applied(Policy(max_devices=0, attempts=1, claims_per_hour=1), "customer/acme")]
    found += [(reason,) for reason in over_limits(limited, {}, 1)]
    found.append(over_pace(limited, {"customer/acme": [(0, 1)]}, datetime.fromtimestamp(0, UTC)))
    rows = _rows("Reasons")
    assert len(rows) == len(found)
    for (kind, sentence, told), (reason,) in zip(rows, found, strict=True):
        assert kind == reason.why.value
        assert re.fullmatch(re.escape(sentence).replace("…", ".+"), reason.text), (sentence, reason.text)
        assert told == refusal(Decision((reason,))).appearance.fault
    of_policies = set(re.findall(r"Why\.([A-Z_]+)", (ROOT / "delegator" / "policy.py").read_text()))
    assert {row[0] for row in rows} == {Why[name].value for name in of_policies}


def test_every_line_of_the_manual_works(acme: Console) -> None:
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            program, *words = shlex.split(line)
            done = acme.run(*words)
            assert program == "delegator"
            assert done.code == (5 if words[0] == "explain" and "against" in done.out else 0), (line, done.err)


# --- trying -------------------------------------------------------------------------------------------------------


@pytest.fixture
def fleet(acme: Console) -> Console:
    """acme's policy lets everything be; of its ten devices one is provisioned, one holds a credential."""
    acme.ok("policies", "add", "rollout")
    acme.ok("customers", "change", "acme", "--policy", "rollout")
    for number in range(1, 9):
        acme.ok("devices", "add", f"ABC100{number}", "--customer", "acme")
    acme.ok("devices", "add", "--serial", "SN-9", "--customer", "acme")
    for tag in ("ABC1001", "ABC1002"):
        acme.serve(tag)
    acme.store(lambda store: _confirm(store, "ABC1001"))
    return acme


async def _confirm(store: Any, tag: str) -> None:
    (claim,) = await store.claims(service_tag=tag)
    await store.confirm(claim.claim_id, claim.binding, Result.DEPLOYED, None, datetime.now(UTC))


def _tried(console: Console, *words: str, **how: Any) -> dict[str, Any]:
    before = console.ok("policies", "list"), console.ok("claims", "list")
    tried: dict[str, Any] = console.ok("policies", "try", *words, **how)
    assert (console.ok("policies", "list"), console.ok("claims", "list")) == before, "a trial changes nothing"
    return tried


def test_a6_a_change_that_changes_nothing_leaves_every_device_as_it_is(fleet: Console) -> None:
    tried = _tried(fleet, "rollout", "--set", "lease=48h")
    assert tried["becomes"] == {"allowed": 0, "refused": 0, "otherwise": 0, "unchanged": 10}
    assert tried["verdicts"] == {
        "allowed": {"present": 9, "changed": 9}, "try later": {"present": 0, "changed": 0},
        "refused": {"present": 0, "changed": 0}, "provisioned": {"present": 1, "changed": 1}}
    assert (tried["devices"], tried["without_tag"]) == (10, 1)


def test_a6_what_a_changed_policy_would_do_to_each_device_is_told_before_it_is_saved(fleet: Console) -> None:
    fleet.ok("policies", "approve", "rollout", "ABC1003", "ABC1004")
    tried = _tried(fleet, "rollout", "--set", "approved-only", "--set", "max-devices=3", "--list", "refused")
    assert tried["becomes"] == {"allowed": 0, "refused": 7, "otherwise": 1, "unchanged": 2}
    assert tried["reasons"]["not approved"] == {"present": 0, "changed": 8}
    assert tried["places"] == [{"holder": "customer/acme", "taken": 2, "max_devices": 3, "left": 1, "wanted": 2}]
    assert sorted(one["device"] for one in tried["affected"]) == [
        "ABC1002", "ABC1005", "ABC1006", "ABC1007", "ABC1008", "ABC1234", "SN-9"]
    assert tried["affected"][0]["changed_reasons"][0]["text"].startswith("policy rollout: ")
    fleet.ok("policies", "change", "rollout", "--approved-only")
    back = _tried(fleet, "rollout", "--unset", "approved-only", "--list", "allowed")
    assert back["becomes"]["allowed"] == len(back["affected"]) == 7


def test_a6_a_device_that_holds_its_place_keeps_it_when_there_are_fewer(fleet: Console) -> None:
    tried = _tried(fleet, "rollout", "--set", "max-devices=1", "--list", "all")
    assert tried["verdicts"]["try later"] == {"present": 0, "changed": 8}
    assert "ABC1002" not in [one["device"] for one in tried["affected"]]
    assert tried["reasons"]["devices taken"] == {"present": 0, "changed": 8}


def test_a6_what_only_a_real_call_has_is_said_by_options(fleet: Console) -> None:
    network = ("rollout", "--set", "network=192.0.2.0/24", "--set", "identity=either")
    assert _tried(fleet, *network, "--from", "192.0.2.9")["becomes"]["refused"] == 0
    assert _tried(fleet, *network, "--from", "198.51.100.9")["becomes"]["refused"] == 9
    assert "--from" in fleet.run("policies", "try", *network).err
    shared = _tried(fleet, *network, "--from", "192.0.2.9", "--identity", "shared")
    assert shared["becomes"] == {"allowed": 7, "refused": 0, "otherwise": 3, "unchanged": 0}, \
        "one has no tag yet, two are claimed by their own certificates"
    hours = ("rollout", "--set", "hours=Mon-Fri 08:00-18:00 Europe/Berlin", "--at")
    assert _tried(fleet, *hours, "2026-03-02T07:00:00Z")["becomes"]["refused"] == 0
    assert _tried(fleet, *hours, "2026-03-01T07:00:00Z")["becomes"]["refused"] == 9


def test_a6_attempts_and_claims_of_the_hour_are_those_that_stand(fleet: Console) -> None:
    now = datetime.now(UTC)
    fleet.ok("policies", "change", "rollout", "--lease", "1m", "--claims-per-hour", "100")
    fleet.serve("ABC1003", at=now - timedelta(minutes=10))
    tried = _tried(fleet, "rollout", "--set", "attempts=1", "--list", "all")
    assert [one["device"] for one in tried["affected"]] == ["ABC1003"]
    assert tried["affected"][0]["changed_reasons"][0]["why"] == "attempts used"
    hourly = _tried(fleet, "rollout", "--set", "claims-per-hour=1")
    assert hourly["reasons"]["claims per hour"] == {"present": 0, "changed": 8}


def test_a6_a_policy_in_a_file_is_tried_on_those_who_would_name_it(fleet: Console) -> None:
    """Its own list counts, too."""
    Path("strict.json").write_text(json.dumps({"name": "strict", "approved_only": True, "approved": ["ABC1005"]}))
    assert _tried(fleet, "strict.json")["becomes"]["unchanged"] == 10
    assert "nobody names policy strict" in fleet.run("policies", "try", "strict.json").out
    tried = _tried(fleet, "strict.json", "--customer", "acme")
    assert tried["becomes"]["refused"] == 8
    assert tried["places"][0]["wanted"] == 1
    assert _tried(fleet, "strict.json", "--delegate", "acme-small")["becomes"]["refused"] == 8
    fleet.refused(1, "policies", "try", "strict.json", "--customer", "nobody")
    fleet.refused(1, "policies", "try", "nobody")
    fleet.refused(3, "policies", "try", "none.json")


def test_a6_the_devices_of_a_file_are_tried_registered_or_not(fleet: Console) -> None:
    tried = _tried(fleet, "rollout", "--set", "no-custom-operations", "--devices", "-", "--list", "all",
                   stdin="ABC1003 # spare\nZZZ9999\n\nABC1003\n")
    assert tried["devices"] == 2
    assert [one["device"] for one in tried["affected"]] == ["ABC1003"]
    assert tried["reasons"] == {"no route": {"present": 1, "changed": 1}, "not allowed": {"present": 0, "changed": 1}}
    assert "line 2" in fleet.refused(5, "policies", "try", "rollout", "--devices", "-", stdin="ABC1003\nx\n")


@pytest.mark.parametrize("words", [
    ("--set", "max-devices=-1"), ("--set", "colour=red"), ("--set", "approved-only=yes"), ("--set", "lease"),
    ("--set", "lease=1h", "--unset", "lease"), ("--unset", "colour")])
def test_a6_a_setting_that_makes_no_sense_is_a_usage_error(fleet: Console, words: tuple[str, ...]) -> None:
    fleet.refused(2, "policies", "try", "rollout", *words)


def test_a6_people_see_sums_and_the_devices_they_ask_for(fleet: Console) -> None:
    said = fleet.run("policies", "try", "rollout", "--set", "no-custom-operations", "--list", "refused").out
    assert "of 10 devices 0 would become allowed, 9 refused" in said
    assert "ABC1002  allowed -> refused  policy rollout: custom operations are not allowed" in said
    assert "customer/acme" in said


def test_explain_and_try_agree_on_every_device(fleet: Console) -> None:
    """A policy that is tried and then saved does what was told."""
    fleet.ok("policies", "approve", "rollout", "ABC1003", "ABC1006")
    change = ("approved-only", "hours=daily 00:00-24:00 UTC", "attempts=2", "claims-per-hour=9")
    tried = _tried(fleet, "rollout", *(word for one in change for word in ("--set", one)), "--list", "all")
    told = {one["device"]: one for one in tried["affected"]}
    fleet.ok("policies", "change", "rollout", "--approved-only", "--hours", "daily 00:00-24:00 UTC", "--attempts", "2",
             "--claims-per-hour", "9")
    for number in range(1, 9):
        tag = f"ABC100{number}"
        now = fleet.run("explain", tag, "--json").json
        if tag in told:
            assert [one["why"] for one in now["reasons"]] == [one["why"] for one in told[tag]["changed_reasons"]]
        else:
            assert now["allowed"], "nothing was told of it, so it is as it was"


@pytest.mark.slow
def test_a6_a_trial_of_many_devices_needs_no_more_memory_than_of_few(console: Console) -> None:
    """Of ten times as many devices it holds on to no more than a megabyte more: a million are no matter."""
    console.ok("policies", "add", "rollout")
    console.ok("customers", "add", "acme", "--title", "Acme", "--policy", "rollout")
    console.ok("delegates", "add", "acme-small", "--customer", "acme", "--hosted", "u")
    peaks = []
    for first, last in ((0, 3_000), (3_000, 30_000)):
        console.store(lambda store, numbers=range(first, last): store.add_devices((
            Registration("acme", f"TAG{number:07}") for number in numbers), today()))
        tracemalloc.start()
        try:
            tried = console.ok("policies", "try", "rollout", "--set", "max-devices=0")
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert tried["verdicts"]["try later"]["changed"] == tried["devices"] == last
    assert peaks[1] < peaks[0] + 2**20, peaks


def test_a6_tags_that_nobody_registered_are_approved_and_counted(acme: Console) -> None:
    acme.ok("policies", "add", "listed", "--approved-only")
    done = acme.run("policies", "approve", "listed", "ABC1234", "ZZZ0001", "ZZZ0002", "--json")
    assert (done.json["new"], done.json["not_registered"]) == (3, 2)
    assert "note: 2 of them are not registered: ZZZ0001, ZZZ0002" in done.err
    assert acme.ok("policies", "show", "listed")["approved"] == ["ABC1234", "ZZZ0001", "ZZZ0002"]
    many = [f"YYY{number:04}" for number in range(1200)]
    Path("tags.txt").write_text("\n".join(["ABC1234", *many]))
    done = acme.run("policies", "approve", "listed", "--from-file", "tags.txt", "--json")
    assert done.json["not_registered"] == 1200
    assert "YYY0004, ..." in done.err
    known = acme.run("policies", "approve", "listed", "ABC1234", "--json")
    assert known.json["not_registered"] == 0
    assert "not registered" not in known.err


@pytest.mark.parametrize(("words", "said"), [
    (("--domain", "acme.example"), "so this policy allows nothing"),
    (("--domain", "acme.example", "--network", "192.0.2.0/24"), "allows addresses in its networks only"),
    (("--domain", "acme.example", "--own-anywhere"), "allows devices with a certificate of their own only"),
    (("--shared-by-domain",), "--shared-by-domain allows nothing")])
def test_TB4_what_a_policy_asks_of_reverse_dns_is_in_vain_while_that_is_off(acme: Console, words: tuple[str, ...],
                                                                            said: str) -> None:
    acme.ok("policies", "add", "plain")
    Path("p.json").write_text(json.dumps(acme.ok("policies", "show", "plain")))
    for verb in (("add", "p", *words), ("change", "plain", *words)):
        done = acme.run("policies", *verb)
        assert done.code == 0
        assert "note: while reverse DNS is off" in done.err
        assert said in done.err
    assert "note:" not in acme.run("policies", "validate", "p.json").err
    Path("p.json").write_text(json.dumps(acme.ok("policies", "show", "p")))
    assert said in acme.run("policies", "validate", "p.json").err
    Path("delegator.toml").write_text("[domains]\nenabled = true\n")
    assert "note:" not in acme.run("policies", "change", "p", "--attempts", "3").err
