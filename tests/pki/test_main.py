"""A2: the commands: what they print, where, and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pki import Folder

Run = Callable[..., Any]


def test_a2_the_walk_of_the_manual_ends_with_all_well(run: Run, tmp_path: Path, openssl: Callable[..., str]) -> None:
    """A2: every profile from an empty disk, each command with `--json`."""
    walk = [
        ("init", "--name", "Example Manufacturer"),
        ("server", "d.example.com", "--alt", "localhost", "--alt", "127.0.0.1"),
        ("delegate", "provisioning-delegate.customer.example"), ("delegate", "d.example.com", "--client"),
        ("shared",), ("shared", "--batch", "2026-w47"), ("device", "ABC1234"),
        ("device", "RSA1234", "--key-type", "rsa"),
        ("mail", "provisioning@example.com"), ("revoke", "--tag", "RSA1234", "--reason", "keyCompromise"), ("crl",),
        ("show", "ABC1234"), ("check",),
    ]  # fmt: skip
    for words in walk:
        done = run(*words, "--json")
        assert done.code == 0, done
        assert done.json["ok"] is True
        assert done.err == ""
    pki = tmp_path / "pki"
    text = openssl("x509", "-in", pki / "server" / "d.example.com.crt", "-noout", "-ext", "subjectAltName")
    assert "DNS:d.example.com, DNS:localhost, IP Address:127.0.0.1" in text


def test_a2_words_for_people_are_paths_and_plain_lines(run: Run, tmp_path: Path) -> None:
    assert "created" in run("init").out
    done = run("device", "ABC1234")
    assert done.out.split() == [str(tmp_path / "pki/devices/ABC1234.crt"), str(tmp_path / "pki/devices/ABC1234.key")]


def test_a2_init_twice_is_exit_6_a_clear_message_and_no_change(run: Run, tmp_path: Path) -> None:
    run("init")
    before = {path: path.read_bytes() for path in (tmp_path / "pki").iterdir()}
    done = run("init")
    assert done.code == 6
    assert done.out == ""
    assert "already holds an authority" in done.err
    assert "next: nothing was changed" in done.err
    assert {path: path.read_bytes() for path in (tmp_path / "pki").iterdir()} == before


FAILURES: list[tuple[tuple[str, ...], int, str]] = [
    (("server", "*.example.com"), 5, "not a valid host name"),
    (("device", "abc"), 5, "not a valid service tag"),
    (("shared", "--batch", "UPPER"), 5, "not a valid shared device name"),
    (("server", "d.example.com", "--days", "4000"), 5, "fails the lint: validity"),
    (("device",), 2, "give either a TAG"),
    (("device", "ABC1234", "--out", "x"), 2, "give either a TAG"),
    (("device", "--from", "-", "--renew"), 2, "for a single TAG"),
    (("revoke",), 2, "give either a serial"),
    (("revoke", "xyz"), 2, "neither a serial nor a file"),
    (("revoke", "0abc"), 1, "not in the ledger"),
    (("revoke", "--tag", "NOBODY1"), 1, "no certificate was issued"),
    (("show", "nobody"), 1, "nothing issued here"),
    (("server", "taken.example.com"), 6, "never overwritten"),
    (("check", "--passphrase-prompt"), 2, "no terminal"),
    (("check", "--passphrase-file", "/nonexistent"), 3, "is missing"),
]


@pytest.mark.parametrize(("words", "code", "message"), FAILURES)
def test_a2_each_failure_has_its_exit_code_and_the_next_action(
    run: Run, words: tuple[str, ...], code: int, message: str
) -> None:
    run("init")
    run("server", "taken.example.com")
    done = run(*words, stdin="")
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert "\n  next: " in done.err
    as_json = run(*words, "--json", stdin="")
    assert as_json.code == code
    assert as_json.json["ok"] is False
    assert message in as_json.json["error"]["detail"]
    assert as_json.json["error"]["hint"]


@pytest.mark.parametrize("command", ["server x.example", "delegate x.example", "shared", "device ABC1234",
                                     "mail a@b.c", "revoke 0a", "crl", "check", "show ca"])  # fmt: skip
def test_a2_a_missing_folder_is_exit_3_for_every_command(run: Run, command: str) -> None:
    done = run(*command.split())
    assert done.code == 3
    assert "does not exist" in done.err
    assert "python -m pki init" in done.err


@pytest.mark.parametrize("command", ["server x.example", "crl", "check", "revoke 0a", "show ca"])
@pytest.mark.parametrize(("name", "mode"), [(".", 0o755), ("ca.key", 0o644), (".", 0o000)])
def test_a2_wrong_permissions_are_exit_3_with_the_chmod(
    run: Run, tmp_path: Path, command: str, name: str, mode: int
) -> None:
    run("init")
    (tmp_path / "pki" / name).chmod(mode)
    done = run(*command.split())
    (tmp_path / "pki").chmod(0o700)
    assert done.code == 3
    assert "chmod" in done.err


def test_a2_check_ends_with_1_when_there_is_a_problem(run: Run, tmp_path: Path) -> None:
    run("init")
    assert run("check").out == "all is well\n"
    (tmp_path / "pki" / "crl.pem").unlink()
    done = run("check")
    assert done.code == 1
    assert "1 problems" in done.out
    assert run("check", "--json").json["remarks"][0]["path"].endswith("crl.pem")


def test_a2_the_passphrase_comes_from_a_file_or_the_environment(run: Run, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    assert run("init", "--passphrase-file", secret, "--json").json["encrypted"] is True
    assert run("device", "ABC1234").code == 3
    assert run("device", "ABC1234", "--passphrase-file", secret).code == 0
    assert run("device", "XYZ9999", env={"PKI_PASSPHRASE": "correct horse"}).code == 0
    wrong = run("device", "DEF5678", env={"PKI_PASSPHRASE": "wrong"})
    assert (wrong.code, "wrong passphrase" in wrong.err) == (3, True)
    assert "correct" not in wrong.err
    assert not (tmp_path / "pki" / "devices" / "DEF5678.crt").exists()


def test_a2_a_passphrase_file_open_to_others_or_empty_is_refused(run: Run, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    secret.chmod(0o644)
    assert "chmod 600" in run("init", "--passphrase-file", secret).err
    secret.chmod(0o600)
    secret.write_text("\n")
    assert run("init", "--passphrase-file", secret).code == 3
    assert run("init", env={"PKI_PASSPHRASE": ""}).code == 3
    assert not (tmp_path / "pki").exists()


def test_a2_no_option_takes_a_passphrase_on_the_command_line(run: Run) -> None:
    done = run("init", "--passphrase", "secret")
    assert done.code == 2


def test_a2_a_wrong_passphrase_revokes_nothing(run: Run, tmp_path: Path) -> None:
    run("init", env={"PKI_PASSPHRASE": "secret"})
    run("device", "ABC1234", env={"PKI_PASSPHRASE": "secret"})
    before = (tmp_path / "pki" / "ledger.jsonl").read_bytes()
    assert run("revoke", "--tag", "ABC1234", env={"PKI_PASSPHRASE": "wrong"}).code == 3
    assert (tmp_path / "pki" / "ledger.jsonl").read_bytes() == before


def test_a2_revoke_takes_a_serial_a_file_or_a_tag(run: Run, tmp_path: Path) -> None:
    run("init")
    serial = run("device", "ABC1234", "--json").json["serial"]
    run("device", "DEF5678")
    run("device", "XYZ9999")
    run("device", "XYZ9999", "--renew")
    assert run("revoke", serial.upper(), "--json").json["revoked"][0]["name"] == "ABC1234"
    assert run("revoke", tmp_path / "pki/devices/DEF5678.crt").code == 0
    assert len(run("revoke", "--tag", "XYZ9999", "--json").json["revoked"]) == 2
    assert run("revoke", "--tag", "XYZ9999").code == 6
    assert run("show", "crl", "--json").json["contents"][0]["revoked"] == 4


def test_a2_a_partner_sends_a_request_and_gets_a_certificate(
    run: Run, request_file: Callable[..., Path], tmp_path: Path
) -> None:
    run("init")
    done = run("server", "partner.example.com", "--csr", request_file(), "--json")
    assert done.json["key"] is None
    assert not list((tmp_path / "pki" / "server").glob("*.key"))
    weak = run("server", "other.example.com", "--csr", request_file("-newkey", "rsa:1024"))
    assert (weak.code, "weak key" in weak.err) == (5, True)
    huge = tmp_path / "huge"
    huge.write_bytes(b"x" * 200_000)
    assert run("server", "other.example.com", "--csr", huge).code == 5


def test_a2_a_customer_s_own_authority_is_made_the_same_way(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "customer"
    run("init", "--name", "Customer CA", "--dir", place)
    run("delegate", "delegate.customer.example", "--dir", place)
    assert run("check", "--dir", place).code == 0
    assert Folder.open(place).ca_certificate.subject.rfc4514_string() == "CN=Customer CA"


def test_a2_a_full_disk_is_told_as_such(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("init")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pki.disk.make_durable", full)
    done = run("device", "ABC1234")
    assert done.code == 1
    assert "No space left" in done.err
    assert "free space" in done.err


@pytest.mark.parametrize("command", ["", "init", "server", "delegate", "shared", "device", "mail", "revoke", "crl",
                                     "show", "check"])  # fmt: skip
def test_a2_every_command_explains_itself(command: str) -> None:
    from click.testing import CliRunner

    from pki.__main__ import main

    done = CliRunner().invoke(main, [*command.split(), "--help"])
    assert done.exit_code == 0
    assert not command or "--json" in done.output
    assert not command or "--dir" in done.output
    assert json.dumps(done.output)


@pytest.mark.parametrize("words", [
    ("frobnicate",), ("server",), ("server", "d.example.com", "--frobnicate"), ("init", "--key-type", "dsa"),
    ("server", "a", "b"), ("crl", "--days", "0"), ("device",), ("revoke",), ("adopt", "nofile")])
def test_a2_a_word_that_does_not_fit_is_an_error_like_any_other(words: tuple[str, ...]) -> None:
    from click.testing import CliRunner

    from pki.__main__ import main

    for as_json in ((), ("--json",)):
        done = CliRunner().invoke(main, [*words, *as_json], prog_name="python -m pki")
        assert done.exit_code == 2
        assert done.stderr.startswith("error: ")
        assert "\n  next: see: python -m pki" in done.stderr
        assert not as_json or json.loads(done.stdout)["error"]["kind"] == "usage"


def test_a2_a_passphrase_file_that_is_not_there_is_no_matter_of_a_backup(run: Run) -> None:
    done = run("init", "--passphrase-file", "nofile")
    assert done.code == 3
    assert "nofile is missing" in done.err
    assert "backup" not in done.err
    assert "--passphrase-prompt" in done.err
