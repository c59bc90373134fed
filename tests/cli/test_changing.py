"""What is changed is what was named, and no command lets more devices in without saying so.

The law goes over every command there is: each either lets something in, then a device that was refused is served after
it and it said so, or never does, with the reason. A command that is new and in neither list fails here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from delegator.errors import DelegatorError
from delegator.model import Customer, Result
from delegator.sealing import SealingKey, read_key_file
from delegator.store import Store, open_store
from delegator.store.changing import CUSTOMER, NOUNS

from ..clock import today
from .conftest import Console, Ran
from .test_commands import VERBS

TAG = "ABC1234"
STRANGER = "ZZZ9999"
Words = tuple[str, ...]


@dataclass(frozen=True)
class Lets:
    """A command that lets a device in: what stands before it, what is said of it, and which device then asks."""

    before: tuple[Words, ...]
    words: Words
    tag: str = TAG
    identity: str = "own"
    device: str = "1"
    first: Callable[[Console], object] | None = None


CLOSED: tuple[Words, ...] = (("policies", "add", "closed", "--max-devices", "0"),
                             ("customers", "change", "acme", "--policy", "closed"))
OTHER: tuple[Words, ...] = (("customers", "add", "globex", "--title", "Globex"),
                            ("delegates", "add", "globex-1", "--customer", "globex", "--hosted", "u"))
RULE: Words = ("rules", "add", "all", "--delegate", "acme-small", "--priority", "50", "--any-genuine-device")


def _served(console: Console) -> None:
    assert not isinstance(console.serve(TAG), DelegatorError)


def _listed(console: Console) -> None:
    Path("rows.csv").write_text(f"service_tag\n{STRANGER}\n")
    Path("orders.csv").write_text("order,customer\n815,acme\n")


LETS: dict[str, list[Lets]] = {
    "customers change": [
        Lets(CLOSED, ("customers", "change", "acme", "--unset", "policy")),
        Lets((*CLOSED, ("policies", "add", "open")), ("customers", "change", "acme", "--policy", "open"))],
    "customers enable": [Lets((("customers", "disable", "acme"),), ("customers", "enable", "acme"))],
    "delegates add": [Lets((("devices", "add", STRANGER, "--customer", "globex"), OTHER[0])[::-1], OTHER[1], STRANGER)],
    "delegates change": [
        Lets((CLOSED[0], ("delegates", "change", "acme-small", "--policy", "closed")),
             ("delegates", "change", "acme-small", "--unset", "policy")),
        Lets((("delegates", "add", "acme-2", "--customer", "acme", "--hosted", "u", "--priority", "200"), CLOSED[0],
              ("delegates", "change", "acme-small", "--policy", "closed")),
             ("delegates", "change", "acme-small", "--priority", "300")),
        Lets((("policies", "add", "local", "--callbacks", "ssh,local"),
              ("delegates", "change", "acme-small", "--policy", "local"),
              ("delegates", "add", "acme-2", "--customer", "acme", "--hosted", "u", "--priority", "1", "--disabled")),
             ("delegates", "change", "acme-small", "--unset", "policy"))],
    "delegates enable": [Lets((("delegates", "disable", "acme-small"),), ("delegates", "enable", "acme-small"))],
    "delegates disable": [
        Lets((("delegates", "add", "acme-2", "--customer", "acme", "--hosted", "u", "--priority", "200"), CLOSED[0],
              ("delegates", "change", "acme-small", "--policy", "closed")), ("delegates", "disable", "acme-small"))],
    "delegates remove": [
        Lets((CLOSED[0], ("delegates", "add", "acme-0", "--customer", "acme", "--hosted", "u", "--priority", "1",
                          "--policy", "closed")), ("delegates", "remove", "acme-0"))],
    "rules add": [
        Lets((), RULE, STRANGER), Lets((), ("rules", "add", "z", "--delegate", "acme-small", "--tag-prefix", "ZZ"),
                                       STRANGER)],
    "rules change": [
        Lets((("rules", "add", "x", "--delegate", "acme-small", "--model", "R1"),),
             ("rules", "change", "x", "--unset", "model", "--any-genuine-device"), STRANGER),
        Lets((("rules", "add", "x", "--delegate", "acme-small", "--network", "198.51.100.0/24"),),
             ("rules", "change", "x", "--network", "192.0.2.0/24"), STRANGER),
        Lets((CLOSED[0], *OTHER, ("customers", "change", "globex", "--policy", "closed"), RULE,
              ("rules", "add", "x", "--delegate", "globex-1", "--tag-prefix", "Z", "--priority", "10")),
             ("rules", "change", "x", "--tag-prefix", "Y"), STRANGER)],
    "rules remove": [
        Lets((CLOSED[0], *OTHER, ("customers", "change", "globex", "--policy", "closed"), RULE,
              ("rules", "add", "x", "--delegate", "globex-1", "--tag-prefix", "Z", "--priority", "10")),
             ("rules", "remove", "x"), STRANGER),
        Lets((RULE, ("rules", "add", "x", "--delegator", "asia.example", "--tag-prefix", "Z", "--priority", "10")),
             ("rules", "remove", "x"), STRANGER)],
    "policies change": [
        Lets(CLOSED, ("policies", "change", "closed", "--max-devices", "5")),
        Lets(CLOSED, ("policies", "change", "closed", "--file", "policy.json"),
             first=lambda _: Path("policy.json").write_text('{"max_devices": null}'))],
    "policies approve": [
        Lets((("policies", "add", "listed", "--approved-only"), ("customers", "change", "acme", "--policy", "listed")),
             ("policies", "approve", "listed", TAG))],
    "devices add": [Lets((), ("devices", "add", STRANGER, "--customer", "acme"), STRANGER)],
    "devices change": [
        Lets((("devices", "add", STRANGER, "--order", "815"),),
             ("devices", "change", STRANGER, "--customer", "acme"), STRANGER),
        Lets((CLOSED[0], ("delegates", "change", "acme-small", "--policy", "closed"),
              ("devices", "change", TAG, "--delegate", "acme-small"),
              ("delegates", "add", "acme-2", "--customer", "acme", "--hosted", "u")),
             ("devices", "change", TAG, "--delegate", "acme-2"))],
    "devices import": [Lets((), ("devices", "import", "rows.csv", "--customer", "acme"), STRANGER, first=_listed)],
    "devices remove": [
        Lets((*CLOSED, *OTHER, ("rules", "add", "x", "--delegate", "globex-1", "--tag-prefix", "ABC")),
             ("devices", "remove", TAG))],
    "devices repair": [
        Lets((), ("devices", "repair", TAG, "--within", "1d", "--because", "x"), device="2", first=_served)],
    "orders add": [
        Lets((("devices", "add", STRANGER, "--order", "815"),), ("orders", "add", "815", "--customer", "acme"),
             STRANGER)],
    "orders change": [
        Lets((CLOSED[0], ("delegates", "add", "acme-2", "--customer", "acme", "--hosted", "u", "--policy", "closed"),
              ("devices", "add", STRANGER, "--order", "815"),
              ("orders", "add", "815", "--customer", "acme", "--delegate", "acme-2")),
             ("orders", "change", "815", "--delegate", "acme-small"), STRANGER)],
    "orders import": [Lets((("devices", "add", STRANGER, "--order", "815"),), ("orders", "import", "orders.csv"),
                           STRANGER, first=_listed)],
    "transfers accept": [
        Lets((*CLOSED, *OTHER, ("transfers", "offer", TAG, "--to", "globex")),
             ("transfers", "accept", TAG, "--as", "globex"))],
    "claims release": [Lets((), ("claims", "release", TAG), device="2", first=_served)],
}
"""Where the device that asks is served after the command and was refused before."""
ELSEWHERE = {
    "enrolments forget": "tests/cli/test_enrolments.py has devices with certificates that were issued online",
    "policies add": "test_a_policy_that_settings_wait_for_is_told_when_it_comes",
}
"""Commands that let something in, and say so, for which there is a test of its own."""
NEVER = {
    "reads only": (
        "customers list", "customers show", "delegates list", "delegates show", "delegates scan-host-key",
        "delegates test",
        "devices list", "devices show", "devices export", "orders list", "orders show", "orders export", "rules list",
        "rules show", "policies list", "policies show", "policies try", "policies validate", "claims list",
        "claims show", "claims contested", "enrolments list", "enrolments show", "enrolments export", "transfers list",
        "transfers show", "transfers statement", "notifications list", "audit list", "audit show", "audit export",
        "audit verify", "delegate list", "sealing status",
        "plans list", "plans show", "usage reconcile", "explain", "config check", "config show",
        "backup", "completion"),
    "nobody's devices yet": ("customers add",),
    "nothing refers to it": ("customers remove", "policies remove"),
    "only takes away": ("customers disable", "policies disapprove", "devices return", "orders remove",
                        "enrolments revoke", "transfers offer", "transfers decline", "transfers withdraw"),
    "no device is judged by it": ("notifications retry", "audit prune", "plans add", "plans change", "plans assign",
                                  "plans remove", "usage close", "sealing rotate", "config new-key", "config write"),
    "puts back all that stood when the copy was made, which is asked for by its name": ("restore",),
    "runs the product as it is set up": ("serve", "demo", "delegate serve", "device activate"),
}


def test_every_command_is_in_one_of_the_lists() -> None:
    told = [*LETS, *ELSEWHERE, *(path for paths in NEVER.values() for path in paths)]
    assert sorted(told) == sorted(VERBS), "one that is in no list, in two, or is gone"


CASES = [(path, at) for path, some in LETS.items() for at in range(len(some))]


@pytest.mark.parametrize(("path", "at"), CASES)
def test_whoever_lets_a_device_in_says_so(acme: Console, path: str, at: int) -> None:
    case = LETS[path][at]
    for words in case.before:
        acme.ok(*words)
    if case.first is not None:
        case.first(acme)
    assert isinstance(acme.serve(case.tag, case.identity, device=case.device), DelegatorError), "let in before"
    done = acme.run(*case.words, "--json")
    assert done.code == 0, done.err
    assert not isinstance(acme.serve(case.tag, case.identity, device=case.device), DelegatorError), "not let in"
    assert _said(done), (done.out, done.err)


def _said(done: Ran) -> bool:
    """Loudly and as data where nobody would look for it; in words where letting in is what the command is for."""
    data = json.loads(done.out)
    if "WARNING: this lets in what was refused before:" in done.err:
        return bool(isinstance(data, dict) and data["lets_in"])
    return "lets in: " in done.err


def test_what_lets_nobody_in_is_no_warning(acme: Console) -> None:
    for words in (("customers", "change", "acme", "--title", "Other"), ("customers", "disable", "acme"),
                  ("policies", "add", "p"), ("policies", "change", "p", "--max-devices", "5"),
                  ("delegates", "change", "acme-small", "--url", "https://acme.example/")):
        done = acme.run(*words, "--json")
        assert done.code == 0
        assert "lets in" not in done.err
        assert not done.json.get("lets_in")


# --- change -------------------------------------------------------------------------------------------------------


def test_a_change_tells_each_field_old_and_new_and_touches_no_other(acme: Console) -> None:
    acme.ok("policies", "add", "p")
    acme.ok("customers", "change", "acme", "--policy", "p")
    done = acme.run("customers", "change", "acme", "--title", "Acme Limited")
    assert "  title: Acme Corporation -> Acme Limited" in done.err
    assert "policy" not in done.err
    shown = acme.ok("customers", "show", "acme")
    assert (shown["policy"], shown["enabled"], shown["title"]) == ("p", True, "Acme Limited")
    assert acme.ok("customers", "change", "acme", "--title", "Acme Limited")["changed"] == []


def test_the_commands_that_lost_a_policy_keep_it(acme: Console) -> None:
    """What `customers add --replace` did: a signing key is set, and the policy is gone."""
    for words in CLOSED:
        acme.ok(*words)
    assert "No such option" in acme.refused(2, "customers", "add", "acme", "--title", "Acme", "--replace")
    assert "customers change acme" in acme.refused(6, "customers", "add", "acme", "--title", "Acme")
    acme.ok("customers", "change", "acme", "--title", "Acme")
    assert isinstance(acme.serve(TAG), DelegatorError)


@pytest.mark.parametrize("path", [path for path, command in VERBS.items()
                                  if any("--replace" in one.opts for one in command.params)])
def test_replace_is_left_to_imports_and_to_restore(path: str) -> None:
    assert path in ("devices import", "orders import", "restore")


@pytest.mark.parametrize("noun", ["customers", "delegates", "devices", "orders", "rules", "policies", "plans"])
def test_each_noun_that_is_added_can_be_changed(acme: Console, noun: str) -> None:
    assert {f"{noun} add", f"{noun} change"} <= set(VERBS)
    if noun in ("customers", "delegates"):
        assert {f"{noun} disable", f"{noun} enable"} <= set(VERBS)


def test_a_secret_is_told_as_another_one_and_never_shown(acme: Console) -> None:
    Path("password").write_text("hidden-hidden\n")
    Path("password").chmod(0o600)
    changed = acme.ok("delegates", "change", "acme-small", "--password-file", "password")["changed"]
    assert changed == [{"field": "callback.password", "old": "(secret)", "new": "(secret)"}]
    assert "hidden-hidden" not in acme.said


def test_a_row_of_audit_names_the_fields_once(acme: Console) -> None:
    acme.ok("policies", "add", "p")
    acme.ok("customers", "change", "acme", "--policy", "p", "--title", "Other")
    acme.ok("customers", "change", "acme", "--policy", "p")
    acme.ok("devices", "change", TAG, "--model", "R650")
    (changed,) = acme.ok("audit", "list", "--act", "customer.changed")
    assert changed["detail"]["fields"] == ["title", "policy"]
    (changed,) = acme.ok("audit", "list", "--act", "device.changed")
    assert (changed["detail"]["fields"], changed["service_tag"]) == (["model"], TAG)


def test_a_device_keeps_what_is_not_named(acme: Console) -> None:
    acme.ok("devices", "change", TAG, "--serial", "SN-1", "--mac", "00:1A:2B:3C:4D:5E", "--delegate", "acme-small")
    changed = acme.ok("devices", "change", "SN-1", "--unset", "delegate")
    assert [one["field"] for one in changed["changed"]] == ["delegate"]
    shown = acme.ok("devices", "show", TAG)
    assert (shown["model"], shown["order"], shown["serial_number"]) == ("R750", "4711", "SN-1")
    acme.ok("devices", "add", "ABC1235", "--customer", "acme")
    assert "several" in acme.refused(6, "devices", "change", "ABC1235", "--serial", "SN-1")
    assert "service tag ABC1234" in acme.refused(6, "devices", "change", TAG, "--tag", "ABC1239")
    acme.refused(1, "devices", "change", "ABC1238", "--model", "R1")


@pytest.mark.parametrize("rows", [f"service_tag,model\n{TAG},R650\n", f'{{"service_tag":"{TAG}","model":"R650"}}\n'])
def test_an_import_with_replace_keeps_what_its_rows_do_not_name(acme: Console, rows: str) -> None:
    acme.ok("devices", "change", TAG, "--delegate", "acme-small")
    assert acme.ok("devices", "import", "-", "--customer", "acme", "--replace", stdin=rows)["changed"] == 1
    shown = acme.ok("devices", "show", TAG)
    assert (shown["model"], shown["order"], shown["delegate"]) == ("R650", "4711", "acme-small")
    again = acme.ok("devices", "import", "-", "--customer", "acme", "--replace", stdin=rows)
    assert (again["changed"], again["unchanged"]) == (0, 1)
    said = acme.ok("devices", "import", "-", "--customer", "acme", "--replace",
                   stdin=f"service_tag,model,delegate\n{TAG},R650,\n")
    assert (said["changed"], acme.ok("devices", "show", TAG)["delegate"]) == (1, None), "an empty cell is named"
    acme.ok("orders", "add", "815", "--customer", "acme", "--delegate", "acme-small")
    assert acme.ok("orders", "import", "-", "--replace", stdin="order,customer\n815,acme\n")["unchanged"] == 1
    assert acme.ok("orders", "show", "815")["delegate"] == "acme-small"


def test_a_policy_is_changed_by_a_file_in_what_the_file_names(console: Console) -> None:
    console.ok("policies", "add", "p", "--max-devices", "5", "--until", "2030-01-01", "--attempts", "3")
    Path("p.json").write_text('{"max_devices": 7, "until": null}')
    changed = console.ok("policies", "change", "p", "--file", "p.json")
    assert {one["field"] for one in changed["changed"]} == {"max_devices", "until"}
    assert (changed["attempts"], changed["until"], changed["max_devices"]) == (3, None, 7)


@pytest.mark.parametrize("words", [
    ("customers", "change", "acme"), ("delegates", "change", "acme-small"), ("devices", "change", TAG),
    ("orders", "change", "4711"), ("rules", "change", "r"), ("policies", "change", "p"),
    ("customers", "change", "acme", "--policy", "p", "--unset", "policy"),
    ("delegates", "change", "acme-small", "--unset", "address"), ("devices", "change", TAG, "--unset", "mac", "--mac",
                                                                  "00:1A:2B:3C:4D:5E")])
def test_a_change_of_nothing_or_of_two_minds_is_a_usage_error(acme: Console, words: Words) -> None:
    acme.ok("policies", "add", "p")
    acme.refused(2, *words)


def test_a_policy_that_settings_wait_for_is_told_when_it_comes(acme: Console) -> None:
    Path("delegator.toml").write_text('[domains]\nenabled = true\npolicy = "dns"\n')
    assert acme.ok("policies", "add", "dns")["lets_in"]
    assert "lets_in" not in acme.ok("policies", "add", "other")


def test_a_signing_key_that_is_taken_back_is_told(acme: Console, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    pem = Ed25519PrivateKey.generate().public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    Path("acme.pub").write_bytes(pem)
    assert acme.ok("customers", "change", "acme", "--signing-key", "acme.pub")["lets_in"] == []
    changed = acme.ok("customers", "change", "acme", "--unset", "signing-key")
    assert (changed["signing_key"], [one["field"] for one in changed["changed"]]) == (None, ["signing_key"])
    assert "needs no signature" in changed["lets_in"][0]


def test_two_operators_at_once_do_not_undo_each_other(acme: Console) -> None:
    """Each reads, changes one field and writes; a value read before the other's commit is written by nobody."""
    async def both() -> list[Customer]:
        key = SealingKey(read_key_file(Path("var/sealing.key")))
        one, two = [await open_store(Path("var/delegator.db"), key) for _ in range(2)]
        try:
            for number in range(20):
                await asyncio.gather(
                    one.changing.change(CUSTOMER, "acme", lambda was, n=number: replace(was, title=f"T{n}"), today()),
                    two.changing.change(CUSTOMER, "acme", lambda was, n=number: replace(was, enabled=n % 2 == 0),
                                        today()))
                (now,) = await one.customers()
                assert (now.title, now.enabled) == (f"T{number}", number % 2 == 0)
            return await one.customers()
        finally:
            await one.close()
            await two.close()
    assert asyncio.run(both())
    assert {one.name for one in NOUNS} == {"customer", "delegate", "policy", "rule"}


# --- rules that ask nothing ---------------------------------------------------------------------------------------

NOTHING: list[Words] = [(), ("--network", "0.0.0.0/0"), ("--network", "::/0"), ("--network", "::ffff:0.0.0.0/96"),
                        ("--network", "0.0.0.0/1")]


@pytest.mark.parametrize("conditions", NOTHING)
def test_a_rule_that_asks_nothing_is_made_on_purpose_only(acme: Console, conditions: Words) -> None:
    adding = ("rules", "add", "all", "--delegate", "acme-small", *conditions)
    words = acme.refused(6, *adding)
    assert "--any-genuine-device" in words
    assert "nobody has registered is given a credential of customer acme, by delegate acme-small" in words
    assert acme.ok("rules", "list") == []
    assert isinstance(acme.serve(STRANGER), DelegatorError)
    acme.ok(*adding, "--any-genuine-device")


def test_what_it_says_of_strangers_is_what_becomes_of_them(acme: Console) -> None:
    """By its own certificate as the policy allows; the shared one gives a stranger nothing whatever that says."""
    acme.ok("policies", "add", "either", "--identity", "either")
    acme.ok("customers", "change", "acme", "--policy", "either")
    said = acme.run(*RULE).err
    assert "one that shows the shared certificate is given nothing until its tag is registered" in said
    assert isinstance(acme.serve(STRANGER, "shared"), DelegatorError)
    assert not isinstance(acme.serve(STRANGER, "own"), DelegatorError)
    acme.ok("policies", "change", "either", "--identity", "shared")
    acme.ok("rules", "remove", "all")
    assert "no device with a certificate of its own is given" in acme.run(*RULE).err
    assert isinstance(acme.serve("ZZZ9998", "own"), DelegatorError)


def test_how_many_strangers_asked_is_read_from_the_audit(acme: Console) -> None:
    from delegator.model.audited import Act, Entry
    from delegator.routing import NOBODY

    now = datetime.now(UTC)

    def asked(tag: str, days: int = 0, identity: str = "own", why: str = NOBODY) -> Entry:
        return Entry(Act.HANDSHAKE, now - timedelta(days=days), "device", "NotEntitled", tag,
                     reasons=(f"{tag}: {why}",), detail={"identity": identity})

    async def write(store: Store) -> None:
        await store.audit.append([asked("AAA1111"), asked("AAA1111"), asked("AAA2222", 29), asked("AAA3333", 31),
                                  asked("AAA4444", identity="shared"), asked("AAA5555", why="in stock")])
    acme.store(write)
    assert "In the last 30 days 2 devices asked" in acme.refused(6, "rules", "add", "all", "--delegate", "acme-small")


def test_the_last_condition_is_taken_away_on_purpose_only(acme: Console) -> None:
    acme.ok("rules", "add", "r", "--delegate", "acme-small", "--model", "R1")
    assert "--any-genuine-device" in acme.refused(6, "rules", "change", "r", "--unset", "model")
    assert "--any-genuine-device" in acme.refused(6, "rules", "change", "r", "--unset", "model", "--network", "::/0")
    assert acme.ok("rules", "show", "r")["model"] == "R1"
    acme.ok("rules", "change", "r", "--unset", "model", "--any-genuine-device")
    acme.ok("rules", "change", "r", "--priority", "7")
    acme.ok("customers", "add", "globex", "--title", "Globex")
    acme.ok("delegates", "add", "globex-1", "--customer", "globex", "--hosted", "u")
    assert "globex" in acme.refused(6, "rules", "change", "r", "--delegate", "globex-1")
    acme.ok("rules", "add", "away", "--delegator", "asia.example")


def test_a_confirmed_claim_stands_for_the_done(acme: Console) -> None:
    """A release is what lets a provisioned device in again, and says so."""
    _served(acme)

    async def confirm(store: Store) -> None:
        (claim,) = await store.claims(service_tag=TAG)
        await store.confirm(claim.claim_id, claim.binding, Result.DEPLOYED, None, datetime.now(UTC))
    acme.store(confirm)
    assert "lets in: " in acme.run("claims", "release", TAG).err


def test_a_plan_tells_what_changed_and_keeps_the_rest(acme: Console) -> None:
    acme.ok("plans", "add", "p", "--currency", "EUR", "--price", "0.25", "--price", "ssh=0.5", "--from", "2026-01")
    done = acme.run("plans", "change", "p", "--price", "hosted=0.1", "--from", "2099-01", "--json")
    assert done.json["prices"] == {"ssh": "0.5", "hosted": "0.1"}
    assert done.err.splitlines()[1:] == ["  since: 2026-01 -> 2099-01", "  prices.hosted: - -> 0.1"]
    assert "plans change p" in acme.refused(6, "plans", "add", "p", "--currency", "EUR", "--price", "1")


@pytest.mark.parametrize(("options", "takes"), [
    (("--priority", "50"), "all of them"), ((), "its share of them"), (("--priority", "200"), None),
    (("--disabled",), None), (("--policy", "closed"), None)])
def test_a_second_delegate_that_takes_devices_at_once_says_so_like_the_first(
        console: Console, options: Words, takes: str | None) -> None:
    console.ok("customers", "add", "acme", "--title", "Acme")
    console.ok("policies", "add", "closed", "--max-devices", "0")
    assert "lets in: " in console.run("delegates", "add", "one", "--customer", "acme", "--hosted", "u").err
    console.ok("devices", "add", TAG, "--customer", "acme")
    done = console.run("delegates", "add", "two", "--customer", "acme", "--hosted", "two-{tag}", *options)
    if options == ("--policy", "closed"):
        assert "lets in: " in done.err, "a limit of its own is not told apart from one that lets somebody in"
    elif takes is None:
        assert "lets in: " not in done.err
    else:
        assert f"takes {takes} at once" in done.err
        assert "lets in: devices registered to customer acme" in done.err
