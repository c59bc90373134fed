"""Settings: shown so that they can be read back, checked file by file, wrong ones named by their key."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from delegator.cli.console import Problem
from delegator.cli.console import blamed as blamed_for
from delegator.config import Settings, load
from pki import Folder

from .conftest import ROOT, Console, process


@pytest.fixture
def mother(console: Console, monkeypatch: pytest.MonkeyPatch) -> Console:
    """A console whose factory has everything the built-in settings name, but for a port that may be taken here."""
    monkeypatch.setenv("DELEGATOR_SERVER__PORT", "0")
    folder = Folder.create("var/pki", common_name="Test Factory CA")
    folder.issue("delegator-server", "delegator", names=("localhost",))
    folder.issue("delegate-client", "delegator")
    return console


def _problems(console: Console, code: int = 3) -> dict[str, dict[str, Any]]:
    done = console.run("config", "check", "--json")
    assert done.code == code
    found = {one["what"]: one for one in done.json["findings"] if not one["ok"]}
    assert done.json["problems"] == len(found)
    assert done.json["ok"] == (not found)
    assert all(one["hint"] and one["detail"] for one in found.values())
    assert all(one["hint"] in done.err for one in found.values())
    return found


def test_what_show_prints_is_read_back_to_the_same_settings(console: Console) -> None:
    Path("delegator.toml").write_text('[server]\nport = 4434\nurl = "https://\\"quoted\\"/"\n')
    shown = console.run("config", "show").out
    Path("again.toml").write_text(shown)
    assert load(Path("again.toml"), {}) == load(Path("delegator.toml"), {})
    assert console.ok("config", "show") == tomllib.loads(shown)


def test_the_environment_wins_over_the_file(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("other.toml").write_text("[server]\nport = 4434\n")
    monkeypatch.setenv("DELEGATOR_CONFIG", "other.toml")
    assert console.ok("config", "show")["server"]["port"] == 4434
    monkeypatch.setenv("DELEGATOR_SERVER__PORT", "4435")
    assert console.ok("config", "show")["server"]["port"] == 4435
    assert console.ok("config", "show", "--defaults") == msgspec.json.decode(msgspec.json.encode(Settings()))


@pytest.mark.parametrize(("text", "named"), [
    ("[server]\nprt = 1\n", "prt"), ("[sever]\n", "sever"), ("[server]\nport = 'x'\n", "$.server.port"),
    ("[server]\nport = 99999\n", "$.server.port"), ("server = 1\n", "$.server"), ("[server\n", "delegator.toml"),
    ("[limits]\nidle = 0\n", "$.limits.idle")])
@pytest.mark.parametrize("words", [("config", "check"), ("config", "show"), ("customers", "list"), ("serve",)])
def test_a_wrong_key_is_named_with_its_path(console: Console, text: str, named: str, words: tuple[str, ...]) -> None:
    Path("delegator.toml").write_text(text)
    assert named in console.refused(3, *words)


def test_a_broken_file_keeps_nobody_from_help_and_the_way_out(console: Console) -> None:
    Path("delegator.toml").write_text("[sever]\n")
    assert console.run("customers", "add", "--help").code == 0
    assert console.run("config", "show", "--defaults").code == 0
    console.ok("config", "new-key", "other.key")


def test_everything_in_order_ends_with_0(mother: Console) -> None:
    assert _problems(mother, 0) == {}
    mother.ok("customers", "list")
    assert _problems(mother, 0) == {}


def test_a_machine_with_certificates_only_needs_no_pki_folder(mother: Console) -> None:
    Path("var/pki/ledger.jsonl").unlink()
    Path("var/pki/ca.key").unlink()
    assert _problems(mother, 0) == {}


def test_an_empty_machine_is_told_everything_it_needs(place: Path) -> None:
    found = _problems(Console())
    assert set(found) == {"PKI folder", "factory anchors", "server certificate", "server key",
                          "callbacks certificate", "callbacks key", "sealing key", "all together"}
    assert "python -m pki init" in found["PKI folder"]["hint"]
    assert "python -m pki server delegator" in found["server key"]["hint"]
    assert "delegator config new-key var/sealing.key" in found["sealing key"]["hint"]


@pytest.mark.parametrize(("what", "path", "mode", "hint"), [
    ("PKI folder", "var/pki", 0o755, "chmod 700"), ("server key", "var/pki/server/delegator.key", 0o644, "chmod 600"),
    ("callbacks key", "var/pki/delegate-clients/delegator.key", 0o640, "chmod 600"),
    ("sealing key", "var/sealing.key", 0o644, "chmod 600"), ("database", "var/delegator.db", 0o644, "chmod 600")])
def test_what_others_could_read_is_found(mother: Console, what: str, path: str, mode: int, hint: str) -> None:
    mother.ok("customers", "list")
    Path(path).chmod(mode)
    found = _problems(mother)
    assert hint in found[what]["hint"]


@pytest.mark.parametrize(("what", "path"), [
    ("factory anchors", "var/pki/ca.crt"), ("factory anchors", "var/pki/crl.pem"),
    ("server certificate", "var/pki/server/delegator.crt"), ("server key", "var/pki/server/delegator.key"),
    ("sealing key", "var/sealing.key"), ("database", "var/delegator.db")])
def test_what_is_damaged_is_found(mother: Console, what: str, path: str) -> None:
    mother.ok("customers", "list")
    Path(path).write_text("nothing that makes sense\n" * 50)
    assert what in _problems(mother)


def test_a_key_of_another_certificate_is_found(mother: Console) -> None:
    Path("var/pki/server/delegator.key").write_bytes(Path("var/pki/delegate-clients/delegator.key").read_bytes())
    assert "does not belong" in _problems(mother)["server key"]["detail"]


def test_a_database_that_has_no_place_is_found(mother: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELEGATOR_STORE__PATH", "var/sealing.key/delegator.db")
    assert "cannot be written" in _problems(mother)["database"]["detail"]


@pytest.mark.parametrize(("kind", "make"), [
    ("a named pipe", os.mkfifo), ("a folder", os.mkdir), ("a device", lambda path: Path(path).symlink_to("/dev/null"))],
    ids=["pipe", "folder", "device"])
@pytest.mark.parametrize("words", [("config", "check"), ("restore", "copy.db", "--replace"), ("customers", "list")],
                         ids=" ".join)
def test_a_database_that_is_no_file_is_called_what_it_is_and_waited_for_by_nobody(
        mother: Console, kind: str, make: Callable[[str], None], words: tuple[str, ...]) -> None:
    mother.ok("customers", "list")
    mother.ok("backup", "copy.db")
    for beside in Path("var").glob("delegator.db*"):
        beside.unlink()
    make("var/delegator.db")
    said = mother.run(*words)
    assert said.code == 3
    assert (kind if words[0] != "restore" else "is not a file") in said.err
    assert "chmod" not in said.err, "whoever follows that advice breaks /dev/null"


def test_a_database_may_be_called_as_sqlite_calls_its_memory(
        mother: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELEGATOR_STORE__PATH", ":memory:")
    mother.ok("customers", "add", "acme", "--title", "Acme")
    assert _problems(mother, 0) == {}
    assert [one["name"] for one in mother.ok("customers", "list")] == ["acme"]


@pytest.mark.parametrize(("key", "content"), [
    ("crl", "var/pki/server/delegator.crt"), ("issuers", "var/sealing.key"), ("ca", "var/pki/server/delegator.crt"),
    ("issuers", "var/pki/server/delegator.crt"), ("ca", "var/pki/crl.pem")])
def test_of_the_files_of_authorities_that_one_is_blamed_that_is_wrong(
        mother: Console, monkeypatch: pytest.MonkeyPatch, key: str, content: str) -> None:
    variable = f"DELEGATOR_SERVER__{key.upper()}"
    monkeypatch.setenv(variable, content)
    found = _problems(mother)["factory anchors"]
    assert found["setting"] == f"[server] {key}, {variable}"
    assert found["detail"].startswith(f"{content}: ")


@pytest.mark.parametrize("key", ["trust_anchor", "policy"])
def test_a_setting_that_the_words_name_is_blamed_where_it_was_set(
        mother: Console, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    Path("delegator.toml").write_text("[domains]\nenabled = true\n")
    monkeypatch.setenv(f"DELEGATOR_DOMAINS__{key.upper()}", "none-such")
    assert _problems(mother)["reverse DNS"]["setting"] == f"[domains] {key}, DELEGATOR_DOMAINS__{key.upper()}"


def test_a_second_line_in_a_pass_phrase_is_blamed_on_that_setting(
        mother: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("phrase").write_text("geheim\nnotes\n")
    Path("phrase").chmod(0o600)
    Path("delegator.toml").write_text('[enrolment]\nenabled = true\ncertificate = "var/pki/ca.crt"\n'
                                      'key = "var/pki/ca.key"\n')
    monkeypatch.setenv("DELEGATOR_ENROLMENT__PASSPHRASE_FILE", "phrase")
    found = _problems(mother)["enrolment"]
    assert found["setting"] == "[enrolment] passphrase_file, DELEGATOR_ENROLMENT__PASSPHRASE_FILE"


def test_a_sealing_key_is_made_once_and_never_overwritten(place: Path) -> None:
    console = Console()
    assert console.ok("config", "new-key", "var/sealing.key") == {"key_file": "var/sealing.key"}
    before = Path("var/sealing.key").read_bytes()
    assert Path("var/sealing.key").stat().st_mode & 0o777 == 0o600
    console.refused(6, "config", "new-key", "var/sealing.key")
    assert Path("var/sealing.key").read_bytes() == before


def test_without_a_sealing_key_the_way_to_make_one_is_told(place: Path) -> None:
    said = Console().refused(3, "customers", "add", "acme", "--title", "Acme")
    assert "delegator config new-key var/sealing.key" in said


@pytest.mark.parametrize("words", [("customers", "list"), ("customers", "add", "globex", "--title", "G"), ("serve",),
                                   ("config", "check"), ("sealing", "rotate")])
def test_a_sealing_key_is_not_to_be_made_anew_where_it_seals_something(mother: Console, words: tuple[str, ...]) -> None:
    """A new one would be made in a minute, and open nothing."""
    mother.ok("customers", "add", "acme", "--title", "Acme")
    Path("var/sealing.key").unlink()
    done = process(*words, cwd=Path.cwd(), DELEGATOR_SERVER__PORT="0")
    assert done.returncode == 3
    assert "restore it from your copy; a new one opens nothing that is sealed already" in done.stderr
    assert "new-key" not in done.stderr


def test_an_older_key_that_is_gone_is_not_to_be_made_anew(mother: Console) -> None:
    Path("delegator.toml").write_text('[sealing]\nolder_key_files = ["var/old.key"]\n')
    said = mother.refused(3, "customers", "list")
    assert "take it out of [sealing] older_key_files" in said
    assert "new-key" not in said


@pytest.mark.parametrize("words", [("customers", "add", "globex", "--title", "G"), ("serve",), ("sealing", "rotate"),
                                   ("delegates", "show", "small"), ("audit", "verify")])
def test_a_sealing_key_that_is_another_ends_with_3_and_is_named_by_its_file(mother: Console,
                                                                            words: tuple[str, ...]) -> None:
    mother.ok("customers", "add", "acme", "--title", "Acme")
    mother.ok("delegates", "add", "small", "--customer", "acme", "--hosted", "u")
    Path("var/sealing.key").unlink()
    mother.ok("config", "new-key", "var/sealing.key")
    done = process(*words, cwd=Path.cwd(), DELEGATOR_SERVER__PORT="0")
    assert done.returncode == 3
    assert "sealed with an unknown key" in done.stderr
    assert "; var/sealing.key is key " in done.stderr
    assert "delegator sealing status" in done.stderr


def test_a_database_that_is_none_is_a_configuration_error(console: Console) -> None:
    Path("var/delegator.db").write_text("nothing that makes sense\n" * 50)
    console.refused(3, "customers", "list")
    assert Path("var/delegator.db").read_text().startswith("nothing")


def test_hours_in_a_zone_that_this_machine_does_not_know_are_found(mother: Console,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    mother.ok("policies", "add", "rollout", "--hours", "Mon-Fri 08:00-18:00 Europe/Berlin")
    assert _problems(mother, 0) == {}
    monkeypatch.setattr("delegator.cli.checking.is_known", lambda zone: False)
    assert "rollout: Europe/Berlin" in _problems(mother)["hours"]["detail"]


def test_a_policy_of_domains_that_is_not_there_is_found(mother: Console) -> None:
    Path("delegator.toml").write_text('[domains]\nenabled = true\npolicy = "rollout"\nnameservers = ["127.0.0.1"]\n')
    assert "[domains] policy: there is no policy named rollout" in _problems(mother)["reverse DNS"]["detail"]
    mother.ok("policies", "add", "rollout")
    assert _problems(mother, 0) == {}


def test_settings_are_written_where_there_are_none_and_never_over_others(
        console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELEGATOR_SERVER__PORT", "4434")
    console.ok("config", "write")
    monkeypatch.delenv("DELEGATOR_SERVER__PORT")
    assert load(Path("delegator.toml"), {}).server.port == 4434
    before = Path("delegator.toml").read_bytes()
    for words in ((), ("--defaults",)):
        assert "never overwritten" in console.refused(6, "config", "write", *words)
    Path("delegator.toml").write_text("[sever]\n")
    assert "never overwritten" in console.refused(6, "config", "write"), "though what is there cannot be read"
    Path("delegator.toml").write_bytes(before)
    console.ok("config", "write", "etc/other.toml")
    assert load(Path("etc/other.toml"), {}) == load(Path("delegator.toml"), {})


def test_who_names_a_settings_file_that_is_not_there_is_led_to_one(
        console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELEGATOR_CONFIG", "mine.toml")
    said = console.refused(3, "customers", "list")
    assert "write one with: delegator config write mine.toml" in said
    console.ok("config", "write", "mine.toml")
    console.ok("customers", "list")


@pytest.mark.parametrize("words", [(), ("--defaults",)])
def test_settings_are_not_shown_into_the_file_that_they_are_read_from(console: Console, words: tuple[str, ...]) -> None:
    """A shell empties it first: what is built in would take the place of what it held, and nobody would be told."""
    Path("delegator.toml").write_text("[server]\nport = 4434\n")
    with Path("delegator.toml").open("w") as emptied:
        done = subprocess.run([sys.executable, "-m", "delegator", "config", "show", *words], stdout=emptied,
                              stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
                              timeout=30, check=False)
    assert done.returncode == 6
    assert "the shell has emptied it" in done.stderr
    assert "delegator config write" in done.stderr
    assert Path("delegator.toml").read_bytes() == b""
    with Path("shown.toml").open("w") as another:
        subprocess.run([sys.executable, "-m", "delegator", "config", "show", *words], stdout=another, timeout=30,
                       env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    assert load(Path("shown.toml"), {}) == Settings()


def test_serve_in_an_empty_folder_leads_to_the_first_step(place: Path) -> None:
    done = process("serve", cwd=place)
    assert done.returncode == 3
    assert "next: put it back where there was one" in done.stderr  # another authority would refuse every device
    assert "at the very first start begin with: python -m pki init" in done.stderr
    assert list(place.iterdir()) == []


def test_the_pairs_that_are_to_be_minted_are_for_the_hosts_that_call(place: Path) -> None:
    found = _problems(Console())
    assert all("--alt HOST" in found[f"{section} {what}"]["hint"] for section in ("server", "callbacks")
               for what in ("certificate", "key"))


SHOWN = sorted((section, key, value) for section, values in msgspec.to_builtins(Settings()).items()
               for key, value in values.items())


@pytest.mark.parametrize(("section", "key", "value"), [one for one in SHOWN if type(one[2]) in (int, float, bool)])
def test_a_number_of_the_file_is_no_text_and_one_of_the_environment_is(
        console: Console, monkeypatch: pytest.MonkeyPatch, section: str, key: str, value: object) -> None:
    spelled = str(value).lower()
    Path("delegator.toml").write_text(f'[{section}]\n{key} = "{spelled}"\n')
    said = console.refused(3, "config", "show")
    assert f"delegator.toml: [{section}] {key}: " in said
    assert "got text" in said
    monkeypatch.setenv(f"DELEGATOR_{section}__{key}".upper(), spelled)
    assert console.ok("config", "show")[section][key] == value


@pytest.mark.parametrize(("section", "key", "choices"), [
    ("log", "level", ("debug", "info", "warning", "error", "critical")),
    ("mail", "security", ("starttls", "tls", "none"))])
def test_a_choice_that_there_is_not_is_answered_with_those_that_there_are(
        console: Console, monkeypatch: pytest.MonkeyPatch, section: str, key: str, choices: tuple[str, ...]) -> None:
    Path("delegator.toml").write_text(f'[{section}]\n{key} = "INFO"\n')
    said = console.refused(3, "config", "show")
    assert f"[{section}] {key}: there is no such choice as 'INFO'" in said
    assert f"there are: {', '.join(choices)}" in said
    Path("delegator.toml").unlink()
    monkeypatch.setenv(f"DELEGATOR_{section}__{key}".upper(), "INFO")
    assert f"there are: {', '.join(choices)}" in console.refused(3, "config", "show")


@pytest.mark.parametrize(("detail", "blamed"), [
    ("cannot listen on 10.99.99.99: Cannot assign requested address", ["DELEGATOR_SERVER__HOST"]),
    ("cannot listen on 10.99.99.99 port 25433: Address already in use", ["DELEGATOR_SERVER__HOST",
                                                                        "DELEGATOR_SERVER__PORT"]),
    ("cannot listen on :: port 25433: Permission denied", ["DELEGATOR_SERVER__PORT"]),
    ("[server] host: nonsense", ["DELEGATOR_SERVER__HOST"]), ("row 25433 is wrong", [])])
def test_each_variable_is_blamed_for_its_own(monkeypatch: pytest.MonkeyPatch, detail: str, blamed: list[str]) -> None:
    monkeypatch.setenv("DELEGATOR_SERVER__HOST", "10.99.99.99")
    monkeypatch.setenv("DELEGATOR_SERVER__PORT", "25433")
    hint = blamed_for(Problem("configuration", detail, "do", 3)).hint
    assert hint == ("do" if not blamed else f"do (it was set by {' and '.join(blamed)})")


def test_an_address_that_this_machine_has_not_is_blamed_on_the_host_alone(mother: Console) -> None:
    done = process("serve", cwd=Path.cwd(), DELEGATOR_SERVER__HOST="192.0.2.99", DELEGATOR_SERVER__PORT="25433")
    assert done.returncode == 3
    assert "(it was set by DELEGATOR_SERVER__HOST)" in done.stderr
