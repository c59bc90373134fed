"""What `config check` lets pass, every user of a setting can use: each key of each section, set to wrong values.

The law is driven by the tree of settings itself: a key that is added is tried, and one that is text must have its rule.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from delegator.config import Settings, Source
from delegator.delegate.settings import Settings as DelegateSettings
from delegator.errors import DelegatorError
from delegator.sealing import create_key_file
from delegator.serving import validation
from pki import Folder

from .conftest import Console

BESIDE = {"mail": {"host": "relay.example.com", "sender": "delegator@example.com"}, "domains": {"enabled": True},
          "enrolment": {"enabled": True}, "ops": {"enabled": True}}
"""What must be said with a key so that somebody uses it."""
TEXTS = ("", " ", "x y", "/nonexistent/file", "::::", "Łódź\0", "\ufeffx", "europe/berlin", "a" * 300, "http://x/",
         "https://", "1.2.3.4/99", "999.1.1.1", "a..b", "host:99999", "postgresql://u@h:99999/d")
NUMBERS = (-1, 10**30, "many", None)
FREE = {
    "server.crl": {""}, "server.issuers": {""}, "server.url": {""}, "server.name": {""},
    "store.path": {"x y", "/nonexistent/file", "::::", "europe/berlin", "http://x/", "https://", "1.2.3.4/99",
                   "999.1.1.1", "a..b", "host:99999", "postgresql://u@h:99999/d"},  # made at first use
    "store.url": {""}, "store.password_file": {""}, "callbacks.local_user": {""}, "domains.policy": {""},
    "domains.trust_anchor": {""}, "enrolment.passphrase_file": {""}, "mail.host": {""}, "mail.ca": {""},
    "mail.user": set(TEXTS) - {"Łódź\0", "\ufeffx"}, "mail.password_file": {""}, "mail.certificate": {""},
    "mail.key": {""}}
"""What is wrong elsewhere but not there."""


def _keys(settings: Settings | DelegateSettings) -> Iterator[tuple[str, str, object]]:
    for section in settings.__struct_fields__:
        for key in getattr(settings, section).__struct_fields__:
            yield section, key, getattr(getattr(settings, section), key)


def _wrong(section: str, key: str, built_in: object) -> list[object]:
    if isinstance(built_in, bool):
        return ["perhaps", 5]
    if isinstance(built_in, int | float):
        return [one for one in NUMBERS if one is not None]
    texts = [one for one in TEXTS if one not in FREE.get(f"{section}.{key}", set())]
    return [[one] for one in texts] if isinstance(built_in, tuple) else [*texts]


def _toml(section: str, tree: dict[str, object]) -> str:
    return f"[{section}]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in tree.items()).replace(
        "\\ud", "\\uD")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything the built-in settings name; looking at it changes nothing."""
    place = tmp_path_factory.mktemp("machine")
    folder = Folder.create(place / "var/pki", common_name="Test Factory CA")
    folder.issue("delegator-server", "delegator", names=("localhost",))
    folder.issue("delegate-client", "delegator")
    folder.issue("mail-signer", "delegator@example.com")
    create_key_file(place / "var/sealing.key")
    return place


@pytest.fixture
def mother(place: Path, machine: Path, monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.chdir(machine)
    return Console()


@pytest.mark.parametrize(("section", "key", "built_in"), list(_keys(Settings())), ids=lambda value: str(value)[:24])
def test_a_wrong_value_is_told_with_its_key_and_where_it_was_set(mother: Console, section: str, key: str,
                                                                 built_in: object) -> None:
    for value in _wrong(section, key, built_in):
        Path("delegator.toml").write_text(_toml(section, {**BESIDE.get(section, {}), key: value}), encoding="utf-8")
        done = mother.run("config", "check")
        assert done.code == 3, f"[{section}] {key} = {value!r} is let pass"
        assert f"[{section}] {key}" in done.err or f"$.{section}.{key}" in done.err, (value, done.err)
        assert "delegator.toml" in done.err
        assert "\n  next: " in done.err


@pytest.mark.parametrize(("section", "key", "built_in"), list(_keys(Settings())), ids=lambda value: str(value)[:24])
def test_a_wrong_variable_is_blamed_and_not_the_file(mother: Console, monkeypatch: pytest.MonkeyPatch, section: str,
                                                     key: str, built_in: object) -> None:
    Path("delegator.toml").write_text(_toml(section, {**BESIDE.get(section, {})}))
    wrong = [one for one in _wrong(section, key, built_in) if one not in ("Łódź\0", ["Łódź\0"], "", [""])]
    value = wrong[0][0] if isinstance(wrong[0], list) else wrong[0]
    variable = f"DELEGATOR_{section}__{key}".upper()
    monkeypatch.setenv(variable, str(value))
    done = mother.run("config", "check")
    assert done.code == 3
    assert variable in done.err
    assert "delegator.toml" not in "".join(line for line in done.err.splitlines(True) if variable in line)


def test_every_setting_that_is_text_has_its_rule() -> None:
    for settings, rules in ((Settings(), validation.RULES), (DelegateSettings(), validation.OF_DELEGATES)):
        texts = {(section, key) for section, key, value in _keys(settings) if isinstance(value, str | tuple)}
        assert texts - set(rules) == set()
        assert set(rules) - {(section, key) for section, key, _ in _keys(settings)} == set()


@pytest.mark.parametrize(("key", "value"), [
    ("public_url", "http://x/"), ("host", "x y"), ("delegators", ["x y"]), ("data", ""), ("certificate", "a" * 300),
    ("lifetime", -1), ("port", "many"), ("database", " "), ("sealing_key", "")])
def test_the_delegates_settings_are_judged_too(place: Path, key: str, value: object) -> None:
    Path("delegate.toml").write_text(_toml("delegate", {key: value}))
    said = Console().refused(3, "delegate", "serve", "--config", "delegate.toml")
    assert said.startswith("error: delegate.toml: ")
    assert f"[delegate] {key}" in said or f"$.delegate.{key}" in said


def test_an_option_of_the_delegate_is_blamed_and_not_the_file(place: Path) -> None:
    Path("delegate.toml").write_text("")
    said = Console().refused(3, "delegate", "serve", "--config", "delegate.toml", "--public-url", "x")
    assert said.startswith("error: --public-url: ")


def test_what_is_right_is_let_pass() -> None:
    right = msgspec.convert({
        "server": {"host": "delegator.example.com", "url": "https://d.example:4433/x", "alternates": ["[::1]:4433"],
                   "proxy_from": ["2001:db8::/32"], "name": "d.example"},
        "store": {"url": "postgresql://u@[::1]:5432/d"}, "outbound": {"allow": ["10.0.0.0/8"]},
        "domains": {"nameservers": ["127.0.0.1:5353", "::1"], "trust_anchor": "system", "policy": "rollout"},
        "mail": {"host": "::1", "port": 25, "sender": "a@b.example"}, "ops": {"host": "localhost"},
        "billing": {"zone": "Europe/Berlin"}}, Settings)
    assert validation.judge(right, Source(None, {})) is right


@pytest.mark.parametrize("url", ["https://x:0/", "https://256.1.1.1/", "https://x:99999/", "https://[fe80::1%25a]/",
                                 "https://x/#a", "https://[::1/", "https://", "https:///a", "http://x/"])
def test_what_others_are_told_as_our_address_can_be_one(url: str) -> None:
    settings = msgspec.convert({"server": {"url": url}}, Settings)
    with pytest.raises(DelegatorError, match=r"\[server\] url: "):
        validation.judge(settings, Source(None, {}))


def test_a_password_in_an_address_is_told_to_nobody() -> None:
    settings = msgspec.convert({"server": {"url": "https://user:geheim@x/"}}, Settings)
    with pytest.raises(DelegatorError, match="holds a user or a password") as caught:
        validation.judge(settings, Source(None, {}))
    assert "geheim" not in caught.value.detail


@pytest.mark.parametrize(("server", "ops", "meet"), [
    ("0.0.0.0", "127.0.0.1", True), (["0.0.0.0", "::"], ["127.0.0.1", "::1"], True), ("::", "::1", True),
    ("127.0.0.1", "127.0.0.1", True), ("127.0.0.1", "localhost", True), ("192.0.2.7", "0.0.0.0", True),
    ("::ffff:127.0.0.1", "127.0.0.1", True), ("0.0.0.0", "::1", False), ("192.0.2.7", "127.0.0.1", False),
    ("::", "127.0.0.1", False)])
def test_two_ports_of_ours_that_are_one_are_told_at_once(server: object, ops: object, meet: bool) -> None:
    """The kernel would call it taken by a stranger, and `config check`, which binds one after the other, in order."""
    for own, enabled in ((4433, True), (9433, True), (4433, False)):
        settings = msgspec.convert({"server": {"host": server, "port": 4433},
                                    "ops": {"host": ops, "port": own, "enabled": enabled}}, Settings)
        with pytest.raises(DelegatorError, match=r"\[ops\] port: 4433 is that of \[server\]") if (
                meet and enabled and own == 4433) else contextlib.nullcontext():
            validation.judge(settings, Source(None, {}))


@pytest.mark.parametrize(("words", "blamed"), [(("--port", "9433"), "[ops] port: 9433 is that of [server] too"),
                                               (("--host", "x y"), "error: --host: [server] host: 'x y' is neither")])
def test_what_options_say_is_judged_like_settings(mother: Console, words: tuple[str, ...], blamed: str) -> None:
    Path("delegator.toml").write_text("[ops]\nenabled = true\n")
    assert blamed in mother.refused(3, "serve", *words)


def test_a_refusal_of_later_names_the_variable_that_set_it(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELEGATOR_SEALING__KEY_FILE", "var/none.key")
    assert "DELEGATOR_SEALING__KEY_FILE" in console.refused(3, "customers", "list")
    monkeypatch.delenv("DELEGATOR_SEALING__KEY_FILE")
    monkeypatch.setenv("DELEGATOR_CONFIG", "none.toml")
    assert "DELEGATOR_CONFIG" in console.refused(3, "customers", "list")
