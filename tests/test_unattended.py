"""No private key is read in a way that could ask a person for a pass phrase, and none is waited for. B.

The law is looked up in the code: whoever reads a key somewhere new is caught.
"""

from __future__ import annotations

import ast
import atexit
import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from delegator.config import CallbackSettings, Enrolment, MailSettings, Sealing, Server, Settings
from delegator.delegate.settings import Delegate
from delegator.errors import DelegatorError, Kind
from delegator.sealing import create_key_file
from pki import Folder

ROOT = Path(__file__).parents[1]
TREE = [path for folder in ("delegator", "pki", "scripts", "examples", "benchmarks", "fuzz")
        for path in sorted((ROOT / folder).rglob("*.py"))]
LOADERS = {"load_cert_chain": (2, "password"), "load_pem_private_key": (1, "password"),
           "load_der_private_key": (1, "password"), "load_ssh_private_key": (1, "password"),
           "load_key_and_certificates": (1, "password"), "load_pkcs12": (1, "password"),
           "import_private_key": (1, "passphrase"), "read_private_key": (1, "passphrase"),
           "load_keypairs": (1, "passphrase"), "load_privatekey": (2, "passphrase")}
"""Where the pass phrase stands, or whoever gives it, and what it is called."""
NEVER = {"use_privatekey_file", "use_certificate_chain_file", "SSL_CTX_use_PrivateKey_file"}
"""These open the file themselves, and ask on the terminal."""
THE_READER = ROOT / "pki" / "keys.py"


def name_of(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def faults(tree: ast.AST) -> Iterator[int]:
    """Lines in which a key is read and nobody said where its pass phrase comes from."""
    answered = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name_of(node.func) in LOADERS:
            at, word = LOADERS[name_of(node.func)]
            if len(node.args) > at or any(one.arg == word for one in node.keywords):
                answered.add(node.func)
    for node in ast.walk(tree):
        if name_of(node) in NEVER or (name_of(node) in LOADERS and node not in answered):
            yield node.lineno  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", TREE, ids=lambda path: str(path.relative_to(ROOT)))
def test_b_no_key_is_read_without_a_word_on_its_pass_phrase(path: Path) -> None:
    found = list(faults(ast.parse(path.read_text(encoding="utf-8"))))
    assert found == [] or path == THE_READER


@pytest.mark.parametrize("code", ["c.load_cert_chain(a, b)", "c.use_privatekey_file(a)", "load_pem_private_key(a)",
                                  "load = load_ssh_private_key", "asyncssh.import_private_key(a)"])
def test_the_law_sees_what_it_forbids(code: str) -> None:
    assert list(faults(ast.parse(code))) == [1]


def words_of(tree: ast.AST) -> Iterator[tuple[int, list[str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple | ast.List):
            yield node.lineno, [str(one.value) for one in node.elts if isinstance(one, ast.Constant)]


def test_b_no_openssl_that_we_start_may_ask() -> None:
    """It opens /dev/tty by itself, whatever its standard input is."""
    found = [f"{path.relative_to(ROOT)}:{line}" for path in TREE
             for line, words in words_of(ast.parse(path.read_text(encoding="utf-8")))
             if {"-key", "-inkey"} & set(words) and "-passin" not in words]
    assert found == []


def test_b_no_curl_that_a_script_starts_may_ask() -> None:
    scripts = [*ROOT.glob("scripts/*.sh"), *ROOT.glob("examples/**/*.sh"), *ROOT.glob("deploy/**/*.sh")]
    assert scripts
    for path in scripts:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in text.splitlines():
            if "curl " in line and "--key " in line and not line.lstrip().startswith("#"):
                assert "--pass ''" in line, f"{path}: {line}"


# --- every setting that names a private key ---


@functools.cache
def _made() -> Path:
    """Made once, copied for each test."""
    place = Path(tempfile.mkdtemp(prefix="unattended-"))
    atexit.register(shutil.rmtree, place)
    factory = Folder.create(place / "pki", common_name="Factory")
    factory.issue("delegator-server", "delegator")
    factory.issue("delegate-client", "delegator.test")
    factory.issue("mail-signer", "d@factory.example")
    online = Folder.create(place / "online", common_name="Online")
    create_key_file(place / "sealing.key")
    create_key_file(place / "older.key")
    for name in ("anchors.pem", "issuers.pem"):
        (place / name).write_bytes(factory.ca_path.read_bytes() + online.ca_path.read_bytes())
    (place / "lists.pem").write_bytes(factory.crl_path.read_bytes() + online.crl_path.read_bytes())
    return place


class World:
    """A delegator's files, all in order."""

    def __init__(self, place: Path) -> None:
        self.place = place
        shutil.copytree(_made(), place, dirs_exist_ok=True)
        pki = place / "pki"
        self.settings = Settings(
            server=Server(certificate=f"{pki}/server/delegator.crt", key=f"{pki}/server/delegator.key",
                          ca=f"{place}/anchors.pem", issuers=f"{place}/issuers.pem", crl=f"{place}/lists.pem"),
            callbacks=CallbackSettings(certificate=f"{pki}/delegate-clients/delegator.test.crt",
                                key=f"{pki}/delegate-clients/delegator.test.key"),
            enrolment=Enrolment(enabled=True, certificate=f"{place}/online/ca.crt", key=f"{place}/online/ca.key"),
            mail=MailSettings(host="localhost", security="none", sender="d@factory.example",
                              certificate=f"{pki}/mail/d@factory.example.crt", key=f"{pki}/mail/d@factory.example.key"),
            sealing=Sealing(key_file=f"{place}/sealing.key", older_key_files=(f"{place}/older.key",)))

    def file(self, section: str, key: str) -> Path:
        said = getattr(getattr(self.settings, section), key)
        return Path(said if isinstance(said, str) else said[0])


def now() -> datetime:
    return datetime.now(UTC)


def at_the_start(settings: Settings) -> None:
    from delegator.serving.parts import prepare

    prepare(settings, now)


def at_a_call(settings: Settings) -> None:
    """Who has no certificate for delegates serves all the same; it is told where one is called."""
    from delegator.serving.parts import prepare

    shows = prepare(settings, now).called_with
    if isinstance(shows, DelegatorError):
        raise shows


def at_a_mail(settings: Settings) -> None:
    from delegator.notify.carriers import carriers, check, mail_carrier

    carrier = mail_carrier(settings, "delegator.test", now)
    assert carrier is not None
    assert len(carriers(settings, None, now)) == 2  # type: ignore[arg-type]
    check(carrier)


READ: dict[tuple[str, str], Callable[[Settings], None]] = {
    ("server", "key"): at_the_start, ("callbacks", "key"): at_a_call, ("enrolment", "key"): at_the_start,
    ("mail", "key"): at_a_mail, ("sealing", "key_file"): at_the_start, ("sealing", "older_key_files"): at_the_start}


def test_the_table_knows_every_setting_that_names_a_key() -> None:
    named = {(section, key) for section, values in msgspec.to_builtins(Settings()).items() for key in values
             if key == "key" or "key_file" in key}
    assert named == set(READ)
    assert {key for key in Delegate.__struct_fields__ if "key" in key} == {"key", "sealing_key"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("setting", READ, ids="-".join)
def test_all_is_in_order_at_first(world: World, setting: tuple[str, str]) -> None:
    READ[setting](world.settings)


@pytest.mark.counterpart("openssl")
@pytest.mark.parametrize("setting", READ, ids="-".join)
def test_b_an_encrypted_key_is_told_with_its_file_and_what_to_do(world: World, setting: tuple[str, str]) -> None:
    path = world.file(*setting)
    source = world.file("server", "key")
    text = subprocess.run(["openssl", "pkcs8", "-topk8", "-in", source, "-passout", "pass:abc"], capture_output=True,
                          check=True).stdout
    path.write_bytes(text)
    with pytest.raises(DelegatorError) as caught:
        READ[setting](world.settings)
    assert caught.value.kind is Kind.CONFIGURATION
    assert str(path) in caught.value.detail
    assert setting[0] == "sealing" or "encrypted" in caught.value.detail
    assert caught.value.hint
    assert setting[0] in ("sealing", "enrolment") or f"openssl pkey -in {path} -out NEW" in caught.value.hint


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "endless"])
@pytest.mark.parametrize("setting", READ, ids="-".join)
def test_b_what_is_no_file_is_not_waited_for(world: World, setting: tuple[str, str], kind: str) -> None:
    """A named pipe that nobody writes to would hold up whoever opens it; a terminal is one of the devices."""
    path = world.file(*setting)
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "folder":
        path.mkdir(0o700)
    elif kind == "endless":
        path.touch(0o600)
        os.truncate(path, 1 << 33)
    else:
        path.symlink_to("/dev/zero")
    began = time.monotonic()
    with pytest.raises(DelegatorError) as caught:
        READ[setting](world.settings)
    assert time.monotonic() - began < 5
    assert caught.value.kind is Kind.CONFIGURATION
    assert str(path) in caught.value.detail


def test_b_the_delegates_server_and_the_devices_client_say_the_same(world: World) -> None:
    from delegator.delegate.app import _load
    from delegator.device.reasons import Misconfigured
    from delegator.device.tls import delegator_context

    path = world.file("server", "key")
    subprocess.run(["openssl", "pkcs8", "-topk8", "-in", path, "-passout", "pass:abc", "-out", f"{path}.e"], check=True)
    Path(f"{path}.e").replace(path)
    path.chmod(0o600)
    server = world.settings.server
    with pytest.raises(DelegatorError, match="is encrypted with a pass phrase"):
        _load(Delegate(certificate=server.certificate, key=server.key, ca=server.ca))
    with pytest.raises(Misconfigured, match="the key is encrypted, and nobody is there to type a password"):
        delegator_context(server.certificate, server.key, server.ca)
