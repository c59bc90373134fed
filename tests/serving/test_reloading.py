"""Which settings take effect at once: one table, whole, and the settings that result. A10."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import msgspec
import pytest

from delegator.config import Limits, Server, Settings
from delegator.serving.reloading import EFFECTS, Effect, changed, effect, in_effect, lets_in
from pki import Folder
from pki.revocation import Reason
from pki.trust import TrustStore

ALL = [(section, key) for section, values in msgspec.to_builtins(Settings()).items() for key in values]


@pytest.mark.parametrize(("section", "key"), ALL)
def test_the_table_knows_every_setting(section: str, key: str) -> None:
    assert f"{section}.{key}" in EFFECTS or section in EFFECTS


def test_the_table_knows_nothing_else() -> None:
    names = {section for section, _ in ALL} | {f"{section}.{key}" for section, key in ALL}
    assert set(EFFECTS) <= names


def test_the_manual_names_what_waits_for_a_start() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operators.md").read_text(encoding="utf-8")
    section = text.split("\n## Reloading\n")[1].split("\n## ")[0]
    (sentence,) = re.findall(r"\n(`\[server\].*?) take effect at the next start", section, re.DOTALL)
    assert sentence == "`[server] host`, `port` and `workers` and everything in `[store]`"
    assert {name for name, when in EFFECTS.items() if when is Effect.RESTART} == {
        "server.host", "server.port", "server.workers", "store"}


def test_what_the_table_does_not_know_waits_for_a_start() -> None:
    assert effect("nobody", "knows") is Effect.RESTART


def test_what_takes_effect_and_what_waits_by_name() -> None:
    before = Settings(server=Server(port=4433, url=""))
    after = Settings(server=Server(port=5544, url="https://x/"), limits=Limits(idle=3.0))
    assert changed(before, after) == ("server.port", "server.url", "limits.idle")
    result, waiting = in_effect(before, after)
    assert waiting == ("server.port",)
    assert (result.server.port, result.server.url, result.limits.idle) == (4433, "https://x/", 3.0)


def test_asking_again_tells_it_again() -> None:
    """What waits is compared with what is in effect, not with what was read last."""
    before, after = Settings(), Settings(server=Server(port=1))
    once, _ = in_effect(before, after)
    assert in_effect(once, after)[1] == ("server.port",)
    assert in_effect(once, before)[1] == ()


# --- what a reload lets in ---


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrustStore]:
    """By what they trust."""
    place = tmp_path_factory.mktemp("reloading")
    one, two = (Folder.create(place / name, common_name=name) for name in ("one", "two"))
    found = {"none revoked": TrustStore.load(one.ca_path, one.crl_path)}
    one.revoke([one.issue("device", "BAD1234").serial], Reason.KEY_COMPROMISE, one.authority())
    both, lists = place / "both.pem", place / "lists.pem"
    both.write_bytes(one.ca_path.read_bytes() + two.ca_path.read_bytes())
    lists.write_bytes(one.crl_path.read_bytes() + two.crl_path.read_bytes())
    return found | {"one": TrustStore.load(one.ca_path, one.crl_path), "no list": TrustStore.load(one.ca_path),
                    "two": TrustStore.load(two.ca_path, two.crl_path), "both": TrustStore.load(both, lists),
                    "pinned": TrustStore.load(one.ca_path, one.crl_path, one.ca_path)}


@pytest.mark.parametrize(("before", "after", "told"), [
    ("one", "none revoked", "on no list any more: 1"), ("one", "no list", "revoked certificates, 1 now and all"),
    ("one", "both", "the authority CN=two"), ("pinned", "one", "issuers did not name"), ("one", "two", "CN=two"),
    ("none revoked", "one", None), ("one", "one", None), ("no list", "one", None), ("both", "two", None),
    ("one", "pinned", None)])
def test_certificates_that_a_reload_lets_in_are_told(stores: dict[str, TrustStore], before: str, after: str,
                                                     told: str | None) -> None:
    said = lets_in((Settings(), stores[before]), (Settings(), stores[after]))
    assert (told is None and said == ()) or (told is not None and len(said) == 1 and told in said[0])


def test_what_is_withdrawn_here_is_not_let_in_by_a_list_that_lacks_it(stores: dict[str, TrustStore]) -> None:
    one, older = stores["one"], stores["none revoked"]
    assert one.revocation is not None
    kept = dataclasses.replace(older, withdrawn=one.revocation.serials)
    assert lets_in((Settings(), one), (Settings(), kept)) == ()


@pytest.mark.parametrize(("section", "key", "before", "after", "tells"), [
    ("outbound", "allow", [], ["10.0.0.0/8"], True), ("outbound", "allow", ["10.0.0.0/8"], ["10.1.0.0/16"], False),
    ("outbound", "allow", ["10.1.0.0/16"], ["10.0.0.0/8"], True), ("outbound", "allow", ["10.0.0.0/8"], [], False),
    ("server", "proxy_from", ["192.0.2.0/24"], ["0.0.0.0/0"], True),
    ("server", "proxy_from", ["::ffff:192.0.2.0/120"], ["192.0.2.7/32"], False),
    ("domains", "private_networks", [], ["fd00::/8"], True), ("domains", "enabled", False, True, True),
    ("domains", "enabled", True, False, False), ("domains", "policy", "", "lax", False)])
def test_settings_that_let_in_are_told_and_others_not(stores: dict[str, TrustStore], section: str, key: str,
                                                      before: object, after: object, tells: bool) -> None:
    old, new = (msgspec.convert({section: {key: value}}, Settings) for value in (before, after))
    said = lets_in((old, stores["one"]), (new, stores["one"]))
    assert [f"[{section}]" in one for one in said] == [True] * tells


def test_another_policy_of_those_found_by_reverse_dns_is_told(stores: dict[str, TrustStore]) -> None:
    old, new = (msgspec.convert({"domains": {"enabled": True, "policy": name}}, Settings) for name in ("strict", ""))
    (said,) = lets_in((old, stores["one"]), (new, stores["one"]))
    assert "under policy (the default) now, not strict" in said
