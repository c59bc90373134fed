"""Settings, policies and templates from whatever editor: with a byte-order mark and CRLF they are read, and what is
something else is told what it is. And no other place decides what a line of a file is."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from delegator import config
from delegator.delegate import provisioning
from delegator.delegate import settings as delegate_settings
from delegator.desk import policy_file
from delegator.errors import DelegatorError
from delegator.model import Device

ROOT = Path(__file__).parents[1]


def _delegator(content: bytes, folder: Path) -> object:
    (folder / "delegator.toml").write_bytes(content.replace(b"{}", b"[server]\nname = \"sch\xc3\xb6n.example\"\n"))
    return config.load(folder / "delegator.toml", {}).server.name


def _delegate(content: bytes, folder: Path) -> object:
    (folder / "delegate.toml").write_bytes(content.replace(b"{}", b"[delegate]\ndata = \"sch\xc3\xb6n\"\n"))
    return delegate_settings.load(folder / "delegate.toml", {}).delegate.data


def _policy(content: bytes, _: Path) -> object:
    return policy_file.read(content.replace(b"{}", json.dumps({"name": "rollout", "attempts": 7}).encode())).policy


def _template(content: bytes, folder: Path) -> object:
    (folder / "default.xml").write_bytes(content.replace(
        b"{}", '<Provisioning xmlns="urn:delegator:provisioning:1"><Name>schön</Name>{tag}</Provisioning>'.encode()))
    return b"".join(provisioning.document(folder, Device("ABC1234")).split())


def _own_document(content: bytes, folder: Path) -> object:
    (folder / "ABC1234.xml").write_bytes(content.replace(
        b"{}", b'<Provisioning xmlns="urn:delegator:provisioning:1"/>'))
    return b"".join(provisioning.document(folder, Device("ABC1234")).split())


Read = Callable[[bytes, Path], object]
READERS: list[Read] = [_delegator, _delegate, _policy, _template]


@pytest.mark.parametrize("read", [*READERS, _own_document])
def test_the_mark_and_the_line_ends_of_windows_change_nothing(tmp_path: Path, read: Read) -> None:
    plain = read(b"{}\n", tmp_path)
    for content in (b"{}", b"\xef\xbb\xbf{}\n", b"{}\r\n", b"\xef\xbb\xbf\r\n{}\r\n"):
        assert read(content, tmp_path) == plain
    assert not isinstance(plain, bytes) or plain.startswith(b"<"), "no mark goes out to a device"


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(("content", "why"), [
    ("\ufeff[server]\r\n".encode("utf-16-le"), "is UTF-16"), ("[server]\r\n".encode("utf-16-be"), "is UTF-16"),
    (b"\x1f\x8b\x08\0\0", "gzip"), (b"PK\x03\x04\0\0", "zip"), (b"# f\xfcr uns\n{}\n", "not UTF-8"),
    (b"# a\r{}\r".replace(b"{}", b"x"), "carriage return"), (b"\n\n{}\0\n".replace(b"{}", b"x = 1"), "NUL"),
    (bytes(1 << 12), "nothing but NUL bytes")])
def test_what_is_something_else_is_told_what_it_is(tmp_path: Path, read: Read, content: bytes, why: str) -> None:
    with pytest.raises(DelegatorError) as caught:
        read(content, tmp_path)
    assert why in caught.value.detail
    assert caught.value.hint


def test_settings_that_are_endless_are_refused_not_cut(tmp_path: Path) -> None:
    (tmp_path / "delegator.toml").write_bytes(b"[server]\nport = 1\n" + b"#\n" * (1 << 20))
    with pytest.raises(DelegatorError, match="longer than"):
        config.load(tmp_path / "delegator.toml", {})


# --- nobody else decides what a line is -------------------------------------------------------------------------------

ALLOWED = {
    "pki/tables.py": "the reader of tables",
    "delegator/net/dns.py": "the system's own list of name servers, resolv.conf(5)",
    "pki/headings.py": "the header of a table, by the same parser",
    "delegator/config.py": "the one reader of TOML",
    "delegator/cli/checking_ports.py": "what the kernel tells in /proc",
    "delegator/store/migrate.py": "our own schema, from our own package",
    "delegator/net/channel.py": "lines between our own processes",
    "delegator/store/engines/postgres/fencing.py": "what our own processes tell each other, as JSON",
    "delegator/demo/world.py": "the demonstration's own log and its child's first line",
    "delegator/demo/show.py": "the demonstration's own log and the device's own state",
    "delegator/device/asking.py": "certificates; the client has the standard library alone",
    "delegator/device/hook.py": "what the kernel tells in /proc; the client has the standard library alone",
    "delegator/device/tls.py": "certificates; the client has the standard library alone",
    "delegator/device/enrolling.py": "certificates and requests; the client has the standard library alone",
}
"""Who reads text in lines, and why it may."""
_CALLS = {"read_text", "readline", "readlines", "reader", "DictReader"}
_ENCODINGS = {"utf-8-sig", "utf_8_sig"}
_ENDS = {"\n", "\r\n", "\r", b"\n", b"\r\n", b"\r"}


def _reads_lines(node: ast.AST) -> bool:
    """Whether it is a call that decides what text or a line of a file is."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and node.value in _ENCODINGS
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    name, words = node.func.attr, [one.value for one in node.args if isinstance(one, ast.Constant)]
    if name in _CALLS:
        return True
    if name in ("loads", "load") and isinstance(node.func.value, ast.Name) and node.func.value.id == "tomllib":
        return True
    if name in ("File", "open_file"):
        return not {"rb", "wb"} & set(words)
    if name in ("partition", "split", "rstrip", "removesuffix") and any(word in _ENDS for word in words):
        return _is_read(node.func.value)
    return name == "splitlines" and _is_read(node.func.value)


def _is_read(value: ast.AST) -> bool:
    """Whether what is cut into lines was read from a file in the same expression."""
    names = ("read", "read_bytes", "read_text", "read_private")
    return any(getattr(one, "attr", getattr(one, "id", None)) in names for one in ast.walk(value))


def test_no_other_place_decides_what_a_line_of_a_file_is() -> None:
    found = {str(path.relative_to(ROOT)) for room in ("delegator", "pki") for path in (ROOT / room).rglob("*.py")
             if any(map(_reads_lines, ast.walk(ast.parse(path.read_text(encoding="utf-8")))))}
    assert found <= set(ALLOWED), "read it with pki.text, pki.tables or delegator.secrecy.read_secret"


@pytest.mark.parametrize("line", [
    "path.read_text(encoding='utf-8')", "path.read_bytes().partition(b'\\n')[0]", "tomllib.load(file)",
    "files.read(path).decode('utf-8', 'replace').splitlines()", "file.readline()", "csv.reader(lines)",
    "open(path, encoding='utf-8-sig')", "click.File('r')", "click.open_file(name)",
    "disk.read_private(path)[:9].rstrip(b'\\r\\n')"])
def test_the_ways_in_which_it_was_decided_anew_are_found(line: str) -> None:
    assert any(map(_reads_lines, ast.walk(ast.parse(line))))
