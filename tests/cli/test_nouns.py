"""What is registered comes back as given, is changed only on purpose and removed only when unused. A4, A6, A9."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pki import Folder

from .conftest import Console


def _table(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_a4_what_add_takes_of_a_customer_show_returns(console: Console) -> None:
    console.ok("policies", "add", "rollout")
    given = console.ok("customers", "add", "acme", "--title", "Acme & Sons", "--policy", "rollout", "--disabled")
    assert given == {"name": "acme", "title": "Acme & Sons", "policy": "rollout", "enabled": False}
    assert console.ok("customers", "show", "acme") == {**given, "delegates": [], "signing_key": None}
    assert console.ok("customers", "list") == [given]


def test_a_customer_is_changed_on_purpose_only(acme: Console) -> None:
    assert "customers change acme" in acme.refused(6, "customers", "add", "acme", "--title", "Other")
    acme.ok("customers", "change", "acme", "--title", "Other")
    assert acme.ok("customers", "show", "acme")["title"] == "Other"


def test_what_is_referred_to_is_not_removed(acme: Console) -> None:
    acme.refused(6, "customers", "remove", "acme")
    acme.ok("devices", "remove", "ABC1234")
    acme.ok("delegates", "remove", "acme-small")
    acme.ok("customers", "remove", "acme")
    assert acme.ok("customers", "list") == []


@pytest.mark.parametrize("words", [
    ("customers", "show", "nobody"), ("customers", "remove", "nobody"), ("delegates", "show", "nobody"),
    ("rules", "show", "nobody"), ("policies", "show", "nobody"), ("policies", "approve", "nobody", "ABC1234"),
    ("policies", "disapprove", "nobody", "ABC1234"), ("devices", "show", "ZZZ9999"), ("devices", "remove", "ZZZ9999"),
    ("claims", "show", "0" * 32), ("claims", "release", "ZZZ9999"),
    ("delegates", "add", "x", "--customer", "nobody", "--hosted", "u"),
    ("rules", "add", "x", "--delegate", "nobody"), ("devices", "add", "ABC1234", "--customer", "nobody"),
    ("customers", "add", "x", "--title", "X", "--policy", "nobody")])
def test_what_is_not_there_is_said_so(console: Console, words: tuple[str, ...]) -> None:
    console.refused(1, *words)


def test_a4_a_soap_delegate_comes_back_with_all_its_settings(acme: Console, customer_ca: Folder) -> None:
    ca = customer_ca.ca_path
    given = acme.ok("delegates", "add", "acme-berlin", "--customer", "acme", "--soap", "d.acme.example:8443/soap",
                    "--address", "192.0.2.1", "--callback-ca", ca, "--url", "https://start.acme.example/x",
                    "--trust-anchor", ca, "--disabled")
    pem = ca.read_text()
    assert given == {
        "name": "acme-berlin", "customer": "acme", "url": "https://start.acme.example/x", "trust_anchor": pem,
        "policy": None, "enabled": False, "priority": 100, "weight": 1, "callback": {
            "kind": "soap", "host": "d.acme.example", "port": 8443, "path": "/soap", "trust_anchor": pem,
            "address": "192.0.2.1"}}
    assert acme.ok("delegates", "show", "acme-berlin") == {**given, "breaker": "closed"}
    shown = acme.run("delegates", "show", "acme-berlin").out
    assert "1 certificate(s)" in shown
    assert "BEGIN" not in shown


def test_delegates_are_listed_by_customer(acme: Console) -> None:
    acme.ok("customers", "add", "other", "--title", "Other")
    acme.ok("delegates", "add", "others", "--customer", "other", "--soap", "d.other.example")
    assert [one["name"] for one in acme.ok("delegates", "list", "--customer", "other")] == ["others"]
    assert len(_table(acme.run("delegates", "list").out)) == 3


def test_a_private_key_is_never_taken_for_a_trust_anchor(acme: Console, customer_ca: Folder) -> None:
    both = Path("both.pem")
    both.write_bytes(customer_ca.ca_path.read_bytes() + customer_ca.key_path.read_bytes())
    adding = ("delegates", "add", "x", "--customer", "acme", "--soap", "d.example", "--callback-ca")
    assert "private key" in acme.refused(3, *adding, both)
    both.write_text("nothing")
    acme.refused(3, *adding, both)
    acme.refused(3, *adding, "none.pem")


@pytest.mark.parametrize("words", [
    (), ("--soap", "d.example", "--hosted", "u"), ("--soap", "d.example:0"), ("--soap", "d.example:70000"),
    ("--soap", "-d.example"), ("--soap", "https://d.example"), ("--hosted", "u", "--address", "192.0.2.1"),
    ("--soap", "d.example", "--password-prompt"), ("--hosted", ""), ("--hosted", "{tag}" * 60),
    ("--hosted", "u", "--password-prompt"), ("--hosted", "u", "--url", "http://plain.example"),
    ("--hosted", "u", "--url", "https://user:secret@d.example"), ("--hosted", "u", "--url", "https://")])
def test_a_delegate_that_cannot_work_is_a_usage_error(acme: Console, words: tuple[str, ...]) -> None:
    acme.refused(2, "delegates", "add", "x", "--customer", "acme", *words)
    assert len(acme.ok("delegates", "list")) == 1


def test_a6_a_policy_comes_back_with_all_it_says(console: Console) -> None:
    given = console.ok("policies", "add", "rollout", "--identity", "either", "--from", "2026-03-01", "--until",
                       "2026-04-01T18:00:00+02:00", "--approved-only", "--max-devices", "500", "--attempts", "3",
                       "--lease", "7d", "--callbacks", "soap,hosted", "--shared-by-domain", "--no-custom-operations",
                       "--hours", "mon-fri 08:00-18:00 Europe/Berlin", "--hours", "Sat 22:00-02:00 UTC", "--network",
                       "192.0.2.0/24", "--network", "2001:db8::/32", "--domain", "Acme.Example", "--own-anywhere",
                       "--claims-per-hour", "60")
    says = given.pop("says")
    assert given == {
        "name": "rollout", "identity": "either", "from": "2026-03-01T00:00:00Z", "until": "2026-04-01T16:00:00Z",
        "approved_only": True, "max_devices": 500, "attempts": 3, "lease": "7d", "callbacks": ["hosted", "soap"],
        "custom_operations": False, "shared_by_domain": True,
        "hours": ["Mon-Fri 08:00-18:00 Europe/Berlin", "Sat 22:00-02:00 UTC"],
        "networks": ["192.0.2.0/24", "2001:db8::/32"], "domains": ["acme.example"], "own_anywhere": True,
        "claims_per_hour": 60}
    assert console.ok("policies", "show", "rollout") == {**given, "says": says, "approved": []}
    assert console.ok("policies", "list") == [{**given, "says": says}]


def test_a6_what_a_policy_does_not_say_is_the_safe_choice(console: Console) -> None:
    given = console.ok("policies", "add", "plain")
    assert given.pop("says") == ["with its own certificate", "10 attempts for each device",
                                 "the same credential for 24h"]
    assert given == {
        "name": "plain", "identity": "own", "from": None, "until": None, "approved_only": False, "max_devices": None,
        "attempts": 10, "lease": "24h", "callbacks": None, "custom_operations": True,
        "shared_by_domain": False, "hours": [], "networks": [], "domains": [], "own_anywhere": False,
        "claims_per_hour": None}


@pytest.mark.parametrize(("lease", "said"), [("90s", "90s"), ("120s", "2m"), ("60m", "1h"), ("1d", "24h"),
                                              ("2d", "2d")])
def test_durations_are_said_in_the_largest_exact_unit(console: Console, lease: str, said: str) -> None:
    assert console.ok("policies", "add", "p", "--lease", lease)["lease"] == said


@pytest.mark.parametrize(("words", "named"), [
    (("--from", "2026-03-01T08:00:00"), "time zone"), (("--from", "yesterday"), "2026-03-01T08:00:00Z"),
    (("--from", "0001-01-01T00:00:00+05:00"), "not a time"), (("--lease", "0h"), "24h"),
    (("--lease", "999d"), "366d"),
    (("--from", "2026-03-02", "--until", "2026-03-02"), "not after"), (("--callbacks", "pigeon"), "soap"),
    (("--attempts", "0"), "--attempts"), (("--identity", "none"), "either"), (("--claims-per-hour", "0"), "x>=1"),
    (("--network", "192.0.2.7/24"), "192.0.2.0/24"), (("--domain", "a..b"), "dots"),
    (("--hours", "Mon 08:00-18:00"), "Europe/Berlin"), (("--hours", "Mon 09:00-09:00 UTC"), "00:00-24:00"),
    (("--hours", "Mon 08:00-18:00 europe/berlin"), "Europe/Berlin?"),
    (("--hours", "Mon 08:00-18:00 Mars/Phobos"), "not known on this machine")])
def test_a6_a_policy_that_makes_no_sense_is_refused_with_what_would(console: Console, words: tuple[str, ...],
                                                                    named: str) -> None:
    assert named in console.refused(2, "policies", "add", "p", *words)
    assert console.ok("policies", "list") == []


def test_a6_the_approved_list_grows_and_shrinks(console: Console) -> None:
    console.ok("policies", "add", "p")
    Path("tags.txt").write_text("# first batch\nABC1234\n\nABC1235  # spare\nABC1234\n")
    assert console.ok("policies", "approve", "p", "ABC1236", "--from-file", "tags.txt") == {
        "policy": "p", "tags": 3, "new": 3, "not_registered": 3}
    assert console.ok("policies", "approve", "p", "--from-file", "-", stdin="ABC1234\n")["new"] == 0
    assert console.ok("policies", "disapprove", "p", "ABC1236", "ABC1299")["removed"] == 1
    assert console.ok("policies", "show", "p")["approved"] == ["ABC1234", "ABC1235"]
    console.ok("policies", "change", "p", "--max-devices", "3")
    assert console.ok("policies", "show", "p")["approved"] == ["ABC1234", "ABC1235"]


def test_a6_one_wrong_line_and_no_tag_is_approved(console: Console) -> None:
    console.ok("policies", "add", "p")
    said = console.refused(5, "policies", "approve", "p", "--from-file", "-", stdin="ABC1234\nabc\nABC1235\nx!\n")
    assert "line 2" in said
    assert "line 4" in said
    assert console.ok("policies", "show", "p")["approved"] == []
    console.refused(2, "policies", "approve", "p")


def test_a4_rules_are_listed_in_the_order_in_which_they_are_tried(acme: Console) -> None:
    acme.ok("rules", "add", "the-rest", "--delegate", "acme-small", "--priority", "1", "--any-genuine-device")
    acme.ok("rules", "add", "second", "--delegate", "acme-small", "--model", "R750", "--tag-prefix", "ABC")
    given = acme.ok("rules", "add", "first", "--delegate", "acme-small", "--priority", "10", "--network",
                    "192.0.2.0/24", "--mac-prefix", "00-1a-2b", "--domain", "Acme.Example", "--order", "4711")
    assert given == {"name": "first", "delegate": "acme-small", "priority": 10, "model": None, "tag_prefix": None,
                     "mac_prefix": "00:1A:2B", "network": "192.0.2.0/24", "domain": "acme.example", "order": "4711",
                     "delegator": None}
    assert acme.ok("rules", "show", "first") == {**given, "default": False}
    assert [(one["name"], one["default"]) for one in acme.ok("rules", "list")] == [
        ("first", False), ("second", False), ("the-rest", True)]
    assert "default" in acme.run("rules", "list").out.splitlines()[-1]
    acme.ok("rules", "remove", "first")
    assert len(acme.ok("rules", "list")) == 2


@pytest.mark.parametrize(("words", "named"), [
    (("--network", "192.0.2.7/24"), "192.0.2.0/24"), (("--network", "here"), "192.0.2.0/24"),
    (("--mac-prefix", "00:1"), "pairs"), (("--tag-prefix", "abc"), "ABC"), (("--domain", "a..b"), "dots")])
def test_a4_a_rule_that_could_never_match_is_refused(acme: Console, words: tuple[str, str], named: str) -> None:
    assert named in acme.refused(2, "rules", "add", "r", "--delegate", "acme-small", *words)


def test_a9_a_device_comes_back_as_it_was_registered(acme: Console) -> None:
    given = acme.ok("devices", "add", "ABC1235", "--customer", "acme", "--serial", "SN-1", "--mac", "001a2b3c4d5e",
                    "--mac", "00:1A:2B:3C:4D:5F", "--mac", "00-1A-2B-3C-4D-5E", "--model", "R 650", "--order", "4711",
                    "--delegate", "acme-small")
    assert given == {"service_tag": "ABC1235", "serial_number": "SN-1", "model": "R 650", "order": "4711",
                     "mac_addresses": ["00:1A:2B:3C:4D:5E", "00:1A:2B:3C:4D:5F"], "delegate": "acme-small",
                     "customer": "acme"}
    assert acme.ok("devices", "show", "ABC1235") == {
        **given, "registered": True, "claims": [], "owner": "acme", "by_order": False}
    assert acme.ok("devices", "add", "ABC1235", "--customer", "acme", "--serial", "SN-1", "--mac", "001a2b3c4d5e",
                   "--mac", "00:1A:2B:3C:4D:5F", "--model", "R 650", "--order", "4711", "--delegate",
                   "acme-small") == given


@pytest.mark.parametrize("words", [("--serial", "SN-9"), ("--mac", "00:1A:2B:3C:4D:99")])
def test_a9_a_device_can_be_known_by_serial_number_or_mac_alone(acme: Console, words: tuple[str, str]) -> None:
    acme.ok("devices", "add", *words, "--customer", "acme")
    assert [one["service_tag"] for one in acme.ok("devices", "list")] == ["ABC1234", None]


def test_a9_a_device_is_changed_on_purpose_only_and_never_taken_from_another_customer(acme: Console) -> None:
    acme.refused(6, "devices", "add", "ABC1234", "--customer", "acme", "--model", "R650")
    acme.ok("devices", "change", "ABC1234", "--model", "R650")
    acme.ok("customers", "add", "other", "--title", "Other")
    assert "transfers offer" in acme.refused(6, "devices", "change", "ABC1234", "--customer", "other")
    assert acme.ok("devices", "show", "ABC1234")["model"] == "R650"


@pytest.mark.parametrize(("words", "named"), [
    (("abc1234",), "ABC1234"), ((), "TAG"), (("ABC1234", "--mac", "xx"), "six pairs"), (("AB\u04101234",), "A-Z"),
    (("ABC1234", "--serial", "!"), "letters"), (("ABC1234", "--order", "a\nb"), "printable")])
def test_a9_an_identifier_of_a_wrong_form_is_refused_with_the_right_form(acme: Console, words: tuple[str, ...],
                                                                         named: str) -> None:
    assert named in acme.refused(2, "devices", "add", *words, "--customer", "acme")


def test_a_long_list_of_devices_is_one_array_and_one_heading(acme: Console) -> None:
    rows = "\n".join(f"T{number:06}" for number in range(450))
    acme.ok("devices", "import", "-", "--customer", "acme", stdin=f"service_tag\n{rows}\n")
    listed: list[dict[str, Any]] = acme.ok("devices", "list", "--customer", "acme")
    assert len(listed) == 451
    lines = acme.run("devices", "list").out.splitlines()
    assert len(lines) == 452
    assert sum(line.startswith("SERVICE TAG") for line in lines) == 1
    assert "nobody" in acme.refused(1, "devices", "list", "--customer", "nobody")


def test_claims_are_listed_shown_and_released(acme: Console) -> None:
    acme.serve("ABC1234")
    (claim,) = acme.ok("claims", "list", "--tag", "ABC1234")
    assert (claim["state"], claim["customer"], claim["peer"]) == ("issued", "acme", "192.0.2.7")
    assert acme.ok("claims", "show", claim["claim_id"]) == {**claim, "passed_over": []}
    assert acme.ok("devices", "show", "ABC1234")["claims"] == [claim]
    assert claim["claim_id"] in acme.run("claims", "list", "--state", "issued", "--customer", "acme").out
    assert acme.ok("claims", "list", "--state", "confirmed") == []
    assert acme.ok("claims", "release", "ABC1234") == {"service_tag": "ABC1234", "released": 1}
    assert acme.ok("claims", "list", "--state", "released", "--most", "1")[0]["ended_at"] is not None
    assert acme.ok("claims", "release", "ABC1234")["released"] == 0
