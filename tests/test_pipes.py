"""What is no file is opened by nobody who would wait for ever, and is called what it is, whatever its mode. B.

A named pipe that nobody writes to holds up whoever opens it; each test ends by its own time limit where one is opened.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from delegator import config
from delegator.cli import files, main
from delegator.delegate import provisioning
from delegator.delegate.settings import Delegate
from delegator.device import asking, enrolling, tls
from delegator.device.reasons import Misconfigured
from delegator.device.settings import Own
from delegator.errors import DelegatorError, Kind
from delegator.model import Device
from delegator.serving.parts import load_trust, prepare
from delegator.store.engines.sqlite import backup, soundness
from delegator.store.engines.sqlite.driver import open_sqlite
from pki import PkiError
from pki.__main__ import main as pki_main
from pki.console import Passphrase

from .test_unattended import READ, World

pytestmark = pytest.mark.timeout(20)
MODES = pytest.mark.parametrize("mode", [0o600, 0o644], ids=oct)


def now() -> datetime:
    return datetime.now(UTC)


def pipe(path: Path, mode: int = 0o600) -> Path:
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    path.chmod(mode)
    return path


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def told(error: DelegatorError | PkiError, path: Path) -> None:
    assert error.kind.value == "configuration"
    assert f"{path}" in error.detail
    assert "is not a file but a named pipe" in error.detail
    assert "chmod" not in error.hint


@MODES
@pytest.mark.parametrize("setting", READ, ids="-".join)
def test_a_key_that_is_a_pipe_is_called_one(world: World, setting: tuple[str, str], mode: int) -> None:
    path = pipe(world.file(*setting), mode)
    with pytest.raises(DelegatorError) as caught:
        READ[setting](world.settings)
    told(caught.value, path)


@pytest.mark.parametrize("setting", [("server", name) for name in ("certificate", "ca", "crl", "issuers")] + [
    ("enrolment", "certificate"), ("callbacks", "certificate")], ids="-".join)
def test_what_stands_beside_a_key_may_be_no_pipe_either(world: World, setting: tuple[str, str]) -> None:
    path = pipe(world.file(*setting))
    with pytest.raises(DelegatorError) as caught:
        shows = prepare(world.settings, now).called_with
        assert isinstance(shows, DelegatorError)
        raise shows
    told(caught.value, path)


@MODES
def test_a_pass_phrase_that_is_a_pipe_is_called_one(tmp_path: Path, world: World, mode: int) -> None:
    path = pipe(tmp_path / "phrase", mode)
    with pytest.raises(PkiError) as of_pki:
        Passphrase(path, prompt=False).read()
    told(of_pki.value, path)
    settings = msgspec.structs.replace(world.settings, enrolment=msgspec.structs.replace(
        world.settings.enrolment, passphrase_file=str(path)))
    with pytest.raises(DelegatorError) as caught:
        prepare(settings, now)
    told(caught.value, path)


# --- settings ---


@pytest.mark.parametrize("words", [("serve",), ("config", "check"), ("customers", "list")], ids=" ".join)
@pytest.mark.parametrize("by", ["--config", "DELEGATOR_CONFIG"])
def test_settings_are_no_pipe(tmp_path: Path, words: tuple[str, ...], by: str) -> None:
    path = pipe(tmp_path / "delegator.toml")
    option = ["--config", str(path)] if by == "--config" else []
    done = CliRunner().invoke(main, [*option, *words], env={"DELEGATOR_CONFIG": str(path)} if not option else {},
                              prog_name="delegator")
    assert done.exit_code != 0
    assert f"configuration {path}: is not a file but a named pipe" in done.output + done.stderr


def test_settings_that_a_person_hands_over_open_are_read() -> None:
    """As `<(command)` of a shell does: whoever wrote it is there."""
    reading, writing = os.pipe()
    try:
        os.write(writing, b"[server]\nport = 4999\n")
        os.close(writing)
        assert config.read_file(Path(f"/dev/fd/{reading}"), "") == {"server": {"port": 4999}}
    finally:
        os.close(reading)


# --- a delegate's data ---


@pytest.mark.parametrize("name", ["default.xml", "ABC1234.xml"])
def test_provisioning_data_is_no_pipe(tmp_path: Path, name: str) -> None:
    path = pipe(tmp_path / name)
    with pytest.raises(DelegatorError) as caught:
        provisioning.document(tmp_path, Device("ABC1234", "S", (), "M"))
    told(caught.value, path)
    if name == "default.xml":
        with pytest.raises(DelegatorError):
            provisioning.check(tmp_path)


def test_a_delegates_settings_name_no_pipe(world: World) -> None:
    from delegator.delegate.app import _load

    server = world.settings.server
    pipe(Path(server.key), 0o644)
    with pytest.raises(DelegatorError) as caught:
        _load(Delegate(certificate=server.certificate, key=server.key, ca=server.ca))
    told(caught.value, Path(server.key))


# --- databases ---


async def test_no_database_is_a_pipe(tmp_path: Path) -> None:
    path = pipe(tmp_path / "d.db")
    soundness.require_sound(path)
    with pytest.raises(DelegatorError, match="is not a file but a named pipe"):
        await open_sqlite(path)


def test_no_copy_is_a_pipe(tmp_path: Path) -> None:
    path = pipe(tmp_path / "copy.db")
    with pytest.raises(DelegatorError) as caught:
        backup.examine(path)
    told(caught.value, path)


def test_restore_says_so(tmp_path: Path, world: World) -> None:
    path = pipe(tmp_path / "copy.db")
    done = CliRunner().invoke(main, ["restore", str(path)], env={
        "DELEGATOR_STORE__PATH": str(tmp_path / "d.db"), "DELEGATOR_SEALING__KEY_FILE": str(tmp_path / "sealing.key")})
    assert done.exit_code == 3
    assert "is not a file but a named pipe" in done.stderr


# --- the factory ---


def test_a_request_is_no_pipe_that_nobody_writes_to(tmp_path: Path, world: World) -> None:
    path = pipe(tmp_path / "request.csr")
    done = CliRunner().invoke(pki_main, ["device", "ABC9999", "--csr", str(path), "--dir", str(tmp_path / "pki")])
    assert done.exit_code != 0
    assert "is not a file but a named pipe" in done.stderr


@pytest.mark.parametrize("words", [("device", "--from"), ("adopt",)], ids=" ".join)
def test_a_list_is_no_pipe_that_nobody_writes_to(tmp_path: Path, world: World, words: tuple[str, ...]) -> None:
    path = pipe(tmp_path / "tags.csv")
    done = CliRunner().invoke(pki_main, [*words, str(path), "--dir", str(tmp_path / "pki")])
    assert done.exit_code != 0
    assert "is not a file but a named pipe" in done.stderr


@pytest.mark.parametrize("read", [files.certificates, files.host_key, files.private_key, files.password,
                                  files.webhook_secret], ids=lambda read: read.__name__)
def test_what_a_delegate_is_given_is_no_pipe_that_nobody_writes_to(
        tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(DelegatorError, match="is not a file but a named pipe"):
        read(pipe(tmp_path / "given"))


@pytest.mark.counterpart("openssl")
@pytest.mark.slow
@pytest.mark.parametrize("how", ["--csr - < r.csr", "--csr <(cat r.csr)", "--csr r.csr"])
def test_a_request_may_be_handed_over(tmp_path: Path, world: World, how: str) -> None:
    subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                    "/CN=x", "-keyout", "/dev/null", "-out", tmp_path / "r.csr"], check=True, capture_output=True)
    done = subprocess.run(["bash", "-c", f"{sys.executable} -m pki device ABC9999 --dir pki {how}"], cwd=tmp_path,
                          capture_output=True, text=True, check=False, timeout=20,
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "pki" / "devices" / "ABC9999.crt").exists()


# --- a device ---


def _ca(path: Path, world: World) -> object:
    return tls.delegator_context(world.settings.server.certificate, world.settings.server.key, str(path))


def _certificate(path: Path, world: World) -> object:
    assert asking._names(str(path)) == []
    return tls.delegator_context(str(path), world.settings.server.key, world.settings.server.ca)


def _key(path: Path, world: World) -> object:
    assert not enrolling._fits(Path(world.settings.server.certificate), path)
    return tls.delegator_context(world.settings.server.certificate, str(path), world.settings.server.ca)


def _request(path: Path, world: World) -> object:
    return enrolling.request(Own(world.place / "own.key", world.place / "state", request=str(path)), "ABC1234")


@pytest.mark.parametrize("read", [_ca, _certificate, _key, _request])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_device_waits_for_no_pipe(tmp_path: Path, world: World, read: Callable[[Path, World], object],
                                    kind: str) -> None:
    path = tmp_path / "given"
    if kind == "pipe":
        pipe(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(Misconfigured, match="is not a file but a pipe, a device or a folder"):
        read(path, world)


def test_lists_are_no_pipe_where_trust_is_read_alone(world: World) -> None:
    path = pipe(world.file("server", "crl"))
    with pytest.raises(DelegatorError) as caught:
        load_trust(world.settings)
    told(caught.value, path)
    assert caught.value.kind is Kind.CONFIGURATION
